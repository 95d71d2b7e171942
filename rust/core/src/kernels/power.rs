//! Mean and central moments up to the fourth, from power sums; moments of two runs merge.
//!
//! Two runs A and B, n = nA + nB, δ = μB − μA (Pébay 2008, SAND2008-6212, eqs. 2.1, 3.1; Chan, Golub, LeVeque 1983):
//!
//! ```text
//! μ  = μA + δ nB/n
//! M2 = M2A + M2B + δ² nA nB/n
//! M3 = M3A + M3B + δ³ nA nB (nA−nB)/n² + 3δ (nA M2B − nB M2A)/n
//! M4 = M4A + M4B + δ⁴ nA nB (nA² − nA nB + nB²)/n³ + 6δ² (nA² M2B + nB² M2A)/n² + 4δ (nA M3B − nB M3A)/n
//! ```
//!
//! Every term of M2 and M4 is positive but the last of M4, so nothing cancels: a merge adds a few 2^-53 of the result.
//! Sums of squares are not kept: Σx² = M2 + n μ² has no cancellation either.
//!
//! x⁴ leaves f64's range once |x| leaves [2^-200, 2^200], so a run stands for values multiplied by 2^-`exponent`, which
//! is 0 unless an f64 tensor holds such values. Merging aligns to the larger exponent; what then underflows is smaller
//! than a rounding of the rest.

/// Moments of `n` numbers, each scaled by 2^-`exponent`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Power {
    pub n: u64,
    pub exponent: i32,
    pub mean: f64,
    pub m2: f64,
    pub m3: f64,
    pub m4: f64,
    /// Σ|x|.
    pub l1: f64,
}

/// The exponent of a run of zeros: any other wins.
pub(crate) const ZERO_EXPONENT: i32 = -2000;

/// x·2^e without overflow of the factor.
#[inline]
pub(crate) fn ldexp(x: f64, e: i32) -> f64 {
    if e == 0 || x == 0.0 { x } else { shift_exponent(x, e) }
}

#[cold]
fn shift_exponent(mut x: f64, mut e: i32) -> f64 {
    while e > 1000 {
        (x, e) = (x * 2f64.powi(1000), e - 1000);
    }
    while e < -1000 && x != 0.0 {
        (x, e) = (x * 2f64.powi(-1000), e + 1000);
    }
    x * 2f64.powi(e)
}

/// The exponent to store a run under whose largest magnitude is `abs_max`.
pub(crate) fn exponent_for(abs_max: f64) -> i32 {
    if abs_max == 0.0 {
        return ZERO_EXPONENT;
    }
    let e = ((abs_max.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    // Not below −1000, so that 2^-e stays finite.
    if e.abs() <= 200 { 0 } else { e.max(-1000) }
}

impl Power {
    /// No numbers.
    pub const EMPTY: Self = Self { n: 0, exponent: ZERO_EXPONENT, mean: 0.0, m2: 0.0, m3: 0.0, m4: 0.0, l1: 0.0 };

    /// `n` times the same number.
    pub fn constant(n: u64, x: f64) -> Self {
        let exponent = exponent_for(x.abs());
        let mean = ldexp(x, -exponent);
        Self { n, exponent, mean, l1: mean.abs() * n as f64, ..Self::EMPTY }
    }

    #[inline]
    fn aligned(self, exponent: i32) -> Self {
        if self.exponent == exponent { self } else { self.rescaled(exponent) }
    }

    #[cold]
    fn rescaled(&self, exponent: i32) -> Self {
        let by = self.exponent - exponent;
        Self {
            n: self.n,
            exponent,
            mean: ldexp(self.mean, by),
            l1: ldexp(self.l1, by),
            m2: ldexp(self.m2, 2 * by),
            m3: ldexp(self.m3, 3 * by),
            m4: ldexp(self.m4, 4 * by),
        }
    }

    /// Adds the numbers of `other`.
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        if self.n == 0 {
            *self = *other;
            return;
        }
        let exponent = self.exponent.max(other.exponent);
        let (a, b) = (self.aligned(exponent), other.aligned(exponent));
        let (na, nb) = (a.n as f64, b.n as f64);
        let n = na + nb;
        let d = b.mean - a.mean;
        let inverse = 1.0 / n;
        let (wa, wb) = (na * inverse, nb * inverse);
        let d2 = d * d;
        // Equal runs of thousands: the mean moves from the larger one.
        let mean = if na >= nb { a.mean + d * wb } else { b.mean - d * wa };
        *self = Self {
            n: a.n + b.n,
            exponent,
            mean,
            m2: a.m2 + b.m2 + d2 * na * wb,
            m3: a.m3 + b.m3 + d2 * d * na * wb * (wa - wb) + 3.0 * d * (wa * b.m2 - wb * a.m2),
            m4: a.m4
                + b.m4
                + d2 * d2 * na * wb * (wa * wa - wa * wb + wb * wb)
                + 6.0 * d2 * (wa * wa * b.m2 + wb * wb * a.m2)
                + 4.0 * d * (wa * b.m3 - wb * a.m3),
            l1: a.l1 + b.l1,
        };
    }

    /// Moments from power sums of z = x − pivot: shifts them to the mean. `n` > 0; fine while |mean of z| is at most
    /// about the standard deviation.
    #[inline]
    pub fn from_sums(n: u64, pivot: f64, s: [f64; 4], l1: f64) -> Self {
        let count = n as f64;
        let m = s[0] / count;
        let m2 = s[1] - count * m * m;
        let m3 = s[2] - 3.0 * m * s[1] + 2.0 * count * m * m * m;
        let m4 = s[3] - 4.0 * m * s[2] + 6.0 * m * m * s[1] - 3.0 * count * m * m * m * m;
        Self { n, exponent: 0, mean: pivot + m, m2: m2.max(0.0), m3, m4: m4.max(0.0), l1 }
    }

    /// Mean and M2 of the same, where the rest isn't wanted: the same bits.
    #[inline]
    pub fn two_from_sums(n: u64, pivot: f64, s1: f64, s2: f64) -> (f64, f64) {
        let count = n as f64;
        let m = s1 / count;
        (pivot + m, (s2 - count * m * m).max(0.0))
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        if self.n == 0 { f64::NAN } else { ldexp(self.mean, self.exponent) }
    }

    /// The standard deviation, ddof 0.
    pub fn std(&self) -> f64 {
        if self.n == 0 { f64::NAN } else { ldexp((self.m2 / self.n as f64).sqrt(), self.exponent) }
    }

    /// √(mean of x²).
    pub fn rms(&self) -> f64 {
        if self.n == 0 {
            return f64::NAN;
        }
        ldexp((self.mean * self.mean + self.m2 / self.n as f64).sqrt(), self.exponent)
    }

    /// Σ|x|.
    pub fn l1(&self) -> f64 {
        ldexp(self.l1, self.exponent)
    }

    /// √Σx².
    pub fn l2(&self) -> f64 {
        if self.n == 0 {
            return 0.0;
        }
        let n = self.n as f64;
        ldexp((self.m2 + n * self.mean * self.mean).sqrt(), self.exponent)
    }

    /// m3 / m2^1.5; NaN for a constant.
    pub fn skewness(&self) -> f64 {
        (self.n as f64).sqrt() * self.m3 / (self.m2 * self.m2.sqrt())
    }

    /// m4 / m2²; 3 for a normal distribution, NaN for a constant.
    pub fn kurtosis(&self) -> f64 {
        self.n as f64 * (self.m4 / self.m2 / self.m2)
    }
}
