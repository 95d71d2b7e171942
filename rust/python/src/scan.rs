//! `scan` and `find_above`: arguments in, columns out.

use std::sync::Arc;

use numpy::{PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use weightprint_core::error::{Error, Result};
use weightprint_core::kernels::Isa;
use weightprint_core::scan as core;
use weightprint_core::scan::{Io, Lines, Request, RetainedSamples, Settings, TensorResult};
use weightprint_core::source::{Runs, TensorFile};
use weightprint_core::stats::{Distribution, Number, Summary};

use crate::errors::to_python;
use crate::file::SafetensorsFile;
use crate::gateway::{self, Progress};

fn io_from_name(name: &str) -> Result<Io> {
    match name {
        "auto" => Ok(Io::Auto),
        "pread" => Ok(Io::Pread),
        "mmap" => Ok(Io::Mmap),
        other => Err(Error::usage("unknown_io", format!("io is \"auto\", \"pread\" or \"mmap\", not {other:?}"))),
    }
}

pub fn isa_from_name(name: Option<&str>) -> Result<Isa> {
    let Some(name) = name else { return Ok(Isa::detect()) };
    let here = Isa::available();
    Isa::from_name(name).filter(|isa| here.contains(isa)).ok_or_else(|| {
        let names: Vec<_> = here.iter().map(|isa| isa.name()).collect();
        Error::usage(
            "isa_not_available",
            format!("isa {name:?} is not available here: use one of {}", names.join(", ")),
        )
    })
}

/// The instruction sets that the kernels can use here, best first.
#[pyfunction]
pub fn isa_available() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// Runs (start, length) of indices.
type PyRuns = Vec<(u64, u64)>;

/// What is retained of the tensor at some place of a scan's list: an array, rows, and columns if not all.
type PyRetained<'py> = (usize, PyReadwriteArray2<'py, f32>, PyRuns, Option<PyRuns>);

/// Read every byte of `tensors` (pairs of file number and tensor number) once; see the stub for the columns. `keep`: of
/// the tensor at this place of the list these rows and columns go into an array as they pass.
#[pyfunction]
#[pyo3(signature = (files, tensors, *, exact = false, rows = false, columns = false, digest = false, threads = 0,
                    io = "auto", isa = None, progress = None, keep = Vec::new()))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub fn scan<'py>(
    py: Python<'py>,
    files: Vec<PyRef<'py, SafetensorsFile>>,
    tensors: Vec<(usize, usize)>,
    exact: bool,
    rows: bool,
    columns: bool,
    digest: bool,
    threads: usize,
    io: &str,
    isa: Option<&str>,
    progress: Option<Py<PyAny>>,
    mut keep: Vec<PyRetained<'py>>,
) -> PyResult<Bound<'py, PyDict>> {
    let request = Request { exact, rows, columns, digest };
    let settings = (|| Ok(Settings { threads, io: io_from_name(io)?, isa: isa_from_name(isa)? }))();
    let settings = settings.map_err(|e| to_python(py, e))?;
    for &(file, tensor) in &tensors {
        let file = files.get(file).ok_or_else(|| {
            to_python(py, Error::usage("no_such_file", format!("file {file} of a scan with {} files", files.len())))
        })?;
        file.check_index(tensor)?;
    }
    let sources: Vec<_> = files.iter().map(|f| Arc::clone(&f.inner)).collect();
    drop(files);
    let sources: Vec<_> = sources.iter().map(Arc::as_ref).collect();
    let retained = keep.iter_mut().map(|one| retained(&sources, &tensors, one)).collect::<Result<Vec<_>>>();
    let retained = retained.map_err(|e| to_python(py, e))?;
    let tensors: Vec<_> = tensors.iter().map(|&(file, i)| core::Tensor::new(&sources, file, i)).collect();
    let total = tensors.iter().map(|t| t.nbytes).sum();
    let progress = progress.map(|callback| Progress { callback, total });
    let results = gateway::run(py, progress, |control| {
        core::scan_retaining(&sources, &tensors, &retained, request, settings, control)
    })?;
    to_columns(py, &results, request)
}

fn retained<'a>(
    files: &[&TensorFile],
    tensors: &[(usize, usize)],
    (place, out, rows, columns): &'a mut PyRetained<'_>,
) -> Result<RetainedSamples<'a>> {
    let &(file, i) = tensors.get(*place).ok_or_else(|| {
        Error::usage(
            "no_such_tensor",
            format!("something is to be kept of tensor {place} of a scan of {}", tensors.len()),
        )
    })?;
    let (rows, columns) = (Runs::ascending(std::mem::take(rows))?, columns.take().map(Runs::ascending).transpose()?);
    // A slice is given of Fortran's order too.
    let rows_first = out.is_c_contiguous();
    let out = out.as_slice_mut().ok().filter(|_| rows_first);
    let out =
        out.ok_or_else(|| Error::usage("not_contiguous", "an array to keep a sample in is contiguous".to_owned()))?;
    RetainedSamples::new((*place, files[file], i), rows, columns, out)
}

/// Where tensor `i` holds finite components with |x| > threshold: (how many, first indices, their values).
#[pyfunction]
pub fn find_above<'py>(
    py: Python<'py>,
    file: PyRef<'py, SafetensorsFile>,
    i: usize,
    threshold: f64,
    limit: usize,
) -> PyResult<(u64, Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    file.check_index(i)?;
    let source = Arc::clone(&file.inner);
    drop(file);
    let tensor = core::Tensor::new(&[&source], 0, i);
    let found = gateway::run(py, None, |control| core::find_above(&source, &tensor, threshold, limit, control))?;
    let indices: Vec<u8> = found.indices.iter().flat_map(|&i| (i as i64).to_ne_bytes()).collect();
    Ok((found.total, PyBytes::new(py, &indices), f64_bytes(py, found.values.iter().copied())))
}

fn f64_bytes<'py>(py: Python<'py>, values: impl Iterator<Item = f64>) -> Bound<'py, PyBytes> {
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
            None => vec![f64::NAN; weightprint_core::stats::QUANTILE_LEVELS.len()],
        });
        out.set_item("quantiles", f64_bytes(py, quantiles))?;
    }
    if request.digest {
        let digests = results.iter().map(|r| r.digest.map(|d| d.to_hex().to_string()));
        out.set_item("digest", PyList::new(py, digests)?)?;
    }
    set_lines(py, &out, "row", request.rows, results.iter().map(|r| r.rows.as_ref()))?;
    set_lines(py, &out, "column", request.columns, results.iter().map(|r| r.columns.as_ref()))?;
    Ok(out)
}

fn set_lines<'a>(
    py: Python<'_>,
    out: &Bound<'_, PyDict>,
    prefix: &str,
    asked: bool,
    lines: impl Iterator<Item = Option<&'a Lines>> + Clone,
) -> PyResult<()> {
    if !asked {
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
