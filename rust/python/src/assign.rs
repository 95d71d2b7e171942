//! `assign`: costs in, the column of each row out.

use numpy::{PyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use weightprint_core::error::Error;
use weightprint_core::pair::assign as core;

use crate::arrays::by_rows;
use crate::errors::to_python;
use crate::gateway;

/// For each row of `cost` (contiguous, float64, no more rows than columns) the column it goes with at the smallest
/// total, int64.
#[pyfunction]
pub fn assign<'py>(py: Python<'py>, cost: PyReadonlyArray2<'py, f64>) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let (rows, columns) = (cost.shape()[0], cost.shape()[1]);
    let slice = by_rows(&cost)
        .ok_or_else(|| to_python(py, Error::usage("bad_costs", "costs are one contiguous array, row by row")))?;
    // Time grows with the cube of the size, so only few rows are done at once.
    let found =
        gateway::run_sized(py, rows * size_of_val(slice), |control| core::assign(slice, rows, columns, control))?;
    Ok(PyArray1::from_iter(py, found.into_iter().map(|column| column as i64)))
}
