//! Transposes a rectangle of 32-bit words, so that kernels find a row's words side by side.
//!
//! Blocks of 4 × 4 are transposed in registers. All words of a stored row are taken before the next row's, since a
//! stored row is far from the next and a cache line holds 16 words; rows of the result lie an odd number of cache lines
//! apart, since a power of two would put them all into one set of the cache.

use crate::kernels::prefetch;

/// A word of packed codes, as stored.
pub(super) type Word = [u8; 4];

/// Words of a cache line.
const LINE: usize = 16;
/// How many stored rows ahead to prefetch: their addresses jump, so that the machine does not guess them.
const AHEAD: usize = 8;

/// A transposed rectangle: row `j` holds column `j` of what was transposed.
#[derive(Default)]
pub(super) struct Transposed {
    words: Vec<Word>,
    pub stride: usize,
}

impl Transposed {
    /// Transposes the `rows` × `columns` words at the start of `from`, whose rows are `from_stride` words apart.
    pub fn transpose(&mut self, from: &[Word], from_stride: usize, rows: usize, columns: usize) {
        self.stride = (rows.div_ceil(LINE) | 1) * LINE;
        let stride = self.stride;
        self.words.resize(stride * columns, [0; 4]);
        let to = &mut self.words[..];
        let (whole_rows, whole_columns) = (rows / 4 * 4, columns / 4 * 4);
        for i in (0..whole_rows).step_by(4) {
            fetch_ahead(from, (i + AHEAD) * from_stride, from_stride, (4, columns));
            let row = |k: usize| from[(i + k) * from_stride..][..whole_columns].as_chunks::<4>().0.iter();
            let blocks = row(0).zip(row(1)).zip(row(2)).zip(row(3));
            for ((((a, b), c), d), to) in blocks.zip(to.chunks_exact_mut(4 * stride)) {
                for (to, transposed) in to.chunks_exact_mut(stride).zip(transpose_4([a, b, c, d])) {
                    to[i..i + 4].copy_from_slice(&transposed);
                }
            }
        }
        for i in 0..rows {
            let first = if i < whole_rows { whole_columns } else { 0 };
            for j in first..columns {
                to[j * stride + i] = from[i * from_stride + j];
            }
        }
    }

    /// Words from row `j` on.
    pub fn row_onwards(&self, j: usize) -> &[Word] {
        &self.words[j * self.stride..]
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_4(block: [&[Word; 4]; 4]) -> [[Word; 4]; 4] {
    use std::arch::x86_64::*;
    let mut out = [[[0; 4]; 4]; 4];
    // SAFETY: SSE2 belongs to x86-64; loads and stores are of the 16 bytes of an array each.
    unsafe {
        let [a, b, c, d] = block.map(|row| _mm_loadu_si128(row.as_ptr().cast()));
        let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
        let (high_ab, high_cd) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
        let transposed = [
            _mm_unpacklo_epi64(ab, cd),
            _mm_unpackhi_epi64(ab, cd),
            _mm_unpacklo_epi64(high_ab, high_cd),
            _mm_unpackhi_epi64(high_ab, high_cd),
        ];
        for (row, transposed) in out.iter_mut().zip(transposed) {
            _mm_storeu_si128(row.as_mut_ptr().cast(), transposed);
        }
    }
    out
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transpose_4(block: [&[Word; 4]; 4]) -> [[Word; 4]; 4] {
    std::array::from_fn(|k| [block[0][k], block[1][k], block[2][k], block[3][k]])
}

/// Asks for the lines of (rows, columns) words from word `first` on.
#[inline(always)]
pub(super) fn fetch_ahead(from: &[Word], first: usize, stride: usize, (rows, columns): (usize, usize)) {
    for k in 0..rows {
        for j in (0..columns).step_by(LINE) {
            prefetch(from.as_ptr().wrapping_add(first + k * stride + j));
        }
    }
}

/// Asks for the lines of `rows` rows of output, to which value `first` and those `stride` further belong.
#[inline(always)]
pub(super) fn fetch_lines(out: &[f32], first: usize, stride: usize, rows: usize) {
    #[cfg(target_arch = "x86_64")]
    for k in 0..rows {
        let at = out.as_ptr().wrapping_add(first + k * stride);
        // SAFETY: SSE belongs to x86-64, and a prefetch of any address does nothing but fetch.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (out, first, stride, rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_finds_its_place() {
        let mut transposed = Transposed::default();
        for (rows, columns, stride) in [(0, 0, 0), (1, 1, 1), (4, 4, 4), (5, 7, 9), (8, 3, 3), (3, 8, 10), (17, 33, 40)]
        {
            let from: Vec<Word> = (0..(rows * stride) as u32).map(u32::to_le_bytes).collect();
            transposed.transpose(&from, stride, rows, columns);
            for i in 0..rows {
                for j in 0..columns {
                    assert_eq!(transposed.row_onwards(j)[i], from[i * stride + j], "{rows}x{columns} {i},{j}");
                }
            }
        }
    }
}
