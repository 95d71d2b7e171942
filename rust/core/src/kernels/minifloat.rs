//! Tables of all values of the types of at most 8 bits, made by the compiler from one row of parameters each.
//!
//! A float with `E` exponent bits, `M` mantissa bits and bias `B` is (−1)^s · 2^(e−B) · 1.m, and (−1)^s · 2^(1−B) · 0.m
//! where e = 0. What the top codes mean differs:
//! OCP MX v1.0 (E2M1, E2M3, E3M2, E8M0), OCP FP8 v1.0 (E4M3: only s.1111.111 is NaN; E5M2: as IEEE 754), and the
//! "finite, NaN, unsigned zero" variants of Noune et al. 2022 (arXiv:2206.02915): 0x80 is the one NaN, biases 8 and 16.

use crate::dtype::Dtype;

/// What the codes that IEEE 754 reserves mean here.
#[derive(Clone, Copy)]
enum Top {
    /// Every code is a finite number.
    Finite,
    /// All ones (but the sign) is NaN; no infinity.
    OneNan,
    /// As IEEE 754: exponent all ones is infinity (mantissa 0) or NaN.
    Ieee,
    /// Negative zero's code is NaN; no infinity.
    NanAtNegativeZero,
}

/// 2^k for a k whose power is a normal f32.
const fn pow2(k: i32) -> f32 {
    f32::from_bits(((k + 127) as u32) << 23)
}

const fn table<const N: usize>(exponent_bits: u32, mantissa_bits: u32, bias: i32, top: Top) -> [f32; N] {
    let mut out = [0.0; N];
    let mut code = 0;
    while code < N {
        let bits = code as u32;
        let mantissa = bits & ((1 << mantissa_bits) - 1);
        let exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
        let negative = bits >> (mantissa_bits + exponent_bits) != 0;
        let last = exponent == (1 << exponent_bits) - 1;
        let scale = pow2((if exponent == 0 { 1 } else { exponent as i32 }) - bias - mantissa_bits as i32);
        let hidden = if exponent == 0 { 0 } else { 1 << mantissa_bits };
        let magnitude = match top {
            Top::OneNan if last && mantissa == (1 << mantissa_bits) - 1 => f32::NAN,
            Top::Ieee if last && mantissa != 0 => f32::NAN,
            Top::Ieee if last => f32::INFINITY,
            Top::NanAtNegativeZero if bits == 0x80 => f32::NAN,
            _ => (hidden | mantissa) as f32 * scale,
        };
        out[code] = if negative { -magnitude } else { magnitude };
        code += 1;
    }
    out
}

const fn bool_table() -> [f32; 256] {
    let mut out = [1.0; 256];
    out[0] = 0.0;
    out
}

const fn byte_table(signed: bool) -> [f32; 256] {
    let mut out = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        out[code] = if signed { code as u8 as i8 as f32 } else { code as f32 };
        code += 1;
    }
    out
}

/// 2^(code − 127); code 0 is 2^-127, a subnormal f32; code 255 is NaN.
const fn e8m0_table() -> [f32; 256] {
    let mut out = [f32::NAN; 256];
    out[0] = f32::from_bits(1 << 22);
    let mut code = 1;
    while code < 255 {
        out[code] = f32::from_bits((code as u32) << 23);
        code += 1;
    }
    out
}

static BOOL: [f32; 256] = bool_table();
static U8: [f32; 256] = byte_table(false);
static I8: [f32; 256] = byte_table(true);
static E8M0: [f32; 256] = e8m0_table();
static F4: [f32; 16] = table(2, 1, 1, Top::Finite);
static E2M3: [f32; 64] = table(2, 3, 1, Top::Finite);
static E3M2: [f32; 64] = table(3, 2, 3, Top::Finite);
static E5M2: [f32; 256] = table(5, 2, 15, Top::Ieee);
static E4M3: [f32; 256] = table(4, 3, 7, Top::OneNan);
static E4M3_FNUZ: [f32; 256] = table(4, 3, 8, Top::NanAtNegativeZero);
static E5M2_FNUZ: [f32; 256] = table(5, 2, 16, Top::NanAtNegativeZero);

/// The value of every code of a type of at most 8 bits; empty for the wider types.
pub(crate) fn small_values(dtype: Dtype) -> &'static [f32] {
    match dtype {
        Dtype::Bool => &BOOL,
        Dtype::U8 => &U8,
        Dtype::I8 => &I8,
        Dtype::F8E8M0 => &E8M0,
        Dtype::F4 => &F4,
        Dtype::F6E2M3 => &E2M3,
        Dtype::F6E3M2 => &E3M2,
        Dtype::F8E5M2 => &E5M2,
        Dtype::F8E4M3 => &E4M3,
        Dtype::F8E4M3Fnuz => &E4M3_FNUZ,
        Dtype::F8E5M2Fnuz => &E5M2_FNUZ,
        _ => &[],
    }
}
