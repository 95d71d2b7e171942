//! Counts, extremes with their places, and four moments of a run of elements, as a state that merges.
//!
//! f32, bf16, f16 (and c64, as pairs of f32) go through f32 lanes ([`crate::kernels`], `lanes`) in pieces of at most
//! 8192 elements, and in one row each where there are rows; a block of 64 KiB is judged and merged at once. Its sums,
//! added up in f64, are trusted when they are finite, the mean of z = (x − pivot)·scale is at most half its standard
//! deviation (else the shift to the mean would cancel), and the mean of z² lies in [2^-50, 2^32] (else fourth powers
//! may leave f32). Where a block fails, its pieces are judged one by one, and one that fails is done again in f64 and
//! gives the pivot for what follows. All other types are f64 from the start. Weights as they usually are need no shift
//! and no scale ([`Pivot::NONE`], which every run starts with), and the kernels then leave both out. Merging is Pébay's
//! ([`crate::kernels`], `power`).

use super::extremes::earlier;
use super::rows::{RowMoments, RowPartial};
use super::summary::{Number, Summary};
use crate::dtype::{Class, Dtype};
use crate::kernels::extremes::{self, Bits};
use crate::kernels::lanes::{self, Bf16, F16, F32, Narrow, Piece, Pivot, Sums};
use crate::kernels::power::Power;
use crate::kernels::{Isa, decode_f64, sweep, wide};

/// Rows shorter than this are cheaper in f64, apart from the tensor's own sums.
const SHORT_ROW: u64 = 64;

/// Mergeable statistics of a run of elements of one dtype (of at least 8 bits).
#[derive(Debug, Clone)]
pub struct Moments {
    dtype: Dtype,
    n: u64,
    n_zero: u64,
    n_nan: u64,
    n_posinf: u64,
    n_neginf: u64,
    first_nan: Option<u64>,
    first_inf: Option<u64>,
    min: Option<Number>,
    max: Option<Number>,
    abs_max: Option<Number>,
    abs_max_index: u64,
    power: Power,
    pivot: Pivot,
}

fn less(a: Number, b: Number) -> bool {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => a < b,
        _ => a.to_f64() < b.to_f64(),
    }
}

impl Moments {
    /// Nothing seen yet.
    pub fn new(dtype: Dtype) -> Self {
        assert!(dtype.bits() >= 8, "types below a byte are counted, see Counts");
        Self {
            dtype,
            n: 0,
            n_zero: 0,
            n_nan: 0,
            n_posinf: 0,
            n_neginf: 0,
            first_nan: None,
            first_inf: None,
            min: None,
            max: None,
            abs_max: None,
            abs_max_index: 0,
            power: Power::EMPTY,
            pivot: Pivot::NONE,
        }
    }

    /// Adds the elements in `bytes`: whole elements, any alignment, any length. `first` is the flat component index of
    /// the first one in its tensor.
    pub fn update(&mut self, isa: Isa, bytes: &[u8], first: u64) {
        self.run(isa, bytes, first, None);
    }

    /// As [`update`](Self::update), and also adds the same components to `rows`, which must have come as far as
    /// `first`. Pieces end where rows end, so the tensor's moments may differ from those of `update` by rounding.
    pub fn update_rows(&mut self, isa: Isa, bytes: &[u8], first: u64, rows: &mut RowMoments) {
        if rows.row_len() < SHORT_ROW {
            self.run(isa, bytes, first, None);
            let n = bytes.len() as u64 * 8 / u64::from(self.dtype.bits()) * self.dtype.components();
            rows.update_wide(isa, self.word(), bytes, 0, n);
        } else {
            self.run(isa, bytes, first, Some(rows));
        }
    }

    /// The dtype of one component.
    fn word(&self) -> Dtype {
        if self.dtype == Dtype::C64 { Dtype::F32 } else { self.dtype }
    }

