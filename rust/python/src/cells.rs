//! `cells`: whether one array is the other one quantised, group by group.

use numpy::PyReadonlyArrayDyn;
use pyo3::prelude::*;

use weightprint_core::error::Error;
use weightprint_core::pair::cells as core;

use crate::arrays::by_rows;
use crate::errors::to_python;
use crate::gateway;

/// Groups of `run` neighbours of two contiguous arrays: how many, in how many every value of `fine` lies in the cell
/// that rounding to `coarse` left it, sums of squares: of the differences, of the finer values, of what rounding
/// explains, and of the differences in groups of one level.
#[pyfunction]
#[pyo3(signature = (fine, coarse, run, *, even, precision))]
pub fn cells(
    py: Python<'_>,
    fine: PyReadonlyArrayDyn<'_, f32>,
    coarse: PyReadonlyArrayDyn<'_, f32>,
    run: usize,
    even: bool,
    precision: f64,
) -> PyResult<(u64, u64, f64, f64, f64, f64)> {
    let both = by_rows(&fine).zip(by_rows(&coarse));
    let (fine, coarse) =
        both.ok_or_else(|| to_python(py, Error::usage("bad_groups", "values are contiguous arrays, row by row")))?;
    let found =
        gateway::run_sized(py, size_of_val(fine), |control| core::cells(fine, coarse, run, even, precision, control))?;
    Ok((found.groups, found.fit, found.difference, found.size, found.rounding, found.flat))
}
