//! A linear sketch: 256 signed sums that keep inner products.
//!
//! Component i of a tensor, times a sign ±1 that is fixed by a key and i, goes into bucket i mod 256. So the sketch of a
//! sum of tensors is the sum of their sketches, and the inner product of two sketches under one key is that of the
//! tensors in the mean, with a deviation of at most √(2/256) |a| |b|: Var = (|a|² |b|² + ⟨a, b⟩² − 2 Σ a² b²) / 256 for
//! values that do not depend on their place.
//!
//! Sums are of f32 over blocks of 2^13 components and of f64 over those, one for each stretch of 2^20 components; these
//! are added up in order at the end. No cut of a scan falls inside a stretch but at a block's end, so bits depend on the
//! values alone: not on how they are stored, cut or read.

use crate::dtype::Dtype;
use crate::kernels::{BUCKETS, Isa, WORDS, fold};

/// Components per stretch: every unit of a scan is a multiple of it, the last one aside.
const STRETCH: u64 = 1 << 20;

/// The sums of consecutive stretches of a tensor.
#[derive(Debug, Clone)]
pub struct Sketch {
    keys: [u32; WORDS],
    stretches: Vec<(u64, Box<[f64; BUCKETS]>)>,
}

impl Sketch {
    /// Of nothing yet; signs follow from `key`.
    pub fn new(key: u64) -> Self {
        let mut state = key;
        let keys = std::array::from_fn(|_| {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((x ^ (x >> 31)) >> 32) as u32
        });
        Self { keys, stretches: Vec::new() }
    }

    /// Adds the `n` components in `bytes`, the first of which is number `first`, a multiple of 2^13.
    pub fn update(&mut self, isa: Isa, dtype: Dtype, bytes: &[u8], first: u64, n: u64) {
        let mut done = 0;
        while done < n {
            let at = first + done;
            let stretch = at / STRETCH;
            let take = (n - done).min((stretch + 1) * STRETCH - at);
            if self.stretches.last().is_none_or(|(last, _)| *last != stretch) {
                self.stretches.push((stretch, Box::new([0.0; BUCKETS])));
            }
            let Some((_, sums)) = self.stretches.last_mut() else { unreachable!("pushed above") };
            let from = done / dtype.components() * u64::from(dtype.bits()) / 8;
            fold(isa, dtype, &bytes[from as usize..], take as usize, at / BUCKETS as u64, &self.keys, sums);
            done += take;
        }
    }

    /// Takes in what follows.
    pub fn merge(&mut self, later: &Self) {
        for (stretch, sums) in &later.stretches {
            match self.stretches.last_mut() {
                Some((last, mine)) if last == stretch => {
                    mine.iter_mut().zip(sums.iter()).for_each(|(mine, sum)| *mine += sum);
                }
                _ => self.stretches.push((*stretch, sums.clone())),
            }
        }
    }

    /// The 256 sums.
    pub fn finish(&self) -> [f64; BUCKETS] {
        let mut total = [0.0; BUCKETS];
        for (_, sums) in &self.stretches {
            total.iter_mut().zip(sums.iter()).for_each(|(total, sum)| *total += sum);
        }
        total
    }
}
