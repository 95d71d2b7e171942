//! Decodes codes of one byte under a grid of scales: fp8 in 128 × 128 blocks or per tensor, int8 per row, per group or
//! per tensor.
//!
//! Value, each operation rounded to float32: `((value(code) − zero) · scale) · factor`.
//!
//! - DeepSeek-V3's block kernel, compressed-tensors, FBGEMM and Quark fp8: `value · scale`.
//! - compressed-tensors int8: `(code − zero) · scale`.
//! - bitsandbytes int8: `(code · row maximum) · f32(1/127)`, two roundings; hence `factor`.
//!
//! Blocks at the right and lower edge are ragged: the last scale of a row of the grid serves what is left.

use super::bytes::{self, Tile};
use super::check::{check_blocks, check_grid, length};
use super::grid::{Grid, runs_of_blocks, runs_of_groups};
use super::rows::{Settings, for_rows};
use crate::control::Control;
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// A rectangle of one-byte codes and the part of the grid that covers it.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a> {
    /// `rows` × `columns` codes, row-major.
    pub codes: &'a [u8],
    /// Any type of 8 bits.
    pub dtype: Dtype,
    /// Rows of codes and of output.
    pub rows: usize,
    /// Columns of codes and of output.
    pub columns: usize,
    /// The grid, row-major.
    pub scales: &'a [f32],
    /// Zero points, shaped as `scales`; 0 if none.
    pub zeros: Option<&'a [f32]>,
    /// Rows and columns of the grid.
    pub grid: (usize, usize),
    /// Rows and columns of codes under one scale.
    pub block: (usize, usize),
    /// How far into its block the rectangle's first code lies.
    pub offset: (usize, usize),
    /// The grid's column for each column, instead of blocks.
    pub groups: Option<&'a [i32]>,
    /// What the product is multiplied by at last.
    pub factor: f32,
}

impl Scaled<'_> {
    /// Values of the output. Errors: `Usage` for lengths that do not fit.
    pub fn output_len(&self) -> Result<usize> {
        if self.dtype.bits() != 8 {
            return Err(Error::usage("not_a_byte_type", format!("{} is not a type of 8 bits", self.dtype.name())));
        }
        length("codes", self.codes.len(), self.rows.checked_mul(self.columns))?;
        check_grid(self.scales, self.zeros, self.grid)?;
        check_blocks("block rows", self.rows, self.block.0, self.offset.0, self.grid.0)?;
        match self.groups {
            Some(groups) => length("groups", groups.len(), Some(self.columns))?,
            None => check_blocks("block columns", self.columns, self.block.1, self.offset.1, self.grid.1)?,
        }
        Ok(self.codes.len())
    }

    /// The values, row-major, into `out` of rows · columns. Errors: `Usage` for lengths that do not fit, `Cancelled`.
    pub fn decode(&self, settings: Settings, control: &Control, out: &mut [f32]) -> Result<()> {
        length("output", out.len(), Some(self.output_len()?))?;
        let runs = match self.groups {
            Some(groups) => runs_of_groups(groups, self.grid.1)?,
            None => runs_of_blocks(self.columns, self.block.1, self.offset.1),
        };
        let grid = Grid {
            scales: self.scales,
            zeros: self.zeros,
            zero: 0.0,
            factor: self.factor,
            block_rows: self.block.0,
            row_offset: self.offset.0,
            row_stride: self.grid.1,
            group_stride: 1,
        };
        for_rows(
            out,
            self.columns,
            1,
            settings,
            control,
            || (),
            |(), first_row, out| {
                let tile = Tile {
                    grid: &grid,
                    runs: &runs,
                    codes: &self.codes[first_row * self.columns..],
                    stride: self.columns,
                    first: 0,
                    first_row,
                    out_stride: self.columns,
                    out_first: 0,
                };
                bytes::decode(settings.isa, self.dtype, tile, out.len() / self.columns, out);
            },
        )
    }
}
