//! Brings a scan's bytes: from memory, through windows of a map, or by position.

use std::sync::OnceLock;

use super::plan::{CHUNK, Tensor, Unit};
use super::request::Io;
use crate::error::Result;
use crate::source::{Buffer, TensorFile, Windows};

/// Bytes faulted in at once: as fast as larger windows, and few threads' worth stays below 64 MiB.
const WINDOW: u64 = 2 << 20;
/// Bytes of a unit below which a copy is cheaper than two changes of the page tables.
const SMALL: u64 = 64 << 10;

/// Where the bytes of a scan lie.
pub(super) enum Source<'a> {
    /// Each file, and its map once it was needed.
    Files(Vec<(&'a TensorFile, OnceLock<Option<Windows>>)>, Io),
    /// Bytes of the one tensor from the given one on.
    Memory(u64, &'a [u8]),
}

impl<'a> Source<'a> {
    /// Files, to be read in this way.
    pub(super) fn files(files: &[&'a TensorFile], io: Io) -> Self {
        Self::Files(files.iter().map(|&file| (file, OnceLock::new())).collect(), io)
    }

    /// Have the disk bring a unit that is wanted soon.
    pub(super) fn ask_ahead(&self, tensor: &Tensor, unit: Unit) {
        if let Self::Files(files, _) = self
            && unit.end - unit.start >= SMALL
        {
            files[tensor.file].0.ask_ahead(tensor.offset + unit.start, unit.end - unit.start);
        }
    }

    /// To read `unit` of `tensor` chunk by chunk.
    pub(super) fn reader<'b>(&'b self, tensor: &Tensor, unit: Unit, buffer: &'b mut Buffer) -> Reader<'b> {
        let bytes = match self {
            Self::Memory(start, bytes) => Bytes::Memory(*start, bytes),
            Self::Files(files, io) => {
                let (file, windows) = &files[tensor.file];
                let wanted = *io != Io::Pread && unit.end - unit.start >= SMALL;
                let windows = wanted.then(|| windows.get_or_init(|| Windows::of(file)).as_ref()).flatten();
                Bytes::File(file, windows)
            }
        };
        Reader { bytes, offset: tensor.offset, end: unit.end, window: None, buffer }
    }
}

enum Bytes<'a> {
    Memory(u64, &'a [u8]),
    File(&'a TensorFile, Option<&'a Windows>),
}

/// Reads one unit.
pub(super) struct Reader<'a> {
    bytes: Bytes<'a>,
    /// Of the tensor in its file.
    offset: u64,
    /// Of the unit in its tensor.
    end: u64,
    /// The window in hand: its first byte in the tensor, its bytes.
    window: Option<(u64, &'a [u8])>,
    buffer: &'a mut Buffer,
}

impl Reader<'_> {
    /// Bytes `[begin, end)` of the tensor: the next chunk. What is made of them counts if [`finish`](Self::finish) agrees.
    pub(super) fn chunk(&mut self, begin: u64, end: u64) -> Result<&[u8]> {
        let (file, windows) = match self.bytes {
            Bytes::Memory(start, bytes) => return Ok(&bytes[(begin - start) as usize..(end - start) as usize]),
            Bytes::File(file, windows) => (file, windows),
        };
        if let Some(windows) = windows {
            if self.window.is_none_or(|(start, bytes)| end > start + bytes.len() as u64) {
                self.give_back();
                let chunk = end - begin;
                let len = (chunk * (WINDOW / CHUNK)).min(self.end - begin);
                self.window = windows.fault_in(self.offset + begin, len as usize).map(|bytes| (begin, bytes));
            }
            if let Some((start, bytes)) = self.window {
                return Ok(&bytes[(begin - start) as usize..(end - start) as usize]);
            }
        }
        self.buffer.read(file, self.offset + begin, (end - begin) as usize)
    }

    /// The unit is read. Errors: `FileChanged` if not all that was read were the file's bytes.
    pub(super) fn finish(mut self) -> Result<()> {
        self.give_back();
        match self.bytes {
            Bytes::File(file, Some(windows)) if !windows.sound() => Err(file.lost()),
            _ => Ok(()),
        }
    }

    fn give_back(&mut self) {
        if let (Bytes::File(_, Some(windows)), Some((start, bytes))) = (&self.bytes, self.window.take()) {
            windows.give_back(self.offset + start, bytes.len());
        }
    }
}
