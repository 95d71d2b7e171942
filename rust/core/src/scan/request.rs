//! What a scan computes, and how it runs.

use crate::kernels::Isa;

/// What to compute beyond the summary of every tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// Count values: quantiles, distinct values, entropy, and exact moments for types of at most 16 bits.
    pub exact: bool,
    /// Mean, standard deviation and L2 norm of every row.
    pub rows: bool,
    /// The same of every column.
    pub columns: bool,
    /// BLAKE3 of the raw bytes.
    pub digest: bool,
}

/// How bytes come from a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Io {
    /// For each file what is faster: windows of a map where there are such, else positional reads. Of warm
    /// files windows took .6 to .75 of the time that `pread` took (benches/scan/RESULTS.md).
    #[default]
    Auto,
    /// Positional reads into one reused buffer per thread.
    Pread,
    /// As `Auto`. Either path gives an error if a file is cut short meanwhile.
    Mmap,
}

/// How to run a scan; none of it changes a result's bits, but for [`Isa::Portable`] within its stated bound.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Threads; 0 for one per core.
    pub threads: usize,
    /// Source of the bytes.
    pub io: Io,
    /// Instruction set of the kernels.
    pub isa: Isa,
}

impl Default for Settings {
    fn default() -> Self {
        Self { threads: 0, io: Io::Auto, isa: Isa::detect() }
    }
}
