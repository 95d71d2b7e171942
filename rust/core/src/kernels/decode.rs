//! Decodes bytes to floats, for all 22 dtypes. Exact wherever the target can hold the value; 64-bit values, and 32-bit
//! integers as f32, round to nearest even.
//!
//! Types of at most 8 bits are one table look-up ([`super::minifloat`]); bf16 is the top half of an f32; f16 is
//! rebuilt by one multiplication, which also normalises its subnormals.

use super::dispatch::{Isa, shells};
use super::minifloat::small_values;
use crate::dtype::Dtype;

/// The f32 with the value of the IEEE half-precision `bits`.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    // Exponent and mantissa shifted into an f32's places are 2^112 too small. The product is exact: a half's 11 bits fit.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let finite = scaled.to_bits();
    let special = 0x7f80_0000 | (magnitude << 13);
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { finite })
}

/// The f32 with the value of the bfloat16 `bits`.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of a 16-bit code.
#[inline(always)]
pub(crate) fn value16(dtype: Dtype, bits: u16) -> f32 {
    match dtype {
        Dtype::F16 => f16_to_f32(bits),
        Dtype::Bf16 => bf16_to_f32(bits),
        Dtype::I16 => f32::from(bits.cast_signed()),
        _ => f32::from(bits),
    }
}

/// Calls `f` with the code of each of `n` elements of `width` ∈ {4, 6} bits, little end first, from bit `first_bit`.
fn for_codes(bytes: &[u8], width: u32, first_bit: u32, n: usize, mut f: impl FnMut(usize, usize)) {
    let mask = (1usize << width) - 1;
    for i in 0..n {
        let bit = first_bit as usize + i * width as usize;
        let (at, shift) = (bit / 8, bit % 8);
        let low = bytes[at] as usize;
        let high = if shift + width as usize > 8 { bytes[at + 1] as usize } else { 0 };
        f(i, ((low | (high << 8)) >> shift) & mask);
    }
}

/// Calls `f(i, code)` for the `n` elements that start at bit `first_bit` of `bytes`; types of at most 8 bits only.
pub(crate) fn for_each(dtype: Dtype, bytes: &[u8], first_bit: u32, n: usize, mut f: impl FnMut(usize, usize)) {
    if dtype.bits() == 8 {
        bytes[..n].iter().enumerate().for_each(|(i, &b)| f(i, b as usize));
    } else {
        for_codes(bytes, dtype.bits(), first_bit, n, f);
    }
}

macro_rules! words {
    ($bytes:expr, $out:expr, $word:ty, $f:expr) => {{
        let (words, _) = $bytes.as_chunks::<{ size_of::<$word>() }>();
        for (o, w) in $out.iter_mut().zip(words) {
            *o = $f(<$word>::from_le_bytes(*w));
        }
    }};
}

/// A float type that values are decoded to.
pub(crate) trait Target: Copy {
    fn from_f32(x: f32) -> Self;
    fn from_f64(x: f64) -> Self;
    fn from_i32(x: i32) -> Self;
    fn from_u32(x: u32) -> Self;
    fn from_i64(x: i64) -> Self;
    fn from_u64(x: u64) -> Self;
}

macro_rules! target {
    ($float:ty) => {
        impl Target for $float {
            #[inline(always)]
            fn from_f32(x: f32) -> Self {
                x as $float
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $float
            }
            #[inline(always)]
            fn from_i32(x: i32) -> Self {
                x as $float
            }
            #[inline(always)]
            fn from_u32(x: u32) -> Self {
                x as $float
            }
            #[inline(always)]
            fn from_i64(x: i64) -> Self {
                x as $float
            }
            #[inline(always)]
            fn from_u64(x: u64) -> Self {
                x as $float
            }
        }
    };
}
target!(f32);
target!(f64);

/// The one decoder, inlined into whatever instruction set the caller is compiled for.
#[inline(always)]
pub(crate) fn decode_inline<T: Target>(dtype: Dtype, bytes: &[u8], first_bit: u32, out: &mut [T]) {
    let n = out.len();
    let components = dtype.components() as usize;
    let bits = n / components * dtype.bits() as usize + first_bit as usize;
    assert!(bytes.len() * 8 >= bits, "{n} components of {} need {bits} bits", dtype.name());
    assert!(n.is_multiple_of(components), "half a complex number");
    assert!(dtype.bits() < 8 || first_bit == 0, "a byte type starts at a byte");
    match dtype {
        Dtype::I16 => words!(bytes, out, i16, |w| T::from_i32(i32::from(w))),
        Dtype::U16 => words!(bytes, out, u16, |w| T::from_i32(i32::from(w))),
        Dtype::F16 => words!(bytes, out, u16, |w| T::from_f32(f16_to_f32(w))),
        Dtype::Bf16 => words!(bytes, out, u16, |w| T::from_f32(bf16_to_f32(w))),
        Dtype::I32 => words!(bytes, out, i32, T::from_i32),
        Dtype::U32 => words!(bytes, out, u32, T::from_u32),
        Dtype::F32 | Dtype::C64 => words!(bytes, out, u32, |w| T::from_f32(f32::from_bits(w))),
        Dtype::F64 => words!(bytes, out, u64, |w| T::from_f64(f64::from_bits(w))),
        Dtype::I64 => words!(bytes, out, i64, T::from_i64),
        Dtype::U64 => words!(bytes, out, u64, T::from_u64),
        small => {
            let values = small_values(small);
            for_each(small, bytes, first_bit, n, |i, code| out[i] = T::from_f32(values[code]));
        }
    }
}

/// Decodes `out.len()` components from `bytes`. Complex numbers give two components, real part first.
///
/// `first_bit` is the bit of `bytes[0]` at which the first element starts: 0 but for F4 and F6. Panics when `bytes` is
/// too short, or when a complex number would be cut.
pub fn decode_f32(dtype: Dtype, bytes: &[u8], first_bit: u32, out: &mut [f32]) {
    decode(Isa::detect(), dtype, bytes, first_bit, out);
}

shells!(decode, decode_v3, decode_v4, decode_body, (dtype: Dtype, bytes: &[u8], first_bit: u32, out: &mut [f32]));

#[inline(always)]
fn decode_body<const FMA: bool>(dtype: Dtype, bytes: &[u8], first_bit: u32, out: &mut [f32]) {
    decode_inline(dtype, bytes, first_bit, out);
}

/// As [`decode_f32`], to f64: exact for every dtype but integers beyond 2^53.
pub fn decode_f64(dtype: Dtype, bytes: &[u8], first_bit: u32, out: &mut [f64]) {
    decode_inline(dtype, bytes, first_bit, out);
}
