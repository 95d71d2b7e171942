//! Exact counts of every value, and what follows from them.
//!
//! A store per increment is what limits counting, so one increment should count several elements, in a table that the
//! caches hold. Such tables count *cells*, runs of raw bits:
//!
//! | dtype | cell | elements per increment | table |
//! |---|---|---|---|
//! | 16 bits | 16 bits | 1 | 65,536 × u32 |
//! | 8 bits, F4 | two bytes | 2, 4 | 65,536 × u16, emptied every 65,535 increments: half in L1 |
//! | F6 | 12 bits | 2 | 4,096 × u32 |
//! | F32, C64 | the top 16 bits | 1 | 65,536 × u32 |
//! | F64, 32- and 64-bit integers | the top 19 bits of the value as f64 | 1 | 524,288 × u32 |
//!
//! u32 cells are folded into u64 *bins*, one per code, when they might overflow, on merging, and at the end. Tried and
//! dropped: 8 tables of 256 for bytes (one store per byte), two tables in turn against repeated values (no faster even
//! for a tensor of zeros, and f16 falls out of L2).
//!
//! Coordinates cost little: after an update the counts say whether a NaN, an infinity or a larger magnitude than ever
//! before occurred; only then are the bytes searched.

use std::ops::{AddAssign, Range};

use super::extremes::Extremes;
use super::summary::Number;
use crate::dtype::{Class, Dtype};
use crate::kernels::{Isa, decode_f64};
use crate::kernels::{for_each, prefetch, small_values, value16, wide};

/// Below this many elements a table of cells would cost more than it saves.
const SMALL: u64 = 1 << 13;
/// How far ahead to prefetch, in bytes: a page. Counts wait for nothing else; without it they take a fifth longer.
const AHEAD: usize = 4096;

/// Exact counts of a run of elements.
#[derive(Debug, Clone)]
pub struct Counts {
    pub(super) dtype: Dtype,
    pub(super) n: u64,
    cells: Vec<u32>,
    /// Pairs of bytes; all zero between updates.
    pairs: Vec<u16>,
    /// Increments since the cells were last folded.
    pending: u64,
    bins: Vec<u64>,
    pub(super) extremes: Extremes,
}

/// Bits per u32 cell.
fn cell_bits(dtype: Dtype) -> u32 {
    match dtype.bits() {
        6 => 12,
        16 => 16,
        _ if matches!(dtype, Dtype::F32 | Dtype::C64) => 16,
        _ => 19,
    }
}

/// Whether bins are ranges of values, not values.
pub(super) fn is_wide(dtype: Dtype) -> bool {
    dtype.bits() > 16
}

pub(super) fn bin_count(dtype: Dtype) -> usize {
    1 << if is_wide(dtype) { cell_bits(dtype) } else { dtype.bits() }
}

/// The value of a code of a type of at most 16 bits.
pub(super) fn value(dtype: Dtype, code: usize) -> f64 {
    match small_values(dtype) {
        [] => f64::from(value16(dtype, code as u16)),
        table => f64::from(table[code]),
    }
}

impl Counts {
    /// Nothing seen yet; tables are made when first needed, at most 512 KiB for a type of at most 16 bits (beside a
    /// copy of 256 KiB once more than 2^32 elements went into one state).
    pub fn new(dtype: Dtype) -> Self {
        Self {
            dtype,
            n: 0,
            cells: Vec::new(),
            pairs: Vec::new(),
            pending: 0,
            bins: Vec::new(),
            extremes: Extremes::default(),
        }
    }

    /// Forgets everything but keeps the tables, for the next run of the same dtype.
    pub fn reset(&mut self) {
        self.n = 0;
        self.pending = 0;
        self.cells.fill(0);
        self.bins.fill(0);
        self.extremes = Extremes::default();
    }

