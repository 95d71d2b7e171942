//! Every row of `tests/malformed/table.json`: the same code in memory, from disk, and in both modes.

mod common;

use std::io::Write;

use common::{Row, rows};
use weightprint_core::control::Control;
use weightprint_core::error::{Error, ErrorKind};
use weightprint_core::format::{Header, Index, Limits, Mode, parse_bytes};
use weightprint_core::source::TensorFile;

fn code<T>(result: &Result<T, Error>) -> &str {
    result.as_ref().err().map_or("ok", |e| e.code)
}

/// The codes of a header's notes, each once.
fn notes(header: &Header) -> Vec<&str> {
    let mut codes: Vec<_> = header.notes().iter().map(|note| note.code).collect();
    codes.dedup();
    codes
}

/// An error must be of a kind that its reader can act on, with a sentence that hides nothing and paints nothing.
fn assert_worded(row: &Row, error: &Error) {
    let expected = [ErrorKind::Format, ErrorKind::Limit, ErrorKind::Unsupported];
    assert!(expected.contains(&error.kind), "{}: {:?}", row.name, error.kind);
    let shown = error.to_string();
    assert!(shown.len() > 10 && shown.len() < 4000, "{}: {} bytes of message", row.name, shown.len());
    assert!(!shown.contains(char::is_control), "{}: {shown:?}", row.name);
}

#[test]
fn rows_are_many_and_unique() {
    let rows = rows();
    assert!(rows.len() >= 100);
    let names: std::collections::HashSet<_> = rows.iter().map(|row| &row.name).collect();
    assert_eq!(names.len(), rows.len());
}

#[test]
fn files_in_memory() {
    let mut wrong = Vec::new();
    for row in rows().iter().filter(|row| row.kind == "file") {
        let bytes = row.content();
        for (mode, want) in [(Mode::Strict, &row.strict), (Mode::Compatible, &row.compatible)] {
            let got = parse_bytes(&bytes, mode, &Limits::default(), &Control::new());
            if code(&got) != want {
                wrong.push(format!(
                    "{} ({mode:?}): {} instead of {want}; {:?}",
                    row.name,
                    code(&got),
                    got.as_ref().err()
                ));
                continue;
            }
            match &got {
                Err(error) => assert_worded(row, error),
                Ok(header) => assert_eq!(notes(header), row.notes, "{} ({mode:?})", row.name),
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn files_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for row in rows().iter().filter(|row| row.kind == "file") {
        std::fs::File::create(&path).unwrap().write_all(&row.content()).unwrap();
        for (mode, want) in [(Mode::Strict, &row.strict), (Mode::Compatible, &row.compatible)] {
            let got = TensorFile::open(&path, mode, &Limits::default(), &Control::new());
            assert_eq!(code(&got), want, "{} ({mode:?})", row.name);
            if let Err(error) = got {
                assert_eq!(error.path.as_deref(), Some(path.as_path()), "{}", row.name);
            }
        }
    }
}

#[test]
fn indexes() {
    for row in rows().iter().filter(|row| row.kind == "index") {
        let got = Index::parse(&row.content(), &Limits::default(), &Control::new());
        assert_eq!(code(&got), row.strict, "{}: {got:?}", row.name);
        match &got {
            Err(error) => assert_worded(row, error),
            Ok(index) => {
                let codes: Vec<_> = index.notes.iter().map(|note| note.code).collect();
                assert_eq!(codes, row.notes, "{}", row.name);
            }
        }
    }
}

#[test]
fn a_sound_file_cut_short_is_never_sound() {
    for row in rows().iter().filter(|row| row.kind == "file" && row.strict == "ok" && row.nbytes() < 400) {
        let bytes = row.content();
        for end in 0..bytes.len() {
            for mode in [Mode::Strict, Mode::Compatible] {
                let got = parse_bytes(&bytes[..end], mode, &Limits::default(), &Control::new());
                assert!(got.is_err(), "{} cut to {end}", row.name);
            }
        }
    }
}
