//! Standardises vectors in place: subtracts a shift, scales each coordinate, projects one direction out, normalises.
//!
//! The vectors are the rows of a matrix or its columns; either is gone through a few vectors at a time, so that what is
//! read twice is still in the cache. Sums run in fixed lanes (rows) or coordinate by coordinate (columns) without fused
//! operations: the same bits whatever the instruction set.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::kernels::{Isa, shells};

const LANES: usize = 16;
const TOGETHER: usize = 64;
const STEP: usize = 1 << 17; // values between two checks for cancellation

/// What becomes of a vector x: `y = (x - shift) * scale - <x - shift, weights> along`, coordinate by coordinate, and
/// `y / |y|` where `unit` (zero stays zero).
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Standard<'a> {
    pub shift: &'a [f32],
    pub weights: &'a [f32],
    pub scale: &'a [f32],
    pub along: &'a [f32],
    pub unit: bool,
}

impl Standard<'_> {
    fn check(&self, size: usize, n: usize) -> Result<()> {
        let lengths = [self.shift, self.weights, self.scale, self.along].map(<[f32]>::len);
        if lengths.iter().any(|&length| length != n) || (n == 0 && size > 0) || (n > 0 && !size.is_multiple_of(n)) {
            let why = format!("{size} values in vectors of {n}, and {lengths:?} coordinates to shift and stretch");
            return Err(Error::usage("bad_vectors", why));
        }
        Ok(())
    }
}

/// Every row of `x` (row-major, `n` columns).
///
/// Errors: `Usage` where sizes don't go together; `Cancelled` through `control`, with some vectors done.
pub fn rows(isa: Isa, x: &mut [f32], n: usize, by: &Standard, control: &Control) -> Result<()> {
    by.check(x.len(), n)?;
    for row in x.chunks_exact_mut(n.max(1)) {
        control.check()?;
        one_row(isa, row, by);
    }
    Ok(())
}

/// Every column of `x` (row-major, `n` rows).
///
/// Errors: `Usage` where sizes don't go together; `Cancelled` through `control`, with some vectors done.
pub fn columns(isa: Isa, x: &mut [f32], n: usize, by: &Standard, control: &Control) -> Result<()> {
    by.check(x.len(), n)?;
    let width = x.len().checked_div(n).unwrap_or(0);
    for first in (0..width).step_by(TOGETHER) {
        control.check()?;
        some_columns(isa, x, width, first, TOGETHER.min(width - first), by);
    }
    Ok(())
}

/// The largest absolute value of each of `pieces` equal parts of `x`; NaN or infinite where one of its values is.
///
/// Errors: `Usage` where `x` has no such parts; `Cancelled` through `control`.
pub fn peaks(isa: Isa, x: &[f32], pieces: usize, control: &Control) -> Result<Vec<f32>> {
    if pieces == 0 || !x.len().is_multiple_of(pieces) {
        let why = format!("{} values in {pieces} equal parts", x.len());
        return Err(Error::usage("bad_vectors", why));
    }
    let n = x.len() / pieces;
    (0..pieces)
        .map(|i| {
            x[i * n..(i + 1) * n].chunks(STEP).try_fold(0, |top, part| {
                control.check()?;
                Ok(peak(isa, part).max(top))
            })
        })
        .map(|top| top.map(f32::from_bits))
        .collect()
}

shells!(one_row, one_row_v3, one_row_v4, one_row_body, (x: &mut [f32], by: &Standard));
shells!(
    some_columns, some_columns_v3, some_columns_v4, some_columns_body,
    (x: &mut [f32], width: usize, first: usize, n: usize, by: &Standard)
);
shells!(peak, peak_v3, peak_v4, peak_body, (x: &[f32]) -> u32);

/// One over the length; 0 for zero.
#[inline(always)]
fn over(square: f32) -> f32 {
    if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }
}

#[inline(always)]
fn one_row_body<const FMA: bool>(x: &mut [f32], by: &Standard) {
    let n = x.len();
    let (shift, weights, scale, along) = (&by.shift[..n], &by.weights[..n], &by.scale[..n], &by.along[..n]);
    let whole = n / LANES * LANES;
    let mut sums = [0.0f32; LANES];
    for at in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += (x[at + lane] - shift[at + lane]) * weights[at + lane];
        }
    }
    let rest = (whole..n).map(|j| (x[j] - shift[j]) * weights[j]).sum::<f32>();
    let along_it = sums.iter().sum::<f32>() + rest;
    let mut squares = [0.0f32; LANES];
    for at in (0..whole).step_by(LANES) {
        for (lane, square) in squares.iter_mut().enumerate() {
            let j = at + lane;
            let y = (x[j] - shift[j]) * scale[j] - along_it * along[j];
            x[j] = y;
            *square += y * y;
        }
    }
    let mut square = squares.iter().sum::<f32>();
    for j in whole..n {
        let y = (x[j] - shift[j]) * scale[j] - along_it * along[j];
        x[j] = y;
        square += y * y;
    }
    if by.unit {
        let factor = over(square);
        x.iter_mut().for_each(|y| *y *= factor);
    }
}

/// `n` columns from `first` on. What stands beyond them in the lanes is zero and nobody looks at it.
#[inline(always)]
fn some_columns_body<const FMA: bool>(x: &mut [f32], width: usize, first: usize, n: usize, by: &Standard) {
    let mut along_it = [0.0f32; TOGETHER];
    for (c, row) in x.chunks_exact(width).enumerate() {
        let (shift, weight) = (by.shift[c], by.weights[c]);
        for (sum, &x) in along_it.iter_mut().zip(&row[first..first + n]) {
            *sum += (x - shift) * weight;
        }
    }
    let mut squares = [0.0f32; TOGETHER];
    for (c, row) in x.chunks_exact_mut(width).enumerate() {
        let (shift, scale, along) = (by.shift[c], by.scale[c], by.along[c]);
        for ((x, square), &sum) in row[first..first + n].iter_mut().zip(&mut squares).zip(&along_it) {
            let y = (*x - shift) * scale - sum * along;
            *x = y;
            *square += y * y;
        }
    }
    if by.unit {
        let factors = squares.map(over);
        for row in x.chunks_exact_mut(width) {
            row[first..first + n].iter_mut().zip(&factors).for_each(|(y, factor)| *y *= factor);
        }
    }
}

