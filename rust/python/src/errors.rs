//! Maps the core's errors to the exceptions of `weightprint.errors`, one row per kind.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use weightprint_core::error::{Error, ErrorKind};

/// The Python class for a kind; `None` where the interpreter has its own (OSError, KeyboardInterrupt).
fn class_name(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Format => "FormatError",
        ErrorKind::Limit => "LimitError",
        ErrorKind::Unsupported => "UnsupportedFormatError",
        ErrorKind::TensorNotFound => "TensorNotFoundError",
        ErrorKind::ShardMissing => "ShardMissingError",
        ErrorKind::FileChanged => "FileChangedError",
        ErrorKind::Usage => "UsageError",
        ErrorKind::Internal => "InternalError",
        ErrorKind::Io | ErrorKind::Cancelled => return None,
    })
}

/// `error` as the exception to raise.
pub fn to_python(py: Python<'_>, error: Error) -> PyErr {
    let path = error.path.as_ref().map(|p| p.to_string_lossy().into_owned());
    let Some(name) = class_name(error.kind) else {
        return match error.io {
            Some(io) => match io.raw_os_error() {
                // Python picks the subclass (FileNotFoundError, PermissionError, …) from the number.
                Some(errno) => PyOSError::new_err((errno, os_message(py, errno, &io), path)),
                None => PyOSError::new_err(io.to_string()),
            },
            None => pyo3::exceptions::PyKeyboardInterrupt::new_err(()),
        };
    };
    typed(py, name, &error, path).unwrap_or_else(|failure| failure)
}

fn typed(py: Python<'_>, name: &str, error: &Error, path: Option<String>) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    fields.set_item("path", path)?;
    fields.set_item("tensor", &error.tensor)?;
    fields.set_item("offset", error.offset)?;
    fields.set_item("code", error.code)?;
    let class = py.import("weightprint.errors")?.getattr(name)?;
    Ok(PyErr::from_value(class.call((&error.message,), Some(&fields))?))
}

fn os_message(py: Python<'_>, errno: i32, io: &std::io::Error) -> String {
    py.import("os")
        .and_then(|os| os.call_method1("strerror", (errno,)))
        .and_then(|text| text.extract())
        .unwrap_or_else(|_| io.to_string())
}
