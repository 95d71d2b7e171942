//! Widens types of 8 bits to bf16, which holds every value of every one of them, by arithmetic: a table look-up per
//! element is a load and a store each, where this is a few operations on 16 of them.
//!
//! A bf16 as an integer is a logarithm drawn with straight lines: 128 further with every octave. So is the code of a
//! float of 8 bits, but for its subnormals: there an octave has half as many codes as the one above it, and the lines
//! are steeper. Steeper and steeper towards zero is concave, and a concave function is the least of its lines.

use super::dispatch::shells;
use super::minifloat::small_values;
use crate::dtype::Dtype;

shells!(widen, widen_v3, widen_v4, widen_body, (dtype: Dtype, bytes: &[u8], words: &mut [[u8; 2]]));

/// The elements of `bytes`, of a `dtype` of 8 bits, as little-endian bf16.
#[inline(always)]
fn widen_body<const FMA: bool>(dtype: Dtype, bytes: &[u8], words: &mut [[u8; 2]]) {
    match dtype {
        Dtype::I8 => each(bytes, words, |c| upper(c.cast_signed().into())),
        Dtype::U8 => each(bytes, words, |c| upper(c.into())),
        Dtype::F8E4M3 => each(bytes, words, |c| if c & 0x7f == 0x7f { NAN } else { float::<3, 7>(c) }),
        Dtype::F8E4M3Fnuz => each(bytes, words, |c| if c == 0x80 { NAN } else { float::<3, 8>(c) }),
        Dtype::F8E5M2Fnuz => each(bytes, words, |c| if c == 0x80 { NAN } else { float::<2, 16>(c) }),
        // Its top exponent, infinity and NaN, is bf16's: 255 where a finite 31 would be 143.
        Dtype::F8E5M2 => each(bytes, words, |c| float::<2, 15>(c) + if c & 0x7f >= 0x7c { 112 << 7 } else { 0 }),
        _ => {
            let values = small_values(dtype);
            each(bytes, words, |c| upper(values[usize::from(c)]));
        }
    }
}

const NAN: u16 = 0x7fc0;

#[inline(always)]
fn each(bytes: &[u8], words: &mut [[u8; 2]], f: impl Fn(u8) -> u16) {
    for (word, &code) in words.iter_mut().zip(bytes) {
        *word = f(code).to_le_bytes();
    }
}

/// An f32 that is a bf16.
#[inline(always)]
fn upper(x: f32) -> u16 {
    (x.to_bits() >> 16) as u16
}

/// The bf16 with the value of a float of `M` mantissa bits and that bias, all of whose exponents are finite.
#[inline(always)]
fn float<const M: u32, const BIAS: i16>(code: u8) -> u16 {
    let magnitude = i16::from(code & 0x7f);
    let mut word = (magnitude << (7 - M)) + ((127 - BIAS) << 7);
    // The octaves of the subnormals, the highest first; each line meets the one before at code 2^(M − k).
    for k in 0..M {
        word = word.min((magnitude << (8 - M + k)) + ((126 - BIAS - k as i16) << 7));
    }
    let word = if magnitude == 0 { 0 } else { word.cast_unsigned() };
    word | u16::from(code & 0x80) << 8
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::Isa;
    use super::*;

    #[test]
    fn every_code_of_every_type_is_its_table_s_value() {
        // 256 whole vectors and an odd tail, so that every code passes every place.
        let bytes: Vec<u8> = (0..65_600).map(|i: u32| (i + i / 256) as u8).collect();
        for dtype in Dtype::all().filter(|d| d.bits() == 8) {
            for isa in Isa::available() {
                let mut words = vec![[0; 2]; bytes.len()];
                widen(isa, dtype, &bytes, &mut words);
                for (code, word) in bytes.iter().zip(words) {
                    let got = f32::from_bits(u32::from(u16::from_le_bytes(word)) << 16);
                    let want = small_values(dtype)[usize::from(*code)];
                    let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                    assert!(same, "{} {code:#x} {isa:?}: {got:e}, should be {want:e}", dtype.name());
                }
            }
        }
    }
}
