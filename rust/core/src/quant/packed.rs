//! Decodes integers of 2, 4 or 8 bits (GPTQ, AWQ), several to a 32-bit word, under scales and zero points per group of
//! inputs.
//!
//! Value, each operation rounded to float32: `(code − zero) · scale`.
//!
//! | layout | stored | in a word, low bits first | scales, zeros | as in |
//! |---|---|---|---|---|
//! | gptq | (in / per, out) words | consecutive inputs | (groups, out) | GPTQ, GPTQModel; any order of groups (act-order) |
//! | awq | (in, out / per) words | outputs 0 2 4 6 1 3 5 7 | (groups, out) | AutoAWQ "gemm" |
//! | words | (out, in / per) words | consecutive inputs | (out, groups) | compressed-tensors "pack-quantized" |
//! | bytes | (out, in / per) bytes | consecutive inputs | (out, groups) | plain packings of two per byte |
//!
//! Output is (out, in), row-major, in all. Storage by columns is transposed in tiles of words first, which is an eighth
//! of transposing the values; AWQ's words hold eight outputs, so a transposed strip of words is looked up eight times.
//! Where groups come in any order (act-order), words are wanted by columns, and it is values that are transposed: see
//! `scattered`.

use super::bytes;
use super::check::{check_grid, length};
use super::grid::{Grid, Run, count_runs, runs_of_groups};
use super::lookup::Table;
use super::nibbles::{self, Strip};
use super::rows::{Settings, for_rows};
use super::scattered::{self, Panel};
use super::transpose::Transposed;
use super::unpack::AWQ_PLACE;
use crate::control::Control;
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// Outputs per chunk where storage is by columns: 16 words side by side are a cache line.
const TRANSPOSED_ROWS: usize = 64;
/// Outputs per chunk of AWQ: as many as 16 words hold.
const AWQ_ROWS: usize = 128;
/// Inputs per tile: with the rows above, a transposed tile stays in the first or second-level cache.
const TILE_COLUMNS: usize = 1024;
/// Codes per run below which runs are not worth a table each.
const SHORT_RUN: usize = 8;

/// How codes lie in words; see the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Layout {
    Gptq,
    Awq,
    Words,
    Bytes,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gptq, Self::Awq, Self::Words, Self::Bytes];

    /// "gptq", "awq", "words" or "bytes".
    pub fn name(self) -> &'static str {
        match self {
            Self::Gptq => "gptq",
            Self::Awq => "awq",
            Self::Words => "words",
            Self::Bytes => "bytes",
        }
    }

    /// Bytes of a stored element.
    pub fn unit(self) -> usize {
        if self == Self::Bytes { 1 } else { 4 }
    }

    /// Whether scales are (groups, out).
    fn by_columns(self) -> bool {
        matches!(self, Self::Gptq | Self::Awq)
    }
}

/// A rectangle of packed codes, cut at whole words, with the scales of its groups.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// The stored elements, row-major.
    pub words: &'a [u8],
    /// How they are packed.
    pub layout: Layout,
    /// Rows and columns of stored elements.
    pub stored: (usize, usize),
    /// Bits per code: 2, 4 or 8; 4 for AWQ.
    pub bits: u32,
    /// The place of the first wanted code in the first word.
    pub first: usize,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// (out, groups) or (groups, out), by layout.
    pub scales: &'a [f32],
    /// Zero points, shaped as `scales`.
    pub zeros: Option<&'a [f32]>,
    /// Everyone's zero point where `zeros` is none.
    pub zero: f32,
    /// How many groups the scales cover.
    pub n_groups: usize,
    /// The group of each input.
    pub groups: &'a [i32],
    /// Whether codes are two's complement.
    pub signed: bool,
}

/// Inputs `start..end` and their runs, counted from `start`; no runs where groups come in any order.
struct Tile {
    start: usize,
    end: usize,
    runs: Vec<Run>,
}

