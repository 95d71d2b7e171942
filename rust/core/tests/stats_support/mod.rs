//! The naive oracle: every value from its format's formula, statistics by compensated two-pass sums, and generators.
#![allow(dead_code)]

use weightprint_core::dtype::Dtype;
use weightprint_core::stats::{Number, Summary};

/// SplitMix64: small, seeded, no dependency.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// `bits` as a float of `e` exponent and `m` mantissa bits by the textbook formula, as IEEE 754 treats the top exponent.
pub fn ieee(bits: u64, e: u32, m: u32) -> f64 {
    let bias = (1i32 << (e - 1)) - 1;
    let sign = if bits >> (e + m) & 1 == 1 { -1.0 } else { 1.0 };
    let exponent = (bits >> m & ((1 << e) - 1)) as i32;
    let mantissa = (bits & ((1 << m) - 1)) as f64 / 2f64.powi(m as i32);
    match exponent {
        x if x == (1 << e) - 1 && mantissa != 0.0 => f64::NAN,
        x if x == (1 << e) - 1 => sign * f64::INFINITY,
        0 => sign * mantissa * 2f64.powi(1 - bias),
        x => sign * (1.0 + mantissa) * 2f64.powi(x - bias),
    }
}

/// The same without special values, with a given bias.
pub fn finite_float(bits: u64, e: u32, m: u32, bias: i32) -> f64 {
    let sign = if bits >> (e + m) & 1 == 1 { -1.0 } else { 1.0 };
    let exponent = (bits >> m & ((1 << e) - 1)) as i32;
    let mantissa = (bits & ((1 << m) - 1)) as f64 / 2f64.powi(m as i32);
    if exponent == 0 {
        sign * mantissa * 2f64.powi(1 - bias)
    } else {
        sign * (1.0 + mantissa) * 2f64.powi(exponent - bias)
    }
}

/// The value of one code (of one component).
pub fn code_value(dtype: Dtype, bits: u64) -> f64 {
    match dtype {
        Dtype::Bool => f64::from(u8::from(bits != 0)),
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => bits as f64,
        Dtype::I8 => f64::from(bits as u8 as i8),
        Dtype::I16 => f64::from(bits as u16 as i16),
        Dtype::I32 => f64::from(bits as u32 as i32),
        Dtype::I64 => bits as i64 as f64,
        Dtype::F4 => finite_float(bits, 2, 1, 1),
        Dtype::F6E2M3 => finite_float(bits, 2, 3, 1),
        Dtype::F6E3M2 => finite_float(bits, 3, 2, 3),
        Dtype::F8E5M2 => ieee(bits, 5, 2),
        Dtype::F8E4M3 if bits & 0x7f == 0x7f => f64::NAN,
        Dtype::F8E4M3 => finite_float(bits, 4, 3, 7),
        Dtype::F8E8M0 if bits == 255 => f64::NAN,
        Dtype::F8E8M0 => 2f64.powi(bits as i32 - 127),
        Dtype::F8E4M3Fnuz | Dtype::F8E5M2Fnuz if bits == 0x80 => f64::NAN,
        Dtype::F8E4M3Fnuz => finite_float(bits, 4, 3, 8),
        Dtype::F8E5M2Fnuz => finite_float(bits, 5, 2, 16),
        Dtype::F16 => ieee(bits, 5, 10),
        Dtype::Bf16 => ieee(bits, 8, 7),
        Dtype::F32 | Dtype::C64 => ieee(bits, 8, 23),
        Dtype::F64 => f64::from_bits(bits),
    }
}

/// Bits per component.
pub fn width(dtype: Dtype) -> u32 {
    dtype.bits() / dtype.components() as u32
}

/// The codes of `n` components, bit by bit.
pub fn codes(dtype: Dtype, bytes: &[u8], first_bit: u32, n: usize) -> Vec<u64> {
    let w = width(dtype) as usize;
    let bit = |at: usize| u64::from(bytes[at / 8] >> (at % 8) & 1);
    (0..n).map(|i| (0..w).map(|b| bit(first_bit as usize + i * w + b) << b).sum()).collect()
}

