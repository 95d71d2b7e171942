//! The loop of a linear sketch: every value, with a pseudo-random sign, added into one of 256 buckets.
//!
//! A row is 256 values, one per bucket. Its 256 signs are eight words of 32 bits, each a hash of the row's number and of
//! a key; bit j of word w is the sign of value 32 w + j. A block of rows is summed in f32, one lane per bucket and row
//! after row, so every instruction set adds the same numbers in the same order.

use super::decode::{bf16_to_f32, decode_inline};
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
        let rows = here.div_ceil(BUCKETS);
        let mut signs = [[0; WORDS]; BLOCK / BUCKETS];
        for (i, signs) in signs[..rows].iter_mut().enumerate() {
            *signs = words(row + (block * (BLOCK / BUCKETS) + i) as u64, keys);
        }
        // Components of an element are as many halves of it; a block begins at a whole element, and at a whole byte.
        let bytes = &bytes[first / dtype.components() as usize * bits / 8..];
        // Whole rows of the commonest type are not even decoded to memory.
        let whole = dtype == Dtype::Bf16 && here == rows * BUCKETS;
        let (mut lanes, any) = if whole {
            add(&signs[..rows], |at| bf16s(&bytes[2 * at..]))
        } else {
            decode(dtype, bytes, here, &mut values);
            add(&signs[..rows], |at| of(&values[at..]))
        };
        // The exponent's top bit is set from 2 on, where hardly a weight lies: then each value has to be looked at.
        if any & 0x4000_0000 != 0 {
            decode(dtype, bytes, here, &mut values);
            for x in &mut values[..here] {
                *x = if x.to_bits() & 0x7fff_ffff < HUGE { *x } else { 0.0 };
            }
            lanes = add(&signs[..rows], |at| of(&values[at..])).0;
        }
        for (sum, lane) in sums.iter_mut().zip(lanes) {
            *sum += f64::from(lane);
        }
    }
}

/// The first `n` components, and zeros to the end of their row.
#[inline(always)]
fn decode(dtype: Dtype, bytes: &[u8], n: usize, values: &mut [f32; BLOCK]) {
    decode_inline(dtype, bytes, 0, &mut values[..n]);
    values[n..n.next_multiple_of(BUCKETS)].fill(0.0);
}

#[inline(always)]
fn of(values: &[f32]) -> [f32; 32] {
    values.as_chunks().0[0]
}

#[inline(always)]
fn bf16s(bytes: &[u8]) -> [f32; 32] {
    let words: &[[u8; 2]] = &bytes.as_chunks::<2>().0[..32];
    let mut out = [0f32; 32];
    for (x, word) in out.iter_mut().zip(words) {
        *x = bf16_to_f32(u16::from_le_bytes(*word));
    }
    out
}

/// The signed sums of rows, and all bits that occur; 32 lanes at a time, which stay in registers. `load`: the 32 values
/// from one on.
#[allow(clippy::needless_range_loop, reason = "three arrays of one length, lane by lane")]
#[inline(always)]
fn add(signs: &[[u32; WORDS]], load: impl Fn(usize) -> [f32; 32]) -> ([f32; BUCKETS], u32) {
    let (mut sums, mut seen) = ([0f32; BUCKETS], 0);
    for (w, sums) in sums.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (mut lanes, mut any) = ([0f32; 32], [0u32; 32]);
        for (i, signs) in signs.iter().enumerate() {
            let x = load(i * BUCKETS + 32 * w);
            for j in 0..32 {
                let bits = x[j].to_bits();
                any[j] |= bits;
                lanes[j] += f32::from_bits(bits ^ ((signs[w] << (31 - j)) & 0x8000_0000));
            }
        }
        *sums = lanes;
        seen |= any.iter().fold(0, |all, any| all | any);
    }
    (sums, seen)
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
