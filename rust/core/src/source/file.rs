//! Opens a file of tensors, and reads it by position: a safetensors file, or one of another container (GGUF) whose own
//! reader lists its tensors.
//!
//! One descriptor serves everything, so the file cannot be swapped between two reads; where descriptors are scarce it is
//! opened again and known by its stamp ([`super::handle`]). Size, time of modification and time of the last change of
//! status are asked again by [`TensorFile::verify_unchanged`]: a file that changed under a scan gives an error, not a
//! result.

use std::fs::File;
use std::path::Path;

use super::handle::{Handle, changed};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::{self, DataPart, Header, LENGTH_BYTES, Limits, Listed, Mode, PREFIX_BYTES};

/// Bytes read between two checks for cancellation.
const READ_STEP: usize = 4 << 20;

/// An open file with its parsed header.
#[derive(Debug)]
pub struct TensorFile {
    handle: Handle,
    data_start: u64,
    maps_crawl: bool,
    header: Header,
}

impl TensorFile {
    /// Open `path`, read its header and check it against the file's size.
    ///
    /// Errors: `Io` (no such file, no permission), `Unsupported` (a folder, a pipe, another format), `Format`, `Limit`,
    /// `FileChanged`, `Cancelled`. Each carries the path.
    pub fn open(path: &Path, mode: Mode, limits: &Limits, control: &Control) -> Result<Self> {
        Self::open_inner(path, mode, limits, control).map_err(|e| e.with_path(path))
    }

    fn open_inner(path: &Path, mode: Mode, limits: &Limits, control: &Control) -> Result<Self> {
        let handle = Handle::open(path)?;
        let len = handle.len();
        let mut prefix = [0u8; PREFIX_BYTES];
        let prefix = &mut prefix[..usize::try_from(len).unwrap_or(usize::MAX).min(PREFIX_BYTES)];
        handle.read_exact_at(prefix, 0)?;
        let n = format::header_length(prefix, len, limits)?;
        let data_start = LENGTH_BYTES.checked_add(n).filter(|&start| start <= len);
        let (Some(data_start), Ok(n)) = (data_start, usize::try_from(n)) else {
            return Err(Error::format("header_beyond_file", "the header is longer than the file"));
        };
        let header = {
            let json = read_header(&handle, n, control)?;
            Header::parse(&json, len - data_start, mode, limits, control)?
        };
        let maps_crawl = handle.with(|file| Ok(maps_crawl(file)))?;
        Ok(Self { handle, data_start, maps_crawl, header })
    }

    /// Open a file of another container whose reader found the tensors `listed` and lists them with `part`.
    ///
    /// Errors as for [`open`](Self::open); `FileChanged` if the file is not as long as the reader saw it.
    pub fn open_listed(
        path: &Path,
        listed: &[Listed],
        metadata: Vec<(String, String)>,
        part: DataPart,
        mode: Mode,
        control: &Control,
    ) -> Result<Self> {
        let open = || {
            let handle = Handle::open(path)?;
            if handle.len() != part.file_len {
                let why = format!("its header was read from {} bytes, now it has {}", part.file_len, handle.len());
                return Err(changed(path, &why));
            }
            let header = Header::listed(listed, metadata, part, mode, &Limits::default(), control)?;
            let maps_crawl = handle.with(|file| Ok(maps_crawl(file)))?;
            Ok(Self { handle, data_start: part.start, maps_crawl, header })
        };
        open().map_err(|e: Error| e.with_path(path))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        self.handle.path()
    }

