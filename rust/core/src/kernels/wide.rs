//! Moments, extremes and searches of blocks in f64: types whose values f32 lanes cannot hold, and f32/bf16/f16 blocks
//! that the lanes refused.
//!
//! Two passes over a decoded block in L1: the mean, then the powers of d = x − mean, with Σd used up as a correction
//! (Chan, Golub, LeVeque 1983, "corrected two-pass"). Nothing can cancel and no pivot is needed. 16 fixed lanes of f64:
//! relative error of M2 and M4 below (block/16 + 10)·2^-53 ≈ 1.5e-14; same bits with AVX-512 and AVX2.

use super::decode::decode_inline;
use super::dispatch::shells;
use super::power::{Power, exponent_for, ldexp};
use crate::dtype::Dtype;

/// Components per block: 16 KiB decoded.
pub(crate) const BLOCK: usize = 2048;
const LANES: usize = 16;

/// What a block of finite numbers is reduced to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wide {
    pub power: Power,
    pub zeros: u64,
    pub min: f64,
    pub max: f64,
}

/// A decoded block.
#[repr(align(64))]
pub(crate) struct Scratch(pub [f64; BLOCK]);

impl Scratch {
    pub fn new() -> Self {
        Self([0.0; BLOCK])
    }
}

shells!(reduce, reduce_v3, reduce_v4, reduce_body, (x: &[f64]) -> Wide);
shells!(range_i64, range_i64_v3, range_i64_v4, range_i64_body, (bytes: &[u8]) -> (i64, i64));
shells!(range_u64, range_u64_v3, range_u64_v4, range_u64_body, (bytes: &[u8]) -> (u64, u64));
shells!(load, load_v3, load_v4, load_body, (dtype: Dtype, bytes: &[u8], first_bit: u32, out: &mut [f64]) -> usize);

/// Decodes, and counts the finite values.
#[inline(always)]
fn load_body<const FMA: bool>(dtype: Dtype, bytes: &[u8], first_bit: u32, out: &mut [f64]) -> usize {
    decode_inline(dtype, bytes, first_bit, out);
    out.iter().map(|x| usize::from(x.is_finite())).sum()
}

/// Everything about a non-empty block of finite numbers.
#[inline(always)]
fn reduce_body<const FMA: bool>(x: &[f64]) -> Wide {
    let n = x.len();
    let mut zeros = 0u64;
    let (mut lo, mut hi) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let (groups, tail) = x.as_chunks::<LANES>();
    for g in groups {
        for (j, &v) in g.iter().enumerate() {
            zeros += u64::from(v == 0.0);
            lo[j] = if v < lo[j] { v } else { lo[j] };
            hi[j] = if v > hi[j] { v } else { hi[j] };
        }
    }
    for (j, &v) in tail.iter().enumerate() {
        zeros += u64::from(v == 0.0);
        lo[j] = lo[j].min(v);
        hi[j] = hi[j].max(v);
    }
    let min = lo.into_iter().fold(f64::INFINITY, f64::min);
    let max = hi.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let power = if min == max {
        Power::constant(n as u64, min)
    } else {
        let exponent = exponent_for(max.abs().max(min.abs()));
        if exponent == 0 { sums::<FMA, false>(x, 0) } else { sums::<FMA, true>(x, exponent) }
    };
    Wide { power, zeros, min, max }
}

#[inline(always)]
fn sums<const FMA: bool, const SCALED: bool>(x: &[f64], exponent: i32) -> Power {
    let n = x.len() as f64;
    let scale = if SCALED { ldexp(1.0, -exponent) } else { 1.0 };
    let at = |v: f64| if SCALED { v * scale } else { v };
    let (groups, tail) = x.as_chunks::<LANES>();

    let (mut s, mut a) = ([0.0; LANES], [0.0; LANES]);
    for g in groups {
        for (j, &v) in g.iter().enumerate() {
            let v = at(v);
            s[j] += v;
            a[j] += v.abs();
        }
    }
    for (j, &v) in tail.iter().enumerate() {
        s[j] += at(v);
        a[j] += at(v).abs();
    }
    let mean = tree(s) / n;

    let mut p = [[0.0; LANES]; 4];
    let add = |p: &mut [[f64; LANES]; 4], j: usize, v: f64| {
        let d = at(v) - mean;
        let q = d * d;
        p[0][j] += d;
        p[1][j] += q;
        p[2][j] = fma::<FMA>(q, d, p[2][j]);
        p[3][j] = fma::<FMA>(q, q, p[3][j]);
    };
    for g in groups {
        g.iter().enumerate().for_each(|(j, &v)| add(&mut p, j, v));
    }
    for (j, &v) in tail.iter().enumerate() {
        add(&mut p, j, v);
    }
    Power { exponent, ..Power::from_sums(x.len() as u64, mean, p.map(tree), tree(a)) }
}

#[inline(always)]
fn fma<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn tree(mut v: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            v[j] += v[j + half];
        }
        half /= 2;
    }
    v[0]
}

/// Moves the `finite` finite values to the front, in order.
pub(crate) fn compact(x: &mut [f64], finite: usize) -> &mut [f64] {
    let mut to = 0;
    for i in 0..x.len() {
        if x[i].is_finite() {
            x[to] = x[i];
            to += 1;
        }
    }
    &mut x[..finite]
}

