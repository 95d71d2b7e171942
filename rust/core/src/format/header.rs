//! Parses a file's header, and answers which bytes are which tensor.
//!
//! One pass over the JSON fills the arenas of [`super::entries`]. A header of 100 MB and a million tensors costs about
//! its own size again; see `tests/huge_header.rs`.

use super::builder::HeaderBuilder;
use super::entries::Entries;
use super::entry::Top;
use super::json::{self, Context};
use super::layout::{self, Extent};
use super::notes::Note;
use super::prefix::LENGTH_BYTES;
use super::rules::{Limits, Mode};
use crate::control::Control;
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// A header longer than this is noted: every reader must parse it before the first value.
const LARGE_HEADER_BYTES: usize = 25_000_000;

/// About the shortest JSON of an entry: what a header of some length may hold at most.
const ENTRY_BYTES: usize = 56;

/// A parsed header. Tensors are numbered from 0 in the order of their data.
#[derive(Debug)]
pub struct Header {
    entries: Entries,
    metadata: Vec<(String, String)>,
    notes: Vec<Note>,
}

impl Header {
    /// Parse the N bytes of JSON. `data_len` is the number of bytes that follow them in the file.
    ///
    /// Errors of kind `Format` or `Limit` name the tensor and the offset in the file; `Cancelled` when `control` says
    /// so.
    pub fn parse(json: &[u8], data_len: u64, mode: Mode, limits: &Limits, control: &Control) -> Result<Header> {
        if json.len() as u64 > limits.header_bytes.min(u64::from(u32::MAX)) {
            let message = format!("the header has {} bytes, the cap is {}", json.len(), limits.header_bytes);
            return Err(Error::limit("header_too_large", message));
        }
        let (text, leading) = json::text(json, LENGTH_BYTES)?;
        let mut builder = HeaderBuilder::new(mode, limits, control);
        builder.entries.names.reserve(limits.tensors.min(json.len() / ENTRY_BYTES));
        if leading > 0 {
            let message = format!("{leading} bytes of white space come before the header's first bracket");
            let note = Note::new("leading_whitespace", message).at(LENGTH_BYTES);
            builder.notes.push("leading_whitespace", || note);
        }
        if json.len() > LARGE_HEADER_BYTES {
            let message = format!("the header has {} bytes; that is slow for every reader", json.len());
            builder.notes.push("large_header", || Note::new("large_header", message));
        }
        if let Err(stopped) = json::parse(text, LENGTH_BYTES, Top(&mut builder)) {
            let error = builder.blame(stopped);
            return Err(match builder.current {
                Some(span) if error.tensor.is_none() && error.code != "cancelled" => {
                    error.with_tensor(builder.entries.names.get(span))
                }
                _ => error,
            });
        }
        Self::from_builder(builder, data_len, LENGTH_BYTES.saturating_add(json.len() as u64))
    }

    /// Number the tensors in data order and check that they tile the data.
    fn from_builder(mut builder: HeaderBuilder<'_>, data_len: u64, data_start: u64) -> Result<Header> {
        builder.control().check()?;
        builder.entries.sort();
        builder.control().check()?;
        let extent = Extent { len: data_len, start: data_start, alignment: 1, mode: builder.mode };
        layout::check(&builder.entries, extent, &mut builder.notes)?;
        Ok(Header::of(builder.entries, builder.metadata.entries, builder.notes.finish()))
    }

    /// Put together from what was checked; `entries` are in data order.
    pub(super) fn of(mut entries: Entries, metadata: Vec<(String, String)>, notes: Vec<Note>) -> Header {
        entries.shrink();
        Header { entries, metadata, notes }
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.list.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.entries.list.is_empty()
    }

    /// The name of tensor `i`, unescaped: it may hold any character.
    pub fn name(&self, i: usize) -> &str {
        self.entries.name(&self.entries.list[i])
    }

    /// The element type of tensor `i`.
    pub fn dtype(&self, i: usize) -> Dtype {
        self.entries.list[i].dtype
    }

    /// The shape of tensor `i`. Shapes are stored packed, so this makes a fresh `Vec`.
    pub fn shape(&self, i: usize) -> Vec<u64> {
        self.dimensions(i).collect()
    }

    /// The dimensions of tensor `i`, without a `Vec`.
    pub fn dimensions(&self, i: usize) -> impl Iterator<Item = u64> + Clone + '_ {
        self.entries.dimensions(&self.entries.list[i])
    }

    /// Where tensor `i` begins and ends, in bytes from the start of the data.
    pub fn range(&self, i: usize) -> (u64, u64) {
        (self.entries.list[i].begin, self.entries.list[i].end)
    }

    /// Number of elements of tensor `i`.
    pub fn numel(&self, i: usize) -> u64 {
        layout::numel(self.dimensions(i)).expect("checked when the header was parsed")
    }

    /// The number of the tensor called `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.entries.find(self.entries.names.hash(name), name).map(|i| i as usize)
    }

    /// The strings of `__metadata__`, in the order of the header.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// What was accepted but is worth saying.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}
