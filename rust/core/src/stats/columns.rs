//! Mean, standard deviation and L2 norm of every column.
//!
//! A tile of 256 columns goes down all rows of a chunk: Σd and Σd² of d = x − pivot, in f64, with the column's running
//! mean (at first, its first value) as pivot, then one merge per column ([`crate::kernels`], `power`). A pivot that is
//! itself one of the values is at most √n standard deviations away, so M2 = Σd² − (Σd)²/n loses at most a factor n of
//! 2^-53. A tile with values that are not finite, or whose squares leave f64, is gathered column by column instead.

use super::rows::RowPartial;
use crate::dtype::Dtype;
use crate::kernels::{Isa, shells, wide};

const TILE: usize = 256;

/// The columns of a run of components.
#[derive(Debug, Clone)]
pub struct ColumnMoments {
    dtype: Dtype,
    columns: Vec<RowPartial>,
}

/// Running sums of a tile.
pub(super) struct Tile {
    pivot: [f64; TILE],
    s1: [f64; TILE],
    s2: [f64; TILE],
}

/// A rectangle of components within a chunk.
#[derive(Clone, Copy)]
struct Rect {
    /// Index in the chunk of its first component.
    at: u64,
    column: usize,
    width: usize,
    rows: usize,
}

shells!(add_row, add_row_v3, add_row_v4, add_row_body, (x: &[f64], tile: &mut Tile) -> bool);

/// Adds one row of a tile; false if some value is not finite or its square would leave f64.
#[inline(always)]
fn add_row_body<const FMA: bool>(x: &[f64], tile: &mut Tile) -> bool {
    let (low, high) = (2f64.powi(-400), 2f64.powi(400));
    let mut outside = 0u64;
    let Tile { pivot, s1, s2 } = tile;
    for (((&x, p), s1), s2) in x.iter().zip(pivot).zip(s1).zip(s2) {
        let a = x.abs();
        let inside = (a < high) & ((a >= low) | (a == 0.0));
        outside |= u64::from(!inside);
        let d = x - *p;
        *s1 += d;
        *s2 = if FMA { d.mul_add(d, *s2) } else { d * d + *s2 };
    }
    outside == 0
}

impl ColumnMoments {
    /// `columns` > 0 components per row.
    pub fn new(dtype: Dtype, columns: u64) -> Self {
        assert!(columns > 0, "a row needs components");
        let dtype = if dtype == Dtype::C64 { Dtype::F32 } else { dtype };
        Self { dtype, columns: vec![RowPartial::new(); columns as usize] }
    }

    /// Adds `n` components that begin at bit `first_bit` of `bytes` and at flat component `first` of the tensor, which
    /// may lie inside a row.
    pub fn update(&mut self, isa: Isa, bytes: &[u8], first_bit: u32, n: u64, first: u64) {
        let width = self.columns.len() as u64;
        let mut at = 0;
        while at < n {
            let column = (first + at) % width;
            let (rows, len) = if column == 0 && n - at >= width {
                ((n - at) / width, width)
            } else {
                (1, (width - column).min(n - at))
            };
            let mut offset = 0;
            while offset < len {
                let tile = (len - offset).min(TILE as u64);
                let rect = Rect {
                    at: at + offset,
                    column: (column + offset) as usize,
                    width: tile as usize,
                    rows: rows as usize,
                };
                self.rect(isa, bytes, first_bit, rect);
                offset += tile;
            }
            at += rows * len;
        }
    }

    /// Decodes `out.len()` components from index `at` of the chunk; returns how many are finite.
    fn load(&self, isa: Isa, bytes: &[u8], first_bit: u32, at: u64, out: &mut [f64]) -> usize {
        let bit = u64::from(first_bit) + at * u64::from(self.dtype.bits());
        wide::load(isa, self.dtype, &bytes[(bit / 8) as usize..], (bit % 8) as u32, out)
    }

    fn rect(&mut self, isa: Isa, bytes: &[u8], first_bit: u32, rect: Rect) {
        let stride = self.columns.len() as u64;
        let mut buffer = [0.0; TILE];
        let x = &mut buffer[..rect.width];
        let mut tile = Tile { pivot: [0.0; TILE], s1: [0.0; TILE], s2: [0.0; TILE] };
        self.load(isa, bytes, first_bit, rect.at, x);
        let columns = &self.columns[rect.column..rect.column + rect.width];
        for ((pivot, column), &x) in tile.pivot.iter_mut().zip(columns).zip(&*x) {
            *pivot = if column.count() > 0 { column.mean() } else { x };
        }
        let mut safe = true;
        for row in 0..rect.rows as u64 {
            self.load(isa, bytes, first_bit, rect.at + row * stride, x);
            safe &= add_row(isa, x, &mut tile);
        }
        if !safe {
            return self.gather(isa, bytes, first_bit, rect);
        }
        let n = rect.rows as f64;
        for (j, column) in self.columns[rect.column..rect.column + rect.width].iter_mut().enumerate() {
            let mean = tile.s1[j] / n;
            let m2 = (tile.s2[j] - mean * tile.s1[j]).max(0.0);
            column.merge(&RowPartial::of(rect.rows as u64, tile.pivot[j] + mean, m2));
        }
    }

    /// The slow way: every column of the rectangle as a vector of its finite values.
    #[cold]
    fn gather(&mut self, isa: Isa, bytes: &[u8], first_bit: u32, rect: Rect) {
        let stride = self.columns.len() as u64;
        let mut scratch = wide::Scratch::new();
        for j in 0..rect.width {
            let mut row = 0;
            while row < rect.rows {
                let take = (rect.rows - row).min(wide::BLOCK);
                let x = &mut scratch.0[..take];
                let mut finite = 0;
                for (i, x) in x.iter_mut().enumerate() {
                    let at = rect.at + j as u64 + (row + i) as u64 * stride;
                    finite += self.load(isa, bytes, first_bit, at, std::slice::from_mut(x));
                }
                if finite > 0 {
                    let power = wide::reduce(isa, wide::compact(x, finite)).power;
                    self.columns[rect.column + j].merge(&RowPartial::from_power(&power));
                }
                row += take;
            }
        }
    }

    /// Adds another run of the same tensor; any order, but a fixed one for the same bits.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.columns.len(), other.columns.len(), "states of one tensor");
        for (a, b) in self.columns.iter_mut().zip(&other.columns) {
            a.merge(b);
        }
    }

    /// The columns, first to last.
    pub fn columns(&self) -> &[RowPartial] {
        &self.columns
    }
}
