//! Checks that a header's tensors tile the file's data: as long as their shapes say, no gap, no overlap.
//!
//! With the entries sorted by their offsets, the first begins at 0, each begins where the one before it ended, and the
//! last ends with the file. Each is as long as its shape and dtype say: the product of the dimensions times the bits
//! of an element, which must be whole bytes. Any dimension of zero makes the size zero, whatever the others are.
//!
//! Containers that align their tensors may leave less than one alignment of padding before each, and behind the last.

use super::entries::{Entries, Entry};
use super::notes::{Note, Notes};
use super::rules::Mode;
use crate::error::{Error, Result, escape};

/// Names that an error about many tensors shows.
const SHOWN: usize = 5;

/// The product of the dimensions, or `None` beyond 64 bits. A zero anywhere makes it zero.
pub(super) fn numel(mut dimensions: impl Iterator<Item = u64> + Clone) -> Option<u64> {
    if dimensions.clone().any(|d| d == 0) {
        return Some(0);
    }
    dimensions.try_fold(1u64, u64::checked_mul)
}

/// Where the data lie: `len` bytes from `start` of the file on, tensors at multiples of `alignment` (1: no padding).
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub len: u64,
    pub start: u64,
    pub alignment: u64,
    pub mode: Mode,
}

/// Check all entries, which are in data order.
pub(super) fn check(entries: &Entries, extent: Extent, notes: &mut Notes) -> Result<()> {
    let Extent { len: data_len, start: data_start, alignment, mode } = extent;
    let mut cursor = 0u64;
    for (i, e) in entries.list.iter().enumerate() {
        let at = |error: Error, offset: u64| {
            Err(error.with_tensor(entries.name(e)).with_offset(data_start.saturating_add(offset)))
        };
        if let Err(error) = size(e, entries, notes) {
            return at(error, e.begin);
        }
        if !e.begin.is_multiple_of(alignment) {
            let message = format!("this tensor does not begin at a multiple of {alignment} bytes");
            return at(Error::format("misaligned", message), e.begin);
        }
        if e.begin > cursor && e.begin - cursor >= alignment {
            let gap = e.begin - cursor;
            let message = format!("{gap} bytes before this tensor belong to no tensor; the file may carry hidden data");
            return at(Error::format("hole", message), cursor);
        }
        if e.begin < cursor {
            let other = i.checked_sub(1).map_or("", |j| entries.name(&entries.list[j]));
            let message = format!("this tensor shares {} bytes with {}", cursor.min(e.end) - e.begin, escape(other));
            return at(Error::format("overlap", message), e.begin);
        }
        cursor = e.end;
    }
    if cursor < data_len && data_len - cursor >= alignment {
        let message = format!("{} bytes after the last tensor belong to no tensor", data_len - cursor);
        let offset = data_start.saturating_add(cursor);
        // The reference reader of safetensors refuses these; those of aligned containers never look.
        if mode == Mode::Strict || alignment == 1 {
            return Err(Error::format("trailing_data", message).with_offset(offset));
        }
        notes.push("trailing_data", || Note::new("trailing_data", message).at(offset));
    }
    if cursor > data_len { Err(truncated(entries, cursor, data_len, data_start)) } else { Ok(()) }
}

/// Is the entry as long as its shape says?
fn size(e: &Entry, entries: &Entries, notes: &mut Notes) -> Result<()> {
    let dimensions = || entries.dimensions(e);
    let shown = || dimensions().map(|d| d.to_string()).collect::<Vec<_>>().join(", ");
    if e.end < e.begin {
        let message = format!("data_offsets run backwards, from {} to {}", e.begin, e.end);
        return Err(Error::format("offsets_reversed", message));
    }
    let bits = numel(dimensions()).and_then(|n| n.checked_mul(u64::from(e.dtype.bits())));
    let Some(bits) = bits else {
        let message = format!("the size of shape [{}] as {} does not fit 64 bits", shown(), e.dtype.name());
        return Err(Error::format("size_overflow", message));
    };
    if bits % 8 != 0 {
        let message = format!("shape [{}] as {} fills {bits} bits, which are no whole bytes", shown(), e.dtype.name());
        return Err(Error::format("partial_byte", message));
    }
    if bits / 8 != e.end - e.begin {
        let (dtype, have, need) = (e.dtype.name(), e.end - e.begin, bits / 8);
        let message = format!("shape [{}] as {dtype} needs {need} bytes, data_offsets give it {have}", shown());
        return Err(Error::format("size_mismatch", message));
    }
    // From the left the product overflows before it meets the zero: the reference stops there.
    if bits == 0 && dimensions().try_fold(1u64, u64::checked_mul).is_none() {
        notes.push("zero_after_overflow", || {
            let message = format!("shape [{}] is empty, but readers that multiply from the left refuse it", shown());
            Note::new("zero_after_overflow", message).about(entries.name(e))
        });
    }
    Ok(())
}

/// The error for a file that ends before its tensors do: how much is missing, and what is lost.
fn truncated(entries: &Entries, needed: u64, data_len: u64, data_start: u64) -> Error {
    let lost = |e: &&Entry| e.end > data_len;
    let count = entries.list.iter().filter(lost).count();
    let first = entries.list.iter().find(lost);
    let mut shown: Vec<_> = entries.list.iter().filter(lost).take(SHOWN).map(|e| escape(entries.name(e))).collect();
    if count > SHOWN {
        shown.push(format!("and {} more", count - SHOWN));
    }
    let message = format!(
        "the file is cut short: {} of {} data bytes are missing, and {count} of {} tensors with them ({}); fetch or copy \
         it again",
        needed - data_len,
        needed,
        entries.list.len(),
        shown.join(", ")
    );
    let error = Error::format("truncated", message).with_offset(data_start.saturating_add(data_len));
    if let Some(e) = first { error.with_tensor(entries.name(e)) } else { error }
}
