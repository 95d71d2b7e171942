//! All tensors of a header in three arenas: names in one string, shapes as LEB128 numbers, and 32 bytes per tensor.

use super::names::{Names, Span};
use super::shapes::Shapes;
use crate::dtype::Dtype;

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

/// The tensors of a header, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub list: Vec<Entry>,
    pub names: Names,
    pub shapes: Shapes,
}

impl Entries {
    /// The name of an entry.
    pub fn name(&self, entry: &Entry) -> &str {
        self.names.get(entry.name)
    }

    /// The dimensions of an entry.
    pub fn dimensions(&self, entry: &Entry) -> impl Iterator<Item = u64> + Clone + '_ {
        self.shapes.get(entry.shape as usize, usize::from(entry.rank))
    }

    /// The number of the entry called `name`, whose hash that is.
    pub fn find(&self, hash: u64, name: &str) -> Option<u32> {
        self.names.find(hash, name, |i| self.list[i as usize].name)
    }

    /// Append an entry, whose name has this hash and is in the arena but not among the entries yet.
    pub fn push(&mut self, hash: u64, entry: Entry) {
        self.list.push(entry);
        self.insert(hash, self.list.len() as u32 - 1);
    }

    fn insert(&mut self, hash: u64, number: u32) {
        let Self { list, names, .. } = self;
        names.insert(hash, number, |i| list[i as usize].name);
    }

    /// Number the entries in the order of their data.
    pub fn sort(&mut self) {
        let key = |e: &Entry| (e.begin, e.end, e.name.start);
        if self.list.is_sorted_by_key(key) {
            return;
        }
        self.list.sort_unstable_by_key(key);
        self.names.clear_table();
        for number in 0..self.list.len() {
            let hash = self.names.hash(self.name(&self.list[number]));
            self.insert(hash, number as u32);
        }
    }

    /// Give back what was reserved and not used.
    pub fn shrink(&mut self) {
        self.list.shrink_to_fit();
        self.names.shrink();
        self.shapes.shrink();
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
