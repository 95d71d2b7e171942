//! Quantiles, entropy, distinct values and exact moments, all from counts.
//!
//! A quantile is the inverse of the empirical distribution: the smallest value v with F(v) ≥ p, exact in integers.
//! Moments of c(v) copies of v are two passes over the distinct values in f64 with Neumaier's compensated summation:
//! c·v is exact up to 2^42 elements, each term of a central moment carries at most 8 roundings, all terms of M2 and M4
//! are positive, so their relative error is below 10·2^-53.

use super::counts::{Counts, Tally, bin_count, is_wide, value};
use super::summary::{Number, Summary};
use crate::dtype::{Class, Dtype};
use crate::kernels::power::Power;
use crate::kernels::{Isa, compensated, value16};

/// The levels of [`Distribution::quantiles`].
pub const QUANTILE_LEVELS: [f64; 9] = [0.0001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.9999];

/// The same, in ten-thousandths, so that ranks are exact.
const LEVELS: [u64; 9] = [1, 100, 500, 2500, 5000, 7500, 9500, 9900, 9999];

/// What the exact counts say about how values are spread.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Quantiles of the finite values at [`QUANTILE_LEVELS`]; NaN if there are none.
    pub quantiles: Vec<f64>,
    /// 0.9999 quantile of the magnitudes of the finite values.
    pub abs_q9999: f64,
    /// Relative error bound of the quantiles: 0 for types of at most 16 bits, else 2^-8 (of normal numbers).
    pub quantile_error: f64,
    /// Number of distinct values: ±0 is one, all NaN are one, each infinity is one. None for wide types.
    pub n_distinct: Option<u64>,
    /// Entropy in bits of the distribution over those values; of wide types over bins, which is a lower bound.
    pub entropy: f64,
}

/// Distinct values with their counts, ascending, and what is not finite.
struct Table {
    finite: Vec<(f64, u64)>,
    n: u64,
    n_nan: u64,
    n_posinf: u64,
    n_neginf: u64,
}

/// The code with the `rank`-th smallest value of `size` codes (equal values in any order, NaN anywhere).
fn code_at(class: Class, signed: bool, rank: usize, size: usize) -> usize {
    let half = size / 2;
    match class {
        Class::Signed => rank ^ half,
        // Sign and magnitude: the largest negative magnitude comes first.
        Class::Float | Class::Complex if signed && rank < half => size - 1 - rank,
        Class::Float | Class::Complex if signed => rank - half,
        _ => rank,
    }
}

/// Calls `f(code, count)` for the codes that occur, in the order of [`code_at`].
fn for_each_code(class: Class, signed: bool, tally: Tally, size: usize, mut f: impl FnMut(usize, u64)) {
    // Codes next to each other in order are so in the table, up or down, and most groups of a large one are empty.
    const GROUP: usize = 64;
    let group = (size / 2).min(GROUP);
    let mut counts = [0; GROUP];
    for start in (0..size).step_by(group) {
        let ends = [start, start + group - 1].map(|rank| code_at(class, signed, rank, size));
        let first = ends[0].min(ends[1]);
        let counts = &mut counts[..group];
        if !tally.read(first, counts) {
            continue;
        }
        for i in 0..group {
            let at = if ends[0] == first { i } else { group - 1 - i };
            if counts[at] > 0 {
                f(first + at, counts[at]);
            }
        }
    }
}

impl Table {
    fn new(counts: &Counts) -> Self {
        let size = bin_count(counts.dtype);
        let folded;
        let tally = if counts.dtype == Dtype::F6E2M3 || counts.dtype == Dtype::F6E3M2 {
            folded = counts.codes();
            Tally { bins: &folded, cells: &[] }
        } else {
            counts.tally()
        };
        // The two zeros of a wide type may take a place more.
        let finite = Vec::with_capacity(tally.occupied(0..size) + 1);
        let mut t = Self { finite, n: counts.n, n_nan: 0, n_posinf: 0, n_neginf: 0 };
        if is_wide(counts.dtype) {
            t.fill_wide(counts, tally, size);
        } else {
            t.fill(counts.dtype, tally, size);
        }
        t
    }

    fn push(&mut self, x: f64, count: u64) {
        match self.finite.last_mut() {
            Some((last, c)) if *last == x => *c += count,
            _ => self.finite.push((x + 0.0, count)),
        }
    }

