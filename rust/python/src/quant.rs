//! The decoders of quantised weights: arguments in, float32 bytes out.
//!
//! Inputs are read where Python holds them, but for float and int32 arrays, which are copied once because their bytes
//! need not be aligned. Outputs are decoded straight into the `bytes` that Python gets.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use weightprint_core::control::Control;
use weightprint_core::dtype::Dtype;
use weightprint_core::error::{Error, Result};
use weightprint_core::quant::{self, Axis, Codebook, Layout, Lookup, Order, Packed, Scaled, Scales, Settings};

use crate::errors::to_python;
use crate::gateway;

/// `n` float32 that `decode` fills without the interpreter, as bytes.
pub fn float_bytes<'py>(
    py: Python<'py>,
    n: usize,
    decode: impl FnOnce(&Control, &mut [f32]) -> Result<()> + Send,
) -> PyResult<Bound<'py, PyBytes>> {
    let Some(size) = n.checked_mul(4) else {
        let message = format!("{n} float32 are larger than memory can address; ask for a smaller rectangle");
        return Err(to_python(py, Error::usage("too_large", message)));
    };
    PyBytes::new_with(py, size, |target| {
        gateway::run_sized(py, size, |control| {
            if let Some(floats) = quant::as_floats(target) {
                return decode(control, floats);
            }
            let mut floats = vec![0f32; n];
            decode(control, &mut floats)?;
            for (bytes, value) in target.as_chunks_mut::<4>().0.iter_mut().zip(floats) {
                *bytes = value.to_ne_bytes();
            }
            Ok(())
        })
    })
}

/// The four-byte numbers in `bytes`.
fn numbers<T>(what: &str, bytes: &[u8], number: impl Fn([u8; 4]) -> T) -> Result<Vec<T>> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        let message = format!("{what}: {} bytes are no whole number of 4-byte numbers", bytes.len());
        return Err(Error::usage("length_mismatch", message));
    }
    Ok(words.iter().map(|w| number(*w)).collect())
}

fn floats(what: &str, bytes: &[u8]) -> Result<Vec<f32>> {
    numbers(what, bytes, f32::from_ne_bytes)
}

fn integers(what: &str, bytes: &[u8]) -> Result<Vec<i32>> {
    numbers(what, bytes, i32::from_ne_bytes)
}

/// Exactly `N` float32.
fn table<const N: usize>(bytes: &[u8]) -> Result<[f32; N]> {
    let values = floats("table", bytes)?;
    let n = values.len();
    values.try_into().map_err(|_| Error::usage("length_mismatch", format!("table: {n} values where {N} are needed")))
}

fn dtype(name: &str) -> Result<Dtype> {
    Dtype::from_name(name).ok_or_else(|| {
        let message = format!("{name:?} is not a dtype of safetensors: use one of {}", Dtype::names());
        Error::usage("unknown_dtype", message)
    })
}

/// 8-bit codes under a grid of float32 scales: `((value(code) - zero) * scale) * factor`.
#[pyfunction]
#[pyo3(signature = (
    codes, dtype, n_rows, n_columns, scales, scale_rows, scale_columns, *, block, offset = (0, 0), groups = None,
    zeros = None, factor = 1.0
))]
#[expect(clippy::too_many_arguments, reason = "the Python signature")]
pub fn decode_scaled<'py>(
    py: Python<'py>,
    codes: &[u8],
    dtype: &str,
    n_rows: usize,
    n_columns: usize,
    scales: &[u8],
    scale_rows: usize,
    scale_columns: usize,
    block: (usize, usize),
    offset: (usize, usize),
    groups: Option<&[u8]>,
    zeros: Option<&[u8]>,
    factor: f32,
) -> PyResult<Bound<'py, PyBytes>> {
    let arrays = || -> Result<_> {
        let groups = groups.map(|groups| integers("groups", groups)).transpose()?;
        let zeros = zeros.map(|zeros| floats("zeros", zeros)).transpose()?;
        Ok((self::dtype(dtype)?, floats("scales", scales)?, groups, zeros))
    };
    let (dtype, scales, groups, zeros) = arrays().map_err(|e| to_python(py, e))?;
    let scaled = Scaled {
        codes,
        dtype,
        rows: n_rows,
        columns: n_columns,
        scales: &scales,
        zeros: zeros.as_deref(),
        grid: (scale_rows, scale_columns),
        block,
        offset,
        groups: groups.as_deref(),
        factor,
    };
    let n = scaled.output_len().map_err(|e| to_python(py, e))?;
    float_bytes(py, n, |control, out| scaled.decode(Settings::default(), control, out))
}

