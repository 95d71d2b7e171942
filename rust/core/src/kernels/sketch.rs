//! The loop of a linear sketch: every value, with a pseudo-random sign, added into one of 256 buckets.
//!
//! A row is 256 values, one per bucket. Its 256 signs are eight words of 32 bits, each a hash of the row's number and of
//! a key; bit j of word w is the sign of value 32 w + j. A block of rows is summed in f32, one lane per bucket and row
//! after row, so every instruction set adds the same numbers in the same order.

use super::decode::decode_inline;
use super::dispatch::shells;
use crate::dtype::Dtype;

/// Buckets of a sketch.
pub const BUCKETS: usize = 256;
/// Words of signs per row.
pub(crate) const WORDS: usize = BUCKETS / 32;
/// Values that are summed in f32.
const BLOCK: usize = 32 * BUCKETS;
/// Bits of 1e15: no weight is so large. It is added as 0, and so are infinities and NaN, whose bits are larger.
const HUGE: u32 = 0x5863_5fa9;

shells!(fold, fold_v3, fold_v4, fold_body, (dtype: Dtype, bytes: &[u8], n: usize, row: u64, keys: &[u32; WORDS], sums: &mut [f64; BUCKETS]));

/// Adds `n` components, the first of which is the first of row `row`.
#[inline(always)]
fn fold_body<const FMA: bool>(
    dtype: Dtype,
    bytes: &[u8],
    n: usize,
    row: u64,
    keys: &[u32; WORDS],
    sums: &mut [f64; BUCKETS],
) {
    let mut values = [0f32; BLOCK];
    let bits = dtype.bits() as usize;
    for (block, first) in (0..n).step_by(BLOCK).enumerate() {
        let here = BLOCK.min(n - first);
        // Components of an element are as many halves of it; a block begins at a whole element, and at a whole byte.
        let from = first / dtype.components() as usize * bits / 8;
        decode_inline(dtype, &bytes[from..], 0, &mut values[..here]);
        values[here..here.next_multiple_of(BUCKETS)].fill(0.0);
        let rows = here.next_multiple_of(BUCKETS);
        // The exponent's top bit is set from 2 on, where hardly a weight lies: then each value has to be looked at.
        let any = values[..rows].iter().fold(0, |any, x| any | x.to_bits());
        if any & 0x4000_0000 != 0 {
            values[..rows].iter_mut().for_each(|x| *x = if x.to_bits() & 0x7fff_ffff < HUGE { *x } else { 0.0 });
        }
        let mut lanes = [0f32; BUCKETS];
        let (rows, _) = values[..rows].as_chunks::<BUCKETS>();
        for (i, x) in rows.iter().enumerate() {
            add_row(x, row + (block * (BLOCK / BUCKETS) + i) as u64, keys, &mut lanes);
        }
        for (sum, lane) in sums.iter_mut().zip(lanes) {
            *sum += f64::from(lane);
        }
    }
}

#[inline(always)]
fn add_row(x: &[f32; BUCKETS], row: u64, keys: &[u32; WORDS], lanes: &mut [f32; BUCKETS]) {
    let signs = words(row, keys);
    let (x, _) = x.as_chunks::<32>();
    let (lanes, _) = lanes.as_chunks_mut::<32>();
    for ((x, lanes), word) in x.iter().zip(lanes).zip(signs) {
        for (j, (x, lane)) in x.iter().zip(lanes).enumerate() {
            *lane += f32::from_bits(x.to_bits() ^ ((word << (31 - j)) & 0x8000_0000));
        }
    }
}

/// Eight words of signs: Murmur's finaliser of the row's number, with the keys mixed in before and in between.
#[inline(always)]
fn words(row: u64, keys: &[u32; WORDS]) -> [u32; WORDS] {
    let (low, high) = (row as u32, (row >> 32) as u32);
    keys.map(|key| {
        let mut x = low ^ key;
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b) ^ high ^ key.rotate_left(13);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^ (x >> 16)
    })
}
