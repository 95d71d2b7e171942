//! `read_sample`: runs of rows and columns in, float32 out.

use numpy::PyReadwriteArray2;
use pyo3::prelude::*;
use weightprint_core::error::Error;
use weightprint_core::source::{Runs, sample};

use crate::arrays::by_rows_mut;
use crate::errors::to_python;
use crate::file::SafetensorsFile;
use crate::gateway;

/// Rows and columns of tensor `i` seen as a matrix, each given as runs (start, length), into `out`: (rows, columns).
/// Returns the bytes that were read.
#[pyfunction]
#[pyo3(signature = (file, i, out, rows, columns = None, *, threads = 0))]
pub fn read_sample(
    py: Python<'_>,
    file: &SafetensorsFile,
    i: usize,
    mut out: PyReadwriteArray2<'_, f32>,
    rows: Vec<(u64, u64)>,
    columns: Option<Vec<(u64, u64)>>,
    threads: usize,
) -> PyResult<u64> {
    file.check_index(i)?;
    let file = &*file.inner;
    let bad = || {
        let why = "the array that a sample is read into is not contiguous, row by row".to_owned();
        to_python(py, Error::usage("not_contiguous", why))
    };
    let out = by_rows_mut(&mut out).ok_or_else(bad)?;
    gateway::run_sized(py, size_of_val(out), |control| {
        let (rows, columns) = (Runs::new(rows)?, columns.map(Runs::ascending).transpose()?);
        sample::read_f32(file, i, &rows, columns.as_ref(), threads, control, out)
    })
}
