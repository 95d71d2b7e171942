//! Checks the first bytes of a file: the header's length, or which other format this is.
//!
//! safetensors has no magic number; its first eight bytes are the header's length N. A file of another format shows by
//! an N that cannot be, or by a byte after it that opens no object. Only then are magic numbers looked at, since an
//! honest N may equal one. Each row of the table says what the file is and how to convert it without running its code.

use super::rules::Limits;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of the length N in front of the header.
pub const LENGTH_BYTES: u64 = 8;

/// As many bytes of the file's start as [`header_length`] looks at.
pub const PREFIX_BYTES: usize = 4096;

/// N of a file of `file_len` bytes that begins with `prefix` (the whole file, or its first [`PREFIX_BYTES`]).
///
/// N fits the file and the cap. Errors: `Unsupported` for another format, `Format`, `Limit`.
pub fn header_length(prefix: &[u8], file_len: u64, limits: &Limits) -> Result<u64> {
    if file_len == 0 {
        let message = "the file is empty; fetch or copy it again";
        return Err(Error::new(ErrorKind::Unsupported, "empty_file", message));
    }
    let (Some(length), Some(room)) = (prefix.first_chunk::<8>(), file_len.checked_sub(LENGTH_BYTES)) else {
        sniff(prefix)?;
        let message =
            format!("the file has {file_len} bytes; a safetensors file has at least 8; fetch or copy it again");
        return Err(Error::format("file_too_small", message));
    };
    let n = u64::from_le_bytes(*length);
    let cap = limits.header_bytes.min(u64::from(u32::MAX));
    let opens = prefix[8..].iter().find(|b| !b.is_ascii_whitespace()).is_none_or(|&b| b == b'{');
    if n > room || n > cap || n == 0 || !opens {
        sniff(prefix)?;
    }
    if n > room {
        let message = format!(
            "the header should have {n} bytes, but only {room} follow its length: {} are missing; the file is cut short \
             or is no safetensors file",
            n - room
        );
        return Err(Error::format("header_beyond_file", message).with_offset(0));
    }
    if n == 0 {
        let message = "the header's length is 0; the file is damaged or is no safetensors file";
        return Err(Error::format("header_empty", message).with_offset(0));
    }
    if n > cap {
        let message = format!("the header has {n} bytes, the cap is {cap}; raise the cap if you trust the file");
        return Err(Error::limit("header_too_large", message).with_offset(0));
    }
    Ok(n)
}

