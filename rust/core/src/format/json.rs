//! Adapts serde_json's streaming parser to a known document: one type per place in it, with errors of our own.
//!
//! A [`Slot`] is a place in the document: it takes the JSON types that may stand there and refuses the others with
//! its own error. [`Read`] turns a slot into a serde visitor and seed, so a document is read by nested slots with
//! nothing buffered. serde's own type errors are never used: they quote the offending string, however long it is.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::control::Control;
use crate::error::{Error, Result};

/// A place in a JSON document. Each method takes one JSON type; the default refuses it.
pub(super) trait Slot<'de>: Sized {
    /// What the slot makes of its value.
    type Out;

    /// Record the slot's own error for a value of the wrong type (`found`: "a string", "a list", …).
    fn refuse<E: de::Error>(self, found: &'static str) -> E;

    fn null<E: de::Error>(self) -> std::result::Result<Self::Out, E> {
        Err(self.refuse("null"))
    }

    fn boolean<E: de::Error>(self, _value: bool) -> std::result::Result<Self::Out, E> {
        Err(self.refuse("a truth value"))
    }

    fn unsigned<E: de::Error>(self, _value: u64) -> std::result::Result<Self::Out, E> {
        Err(self.refuse("a number"))
    }

    fn negative<E: de::Error>(self, _value: i64) -> std::result::Result<Self::Out, E> {
        Err(self.refuse("a negative number"))
    }

    /// A number with a fraction or exponent, `-0`, or an integer beyond 64 bits.
    fn float<E: de::Error>(self, _value: f64) -> std::result::Result<Self::Out, E> {
        Err(self.refuse("a number that is no unsigned 64-bit integer"))
    }

    fn text<E: de::Error>(self, _value: &str) -> std::result::Result<Self::Out, E> {
        Err(self.refuse("a string"))
    }

    fn list<A: SeqAccess<'de>>(self, _items: A) -> std::result::Result<Self::Out, A::Error> {
        Err(self.refuse("a list"))
    }

    fn object<A: MapAccess<'de>>(self, _entries: A) -> std::result::Result<Self::Out, A::Error> {
        Err(self.refuse("an object"))
    }
}

/// A slot as a serde visitor and seed.
pub(super) struct Read<S>(pub S);

