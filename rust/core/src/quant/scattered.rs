//! Codes in words whose inputs belong to groups in any order (GPTQ's act-order): vectors lie across outputs.
//!
//! Along a row each code has another scale, but down a column all have one group's: 16 outputs of one input take 16
//! neighbours of that group's scales. So a block of 16 inputs × 16 outputs is computed input by input,
//! `(code − zero) · scale` in each lane, and turned once: its rows are then a cache line of the output each. The scales
//! of 16 outputs are laid out together first, group by group, which is cheap beside the codes and stays in the cache
//! whatever power of two the outputs' number is.

use super::grid::Grid;
use super::nibbles::{Portable, look_shells};
use super::transpose::{Word, fetch_ahead};
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::kernels::Isa;

/// Inputs and outputs of a block, and lanes of the widest vectors.
pub(super) const SIDE: usize = 16;

/// How many rows of words ahead to prefetch.
const AHEAD: usize = 16;

/// Values by input, then output; turned, the other way round.
pub(super) type Block = [[f32; SIDE]; SIDE];

/// Turns a block, in one instruction set.
pub(super) trait Turn {
    /// `out[i · stride + j] = block[j][i]`.
    fn turn(block: &Block, out: &mut [f32], stride: usize);
}

impl Turn for Portable {
    #[inline(always)]
    fn turn(block: &Block, out: &mut [f32], stride: usize) {
        for (inputs, j) in block.as_chunks::<4>().0.iter().zip((0..SIDE).step_by(4)) {
            for i in (0..SIDE).step_by(4) {
                let mut turned = [[0.0; 4]; 4];
                for (k, row) in turned.iter_mut().enumerate() {
                    *row = [inputs[0][i + k], inputs[1][i + k], inputs[2][i + k], inputs[3][i + k]];
                }
                for (k, row) in turned.iter().enumerate() {
                    out[(i + k) * stride + j..][..4].copy_from_slice(row);
                }
            }
        }
    }
}

/// Scales and zero points of 16 outputs under one group.
type Lanes = [[f32; SIDE]; 2];

/// Scales and zero points of some outputs: 16 outputs after 16, for each of these group after group.
#[derive(Default)]
pub(super) struct Panel {
    lanes: Vec<Lanes>,
    n_groups: usize,
}

impl Panel {
    /// Those of `rows` outputs from `first_row` on; the last 16 are filled up with 0.
    pub fn fill(&mut self, grid: &Grid<'_>, n_groups: usize, first_row: usize, rows: usize) {
        self.n_groups = n_groups;
        self.lanes.clear();
        for first in (0..rows).step_by(SIDE) {
            let n = SIDE.min(rows - first);
            for group in 0..n_groups {
                let at = grid.row(first_row + first) + group * grid.group_stride;
                let mut lanes = [[0.0; SIDE], [grid.zero; SIDE]];
                gather(grid.scales, at, grid.row_stride, &mut lanes[0][..n]);
                if let Some(zeros) = grid.zeros {
                    gather(zeros, at, grid.row_stride, &mut lanes[1][..n]);
                }
                self.lanes.push(lanes);
            }
        }
    }
}

#[inline(always)]
fn gather(from: &[f32], at: usize, step: usize, to: &mut [f32]) {
    if step == 1 {
        // A length that is known makes the copy one instruction.
        match to.first_chunk_mut::<SIDE>().zip(from[at..].first_chunk()) {
            Some((to, from)) => *to = *from,
            None => to.copy_from_slice(&from[at..at + to.len()]),
        }
        return;
    }
    to.iter_mut().zip(from[at..].iter().step_by(step)).for_each(|(to, from)| *to = *from);
}

/// Codes in words, each of which holds consecutive inputs of one output.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub panel: &'a Panel,
    /// The group of each input, below the panel's number of them.
    pub groups: &'a [i32],
    /// The words of output `i` are `words[i]`, `words[i + stride]`, `words[i + 2 · stride]`...
    pub words: &'a [Word],
    pub stride: usize,
    /// 2, 4 or 8.
    pub bits: u32,
    /// The place of the first code in the first word.
    pub first: usize,
    /// Output `i` goes to `out[i · out_stride + out_first..]`.
    pub out_stride: usize,
    pub out_first: usize,
}