    /// The dtype counted.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Adds `n` elements (not components) that begin at bit `first_bit` of `bytes`; `first` is the flat component
    /// index of the first. `first_bit` is 0 but for F4 and F6.
    pub fn update(&mut self, bytes: &[u8], first_bit: u32, n: u64, first: u64) {
        let bits = n * u64::from(self.dtype.bits()) + u64::from(first_bit);
        assert!(bytes.len() as u64 * 8 >= bits, "{n} elements need {bits} bits");
        assert!(self.dtype.bits() < 8 || first_bit == 0, "a byte type starts at a byte");
        let n = n * self.dtype.components();
        if self.pending + n > u64::from(u32::MAX) {
            self.fold();
        }
        self.n += n;
        if is_wide(self.dtype) {
            self.count_wide(bytes, n);
        } else {
            let bytes = &bytes[..bits.div_ceil(8) as usize];
            self.count_codes(bytes, first_bit, n);
            self.find_new(bytes, first_bit, n, first);
        }
    }

    fn cells(&mut self) -> &mut [u32] {
        if self.cells.is_empty() {
            self.cells = vec![0; 1 << cell_bits(self.dtype)];
        }
        &mut self.cells
    }

    fn bins(&mut self) -> &mut [u64] {
        if self.bins.is_empty() {
            self.bins = vec![0; bin_count(self.dtype)];
        }
        &mut self.bins
    }

    fn count_codes(&mut self, bytes: &[u8], first_bit: u32, n: u64) {
        let dtype = self.dtype;
        let width = u64::from(dtype.bits());
        // Whole cells in the middle; the elements before the first byte boundary that suits and after the last go
        // straight into bins. F6 repeats every 24 bits.
        let unit = if width == 6 { 4 } else { 8u64.div_ceil(width) };
        let head = (0..unit).find(|k| (u64::from(first_bit) + k * width).is_multiple_of(8)).unwrap_or(0).min(n);
        let whole = if n < SMALL && width < 16 { 0 } else { (n - head) / unit * unit };
        let start = (u64::from(first_bit) + head * width) as usize;
        let end = start + (whole * width) as usize;
        if width < 16 {
            let bins = self.bins();
            for_each(dtype, bytes, first_bit, head as usize, |_, code| bins[code] += 1);
            let rest = (n - head - whole) as usize;
            for_each(dtype, &bytes[end / 8..], (end % 8) as u32, rest, |_, code| bins[code] += 1);
        }
        if whole == 0 {
            return;
        }
        let middle = &bytes[start / 8..end / 8];
        match width {
            16 => {
                self.pending += whole;
                count_16(middle, self.cells().try_into().expect("65536 cells"));
            }
            6 => {
                self.pending += whole;
                count_12(middle, self.cells().try_into().expect("4096 cells"));
            }
            _ => {
                self.pairs.resize(1 << 16, 0);
                let counts = count_bytes(middle, self.pairs.as_mut_slice().try_into().expect("65536 pairs"));
                let bins = self.bins();
                for (byte, c) in counts.into_iter().enumerate() {
                    if width == 4 {
                        bins[byte & 15] += c;
                        bins[byte >> 4] += c;
                    } else {
                        bins[byte] += c;
                    }
                }
            }
        }
    }

    fn count_wide(&mut self, bytes: &[u8], n: u64) {
        self.pending += n;
        let dtype = if self.dtype == Dtype::C64 { Dtype::F32 } else { self.dtype };
        let size = (dtype.bits() / 8) as usize;
        let bytes = &bytes[..n as usize * size];
        let isa = Isa::detect();
        let mut extremes = self.extremes;
        let cells = self.cells();
        let mut scratch = wide::Scratch::new();
        for block in bytes.chunks(wide::BLOCK * size) {
            if dtype == Dtype::F32 {
                let cells: &mut [u32; 1 << 16] = (&mut *cells).try_into().expect("65536 cells");
                let (lines, rest) = block.as_chunks::<64>();
                for line in lines {
                    prefetch(line.as_ptr().wrapping_add(AHEAD));
                    count_tops(line, cells);
                }
                count_tops(rest, cells);
                if let Some((zeros, negative_zeros, min, max)) = wide::range_f32(isa, block) {
                    extremes.finite(zeros, negative_zeros, min.into(), max.into());
                    continue;
                }
            }
            let mut x = &mut scratch.0[..block.len() / size];
            let finite = wide::load(isa, dtype, block, 0, x);
            if dtype != Dtype::F32 {
                let cells: &mut [u32; 1 << 19] = (&mut *cells).try_into().expect("524288 cells");
                for x in &*x {
                    cells[(x.to_bits() >> 45) as usize] += 1;
                }
            }
            if finite < x.len() {
                extremes.specials(x);
                x = wide::compact(x, finite);
            }
            if finite > 0 {
                let (zeros, negative_zeros, min, max) = wide::range(isa, x);
                extremes.finite(zeros, negative_zeros, min, max);
            }
        }
        self.extremes = extremes;
    }

