//! Headers of 98 MB, legal and hostile: opening one never costs 300 MB of memory, whatever it holds.
//!
//! Each case is written to a file and opened by a child process (this test, started again), which reports the peak of
//! its resident memory as the kernel counted it. The reference implementation needs 2.0 to 2.3 GB and up to 11.8 s for
//! such headers. Time is printed (`--nocapture`), never asserted.
#![cfg(target_os = "linux")]

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use weightprint_core::control::Control;
use weightprint_core::format::{Limits, Mode};
use weightprint_core::source::TensorFile;

const HEADER: usize = 98_000_000;
const PEAK: u64 = 300_000_000;

/// What the child prints: the code or "ok", tensors, metadata entries, peak bytes.
#[test]
fn child() {
    let Ok(path) = std::env::var("WEIGHTPRINT_HUGE_HEADER") else { return };
    let mode = if path.ends_with("compatible") { Mode::Compatible } else { Mode::Strict };
    let start = Instant::now();
    let file = TensorFile::open(Path::new(&path), mode, &Limits::default(), &Control::new());
    let seconds = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    let (code, tensors, metadata) = match &file {
        Ok(file) => ("ok", file.header().len(), file.header().metadata().len()),
        Err(e) => (e.code, 0, 0),
    };
    println!("\nresult {code} {tensors} {metadata} {} {seconds:.2}", peak * 1024);
}

/// Write a file of `header` (padded to 98 MB) and `data` zero bytes, open it in a child, and check what came of it.
fn case(name: &str, mode: &str, header: impl FnOnce(&mut Vec<u8>), data: u64, expected: (&str, usize, usize)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(mode);
    let mut json = Vec::with_capacity(HEADER);
    header(&mut json);
    assert!(json.len() <= HEADER, "{name}: {} bytes", json.len());
    assert!(json.len() > HEADER / 10 * 9, "{name}: {} bytes", json.len());
    json.resize(HEADER, b' ');
    let mut file = BufWriter::new(std::fs::File::create(&path).unwrap());
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&json).unwrap();
    drop(json);
    file.flush().unwrap();
    file.get_ref().set_len(8 + HEADER as u64 + data).unwrap();

    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env("WEIGHTPRINT_HUGE_HEADER", &path)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    let result = output.lines().find(|line| line.starts_with("result ")).unwrap_or_else(|| panic!("{name}: {output}"));
    let words: Vec<_> = result.split(' ').collect();
    let peak: u64 = words[4].parse().unwrap();
    println!("{name}: {} in {} s, peak {} MB", words[1], words[5], peak / 1_000_000);
    assert_eq!(words[1..4], [expected.0, &expected.1.to_string(), &expected.2.to_string()], "{name}");
    assert!(peak < PEAK, "{name}: {peak} bytes");
}

/// Write `count` entries, then close the object. An entry is written from its number.
fn entries(out: &mut Vec<u8>, count: usize, entry: impl Fn(&mut Vec<u8>, usize)) {
    out.push(b'{');
    for i in 0..count {
        if i > 0 {
            out.push(b',');
        }
        entry(out, i);
    }
    out.push(b'}');
}

/// An entry of one byte of data.
fn tiny(out: &mut Vec<u8>, name: &str, begin: usize) {
    write!(out, r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{begin},{}]}}"#, begin + 1).unwrap();
}

#[test]
fn a_million_tensors() {
    let header = |out: &mut Vec<u8>| entries(out, 1_000_000, |out, i| tiny(out, &format!("layer.{i:020}.w"), i));
    case("a million tensors", "strict", header, 1_000_000, ("ok", 1_000_000, 0));
}

#[test]
fn a_million_tensors_backwards() {
    let n = 1_000_000;
    let header = |out: &mut Vec<u8>| entries(out, n, |out, i| tiny(out, &format!("layer.{i:020}.w"), n - 1 - i));
    case("a million tensors, backwards", "strict", header, n as u64, ("ok", n, 0));
}

#[test]
fn one_tensor_too_many() {
    let header = |out: &mut Vec<u8>| entries(out, 1_000_001, |out, i| tiny(out, &format!("layer.{i:020}.w"), i));
    case("a million and one tensors", "strict", header, 1_000_001, ("too_many_tensors", 0, 0));
}

#[test]
fn long_names() {
    let pad = "n".repeat(4000);
    let header = |out: &mut Vec<u8>| entries(out, 24_000, |out, i| tiny(out, &format!("{pad}{i}"), i));
    case("names of 4 KB", "strict", header, 24_000, ("ok", 24_000, 0));
}

#[test]
fn escaped_names() {
    // An escape of six bytes stands for two.
    let header = |out: &mut Vec<u8>| {
        entries(out, 700_000, |out, i| {
            let digits = i.to_string().bytes().map(|d| format!(r"\u{:04x}", 0x3b1 + u32::from(d))).collect::<String>();
            tiny(out, &format!(r"\u0061{digits}\\\ud83e\udd80{i:014}"), i);
        })
    };
    case("escaped names", "strict", header, 700_000, ("ok", 700_000, 0));
}