look_shells!(decode, decode_v3, decode_v4, decode_body, <SIGNED>, (tile: Tile<'_>, rows: usize, out: &mut [f32]));

#[inline(always)]
fn decode_body<T: Turn, const SIGNED: bool>(tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    match tile.bits {
        2 => blocks::<T, 16, SIGNED>(tile, rows, out),
        4 => blocks::<T, 8, SIGNED>(tile, rows, out),
        _ => blocks::<T, 4, SIGNED>(tile, rows, out),
    }
}

/// Blocks begin at every 16th place of the words, so that only the first and the last hold places that are not wanted.
#[inline(always)]
fn blocks<T: Turn, const PER: usize, const SIGNED: bool>(tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    let (first, end) = (tile.first, tile.first + tile.groups.len());
    // Places that are not wanted keep what they held.
    let mut block: Block = [[0.0; SIDE]; SIDE];
    for start in (0..end).step_by(SIDE) {
        let (from, to) = (start.max(first), end.min(start + SIDE));
        let wanted = &tile.groups[from - first..to - first];
        // The group of a place that is not wanted does not matter.
        let mut groups = [0; SIDE];
        match wanted.first_chunk() {
            Some(all) => groups = *all,
            None => groups[from - start..to - start].copy_from_slice(wanted),
        }
        let words = &tile.words[start / PER * tile.stride..];
        // Words after the last wanted place need not be there.
        let n_words = (to - start).div_ceil(PER);
        fetch_ahead(words, AHEAD * tile.stride, tile.stride, (SIDE / PER, rows));
        for i in (0..rows).step_by(SIDE) {
            let lanes = &tile.panel.lanes[i / SIDE * tile.panel.n_groups..][..tile.panel.n_groups];
            let n_rows = SIDE.min(rows - i);
            let inputs = block.as_chunks_mut::<PER>().0.iter_mut().zip(groups.as_chunks::<PER>().0);
            for (w, (inputs, groups)) in inputs.take(n_words).enumerate() {
                let words = &words[w * tile.stride + i..][..n_rows];
                column::<PER, SIGNED>(&load(words), lanes, groups, inputs);
            }
            let out = &mut out[i * tile.out_stride + tile.out_first + from - first..];
            if wanted.len() == SIDE && n_rows == SIDE {
                T::turn(&block, out, tile.out_stride);
            } else {
                edge(&block[from - start..to - start], n_rows, out, tile.out_stride);
            }
        }
    }
}

/// 16 words; those that are missing are 0.
#[inline(always)]
fn load(words: &[Word]) -> [u32; SIDE] {
    let mut out = [0; SIDE];
    if let Some(words) = words.first_chunk::<SIDE>() {
        for i in 0..SIDE {
            out[i] = u32::from_le_bytes(words[i]);
        }
    } else {
        out.iter_mut().zip(words).for_each(|(to, from)| *to = u32::from_le_bytes(*from));
    }
    out
}

/// The values of the inputs that one word of each of 16 outputs holds.
#[inline(always)]
fn column<const PER: usize, const SIGNED: bool>(
    words: &[u32; SIDE],
    lanes: &[Lanes],
    groups: &[i32; PER],
    inputs: &mut [[f32; SIDE]; PER],
) {
    let bits = 32 / PER as u32;
    for (place, (values, &group)) in inputs.iter_mut().zip(groups).enumerate() {
        let [scales, zeros] = &lanes[group as usize];
        let above = 32 - bits * (place as u32 + 1);
        for i in 0..SIDE {
            let top = words[i] << above;
            let number = if SIGNED { top.cast_signed() >> (32 - bits) } else { (top >> (32 - bits)).cast_signed() };
            values[i] = (number as f32 - zeros[i]) * scales[i];
        }
    }
}

/// Turns the part of a block that lies within the output.
#[cold]
#[inline(never)]
fn edge(inputs: &[[f32; SIDE]], rows: usize, out: &mut [f32], stride: usize) {
    for i in 0..rows {
        let row = &mut out[i * stride..][..inputs.len()];
        row.iter_mut().zip(inputs).for_each(|(o, input)| *o = input[i]);
    }
}
