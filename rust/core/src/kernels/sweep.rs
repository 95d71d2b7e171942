//! One pass over a part of a block that stays in L1: the power sums of its pieces, and the maxima of its words.
//!
//! NaN and ±Inf need no test of their own: they make A non-finite, and the block is done again in f64
//! ([`super::wide`]).

use super::dispatch::{BASE_FMA, Isa};
use super::extremes::Bits;
use super::lanes::{Lanes, Narrow, Piece, Pivot, finish, parts};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// The sums of each of `pieces` around `pivot`, which follow each other and make up `bytes`, at most
/// [`super::lanes::SWEEP_BYTES`]; the maxima of all words go into `bits`.
pub(crate) fn sweep<K: Narrow>(isa: Isa, bytes: &[u8], pieces: &mut [Piece], pivot: Pivot, bits: &mut Bits) {
    debug_assert!(pieces.iter().map(|piece| piece.len * K::WORD).sum::<usize>() == bytes.len());
    match isa.supported() {
        // SAFETY: `supported` returns only what the machine was seen to have.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::sweep::<K>(bytes, pieces, pivot, bits) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::sweep::<K>(bytes, pieces, pivot, bits) },
        _ => sweep_portable::<K>(bytes, pieces, pivot, bits),
    }
}

fn sweep_portable<K: Narrow>(bytes: &[u8], pieces: &mut [Piece], pivot: Pivot, bits: &mut Bits) {
    bits.add_all::<K>(bytes);
    for (part, sums) in parts::<K>(bytes, pieces) {
        let mut lanes = Lanes::ZERO;
        let groups = part.chunks_exact(K::GROUP);
        let tail = groups.remainder();
        for group in groups {
            // Decoded to its lanes first: then the sums are plain loops over arrays, which every compiler vectorises.
            let x = K::load(group);
            for (lane, &x) in x.iter().enumerate() {
                lanes.add::<BASE_FMA>(lane, x, pivot);
            }
        }
        *sums = finish::<K, BASE_FMA>(lanes, tail, pivot);
    }
}
