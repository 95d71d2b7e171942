//! One error type for the core: what kind, a stable code, a sentence with the way out, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of every fallible call in the core.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of failure it was; the binding maps each kind to one Python exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bytes break the format's rules.
    Format,
    /// The file is legal but larger than a settable cap.
    Limit,
    /// A file of another format (a pickle, a GGUF), or a directory where a file is needed.
    Unsupported,
    /// No tensor of that name.
    TensorNotFound,
    /// A shard that an index names does not exist.
    ShardMissing,
    /// The file was cut, grew or was rewritten while it was read.
    FileChanged,
    /// The operating system said no; `io` holds its error.
    Io,
    /// The caller asked to stop.
    Cancelled,
    /// The caller's arguments make no sense together.
    Usage,
    /// A bug in weightprint.
    Internal,
}

/// An error that says which file, tensor and byte it is about.
#[derive(Debug)]
pub struct Error {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// A stable, short snake_case code, e.g. `header_too_large`.
    pub code: &'static str,
    /// One sentence for a person, with the way out where there is one. Names in it are already escaped.
    pub message: String,
    /// The file, when one is known.
    pub path: Option<PathBuf>,
    /// The tensor's name as stored (not escaped), when one is known.
    pub tensor: Option<String>,
    /// Byte offset in the file, when one is known.
    pub offset: Option<u64>,
    /// The operating system's error, for kind `Io`.
    pub io: Option<std::io::Error>,
}

impl Error {
    /// An error with a kind, a code and a sentence; add the rest with the `with_` methods.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), path: None, tensor: None, offset: None, io: None }
    }

    /// A broken format.
    pub fn format(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, code, message)
    }

    /// A cap was passed.
    pub fn limit(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, code, message)
    }

    /// Arguments that make no sense together.
    pub fn usage(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, code, message)
    }

    /// An operating system error on `path`.
    pub fn io(path: &Path, error: std::io::Error) -> Self {
        let mut e = Self::new(ErrorKind::Io, "io", error.to_string()).with_path(path);
        e.io = Some(error);
        e
    }

    /// The caller asked to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled", "interrupted")
    }

    /// Name the file, unless one is named already.
    pub fn with_path(mut self, path: &Path) -> Self {
        self.path.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// Name the tensor.
    pub fn with_tensor(mut self, name: &str) -> Self {
        self.tensor = Some(name.to_owned());
        self
    }

    /// Name the byte offset in the file.
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(tensor) = &self.tensor {
            write!(f, " [tensor {}]", escape(tensor))?;
        }
        if let Some(offset) = self.offset {
            write!(f, " [byte {offset}]")?;
        }
        if let Some(path) = &self.path {
            write!(f, " [{}]", escape(&path.to_string_lossy()))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io.as_ref().map(|e| e as _)
    }
}

/// `name` with control characters, bidirectional marks and invisible characters written as `\u{…}`, cut after 200
/// characters, so that a hostile tensor name cannot paint the terminal.
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len().min(256));
    for (i, c) in name.chars().enumerate() {
        if i == 200 {
            out.push('…');
            break;
        }
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}' | '\u{e0000}'..='\u{e0fff}');
        if c.is_control() || hidden {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}
