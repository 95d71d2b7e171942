//! Parses the header's JSON, place by place: the document, an entry, and the three fields of an entry.
//!
//! Each [`Slot`] takes what may stand at its place, writes it into the [`HeaderBuilder`]'s arenas and refuses the rest
//! with an error of its own. Where the reference implementation takes more than the specification allows, the slot asks
//! [`HeaderBuilder::liberty`].

use serde::de::{self, MapAccess, SeqAccess};

use super::builder::{Fields, HeaderBuilder, Known};
use super::json::{Context, Read, Skip, Slot};
use super::metadata::MetadataSlot;
use super::names::Span;
use super::notes::Note;
use crate::dtype::Dtype;
use crate::error::{Error, escape};

/// How deep the value of an unknown field may nest: a list or object of scalars, as deep as a known field's.
const UNKNOWN_DEPTH: u32 = 1;

/// The whole document.
pub(super) struct Top<'b, 'c>(pub &'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for Top<'_, '_> {
    type Out = ();

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        let message = format!("the header must be a JSON object of tensors, not {found}");
        self.0.stop(Error::format("header_not_object", message))
    }

    fn object<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let b = self.0;
        loop {
            b.current = None;
            let Some(key) = entries.next_key_seed(Read(Name(b)))? else { return Ok(()) };
            b.step()?;
            match key {
                Key::Metadata => entries.next_value_seed(Read(MetadataSlot(b)))?,
                Key::Tensor { span, known } => {
                    b.current = Some(span);
                    let fields = entries.next_value_seed(Read(EntrySlot(b)))?;
                    b.add(span, known, fields).map_err(|e| b.stop(e))?;
                }
            }
        }
    }
}

/// What a key of the document stands for.
enum Key {
    Metadata,
    Tensor { span: Span, known: Known },
}

/// A key of the document.
struct Name<'b, 'c>(&'b mut HeaderBuilder<'c>);

impl Name<'_, '_> {
    fn take(&mut self, name: &str) -> Result<Key, Error> {
        let b = &mut *self.0;
        if name == "__metadata__" {
            if std::mem::replace(&mut b.metadata.met, true) {
                return Err(Error::format("duplicate_metadata", "the header has __metadata__ twice"));
            }
            return Ok(Key::Metadata);
        }
        if name.len() > b.limits.name_bytes {
            let message = format!("a tensor's name has {} bytes, the cap is {}", name.len(), b.limits.name_bytes);
            return Err(Error::limit("name_too_long", format!("{message}: {}", escape(name))));
        }
        let hash = b.entries.names.hash(name);
        if let Some(i) = b.entries.find(hash, name) {
            let span = b.entries.list[i as usize].name;
            b.current = Some(span);
            b.liberty("duplicate_name", "two entries have this name", "the last one counts")?;
            return Ok(Key::Tensor { span, known: Known::As(i) });
        }
        if b.entries.list.len() >= b.limits.tensors {
            let message =
                format!("the header has more than {} tensors; raise the cap if you trust it", b.limits.tensors);
            return Err(Error::limit("too_many_tensors", message));
        }
        if name.is_empty() {
            b.notes.push("empty_name", || Note::new("empty_name", "a tensor's name is the empty string").about(""));
        }
        Ok(Key::Tensor { span: b.entries.names.push(name), known: Known::Not { hash } })
    }
}

impl<'de> Slot<'de> for Name<'_, '_> {
    type Out = Key;

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        self.0.stop(Error::format("json_syntax", format!("a key must be a string, not {found}")))
    }

    fn text<E: de::Error>(mut self, name: &str) -> Result<Key, E> {
        self.take(name).map_err(|e| self.0.stop(e))
    }
}

/// The value of one tensor's entry.
struct EntrySlot<'b, 'c>(&'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for EntrySlot<'_, '_> {
    type Out = Fields;

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        let message = format!("an entry must be an object of dtype, shape and data_offsets, not {found}");
        self.0.stop(Error::format("entry_not_object", message))
    }

    fn object<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
        let b = self.0;
        let mut fields = Fields::default();
        while let Some(field) = entries.next_key_seed(Read(FieldName(b)))? {
            let twice = match field {
                Field::Dtype => fields.dtype.replace(entries.next_value_seed(Read(DtypeSlot(b)))?).is_some(),
                Field::Shape => fields.shape.replace(entries.next_value_seed(Read(ShapeSlot(b)))?).is_some(),
                Field::Offsets => fields.offsets.replace(entries.next_value_seed(Read(OffsetsSlot(b)))?).is_some(),
                Field::Unknown => {
                    entries.next_value_seed(Read(Skip { context: &mut *b, depth: UNKNOWN_DEPTH }))?;
                    b.step()?;
                    false
                }
            };
            if twice {
                return Err(b.stop(Error::format("duplicate_field", "an entry has the same field twice")));
            }
        }
        Ok(fields)
    }

    fn list<A: SeqAccess<'de>>(self, mut items: A) -> Result<Fields, A::Error> {
        let b = self.0;
        b.liberty("array_entry", "the entry is a list instead of an object", "read as [dtype, shape, data_offsets]")
            .map_err(|e| b.stop(e))?;
        let fields = Fields {
            dtype: items.next_element_seed(Read(DtypeSlot(b)))?,
            shape: items.next_element_seed(Read(ShapeSlot(b)))?,
            offsets: items.next_element_seed(Read(OffsetsSlot(b)))?,
        };
        if items.next_element_seed(Read(Skip { context: &mut *b, depth: UNKNOWN_DEPTH }))?.is_some() {
            return Err(
                b.stop(Error::format("entry_not_object", "an entry written as a list has more than three items"))
            );
        }
        Ok(fields)
    }
}