    fn run(&mut self, isa: Isa, bytes: &[u8], first: u64, rows: Option<&mut RowMoments>) {
        assert!(
            (bytes.len() as u64 * 8).is_multiple_of(u64::from(self.dtype.bits())),
            "bytes must hold whole elements"
        );
        match self.word() {
            Dtype::F32 => self.run_narrow::<F32>(isa, bytes, first, rows),
            Dtype::Bf16 => self.run_narrow::<Bf16>(isa, bytes, first, rows),
            Dtype::F16 => self.run_narrow::<F16>(isa, bytes, first, rows),
            _ => self.run_wide(isa, bytes, first, rows),
        }
    }

    fn run_narrow<K: Narrow>(&mut self, isa: Isa, bytes: &[u8], first: u64, mut rows: Option<&mut RowMoments>) {
        let mut first = first;
        let mut pieces = Vec::new();
        for block in bytes.chunks(lanes::BLOCK_BYTES) {
            self.block_narrow::<K>(isa, block, first, rows.as_deref_mut(), &mut pieces);
            first += (block.len() / K::WORD) as u64;
        }
    }

    /// `pieces` is scratch: the parts of the block that were summed at once, each in one row.
    fn block_narrow<K: Narrow>(
        &mut self,
        isa: Isa,
        block: &[u8],
        first: u64,
        rows: Option<&mut RowMoments>,
        pieces: &mut Vec<Piece>,
    ) {
        let n = block.len() / K::WORD;
        let mut bits = Bits::new::<K>();
        let most = lanes::SWEEP_BYTES / K::WORD;
        let (row, mut left) =
            rows.as_ref().map_or((usize::MAX, usize::MAX), |rows| (rows.row_len() as usize, rows.left() as usize));
        pieces.clear();
        // Rows that fit a sweep together share one.
        let (mut start, mut first_piece, mut at) = (0, 0, 0);
        while at < n {
            let len = left.min(n - at).min(most);
            if at + len - start > most {
                let part = &block[start * K::WORD..at * K::WORD];
                sweep::<K>(isa, part, &mut pieces[first_piece..], self.pivot, &mut bits);
                (start, first_piece) = (at, pieces.len());
            }
            pieces.push(Piece::new(len));
            at += len;
            left = if left == len { row } else { left - len };
        }
        sweep::<K>(isa, &block[start * K::WORD..], &mut pieces[first_piece..], self.pivot, &mut bits);

        let sign = extremes::sign::<K>();
        let extent = bits.extent::<K>(isa, block);
        let (lo, hi) = (extent.min, extent.max);
        let magnitude = extent.magnitude(sign);
        let special = !K::value(magnitude).is_finite();
        if !special {
            self.n_zero += extent.zeros;
            self.n += n as u64;
            self.widen(number::<K>(lo), number::<K>(hi));
            let abs = number::<K>(magnitude);
            if self.abs_max.is_none_or(|old| less(old, abs)) {
                // Absent only from a block that changed since its sweep: the scan will find that its file did.
                let offset = extremes::find_magnitude::<K>(isa, block, magnitude).unwrap_or(0);
                (self.abs_max, self.abs_max_index) = (Some(abs), first + offset);
            }
        }

        let pivot = self.pivot;
        let whole = if special || lo == hi { None } else { trusted(n as u64, total(pieces), pivot) };
        match (&whole, rows) {
            (Some(power), None) => self.power.merge(power),
            // One merge into the tensor's moments for all rows.
            (Some(power), Some(rows)) => {
                self.power.merge(power);
                let unit = 1.0 / f64::from(pivot.scale);
                let mut at = 0;
                for &Piece { len, sums } in &*pieces {
                    let part = if safe(len as u64, sums) {
                        let (mean, m2) =
                            Power::two_from_sums(len as u64, -f64::from(pivot.shift), sums.0[0], sums.0[1]);
                        RowPartial::of(len as u64, mean * unit, m2 * (unit * unit))
                    } else {
                        let part = &block[at * K::WORD..(at + len) * K::WORD];
                        RowPartial::from_power(&power_wide(isa, self.word(), part))
                    };
                    rows.push(len as u64, part);
                    at += len;
                }
            }
            (None, rows) => {
                let why = match (special, lo == hi) {
                    (true, _) => Apart::Special,
                    (_, true) => Apart::Constant(f64::from(K::value(lo))),
                    _ => Apart::Untrusted,
                };
                self.pieces_apart::<K>(isa, block, first, pieces, why, rows);
            }
        }
    }