impl Packed<'_> {
    /// The values, row-major (out, in), into `out`. Errors: `Usage` for lengths that do not fit, `Cancelled`.
    pub fn decode(&self, settings: Settings, control: &Control, out: &mut [f32]) -> Result<()> {
        length("output", out.len(), Some(self.output_len()?))?;
        let grid = Grid {
            scales: self.scales,
            zeros: self.zeros,
            zero: self.zero,
            factor: 1.0,
            block_rows: 1,
            row_offset: 0,
            row_stride: if self.layout.by_columns() { 1 } else { self.n_groups },
            group_stride: if self.layout.by_columns() { self.rows } else { 1 },
        };
        let numbers = numbers(self.bits, self.signed);
        let scattered = self.scattered()?;
        let width = match self.layout {
            Layout::Words | Layout::Bytes if !scattered => self.columns,
            _ => TILE_COLUMNS,
        };
        let tiles = tiles(self.groups, self.n_groups, width.max(1), scattered)?;
        let job = Job { packed: self, grid: &grid, numbers: &numbers, settings };
        let step = match self.layout {
            Layout::Awq => AWQ_ROWS,
            Layout::Words | Layout::Bytes if !scattered => 1,
            _ => TRANSPOSED_ROWS,
        };
        for_rows(out, self.columns, step, settings, control, Scratch::default, |scratch, first_row, out| {
            if scattered {
                scratch.panel.fill(&grid, self.n_groups, first_row, out.len() / self.columns);
            }
            for tile in &tiles {
                match self.layout {
                    _ if scattered => job.scattered(tile, scratch, first_row, out),
                    Layout::Gptq => job.transposed(tile, scratch, first_row, out),
                    Layout::Awq => job.strips(tile, scratch, first_row, out),
                    Layout::Words | Layout::Bytes => job.straight(tile, scratch, first_row, out),
                }
            }
        })
    }

    /// Codes per stored element.
    fn per(&self) -> usize {
        self.layout.unit() * 8 / self.bits as usize
    }

    /// Whether groups come in such an order that runs are too short for a table each. Errors: a group out of range.
    fn scattered(&self) -> Result<bool> {
        let runs = count_runs(self.groups, self.n_groups)?;
        // Scales of all groups are laid out anew, which groups that no column takes should not make dear.
        let few = self.n_groups <= self.columns;
        // Rows of whole words can be taken as words; AWQ's words lie the other way.
        let words = self.layout != Layout::Awq && (self.stored.1 * self.layout.unit()).is_multiple_of(4);
        Ok(words && few && runs > self.columns / SHORT_RUN)
    }

    /// Values of the output. Errors: `Usage` for lengths that do not fit.
    pub fn output_len(&self) -> Result<usize> {
        let known = matches!(self.bits, 2 | 4 | 8) && (self.layout != Layout::Awq || self.bits == 4);
        if !known {
            let message = format!("codes of {} bits in layout {:?} are not known", self.bits, self.layout.name());
            return Err(Error::usage("unknown_bits", message));
        }
        let unit = self.layout.unit();
        length("words", self.words.len(), self.stored.0.checked_mul(self.stored.1).and_then(|n| n.checked_mul(unit)))?;
        length("groups", self.groups.len(), Some(self.columns))?;
        check_grid(self.scales, self.zeros, (self.rows, self.n_groups))?;
        // (stored and wanted along the packed axis, stored and wanted along the other).
        let (packed, plain) = match self.layout {
            Layout::Gptq => ((self.stored.0, self.columns), (self.stored.1, self.rows)),
            Layout::Awq => ((self.stored.1, self.rows), (self.stored.0, self.columns)),
            Layout::Words | Layout::Bytes => ((self.stored.1, self.columns), (self.stored.0, self.rows)),
        };
        let fits = packed.1.checked_add(self.first).is_some_and(|end| end.div_ceil(self.per()) <= packed.0);
        if plain.0 != plain.1 || !fits {
            let message = format!(
                "{} × {} values from place {} on do not fit {} × {} stored elements of layout {:?}",
                self.rows,
                self.columns,
                self.first,
                self.stored.0,
                self.stored.1,
                self.layout.name()
            );
            return Err(Error::usage("stored_shape_mismatch", message));
        }
        // Below 16 times the bytes of `words`.
        Ok(self.rows * self.columns)
    }
}

/// The number that each code stands for; codes of two bits repeat, so that the two above them do not matter.
fn numbers(bits: u32, signed: bool) -> Table {
    let size = 1i32 << bits.min(4);
    std::array::from_fn(|k| {
        let code = k as i32 & (size - 1);
        (if signed && code >= size / 2 { code - size } else { code }) as f32
    })
}

fn tiles(groups: &[i32], n_groups: usize, width: usize, scattered: bool) -> Result<Vec<Tile>> {
    let mut start = 0;
    let tiles = groups.chunks(width).map(|groups| {
        let runs = if scattered { Vec::new() } else { runs_of_groups(groups, n_groups)? };
        let tile = Tile { start, end: start + groups.len(), runs };
        start = tile.end;
        Ok(tile)
    });
    tiles.collect()
}

/// What one thread keeps between tiles.
#[derive(Default)]
struct Scratch {
    transposed: Transposed,
    /// Codes of two bits made four bits wide.
    wide: Vec<u8>,
    /// Scales for groups in any order.
    panel: Panel,
}

/// What the tiles share.
struct Job<'a> {
    packed: &'a Packed<'a>,
    grid: &'a Grid<'a>,
    numbers: &'a Table,
    settings: Settings,
}