impl<'de, S: Slot<'de>> DeserializeSeed<'de> for Read<S> {
    type Value = S::Out;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<S::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Slot<'de>> Visitor<'de> for Read<S> {
    type Value = S::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another JSON type")
    }
    fn visit_unit<E: de::Error>(self) -> std::result::Result<S::Out, E> {
        self.0.null()
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> std::result::Result<S::Out, E> {
        self.0.boolean(value)
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<S::Out, E> {
        self.0.unsigned(value)
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<S::Out, E> {
        self.0.negative(value)
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<S::Out, E> {
        self.0.float(value)
    }
    fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<S::Out, E> {
        self.0.text(value)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> std::result::Result<S::Out, A::Error> {
        self.0.list(items)
    }
    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> std::result::Result<S::Out, A::Error> {
        self.0.object(entries)
    }
}

/// How a parse goes: the error that stopped it is kept here, since serde's carries only text.
#[derive(Debug, Default)]
pub(super) struct ParseState {
    pub failure: Option<Error>,
    ticks: u32,
}

/// What a document's slots share.
pub(super) trait Context {
    /// Whether the caller wants to stop.
    fn control(&self) -> &Control;

    /// How the parse goes.
    fn state(&mut self) -> &mut ParseState;

    /// Keep `error` and return the empty serde error that unwinds the parser.
    fn stop<E: de::Error>(&mut self, error: Error) -> E {
        self.state().failure.get_or_insert(error);
        E::custom("")
    }

    /// The error that a slot recorded, at the position where the parser stopped; else the parser's own.
    fn blame(&mut self, stopped: Error) -> Error {
        match self.state().failure.take() {
            Some(mut error) => {
                error.offset = error.offset.or(stopped.offset);
                error
            }
            None => stopped,
        }
    }

    /// Called for every entry and list item: now and then it looks whether the caller wants to stop.
    fn step<E: de::Error>(&mut self) -> std::result::Result<(), E> {
        let state = self.state();
        state.ticks = state.ticks.wrapping_add(1);
        if !state.ticks.is_multiple_of(4096) {
            return Ok(());
        }
        self.control().check().map_err(|e| self.stop(e))
    }
}

/// A value that is read and thrown away. Lists and objects may nest `depth` deep, scalars are always welcome.
pub(super) struct Skip<'c, C> {
    pub context: &'c mut C,
    pub depth: u32,
}

impl<'de, C: Context> Slot<'de> for Skip<'_, C> {
    type Out = ();

    fn refuse<E: de::Error>(self, _found: &'static str) -> E {
        let message = "a field that is not part of the format nests too deeply; remove it and save the file again";
        self.context.stop(Error::limit("nesting_too_deep", message))
    }
    fn null<E: de::Error>(self) -> std::result::Result<(), E> {
        Ok(())
    }
    fn boolean<E: de::Error>(self, _value: bool) -> std::result::Result<(), E> {
        Ok(())
    }
    fn unsigned<E: de::Error>(self, _value: u64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn negative<E: de::Error>(self, _value: i64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn float<E: de::Error>(self, _value: f64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn text<E: de::Error>(self, _value: &str) -> std::result::Result<(), E> {
        Ok(())
    }
    fn list<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else { return Err(self.refuse("a list")) };
        while items.next_element_seed(Read(Skip { context: &mut *self.context, depth }))?.is_some() {
            self.context.step()?;
        }
        Ok(())
    }
    fn object<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else { return Err(self.refuse("an object")) };
        while entries.next_key_seed(Read(Skip { context: &mut *self.context, depth: 0 }))?.is_some() {
            entries.next_value_seed(Read(Skip { context: &mut *self.context, depth }))?;
            self.context.step()?;
        }
        Ok(())
    }
}

/// A document as text, and how many bytes of white space come before it. `base` is the file offset of `bytes`.
pub(super) fn text(bytes: &[u8], base: u64) -> Result<(&str, usize)> {
    if bytes.starts_with(b"\xef\xbb\xbf") || bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let message = "the JSON begins with a byte order mark; save it as UTF-8 without one";
        return Err(Error::format("bom", message).with_offset(base));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let message = "the JSON is not UTF-8; the file is damaged or is of another format";
        Error::format("invalid_utf8", message).with_offset(base.saturating_add(e.valid_up_to() as u64))
    })?;
    let is_space = |b: &u8| matches!(b, b' ' | b'\n' | b'\r' | b'\t');
    Ok((text, bytes.iter().take_while(|b| is_space(b)).count()))
}

/// Parse `text` with `slot`; offsets count from `base`. An error that a slot recorded is still in the context:
/// [`Context::blame`] fetches it.
pub(super) fn parse<'de, S: Slot<'de>>(text: &'de str, base: u64, slot: S) -> Result<S::Out> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let out = Read(slot).deserialize(&mut parser).map_err(|e| explain(text, base, &e))?;
    parser.end().map_err(|e| trailing(text, base, &e))?;
    Ok(out)
}

/// The byte that a serde_json error is about, or the end of the text.
fn position(text: &str, error: &serde_json::Error) -> usize {
    let mut start = 0;
    for _ in 1..error.line() {
        match text[start..].find('\n') {
            Some(i) => start += i + 1,
            None => break,
        }
    }
    start.saturating_add(error.column().saturating_sub(1)).min(text.len())
}

/// What stands behind the document's last bracket.
fn trailing(text: &str, base: u64, error: &serde_json::Error) -> Error {
    let at = position(text, error);
    let rest = &text.as_bytes()[at..];
    let offset = base.saturating_add(at as u64);
    if rest.iter().all(|&b| b == 0) {
        let message = format!(
            "the header is padded with {} NUL bytes; the format pads with spaces: the program that wrote the file is \
             faulty, save it again with the safetensors library",
            rest.len()
        );
        return Error::format("nul_padding", message).with_offset(offset);
    }
    let message = format!("{} bytes follow the JSON's last bracket inside the header", rest.len());
    Error::format("trailing_bytes", message).with_offset(offset)
}

/// An error of the JSON itself, as ours.
fn explain(text: &str, base: u64, error: &serde_json::Error) -> Error {
    let at = position(text, error);
    let offset = base.saturating_add(at as u64);
    let made = match error.classify() {
        serde_json::error::Category::Eof => Error::format(
            "json_eof",
            "the JSON ends before its last bracket; the header was cut or its length is wrong",
        ),
        _ if text.as_bytes().get(at) == Some(&b'/') => {
            Error::format("json_comment", "JSON has no comments; remove them")
        }
        _ => {
            // serde_json's syntax errors are fixed sentences, followed by a line and column that the offset replaces.
            let full = error.to_string();
            let reason = full.split(" at line ").next().unwrap_or("syntax error");
            Error::format("json_syntax", format!("the header is not JSON: {reason}"))
        }
    };
    made.with_offset(offset)
}