#[test]
fn deep_shapes() {
    // Every shape differs, and each dimension costs two bytes of JSON.
    let header = |out: &mut Vec<u8>| {
        entries(out, 500_000, |out, i| {
            write!(out, r#""{i}":{{"dtype":"F64","shape":[0"#).unwrap();
            for bit in 0..63 {
                write!(out, ",{}", (i >> (bit % 20)) % 10).unwrap();
            }
            out.extend_from_slice(br#"],"data_offsets":[0,0]}"#);
        })
    };
    case("shapes of 64 dimensions", "strict", header, 0, ("ok", 500_000, 0));
}

#[test]
fn long_metadata() {
    let header = |out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"__metadata__":{"a":""#);
        out.resize(HEADER - 200, b'x');
        out.extend_from_slice(br#""},"#);
        tiny(out, "t", 0);
        out.push(b'}');
    };
    case("one metadata value", "strict", header, 1, ("ok", 1, 1));
}

#[test]
fn long_metadata_with_escapes() {
    let header = |out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"__metadata__":{"a":""#);
        while out.len() < HEADER - 200 {
            out.extend_from_slice(br"a line of a configuration file that says \u00e9 and \ud83e\udd80\n");
        }
        out.extend_from_slice(br#""},"#);
        tiny(out, "t", 0);
        out.push(b'}');
    };
    case("one metadata value with escapes", "strict", header, 1, ("ok", 1, 1));
}

#[test]
fn much_metadata() {
    let value = "v".repeat(150);
    let header = |out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"__metadata__":"#);
        entries(out, 340_000, |out, i| write!(out, r#""{i:0120}":"{value}""#).unwrap());
        out.extend_from_slice(b"}");
    };
    case("340,000 metadata entries", "strict", header, 0, ("ok", 0, 340_000));
}

#[test]
fn too_much_metadata() {
    let header = |out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"__metadata__":"#);
        entries(out, 7_000_000, |out, i| write!(out, r#""{i}":"v""#).unwrap());
        out.extend_from_slice(b"}");
    };
    case("seven million metadata entries", "strict", header, 0, ("metadata_too_large", 0, 0));
}

#[test]
fn repeated_names() {
    let header = |out: &mut Vec<u8>| entries(out, 1_700_000, |out, _| tiny(out, "t", 0));
    case("a name 1.7 million times", "strict", header, 1, ("duplicate_name", 0, 0));
    case("a name 1.7 million times", "compatible", header, 1, ("ok", 1, 0));
}

#[test]
fn unknown_fields() {
    let header = |out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":[1"#);
        while out.len() < HEADER - 10 {
            out.extend_from_slice(b",1");
        }
        out.extend_from_slice(b"]}}");
    };
    case("an unknown field of 49 million numbers", "compatible", header, 1, ("ok", 1, 0));
}

#[test]
fn long_strings_in_wrong_places() {
    for (before, after, code) in [
        (r#"{"\n"#, r#"":1}"#, "name_too_long"),
        (r#"{"t":"\n"#, r#""}"#, "entry_not_object"),
        (r#"{"t":{"dtype":"\n"#, r#""}}"#, "unknown_dtype"),
        (r#"{"t":{"shape":["\n"#, r#""]}}"#, "bad_dimension"),
        (r#"{"__metadata__":{"\n"#, r#"":""}}"#, "metadata_key_too_long"),
        (r#"{"__metadata__":"\n"#, r#""}"#, "metadata_not_object"),
        (r#"{"t":{"shape":[9"#, r#"]}}"#, "bad_dimension"),
    ] {
        let filler = if before.ends_with('9') { b'0' } else { b'\x7f' };
        let header = |out: &mut Vec<u8>| {
            out.extend_from_slice(before.as_bytes());
            out.resize(HEADER - 100, filler);
            out.extend_from_slice(after.as_bytes());
        };
        // A number of 98 million digits is beyond every type.
        let code = if filler == b'0' { "json_syntax" } else { code };
        case(before, "strict", header, 0, (code, 0, 0));
    }
}

#[test]
fn brackets_without_end() {
    for (before, mode, code) in [
        ("", "strict", "header_not_object"),
        (r#"{"__metadata__":{"a":"#, "strict", "json_eof"),
        (r#"{"t":{"x":"#, "compatible", "nesting_too_deep"),
    ] {
        let header = |out: &mut Vec<u8>| {
            out.extend_from_slice(before.as_bytes());
            out.resize(HEADER, b'[');
        };
        case(&format!("{before}[[[["), mode, header, 0, (code, 0, 0));
    }
}