/// Bits of the largest: without its sign a float's bits, read as a whole number, stand in the order of its size, and
/// NaN above infinity.
#[inline(always)]
fn peak_body<const FMA: bool>(x: &[f32]) -> u32 {
    let size = |x: &f32| (x.to_bits() & 0x7fff_ffff) as i32;
    let mut lanes = [0i32; 2 * LANES];
    let (whole, rest) = x.as_chunks::<{ 2 * LANES }>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane = (*lane).max(size(x)));
    }
    lanes.into_iter().chain(rest.iter().map(size)).fold(0, i32::max) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn draw(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    /// As the definition says, in f64.
    fn plain(x: &[f32], by: &Standard) -> Vec<f64> {
        let at = |v: &[f32], j: usize| f64::from(v[j]);
        let shifted: Vec<f64> = (0..x.len()).map(|j| at(x, j) - at(by.shift, j)).collect();
        let along: f64 = shifted.iter().enumerate().map(|(j, x)| x * at(by.weights, j)).sum();
        let y: Vec<f64> =
            shifted.iter().enumerate().map(|(j, x)| x * at(by.scale, j) - along * at(by.along, j)).collect();
        let length = y.iter().map(|y| y * y).sum::<f64>().sqrt();
        if by.unit && length > 0.0 { y.iter().map(|y| y / length).collect() } else { y }
    }

    #[test]
    fn rows_and_columns_are_what_the_definition_says_with_the_same_bits_everywhere() {
        for n in [1usize, 15, 16, 33, 200] {
            for m in [1usize, 3, 64, 130] {
                let parts: Vec<Vec<f32>> = (0..4).map(|k| draw(n, 7 + k)).collect();
                for unit in [false, true] {
                    let by =
                        Standard { shift: &parts[0], weights: &parts[1], scale: &parts[2], along: &parts[3], unit };
                    let x = draw(n * m, 3);
                    let transposed: Vec<f32> = (0..n * m).map(|k| x[(k % m) * n + k / m]).collect();
                    let mut seen: Vec<(Vec<f32>, Vec<f32>)> = Vec::new();
                    for isa in Isa::available() {
                        let (mut a, mut b) = (x.clone(), transposed.clone());
                        rows(isa, &mut a, n, &by, &Control::new()).unwrap();
                        columns(isa, &mut b, n, &by, &Control::new()).unwrap();
                        seen.push((a, b));
                    }
                    assert!(seen.iter().all(|found| *found == seen[0]));
                    for (i, row) in x.chunks(n).enumerate() {
                        for (j, want) in plain(row, &by).into_iter().enumerate() {
                            for got in [seen[0].0[i * n + j], seen[0].1[j * m + i]] {
                                assert!((f64::from(got) - want).abs() < 3e-5, "{n} {m} {i} {j}: {got} {want}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn zero_stays_zero_and_wrong_sizes_are_refused() {
        let one = [1.0f32, 1.0];
        let by = Standard { shift: &[0.0, 0.0], weights: &one, scale: &one, along: &[0.0, 0.0], unit: true };
        let mut zero = [0.0f32; 4];
        rows(Isa::detect(), &mut zero, 2, &by, &Control::new()).unwrap();
        assert_eq!(zero, [0.0; 4]);
        columns(Isa::detect(), &mut [], 2, &by, &Control::new()).unwrap();
        for n in [0, 1, 3] {
            assert_eq!(rows(Isa::detect(), &mut zero, n, &by, &Control::new()).unwrap_err().code, "bad_vectors");
            assert_eq!(columns(Isa::detect(), &mut zero, n, &by, &Control::new()).unwrap_err().code, "bad_vectors");
        }
    }

    #[test]
    fn a_caller_who_left_ends_it() {
        let (control, one) = (Control::new(), [1.0f32]);
        control.cancel();
        let by = Standard { shift: &one, weights: &one, scale: &one, along: &one, unit: true };
        for work in [rows, columns] {
            let error = work(Isa::detect(), &mut [1.0], 1, &by, &control).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Cancelled);
        }
        assert_eq!(peaks(Isa::detect(), &one, 1, &control).unwrap_err().kind, ErrorKind::Cancelled);
    }

    #[test]
    fn peaks_see_every_value() {
        for isa in Isa::available() {
            for n in [1usize, 31, 32, 100] {
                for at in 0..n {
                    let mut x = vec![0.5f32; 2 * n];
                    x[n + at] = -3.0;
                    assert_eq!(peaks(isa, &x, 2, &Control::new()).unwrap(), [0.5, 3.0]);
                    x[at] = f32::NAN;
                    x[n + at] = f32::NEG_INFINITY;
                    let found = peaks(isa, &x, 2, &Control::new()).unwrap();
                    assert!(found[0].is_nan() && found[1] == f32::INFINITY);
                }
            }
            assert_eq!(peaks(isa, &[], 3, &Control::new()).unwrap(), [0.0; 3]);
            assert_eq!(peaks(isa, &[1.0], 2, &Control::new()).unwrap_err().code, "bad_vectors");
            assert_eq!(peaks(isa, &[], 0, &Control::new()).unwrap_err().code, "bad_vectors");
        }
    }
}