    /// Bytes of the file, as when it was opened; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.handle.len()
    }

    /// Where the data begin in the file.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// The parsed header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether a map suits the file system: not where it crawls, over a network, in user space or beside a cache of the
    /// file system's own.
    pub fn suits_maps(&self) -> bool {
        !self.maps_crawl
    }

    /// Fill `buf` from byte `offset` of the file. A file that ends before that gives `FileChanged`, code `truncated`.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.handle.read_exact_at(buf, offset)
    }

    /// The `len` bytes from byte `offset` of the file on. Errors: as [`read_exact_at`](Self::read_exact_at);
    /// `Cancelled`.
    pub fn read_range(&self, offset: u64, len: u64, control: &Control) -> Result<Vec<u8>> {
        let mut bytes = vec![0u8; len as usize];
        let mut at = offset;
        for piece in bytes.chunks_mut(READ_STEP) {
            control.check()?;
            self.read_exact_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(bytes)
    }

    /// Ask the system to read these bytes from the disk while other things are done, unless their first is in memory.
    #[cfg(target_os = "linux")]
    pub fn ask_ahead(&self, offset: u64, len: u64) {
        use std::num::NonZero;

        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let ask = |file: &File| {
            let mut probe = [0u8; 1];
            let probe = &mut [std::io::IoSliceMut::new(&mut probe)];
            if preadv2(file, probe, offset, ReadWriteFlags::NOWAIT) == Err(Errno::AGAIN) {
                let _ = rustix::fs::fadvise(file, offset, NonZero::new(len), rustix::fs::Advice::WillNeed);
            }
            Ok(())
        };
        // Advice: what is wrong with the file will be found by who reads it.
        let _ = self.handle.with(ask);
    }

    /// Ask the system to read these bytes from the disk: nothing is known to do so here.
    #[cfg(not(target_os = "linux"))]
    pub fn ask_ahead(&self, _offset: u64, _len: u64) {}

    /// What `use_it` makes of the open file. Errors: as [`read_exact_at`](Self::read_exact_at).
    pub(super) fn with_open<T>(&self, use_it: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        self.handle.with(use_it)
    }

    /// Why a page of its map was missing: the last byte can't be read, or it changed, or can be read again.
    pub(crate) fn lost(&self) -> Error {
        let last = self.read_exact_at(&mut [0], self.len() - 1);
        let why = last.and_then(|()| self.verify_unchanged()).err();
        why.unwrap_or_else(|| changed(self.path(), "a part of it could not be read for a while"))
    }

    /// `FileChanged` (code `file_changed`) unless size, time of modification and time of the last change of status are
    /// as when the file was opened.
    pub fn verify_unchanged(&self) -> Result<()> {
        self.handle.verify_unchanged()
    }
}

/// A buffer that parts of files are read into, one after the other.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Read `len` bytes from byte `offset` of `file` on. Errors: as [`TensorFile::read_exact_at`].
    pub fn read(&mut self, file: &TensorFile, offset: u64, len: usize) -> Result<&[u8]> {
        self.0.resize(self.0.len().max(len + PAGE), 0);
        let at = place(self.0.as_ptr().addr(), offset);
        let bytes = &mut self.0[at..at + len];
        file.read_exact_at(bytes, offset)?;
        Ok(bytes)
    }
}

const PAGE: usize = 4096;

/// Where in a buffer at address `base` the bytes from `offset` of a file should go: 8 bytes before the same place in a
/// page. The kernel copies from pages, and a copy whose target lies a little *ahead* of its source in this sense makes
/// each load wait for a store that only looks like its own (4K aliasing): 64 bytes ahead and less cost up to 5 times
/// the time on a Zen 4, and equal places a tenth.
fn place(base: usize, offset: u64) -> usize {
    ((offset % PAGE as u64) as usize).wrapping_sub(8).wrapping_sub(base) % PAGE
}

/// The header's `n` bytes. They fit the file; that the memory can be had is checked, not assumed.
fn read_header(handle: &Handle, n: usize, control: &Control) -> Result<Vec<u8>> {
    let mut json = Vec::new();
    json.try_reserve_exact(n)
        .map_err(|_| Error::limit("header_too_large", format!("no memory for a header of {n} bytes")))?;
    let mut offset = LENGTH_BYTES;
    while json.len() < n {
        control.check()?;
        let start = json.len();
        json.resize(n.min(start + READ_STEP), 0);
        handle.read_exact_at(&mut json[start..], offset)?;
        offset += (json.len() - start) as u64;
    }
    Ok(json)
}

/// Magic numbers of network and user-space file systems, and of those that keep a cache of their own (linux/magic.h and
/// the file systems' own sources).
#[cfg(target_os = "linux")]
const CRAWLING: [u32; 16] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x6573_5546, // FUSE, virtiofs
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x7375_7245, // Coda
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0x1983_0326, // BeeGFS
    0x786f_4256, // VirtualBox shared folder
    0x2fc1_2fc1, // ZFS
];

#[cfg(target_os = "linux")]
fn maps_crawl(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|fs| CRAWLING.contains(&(fs.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn maps_crawl(_file: &File) -> bool {
    false
}
