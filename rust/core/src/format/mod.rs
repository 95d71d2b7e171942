//! Parses and checks the headers of files of tensors: which bytes are which tensor, and is the file sound?
//!
//! The format: a u64 little-endian length N, N bytes of JSON, then the data. The JSON is an object of entries
//! `name: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}` whose offsets count from the start of the data,
//! plus an optional `__metadata__` of strings (<https://huggingface.co/docs/safetensors>).
//!
//! A header is hostile until proven otherwise. So: its length is compared with the file's before anything is
//! allocated; it is read in one streaming pass that builds no value tree; whatever grows is capped while it grows;
//! every sum and product is checked; and the entries must tile the data exactly. An error says what, where, and what
//! to do. Nothing here reads values, and nothing panics on any input.
//!
//! - `prefix`: the first bytes: N against the file's size, and other formats known by their magic numbers;
//! - `json`: the streaming parser's adapter: types, positions, what an error of the JSON itself is called;
//! - `entry`, `metadata`: what may stand at each place of the JSON, filled into a `builder`, which becomes a `header`;
//! - `entries`: all tensors in compact arenas (`names`, `shapes`); `rules`: strictness and limits;
//! - `listed`: the tensors of another container (GGUF), whose own reader lists them;
//! - `layout`: do the entries tile the data? `index`: the index of a sharded checkpoint; `notes`: what is worth saying.

mod builder;
mod entries;
mod entry;
mod header;
mod index;
mod json;
mod layout;
mod listed;
mod metadata;
mod names;
mod notes;
mod prefix;
mod rules;
mod shapes;

pub use header::Header;
pub use index::Index;
pub use listed::{DataPart, Listed};
pub use notes::Note;
pub use prefix::{LENGTH_BYTES, PREFIX_BYTES, header_length};
pub use rules::{Limits, METADATA_ENTRY_BYTES, Mode};

use crate::control::Control;
use crate::error::{Error, Result};

/// Parse a whole file that lies in memory; `source` does the same for a file on disk without reading its data.
pub fn parse_bytes(file: &[u8], mode: Mode, limits: &Limits, control: &Control) -> Result<Header> {
    let prefix = &file[..file.len().min(PREFIX_BYTES)];
    let n = header_length(prefix, file.len() as u64, limits)?;
    let end = usize::try_from(n).ok().and_then(|n| n.checked_add(LENGTH_BYTES as usize));
    let json = end.and_then(|end| file.get(LENGTH_BYTES as usize..end));
    let json = json.ok_or_else(|| Error::format("header_beyond_file", "the header is longer than the file"))?;
    Header::parse(json, file.len() as u64 - LENGTH_BYTES - n, mode, limits, control)
}