    fn fill(&mut self, dtype: Dtype, tally: Tally, size: usize) {
        // A loop of its own for each of the types that have tens of thousands of values.
        match dtype {
            Dtype::F16 => self.fill_by(dtype, tally, size, |code| value16(Dtype::F16, code as u16).into()),
            Dtype::Bf16 => self.fill_by(dtype, tally, size, |code| value16(Dtype::Bf16, code as u16).into()),
            _ => self.fill_by(dtype, tally, size, |code| value(dtype, code)),
        }
    }

    fn fill_by(&mut self, dtype: Dtype, tally: Tally, size: usize, value: impl Fn(usize) -> f64) {
        for_each_code(dtype.class(), dtype != Dtype::F8E8M0, tally, size, |code, count| match value(code) {
            x if x.is_finite() => self.push(x, count),
            x if x.is_nan() => self.n_nan += count,
            x if x > 0.0 => self.n_posinf += count,
            _ => self.n_neginf += count,
        });
    }

    /// Bins of wide types stand for their midpoint, clamped to the range seen; zeros are counted apart.
    fn fill_wide(&mut self, counts: &Counts, tally: Tally, size: usize) {
        let extremes = &counts.extremes;
        (self.n_nan, self.n_posinf, self.n_neginf) = (extremes.n_nan, extremes.n_posinf, extremes.n_neginf);
        let (Some(min), Some(max)) = (extremes.min, extremes.max) else { return };
        let half = size / 2;
        let float = matches!(counts.dtype.class(), Class::Float | Class::Complex);
        let edge = |code: usize| match size {
            0x1_0000 => f64::from(f32::from_bits((code as u32) << 16)),
            _ => f64::from_bits((code as u64) << 45),
        };
        // The zeros' place among the bins: after those of the other sign, before or without their own.
        let mut zeros_left = extremes.zeros;
        for_each_code(Class::Float, true, tally, size, |code, count| {
            if code < half && zeros_left > 0 {
                self.push(0.0, zeros_left);
                zeros_left = 0;
            }
            let zeros = if code == half { extremes.negative_zeros } else { extremes.zeros - extremes.negative_zeros };
            let count = count - if code.is_multiple_of(half) { zeros } else { 0 };
            let (near, far) = (edge(code % half), edge(code % half + 1));
            if count == 0 || !near.is_finite() {
                return;
            }
            // Integers lie on whole numbers only: exact below 256. The last finite bin's far edge is infinite.
            let far = if far.is_finite() { far } else { near };
            let middle = if float { near / 2.0 + far / 2.0 } else { (near.ceil() + (far.ceil() - 1.0)) / 2.0 };
            self.push(if code >= half { -middle } else { middle }.clamp(min, max), count);
        });
        if zeros_left > 0 {
            self.push(0.0, zeros_left);
        }
    }

    fn n_finite(&self) -> u64 {
        self.finite.iter().map(|v| v.1).sum()
    }

    /// As [`quantiles`], of the magnitudes: found from above, where few values lie.
    fn magnitude_quantile(&self, level: u64) -> f64 {
        let n = self.n_finite();
        let mut above = n - rank(level, n);
        let mut rest = self.finite.as_slice();
        // Magnitudes fall towards zero from either end, so the largest of what is left is at one of them.
        while let (Some(first), Some(last)) = (rest.first(), rest.last()) {
            let (x, count) = if first.0.abs() > last.0.abs() { *first } else { *last };
            if count > above {
                return x.abs();
            }
            above -= count;
            rest = if first.0.abs() > last.0.abs() { &rest[1..] } else { &rest[..rest.len() - 1] };
        }
        f64::NAN
    }

    fn entropy(&self) -> f64 {
        let n = self.n as f64;
        let term = |count: u64| {
            let p = count as f64 / n;
            -p * p.log2()
        };
        // Tens of thousands of values share some hundreds of counts, and a logarithm is what costs.
        let mut alike = [0u32; 2048];
        let mut terms = Vec::new();
        for count in self.finite.iter().map(|v| v.1).chain([self.n_nan, self.n_posinf, self.n_neginf]) {
            match usize::try_from(count).ok().and_then(|count| alike.get_mut(count)) {
                Some(alike) => *alike += 1,
                None => terms.push((term(count), 1)),
            }
        }
        let shared = (1..).zip(&alike[1..]).filter(|(_, n)| **n > 0);
        terms.extend(shared.map(|(count, &n)| (term(count), u64::from(n))));
        let [entropy, _] = compensated::totals(Isa::detect(), &terms);
        entropy.abs()
    }