enum Field {
    Dtype,
    Shape,
    Offsets,
    Unknown,
}

/// A key inside an entry.
struct FieldName<'b, 'c>(&'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for FieldName<'_, '_> {
    type Out = Field;

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        self.0.stop(Error::format("json_syntax", format!("a key must be a string, not {found}")))
    }

    fn text<E: de::Error>(self, name: &str) -> Result<Field, E> {
        Ok(match name {
            "dtype" => Field::Dtype,
            "shape" => Field::Shape,
            "data_offsets" => Field::Offsets,
            other => {
                let problem = format!("the entry has a field that the format does not know: {}", escape(other));
                self.0.liberty("unknown_field", &problem, "it is ignored").map_err(|e| self.0.stop(e))?;
                Field::Unknown
            }
        })
    }
}

/// The value of `dtype`.
struct DtypeSlot<'b, 'c>(&'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for DtypeSlot<'_, '_> {
    type Out = Dtype;

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        self.0.stop(Error::format("dtype_not_string", format!("dtype must be a string, not {found}")))
    }

    fn text<E: de::Error>(self, name: &str) -> Result<Dtype, E> {
        Dtype::from_name(name).ok_or_else(|| {
            let message = format!("the dtype {} is not one of {}", escape(name), Dtype::names());
            self.0.stop(Error::format("unknown_dtype", message))
        })
    }

    /// The reference also takes `{"F32": null}`, an accident of its JSON library.
    fn object<A: MapAccess<'de>>(self, mut entries: A) -> Result<Dtype, A::Error> {
        let b = self.0;
        b.liberty("dtype_not_string", "dtype is an object instead of a string", "its key is taken")
            .map_err(|e| b.stop(e))?;
        let Some(dtype) = entries.next_key_seed(Read(DtypeSlot(b)))? else {
            return Err(DtypeSlot(b).refuse("an empty object"));
        };
        entries.next_value_seed(Read(Nothing(b)))?;
        match entries.next_key_seed(Read(DtypeSlot(b)))? {
            None => Ok(dtype),
            Some(_) => Err(DtypeSlot(b).refuse("an object of two")),
        }
    }
}

/// The null of a dtype written as an object.
struct Nothing<'b, 'c>(&'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for Nothing<'_, '_> {
    type Out = ();

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        DtypeSlot(self.0).refuse(if found == "null" { found } else { "an object with a value" })
    }

    fn null<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The value of `shape`.
struct ShapeSlot<'b, 'c>(&'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for ShapeSlot<'_, '_> {
    type Out = (u32, u16);

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        self.0.stop(Error::format("shape_not_list", format!("shape must be a list of numbers, not {found}")))
    }

    fn list<A: SeqAccess<'de>>(self, mut items: A) -> Result<(u32, u16), A::Error> {
        let b = self.0;
        let start = b.entries.shapes.end() as u32;
        let mut rank: u16 = 0;
        while let Some(dimension) = items.next_element_seed(Read(Number(b, "bad_dimension", "a dimension")))? {
            if usize::from(rank) >= b.limits.rank || rank == u16::MAX {
                let message = format!("the shape has more than {} dimensions", b.limits.rank.min(u16::MAX.into()));
                return Err(b.stop(Error::limit("rank_too_large", message)));
            }
            b.entries.shapes.push(dimension);
            rank += 1;
        }
        Ok((start, rank))
    }
}

/// The value of `data_offsets`.
struct OffsetsSlot<'b, 'c>(&'b mut HeaderBuilder<'c>);

impl<'de> Slot<'de> for OffsetsSlot<'_, '_> {
    type Out = (u64, u64);

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        let message = format!("data_offsets must be a list of two numbers, not {found}");
        self.0.stop(Error::format("offsets_not_pair", message))
    }

    fn list<A: SeqAccess<'de>>(self, mut items: A) -> Result<(u64, u64), A::Error> {
        let b = self.0;
        let what = "an offset";
        let begin = items.next_element_seed(Read(Number(b, "bad_offset", what)))?;
        let end = items.next_element_seed(Read(Number(b, "bad_offset", what)))?;
        let (Some(begin), Some(end)) = (begin, end) else {
            return Err(OffsetsSlot(b).refuse("a shorter list"));
        };
        if items.next_element_seed(Read(Number(b, "offsets_not_pair", "a third offset")))?.is_some() {
            return Err(OffsetsSlot(b).refuse("a longer list"));
        }
        Ok((begin, end))
    }
}

/// A number of a shape or of offsets: whose error code, and what to call it.
struct Number<'b, 'c>(&'b mut HeaderBuilder<'c>, &'static str, &'static str);

impl<'de> Slot<'de> for Number<'_, '_> {
    type Out = u64;

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        let message = format!("{} must be an unsigned 64-bit integer, not {found}", self.2);
        self.0.stop(Error::format(self.1, message))
    }

    fn unsigned<E: de::Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }
}
