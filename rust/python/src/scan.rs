//! `scan` and `find_above`: arguments in, columns out.

use std::sync::Arc;

use numpy::PyReadwriteArray2;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use weightprint_core::error::{Error, Result};
use weightprint_core::kernels::Isa;
use weightprint_core::scan as core;
use weightprint_core::scan::{Io, Request, RetainedSamples, Settings};
use weightprint_core::source::{Runs, TensorFile};

use crate::arrays::by_rows_mut;
use crate::columns::{f64_bytes, to_columns};
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
/// the tensor at this place of the list these rows and columns go into an array as they pass. `sketch`: per tensor the
/// key of its linear sketch's signs, or None.
#[pyfunction]
#[pyo3(signature = (files, tensors, *, exact = false, rows = false, columns = false, digest = false, threads = 0,
                    io = "auto", isa = None, progress = None, keep = Vec::new(), sketch = None))]
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
    sketch: Option<Vec<Option<u64>>>,
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
    let mut tensors: Vec<_> = tensors.iter().map(|&(file, i)| core::Tensor::new(&sources, file, i)).collect();
    for (tensor, key) in tensors.iter_mut().zip(sketch.into_iter().flatten()) {
        tensor.sketch = key;
    }
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
    let out = by_rows_mut(out)
        .ok_or_else(|| Error::usage("not_contiguous", "an array to keep a sample in is contiguous".to_owned()))?;
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