    fn power(&self) -> Power {
        let n = self.n_finite();
        if let [(x, _)] = self.finite[..] {
            return Power::constant(n, x);
        }
        if n == 0 {
            return Power::EMPTY;
        }
        let isa = Isa::detect();
        let [sum, l1] = compensated::totals(isa, &self.finite);
        let mean = sum / n as f64;
        let sums = compensated::powers(isa, &self.finite, mean);
        // Σd is what the rounded mean leaves; `from_sums` takes it out of the others.
        Power { exponent: 0, ..Power::from_sums(n, mean, sums, l1) }
    }
}

/// ⌈level·n / 10000⌉
fn rank(level: u64, n: u64) -> u64 {
    (u128::from(level) * u128::from(n)).div_ceil(10_000) as u64
}

/// The value at that rank, for each level.
fn quantiles<const N: usize>(values: &[(f64, u64)], levels: [u64; N]) -> [f64; N] {
    let n: u64 = values.iter().map(|v| v.1).sum();
    let mut out = [f64::NAN; N];
    let (mut at, mut below) = (0, 0u64);
    for (o, level) in out.iter_mut().zip(levels) {
        let rank = rank(level, n);
        while at < values.len() && below + values[at].1 < rank {
            below += values[at].1;
            at += 1;
        }
        if at < values.len() {
            *o = values[at].0;
        }
    }
    out
}

impl Counts {
    /// The statistics of everything seen. For wide types the bins do not hold values: the moments are NaN, l1 and l2
    /// too, and extremes are those of the values as f64; [`super::Moments`] has the rest.
    pub fn summary(&self) -> Summary {
        self.summary_of(&Table::new(self))
    }

    /// Quantiles, distinct values and entropy of everything seen.
    pub fn distribution(&self) -> Distribution {
        self.distribution_of(&Table::new(self))
    }

    /// Both at once, for the price of one sorted table.
    pub fn finish(&self) -> (Summary, Distribution) {
        let table = Table::new(self);
        (self.summary_of(&table), self.distribution_of(&table))
    }

    fn summary_of(&self, table: &Table) -> Summary {
        let wide = is_wide(self.dtype);
        let finite = &table.finite;
        let power = if wide { Power::EMPTY } else { table.power() };
        let zero = finite.binary_search_by(|v| v.0.total_cmp(&0.0)).map_or(0, |i| finite[i].1);
        let (min, max) = match wide {
            true => (self.extremes.min, self.extremes.max),
            false => (finite.first().map(|v| v.0), finite.last().map(|v| v.0)),
        };
        let abs_max: Option<Number> = min.zip(max).map(|(lo, hi)| self.number(lo.abs().max(hi.abs())));
        let lost = if wide { f64::NAN } else { 0.0 };
        Summary {
            n: self.n,
            n_finite: self.n - table.n_nan - table.n_posinf - table.n_neginf,
            n_zero: if wide { self.extremes.zeros } else { zero },
            n_nan: table.n_nan,
            n_posinf: table.n_posinf,
            n_neginf: table.n_neginf,
            min: min.map(|x| self.number(x)),
            max: max.map(|x| self.number(x)),
            abs_max,
            abs_max_index: self.extremes.abs_max_index,
            first_nan: self.extremes.first_nan,
            first_inf: self.extremes.first_inf,
            mean: power.mean(),
            std: power.std(),
            rms: power.rms(),
            l1: power.l1() + lost,
            l2: power.l2() + lost,
            skewness: power.skewness(),
            kurtosis: power.kurtosis(),
        }
    }

    fn distribution_of(&self, table: &Table) -> Distribution {
        let wide = is_wide(self.dtype);
        let others = [table.n_nan, table.n_posinf, table.n_neginf].into_iter().filter(|&c| c > 0).count();
        Distribution {
            quantiles: quantiles(&table.finite, LEVELS).to_vec(),
            abs_q9999: table.magnitude_quantile(9999),
            quantile_error: if wide { 2f64.powi(-8) } else { 0.0 },
            n_distinct: (!wide).then_some((table.finite.len() + others) as u64),
            entropy: if table.n == 0 { f64::NAN } else { table.entropy() },
        }
    }
}
