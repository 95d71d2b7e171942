//! The header: which bytes are which tensor.
//!
//! One pass over the JSON fills three arenas: names in one string, shapes as LEB128 numbers, and 32 bytes per tensor.
//! A header of 100 MB and a million tensors costs about its own size again; see `tests/huge_header.rs`.

use super::entry::{Fields, Known, Top};
use super::json::{self, Context};
use super::layout::{self, Extent};
use super::metadata::Metadata;
use super::names::{Names, Span};
use super::notes::{Note, Notes};
use super::shapes::Shapes;
use super::{LENGTH_BYTES, Limits, Mode};
use crate::control::Control;
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// A header longer than this is noted: every reader must parse it before the first value.
const LARGE_HEADER_BYTES: usize = 25_000_000;

/// About the shortest JSON of an entry: what a header of some length may hold at most.
const ENTRY_BYTES: usize = 56;

/// One tensor: 32 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub begin: u64,
    pub end: u64,
    pub name: Span,
    pub shape: u32,
    pub rank: u16,
    pub dtype: Dtype,
}

/// A parsed header. Tensors are numbered from 0 in the order of their data.
#[derive(Debug)]
pub struct Header {
    entries: Vec<Entry>,
    names: Names,
    shapes: Shapes,
    metadata: Vec<(String, String)>,
    notes: Vec<Note>,
}

impl Header {
    /// Parse the N bytes of JSON. `data_len` is the number of bytes that follow them in the file.
    ///
    /// Errors of kind `Format` or `Limit` name the tensor and the offset in the file; `Cancelled` when `control` says so.
    pub fn parse(json: &[u8], data_len: u64, mode: Mode, limits: &Limits, control: &Control) -> Result<Header> {
        if json.len() as u64 > limits.header_bytes.min(u64::from(u32::MAX)) {
            let message = format!("the header has {} bytes, the cap is {}", json.len(), limits.header_bytes);
            return Err(Error::limit("header_too_large", message));
        }
        let (text, leading) = json::text(json, LENGTH_BYTES)?;
        let mut builder = Builder {
            mode,
            limits,
            control,
            entries: Vec::new(),
            names: Names::default(),
            shapes: Shapes::default(),
            metadata: Metadata::default(),
            notes: Notes::default(),
            current: None,
            ticks: 0,
            failure: None,
        };
        builder.names.reserve(limits.tensors.min(json.len() / ENTRY_BYTES));
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
                    error.with_tensor(builder.names.get(span))
                }
                _ => error,
            });
        }
        builder.finish(data_len, LENGTH_BYTES.saturating_add(json.len() as u64))
    }

    /// Put together from what was checked; `entries` are in data order.
    pub(super) fn of(
        mut entries: Vec<Entry>,
        mut names: Names,
        mut shapes: Shapes,
        metadata: Vec<(String, String)>,
        notes: Vec<Note>,
    ) -> Header {
        entries.shrink_to_fit();
        names.shrink();
        shapes.shrink();
        Header { entries, names, shapes, metadata, notes }
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name of tensor `i`, unescaped: it may hold any character.
    pub fn name(&self, i: usize) -> &str {
        self.names.get(self.entries[i].name)
    }

    /// The element type of tensor `i`.
    pub fn dtype(&self, i: usize) -> Dtype {
        self.entries[i].dtype
    }

    /// The shape of tensor `i`. Shapes are stored packed, so this makes a fresh `Vec`.
    pub fn shape(&self, i: usize) -> Vec<u64> {
        self.dimensions(i).collect()
    }

    /// The dimensions of tensor `i`, without a `Vec`.
    pub fn dimensions(&self, i: usize) -> impl Iterator<Item = u64> + Clone + '_ {
        let e = &self.entries[i];
        self.shapes.get(e.shape as usize, usize::from(e.rank))
    }

    /// Where tensor `i` begins and ends, in bytes from the start of the data.
    pub fn range(&self, i: usize) -> (u64, u64) {
        (self.entries[i].begin, self.entries[i].end)
    }

    /// Number of elements of tensor `i`.
    pub fn numel(&self, i: usize) -> u64 {
        layout::numel(self.dimensions(i)).expect("checked when the header was parsed")
    }

    /// The number of the tensor called `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.find(self.names.hash(name), name, |i| self.entries[i as usize].name).map(|i| i as usize)
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

