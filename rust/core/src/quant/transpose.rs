//! Turns a rectangle of 32-bit words, so that kernels find a row's words side by side.

/// A word of packed codes, as stored.
pub(super) type Word = [u8; 4];

/// `to[j · rows + i] = from[i · stride + j]` for i below `rows`, j below `columns`.
///
/// `from` starts at the rectangle's first word; `to` is resized.
pub(super) fn transpose(from: &[Word], stride: usize, rows: usize, columns: usize, to: &mut Vec<Word>) {
    to.resize(rows * columns, [0; 4]);
    let (whole_rows, whole_columns) = (rows / 4 * 4, columns / 4 * 4);
    // Blocks of 4 by 4 stay in registers; by columns first, so that what is written stays in the first-level cache.
    for i in (0..whole_rows).step_by(4) {
        for j in (0..whole_columns).step_by(4) {
            let row = |k: usize| from[(i + k) * stride + j..].first_chunk::<4>().copied().unwrap_or_default();
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            for k in 0..4 {
                let target = &mut to[(j + k) * rows + i..][..4];
                target.copy_from_slice(&[a[k], b[k], c[k], d[k]]);
            }
        }
    }
    for i in 0..rows {
        let first = if i < whole_rows { whole_columns } else { 0 };
        for j in first..columns {
            to[j * rows + i] = from[i * stride + j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_finds_its_place() {
        for (rows, columns, stride) in [(0, 0, 0), (1, 1, 1), (4, 4, 4), (5, 7, 9), (8, 3, 3), (3, 8, 10), (17, 33, 40)]
        {
            let from: Vec<Word> = (0..(rows * stride) as u32).map(u32::to_le_bytes).collect();
            let mut to = vec![[9; 4]; 3];
            transpose(&from, stride, rows, columns, &mut to);
            assert_eq!(to.len(), rows * columns);
            for i in 0..rows {
                for j in 0..columns {
                    assert_eq!(to[j * rows + i], from[i * stride + j], "{rows}x{columns} {i},{j}");
                }
            }
        }
    }
}