impl Job<'_> {
    fn rows(&self, out: &[f32]) -> usize {
        out.len() / self.packed.columns
    }

    /// Codes stored row by row.
    fn straight(&self, tile: &Tile, scratch: &mut Scratch, first_row: usize, out: &mut [f32]) {
        let p = self.packed;
        let stride = p.stored.1 * p.layout.unit();
        let codes = &p.words[first_row * stride..];
        self.codes(tile, &mut scratch.wide, Rows { codes, stride, first: p.first, first_row }, out);
    }

    /// Words stored column by column: transposed, they are codes row by row.
    fn transposed(&self, tile: &Tile, scratch: &mut Scratch, first_row: usize, out: &mut [f32]) {
        let (p, rows) = (self.packed, self.rows(out));
        let (begin, end) = (p.first + tile.start, p.first + tile.end);
        let words = begin / p.per()..end.div_ceil(p.per());
        let from = &p.words.as_chunks::<4>().0[words.start * p.stored.1 + first_row..];
        let Scratch { transposed, wide, .. } = scratch;
        transposed.transpose(from, p.stored.1, words.len(), rows);
        let codes = transposed.row_onwards(0).as_flattened();
        let rows = Rows { codes, stride: transposed.stride * 4, first: begin % p.per(), first_row };
        self.codes(tile, wide, rows, out);
    }

    /// Codes whose groups come in any order: words column by column, which those stored by rows are transposed into.
    fn scattered(&self, tile: &Tile, scratch: &mut Scratch, first_row: usize, out: &mut [f32]) {
        let (p, rows) = (self.packed, self.rows(out));
        let per = 32 / p.bits as usize;
        let (begin, end) = (p.first + tile.start, p.first + tile.end);
        let words = begin / per..end.div_ceil(per);
        let (from, stride) = (p.words.as_chunks::<4>().0, p.stored.1 * p.layout.unit() / 4);
        let (words, stride) = if p.layout == Layout::Gptq {
            (&from[words.start * stride + first_row..], stride)
        } else {
            scratch.transposed.transpose(&from[first_row * stride + words.start..], stride, rows, words.len());
            (scratch.transposed.row_onwards(0), scratch.transposed.stride)
        };
        let (panel, groups) = (&scratch.panel, &p.groups[tile.start..tile.end]);
        let (bits, first, out_stride, out_first) = (p.bits, begin % per, p.columns, tile.start);
        let tile = scattered::Tile { panel, groups, words, stride, bits, first, out_stride, out_first };
        if p.signed {
            scattered::decode::<true>(self.settings.isa, tile, rows, out);
        } else {
            scattered::decode::<false>(self.settings.isa, tile, rows, out);
        }
    }

    /// Words that hold one input of eight outputs: transposed, each strip of words is those outputs' codes.
    fn strips(&self, tile: &Tile, scratch: &mut Scratch, first_row: usize, out: &mut [f32]) {
        let (p, rows, n) = (self.packed, self.rows(out), tile.end - tile.start);
        let (begin, end) = (p.first + first_row, p.first + first_row + rows);
        let words = begin / p.per()..end.div_ceil(p.per());
        let from = &p.words.as_chunks::<4>().0[tile.start * p.stored.1 + words.start..];
        scratch.transposed.transpose(from, p.stored.1, n, words.len());
        for i in 0..rows {
            let place = begin + i;
            let strip = Strip {
                grid: self.grid,
                numbers: self.numbers,
                runs: &tile.runs,
                words: &scratch.transposed.row_onwards(place / p.per() - words.start)[..n],
                shift: 4 * AWQ_PLACE[place % p.per()] as u32,
                row: first_row + i,
            };
            nibbles::strip(self.settings.isa, strip, &mut out[i * p.columns + tile.start..][..n]);
        }
    }

    /// Decodes rows of codes, low bits first, by the width of the codes.
    fn codes(&self, tile: &Tile, wide: &mut Vec<u8>, rows: Rows<'_>, out: &mut [f32]) {
        let (p, n) = (self.packed, self.rows(out));
        let (grid, runs, isa) = (self.grid, &tile.runs[..], self.settings.isa);
        let Rows { codes, stride, first, first_row } = rows;
        let (out_stride, out_first) = (p.columns, tile.start);
        if p.bits == 8 {
            let dtype = if p.signed { Dtype::I8 } else { Dtype::U8 };
            let tile = bytes::Tile { grid, runs, codes, stride, first, first_row, out_stride, out_first };
            return bytes::decode(isa, dtype, tile, n, out);
        }
        let (codes, stride) = if p.bits == 2 {
            let halves = |b: u8| [b & 3 | (b & 12) << 2, (b >> 4) & 3 | (b >> 2) & 48];
            wide.clear();
            wide.extend(codes[..n * stride].iter().flat_map(|&b| halves(b)));
            (&wide[..], 2 * stride)
        } else {
            (codes, stride)
        };
        let numbers = self.numbers;
        let codes = nibbles::Tile { grid, numbers, runs, codes, stride, first, first_row, out_stride, out_first };
        nibbles::decode(isa, codes, n, out);
    }
}

/// Rows of codes: where they lie, at which code each begins, and which output the first is.
#[derive(Clone, Copy)]
struct Rows<'a> {
    codes: &'a [u8],
    stride: usize,
    first: usize,
    first_row: usize,
}