    /// Finds what the last update brought that was never seen before, and where.
    fn find_new(&mut self, bytes: &[u8], first_bit: u32, n: u64, first: u64) {
        let mut abs = self.extremes.abs_max;
        // The codes of the new largest magnitude: one, or one of each sign.
        let mut largest = Vec::new();
        let (mut nan, mut inf) = (false, false);
        let mut seen = |code: usize, x: f64| {
            if x.is_nan() {
                nan = true;
            } else if x.is_infinite() {
                inf = true;
            } else if abs.is_none_or(|a| x.abs() > a) {
                abs = Some(x.abs());
                largest.clear();
                largest.push(code);
            } else if Some(x.abs()) == abs {
                largest.push(code);
            }
        };
        let dtype = self.dtype;
        match dtype.bits() {
            16 => self.new_of_16(&mut seen),
            4 | 8 => self.new_of_8(&mut seen),
            _ => self
                .codes()
                .iter()
                .enumerate()
                .filter(|(_, c)| **c > 0)
                .for_each(|(code, _)| seen(code, value(dtype, code))),
        }
        if nan && self.extremes.first_nan.is_none() {
            self.extremes.first_nan = Some(first + find(dtype, bytes, first_bit, n, &[], &f64::is_nan));
        }
        if inf && self.extremes.first_inf.is_none() {
            self.extremes.first_inf = Some(first + find(dtype, bytes, first_bit, n, &[], &f64::is_infinite));
        }
        if abs > self.extremes.abs_max {
            let hit = |x: f64| Some(x.abs()) == abs;
            self.extremes.abs_max_index = Some(first + find(dtype, bytes, first_bit, n, &largest, &hit));
            self.extremes.abs_max = abs;
        }
    }

    /// 16 bits: `seen` gets every value in a cell above the largest magnitude so far.
    fn new_of_16(&self, seen: &mut dyn FnMut(usize, f64)) {
        let dtype = self.dtype;
        let Ok(cells): Result<&[u32; 1 << 16], _> = self.cells.as_slice().try_into() else { return };
        // The codes whose magnitude is beyond: the upper part of each sign's half, or of all codes when unsigned.
        let above = |from: usize, to: usize, known: &dyn Fn(f64) -> bool| -> usize {
            // Magnitudes grow along from..to (either way); the first one beyond what is known.
            let mut lo = from;
            let mut hi = to;
            while lo < hi {
                let mid = (lo + hi) / 2;
                if known(value(dtype, mid)) { lo = mid + 1 } else { hi = mid }
            }
            lo
        };
        let known = |x: f64| self.extremes.abs_max.is_some_and(|a| x.abs() <= a);
        let half = 1 << 15;
        let ranges = match dtype.class() {
            Class::Unsigned => [above(0, 2 * half, &known)..2 * half, 0..0],
            Class::Signed => [above(0, half, &known)..half, half..above(half, 2 * half, &|x| !known(x))],
            _ => [above(0, half, &known)..half, above(half, 2 * half, &known)..2 * half],
        };
        for range in ranges {
            for (i, group) in cells[range.clone()].chunks(128).enumerate() {
                if group.iter().fold(0, |any, c| any | c) != 0 {
                    for (j, _) in group.iter().enumerate().filter(|(_, c)| **c > 0) {
                        let code = range.start + i * 128 + j;
                        seen(code, value(dtype, code));
                    }
                }
            }
        }
    }

