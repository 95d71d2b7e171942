//! The column with the largest score in each row of a matrix of scores, given tile by tile (row-wise argmax).
//!
//! Scores are sums of one or two products of matrices, made a tile at a time; this goes through a tile once while it is
//! in the cache. A row's maximum is taken in fixed lanes, which compilers vectorise, and its column is looked up only
//! where it beats what was found in earlier tiles.

use crate::error::{Error, Result};
use crate::kernels::{Isa, shells};

const LANES: usize = 16;
const STRETCH: usize = 64;

/// Scores (rows × columns, row-major), and whether a negative one counts as such (else by its size).
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Part<'a> {
    pub scores: &'a [f32],
    pub signed: bool,
}

/// Where a row's sum exceeds `best`, put it there, and its column (plus `start`) in `at`; of equal ones the first. NaN
/// never counts.
///
/// Errors: `Usage` for parts of unequal or no whole number of rows, or no or more than two parts.
pub fn nearest(isa: Isa, parts: &[Part], start: i64, best: &mut [f32], at: &mut [i64]) -> Result<()> {
    let rows = best.len();
    let n = parts.first().map_or(0, |part| part.scores.len());
    let whole = if rows == 0 { n == 0 } else { n.is_multiple_of(rows) };
    if !whole || at.len() != rows || parts.iter().any(|part| part.scores.len() != n) {
        let why = format!("{n} scores for {rows} rows and {} columns found, in {} parts", at.len(), parts.len());
        return Err(Error::usage("bad_scores", why));
    }
    match *parts {
        [x] => tile(isa, x, None, start, best, at),
        [x, y] => tile(isa, x, Some(y), start, best, at),
        _ => {
            let why = format!("{} parts: one or two are added up", parts.len());
            return Err(Error::usage("bad_scores", why));
        }
    }
    Ok(())
}

shells!(tile, tile_v3, tile_v4, tile_body, (x: Part, y: Option<Part>, start: i64, best: &mut [f32], at: &mut [i64]));

#[inline(always)]
fn tile_body<const FMA: bool>(x: Part, y: Option<Part>, start: i64, best: &mut [f32], at: &mut [i64]) {
    let other = y.unwrap_or(x);
    match (x.signed, y.map(|y| y.signed)) {
        (true, None) => each(x, other, start, best, at, |a, _| a),
        (false, None) => each(x, other, start, best, at, |a, _| a.abs()),
        (true, Some(true)) => each(x, other, start, best, at, |a, b| a + b),
        (true, Some(false)) => each(x, other, start, best, at, |a, b| a + b.abs()),
        (false, Some(true)) => each(x, other, start, best, at, |a, b| a.abs() + b),
        (false, Some(false)) => each(x, other, start, best, at, |a, b| a.abs() + b.abs()),
    }
}

/// Row by row, with a way to add up two scores that is compiled in.
#[inline(always)]
fn each(x: Part, y: Part, start: i64, best: &mut [f32], at: &mut [i64], sum: impl Fn(f32, f32) -> f32) {
    let columns = if best.is_empty() { 0 } else { x.scores.len() / best.len() };
    if columns == 0 {
        return;
    }
    let rows = x.scores.chunks_exact(columns).zip(y.scores.chunks_exact(columns));
    for ((x, y), (best, at)) in rows.zip(best.iter_mut().zip(at)) {
        let top = largest(x, y, &sum);
        if top > *best {
            // The maximum is one of the sums.
            if let Some(column) = column_of(top, x, y, &sum) {
                (*best, *at) = (top, start + column as i64);
            }
        }
    }
}

#[inline(always)]
fn largest(x: &[f32], y: &[f32], sum: &impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(x).zip(y) {
            let s = sum(a, b);
            *lane = if s > *lane { s } else { *lane };
        }
    }
    let rest = x_rest.iter().zip(y_rest).map(|(&a, &b)| sum(a, b));
    lanes.into_iter().chain(rest).fold(f32::NEG_INFINITY, |top, s| if s > top { s } else { top })
}

/// The first column with this sum. Stretches without it are passed over as a whole, which compilers vectorise.
#[inline(always)]
fn column_of(top: f32, x: &[f32], y: &[f32], sum: &impl Fn(f32, f32) -> f32) -> Option<usize> {
    let has = |(x, y): (&[f32], &[f32])| x.iter().zip(y).fold(false, |any, (&a, &b)| any | (sum(a, b) == top));
    let before = STRETCH * x.chunks(STRETCH).zip(y.chunks(STRETCH)).position(has)?;
    let inside = x[before..].iter().zip(&y[before..]).position(|(&a, &b)| sum(a, b) == top)?;
    Some(before + inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One value after the other, as the definition says.
    fn plain(parts: &[Part], rows: usize, start: i64, best: &mut [f32], at: &mut [i64]) {
        let columns = parts[0].scores.len() / rows;
        for r in 0..rows {
            for c in 0..columns {
                let value = |part: &Part| part.scores[r * columns + c];
                let sum: f32 = parts.iter().map(|p| if p.signed { value(p) } else { value(p).abs() }).sum();
                if sum > best[r] {
                    (best[r], at[r]) = (sum, start + c as i64);
                }
            }
        }
    }

    #[test]
    fn every_kind_of_sum_finds_what_a_plain_loop_finds_tile_after_tile() {
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Few distinct values, so that ties are common, and a NaN now and then.
            let k = state >> 59;
            if k == 31 { f32::NAN } else { k as f32 - 15.0 }
        };
        let sizes = [(1, 1), (3, 15), (4, 16), (5, 100), (2, 0)];
        for (isa, (rows, columns)) in Isa::available().into_iter().flat_map(|isa| sizes.map(|size| (isa, size))) {
            for kinds in [&[true][..], &[false], &[true, true], &[true, false], &[false, true], &[false, false]] {
                let (mut best, mut at) = (vec![0.0; rows], vec![-1; rows]);
                let (mut best2, mut at2) = (best.clone(), at.clone());
                for tile in 0..3 {
                    let scores: Vec<Vec<f32>> =
                        kinds.iter().map(|_| (0..rows * columns).map(|_| draw()).collect()).collect();
                    let parts: Vec<Part> =
                        kinds.iter().zip(&scores).map(|(&signed, scores)| Part { scores, signed }).collect();
                    nearest(isa, &parts, tile * 1000, &mut best, &mut at).unwrap();
                    plain(&parts, rows, tile * 1000, &mut best2, &mut at2);
                }
                assert_eq!((best, at), (best2, at2), "{rows} x {columns}, {kinds:?}");
            }
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let part = Part { scores: &[1.0, 2.0, 3.0], signed: true };
        for (parts, rows) in [(&[part][..], 2), (&[], 1), (&[part, part, part], 1), (&[part], 0)] {
            let error = nearest(Isa::detect(), parts, 0, &mut vec![0.0; rows], &mut vec![-1; rows]).unwrap_err();
            assert_eq!(error.code, "bad_scores");
        }
    }
}
