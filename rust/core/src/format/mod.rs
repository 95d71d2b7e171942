//! Which bytes of a safetensors file are which tensor, and is the file sound?
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
//! - `header`, `entry`: the entries, into compact arenas (`names`, `shapes`); `metadata`: `__metadata__`;
//! - `listed`: the tensors of another container (GGUF), whose own reader lists them;
//! - `layout`: do the entries tile the data? `index`: the index of a sharded checkpoint; `notes`: what is worth saying.

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
mod shapes;

pub use header::Header;
pub use index::Index;
pub use listed::{DataPart, Listed};
pub use notes::Note;
pub use prefix::{PREFIX_BYTES, header_length};

use crate::control::Control;
use crate::error::{Error, Result};

/// Bytes of the length N in front of the header.
pub const LENGTH_BYTES: u64 = 8;

/// How strictly the rules are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The specification, and what it leaves open decided in favour of safety: no duplicates, no unknown fields.
    #[default]
    Strict,
    /// What the reference implementation (safetensors 0.8) accepts; each liberty taken becomes a [`Note`].
    /// Bounds, types and caps are held as in `Strict`.
    Compatible,
}

/// What a header may cost. Passing one is an error of kind `Limit`: the file may be legal, raise the cap if you trust it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of JSON; the reference implementation stops at the same number.
    pub header_bytes: u64,
    /// Tensors in one file, or in one index.
    pub tensors: usize,
    /// Dimensions of one tensor.
    pub rank: usize,
    /// Bytes of a tensor's name or of a metadata key.
    pub name_bytes: usize,
    /// Memory that `__metadata__` may take: its text and [`METADATA_ENTRY_BYTES`] per entry.
    pub metadata_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes: 100_000_000, tensors: 1_000_000, rank: 64, name_bytes: 4096, metadata_bytes: 150_000_000 }
    }
}

/// What one metadata entry costs beside its text: two strings, their heap blocks, a slot in the table of keys.
pub const METADATA_ENTRY_BYTES: u64 = 112;

/// Parse a whole file that lies in memory; `source` does the same for a file on disk without reading its data.
pub fn parse_bytes(file: &[u8], mode: Mode, limits: &Limits, control: &Control) -> Result<Header> {
    let prefix = &file[..file.len().min(PREFIX_BYTES)];
    let n = header_length(prefix, file.len() as u64, limits)?;
    let end = usize::try_from(n).ok().and_then(|n| n.checked_add(LENGTH_BYTES as usize));
    let json = end.and_then(|end| file.get(LENGTH_BYTES as usize..end));
    let json = json.ok_or_else(|| Error::format("header_beyond_file", "the header is longer than the file"))?;
    Header::parse(json, file.len() as u64 - LENGTH_BYTES - n, mode, limits, control)
}
