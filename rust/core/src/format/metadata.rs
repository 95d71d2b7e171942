//! Parses `__metadata__`, an object of strings.
//!
//! A value may be almost as long as the header. serde_json would unescape it into a scratch buffer and hand that to us
//! to copy: three times the text at once. So a value is taken raw, as a slice of the header, and unescaped here
//! straight into its place.

use serde::de::{self, MapAccess};
use serde_json::value::RawValue;

use super::builder::HeaderBuilder;
use super::json::{Context, Read, Slot};
use super::notes::Note;
use super::rules::{METADATA_ENTRY_BYTES, Mode};
use crate::error::{Error, escape};

/// The value of `__metadata__`.
pub(super) struct MetadataSlot<'b, 'c>(pub &'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for MetadataSlot<'_, '_> {
    type Out = ();

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        let message = format!("__metadata__ must be an object of strings, not {found}");
        self.0.stop(Error::format("metadata_not_object", message))
    }

    fn null<E: de::Error>(self) -> Result<(), E> {
        if self.0.mode == Mode::Strict {
            return Err(self.refuse("null"));
        }
        self.0.notes.push("metadata_not_object", || Note::new("metadata_not_object", "__metadata__ is null"));
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let b = self.0;
        while let Some(key) = entries.next_key_seed(Read(Key(b)))? {
            let raw: &RawValue = entries.next_value()?;
            let raw = raw.get();
            b.step()?;
            if !raw.starts_with('"') {
                let message = format!("__metadata__ holds strings only, but the value of {} is not one", escape(&key));
                return Err(b.stop(Error::format("metadata_not_string", message)));
            }
            b.metadata.cost = b.metadata.cost.saturating_add(METADATA_ENTRY_BYTES + (key.len() + raw.len()) as u64);
            if b.metadata.cost > b.limits.metadata_bytes.saturating_add(METADATA_ENTRY_BYTES) {
                let message = format!(
                    "__metadata__ needs more than {} bytes of memory; raise the cap if you trust the file",
                    b.limits.metadata_bytes
                );
                return Err(b.stop(Error::limit("metadata_too_large", message)));
            }
            let Some(value) = unescape(&raw[1..raw.len() - 1]) else {
                let message = format!("the metadata value of {} holds half a surrogate pair", escape(&key));
                return Err(b.stop(Error::format("json_syntax", message)));
            };
            b.add_metadata(key, value).map_err(|e| b.stop(e))?;
        }
        Ok(())
    }
}

/// A metadata key.
struct Key<'b, 'c>(&'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for Key<'_, '_> {
    type Out = String;

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        self.0.stop(Error::format("json_syntax", format!("a key must be a string, not {found}")))
    }

    fn text<E: de::Error>(self, key: &str) -> Result<String, E> {
        if key.len() > self.0.limits.name_bytes {
            let message = format!(
                "a metadata key has {} bytes, the cap is {}: {}",
                key.len(),
                self.0.limits.name_bytes,
                escape(key)
            );
            return Err(self.0.stop(Error::limit("metadata_key_too_long", message)));
        }
        Ok(key.to_owned())
    }
}

/// The text of a JSON string's inside, or `None` where an escape stands for half a surrogate pair.
/// The parser has checked everything else about it.
fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (kind, after) = (*rest.as_bytes().get(at + 1)?, rest.get(at + 2..)?);
        rest = after;
        out.push(match kind {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => unit_pair(&mut rest)?,
            plain => char::from(plain), // " \ /
        });
    }
    out.push_str(rest);
    out.shrink_to_fit();
    Some(out)
}

/// The character whose four hex digits come next, with the second half of a surrogate pair where it needs one.
fn unit_pair(rest: &mut &str) -> Option<char> {
    let first = unit(rest)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first); // None for a lone second half
    }
    *rest = rest.strip_prefix("\\u")?;
    let second = unit(rest)?;
    if !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
}

/// Four hex digits as a number.
fn unit(rest: &mut &str) -> Option<u32> {
    let value = u32::from_str_radix(rest.get(..4)?, 16).ok()?;
    *rest = &rest[4..];
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescapes_like_serde_json() {
        for raw in [
            r"",
            r"plain",
            r"a\nb\t\r\b\f\/\\\u0022",
            r#"\"\""#,
            r"\u00e9é\u20ac",
            r"\ud83d\ude00!",
            r"\uD83D\uDE00",
            r"\ud83d",
            r"\ude00",
            r"\ud83d\u0041",
            r"\ud83dx",
            r"\ud83d\n",
            r"\u0000",
            r"\uffff",
            r"\\u0041",
        ] {
            let oracle = serde_json::from_str::<String>(&format!("\"{raw}\"")).ok();
            assert_eq!(unescape(raw), oracle, "{raw}");
        }
    }
}