macro_rules! range {
    ($name:ident, $int:ty) => {
        /// Smallest and largest of the integers in `bytes`.
        #[inline(always)]
        fn $name<const FMA: bool>(bytes: &[u8]) -> ($int, $int) {
            let (words, _) = bytes.as_chunks::<8>();
            let value = |w: &[u8; 8]| <$int>::from_le_bytes(*w);
            words.iter().fold((<$int>::MAX, <$int>::MIN), |(lo, hi), w| (lo.min(value(w)), hi.max(value(w))))
        }
    };
}
range!(range_i64_body, i64);
range!(range_u64_body, u64);

shells!(range, range_v3, range_v4, range_body, (x: &[f64]) -> (u64, u64, f64, f64));

/// (zeros, of them negative, min, max) of finite numbers.
#[inline(always)]
fn range_body<const FMA: bool>(x: &[f64]) -> (u64, u64, f64, f64) {
    let (mut zeros, mut negative) = (0u64, 0u64);
    let (mut lo, mut hi) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let (groups, tail) = x.as_chunks::<LANES>();
    let mut add = |j: usize, v: f64| {
        zeros += u64::from(v == 0.0);
        negative += u64::from(v.to_bits() == 1 << 63);
        lo[j] = if v < lo[j] { v } else { lo[j] };
        hi[j] = if v > hi[j] { v } else { hi[j] };
    };
    for g in groups {
        g.iter().enumerate().for_each(|(j, &v)| add(j, v));
    }
    tail.iter().enumerate().for_each(|(j, &v)| add(j, v));
    let min = lo.into_iter().fold(f64::INFINITY, f64::min);
    let max = hi.into_iter().fold(f64::NEG_INFINITY, f64::max);
    (zeros, negative, min, max)
}

shells!(find_bytes, find_bytes_v3, find_bytes_v4, find_bytes_body, (bytes: &[u8], a: u8, b: u8) -> Option<usize>);
shells!(find_words, find_words_v3, find_words_v4, find_words_body, (bytes: &[u8], a: u16, b: u16) -> Option<usize>);

/// The first byte that is `a` or `b`.
#[inline(always)]
fn find_bytes_body<const FMA: bool>(bytes: &[u8], a: u8, b: u8) -> Option<usize> {
    find_first(bytes, |&w| (w == a) | (w == b))
}

/// The first little-endian word that is `a` or `b`.
#[inline(always)]
fn find_words_body<const FMA: bool>(bytes: &[u8], a: u16, b: u16) -> Option<usize> {
    find_first(bytes.as_chunks::<2>().0, |&w| (u16::from_le_bytes(w) == a) | (u16::from_le_bytes(w) == b))
}

/// The first hit, 256 at a time: no early exit inside a group is what lets it vectorise.
#[inline(always)]
fn find_first<T>(items: &[T], hit: impl Fn(&T) -> bool) -> Option<usize> {
    for (i, group) in items.chunks(256).enumerate() {
        if group.iter().fold(false, |any, x| any | hit(x)) {
            return group.iter().position(&hit).map(|j| i * 256 + j);
        }
    }
    None
}

shells!(range_f32, range_f32_v3, range_f32_v4, range_f32_body, (bytes: &[u8]) -> Option<(u64, u64, f32, f32)>);

/// (zeros, of them negative, min, max) of the f32 in `bytes`; None if some are not finite.
#[inline(always)]
fn range_f32_body<const FMA: bool>(bytes: &[u8]) -> Option<(u64, u64, f32, f32)> {
    let (words, _) = bytes.as_chunks::<4>();
    let (mut zeros, mut negative, mut special) = (0u32, 0u32, 0u32);
    // Bits whose order as integers is that of the floats: all but the sign flipped where it is set.
    let (mut lo, mut hi) = (i32::MAX, i32::MIN);
    for w in words {
        let bits = u32::from_le_bytes(*w);
        let magnitude = bits & 0x7fff_ffff;
        zeros += u32::from(magnitude == 0);
        negative += u32::from(bits == 0x8000_0000);
        special |= u32::from(magnitude >= 0x7f80_0000);
        let order = (bits ^ (((bits.cast_signed() >> 31).cast_unsigned()) >> 1)).cast_signed();
        lo = lo.min(order);
        hi = hi.max(order);
    }
    let value = |order: i32| f32::from_bits(order.cast_unsigned() ^ (((order >> 31).cast_unsigned()) >> 1));
    (special == 0 && !words.is_empty()).then(|| (zeros.into(), negative.into(), value(lo), value(hi)))
}

shells!(drain_pairs, drain_v3, drain_v4, drain_body, (pairs: &mut [u16; 1 << 16], counts: &mut [u64; 256]));

/// Adds the counts of pairs of bytes to those of bytes, and clears them.
#[inline(always)]
fn drain_body<const FMA: bool>(pairs: &mut [u16; 1 << 16], counts: &mut [u64; 256]) {
    let mut low = [0u32; 256];
    for (high, row) in pairs.as_chunks_mut::<256>().0.iter_mut().enumerate() {
        // Half of the rows of a scaled fp8 tensor never occur.
        if row.iter().fold(0, |any, c| any | c) == 0 {
            continue;
        }
        let mut sum = 0u32;
        for (low, c) in low.iter_mut().zip(row.iter()) {
            *low += u32::from(*c);
            sum += u32::from(*c);
        }
        row.fill(0);
        counts[high] += u64::from(sum);
    }
    counts.iter_mut().zip(low).for_each(|(count, low)| *count += u64::from(low));
}
