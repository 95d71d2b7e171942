//! Table look-ups of codes: the trait that each instruction set implements, and the portable one.

use super::grid::Affine;

/// The values of the 16 codes under one scale.
pub(super) type Table = [f32; 16];

/// Looks codes up, in one instruction set.
pub(super) trait Look {
    type Table: Copy;
    /// `(number − zero) · scale` for each of the numbers that codes stand for.
    fn table(numbers: &Table, affine: Affine) -> Self::Table;
    /// The 16 codes in 8 bytes, low half first or high half first.
    fn bytes<const HIGH: bool>(table: Self::Table, codes: &[u8; 8], out: &mut [f32; 16]);
    /// Asks for codes that will be needed soon.
    #[inline(always)]
    fn fetch_ahead(_codes: &[u8]) {}
    /// The codes at bit `shift` of 16 words.
    fn words(table: Self::Table, words: &[[u8; 4]; 16], shift: u32, out: &mut [f32; 16]);
}

pub(super) struct Portable;

impl Look for Portable {
    type Table = Table;
    #[inline(always)]
    fn table(numbers: &Table, affine: Affine) -> Table {
        affine.table(numbers)
    }
    #[inline(always)]
    fn bytes<const HIGH: bool>(table: Table, codes: &[u8; 8], out: &mut [f32; 16]) {
        for (pair, &byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
            let (low, high) = (table[(byte & 15) as usize], table[(byte >> 4) as usize]);
            *pair = if HIGH { [high, low] } else { [low, high] };
        }
    }
    #[inline(always)]
    fn words(table: Table, words: &[[u8; 4]; 16], shift: u32, out: &mut [f32; 16]) {
        for (o, w) in out.iter_mut().zip(words) {
            *o = table[(u32::from_le_bytes(*w) >> shift) as usize & 15];
        }
    }
}

/// One table look-up per code.
#[inline(always)]
pub(super) fn look_up<const PLAIN: bool>(values: &[f32; 256], codes: &[u8], affine: Affine, out: &mut [f32]) {
    for (o, &code) in out.iter_mut().zip(codes) {
        *o = affine.apply::<PLAIN>(values[code as usize]);
    }
}
