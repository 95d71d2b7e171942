//! Quantised data of one format, larger than the caches, cut into tiles as a streaming consumer would ask for them.

use weightprint_core::control::Control;
use weightprint_core::dtype::Dtype;
use weightprint_core::error::Result;
use weightprint_core::quant::{Codebook, Layout, Packed, Scaled, Scales, Settings};

/// Bytes of codes: more than the last-level cache of most machines.
pub const BYTES: usize = 96 << 20;
/// Values of a tile: 256 KiB of output.
pub const TILE: usize = 64 << 10;

/// A storage format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// fp8 in 128 × 128 blocks.
    Fp8Block(Dtype),
    /// int8, one scale per row, bitsandbytes' second factor.
    Int8Row,
    /// int8 with zero points per 128 columns.
    Int8Group,
    /// 4 or 8 bits in words, groups of 128, zero points.
    Packed(Layout, u32),
    /// As `Packed`, with groups in random order of inputs.
    ActOrder(Layout, u32),
    /// NF4 in blocks of 64.
    Nf4,
    /// E2M1 in blocks of 32 with E8M0 scales.
    Mxfp4,
}

impl Format {
    /// All that the benchmarks measure.
    pub const ALL: [Self; 14] = [
        Self::Fp8Block(Dtype::F8E4M3),
        Self::Fp8Block(Dtype::F8E5M2),
        Self::Int8Row,
        Self::Int8Group,
        Self::Packed(Layout::Gptq, 4),
        Self::Packed(Layout::Gptq, 8),
        Self::ActOrder(Layout::Gptq, 4),
        Self::ActOrder(Layout::Gptq, 8),
        Self::ActOrder(Layout::Words, 4),
        Self::Packed(Layout::Awq, 4),
        Self::Packed(Layout::Words, 4),
        Self::Packed(Layout::Words, 8),
        Self::Nf4,
        Self::Mxfp4,
    ];

    /// A short name.
    pub fn name(self) -> String {
        match self {
            Self::Fp8Block(dtype) => format!("{}_128x128", dtype.name().to_lowercase()),
            Self::Int8Row => "int8_row".to_owned(),
            Self::Int8Group => "int8_group_zeros".to_owned(),
            Self::Packed(layout, bits) => format!("{}_{bits}bit", layout.name()),
            Self::ActOrder(layout, bits) => format!("{}_{bits}bit_act_order", layout.name()),
            Self::Nf4 => "nf4_64".to_owned(),
            Self::Mxfp4 => "mxfp4_32".to_owned(),
        }
    }

    /// Inputs per tile: where words of several outputs lie side by side, a tile takes at least a cache line of them.
    fn columns(self) -> usize {
        match self {
            Self::Packed(Layout::Awq, _) => 512,
            Self::Packed(Layout::Gptq, _) | Self::ActOrder(..) => 1024,
            _ => 4096,
        }
    }

    /// Bits per code.
    fn bits(self) -> usize {
        match self {
            Self::Fp8Block(_) | Self::Int8Row | Self::Int8Group | Self::Packed(_, 8) | Self::ActOrder(_, 8) => 8,
            _ => 4,
        }
    }
}

/// Codes and scales of a format.
pub struct Subject {
    format: Format,
    pub codes: Vec<u8>,
    /// More than any tile needs; not part of what is read from memory but for NF4 and MXFP4.
    scales: Vec<f32>,
    zeros: Vec<f32>,
    exponents: Vec<u8>,
    groups: Vec<i32>,
}

impl Subject {
    /// Random codes of `format`.
    pub fn new(format: Format) -> Self {
        let mut state = 88_172_645_463_325_252u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let codes: Vec<u8> = (0..BYTES / 8).flat_map(|_| next().to_le_bytes()).collect();
        let n = BYTES * 8 / format.bits();
        // Blocks of 64 need most.
        let scales = (0..n / 64).map(|_| (next() % 1000) as f32 * 1e-5).collect();
        let zeros = (0..n / 64).map(|_| (next() % 16) as f32).collect();
        let exponents = (0..n / 32).map(|_| (110 + next() % 16) as u8).collect();
        let columns = format.columns() as i32;
        let groups = (0..columns).map(|c| c / 128).collect();
        let mut subject = Self { format, codes, scales, zeros, exponents, groups };
        if matches!(format, Format::ActOrder(..)) {
            subject.groups.iter_mut().for_each(|g| *g = (next() % 8) as i32);
        }
        subject
    }

