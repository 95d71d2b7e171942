//! The results of a scan as columns: native-endian bytes, or lists, by name.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use weightprint_core::scan::{Lines, Request, TensorResult};
use weightprint_core::stats::{Distribution, Number, QUANTILE_LEVELS, Summary};

pub fn f64_bytes<'py>(py: Python<'py>, values: impl Iterator<Item = f64>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &values.flat_map(f64::to_ne_bytes).collect::<Vec<u8>>())
}

fn index_bytes<'py>(py: Python<'py>, values: impl Iterator<Item = Option<u64>>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &values.flat_map(|v| v.map_or(-1, |v| v as i64).to_ne_bytes()).collect::<Vec<u8>>())
}

fn number<'py>(py: Python<'py>, value: Option<Number>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        None => py.None().into_bound(py),
        Some(Number::Float(x)) => x.into_pyobject(py)?.into_any(),
        Some(Number::Int(x)) => x.into_pyobject(py)?.into_any(),
    })
}

type Column<T, V> = (&'static str, fn(&T) -> V);

const COUNTS: [Column<Summary, u64>; 6] = [
    ("n", |s| s.n),
    ("n_finite", |s| s.n_finite),
    ("n_zero", |s| s.n_zero),
    ("n_nan", |s| s.n_nan),
    ("n_posinf", |s| s.n_posinf),
    ("n_neginf", |s| s.n_neginf),
];
const MOMENTS: [Column<Summary, f64>; 7] = [
    ("mean", |s| s.mean),
    ("std", |s| s.std),
    ("rms", |s| s.rms),
    ("l1", |s| s.l1),
    ("l2", |s| s.l2),
    ("skewness", |s| s.skewness),
    ("kurtosis", |s| s.kurtosis),
];
const INDICES: [Column<Summary, Option<u64>>; 3] =
    [("abs_max_index", |s| s.abs_max_index), ("first_nan", |s| s.first_nan), ("first_inf", |s| s.first_inf)];
const NUMBERS: [Column<Summary, Option<Number>>; 3] =
    [("min", |s| s.min), ("max", |s| s.max), ("abs_max", |s| s.abs_max)];
const SHAPE: [Column<Distribution, f64>; 3] =
    [("abs_q9999", |d| d.abs_q9999), ("quantile_error", |d| d.quantile_error), ("entropy", |d| d.entropy)];
type LinesColumn = (&'static str, fn(&Lines) -> &[f64]);
const LINES: [LinesColumn; 3] = [("mean", |l| &l.mean), ("std", |l| &l.std), ("l2", |l| &l.l2)];

pub fn to_columns<'py>(py: Python<'py>, results: &[TensorResult], request: Request) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    let summaries = || results.iter().map(|r| &r.summary);
    for (name, get) in COUNTS {
        out.set_item(name, PyBytes::new(py, &summaries().flat_map(|s| get(s).to_ne_bytes()).collect::<Vec<u8>>()))?;
    }
    for (name, get) in MOMENTS {
        out.set_item(name, f64_bytes(py, summaries().map(get)))?;
    }
    for (name, get) in INDICES {
        out.set_item(name, index_bytes(py, summaries().map(get)))?;
    }
    for (name, get) in NUMBERS {
        let list = PyList::empty(py);
        for summary in summaries() {
            list.append(number(py, get(summary))?)?;
        }
        out.set_item(name, list)?;
    }
    if request.exact || results.iter().any(|r| r.distribution.is_some()) {
        let distributions = || results.iter().map(|r| r.distribution.as_ref());
        for (name, get) in SHAPE {
            out.set_item(name, f64_bytes(py, distributions().map(|d| d.map_or(f64::NAN, get))))?;
        }
        out.set_item("n_distinct", index_bytes(py, distributions().map(|d| d.and_then(|d| d.n_distinct))))?;
        let quantiles = distributions().flat_map(|d| match d {
            Some(d) => d.quantiles.clone(),
            None => vec![f64::NAN; QUANTILE_LEVELS.len()],
        });
        out.set_item("quantiles", f64_bytes(py, quantiles))?;
    }
    if request.digest {
        let digests = results.iter().map(|r| r.digest.map(|d| d.to_hex().to_string()));
        out.set_item("digest", PyList::new(py, digests)?)?;
    }
    if results.iter().any(|r| r.sketch.is_some()) {
        let list = PyList::empty(py);
        for result in results {
            list.append(result.sketch.as_ref().map(|sums| f64_bytes(py, sums.iter().copied())))?;
        }
        out.set_item("sketch", list)?;
    }
    set_lines(py, &out, "row", request.rows, results.iter().map(|r| r.rows.as_ref()))?;
    set_lines(py, &out, "column", request.columns, results.iter().map(|r| r.columns.as_ref()))?;
    Ok(out)
}

fn set_lines<'a>(
    py: Python<'_>,
    out: &Bound<'_, PyDict>,
    prefix: &str,
    requested: bool,
    lines: impl Iterator<Item = Option<&'a Lines>> + Clone,
) -> PyResult<()> {
    if !requested {
        return Ok(());
    }
    for (name, get) in LINES {
        let list = PyList::empty(py);
        for line in lines.clone() {
            list.append(line.map(|l| f64_bytes(py, get(l).iter().copied())))?;
        }
        out.set_item(PyString::new(py, &format!("{prefix}_{name}")), list)?;
    }
    Ok(())
}
