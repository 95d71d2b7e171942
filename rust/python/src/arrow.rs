//! Hands a table to any Arrow consumer (polars, pyarrow, duckdb, pandas …) through the C stream interface.

use std::sync::Arc;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchIterator, StringArray, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

fn arrow_error(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// One column from a list of values or None, by the name of its kind.
fn column(kind: &str, values: &Bound<'_, PyAny>) -> PyResult<(DataType, ArrayRef)> {
    Ok(match kind {
        "f64" => (DataType::Float64, Arc::new(Float64Array::from(values.extract::<Vec<Option<f64>>>()?)) as ArrayRef),
        "u64" => (DataType::UInt64, Arc::new(UInt64Array::from(values.extract::<Vec<Option<u64>>>()?))),
        "i64" => (DataType::Int64, Arc::new(Int64Array::from(values.extract::<Vec<Option<i64>>>()?))),
        "bool" => (DataType::Boolean, Arc::new(BooleanArray::from(values.extract::<Vec<Option<bool>>>()?))),
        "str" => (DataType::Utf8, Arc::new(StringArray::from(values.extract::<Vec<Option<String>>>()?))),
        other => {
            return Err(PyValueError::new_err(format!("no column kind {other:?}: use f64, u64, i64, bool or str")));
        }
    })
}

/// A capsule named `arrow_array_stream` that yields `columns` as one record batch.
///
/// Each column is (name, kind, values): kind is "f64", "u64", "i64", "bool" or "str", values a sequence in which None
/// is null. Raises ValueError for another kind or for columns of unequal length.
#[pyfunction]
pub fn arrow_stream<'py>(
    py: Python<'py>,
    columns: Vec<(String, String, Bound<'py, PyAny>)>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (name, kind, values) in &columns {
        let (data_type, array) = column(kind, values)?;
        fields.push(Field::new(name, data_type, true));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(arrow_error)?;
    let stream = FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new([Ok(batch)], schema)));
    // Dropping the capsule drops the stream, which releases it unless a consumer has taken it over.
    PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
}