    /// Values in all tiles.
    pub fn values(&self) -> usize {
        self.codes.len() * 8 / self.format.bits()
    }

    /// Bytes read from memory to decode all tiles: codes, and scales where there are many.
    pub fn stored(&self) -> usize {
        self.codes.len()
            + match self.format {
                Format::Nf4 => self.values() / 64 * 4,
                Format::Mxfp4 => self.values() / 32,
                _ => 0,
            }
    }

    /// Decodes tile `i`, all of whose values go to `out`.
    pub fn tile(&self, i: usize, settings: Settings, out: &mut [f32]) -> Result<()> {
        let control = Control::new();
        let size = out.len() * self.format.bits() / 8;
        let codes = &self.codes[i * size..][..size];
        let columns = self.format.columns();
        let rows = out.len() / columns;
        let scaled = |dtype, grid: (usize, usize), block, zeros: bool, factor| Scaled {
            codes,
            dtype,
            rows,
            columns,
            scales: &self.scales[..grid.0 * grid.1],
            zeros: zeros.then_some(&self.zeros[..grid.0 * grid.1]),
            grid,
            block,
            offset: (0, 0),
            groups: None,
            factor,
        };
        match self.format {
            Format::Fp8Block(dtype) => {
                let grid = (rows.div_ceil(128), columns / 128);
                scaled(dtype, grid, (128, 128), false, 1.0).decode(settings, &control, out)
            }
            Format::Int8Row => {
                let factor = 1.0 / 127.0;
                scaled(Dtype::I8, (rows, 1), (1, columns), false, factor).decode(settings, &control, out)
            }
            Format::Int8Group => {
                scaled(Dtype::I8, (rows, columns / 128), (1, 128), true, 1.0).decode(settings, &control, out)
            }
            Format::Packed(layout, bits) | Format::ActOrder(layout, bits) => {
                self.packed(layout, bits, codes, settings, out)
            }
            Format::Nf4 | Format::Mxfp4 => {
                let block = if self.format == Format::Nf4 { 64 } else { 32 };
                let blocks = i * out.len() / block..(i + 1) * out.len() / block;
                let scales = if self.format == Format::Nf4 {
                    Scales::F32(&self.scales[blocks])
                } else {
                    Scales::Small(Dtype::F8E8M0, &self.exponents[blocks])
                };
                let table = std::array::from_fn(|k| k as f32 / 7.5 - 1.0);
                let low_first = self.format == Format::Mxfp4;
                let (block_offset, first, stride) = (0, 0, columns);
                let book =
                    Codebook { codes, low_first, table, scales, block, block_offset, rows, columns, first, stride };
                book.decode(settings, &control, out)
            }
        }
    }

    fn packed(&self, layout: Layout, bits: u32, codes: &[u8], settings: Settings, out: &mut [f32]) -> Result<()> {
        let columns = self.format.columns();
        let rows = out.len() / columns;
        let per = layout.unit() * 8 / bits as usize;
        let stored = match layout {
            Layout::Gptq => (columns / per, rows),
            Layout::Awq => (columns, rows / per),
            Layout::Words | Layout::Bytes => (rows, columns / per),
        };
        let n_groups = columns / 128;
        let packed = Packed {
            words: codes,
            layout,
            stored,
            bits,
            first: 0,
            rows,
            columns,
            scales: &self.scales[..rows * n_groups],
            zeros: Some(&self.zeros[..rows * n_groups]),
            zero: 0.0,
            n_groups,
            groups: &self.groups,
            signed: false,
        };
        packed.decode(settings, &Control::new(), out)
    }
}
