//! Distance, products and number of differing values of two tensors, element by element.
//!
//! All sums run in f64 over eight fixed lanes, so that every instruction set gives the same bits: a product of two f32
//! is exact in f64, fused or not; the square of a difference, which may not be, is never fused. ‖a − b‖ is summed from differences,
//! never taken from ‖a‖² − 2ab + ‖b‖², which cancels for near copies. Elements where either value is NaN or infinite
//! enter no sum, only the counts.

use crate::kernels::{Isa, shells};

const LANES: usize = 8;
/// Runs of lanes that are looked through before they are summed, from the fastest cache.
const PIECE: usize = 256;

/// What a run of element pairs is reduced to; runs merge by [`Pair::merge`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pair {
    /// Elements on either side.
    pub n: u64,
    /// Elements finite on both sides; the sums run over these.
    pub n_finite: u64,
    /// Elements whose bits differ, a zero's sign included.
    pub n_differ: u64,
    /// Elements whose signs differ, neither being zero.
    pub n_flipped: u64,
    /// Σa.
    pub sum_a: f64,
    /// Σb.
    pub sum_b: f64,
    /// Σa².
    pub aa: f64,
    /// Σb².
    pub bb: f64,
    /// Σab.
    pub ab: f64,
    /// Σ(a − b)².
    pub dd: f64,
    /// Largest |a − b|.
    pub max_difference: f64,
}

impl Pair {
    /// The pairs of `a` and `b`, of equal length (the longer one's rest is left out).
    pub fn of(isa: Isa, a: &[f32], b: &[f32]) -> Self {
        let n = a.len().min(b.len());
        measure(isa, &a[..n], &b[..n])
    }

    /// Both runs together.
    pub fn merge(self, other: Self) -> Self {
        Self {
            n: self.n + other.n,
            n_finite: self.n_finite + other.n_finite,
            n_differ: self.n_differ + other.n_differ,
            n_flipped: self.n_flipped + other.n_flipped,
            sum_a: self.sum_a + other.sum_a,
            sum_b: self.sum_b + other.sum_b,
            aa: self.aa + other.aa,
            bb: self.bb + other.bb,
            ab: self.ab + other.ab,
            dd: self.dd + other.dd,
            max_difference: self.max_difference.max(other.max_difference),
        }
    }
}

shells!(measure, measure_v3, measure_v4, measure_body, (a: &[f32], b: &[f32]) -> Pair);

/// Sum and product of two f32, which f64 holds exactly: the same bits in one operation or two.
#[inline(always)]
fn add_product<const FMA: bool>(p: f64, q: f64, sum: f64) -> f64 {
    if FMA { p.mul_add(q, sum) } else { sum + p * q }
}

/// One accumulator per lane and quantity.
#[derive(Clone, Copy, Default)]
struct Lanes {
    /// Pairs of which a side is not finite.
    unknown: u64,
    n_differ: u64,
    n_flipped: u64,
    sums: [[f64; LANES]; 6],
    largest: [f64; LANES],
}

impl Lanes {
    /// Add a pair of numbers to the sums.
    #[inline(always)]
    fn add<const FMA: bool>(&mut self, lane: usize, p: f64, q: f64) {
        let d = p - q;
        let s = &mut self.sums;
        s[0][lane] += p;
        s[1][lane] += q;
        s[2][lane] = add_product::<FMA>(p, p, s[2][lane]);
        s[3][lane] = add_product::<FMA>(q, q, s[3][lane]);
        s[4][lane] = add_product::<FMA>(p, q, s[4][lane]);
        s[5][lane] += d * d;
        let magnitude = d.abs();
        self.largest[lane] = if magnitude > self.largest[lane] { magnitude } else { self.largest[lane] };
    }

    /// Count and add a pair of which either may be NaN or infinite: such a pair enters no sum.
    #[inline(always)]
    fn add_any<const FMA: bool>(&mut self, lane: usize, x: f32, y: f32) {
        let good = x.is_finite() & y.is_finite();
        let (p, q) = if good { (f64::from(x), f64::from(y)) } else { (0.0, 0.0) };
        self.unknown += u64::from(!good);
        self.n_differ += u64::from(x.to_bits() != y.to_bits());
        self.n_flipped += u64::from(p * q < 0.0);
        self.add::<FMA>(lane, p, q);
    }

    /// All pairs of a piece in which every value is finite.
    #[inline(always)]
    fn piece<const FMA: bool>(&mut self, x: &[[f32; LANES]], y: &[[f32; LANES]]) {
        let (n_differ, n_flipped) = count(x.as_flattened(), y.as_flattened());
        self.n_differ += u64::from(n_differ);
        self.n_flipped += u64::from(n_flipped);
        for (x, y) in x.iter().zip(y) {
            for lane in 0..LANES {
                self.add::<FMA>(lane, x[lane].into(), y[lane].into());
            }
        }
    }

