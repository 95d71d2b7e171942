//! `nearest`: the largest score of each row, and its column.

use numpy::{PyReadonlyArray2, PyReadwriteArray1};
use pyo3::prelude::*;
use weightprint_core::error::Error;
use weightprint_core::kernels::Isa;
use weightprint_core::pair::nearest::{self as core, Part};

use crate::arrays::by_rows;
use crate::errors::to_python;
use crate::gateway;

/// Update the best sum of scores of each row (`best`) and its column (`at`) by further columns, of which `start` is the
/// first. `parts`: (scores, whether their signs count) of one shape (rows, columns), contiguous.
#[pyfunction]
pub fn nearest(
    py: Python<'_>,
    parts: Vec<(PyReadonlyArray2<'_, f32>, bool)>,
    start: i64,
    mut best: PyReadwriteArray1<'_, f32>,
    mut at: PyReadwriteArray1<'_, i64>,
) -> PyResult<()> {
    let bad = || {
        let why = "scores are contiguous arrays (row by row) of one shape, with one best value and column for each row"
            .to_owned();
        to_python(py, Error::usage("bad_scores", why))
    };
    let (best, at) = (best.as_slice_mut().map_err(|_| bad())?, at.as_slice_mut().map_err(|_| bad())?);
    let mut seen = Vec::with_capacity(parts.len());
    for (scores, signed) in &parts {
        seen.push(Part { scores: by_rows(scores).ok_or_else(bad)?, signed: *signed });
    }
    let bytes = seen.iter().map(|part| size_of_val(part.scores)).sum::<usize>();
    // Within a millisecond or two: scores are looked through a tile at a time.
    gateway::run_sized(py, bytes.min(gateway::SMALL), |_| core::nearest(Isa::detect(), &seen, start, best, at))
}
