//! A file on disk: what is refused before it is read, reading by position, and files that change.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use weightprint_core::control::Control;
use weightprint_core::error::{Error, ErrorKind};
use weightprint_core::format::{Limits, Mode};
use weightprint_core::source::TensorFile;

const JSON: &[u8] = br#"{"t":{"dtype":"U8","shape":[6],"data_offsets":[0,6]}}"#;

fn open(path: &Path) -> Result<TensorFile, Error> {
    TensorFile::open(path, Mode::Strict, &Limits::default(), &Control::new())
}

/// A file of one tensor with the bytes 1 to 6.
fn sound(folder: &Path) -> PathBuf {
    let path = folder.join("model.safetensors");
    let mut file = File::create(&path).unwrap();
    file.write_all(&(JSON.len() as u64).to_le_bytes()).unwrap();
    file.write_all(JSON).unwrap();
    file.write_all(&[1, 2, 3, 4, 5, 6]).unwrap();
    path
}

#[test]
fn any_position_gives_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = sound(folder.path());
    let file = open(&path).unwrap();
    assert_eq!(file.path(), path);
    assert_eq!(file.data_start(), 8 + JSON.len() as u64);
    assert_eq!(file.len(), file.data_start() + 6);
    assert_eq!(file.header().find("t"), Some(0));
    assert!(file.suits_maps());
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, file.data_start() + 2).unwrap();
    assert_eq!(bytes, [3, 4, 5, 6]);
    file.verify_unchanged().unwrap();
}

#[test]
fn a_file_cut_short_while_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = sound(folder.path());
    let file = open(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(file.len() - 2).unwrap();
    let mut bytes = [0; 6];
    let error = file.read_exact_at(&mut bytes, file.data_start()).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::FileChanged, "truncated"));
    assert_eq!((error.offset, error.path.as_deref()), (Some(file.data_start() + 4), Some(path.as_path())));
    assert!(error.message.contains("and 2 more"), "{error}");
    let error = file.verify_unchanged().unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::FileChanged, "file_changed"));
}

#[test]
fn a_file_that_grows_or_is_rewritten_while_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = sound(folder.path());
    let file = open(&path).unwrap();
    File::options().append(true).open(&path).unwrap().write_all(&[7]).unwrap();
    assert!(file.verify_unchanged().unwrap_err().message.contains("bytes when it was opened"));

    let path = sound(folder.path());
    let file = open(&path).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_nanos(2_000_000_001);
    File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(file.verify_unchanged().unwrap_err().code, "file_changed");
}

#[test]
fn reading_beyond_the_end_is_an_error_at_any_offset() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(&sound(folder.path())).unwrap();
    for offset in [file.len(), file.len() + 1, i64::MAX as u64 - 8] {
        let error = file.read_exact_at(&mut [0; 4], offset).unwrap_err();
        assert_eq!(error.code, "truncated", "{error}");
    }
    // Beyond what the system counts in: its own error.
    assert!(file.read_exact_at(&mut [0; 4], u64::MAX).is_err());
    file.read_exact_at(&mut [], 0).unwrap();
}

#[test]
fn what_is_no_file_is_refused_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path()).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Unsupported, "not_a_regular_file"));
    let error = open(&folder.path().join("nowhere")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    assert_eq!(error.io.unwrap().kind(), std::io::ErrorKind::NotFound);
    #[cfg(unix)]
    assert_eq!(open(Path::new("/dev/null")).unwrap_err().code, "not_a_regular_file");
}

#[test]
#[cfg(target_os = "linux")]
fn a_pipe_without_a_writer_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert_eq!(open(&path).unwrap_err().code, "not_a_regular_file");
}

#[test]
fn a_sparse_exabyte_costs_nothing() {
    // N is compared with the size before memory is asked for, and with the cap before the header is read.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    let mut file = File::create(&path).unwrap();
    file.write_all(&(1u64 << 40).to_le_bytes()).unwrap();
    file.write_all(b"{").unwrap();
    if file.set_len(1 << 42).is_ok() {
        let error = open(&path).unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Limit, "header_too_large"));
    }
}
