//! Kernels for codes of four bits: 16 values made once per run of codes under one scale, then looked up.
//!
//! A value that depends on nothing but its code and its group is computed 16 times instead of once per element, by the
//! same operations in the same order, so the bits are those of the formula. A look-up of 16 lanes is one permutation
//! with AVX-512 (the table is a register), two and a blend per 8 lanes with AVX2, a load elsewhere.

use super::dispatch::look_shells;
use super::grid::{Affine, Grid, Run};
use super::lookup::{Look, Table};

/// Integer codes in rows, low half first.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub grid: &'a Grid<'a>,
    /// The number that each code stands for.
    pub numbers: &'a Table,
    pub runs: &'a [Run],
    /// Row `i` is the `stride` bytes from `i · stride`, and its first code the `first`th in there.
    pub codes: &'a [u8],
    pub stride: usize,
    pub first: usize,
    /// The output's row that the tile's first row is.
    pub first_row: usize,
    /// Row `i` of the tile goes to `out[i · out_stride + out_first..]`.
    pub out_stride: usize,
    pub out_first: usize,
}

look_shells!(decode, decode_v3, decode_v4, decode_body, (tile: Tile<'_>, rows: usize, out: &mut [f32]));

#[inline(always)]
fn decode_body<L: Look>(tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    let columns = tile.runs.last().map_or(0, |r| r.end);
    let uniform = uniform(tile.runs);
    for i in 0..rows {
        let codes = &tile.codes[i * tile.stride..][..tile.stride];
        let out = &mut out[i * tile.out_stride + tile.out_first..];
        let row = tile.grid.row(tile.first_row + i);
        let mut start = 0;
        if tile.first.is_multiple_of(2) {
            let affine = |k: usize| tile.grid.affine(row, tile.runs[k].group);
            let (numbers, codes) = (tile.numbers, &codes[tile.first / 2..]);
            start = match uniform {
                Some(128) => blocks::<L, false, 128>(numbers, affine, codes, &mut out[..columns]),
                Some(64) => blocks::<L, false, 64>(numbers, affine, codes, &mut out[..columns]),
                Some(32) => blocks::<L, false, 32>(numbers, affine, codes, &mut out[..columns]),
                _ => 0,
            };
        }
        let done = start;
        for r in tile.runs.iter().filter(|r| r.end > done) {
            let affine = tile.grid.affine(row, r.group);
            run::<L, false>(tile.numbers, affine, codes, tile.first + start, &mut out[start..r.end]);
            start = r.end;
        }
    }
}

/// Codes of one output row at one place of consecutive words.
#[derive(Clone, Copy)]
pub(super) struct Strip<'a> {
    pub grid: &'a Grid<'a>,
    pub numbers: &'a Table,
    pub runs: &'a [Run],
    pub words: &'a [[u8; 4]],
    pub shift: u32,
    pub row: usize,
}

look_shells!(strip, strip_v3, strip_v4, strip_body, (strip: Strip<'_>, out: &mut [f32]));

#[inline(always)]
fn strip_body<L: Look>(strip: Strip<'_>, out: &mut [f32]) {
    let row = strip.grid.row(strip.row);
    let mut start = 0;
    for r in strip.runs {
        let affine = strip.grid.affine(row, r.group);
        let table = L::table(strip.numbers, affine);
        let (groups, tail) = out[start..r.end].as_chunks_mut::<16>();
        let (words, rest) = strip.words[start..r.end].as_chunks::<16>();
        for (o, w) in groups.iter_mut().zip(words) {
            L::words(table, w, strip.shift, o);
        }
        if !tail.is_empty() {
            let values = affine.table(strip.numbers);
            for (o, w) in tail.iter_mut().zip(rest) {
                *o = values[(u32::from_le_bytes(*w) >> strip.shift) as usize & 15];
            }
        }
        start = r.end;
    }
}

/// Codes of a table in blocks that ignore rows: code `n` lies in block `(offset + n) / block`.
#[derive(Clone, Copy)]
pub(super) struct Flat<'a, S: Fn(usize) -> f32> {
    pub table: &'a Table,
    pub codes: &'a [u8],
    pub scale: S,
    pub block: usize,
    pub offset: usize,
}

impl<S: Fn(usize) -> f32> Flat<'_, S> {
    /// Codes from number `first` on.
    #[inline(always)]
    pub fn decode<L: Look, const HIGH: bool>(&self, first: usize, out: &mut [f32]) {
        let mut at = self.offset + first;
        let mut group = at / self.block;
        let mut out = out;
        if at.is_multiple_of(self.block) && first.is_multiple_of(2) {
            let affine = |k: usize| Affine::scale((self.scale)(group + k));
            let codes = &self.codes[first / 2..];
            let done = match self.block {
                64 => blocks::<L, HIGH, 64>(self.table, affine, codes, out),
                32 => blocks::<L, HIGH, 32>(self.table, affine, codes, out),
                16 => blocks::<L, HIGH, 16>(self.table, affine, codes, out),
                _ => 0,
            };
            (at, group, out) = (at + done, group + done / self.block, &mut out[done..]);
        }
        while !out.is_empty() {
            let n = (self.block - at % self.block).min(out.len());
            let (now, later) = std::mem::take(&mut out).split_at_mut(n);
            let affine = Affine::scale((self.scale)(group));
            run::<L, HIGH>(self.table, affine, self.codes, at - self.offset, now);
            (at, group, out) = (at + n, group + 1, later);
        }
    }
}

/// The length of all runs but a shorter last one, if they have one.
fn uniform(runs: &[Run]) -> Option<usize> {
    let block = runs.first()?.end;
    let whole = runs.iter().enumerate().take_while(|(k, r)| r.end == (k + 1) * block).count();
    (whole + 1 >= runs.len()).then_some(block)
}

/// As many whole blocks of `BLOCK` codes as `out` holds, block `k` under `affine(k)`; how many codes that were.
///
/// What [`run`] does, without a look at every block's edges: these are the sizes that files have.
#[inline(always)]
fn blocks<L: Look, const HIGH: bool, const BLOCK: usize>(
    numbers: &Table,
    affine: impl Fn(usize) -> Affine,
    codes: &[u8],
    out: &mut [f32],
) -> usize {
    let (whole, _) = out.as_chunks_mut::<BLOCK>();
    let n = whole.len() * BLOCK;
    for (k, (o, c)) in whole.iter_mut().zip(codes.chunks_exact(BLOCK / 2)).enumerate() {
        L::fetch_ahead(c);
        let table = L::table(numbers, affine(k));
        for (o, c) in o.as_chunks_mut::<16>().0.iter_mut().zip(c.as_chunks::<8>().0) {
            L::bytes::<HIGH>(table, c, o);
        }
    }
    n
}

/// The codes from number `first` of `codes` on, all under one table.
///
/// The table is made again, in memory, for the few codes that fill no vector: as a rule it stays in registers.
#[inline(always)]
fn run<L: Look, const HIGH: bool>(numbers: &Table, affine: Affine, codes: &[u8], first: usize, out: &mut [f32]) {
    let mut out = out;
    let mut codes = &codes[first / 2..];
    // A code that begins in the middle of a byte comes alone, so that the rest begins at one.
    if first % 2 == 1 && !out.is_empty() {
        let (one, rest) = std::mem::take(&mut out).split_at_mut(1);
        one[0] = affine.table(numbers)[(if HIGH { codes[0] & 15 } else { codes[0] >> 4 }) as usize];
        (out, codes) = (rest, &codes[1..]);
    }
    let table = L::table(numbers, affine);
    let (groups, tail) = out.as_chunks_mut::<16>();
    L::fetch_ahead(codes);
    for (o, c) in groups.iter_mut().zip(codes.as_chunks::<8>().0) {
        L::bytes::<HIGH>(table, c, o);
    }
    if !tail.is_empty() {
        let (values, codes) = (affine.table(numbers), &codes[groups.len() * 8..]);
        for (i, o) in tail.iter_mut().enumerate() {
            let high = (i % 2 == 1) != HIGH;
            *o = values[(if high { codes[i / 2] >> 4 } else { codes[i / 2] & 15 }) as usize];
        }
    }
}
