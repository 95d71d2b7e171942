//! What a header answers, and what its errors say: the tensor, the byte, the way out.

use weightprint_core::control::Control;
use weightprint_core::dtype::Dtype;
use weightprint_core::error::{Error, ErrorKind};
use weightprint_core::format::{Header, Index, Limits, Mode};

fn parse_with(json: &str, data_len: u64, mode: Mode, limits: &Limits) -> Result<Header, Error> {
    Header::parse(json.as_bytes(), data_len, mode, limits, &Control::new())
}

fn parse(json: &str, data_len: u64) -> Result<Header, Error> {
    parse_with(json, data_len, Mode::Strict, &Limits::default())
}

const TWO: &str = r#"{"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},
    "__metadata__":{"format":"pt","note":"a \"b\""},
    "a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}"#;

#[test]
fn tensors_are_numbered_in_data_order() {
    let header = parse(TWO, 20).unwrap();
    assert_eq!(header.len(), 2);
    assert!(!header.is_empty());
    assert_eq!((header.name(0), header.dtype(0), header.shape(0), header.range(0)), ("a", Dtype::F64, vec![], (0, 8)));
    assert_eq!(header.numel(0), 1);
    assert_eq!((header.name(1), header.dtype(1)), ("b", Dtype::Bf16));
    assert_eq!((header.shape(1), header.numel(1)), (vec![2, 3], 6));
    assert_eq!(header.dimensions(1).sum::<u64>(), 5);
    assert_eq!((header.find("a"), header.find("b"), header.find("c")), (Some(0), Some(1), None));
    let metadata: Vec<_> = header.metadata().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(metadata, [("format", "pt"), ("note", "a \"b\"")]);
    assert!(header.notes().is_empty());
}

#[test]
fn tensors_of_the_same_place_keep_the_order_of_the_header() {
    let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let header = parse(&format!(r#"{{"z":{empty},"a":{empty},"m":{empty}}}"#), 0).unwrap();
    assert_eq!([header.name(0), header.name(1), header.name(2)], ["z", "a", "m"]);
}

#[test]
fn the_last_duplicate_counts_in_compatible_mode() {
    let json = r#"{"t":{"dtype":"F32","shape":[7],"data_offsets":[3,9]},"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
        "__metadata__":{"k":"1","k":"2"}}"#;
    let header = parse_with(json, 4, Mode::Compatible, &Limits::default()).unwrap();
    assert_eq!((header.len(), header.dtype(0), header.shape(0)), (1, Dtype::U8, vec![4]));
    assert_eq!(header.metadata(), [("k".to_owned(), "2".to_owned())]);
    let note = &header.notes()[0];
    assert_eq!((note.code, note.tensor.as_deref()), ("duplicate_name", Some("t")));
    assert!(note.message.contains("the last one counts"));
}

#[test]
fn errors_name_the_tensor_and_the_byte() {
    let json = r#"{"good":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"bad":{"dtype":"F33","shape":[1]}}"#;
    let error = parse(json, 1).unwrap_err();
    assert_eq!((error.kind, error.code, error.tensor.as_deref()), (ErrorKind::Format, "unknown_dtype", Some("bad")));
    let at = error.offset.unwrap() as usize - 8;
    assert!((-2..=2).contains(&(at as isize - json.find("\"F33\"").unwrap() as isize - 4)), "{at}");
    assert!(error.message.contains("F33") && error.message.contains("BF16"), "{error}");

    let error = parse("{\n\n  \"t\": {\n \"dtype\": x", 0).unwrap_err();
    assert_eq!((error.code, error.tensor.as_deref(), error.offset), ("json_syntax", Some("t"), Some(8 + 22)));

    let error = parse("{}\u{0}\u{0}", 0).unwrap_err();
    assert_eq!((error.code, error.offset), ("nul_padding", Some(10)));
    assert!(error.message.contains("2 NUL bytes"));
}

#[test]
fn layout_errors_count_bytes() {
    let pair = |begin: u64| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},"b":{{"dtype":"U8","shape":[4],"data_offsets":[{begin},{}]}}}}"#,
            begin + 4
        )
    };
    let start = |json: &str| 8 + json.len() as u64;
    let hole = pair(7);
    let error = parse(&hole, 11).unwrap_err();
    assert_eq!((error.code, error.tensor.as_deref(), error.offset), ("hole", Some("b"), Some(start(&hole) + 4)));
    assert!(error.message.starts_with("3 bytes"), "{error}");
    let overlap = pair(3);
    let error = parse(&overlap, 7).unwrap_err();
    assert_eq!((error.code, error.offset), ("overlap", Some(start(&overlap) + 3)));
    assert!(error.message.contains("1 bytes with a"), "{error}");
    let error = parse(&pair(4), 10).unwrap_err();
    assert_eq!(error.code, "trailing_data");
    assert!(error.message.starts_with("2 bytes"), "{error}");
}

