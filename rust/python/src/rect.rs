//! `read_rect`: arguments in, bytes out.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use weightprint_core::error::Result;
use weightprint_core::source::rect::{self, Rect};

use crate::errors::to_python;
use crate::file::SafetensorsFile;
use crate::gateway;
use crate::quant::float_bytes;

/// A rectangle of tensor `i` seen as a matrix: its last axis are the columns, all others, flattened, the rows. Float32,
/// or with `raw` the stored bytes.
#[pyfunction]
#[pyo3(signature = (file, i, first_row, n_rows, first_column, n_columns, *, raw = false))]
#[expect(clippy::too_many_arguments, reason = "the Python signature")]
pub fn read_rect<'py>(
    py: Python<'py>,
    file: &SafetensorsFile,
    i: usize,
    first_row: u64,
    n_rows: u64,
    first_column: u64,
    n_columns: u64,
    raw: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    file.check_index(i)?;
    let file = &*file.inner;
    let rect = Rect { first_row, n_rows, first_column, n_columns };
    if !raw {
        let n = rect.check(file, i).map_err(|e| to_python(py, e))?;
        return float_bytes(py, n, |control, out| rect::read_f32(file, i, rect, control, out));
    }
    let size = || -> Result<usize> { Ok(rect.check(file, i)? * rect::raw_width(file, i)?) };
    let size = size().map_err(|e| to_python(py, e))?;
    PyBytes::new_with(py, size, |target| {
        gateway::run_sized(py, size, |control| rect::read_raw(file, i, rect, control, target))
    })
}