    /// Each piece of a block that could not be taken as a whole.
    #[cold]
    fn pieces_apart<K: Narrow>(
        &mut self,
        isa: Isa,
        block: &[u8],
        first: u64,
        pieces: &[Piece],
        why: Apart,
        mut rows: Option<&mut RowMoments>,
    ) {
        let pivot = self.pivot;
        let mut at = 0;
        for &Piece { len, sums } in pieces {
            let part = &block[at * K::WORD..(at + len) * K::WORD];
            let power = match why {
                Apart::Special => self.full_wide(isa, part, first + at as u64),
                Apart::Constant(x) => Power::constant(len as u64, x),
                Apart::Untrusted => trusted(len as u64, sums, pivot).unwrap_or_else(|| {
                    let power = power_wide(isa, self.word(), part);
                    // Measured here and refused: what follows is likely to be alike.
                    self.pivot = pivot_for(&power).unwrap_or(self.pivot);
                    power
                }),
            };
            self.power.merge(&power);
            if let Some(rows) = rows.as_deref_mut() {
                rows.push(len as u64, RowPartial::from_power(&power));
            }
            at += len;
        }
    }

    fn run_wide(&mut self, isa: Isa, bytes: &[u8], first: u64, mut rows: Option<&mut RowMoments>) {
        let size = (self.word().bits() / 8) as usize;
        let n = bytes.len() / size;
        let mut at = 0;
        while at < n {
            let left = rows.as_ref().map_or(u64::MAX, |rows| rows.left());
            let len = left.min((n - at).min(wide::BLOCK) as u64) as usize;
            let power = self.full_wide(isa, &bytes[at * size..(at + len) * size], first + at as u64);
            self.power.merge(&power);
            if let Some(rows) = rows.as_deref_mut() {
                rows.push(len as u64, RowPartial::from_power(&power));
            }
            at += len;
        }
    }

    /// Everything but the moments of a part goes into the state; the moments are returned.
    fn full_wide(&mut self, isa: Isa, bytes: &[u8], first: u64) -> Power {
        let dtype = self.word();
        let size = (dtype.bits() / 8) as usize;
        let mut power = Power::EMPTY;
        let mut scratch = wide::Scratch::new();
        let mut first = first;
        for block in bytes.chunks(wide::BLOCK * size) {
            let n = block.len() / size;
            let mut x = &mut scratch.0[..n];
            let finite = wide::load(isa, dtype, block, 0, x);
            if finite < n {
                self.specials(x, first);
                x = wide::compact(x, finite);
            }
            self.n += n as u64;
            if finite > 0 {
                let w = wide::reduce(isa, x);
                self.n_zero += w.zeros;
                let (lo, hi) = exact_range(isa, dtype, block, &w);
                self.widen(lo, hi);
                let abs = magnitude(lo, hi);
                if self.abs_max.is_none_or(|old| less(old, abs)) {
                    let offset = find_wide(dtype, block, abs);
                    (self.abs_max, self.abs_max_index) = (Some(abs), first + offset);
                }
                power.merge(&w.power);
            }
            first += n as u64;
        }
        power
    }

    #[cold]
    fn specials(&mut self, x: &[f64], first: u64) {
        for (i, x) in x.iter().enumerate().filter(|(_, x)| !x.is_finite()) {
            let (count, at) = match (x.is_nan(), *x > 0.0) {
                (true, _) => (&mut self.n_nan, &mut self.first_nan),
                (_, true) => (&mut self.n_posinf, &mut self.first_inf),
                _ => (&mut self.n_neginf, &mut self.first_inf),
            };
            *count += 1;
            at.get_or_insert(first + i as u64);
        }
    }

