//! Decodes packed codes whose inputs belong to groups in any order (GPTQ's act-order): vectors lie across outputs.
//!
//! Along a row each code has another scale, but down a column all have one group's: 16 outputs of one input take 16
//! neighbours of that group's scales. So a block of 16 inputs × 16 outputs is computed input by input, `(code − zero) ·
//! scale` in each lane, and transposed before it leaves the registers (through memory it took half as long again): its
//! rows are then a cache line of the output each, which is asked for ahead. With 256-bit vectors a block is taken in
//! two halves of 8 outputs, a strip of each: rows of 4 KiB or a multiple put one column's lines into one set of the
//! first-level cache, which has 8 ways, so that of 16 rows asked for half are gone before they are written (to memory
//! .49 of the plain read against .56 on Zen 3; rows put together in a strip of 8 KiB and copied gave less). The scales
//! of 16 outputs are laid out together first, group by group, which is cheap beside the codes and stays in the cache
//! whatever power of two the outputs' number is.

use super::block::{DecodeBlock, Lanes, SIDE, Square};
use super::dispatch::look_shells;
use super::grid::Grid;
use super::lookup::Portable;
use super::transpose::{Word, fetch_ahead, fetch_lines};

/// How many rows of words ahead to prefetch.
const AHEAD: usize = 16;
/// Inputs of some outputs that are taken one after the other.
const STRIP: usize = 128;
/// How many inputs of the same outputs ahead to ask for lines of half a block: longer than memory takes for them.
const LINES_AHEAD: usize = 64;

/// Values by input, then output; transposed, the other way round.
type Block = [[f32; SIDE]; SIDE];

impl DecodeBlock for Portable {
    const ROWS: usize = SIDE;
    #[inline(always)]
    fn block<const PER: usize, const SIGNED: bool>(square: Square<'_>, _: usize, out: &mut [f32], stride: usize) {
        let mut block: Block = [[0.0; SIDE]; SIDE];
        columns::<PER, SIGNED>(square, SIDE, SIDE / PER, &mut block);
        for (inputs, j) in block.as_chunks::<4>().0.iter().zip((0..SIDE).step_by(4)) {
            for i in (0..SIDE).step_by(4) {
                let mut transposed = [[0.0; 4]; 4];
                for (k, row) in transposed.iter_mut().enumerate() {
                    *row = [inputs[0][i + k], inputs[1][i + k], inputs[2][i + k], inputs[3][i + k]];
                }
                for (k, row) in transposed.iter().enumerate() {
                    out[(i + k) * stride + j..][..4].copy_from_slice(row);
                }
            }
        }
    }
}

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
fn decode_body<T: DecodeBlock, const SIGNED: bool>(tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    match tile.bits {
        2 => blocks::<T, 16, SIGNED>(tile, rows, out),
        4 => blocks::<T, 8, SIGNED>(tile, rows, out),
        _ => blocks::<T, 4, SIGNED>(tile, rows, out),
    }
}

/// Blocks begin at every 16th place of the words, so that only the first and the last hold places that are not wanted.
///
/// Of 16 outputs after 16, [`STRIP`] inputs are taken before the next outputs': then a row's cache lines are written
/// one after the other, and words of outputs side by side are taken together.
#[inline(always)]
fn blocks<T: DecodeBlock, const PER: usize, const SIGNED: bool>(tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    let end = tile.first + tile.groups.len();
    for strip in (0..end).step_by(STRIP) {
        for i in (0..rows).step_by(SIDE) {
            for part in (0..SIDE).step_by(T::ROWS) {
                for start in (strip..end.min(strip + STRIP)).step_by(SIDE) {
                    one_block::<T, PER, SIGNED>(tile, (start, i), part, rows, out);
                }
            }
        }
    }
}

/// The block of 16 outputs from output `i` on, and 16 inputs from place `start` on, or those of them that are wanted;
/// of a whole block the outputs from `part` on, of another all where `part` is 0.
#[inline(always)]
fn one_block<T: DecodeBlock, const PER: usize, const SIGNED: bool>(
    tile: Tile<'_>,
    (start, i): (usize, usize),
    part: usize,
    rows: usize,
    out: &mut [f32],
) {
    let (first, end) = (tile.first, tile.first + tile.groups.len());
    let (from, to) = (start.max(first), end.min(start + SIDE));
    let wanted = &tile.groups[from - first..to - first];
    let words = &tile.words[start / PER * tile.stride + i..];
    if part == 0 {
        fetch_ahead(words, AHEAD * tile.stride, tile.stride, (SIDE / PER, SIDE));
    }
    let lanes = &tile.panel.lanes[i / SIDE * tile.panel.n_groups..][..tile.panel.n_groups];
    let n_rows = SIDE.min(rows - i);
    // A store waits for its line, and the rows' lines are too far apart for the machine to guess.
    let at = tile.out_first + from - first;
    let (row, column) = match start % STRIP + LINES_AHEAD {
        _ if T::ROWS == SIDE && i + SIDE < rows => (i + SIDE, at),
        _ if T::ROWS == SIDE => (0, at + STRIP),
        ahead if ahead < STRIP => (i + part, at + LINES_AHEAD),
        _ => (i + part + T::ROWS, (at + LINES_AHEAD).saturating_sub(STRIP)),
    };
    fetch_lines(out, row * tile.out_stride + column, tile.out_stride, T::ROWS);
    let out = &mut out[i * tile.out_stride + at..];
    if let Some(groups) = wanted.first_chunk().filter(|_| n_rows == SIDE) {
        let square = Square { words, stride: tile.stride, lanes, groups };
        return T::block::<PER, SIGNED>(square, part, out, tile.out_stride);
    }
    if part > 0 {
        return;
    }
    // The group of a place that is not wanted does not matter.
    let mut groups = [0; SIDE];
    groups[from - start..to - start].copy_from_slice(wanted);
    let mut block: Block = [[0.0; SIDE]; SIDE];
    // Words after the last wanted place need not be there.
    let n_words = (to - start).div_ceil(PER);
    let square = Square { words, stride: tile.stride, lanes, groups: &groups };
    columns::<PER, SIGNED>(square, n_rows, n_words, &mut block);
    edge(&block[from - start..to - start], n_rows, out, tile.out_stride);
}

/// The values of a block's first `n_words` words of each of `n_rows` outputs.
#[inline(always)]
fn columns<const PER: usize, const SIGNED: bool>(square: Square<'_>, n_rows: usize, n_words: usize, block: &mut Block) {
    let inputs = block.as_chunks_mut::<PER>().0.iter_mut().zip(square.groups.as_chunks::<PER>().0);
    for (w, (inputs, groups)) in inputs.take(n_words).enumerate() {
        let words = &square.words[w * square.stride..][..n_rows];
        column::<PER, SIGNED>(&load(words), square.lanes, groups, inputs);
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

/// Transposes the part of a block that lies within the output.
#[cold]
#[inline(never)]
fn edge(inputs: &[[f32; SIDE]], rows: usize, out: &mut [f32], stride: usize) {
    for i in 0..rows {
        let row = &mut out[i * stride..][..inputs.len()];
        row.iter_mut().zip(inputs).for_each(|(o, input)| *o = input[i]);
    }
}
