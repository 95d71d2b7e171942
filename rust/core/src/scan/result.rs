//! The statistics of one tensor, as a scan returns them.

use crate::kernels::BUCKETS;
use crate::stats::{Distribution, Summary};

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
    /// The linear sketch; boxed, for most scans have none and keep a result per tensor.
    pub sketch: Option<Box<[f64; BUCKETS]>>,
}