/// Integers of 2, 4 or 8 bits, packed into words: `(code - zero) * scale`, (out, in).
#[pyfunction]
#[pyo3(signature = (
    words, layout, stored, bits, n_rows, n_columns, scales, n_groups, groups, *, first = 0, zeros = None, zero = 0.0,
    signed = false
))]
#[expect(clippy::too_many_arguments, reason = "the Python signature")]
pub fn decode_packed<'py>(
    py: Python<'py>,
    words: &[u8],
    layout: &str,
    stored: (usize, usize),
    bits: u32,
    n_rows: usize,
    n_columns: usize,
    scales: &[u8],
    n_groups: usize,
    groups: &[u8],
    first: usize,
    zeros: Option<&[u8]>,
    zero: f32,
    signed: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let arrays = || -> Result<_> {
        let layout = Layout::ALL.into_iter().find(|l| l.name() == layout).ok_or_else(|| {
            let names = Layout::ALL.map(Layout::name).join(", ");
            Error::usage("unknown_layout", format!("layout is one of {names}, not {layout:?}"))
        })?;
        let zeros = zeros.map(|zeros| floats("zeros", zeros)).transpose()?;
        Ok((layout, floats("scales", scales)?, integers("groups", groups)?, zeros))
    };
    let (layout, scales, groups, zeros) = arrays().map_err(|e| to_python(py, e))?;
    let packed = Packed {
        words,
        layout,
        stored,
        bits,
        first,
        rows: n_rows,
        columns: n_columns,
        scales: &scales,
        zeros: zeros.as_deref(),
        zero,
        n_groups,
        groups: &groups,
        signed,
    };
    let n = packed.output_len().map_err(|e| to_python(py, e))?;
    float_bytes(py, n, |control, out| packed.decode(Settings::default(), control, out))
}

/// The uint8 codes in a matrix of int32 words.
#[pyfunction]
#[pyo3(signature = (words, rows, columns, bits, *, axis = "columns", order = "linear"))]
pub fn unpack<'py>(
    py: Python<'py>,
    words: &[u8],
    rows: usize,
    columns: usize,
    bits: u32,
    axis: &str,
    order: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let choices = || -> Result<_> {
        let axis = match axis {
            "rows" => Axis::Rows,
            "columns" => Axis::Columns,
            other => {
                return Err(Error::usage("unknown_axis", format!("axis is \"rows\" or \"columns\", not {other:?}")));
            }
        };
        let order = match order {
            "linear" => Order::Linear,
            "awq" => Order::Awq,
            other => {
                return Err(Error::usage("unknown_order", format!("order is \"linear\" or \"awq\", not {other:?}")));
            }
        };
        Ok((axis, order))
    };
    let (axis, order) = choices().map_err(|e| to_python(py, e))?;
    let codes = gateway::run(py, None, |control| quant::unpack(words, (rows, columns), bits, axis, order, control))?;
    Ok(PyBytes::new(py, &codes))
}

/// 4-bit codes into a table of 16 float32, blockwise scaled: `table[code] * scale`.
#[pyfunction]
#[pyo3(signature = (
    codes, n_rows, n_columns, table, scales, *, block, stride, first = 0, block_offset = 0, scale_dtype = "F32",
    low_first = false
))]
#[expect(clippy::too_many_arguments, reason = "the Python signature")]
pub fn decode_codebook<'py>(
    py: Python<'py>,
    codes: &[u8],
    n_rows: usize,
    n_columns: usize,
    table: &[u8],
    scales: &[u8],
    block: usize,
    stride: usize,
    first: usize,
    block_offset: usize,
    scale_dtype: &str,
    low_first: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let arrays = || -> Result<_> {
        let dtype = self::dtype(scale_dtype)?;
        let wide = if dtype == Dtype::F32 { floats("scales", scales)? } else { Vec::new() };
        Ok((self::table(table)?, dtype, wide))
    };
    let (table, dtype, wide) = arrays().map_err(|e| to_python(py, e))?;
    let codebook = Codebook {
        codes,
        low_first,
        table,
        scales: if dtype == Dtype::F32 { Scales::F32(&wide) } else { Scales::Small(dtype, scales) },
        block,
        block_offset,
        rows: n_rows,
        columns: n_columns,
        first,
        stride,
    };
    let n = codebook.output_len().map_err(|e| to_python(py, e))?;
    float_bytes(py, n, |control, out| codebook.decode(Settings::default(), control, out))
}

/// 8-bit codes into a table of 256 float32: `table[code] * scale + add`.
#[pyfunction]
#[pyo3(signature = (codes, table, scales, *, block, offset = 0, add = 0.0))]
pub fn decode_lookup<'py>(
    py: Python<'py>,
    codes: &[u8],
    table: &[u8],
    scales: &[u8],
    block: usize,
    offset: usize,
    add: f32,
) -> PyResult<Bound<'py, PyBytes>> {
    let arrays = || -> Result<_> { Ok((self::table::<256>(table)?, floats("scales", scales)?)) };
    let (table, scales) = arrays().map_err(|e| to_python(py, e))?;
    let lookup = Lookup { codes, table: &table, scales: &scales, block, offset, add };
    float_bytes(py, codes.len(), |control, out| lookup.decode(Settings::default(), control, out))
}
