//! Reads a file through windows of a map: faulted in before they are read, given back behind.
//!
//! Nothing is copied, and no more is resident than the windows in hand. The system says by an error, not by a signal,
//! what can't be faulted in; a file that is cut short between that and the reading is caught by the [guard](super::guard).
//! Where a map can't be had or suits the file system badly there are no windows, and files are read by position.

use std::ffi::c_void;
use std::fs::File;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::file::TensorFile;
use super::guard::{self, Watch};

/// A file's map.
#[derive(Debug)]
pub struct Windows {
    // Ends before the map does.
    watch: Watch,
    map: Map,
}

#[derive(Debug)]
struct Map {
    base: *mut c_void,
    len: usize,
    page: usize,
}

// SAFETY: the map is only read, by any number of threads; giving pages back changes no byte that a reader sees.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Windows {
    /// Of `file`; `None` where it is to be read by position. A watched map costs address space, no memory.
    pub fn of(file: &TensorFile) -> Option<Self> {
        let len = usize::try_from(file.len()).ok().filter(|_| file.suits_maps())?;
        // SAFETY: a new map, read-only, at an address of the system's choosing.
        let map = |file: &File| Ok(unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0) });
        let map = Map { base: file.with_open(map).ok()?.ok()?, len, page: rustix::param::page_size() };
        // Read once, front to back: pages given back need not be marked as used.
        let _ = map.advise(0, len, Advice::Sequential);
        let watch = Watch::over(map.base.addr()..map.base.addr() + len.next_multiple_of(map.page))?;
        Some(Self { watch, map })
    }

    /// The `len` bytes from `offset` of the file on, faulted in; `None` where they are to be read by position.
    ///
    /// What is read here counts only if [`sound`](Self::sound) says so afterwards.
    pub fn fault_in(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        if start.checked_add(len).is_none_or(|end| end > self.map.len) || !guard::catches() {
            return None;
        }
        self.map.advise(start, len, Advice::LinuxPopulateRead)?;
        // SAFETY: the bytes lie within the map, which lives as long as `self`. Another process may change them, or the
        // guard put zeros in their stead: they are only ever read as bytes or copied into typed values, for which every
        // bit pattern is valid, so that changes results alone, and the scan gives an error in place of these.
        Some(unsafe { std::slice::from_raw_parts(self.map.base.cast::<u8>().add(start), len) })
    }

    /// Give a window's pages back; the file keeps them in memory.
    pub fn give_back(&self, offset: u64, len: usize) {
        let _ = self.map.advise(offset as usize, len, Advice::LinuxDontNeed);
    }

    /// Whether all that was read of the map until now were the file's bytes.
    pub fn sound(&self) -> bool {
        !self.watch.faulted()
    }
}

impl Map {
    fn advise(&self, start: usize, len: usize, advice: Advice) -> Option<()> {
        let before = start % self.page;
        // SAFETY: the pages lie within the map; populating them and giving clean pages of a file back changes no byte.
        unsafe { madvise(self.base.byte_add(start - before), len + before, advice) }.ok()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the map is this one's own, and every slice of it borrows it.
        let _ = unsafe { munmap(self.base, self.len) };
    }
}