#[test]
fn a_short_file_says_what_is_lost() {
    let entries: Vec<_> = (0..12)
        .map(|i| format!(r#""layer.{i}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4))
        .collect();
    let error = parse(&format!("{{{}}}", entries.join(",")), 18).unwrap_err();
    assert_eq!((error.code, error.tensor.as_deref()), ("truncated", Some("layer.4")));
    for part in ["30 of 48 data bytes", "8 of 12 tensors", "layer.4, layer.5", "and 3 more"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn hostile_names_are_escaped_where_they_are_shown() {
    let json = r#"{"\u001b[31m\u202e":{"dtype":"\u0007","shape":[1],"data_offsets":[0,1]}}"#;
    let error = parse(json, 1).unwrap_err();
    assert_eq!(error.tensor.as_deref(), Some("\u{1b}[31m\u{202e}"));
    let shown = error.to_string();
    assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{shown:?}");
}

#[test]
fn caps_can_be_set() {
    let one = r#"{"abc":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]}}"#;
    let limits = Limits::default();
    for (limits, code) in [
        (Limits { header_bytes: 10, ..limits }, "header_too_large"),
        (Limits { tensors: 0, ..limits }, "too_many_tensors"),
        (Limits { rank: 1, ..limits }, "rank_too_large"),
        (Limits { name_bytes: 2, ..limits }, "name_too_long"),
    ] {
        for mode in [Mode::Strict, Mode::Compatible] {
            let error = parse_with(one, 1, mode, &limits).unwrap_err();
            assert_eq!((error.kind, error.code), (ErrorKind::Limit, code));
        }
    }
    assert!(parse_with(one, 1, Mode::Strict, &Limits { tensors: 1, rank: 2, name_bytes: 3, ..limits }).is_ok());

    let metadata = r#"{"__metadata__":{"a":"0123456789","b":"0123456789"}}"#;
    let error = parse_with(metadata, 0, Mode::Strict, &Limits { metadata_bytes: 20, ..limits }).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Limit, "metadata_too_large"));
    assert!(parse_with(metadata, 0, Mode::Strict, &Limits { metadata_bytes: 300, ..limits }).is_ok());
}

#[test]
fn a_rank_beyond_the_default_cap_is_stored() {
    let limits = Limits { rank: usize::MAX, ..Limits::default() };
    let json = |rank: usize| format!(r#"{{"t":{{"dtype":"U8","shape":{:?},"data_offsets":[0,1]}}}}"#, vec![1u64; rank]);
    let header = parse_with(&json(10_000), 1, Mode::Strict, &limits).unwrap();
    assert_eq!(header.shape(0), vec![1; 10_000]);
    assert_eq!(parse_with(&json(65_536), 1, Mode::Strict, &limits).unwrap_err().code, "rank_too_large");
}

#[test]
fn a_cancelled_parse_stops() {
    let mut json = String::from("{");
    for i in 0..10_000 {
        json.push_str(&format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},"#));
    }
    json.push_str(r#""x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let control = Control::new();
    assert_eq!(Header::parse(json.as_bytes(), 0, Mode::Strict, &Limits::default(), &control).unwrap().len(), 10_001);
    control.cancel();
    let error = Header::parse(json.as_bytes(), 0, Mode::Strict, &Limits::default(), &control).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

#[test]
fn notes_stay_few() {
    let mut json = String::from(r#"{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]"#);
    for i in 0..5000 {
        json.push_str(&format!(r#","x{i}":0"#));
    }
    json.push_str("}}");
    let header = parse_with(&json, 0, Mode::Compatible, &Limits::default()).unwrap();
    assert_eq!(header.notes().len(), 21);
    assert!(header.notes()[20].message.contains("4980 more"));
}

#[test]
fn an_index_keeps_its_order() {
    let json = br#"{"metadata":{"total_size":12},"weight_map":{"z":"2.safetensors","a":"1.safetensors"}}"#;
    let index = Index::parse(json, &Limits::default(), &Control::new()).unwrap();
    assert_eq!(index.total_size, Some(12));
    let pairs: Vec<_> = index.weight_map.iter().map(|(name, file)| (name.as_str(), file.as_str())).collect();
    assert_eq!(pairs, [("z", "2.safetensors"), ("a", "1.safetensors")]);

    let json = br#"{"weight_map":{"a":"x","b":"../y"}}"#;
    let error = Index::parse(json, &Limits::default(), &Control::new()).unwrap_err();
    assert_eq!((error.code, error.tensor.as_deref()), ("shard_name_not_plain", Some("b")));
    assert!(error.message.contains("../y"), "{error}");
}
