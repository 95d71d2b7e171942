//! One regular file that is read by position: opened without ever waiting, known again by its stamp, and closed between
//! reads where descriptors are scarce.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result};

/// Descriptors below the limit that stay free: for the program's own files, and one in each thread's hands.
#[cfg(unix)]
const LEFT_FREE: u64 = 32;

/// What a file is known again by: its length, when it was written, and on Unix which file it is and when its status
/// changed, a time that can't be set back as that of modification can.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    identity: [u64; 2],
    #[cfg(unix)]
    status_changed: [i64; 2],
}

impl Stamp {
    fn of(stat: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            len: stat.len(),
            modified: stat.modified().ok(),
            #[cfg(unix)]
            identity: [stat.dev(), stat.ino()],
            #[cfg(unix)]
            status_changed: [stat.ctime(), stat.ctime_nsec()],
        }
    }
}

/// A file that stays open, or is opened again for each use.
#[derive(Debug)]
pub struct Handle {
    path: PathBuf,
    stamp: Stamp,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Open(File),
    /// Closed; the path is absolute.
    At(PathBuf),
}

impl Handle {
    /// Errors: `Io`, `Unsupported` (a folder, pipe or device).
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let stamp = Stamp::of(&file.metadata().map_err(|e| Error::io(path, e))?);
        let kept = match std::path::absolute(path) {
            Ok(at) if scarce(&file) => Kept::At(at),
            _ => Kept::Open(file),
        };
        Ok(Self { path: path.to_path_buf(), stamp, kept })
    }

    /// Bytes of the file, as when it was opened.
    pub fn len(&self) -> u64 {
        self.stamp.len
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `use_it` makes of the open file. Errors: `Io`; `FileChanged` if it was opened again and is not as it was.
    pub fn with<T>(&self, use_it: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        match &self.kept {
            Kept::Open(file) => use_it(file),
            Kept::At(path) => {
                let file = open_regular(path)?;
                self.verify(&file)?;
                use_it(&file)
            }
        }
    }

    /// `FileChanged` (code `file_changed`) unless the file is as when it was opened.
    pub fn verify_unchanged(&self) -> Result<()> {
        self.with(|file| self.verify(file))
    }

    fn verify(&self, file: &File) -> Result<()> {
        let now = Stamp::of(&file.metadata().map_err(|e| Error::io(&self.path, e))?);
        if now.len != self.stamp.len {
            let why = format!("it had {} bytes when it was opened and has {} now", self.stamp.len, now.len);
            return Err(changed(&self.path, &why));
        }
        if now != self.stamp {
            return Err(changed(&self.path, "it was written to, or its names or rights changed"));
        }
        Ok(())
    }

    /// Fill `buf` from byte `offset` of the file. A file that ends before that gives `FileChanged`, code `truncated`.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.with(|file| read_exact_at(file, &self.path, buf, offset))
    }
}

/// A file that changed while it was open.
pub fn changed(path: &Path, why: &str) -> Error {
    let message = format!("the file changed while it was read: {why}; run again when nothing writes to it");
    Error::new(ErrorKind::FileChanged, "file_changed", message).with_path(path)
}

/// Whether so many descriptors are in use that this one must not be kept: the system numbers them from the lowest free.
#[cfg(unix)]
fn scarce(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.is_some_and(|limit| file.as_raw_fd() as u64 + LEFT_FREE > limit)
}

#[cfg(not(unix))]
fn scarce(_file: &File) -> bool {
    false
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