    /// 8 bits and F4, whose bins are up to date: `seen` gets every value beyond what is known that occurred.
    fn new_of_8(&self, seen: &mut dyn FnMut(usize, f64)) {
        for (code, &x) in small_values(self.dtype).iter().enumerate() {
            let x = f64::from(x);
            let known = match (x.is_nan(), x.is_infinite()) {
                (true, _) => self.extremes.first_nan.is_some(),
                (_, true) => self.extremes.first_inf.is_some(),
                _ => self.extremes.abs_max.is_some_and(|a| x.abs() <= a),
            };
            if known {
                continue;
            }
            if self.bins[code] > 0 {
                seen(code, x);
            }
        }
    }

    /// The counts by code, where every cell is one code; for F6 [`codes`](Self::codes) first.
    pub(super) fn tally(&self) -> Tally<'_> {
        Tally { bins: &self.bins, cells: if self.pending > 0 { &self.cells } else { &[] } }
    }

    /// The bins and the folded cells.
    pub(super) fn codes(&self) -> Vec<u64> {
        let mut out = self.bins.clone();
        out.resize(bin_count(self.dtype), 0);
        self.fold_into(&mut out);
        out
    }

    fn fold_into(&self, bins: &mut [u64]) {
        if self.pending == 0 {
            return;
        }
        match self.dtype.bits() {
            6 => {
                for (cell, &c) in self.cells.iter().enumerate() {
                    bins[cell & 63] += u64::from(c);
                    bins[cell >> 6] += u64::from(c);
                }
            }
            _ => bins.iter_mut().zip(&self.cells).for_each(|(b, &c)| *b += u64::from(c)),
        }
    }

    fn fold(&mut self) {
        let mut bins = std::mem::take(&mut self.bins);
        bins.resize(bin_count(self.dtype), 0);
        self.fold_into(&mut bins);
        self.bins = bins;
        self.cells.fill(0);
        self.pending = 0;
    }

    /// Adds the counts of another run of the same tensor, in any order.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.dtype, other.dtype, "states of one tensor");
        self.n += other.n;
        let mut bins = std::mem::take(&mut self.bins);
        bins.resize(bin_count(self.dtype), 0);
        bins.iter_mut().zip(&other.bins).for_each(|(a, b)| *a += b);
        other.fold_into(&mut bins);
        self.bins = bins;
        self.extremes.merge(&other.extremes);
    }

    /// An extreme as the dtype's kind of number.
    pub(super) fn number(&self, x: f64) -> Number {
        match self.dtype.class() {
            Class::Float | Class::Complex => Number::Float(x + 0.0),
            _ => Number::Int(x as i128),
        }
    }
}

/// Counts by code: in bins, in cells, or in both; an empty table stands for zeros.
#[derive(Clone, Copy)]
pub(super) struct Tally<'a> {
    pub bins: &'a [u64],
    pub cells: &'a [u32],
}

impl Tally<'_> {
    /// The counts from `first` on, and whether there are any.
    pub fn read(self, first: usize, counts: &mut [u64]) -> bool {
        counts.fill(0);
        let range = first..first + counts.len();
        if let Some(bins) = self.bins.get(range.clone()) {
            counts.copy_from_slice(bins);
        }
        if let Some(cells) = self.cells.get(range) {
            counts.iter_mut().zip(cells).for_each(|(count, &c)| *count += u64::from(c));
        }
        counts.iter().fold(0, |any, c| any | c) > 0
    }

    /// How many of the codes in `range` occur, or more where both tables hold some.
    pub fn occupied(self, range: Range<usize>) -> usize {
        // One pass per table, so that both vectorise.
        let bins: usize = self.bins.get(range.clone()).map_or(0, |b| b.iter().map(|&c| usize::from(c > 0)).sum());
        let cells: usize = self.cells.get(range).map_or(0, |b| b.iter().map(|&c| usize::from(c > 0)).sum());
        bins + cells
    }
}

