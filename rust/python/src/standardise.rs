//! `standardise` and `peaks`: dense float32 arrays in place.

use numpy::{PyReadonlyArray1, PyReadonlyArrayDyn, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use weightprint_core::error::Error;
use weightprint_core::kernels::Isa;
use weightprint_core::pair::standardise::{self as core, Standard};

use crate::errors::to_python;
use crate::gateway;

fn bad(py: Python<'_>, why: &str) -> PyErr {
    to_python(py, Error::usage("bad_vectors", why))
}

fn line<'a>(py: Python<'_>, x: &'a PyReadonlyArray1<'_, f32>) -> PyResult<&'a [f32]> {
    x.as_slice().map_err(|_| bad(py, "coordinates are contiguous arrays"))
}

/// Each row of `x` becomes `(row - shift) * scale - <row - shift, weights> * along`, and of unit length if `unit`. `x`
/// is overwritten; it lies row by row or column by column. The others have one value for each of its columns.
#[pyfunction]
#[pyo3(signature = (x, shift, weights, scale, along, *, unit))]
pub fn standardise(
    py: Python<'_>,
    mut x: PyReadwriteArray2<'_, f32>,
    shift: PyReadonlyArray1<'_, f32>,
    weights: PyReadonlyArray1<'_, f32>,
    scale: PyReadonlyArray1<'_, f32>,
    along: PyReadonlyArray1<'_, f32>,
    unit: bool,
) -> PyResult<()> {
    let (n, by_row) = (x.shape()[1], x.is_c_contiguous());
    let x = x.as_slice_mut().map_err(|_| bad(py, "vectors are one contiguous array"))?;
    let by = Standard {
        shift: line(py, &shift)?,
        weights: line(py, &weights)?,
        scale: line(py, &scale)?,
        along: line(py, &along)?,
        unit,
    };
    let work = if by_row { core::rows } else { core::columns };
    gateway::run_sized(py, size_of_val(x), |control| work(Isa::detect(), x, n, &by, control))
}

/// The largest absolute value of each of `pieces` equal parts of a contiguous array; NaN or infinite where one of its
/// values is.
#[pyfunction]
#[pyo3(signature = (x, pieces=1))]
pub fn peaks(py: Python<'_>, x: PyReadonlyArrayDyn<'_, f32>, pieces: usize) -> PyResult<Vec<f32>> {
    let slice = x.as_slice().map_err(|_| bad(py, "values are one contiguous array"))?;
    gateway::run_sized(py, size_of_val(slice), |control| core::peaks(Isa::detect(), slice, pieces, control))
}
