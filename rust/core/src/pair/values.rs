//! Distance, products and number of differing values of two tensors, element by element.
//!
//! All sums run in f64 over eight fixed lanes, so that every instruction set gives the same bits (no fused operation is
//! used: the products and differences of two f32 are rounded at most once in f64). ‖a − b‖ is summed from differences,
//! never taken from ‖a‖² − 2ab + ‖b‖², which cancels for near copies. Elements where either value is NaN or infinite
//! enter no sum, only the counts.

use crate::kernels::{Isa, shells};

const LANES: usize = 8;

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

/// One accumulator per lane and quantity.
#[derive(Clone, Copy, Default)]
struct Lanes {
    finite: [u64; LANES],
    differ: [u64; LANES],
    flipped: [u64; LANES],
    sums: [[f64; LANES]; 6],
    largest: [f64; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, lane: usize, x: f32, y: f32) {
        let good = x.is_finite() & y.is_finite();
        let (p, q) = if good { (f64::from(x), f64::from(y)) } else { (0.0, 0.0) };
        let d = p - q;
        self.finite[lane] += u64::from(good);
        self.differ[lane] += u64::from(x.to_bits() != y.to_bits());
        self.flipped[lane] += u64::from(p * q < 0.0);
        let s = &mut self.sums;
        s[0][lane] += p;
        s[1][lane] += q;
        s[2][lane] += p * p;
        s[3][lane] += q * q;
        s[4][lane] += p * q;
        s[5][lane] += d * d;
        let magnitude = d.abs();
        self.largest[lane] = if magnitude > self.largest[lane] { magnitude } else { self.largest[lane] };
    }
}

#[inline(always)]
fn measure_body<const FMA: bool>(a: &[f32], b: &[f32]) -> Pair {
    let mut lanes = Lanes::default();
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (x, y) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            lanes.add(lane, x[lane], y[lane]);
        }
    }
    for (lane, (&x, &y)) in rest_a.iter().zip(rest_b).enumerate() {
        lanes.add(lane, x, y);
    }
    let total = |x: &[u64; LANES]| x.iter().sum();
    let sum = |i: usize| {
        let s = &lanes.sums[i];
        ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
    };
    Pair {
        n: a.len() as u64,
        n_finite: total(&lanes.finite),
        n_differ: total(&lanes.differ),
        n_flipped: total(&lanes.flipped),
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
