//! Parses the index of a sharded checkpoint: `{"metadata": {"total_size": 123}, "weight_map": {"tensor": "file", …}}`.
//!
//! As hostile as a header, and read the same way. What the index says about files is checked against them by whoever
//! opens the shards; here its names must be plain file names, so that joining one to a folder cannot leave the folder.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use serde::de::{self, MapAccess};

use super::json::{self, Context, ParseState, Read, Skip, Slot};
use super::notes::{Note, Notes};
use super::rules::Limits;
use crate::control::Control;
use crate::error::{Error, Result, escape};

/// How deep fields beside `total_size` and `weight_map` may nest: some tools store their settings there.
const OTHER_DEPTH: u32 = 16;

/// Longest file name of the common file systems.
const FILE_NAME_BYTES: usize = 255;

/// A parsed index.
#[derive(Debug)]
pub struct Index {
    /// The sum of all tensors' bytes, as the index says.
    pub total_size: Option<u64>,
    /// Tensor name and shard file name, in the order of the index.
    pub weight_map: Vec<(String, String)>,
    /// What was accepted but is worth saying.
    pub notes: Vec<Note>,
}

impl Index {
    /// Parse an index. Errors of kind `Format` or `Limit` name the tensor and the byte offset in the JSON.
    pub fn parse(json: &[u8], limits: &Limits, control: &Control) -> Result<Index> {
        if json.len() as u64 > limits.header_bytes.min(u64::from(u32::MAX)) {
            let message = format!("the index has {} bytes, the cap is {}", json.len(), limits.header_bytes);
            return Err(Error::limit("index_too_large", message));
        }
        let (text, _) = json::text(json, 0)?;
        let mut builder = IndexBuilder::new(limits, control);
        json::parse(text, 0, Top(&mut builder)).map_err(|stopped| builder.blame(stopped))?;
        if !builder.map_met {
            let message = "the JSON has no weight_map: it is not the index of a sharded safetensors checkpoint";
            return Err(Error::format("weight_map_missing", message));
        }
        Ok(Index { total_size: builder.total_size, weight_map: builder.weight_map, notes: builder.notes.finish() })
    }
}

/// The index while it is read.
struct IndexBuilder<'c> {
    limits: &'c Limits,
    control: &'c Control,
    total_size: Option<u64>,
    weight_map: Vec<(String, String)>,
    metadata_met: bool,
    size_met: bool,
    map_met: bool,
    hasher: RandomState,
    table: HashTable<u32>,
    notes: Notes,
    state: ParseState,
}

impl<'c> IndexBuilder<'c> {
    fn new(limits: &'c Limits, control: &'c Control) -> Self {
        Self {
            limits,
            control,
            total_size: None,
            weight_map: Vec::new(),
            metadata_met: false,
            size_met: false,
            map_met: false,
            hasher: RandomState::new(),
            table: HashTable::new(),
            notes: Notes::default(),
            state: ParseState::default(),
        }
    }

    /// Remember that a field was met; twice is an error.
    fn once(&mut self, met: fn(&mut Self) -> &mut bool, name: &str) -> Result<()> {
        if std::mem::replace(met(self), true) {
            return Err(Error::format("duplicate_field", format!("the index has {name} twice")));
        }
        Ok(())
    }

    /// Add one line of the weight map.
    fn add(&mut self, name: String, file: String) -> Result<()> {
        let Self { weight_map, hasher, table, .. } = self;
        let hash = hasher.hash_one(&name);
        if table.find(hash, |&i| weight_map[i as usize].0 == name).is_some() {
            return Err(Error::format("duplicate_name", "the index has this tensor twice").with_tensor(&name));
        }
        if weight_map.len() >= self.limits.tensors {
            let message =
                format!("the index has more than {} tensors; raise the cap if you trust it", self.limits.tensors);
            return Err(Error::limit("too_many_tensors", message));
        }
        let number = weight_map.len() as u32;
        weight_map.push((name, file));
        table.insert_unique(hash, number, |&i| hasher.hash_one(&weight_map[i as usize].0));
        Ok(())
    }
}

impl Context for IndexBuilder<'_> {
    fn control(&self) -> &Control {
        self.control
    }

    fn state(&mut self) -> &mut ParseState {
        &mut self.state
    }
}

/// Why `file` is no plain file name, if it is none.
fn not_plain(file: &str) -> Option<&'static str> {
    match file {
        "" => Some("it is empty"),
        "." | ".." => Some("it names a folder"),
        _ if file.contains(['/', '\\']) => Some("it holds a path separator"),
        _ if file.contains(':') => Some("it holds a colon, which names a drive or stream on Windows"),
        _ if file.contains(char::is_control) => Some("it holds a control character"),
        _ if file.len() > FILE_NAME_BYTES => Some("it is longer than 255 bytes"),
        _ => None,
    }
}

/// The whole document.
struct Top<'b, 'c>(&'b mut IndexBuilder<'c>);

