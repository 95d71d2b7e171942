//! Mean, standard deviation and L2 norm of every row.
//!
//! A row is `row_len` consecutive components. A state covers a run of components that may begin and end inside a row;
//! the next run's state then completes it. Rows keep mean and M2 only, since Σx² = M2 + n·mean² loses nothing.

use crate::dtype::Dtype;
use crate::kernels::power::Power;
use crate::kernels::{Isa, wide};

/// One row, or the part of it seen so far: its finite values only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowPartial {
    n: u64,
    mean: f64,
    m2: f64,
    exponent: i32,
}

impl RowPartial {
    /// Nothing seen.
    pub fn new() -> Self {
        Self::from_power(&Power::EMPTY)
    }

    /// Of `n` values; no scale.
    #[inline]
    pub(crate) fn of(n: u64, mean: f64, m2: f64) -> Self {
        Self { n, mean, m2, exponent: 0 }
    }

    #[inline]
    pub(crate) fn from_power(p: &Power) -> Self {
        Self { n: p.n, mean: p.mean, m2: p.m2, exponent: p.exponent }
    }

    fn power(&self) -> Power {
        Power { n: self.n, exponent: self.exponent, mean: self.mean, m2: self.m2, ..Power::EMPTY }
    }

    /// Adds another part of the same row.
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        // The usual case of `Power::merge`, without what a row does not keep: columns merge once per few values.
        if self.exponent == other.exponent && self.n > 0 && other.n > 0 {
            let (na, nb) = (self.n as f64, other.n as f64);
            let share = nb / (na + nb);
            let d = other.mean - self.mean;
            self.n += other.n;
            self.mean = if na >= nb { self.mean + d * share } else { other.mean - d * (1.0 - share) };
            self.m2 += other.m2 + d * d * na * share;
        } else {
            self.merge_any(other);
        }
    }

    #[cold]
    fn merge_any(&mut self, other: &Self) {
        let mut p = self.power();
        p.merge(&other.power());
        *self = Self::from_power(&p);
    }

    /// Finite values seen.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// Mean of the finite values; NaN if there are none.
    pub fn mean(&self) -> f64 {
        self.power().mean()
    }

    /// Their standard deviation (ddof 0); NaN if there are none.
    pub fn std(&self) -> f64 {
        self.power().std()
    }

    /// √ of their sum of squares; 0 if there are none.
    pub fn l2(&self) -> f64 {
        self.power().l2()
    }
}

impl Default for RowPartial {
    fn default() -> Self {
        Self::new()
    }
}

/// The rows that a run of components touches.
#[derive(Debug, Clone)]
pub struct RowMoments {
    row_len: u64,
    first: u64,
    next: u64,
    /// Components from `next` to the end of its row.
    left: u64,
    rows: Vec<RowPartial>,
}

impl RowMoments {
    /// Rows of `row_len` > 0 components; the run begins at flat component `first` of the tensor.
    pub fn new(row_len: u64, first: u64) -> Self {
        assert!(row_len > 0, "a row needs components");
        Self { row_len, first, next: first, left: row_len - first % row_len, rows: Vec::new() }
    }

    /// Components per row.
    pub fn row_len(&self) -> u64 {
        self.row_len
    }

    /// Components from the next one to the end of its row.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Adds the next `n` components, which lie in one row.
    #[inline]
    pub(crate) fn push(&mut self, n: u64, part: RowPartial) {
        match self.rows.last_mut() {
            Some(last) if self.left < self.row_len => last.merge(&part),
            _ => self.rows.push(part),
        }
        self.next += n;
        self.left -= n;
        if self.left == 0 {
            self.left = self.row_len;
        }
    }

    /// Adds the next `n` components, decoded to f64. `first_bit` as in [`crate::kernels::decode_f64`].
    pub(super) fn update_wide(&mut self, isa: Isa, dtype: Dtype, bytes: &[u8], first_bit: u32, n: u64) {
        let mut scratch = wide::Scratch::new();
        let components = dtype.components();
        let mut done = 0;
        while done < n {
            // A C64 row is a whole number of elements, so `take` is even whenever `done` is.
            let take = self.left().min(n - done).min(wide::BLOCK as u64);
            let bit = u64::from(first_bit) + done / components * u64::from(dtype.bits());
            let x = &mut scratch.0[..take as usize];
            let finite = wide::load(isa, dtype, &bytes[(bit / 8) as usize..], (bit % 8) as u32, x);
            let x = if finite < x.len() { wide::compact(x, finite) } else { x };
            let power = if x.is_empty() { Power::EMPTY } else { wide::reduce(isa, x).power };
            self.push(take, RowPartial::from_power(&power));
            done += take;
        }
    }

    /// Flat component index, in the tensor, of the next component.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Appends the run that follows.
    pub fn merge(&mut self, later: &Self) {
        assert!(later.first == self.next && later.row_len == self.row_len, "runs must follow each other");
        let mut rows = later.rows.as_slice();
        if !later.first.is_multiple_of(self.row_len)
            && let (Some(last), Some((head, rest))) = (self.rows.last_mut(), rows.split_first())
        {
            last.merge(head);
            rows = rest;
        }
        self.rows.extend_from_slice(rows);
        (self.next, self.left) = (later.next, later.left);
    }

    /// The rows, first to last.
    pub fn rows(&self) -> &[RowPartial] {
        &self.rows
    }
}
