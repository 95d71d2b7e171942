//! All tensor names in one string, with a hash table that finds them.
//!
//! Names are compared after unescaping, so `"a"` and `"\u0061"` are one name. The table is seeded at random for each
//! header (SipHash of the standard library): nobody can craft names that all fall into one bucket.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

/// A name's place in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte; increases in the order of the header.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

/// The arena. A name longer than u32 cannot come up: headers beyond 4 GiB are refused.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: String,
    hasher: RandomState,
    table: HashTable<u32>,
}

impl Names {
    /// The name at `span`.
    pub fn get(&self, span: Span) -> &str {
        &self.text[span.start as usize..][..span.len as usize]
    }

    /// Append a name; it is found only once [`insert`](Self::insert) has put it into the table.
    pub fn push(&mut self, name: &str) -> Span {
        let span = Span { start: self.text.len() as u32, len: name.len() as u32 };
        self.text.push_str(name);
        span
    }

    /// Make room for about `count` names, so that growing the table does not hash them again.
    pub fn reserve(&mut self, count: usize) {
        let Self { text, hasher, table } = self;
        debug_assert!(table.is_empty() && text.is_empty());
        table.reserve(count, |&i| hasher.hash_one(i));
    }

    /// The hash of a name, for [`find`](Self::find) and [`insert`](Self::insert).
    pub fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The number under which `name` was inserted. `span_of` gives the name's place for a number.
    pub fn find(&self, hash: u64, name: &str, span_of: impl Fn(u32) -> Span) -> Option<u32> {
        self.table.find(hash, |&i| self.get(span_of(i)) == name).copied()
    }

    /// Remember `number` for the name at `span_of(number)`, which is not in the table yet and has this `hash`.
    pub fn insert(&mut self, hash: u64, number: u32, span_of: impl Fn(u32) -> Span) {
        let Self { text, hasher, table } = self;
        table.insert_unique(hash, number, |&i| {
            let span = span_of(i);
            hasher.hash_one(&text[span.start as usize..][..span.len as usize])
        });
    }

    /// Forget all numbers but keep the names: the tensors were renumbered.
    pub fn clear_table(&mut self) {
        self.table.clear();
    }

    /// Give back what was reserved and not used.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
    }
}