/// One other format: the error's code, what the file is, the way out, and how to know it by its first bytes.
type Row = (&'static str, &'static str, &'static str, fn(&[u8]) -> bool);

const CONVERT_PICKLE: &str = "weightprint never unpickles, since a pickle can run any program; convert it where that \
    does no harm: torch.load(file, weights_only=True), then safetensors.torch.save_file";
const FETCH_AGAIN: &str = "fetch the real file";
const UNPACK: &str = "unpack it first";

/// The formats, most telling first.
const FORMATS: [Row; 20] = [
    ("lfs_pointer", "a Git LFS pointer, not the file it stands for", "run: git lfs pull", |p| {
        p.starts_with(b"version https://git-lfs")
    }),
    ("lfs_pointer", "a git-annex pointer, not the file it stands for", "run: git annex get", |p| {
        p.starts_with(b"/annex/objects/")
    }),
    ("error_page", "a web page, most likely a server's error or log-in page saved as the file", FETCH_AGAIN, |p| {
        begins(p, b"<!doctype html") || begins(p, b"<html") || begins(p, b"<?xml")
    }),
    ("error_page", "a server's error message saved as the file", FETCH_AGAIN, |p| {
        [&b"entry not found"[..], b"repository not found", b"access to model", b"invalid username", b"{\"error\""]
            .iter()
            .any(|message| begins(p, message))
    }),
    ("json_file", "a JSON file", "an index is opened by its own name, ending in .safetensors.index.json", |p| {
        begins(p, b"{") || begins(p, b"[")
    }),
    ("pickle_file", "a PyTorch checkpoint (a zip file of a pickle)", CONVERT_PICKLE, |p| {
        p.starts_with(b"PK\x03\x04") && contains(p, b".pkl")
    }),
    (
        "numpy_file",
        "a NumPy .npz archive",
        "save it again: safetensors.numpy.save_file(dict(numpy.load(file)), …)",
        |p| p.starts_with(b"PK\x03\x04") && contains(p, b".npy"),
    ),
    ("zip_file", "a zip file", UNPACK, |p| p.starts_with(b"PK\x03\x04") || p.starts_with(b"PK\x05\x06")),
    ("pickle_file", "a Python pickle", CONVERT_PICKLE, |p| {
        p.len() > 2 && p[0] == 0x80 && (2..=5).contains(&p[1]) && p[2] != 0
    }),
    (
        "gguf_file",
        "a GGUF file",
        "name it with the ending .gguf, and weightprint reads it as one (pip install 'weightprint[gguf]')",
        |p| p.starts_with(b"GGUF"),
    ),
    ("gguf_file", "a GGML file, the forerunner of GGUF", "convert it with llama.cpp's scripts", |p| {
        [b"lmgg", b"fmgg", b"tjgg", b"algg"].iter().any(|magic| p.starts_with(*magic))
    }),
    (
        "hdf5_file",
        "an HDF5 file (Keras, older TensorFlow)",
        "read it with h5py and save its arrays with safetensors",
        |p| p.starts_with(b"\x89HDF\r\n\x1a\n"),
    ),
    (
        "numpy_file",
        "a NumPy .npy file",
        "save it again: safetensors.numpy.save_file({\"name\": numpy.load(file)}, …)",
        |p| p.starts_with(b"\x93NUMPY"),
    ),
    ("tflite_file", "a TensorFlow Lite file", "save its tensors with safetensors.numpy.save_file", |p| {
        p.get(4..8) == Some(b"TFL3")
    }),
    ("parquet_file", "a Parquet file", "it holds tables, not tensors", |p| p.starts_with(b"PAR1")),
    ("gzip_file", "a gzip file", "unpack it first: gunzip", |p| p.starts_with(b"\x1f\x8b")),
    ("zstd_file", "a Zstandard file", "unpack it first: unzstd", |p| p.starts_with(b"\x28\xb5\x2f\xfd")),
    ("xz_file", "an xz or bzip2 file", UNPACK, |p| p.starts_with(b"\xfd7zXZ\0") || p.starts_with(b"BZh")),
    ("tar_file", "a tar file", UNPACK, |p| p.get(257..262) == Some(b"ustar")),
    // A protobuf: field 1 (ir_version) is a small number; then a string, the graph or the operator sets.
    (
        "onnx_file",
        "an ONNX file",
        "read it with the onnx package and save its initializers with safetensors.numpy",
        |p| {
            p.len() > 3
                && p[0] == 8
                && (1..=32).contains(&p[1])
                && matches!(p[2], 0x12 | 0x1a | 0x22 | 0x32 | 0x3a | 0x42)
        },
    ),
];

/// The error for a file whose first bytes are another format's.
fn sniff(prefix: &[u8]) -> Result<()> {
    match FORMATS.iter().find(|row| (row.3)(prefix)) {
        Some((code, what, advice, _)) => {
            let message = format!("this is {what}, not safetensors; {advice}");
            Err(Error::new(ErrorKind::Unsupported, code, message))
        }
        None => Ok(()),
    }
}

/// Whether the text begins with `word` (lower case), after white space and whatever its case.
fn begins(prefix: &[u8], word: &[u8]) -> bool {
    let text = prefix.trim_ascii_start();
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Whether `word` stands anywhere in the prefix.
fn contains(prefix: &[u8], word: &[u8]) -> bool {
    prefix.windows(word.len()).any(|w| w == word)
}