    fn widen(&mut self, lo: Number, hi: Number) {
        if self.min.is_none_or(|min| less(lo, min)) {
            self.min = Some(lo);
        }
        if self.max.is_none_or(|max| less(max, hi)) {
            self.max = Some(hi);
        }
    }

    /// Adds the run that `later` describes; it follows this one in the tensor.
    pub fn merge(&mut self, later: &Self) {
        assert_eq!(self.dtype, later.dtype, "states of one tensor");
        self.n += later.n;
        self.n_zero += later.n_zero;
        self.n_nan += later.n_nan;
        self.n_posinf += later.n_posinf;
        self.n_neginf += later.n_neginf;
        self.first_nan = earlier(self.first_nan, later.first_nan);
        self.first_inf = earlier(self.first_inf, later.first_inf);
        if let (Some(lo), Some(hi), Some(abs)) = (later.min, later.max, later.abs_max) {
            self.widen(lo, hi);
            let larger = self.abs_max.is_none_or(|old| less(old, abs));
            if larger || (self.abs_max == Some(abs) && later.abs_max_index < self.abs_max_index) {
                (self.abs_max, self.abs_max_index) = (Some(abs), later.abs_max_index);
            }
        }
        self.power.merge(&later.power);
        self.pivot = later.pivot;
    }

    /// The statistics of everything seen.
    pub fn summary(&self) -> Summary {
        let p = &self.power;
        Summary {
            n: self.n,
            n_finite: p.n,
            n_zero: self.n_zero,
            n_nan: self.n_nan,
            n_posinf: self.n_posinf,
            n_neginf: self.n_neginf,
            min: self.min,
            max: self.max,
            abs_max: self.abs_max,
            abs_max_index: self.abs_max.map(|_| self.abs_max_index),
            first_nan: self.first_nan,
            first_inf: self.first_inf,
            mean: p.mean(),
            std: p.std(),
            rms: p.rms(),
            l1: p.l1(),
            l2: p.l2(),
            skewness: p.skewness(),
            kurtosis: p.kurtosis(),
        }
    }
}

/// Why the pieces of a block are looked at one by one.
#[derive(Clone, Copy)]
enum Apart {
    /// It holds NaN or infinities.
    Special,
    /// It holds this value only.
    Constant(f64),
    /// Its sums, taken together, may have lost too much.
    Untrusted,
}

/// A word's value; −0 becomes 0.
fn number<K: Narrow>(word: u32) -> Number {
    Number::Float(f64::from(K::value(word)) + 0.0)
}

/// Whether the moments that a sweep's sums stand for can be trusted.
#[inline]
fn safe(n: u64, sums: Sums) -> bool {
    let [s1, s2, _, s4, l1] = sums.0;
    let count = n as f64;
    let (mean, square) = (s1 / count, s2 / count);
    let (floor, ceiling) = (2f64.powi(-50), 2f64.powi(32));
    // Written so that a NaN fails.
    let within = square >= floor && square <= ceiling && s4.is_finite() && l1.is_finite();
    within && mean * mean <= 0.25 * (square - mean * mean)
}

/// The moments that a sweep's sums stand for, if they can be trusted.
fn trusted(n: u64, sums: Sums, pivot: Pivot) -> Option<Power> {
    if !safe(n, sums) {
        return None;
    }
    let [s1, s2, s3, s4, l1] = sums.0;
    let unit = 1.0 / f64::from(pivot.scale);
    let p = Power::from_sums(n, -f64::from(pivot.shift), [s1, s2, s3, s4], l1);
    let unit2 = unit * unit;
    Some(Power { mean: p.mean * unit, m2: p.m2 * unit2, m3: p.m3 * unit2 * unit, m4: p.m4 * unit2 * unit2, ..p })
}

