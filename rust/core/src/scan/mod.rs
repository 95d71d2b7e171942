//! One pass over every byte: plan → run → merge.
//!
//! [`plan`] cuts the tensors into units, threads take units in plan order and turn each into a partial result, and the
//! thread that finishes a tensor's last unit merges its partials in unit order. Since neither the cuts nor the order of
//! merging depends on who ran what, results have the same bits for any number of threads and for either source.
//!
//! Memory: each thread holds one buffer of 512 KiB and a page, and one count table; a tensor in flight holds the partials
//! of its finished units (some hundred bytes each) and, if counted, one table of 64-bit counts. Units are taken in plan
//! order, so about as many tensors are in flight as there are threads.

mod digest;
mod keep;
mod locate;
mod memory;
mod plan;
mod run;

pub use digest::LEAF;
pub use keep::Keep;
pub use locate::{Found, find_above};
pub use memory::Measure;
pub use plan::{CHUNK, Plan, Tensor, Unit};
pub use run::{scan, scan_keeping};

use crate::kernels::Isa;
use crate::stats::{Distribution, Summary};

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
    /// `Pread`: a file cut short is an error, where a map may kill the process. A map was up to 1.5 times as fast on
    /// files that lie in memory in large pages (benches/scan/RESULTS.md), and a little slower on others.
    #[default]
    Auto,
    /// Positional reads into one reused buffer per thread.
    Pread,
    /// Memory maps of one unit each; the file's size is asked before each. If it is cut short while a unit beyond its
    /// new end is read, the system kills the process.
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

/// Mean, standard deviation (ddof 0) and L2 norm of each row or column, over its finite values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lines {
    /// Means; NaN where nothing is finite.
    pub mean: Vec<f64>,
    /// Standard deviations.
    pub std: Vec<f64>,
    /// L2 norms.
    pub l2: Vec<f64>,
}

/// What a scan found in one tensor. `None` where it was not asked for, or where the tensor has no rows.
#[derive(Debug, Clone)]
pub struct TensorResult {
    /// Counts, extremes and moments.
    pub summary: Summary,
    /// Quantiles, distinct values and entropy: on `exact`, and always for types of at most 8 bits and 16-bit integers.
    pub distribution: Option<Distribution>,
    /// Row statistics.
    pub rows: Option<Lines>,
    /// Column statistics.
    pub columns: Option<Lines>,
    /// BLAKE3 of the raw bytes.
    pub digest: Option<blake3::Hash>,
}
