//! Opens a file of tensors, and reads it by position or through a memory map: a safetensors file, or one of another
//! container (GGUF) whose own reader lists its tensors.
//!
//! One descriptor serves everything, so the file cannot be swapped between two reads. Its size and time of
//! modification are kept, and asked again by [`TensorFile::verify_unchanged`]: a file that changed under a scan
//! gives an error, not a result.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, DataPart, Header, LENGTH_BYTES, Limits, Listed, Mode, PREFIX_BYTES};

/// Bytes read between two checks for cancellation.
const READ_STEP: usize = 4 << 20;

/// An open file with its parsed header.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    len: u64,
    modified: Option<SystemTime>,
    data_start: u64,
    network: bool,
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
        let file = open_regular(path)?;
        let stat = file.metadata().map_err(|e| Error::io(path, e))?;
        let len = stat.len();
        let mut prefix = [0u8; PREFIX_BYTES];
        let prefix = &mut prefix[..usize::try_from(len).unwrap_or(usize::MAX).min(PREFIX_BYTES)];
        read_exact_at(&file, path, prefix, 0)?;
        let n = format::header_length(prefix, len, limits)?;
        let data_start = LENGTH_BYTES.checked_add(n).filter(|&start| start <= len);
        let (Some(data_start), Ok(n)) = (data_start, usize::try_from(n)) else {
            return Err(Error::format("header_beyond_file", "the header is longer than the file"));
        };
        let header = {
            let json = read_header(&file, path, n, control)?;
            Header::parse(&json, len - data_start, mode, limits, control)?
        };
        let network = on_network(&file);
        let modified = stat.modified().ok();
        Ok(Self { path: path.to_path_buf(), file, len, modified, data_start, network, header })
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
            let file = open_regular(path)?;
            let stat = file.metadata().map_err(|e| Error::io(path, e))?;
            if stat.len() != part.file_len {
                let why = format!("its header was read from {} bytes, now it has {}", part.file_len, stat.len());
                return Err(changed(path, &why));
            }
            let header = Header::listed(listed, metadata, part, mode, &Limits::default(), control)?;
            let (network, modified) = (on_network(&file), stat.modified().ok());
            let (len, data_start) = (part.file_len, part.start);
            Ok(Self { path: path.to_path_buf(), file, len, modified, data_start, network, header })
        };
        open().map_err(|e: Error| e.with_path(path))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file, as when it was opened; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where the data begin in the file.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// The parsed header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the file lies on a network or user-space file system, where maps crawl and a lost connection kills the
    /// process: read by position there.
    pub fn is_network(&self) -> bool {
        self.network
    }

    /// Fill `buf` from byte `offset` of the file. A file that ends before that gives `FileChanged`, code `truncated`.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&self.file, &self.path, buf, offset)
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

    /// Map the `len` bytes from `offset` on. Prefer [`read_exact_at`](Self::read_exact_at) on file systems of
    /// [`is_network`](Self::is_network).
    ///
    /// A scan maps one unit at a time: as fast as one map of the whole file, no more resident than the units in hand,
    /// and the file's size is asked again before each.
    pub fn map(&self, offset: u64, len: usize) -> Result<memmap2::Mmap> {
        self.verify_unchanged()?;
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(
                Error::new(ErrorKind::Internal, "map_beyond_file", "a map beyond the file").with_path(&self.path)
            );
        }
        // Another process may still cut the file meanwhile: the system then stops ours with SIGBUS. The size was asked just
        // now, callers ask it again when done, and by default a scan reads by position.
        // SAFETY: the map is read-only and lies within the file; its bytes are only ever read as bytes or copied into
        // typed values, for which every bit pattern is valid, so bytes that change under a reader change results alone.
        unsafe { memmap2::MmapOptions::new().offset(offset).len(len).map(&self.file) }
            .map_err(|e| Error::io(&self.path, e))
    }

    /// `FileChanged` (code `file_changed`) unless size and time of modification are as when the file was opened.
    pub fn verify_unchanged(&self) -> Result<()> {
        let stat = self.file.metadata().map_err(|e| Error::io(&self.path, e))?;
        if stat.len() != self.len {
            let why = format!("it had {} bytes when it was opened and has {} now", self.len, stat.len());
            return Err(changed(&self.path, &why));
        }
        if stat.modified().ok() != self.modified {
            return Err(changed(&self.path, "it was written to"));
        }
        Ok(())
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

/// A file that changed while it was open.
fn changed(path: &Path, why: &str) -> Error {
    let message = format!("the file changed while it was read: {why}; run again when nothing writes to it");
    Error::new(ErrorKind::FileChanged, "file_changed", message).with_path(path)
}

/// Open without ever waiting: a pipe without a writer would block for ever, so pipes are opened non-blocking and
/// refused.
fn open_regular(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(flags.bits() as i32);
    }
    // Windows refuses to open a folder as a file, with a confusing error: ask first.
    if path.is_dir() {
        return Err(not_regular("a folder", "give it to open(), which reads all its shards"));
    }
    let file = options.open(path).map_err(|e| Error::io(path, e))?;
    let stat = file.metadata().map_err(|e| Error::io(path, e))?;
    if stat.is_file() { Ok(file) } else { Err(not_regular(kind(&stat), "copy its content to a file first")) }
}

/// What a thing that is not a regular file is.
fn kind(stat: &Metadata) -> &'static str {
    if stat.is_dir() { "a folder" } else { "a pipe, socket or device" }
}

fn not_regular(what: &str, advice: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "not_a_regular_file", format!("this is {what}, not a file; {advice}"))
}

/// The header's `n` bytes. They fit the file; that the memory can be had is checked, not assumed.
fn read_header(file: &File, path: &Path, n: usize, control: &Control) -> Result<Vec<u8>> {
    let mut json = Vec::new();
    json.try_reserve_exact(n)
        .map_err(|_| Error::limit("header_too_large", format!("no memory for a header of {n} bytes")))?;
    let mut offset = LENGTH_BYTES;
    while json.len() < n {
        control.check()?;
        let start = json.len();
        json.resize(n.min(start + READ_STEP), 0);
        read_exact_at(file, path, &mut json[start..], offset)?;
        offset += (json.len() - start) as u64;
    }
    Ok(json)
}

/// `pread` until `buf` is full.
fn read_exact_at(file: &File, path: &Path, buf: &mut [u8], offset: u64) -> Result<()> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.saturating_add(done as u64);
        match read_at(file, &mut buf[done..], at) {
            Ok(0) => {
                let missing = buf.len() - done;
                let len = file.metadata().map_or(at, |stat| stat.len());
                let message = format!(
                    "the file was cut short while it was read: it ends at byte {len}, and {missing} more were expected \
                     at byte {at}"
                );
                return Err(Error::new(ErrorKind::FileChanged, "truncated", message).with_path(path).with_offset(at));
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io(path, e).with_offset(at)),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

/// Magic numbers of network and user-space file systems (linux/magic.h and the file systems' own sources).
#[cfg(target_os = "linux")]
const NETWORK: [u32; 15] = [
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
];

#[cfg(target_os = "linux")]
fn on_network(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|fs| NETWORK.contains(&(fs.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn on_network(_file: &File) -> bool {
    false
}