/// The values of `n` components.
pub fn values(dtype: Dtype, bytes: &[u8], first_bit: u32, n: usize) -> Vec<f64> {
    codes(dtype, bytes, first_bit, n).into_iter().map(|c| code_value(dtype, c)).collect()
}

/// Packs codes of `width` bits, little end first.
pub fn pack(codes: &[u64], width: u32, first_bit: u32) -> Vec<u8> {
    let mut out = vec![0u8; (codes.len() * width as usize + first_bit as usize).div_ceil(8)];
    for (i, c) in codes.iter().enumerate() {
        for b in 0..width as usize {
            let at = first_bit as usize + i * width as usize + b;
            out[at / 8] |= ((c >> b & 1) as u8) << (at % 8);
        }
    }
    out
}

/// A code of `dtype` near `x` (rounded toward zero; for integers clamped).
pub fn encode(dtype: Dtype, x: f64) -> u64 {
    let f = x as f32;
    match dtype {
        Dtype::F32 | Dtype::C64 => u64::from(f.to_bits()),
        Dtype::Bf16 => u64::from(f.to_bits() >> 16) | if f.is_nan() { 1 } else { 0 },
        Dtype::F64 => x.to_bits(),
        Dtype::F16 => {
            let sign = u64::from(f.to_bits() >> 31) << 15;
            let a = f.abs();
            sign | match a {
                _ if a.is_nan() => 0x7e00,
                _ if a.is_infinite() => 0x7c00,
                _ if a >= 65504.0 => 0x7bff,
                _ if a < 2f32.powi(-14) => (a * 2f32.powi(24)) as u64,
                _ => u64::from((a.to_bits() - (112 << 23)) >> 13),
            }
        }
        Dtype::I16 => u64::from(x as i16 as u16),
        Dtype::U16 => u64::from(x as u16),
        Dtype::I32 => u64::from(x as i32 as u32),
        Dtype::U32 => u64::from(x as u32),
        Dtype::I64 => x as i64 as u64,
        Dtype::U64 => x as u64,
        Dtype::I8 => u64::from(x as i8 as u8),
        Dtype::U8 => u64::from(x as u8),
        _ => panic!("the small floats are drawn by code"),
    }
}

pub fn neumaier(terms: impl Iterator<Item = f64>) -> f64 {
    let (mut s, mut c) = (0.0f64, 0.0f64);
    for x in terms {
        let t = s + x;
        c += if s.abs() >= x.abs() { (s - t) + x } else { (x - t) + s };
        s = t;
    }
    s + c
}

