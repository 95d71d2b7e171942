//! Reads `tests/malformed/table.json`, which `tests/malformed/table.py` writes.

#![allow(dead_code, reason = "each test uses its part")]

use serde_json::Value;

/// One file or index, and what readers say about it.
pub struct Row {
    pub name: String,
    pub kind: String,
    pub strict: String,
    pub compatible: String,
    pub notes: Vec<String>,
    pieces: Vec<(Vec<u8>, usize)>,
}

impl Row {
    /// The file's bytes.
    pub fn content(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|(piece, times)| piece.repeat(*times)).collect()
    }

    /// Their number.
    pub fn nbytes(&self) -> usize {
        self.pieces.iter().map(|(piece, times)| piece.len() * times).sum()
    }
}

/// All rows of the table.
pub fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/malformed/table.json");
    let text = std::fs::read_to_string(path).expect("tests/malformed/table.json");
    let rows: Vec<Value> = serde_json::from_str(&text).expect("the table is JSON");
    rows.iter().map(row).collect()
}

fn row(row: &Value) -> Row {
    let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}")).to_owned();
    Row {
        name: text("name"),
        kind: text("kind"),
        strict: text("strict"),
        compatible: text("compatible"),
        notes: row["notes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect(),
        pieces: row["bytes"].as_array().unwrap().iter().map(piece).collect(),
    }
}

fn piece(piece: &Value) -> (Vec<u8>, usize) {
    let content = match &piece[0] {
        Value::String(text) => text.clone().into_bytes(),
        other => hex(other["hex"].as_str().unwrap()),
    };
    (content, piece[1].as_u64().unwrap() as usize)
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}