    /// All pairs of a piece whose sides are bit for bit the same and finite: the same sums, for a third of the work.
    #[inline(always)]
    fn same(&mut self, x: &[[f32; LANES]]) {
        for x in x {
            for lane in 0..LANES {
                let p = f64::from(x[lane]);
                let square = p * p;
                let s = &mut self.sums;
                s[0][lane] += p;
                s[1][lane] += p;
                s[2][lane] += square;
                s[3][lane] += square;
                s[4][lane] += square;
            }
        }
    }
}

// What needs no sum has loops of its own, over all values alike: those are vectorised without shuffles.

/// How many bits differ, and how many signs of numbers other than zero. A piece's counts fit 32 bits.
#[inline(always)]
fn count(x: &[f32], y: &[f32]) -> (u32, u32) {
    let (mut differ, mut flipped) = (0, 0);
    for (x, y) in x.iter().zip(y) {
        let (p, q) = (x.to_bits(), y.to_bits());
        differ += u32::from(p != q);
        flipped += u32::from(((p ^ q) >> 31 != 0) & (p << 1 != 0) & (q << 1 != 0));
    }
    (differ, flipped)
}

/// Whether every value is finite, and whether both sides have the same bits.
#[inline(always)]
fn look(x: &[f32], y: &[f32]) -> (bool, bool) {
    let (mut largest, mut differ) = (0, 0);
    for (x, y) in x.iter().zip(y) {
        let (p, q) = (x.to_bits(), y.to_bits());
        largest = largest.max(p & 0x7fff_ffff).max(q & 0x7fff_ffff);
        differ |= p ^ q;
    }
    (largest < f32::INFINITY.to_bits(), differ == 0)
}

#[inline(always)]
fn measure_body<const FMA: bool>(a: &[f32], b: &[f32]) -> Pair {
    let mut lanes = Lanes::default();
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (x, y) in whole_a.chunks(PIECE).zip(whole_b.chunks(PIECE)) {
        match look(x.as_flattened(), y.as_flattened()) {
            (true, true) => lanes.same(x),
            (true, false) => lanes.piece::<FMA>(x, y),
            (false, _) => {
                for (x, y) in x.iter().zip(y) {
                    (0..LANES).for_each(|lane| lanes.add_any::<FMA>(lane, x[lane], y[lane]));
                }
            }
        }
    }
    for (lane, (&x, &y)) in rest_a.iter().zip(rest_b).enumerate() {
        lanes.add_any::<FMA>(lane, x, y);
    }
    let sum = |i: usize| {
        let s = &lanes.sums[i];
        ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
    };
    Pair {
        n: a.len() as u64,
        n_finite: a.len() as u64 - lanes.unknown,
        n_differ: lanes.n_differ,
        n_flipped: lanes.n_flipped,
        sum_a: sum(0),
        sum_b: sum(1),
        aa: sum(2),
        bb: sum(3),
        ab: sum(4),
        dd: sum(5),
        max_difference: lanes.largest.iter().copied().fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_a_plain_sum_in_the_same_order() {
        for n in [0, 1, 7, 8, 9, 1000, 4099] {
            let (mut a, b) = (values(n, 1), values(n, 2));
            if n > 8 {
                a[3] = f32::NAN;
                a[5] = f32::INFINITY;
                a[6] = b[6];
            }
            let found: Vec<_> = Isa::available().into_iter().map(|isa| Pair::of(isa, &a, &b)).collect();
            assert!(found.iter().all(|p| p == &found[0]));
            let good: Vec<_> = a.iter().zip(&b).filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
            let exact = |f: fn(f64, f64) -> f64| good.iter().map(|&(&x, &y)| f(x.into(), y.into())).sum::<f64>();
            let close = |x: f64, y: f64| (x - y).abs() <= 1e-12 * (1.0 + y.abs());
            assert_eq!(found[0].n_finite, good.len() as u64);
            assert_eq!(found[0].n_differ, a.iter().zip(&b).filter(|(x, y)| x.to_bits() != y.to_bits()).count() as u64);
            assert_eq!(found[0].n_flipped, good.iter().filter(|&&(&x, &y)| x * y < 0.0).count() as u64);
            assert!(close(found[0].ab, exact(|x, y| x * y)));
            assert!(close(found[0].dd, exact(|x, y| (x - y) * (x - y))));
            assert!(close(found[0].aa, exact(|x, _| x * x)) && close(found[0].bb, exact(|_, y| y * y)));
            assert!(close(found[0].sum_a, exact(|x, _| x)) && close(found[0].sum_b, exact(|_, y| y)));
            let largest = good.iter().map(|&(&x, &y)| (f64::from(x) - f64::from(y)).abs()).fold(0.0, f64::max);
            assert_eq!(found[0].max_difference, largest);
        }
    }

    #[test]
    fn a_near_copy_keeps_its_distance() {
        let a = vec![1.0e4_f32; 999];
        let b: Vec<f32> = a.iter().map(|x| x + 0.001).collect();
        let step = f64::from(b[0]) - 1.0e4;
        let pair = Pair::of(Isa::detect(), &a, &b);
        assert!((pair.dd / 999.0 - step * step).abs() <= 1e-15 * step);
    }
}