/// One increment per two bytes.
fn count_16(bytes: &[u8], cells: &mut [u32; 1 << 16]) {
    let rest = count_lines(bytes, cells, 1);
    for w in rest.as_chunks::<2>().0 {
        cells[usize::from(u16::from_le_bytes(*w))] += 1;
    }
}

/// Adds `one` for every two bytes of whole cache lines; returns what is left.
#[inline(always)]
fn count_lines<'a, T: Copy + AddAssign>(bytes: &'a [u8], cells: &mut [T; 1 << 16], one: T) -> &'a [u8] {
    let (lines, rest) = bytes.as_chunks::<64>();
    for line in lines {
        prefetch(line.as_ptr().wrapping_add(AHEAD));
        for w in line.as_chunks::<8>().0 {
            let w = u64::from_le_bytes(*w);
            cells[(w & 0xffff) as usize] += one;
            cells[(w >> 16 & 0xffff) as usize] += one;
            cells[(w >> 32 & 0xffff) as usize] += one;
            cells[(w >> 48) as usize] += one;
        }
    }
    rest
}

/// One increment per four bytes: their upper two.
#[inline(always)]
fn count_tops(bytes: &[u8], cells: &mut [u32; 1 << 16]) {
    for w in bytes.as_chunks::<4>().0 {
        cells[usize::from(u16::from_le_bytes([w[2], w[3]]))] += 1;
    }
}

/// How often each byte occurs, one increment per two bytes; `pairs` is zero before and after.
fn count_bytes(bytes: &[u8], pairs: &mut [u16; 1 << 16]) -> [u64; 256] {
    let mut counts = [0; 256];
    // No more increments than a u16 holds.
    for part in bytes.chunks(2 * 65_504) {
        for &b in count_lines(part, pairs, 1) {
            counts[usize::from(b)] += 1;
        }
        wide::drain_pairs(Isa::detect(), pairs, &mut counts);
    }
    counts
}

/// One increment per twelve bits.
fn count_12(bytes: &[u8], cells: &mut [u32; 1 << 12]) {
    for w in bytes.as_chunks::<3>().0 {
        let w = u32::from_le_bytes([w[0], w[1], w[2], 0]);
        cells[(w & 0xfff) as usize] += 1;
        cells[(w >> 12) as usize] += 1;
    }
}

/// The index of the first of `n` elements whose value is a `hit`; one of them is, unless the bytes changed since they
/// were counted (then the scan will find that their file did, and this is 0). `codes` are the codes of such values,
/// or empty when there may be many.
fn find(dtype: Dtype, bytes: &[u8], first_bit: u32, n: u64, codes: &[usize], hit: &dyn Fn(f64) -> bool) -> u64 {
    if dtype.bits() < 8 {
        let mut out = vec![0.0; n as usize];
        decode_f64(dtype, bytes, first_bit, &mut out);
        return out.iter().position(|&x| hit(x)).unwrap_or(0) as u64;
    }
    let isa = Isa::detect();
    let found = match (dtype.bits(), codes) {
        (8, [a]) => wide::find_bytes(isa, bytes, *a as u8, *a as u8),
        (8, [a, b]) => wide::find_bytes(isa, bytes, *a as u8, *b as u8),
        (16, [a]) => wide::find_words(isa, bytes, *a as u16, *a as u16),
        (16, [a, b]) => wide::find_words(isa, bytes, *a as u16, *b as u16),
        (8, _) => bytes.iter().position(|&b| hit(value(dtype, b.into()))),
        _ => bytes.as_chunks::<2>().0.iter().position(|w| hit(value(dtype, u16::from_le_bytes(*w).into()))),
    };
    found.unwrap_or(0) as u64
}
