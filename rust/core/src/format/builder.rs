//! Collects what the parser reads of a header: entries, metadata, notes, and which place an error is about.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::entries::{Entries, Entry};
use super::json::{Context, ParseState};
use super::names::Span;
use super::notes::{Note, Notes};
use super::rules::{Limits, Mode};
use crate::control::Control;
use crate::dtype::Dtype;
use crate::error::{Error, Result, escape};

/// Whether an entry of this name was met before.
pub(super) enum Known {
    As(u32),
    Not { hash: u64 },
}

/// The fields of an entry met so far. A shape is its place in the arena and its rank.
#[derive(Default)]
pub(super) struct Fields {
    pub dtype: Option<Dtype>,
    pub shape: Option<(u32, u16)>,
    pub offsets: Option<(u64, u64)>,
}

/// The metadata read so far, and what it costs.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// Keys and values in the order of the header; a repeated key keeps its first place and its last value.
    pub entries: Vec<(String, String)>,
    /// Whether a `__metadata__` was met, be it empty or null.
    pub met: bool,
    pub cost: u64,
    hasher: RandomState,
    table: HashTable<u32>,
}

/// What was read of a header so far.
pub(super) struct HeaderBuilder<'c> {
    pub mode: Mode,
    pub limits: &'c Limits,
    pub metadata: Metadata,
    pub notes: Notes,
    pub entries: Entries,
    /// The entry being read, for errors.
    pub current: Option<Span>,
    control: &'c Control,
    state: ParseState,
}

impl Context for HeaderBuilder<'_> {
    fn control(&self) -> &Control {
        self.control
    }

    fn state(&mut self) -> &mut ParseState {
        &mut self.state
    }
}

impl<'c> HeaderBuilder<'c> {
    /// Nothing read yet.
    pub fn new(mode: Mode, limits: &'c Limits, control: &'c Control) -> Self {
        Self {
            mode,
            limits,
            metadata: Metadata::default(),
            notes: Notes::default(),
            entries: Entries::default(),
            current: None,
            control,
            state: ParseState::default(),
        }
    }

    /// Refuse in `Strict`; in `Compatible` note the liberty, with what is done about it, and go on.
    pub fn liberty(&mut self, code: &'static str, problem: &str, instead: &str) -> Result<()> {
        let name = self.current.map(|span| self.entries.names.get(span));
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
            Known::As(i) => self.entries.list[i as usize] = entry,
            Known::Not { hash } => self.entries.push(hash, entry),
        }
        Ok(())
    }

    /// Add one string of the metadata; a repeated key is an error, or the last one wins with a note.
    pub fn add_metadata(&mut self, key: String, value: String) -> Result<()> {
        let Metadata { entries, hasher, table, .. } = &mut self.metadata;
        let hash = hasher.hash_one(&key);
        if let Some(&i) = table.find(hash, |&i| entries[i as usize].0 == key) {
            let message = format!("__metadata__ has the key {} twice", escape(&key));
            if self.mode == Mode::Strict {
                let message = format!("{message}; readers disagree which one counts");
                return Err(Error::format("duplicate_metadata_key", message));
            }
            self.notes.push("duplicate_metadata_key", || {
                Note::new("duplicate_metadata_key", format!("{message}; the last one counts"))
            });
            entries[i as usize].1 = value;
            return Ok(());
        }
        let number = entries.len() as u32;
        entries.push((key, value));
        table.insert_unique(hash, number, |&i| hasher.hash_one(&entries[i as usize].0));
        Ok(())
    }
}