/// Exact counts and f64 statistics of finite values: each sum compensated, so each result is good to a few 2^-53
/// (skewness relative to its terms' magnitudes). Values are scaled by a power of two so that fourth powers fit.
pub fn oracle(values: &[f64]) -> Summary {
    let finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
    let n = finite.len() as f64;
    let largest = finite.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    let unit = if largest > 0.0 { 2f64.powi((largest.log2().floor() as i32).clamp(-1000, 1000)) } else { 1.0 };
    let x: Vec<f64> = finite.iter().map(|x| x / unit).collect();
    let mean = neumaier(x.iter().copied()) / n;
    let d1 = neumaier(x.iter().map(|x| x - mean)) / n;
    let m = |k: i32| neumaier(x.iter().map(|x| (x - mean - d1).powi(k))) / n;
    let constant = finite.iter().all(|x| *x == finite[0]);
    let (m2, m3, m4) = if constant && n > 0.0 { (0.0, 0.0, 0.0) } else { (m(2), m(3), m(4)) };
    let square = neumaier(x.iter().map(|x| x * x));
    let abs_max = finite.iter().map(|x| x.abs()).fold(0.0, f64::max);
    let position = |f: &dyn Fn(f64) -> bool| values.iter().position(|x| f(*x)).map(|i| i as u64);
    let count = |f: &dyn Fn(f64) -> bool| values.iter().filter(|x| f(**x)).count() as u64;
    let some = |x: f64| (!finite.is_empty()).then_some(Number::Float(x + 0.0));
    Summary {
        n: values.len() as u64,
        n_finite: finite.len() as u64,
        n_zero: count(&|x| x == 0.0),
        n_nan: count(&|x| x.is_nan()),
        n_posinf: count(&|x| x == f64::INFINITY),
        n_neginf: count(&|x| x == f64::NEG_INFINITY),
        min: some(finite.iter().copied().fold(f64::INFINITY, f64::min)),
        max: some(finite.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        abs_max: some(abs_max),
        abs_max_index: position(&|x| x.is_finite() && x.abs() == abs_max),
        first_nan: position(&|x| x.is_nan()),
        first_inf: position(&|x| x.is_infinite()),
        mean: (mean + d1) * unit,
        std: m2.sqrt() * unit,
        rms: (square / n).sqrt() * unit,
        l1: neumaier(x.iter().map(|x| x.abs())) * unit,
        l2: square.sqrt() * unit,
        skewness: m3 / m2.powf(1.5),
        kurtosis: m4 / (m2 * m2),
    }
}

/// Relative error allowed in sums. The f32 lanes: (8192/32 + 6)·2^-24 of each sum (Higham), M2 within 1.25 × of its
/// uncentred sum as |mean| ≤ σ/2, hence 2e-5; f64 lanes and counts: 1e-13.
pub fn bound(dtype: Dtype) -> f64 {
    if matches!(dtype, Dtype::F32 | Dtype::C64 | Dtype::F16 | Dtype::Bf16) { 2e-5 } else { 1e-13 }
}

fn close(what: &str, context: &str, a: f64, b: f64, within: f64) {
    if a.is_nan() && b.is_nan() || a == b {
        return;
    }
    assert!(
        (a - b).abs() <= within,
        "{context}: {what} is {a:e}, should be {b:e}, off by {:e} > {within:e}",
        (a - b).abs()
    );
}

/// Everything counted must be equal, everything summed within `eps` of the magnitudes summed.
pub fn check(context: &str, got: &Summary, want: &Summary, eps: f64) {
    let counted = |s: &Summary| {
        let float = |x: Option<Number>| x.map(Number::to_f64);
        (
            (s.n, s.n_finite, s.n_zero, s.n_nan, s.n_posinf, s.n_neginf),
            (float(s.min), float(s.max), float(s.abs_max)),
            (s.abs_max_index, s.first_nan, s.first_inf),
        )
    };
    assert_eq!(counted(got), counted(want), "{context}");
    let tiny = 8.0 * f64::from_bits(1);
    let l1_mean = want.l1 / (want.n_finite.max(1)) as f64;
    // The mean inherits the rounding of z (relative to |x − pivot| ≲ 3 std) and of the f64 merge (relative to |x|).
    close("mean", context, got.mean, want.mean, 3.0 * eps * want.std + 1e-14 * l1_mean + tiny);
    close("std", context, got.std, want.std, eps * want.std + 1e-15 * l1_mean + tiny);
    close("rms", context, got.rms, want.rms, eps * want.rms + tiny);
    close("l1", context, got.l1, want.l1, eps * want.l1 + tiny);
    close("l2", context, got.l2, want.l2, eps * want.l2 + tiny);
    // Third and fourth moments: four terms each, amplified by at most (1 + |mean|/σ)^k ≤ 1.5^k.
    let k = want.kurtosis;
    close("skewness", context, got.skewness, want.skewness, 12.0 * eps * k.max(1.0));
    close("kurtosis", context, got.kurtosis, want.kurtosis, 20.0 * eps * k);
}
