//! `SafetensorsFile`, the Python face of [`TensorFile`]: one open, validated file, and what can be read from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use weightprint_core::error::{Error, ErrorKind, Result};
use weightprint_core::format::{DataPart, Header, Index, Limits, Listed, Mode, Note};
use weightprint_core::kernels;
use weightprint_core::source::{Span, TensorFile};

use crate::errors::to_python;
use crate::gateway;

/// The largest tensor that `read_small` reads.
const MAX_SMALL: u64 = 1 << 16;

type PyNote = (&'static str, String, Option<String>, Option<u64>);

fn notes(notes: &[Note]) -> Vec<PyNote> {
    notes.iter().map(|n| (n.code, n.message.clone(), n.tensor.clone(), n.offset)).collect()
}

fn mode_from_name(name: &str) -> Result<Mode> {
    match name {
        "strict" => Ok(Mode::Strict),
        "compatible" => Ok(Mode::Compatible),
        other => Err(Error::usage("unknown_mode", format!("mode is \"strict\" or \"compatible\", not {other:?}"))),
    }
}

/// One file of tensors, opened once and checked: safetensors, or another container through `from_entries`.
///
/// Raises FormatError, LimitError or UnsupportedFormatError (with path, tensor, offset and code), or OSError.
#[pyclass(frozen, module = "weightprint._core")]
pub struct SafetensorsFile {
    pub inner: Arc<TensorFile>,
}

impl SafetensorsFile {
    fn header(&self) -> &Header {
        self.inner.header()
    }

    pub fn check_index(&self, i: usize) -> PyResult<()> {
        let n = self.header().len();
        if i < n { Ok(()) } else { Err(PyIndexError::new_err(format!("tensor {i} of a file with {n}"))) }
    }

    fn begin(&self, i: usize) -> u64 {
        self.inner.data_start() + self.header().range(i).0
    }
}

#[pymethods]
impl SafetensorsFile {
    #[new]
    #[pyo3(signature = (path, *, mode = "strict", max_header_bytes = None))]
    fn new(py: Python<'_>, path: PathBuf, mode: &str, max_header_bytes: Option<u64>) -> PyResult<Self> {
        let mode = mode_from_name(mode).map_err(|e| to_python(py, e))?;
        let mut limits = Limits::default();
        if let Some(bytes) = max_header_bytes {
            limits.header_bytes = bytes;
        }
        let inner = gateway::run(py, None, |control| TensorFile::open(&path, mode, &limits, control))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A file of another container, whose reader lists its tensors: (name, dtype, shape, begin, end), offsets from the
    /// start of the file. They are held to the same rules; padding below `alignment` is allowed before each tensor.
    #[staticmethod]
    #[pyo3(signature = (path, entries, *, nbytes, data_start, alignment = 1, metadata = vec![], mode = "strict"))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn from_entries(
        py: Python<'_>,
        path: PathBuf,
        entries: Vec<(String, String, Vec<u64>, u64, u64)>,
        nbytes: u64,
        data_start: u64,
        alignment: u64,
        metadata: Vec<(String, String)>,
        mode: &str,
    ) -> PyResult<Self> {
        let mode = mode_from_name(mode).map_err(|e| to_python(py, e))?;
        let part = DataPart { file_len: nbytes, start: data_start, alignment };
        let listed = |(name, dtype, shape, begin, end)| Listed { name, dtype, shape, begin, end };
        let listed: Vec<_> = entries.into_iter().map(listed).collect();
        let inner =
            gateway::run(py, None, |control| TensorFile::open_listed(&path, &listed, metadata, part, mode, control))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The path it was opened by.
    #[getter]
    fn path(&self) -> &Path {
        self.inner.path()
    }

    /// Bytes in the file, header included.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.inner.len()
    }

    /// Offset of the first data byte.
    #[getter]
    fn data_start(&self) -> u64 {
        self.inner.data_start()
    }

    /// How many tensors the header lists.
    #[getter]
    fn n_tensors(&self) -> usize {
        self.header().len()
    }

    /// The header's `__metadata__`.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (key, value) in self.header().metadata() {
            dict.set_item(key, value)?;
        }
        Ok(dict)
    }

    /// What was accepted but is worth saying: (code, message, tensor or None, offset or None).
    #[getter]
    fn notes(&self) -> Vec<PyNote> {
        notes(self.header().notes())
    }

    /// All tensor names, in data order.
    fn names(&self) -> Vec<&str> {
        (0..self.header().len()).map(|i| self.header().name(i)).collect()
    }

    /// The number of the tensor called `name`; raises TensorNotFoundError.
    fn find(&self, py: Python<'_>, name: &str) -> PyResult<usize> {
        self.header().find(name).ok_or_else(|| {
            let error = Error::new(ErrorKind::TensorNotFound, "no_such_tensor", "no tensor of that name");
            to_python(py, error.with_tensor(name).with_path(self.inner.path()))
        })
    }

    /// Tensor `i` as (name, dtype, shape, begin, end), with offsets from the start of the file.
    fn tensor<'py>(&self, py: Python<'py>, i: usize) -> PyResult<(&str, &'static str, Bound<'py, PyTuple>, u64, u64)> {
        self.check_index(i)?;
        let (header, data_start) = (self.header(), self.inner.data_start());
        let (begin, end) = header.range(i);
        let shape = PyTuple::new(py, header.shape(i))?;
        Ok((header.name(i), header.dtype(i).name(), shape, data_start + begin, data_start + end))
    }

    /// Raw bytes `[start, stop)` of tensor `i`.
    #[pyo3(signature = (i, start = 0, stop = None))]
    fn read_bytes<'py>(
        &self,
        py: Python<'py>,
        i: usize,
        start: u64,
        stop: Option<u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.check_index(i)?;
        let (begin, end) = self.header().range(i);
        let (start, stop) = clip(py, start, stop, end - begin)?;
        let len = stop - start;
        let bytes =
            gateway::run_sized(py, len as usize, |control| self.inner.read_range(self.begin(i) + start, len, control))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// All bytes of each of `tensors`, none above 64 KiB, in one call: many tensors of a few bytes say what the shapes
    /// of quantised weights are, and a call each would cost more than the reading.
    fn read_small<'py>(&self, py: Python<'py>, tensors: Vec<usize>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let mut ranges = Vec::with_capacity(tensors.len());
        for i in tensors {
            self.check_index(i)?;
            let (begin, end) = self.header().range(i);
            if end - begin > MAX_SMALL {
                let message = format!("tensor {i} has {} bytes; read_small reads up to {MAX_SMALL}", end - begin);
                return Err(to_python(py, Error::usage("not_small", message)));
            }
            ranges.push((self.begin(i), end - begin));
        }
        let read = gateway::run(py, None, |control| {
            ranges.iter().map(|&(at, len)| self.inner.read_range(at, len, control)).collect::<Result<Vec<_>>>()
        })?;
        Ok(read.iter().map(|bytes| PyBytes::new(py, bytes)).collect())
    }

    /// Components `[start, stop)` of tensor `i` in flat order, decoded to float32, as native-endian bytes. A complex
    /// element has two components; 64-bit values are rounded to the nearest float32.
    #[pyo3(signature = (i, start = 0, stop = None))]
    fn read_f32<'py>(&self, py: Python<'py>, i: usize, start: u64, stop: Option<u64>) -> PyResult<Bound<'py, PyBytes>> {
        self.check_index(i)?;
        let dtype = self.header().dtype(i);
        let (start, stop) = clip(py, start, stop, self.header().numel(i) * dtype.components())?;
        let values = gateway::run_sized(py, 4 * (stop - start) as usize, |control| {
            let span = Span::of_components(dtype, start, stop);
            let bytes = self.inner.read_range(self.begin(i) + span.first_byte, span.n_bytes, control)?;
            let mut out = vec![0f32; (stop - start) as usize];
            kernels::decode_f32(dtype, &bytes, span.first_bit, &mut out);
            Ok(out)
        })?;
        PyBytes::new_with(py, values.len() * 4, |target| {
            for (bytes, value) in target.chunks_exact_mut(4).zip(&values) {
                bytes.copy_from_slice(&value.to_ne_bytes());
            }
            Ok(())
        })
    }

    /// Raises FileChangedError if the file's size or modification time is not what it was when it was opened.
    fn check_unchanged(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.verify_unchanged().map_err(|e| to_python(py, e))
    }

    fn __repr__(&self) -> String {
        let path = weightprint_core::error::escape(&self.inner.path().to_string_lossy());
        format!("SafetensorsFile('{path}', {} tensors, {} bytes)", self.header().len(), self.inner.len())
    }
}

fn clip(py: Python<'_>, start: u64, stop: Option<u64>, len: u64) -> PyResult<(u64, u64)> {
    let stop = stop.unwrap_or(len);
    if start <= stop && stop <= len {
        return Ok((start, stop));
    }
    let message = format!("the range {start}..{stop} does not lie within the tensor's {len} values or bytes");
    Err(to_python(py, Error::usage("range_out_of_bounds", message)))
}

/// The index JSON of a sharded checkpoint as (total_size or None, [(tensor, shard)], notes); raises FormatError.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "a plain tuple is what Python unpacks")]
pub fn parse_index(py: Python<'_>, data: &[u8]) -> PyResult<(Option<u64>, Vec<(String, String)>, Vec<PyNote>)> {
    let index = gateway::run(py, None, |control| Index::parse(data, &Limits::default(), control))?;
    Ok((index.total_size, index.weight_map, notes(&index.notes)))
}
