//! Computes the statistics of tensors in one pass over every byte: plan → run → merge.
//!
//! [`plan`] cuts the tensors into units, threads take units in plan order and turn each into a partial result, and the
//! thread that finishes a tensor's last unit merges its partials in unit order. Since neither the cuts nor the order of
//! merging depends on who ran what, results have the same bits for any number of threads and for either source.
//!
//! Memory: each thread holds one window of 2 MiB or one buffer of 512 KiB and a page, and one count table; a tensor in flight holds the
//! partials of its finished units (some hundred bytes each) and, if counted, one table of 64-bit counts. Units are
//! taken in plan order, so about as many tensors are in flight as there are threads.

mod digest;
mod locate;
mod memory;
mod plan;
mod reader;
mod request;
mod result;
mod retained;
mod run;

pub use digest::LEAF;
pub use locate::{Outliers, find_above};
pub use memory::Measure;
pub use plan::{CHUNK, Plan, Tensor, Unit};
pub use request::{Io, Request, Settings};
pub use result::{Lines, TensorResult};
pub use retained::RetainedSamples;
pub use run::{scan, scan_retaining};