impl<'de> Slot<'de> for Top<'_, '_> {
    type Out = ();

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        self.0.stop(Error::format("index_not_object", format!("the index must be a JSON object, not {found}")))
    }

    fn object<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        let b = self.0;
        while let Some(key) = entries.next_key_seed(Read(Text(b, Place::Key)))? {
            match key.as_str() {
                "metadata" => {
                    b.once(|b| &mut b.metadata_met, "metadata").map_err(|e| b.stop(e))?;
                    entries.next_value_seed(Read(MetadataSlot(b)))?;
                }
                "weight_map" => {
                    b.once(|b| &mut b.map_met, "weight_map").map_err(|e| b.stop(e))?;
                    entries.next_value_seed(Read(MapSlot(b)))?;
                }
                other => {
                    b.notes.push("unknown_field", || {
                        Note::new(
                            "unknown_field",
                            format!("the index has an unknown field, ignored: {}", escape(other)),
                        )
                    });
                    entries.next_value_seed(Read(Skip { context: &mut *b, depth: OTHER_DEPTH }))?;
                    b.step()?;
                }
            }
        }
        Ok(())
    }
}

/// The value of `metadata`: only `total_size` is read.
struct MetadataSlot<'b, 'c>(&'b mut IndexBuilder<'c>);

impl<'de> Slot<'de> for MetadataSlot<'_, '_> {
    type Out = ();

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        self.0.stop(Error::format("metadata_not_object", format!("metadata must be an object, not {found}")))
    }

    fn null<E: de::Error>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        let b = self.0;
        while let Some(key) = entries.next_key_seed(Read(Text(b, Place::Key)))? {
            b.step()?;
            if key == "total_size" {
                b.once(|b| &mut b.size_met, "total_size").map_err(|e| b.stop(e))?;
                b.total_size = entries.next_value_seed(Read(SizeSlot(b)))?;
            } else {
                entries.next_value_seed(Read(Skip { context: &mut *b, depth: OTHER_DEPTH }))?;
            }
        }
        Ok(())
    }
}

/// The value of `total_size`. Some writers store it as a float.
struct SizeSlot<'b, 'c>(&'b mut IndexBuilder<'c>);

impl<'de> Slot<'de> for SizeSlot<'_, '_> {
    type Out = Option<u64>;

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        let message = format!("total_size must be a number of bytes, not {found}");
        self.0.stop(Error::format("bad_total_size", message))
    }

    fn null<E: de::Error>(self) -> std::result::Result<Option<u64>, E> {
        Ok(None)
    }

    fn unsigned<E: de::Error>(self, value: u64) -> std::result::Result<Option<u64>, E> {
        Ok(Some(value))
    }

    fn float<E: de::Error>(self, value: f64) -> std::result::Result<Option<u64>, E> {
        // 2^53: up to there a float holds every integer.
        if value.fract() != 0.0 || !(0.0..=9_007_199_254_740_992.0).contains(&value) {
            return Err(self.refuse("a fraction or a number beyond 64 bits"));
        }
        self.0.notes.push("bad_total_size", || Note::new("bad_total_size", "total_size is written as a float"));
        Ok(Some(value as u64))
    }
}

/// The value of `weight_map`.
struct MapSlot<'b, 'c>(&'b mut IndexBuilder<'c>);

impl<'de> Slot<'de> for MapSlot<'_, '_> {
    type Out = ();

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        let message = format!("weight_map must be an object from tensor to file, not {found}");
        self.0.stop(Error::format("weight_map_not_object", message))
    }

    fn object<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        let b = self.0;
        while let Some(name) = entries.next_key_seed(Read(Text(b, Place::Key)))? {
            b.step()?;
            let file = match entries.next_value_seed(Read(Text(b, Place::File))) {
                Ok(file) => file,
                Err(stopped) => {
                    if let Some(error) = &mut b.state.failure {
                        error.tensor.get_or_insert(name);
                    }
                    return Err(stopped);
                }
            };
            b.add(name, file).map_err(|e| b.stop(e))?;
        }
        Ok(())
    }
}

/// What a string of the index is.
enum Place {
    Key,
    File,
}

/// A string of the index.
struct Text<'b, 'c>(&'b mut IndexBuilder<'c>, Place);

impl<'de> Slot<'de> for Text<'_, '_> {
    type Out = String;

    fn refuse<E: de::Error>(self, found: &'static str) -> E {
        let message = format!("weight_map must give a file name for every tensor, not {found}");
        self.0.stop(Error::format("shard_name_not_string", message))
    }

    fn text<E: de::Error>(self, value: &str) -> std::result::Result<String, E> {
        let b = self.0;
        match self.1 {
            Place::Key if value.len() > b.limits.name_bytes => {
                let message = format!("a name has {} bytes, the cap is {}", value.len(), b.limits.name_bytes);
                Err(b.stop(Error::limit("name_too_long", format!("{message}: {}", escape(value)))))
            }
            Place::Key => Ok(value.to_owned()),
            Place::File => match not_plain(value) {
                Some(why) => {
                    let message = format!("the shard name {} is no plain file name: {why}", escape(value));
                    Err(b.stop(Error::format("shard_name_not_plain", message)))
                }
                None => Ok(value.to_owned()),
            },
        }
    }
}