/// The header while it is read.
pub(super) struct Builder<'c> {
    pub mode: Mode,
    pub limits: &'c Limits,
    pub metadata: Metadata,
    pub notes: Notes,
    pub entries: Vec<Entry>,
    pub names: Names,
    pub shapes: Shapes,
    /// The entry being read, for errors.
    pub current: Option<Span>,
    control: &'c Control,
    ticks: u32,
    failure: Option<Error>,
}

impl Context for Builder<'_> {
    fn failure(&mut self) -> &mut Option<Error> {
        &mut self.failure
    }

    fn tick(&mut self) -> Result<()> {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(4096) { self.control.check() } else { Ok(()) }
    }
}

impl Builder<'_> {
    /// Refuse in `Strict`; in `Compatible` note the liberty, with what is done about it, and go on.
    pub fn liberty(&mut self, code: &'static str, problem: &str, instead: &str) -> Result<()> {
        let name = self.current.map(|span| self.names.get(span));
        if self.mode == Mode::Strict {
            let error = Error::format(code, format!("{problem}; save the file again with the safetensors library"));
            return Err(if let Some(name) = name { error.with_tensor(name) } else { error });
        }
        self.notes.push(code, || {
            let note = Note::new(code, format!("{problem}; {instead}"));
            if let Some(name) = name { note.about(name) } else { note }
        });
        Ok(())
    }

    /// The number of the entry called `name`, if one was met before.
    pub fn find(&self, hash: u64, name: &str) -> Option<u32> {
        self.names.find(hash, name, |i| self.entries[i as usize].name)
    }

    /// Add an entry or, for a name met before, replace it.
    pub fn add(&mut self, span: Span, known: Known, fields: Fields) -> Result<()> {
        let (Some(dtype), Some((shape, rank)), Some((begin, end))) = (fields.dtype, fields.shape, fields.offsets)
        else {
            let missing = if fields.dtype.is_none() {
                "dtype"
            } else if fields.shape.is_none() {
                "shape"
            } else {
                "data_offsets"
            };
            return Err(Error::format("missing_field", format!("the entry has no {missing}")));
        };
        let entry = Entry { begin, end, name: span, shape, rank, dtype };
        match known {
            Known::As(i) => self.entries[i as usize] = entry,
            Known::Not { hash } => {
                let number = self.entries.len() as u32;
                self.entries.push(entry);
                let entries = &self.entries;
                self.names.insert(hash, number, |i| entries[i as usize].name);
            }
        }
        Ok(())
    }

    /// Number the tensors in data order and check that they tile the data.
    fn finish(mut self, data_len: u64, data_start: u64) -> Result<Header> {
        self.control.check()?;
        let key = |e: &Entry| (e.begin, e.end, e.name.start);
        if !self.entries.is_sorted_by_key(key) {
            self.entries.sort_unstable_by_key(key);
            self.names.clear_table();
            let entries = &self.entries;
            for (number, entry) in (0..).zip(entries) {
                let hash = self.names.hash(self.names.get(entry.name));
                self.names.insert(hash, number, |i| entries[i as usize].name);
            }
        }
        self.control.check()?;
        let extent = Extent { len: data_len, start: data_start, alignment: 1, mode: self.mode };
        layout::check(&self.entries, &self.names, &self.shapes, extent, &mut self.notes)?;
        Ok(Header::of(self.entries, self.names, self.shapes, self.metadata.entries, self.notes.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 32);
    }
}
