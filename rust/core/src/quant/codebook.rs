//! Decodes codes that index a table of values (NF4, FP4, MXFP4), under scales in blocks that run over the flattened
//! tensor.
//!
//! Value, each operation rounded to float32: `table[code] · scale` for 4 bits, `table[code] · scale + add` for 8.
//!
//! - bitsandbytes NF4 and FP4: blocks of 64 codes, the first of two in a byte's high half, scale = the block's absmax.
//!   With double quantisation the absmax are codes of 8 bits themselves, in blocks of 256, plus an offset.
//! - MXFP4 (OCP MX v1.0, gpt-oss): E2M1, the first of two in a byte's low half, blocks of 32 with an E8M0 scale.
//! - NVFP4: as MXFP4, but blocks of 16 with E4M3 scales under one scale of the tensor.

use super::check::{check_blocks, length, positive};
use super::dispatch::look_shells;
use super::lookup::{Look, Table};
use super::nibbles::Flat;
use super::rows::{CHUNK, Settings, for_rows};
use crate::control::Control;
use crate::dtype::{Class, Dtype};
use crate::error::{Error, Result};
use crate::kernels::small_values;

/// One scale per block.
#[derive(Debug, Clone, Copy)]
pub enum Scales<'a> {
    /// As float32.
    F32(&'a [f32]),
    /// As codes of a float type of 8 bits: E8M0, E4M3, …
    Small(Dtype, &'a [u8]),
}

impl Scales<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(scales) => scales.len(),
            Self::Small(_, codes) => codes.len(),
        }
    }

    /// The values of the codes, where these are codes.
    fn check(&self) -> Result<()> {
        match self {
            Self::Small(dtype, _) if dtype.bits() != 8 || dtype.class() != Class::Float => {
                let message = format!("scales are F32 or a float type of 8 bits, not {}", dtype.name());
                Err(Error::usage("unknown_scale_dtype", message))
            }
            _ => Ok(()),
        }
    }
}

/// A rectangle of 4-bit codes within a run of them.
#[derive(Debug, Clone, Copy)]
pub struct Codebook<'a> {
    /// Two codes per byte.
    pub codes: &'a [u8],
    /// Whether a byte's first code is its low half.
    pub low_first: bool,
    /// The values of the codes.
    pub table: [f32; 16],
    /// One per block.
    pub scales: Scales<'a>,
    /// Codes per block.
    pub block: usize,
    /// How far into its block code 0 of `codes` lies.
    pub block_offset: usize,
    /// Rows of output.
    pub rows: usize,
    /// Columns of output.
    pub columns: usize,
    /// The number of the first wanted code.
    pub first: usize,
    /// Codes from one row to the next.
    pub stride: usize,
}

impl Codebook<'_> {
    /// Values of the output. Errors: `Usage` for lengths that do not fit.
    pub fn output_len(&self) -> Result<usize> {
        self.scales.check()?;
        positive("block", self.block)?;
        if self.rows == 0 || self.columns == 0 {
            return Ok(0);
        }
        if self.rows > 1 && self.stride < self.columns {
            let message = format!("rows of {} codes, {} apart, overlap", self.columns, self.stride);
            return Err(Error::usage("rows_overlap", message));
        }
        let end = (self.rows - 1)
            .checked_mul(self.stride)
            .and_then(|last| last.checked_add(self.first)?.checked_add(self.columns));
        let Some(end) = end.filter(|&end| end.div_ceil(2) <= self.codes.len()) else {
            let message = format!(
                "{} rows of {} codes, {} apart from code {} on, do not lie in {} bytes",
                self.rows,
                self.columns,
                self.stride,
                self.first,
                self.codes.len()
            );
            return Err(Error::usage("codes_too_short", message));
        };
        check_blocks("block", end, self.block, self.block_offset, self.scales.len())?;
        // Rows apart, so at most two values per byte of `codes`.
        Ok(self.rows * self.columns)
    }

    /// The values, row-major, into `out` of rows · columns. Errors: `Usage` for lengths that do not fit, `Cancelled`.
    pub fn decode(&self, settings: Settings, control: &Control, out: &mut [f32]) -> Result<()> {
        length("output", out.len(), Some(self.output_len()?))?;
        let flat = match self.scales {
            Scales::F32(scales) => FlatScales::F32(scales),
            Scales::Small(dtype, codes) => FlatScales::Small(small_values(dtype), codes),
        };
        for_rows(
            out,
            self.columns,
            1,
            settings,
            control,
            || (),
            |(), first_row, out| {
                let first = self.first + first_row * self.stride;
                let job = Job { codebook: self, scales: flat, first };
                if self.low_first {
                    rows::<false>(settings.isa, job, out)
                } else {
                    rows::<true>(settings.isa, job, out)
                }
            },
        )
    }
}

/// Scales, or the values and codes of scales.
#[derive(Clone, Copy)]
pub(super) enum FlatScales<'a> {
    F32(&'a [f32]),
    Small(&'a [f32], &'a [u8]),
}

/// Rows of a code book from code `first` on.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    codebook: &'a Codebook<'a>,
    scales: FlatScales<'a>,
    first: usize,
}

look_shells!(rows, rows_v3, rows_v4, rows_body, <HIGH>, (job: Job<'_>, out: &mut [f32]));

#[inline(always)]
fn rows_body<L: Look, const HIGH: bool>(job: Job<'_>, out: &mut [f32]) {
    match job.scales {
        FlatScales::F32(scales) => rows_scaled::<L, HIGH>(job, out, |group| scales[group]),
        FlatScales::Small(values, codes) => rows_scaled::<L, HIGH>(job, out, |group| values[codes[group] as usize]),
    }
}

#[inline(always)]
fn rows_scaled<L: Look, const HIGH: bool>(job: Job<'_>, out: &mut [f32], scale: impl Fn(usize) -> f32) {
    let book = job.codebook;
    let table: &Table = &book.table;
    let flat = Flat { table, codes: book.codes, scale, block: book.block, offset: book.block_offset };
    for (i, out) in out.chunks_exact_mut(book.columns).enumerate() {
        flat.decode::<L, HIGH>(job.first + i * book.stride, out);
    }
}

/// A run of 8-bit codes.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// One per byte.
    pub codes: &'a [u8],
    /// The values of the codes.
    pub table: &'a [f32; 256],
    /// One per block.
    pub scales: &'a [f32],
    /// Codes per block.
    pub block: usize,
    /// How far into its block code 0 lies.
    pub offset: usize,
    /// What is added to each product.
    pub add: f32,
}

impl Lookup<'_> {
    /// The values into `out`, as long as `codes`. Errors: `Usage` for lengths that do not fit, `Cancelled`.
    pub fn decode(&self, settings: Settings, control: &Control, out: &mut [f32]) -> Result<()> {
        length("output", out.len(), Some(self.codes.len()))?;
        check_blocks("block", self.codes.len(), self.block, self.offset, self.scales.len())?;
        // Rows of one: a chunk is any run of codes.
        for_rows(
            out,
            1,
            CHUNK,
            settings,
            control,
            || (),
            |(), first, out| {
                for (i, (o, &code)) in out.iter_mut().zip(&self.codes[first..]).enumerate() {
                    let product = self.table[code as usize] * self.scales[(self.offset + first + i) / self.block];
                    *o = product + self.add;
                }
            },
        )
    }
}
