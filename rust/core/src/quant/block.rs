//! Blocks of 16 inputs × 16 outputs, decoded and transposed in registers: what each instruction set implements.

use super::transpose::Word;

/// Inputs and outputs of a block, and lanes of the widest vectors.
pub(super) const SIDE: usize = 16;

/// Decodes and transposes a block, in one instruction set.
pub(super) trait DecodeBlock {
    /// Outputs of a call: all 16 of a block, or half of them.
    const ROWS: usize;
    /// `out[i · stride + j]` is the value of input `j` of output `i`, for 16 inputs and [`Self::ROWS`] outputs from `part` on.
    fn block<const PER: usize, const SIGNED: bool>(square: Square<'_>, part: usize, out: &mut [f32], stride: usize);
}

/// Where a block's codes and scales lie.
#[derive(Clone, Copy)]
pub(super) struct Square<'a> {
    /// The words of output `i` are `words[i]`, `words[i + stride]`...; the first holds input 0.
    pub words: &'a [Word],
    pub stride: usize,
    /// By group.
    pub lanes: &'a [Lanes],
    /// The group of each input.
    pub groups: &'a [i32; SIDE],
}

/// Scales and zero points of 16 outputs under one group.
pub(super) type Lanes = [[f32; SIDE]; 2];
