//! `Measure`: the statistics of values that are in memory.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyDict;
use weightprint_core::error::{Error, Result};
use weightprint_core::scan as core;
use weightprint_core::scan::Request;

use crate::columns::to_columns;
use crate::errors::to_python;
use crate::gateway;
use crate::scan::isa_from_name;

/// Statistics of one tensor whose float32 values are added piece by piece; see the stub.
#[pyclass(module = "weightprint._core", frozen)]
pub struct Measure {
    /// None once finished, or after an error.
    inner: Mutex<Option<core::Measure>>,
    request: Request,
}

fn over() -> Error {
    Error::usage("measure_is_over", "this measure was finished, or failed")
}

#[pymethods]
impl Measure {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    #[pyo3(signature = (shape, *, exact = false, rows = false, columns = false, digest = false, sketch = None, isa = None))]
    fn new(
        py: Python<'_>,
        shape: Vec<u64>,
        exact: bool,
        rows: bool,
        columns: bool,
        digest: bool,
        sketch: Option<u64>,
        isa: Option<&str>,
    ) -> PyResult<Self> {
        let request = Request { exact, rows, columns, digest };
        let inner = isa_from_name(isa).and_then(|isa| core::Measure::new(&shape, request, sketch, isa));
        Ok(Self { inner: Mutex::new(Some(inner.map_err(|e| to_python(py, e))?)), request })
    }

    /// The next values in flat order.
    fn add(&self, py: Python<'_>, data: PyBackedBytes) -> PyResult<()> {
        gateway::run(py, None, |control| {
            let mut slot = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let mut measure = slot.take().ok_or_else(over)?;
            let added = measure.add(&data, control);
            if added.is_ok() {
                *slot = Some(measure);
            }
            added
        })
    }

    /// The columns that `scan` returns, for this one tensor.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let taken = py.detach(|| self.inner.lock().unwrap_or_else(PoisonError::into_inner).take());
        let result: Result<_> = taken.ok_or_else(over).and_then(core::Measure::finish);
        to_columns(py, &[result.map_err(|e| to_python(py, e))?], self.request)
    }
}