/// The sums of all pieces of a block.
fn total(pieces: &[Piece]) -> Sums {
    let mut total = [0.0; 5];
    for piece in pieces {
        total.iter_mut().zip(piece.sums.0).for_each(|(t, s)| *t += s);
    }
    Sums(total)
}

/// Mean and 1/std of a part, as a pivot, or none where none is needed; a constant is its own.
fn pivot_for(p: &Power) -> Option<Pivot> {
    if p.n == 0 {
        return None;
    }
    let size = if p.m2 > 0.0 { p.std() } else { p.mean().abs() };
    // Weights as they usually are: near enough to 0 and to 1 that nothing cancels, overflows or underflows as it stands.
    if p.mean().abs() <= 0.25 * size && (2f64.powi(-20)..2f64.powi(12)).contains(&size) {
        return Some(Pivot::NONE);
    }
    let exponent = if size > 0.0 { ((size.to_bits() >> 52) & 0x7ff) as i32 - 1023 } else { 0 };
    let scale = 2f64.powi((-exponent).clamp(-126, 127));
    // |mean·scale| stays below 2^128: it is at most about 2^24 but where scale is 2^-126.
    Some(Pivot { scale: scale as f32, shift: -(p.mean() * scale) as f32 })
}

/// The moments of a part without special values, in f64.
fn power_wide(isa: Isa, dtype: Dtype, bytes: &[u8]) -> Power {
    let size = (dtype.bits() / 8) as usize;
    let mut power = Power::EMPTY;
    let mut scratch = wide::Scratch::new();
    for block in bytes.chunks(wide::BLOCK * size) {
        let x = &mut scratch.0[..block.len() / size];
        wide::load(isa, dtype, block, 0, x);
        power.merge(&wide::reduce(isa, x).power);
    }
    power
}

/// (min, max) of a block, exact for its dtype.
fn exact_range(isa: Isa, dtype: Dtype, block: &[u8], w: &wide::Wide) -> (Number, Number) {
    match dtype {
        Dtype::I64 => {
            let (lo, hi) = wide::range_i64(isa, block);
            (Number::Int(lo.into()), Number::Int(hi.into()))
        }
        Dtype::U64 => {
            let (lo, hi) = wide::range_u64(isa, block);
            (Number::Int(lo.into()), Number::Int(hi.into()))
        }
        _ if matches!(dtype.class(), Class::Float | Class::Complex) => {
            (Number::Float(w.min + 0.0), Number::Float(w.max + 0.0))
        }
        _ => (Number::Int(w.min as i128), Number::Int(w.max as i128)),
    }
}

fn magnitude(lo: Number, hi: Number) -> Number {
    match (lo, hi) {
        (Number::Int(lo), Number::Int(hi)) => Number::Int(lo.abs().max(hi.abs())),
        _ => Number::Float(lo.to_f64().abs().max(hi.to_f64().abs())),
    }
}

/// Index of the first element of the block whose magnitude is `abs`, which is there.
fn find_wide(dtype: Dtype, block: &[u8], abs: Number) -> u64 {
    let found = match (dtype, abs) {
        (Dtype::I64, Number::Int(abs)) => {
            let words = block.as_chunks::<8>().0;
            words.iter().position(|w| i128::from(i64::from_le_bytes(*w)).abs() == abs)
        }
        (Dtype::U64, Number::Int(abs)) => {
            let words = block.as_chunks::<8>().0;
            words.iter().position(|w| i128::from(u64::from_le_bytes(*w)) == abs)
        }
        _ => {
            let mut scratch = wide::Scratch::new();
            let x = &mut scratch.0[..block.len() * 8 / dtype.bits() as usize];
            decode_f64(dtype, block, 0, x);
            x.iter().position(|x| x.abs() == abs.to_f64())
        }
    };
    // Absent only from a block that changed since its sweep: the scan will find that its file did.
    found.unwrap_or(0) as u64
}
