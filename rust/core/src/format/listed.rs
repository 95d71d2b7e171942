//! A header from a list of tensors: those of a file in another container, parsed by its own reader.
//!
//! A GGUF file is, behind its own header, what a safetensors file is: named runs of bytes. Its reader lists them
//! ([`Listed`]), and they are held to the same rules as entries of a safetensors header: known dtypes, no name twice,
//! each as long as its shape says, none outside the file, none over another. Between tensors there may be padding,
//! always shorter than the container's alignment.

use super::entries::{Entries, Entry};
use super::header::Header;
use super::layout::{self, Extent};
use super::notes::Notes;
use super::rules::{Limits, Mode};
use crate::control::Control;
use crate::dtype::Dtype;
use crate::error::{Error, Result, escape};

/// One tensor of the list; `begin` and `end` count from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Listed {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub begin: u64,
    pub end: u64,
}

/// Where the data lie in the file, and how they are padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPart {
    /// Bytes of the file.
    pub file_len: u64,
    /// Where the data begin.
    pub start: u64,
    /// Tensors begin at multiples of this, counted from `start`.
    pub alignment: u64,
}

impl Header {
    /// The header of a file whose tensors are `listed`, in any order.
    ///
    /// Errors of kind `Format` or `Limit` name the tensor and the offset; `Cancelled` when `control` says so.
    pub fn listed(
        listed: &[Listed],
        metadata: Vec<(String, String)>,
        part: DataPart,
        mode: Mode,
        limits: &Limits,
        control: &Control,
    ) -> Result<Header> {
        let data_len = part.file_len.checked_sub(part.start).ok_or_else(|| {
            let message = format!("the data should begin at byte {} of {}", part.start, part.file_len);
            Error::format("header_beyond_file", message)
        })?;
        if listed.len() > limits.tensors {
            let message = format!("{} tensors, the cap is {}", listed.len(), limits.tensors);
            return Err(Error::limit("too_many_tensors", message));
        }
        if listed.iter().map(|t| t.name.len() as u64).sum::<u64>() > u64::from(u32::MAX) {
            return Err(Error::limit("header_too_large", "the names alone have more than 4 GiB"));
        }
        let mut order: Vec<&Listed> = listed.iter().collect();
        order.sort_by_key(|t| (t.begin, t.end));
        let (mut entries, mut notes) = (Entries::default(), Notes::default());
        entries.list.reserve_exact(order.len());
        for (number, tensor) in (0u32..).zip(order) {
            if number.is_multiple_of(4096) {
                control.check()?;
            }
            let about = |error: Error| Err(error.with_tensor(&tensor.name).with_offset(tensor.begin));
            if tensor.name.len() > limits.name_bytes || tensor.shape.len() > limits.rank {
                let (name, rank) = (tensor.name.len(), tensor.shape.len());
                let message = format!(
                    "a name of {name} bytes and {rank} dimensions; the caps are {} and {}",
                    limits.name_bytes, limits.rank
                );
                return about(Error::limit("entry_too_large", message));
            }
            let Some(dtype) = Dtype::from_name(&tensor.dtype) else {
                let message = format!("unknown dtype {}; known are {}", escape(&tensor.dtype), Dtype::names());
                return about(Error::format("unknown_dtype", message));
            };
            let hash = entries.names.hash(&tensor.name);
            if entries.find(hash, &tensor.name).is_some() {
                return about(Error::format("duplicate_name", "two tensors have this name"));
            }
            let (Some(begin), Some(end)) = (tensor.begin.checked_sub(part.start), tensor.end.checked_sub(part.start))
            else {
                return about(Error::format("overlap", "this tensor begins within the header"));
            };
            let name = entries.names.push(&tensor.name);
            let shape = u32::try_from(entries.shapes.end())
                .map_err(|_| Error::limit("header_too_large", "the shapes alone have more than 4 GiB"))?;
            tensor.shape.iter().for_each(|&d| entries.shapes.push(d));
            entries.push(hash, Entry { begin, end, name, shape, rank: tensor.shape.len() as u16, dtype });
        }
        let extent = Extent { len: data_len, start: part.start, alignment: part.alignment.max(1), mode };
        layout::check(&entries, extent, &mut notes)?;
        Ok(Header::of(entries, metadata, notes.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dtype: &str, shape: &[u64], begin: u64, end: u64) -> Listed {
        Listed { name: name.into(), dtype: dtype.into(), shape: shape.into(), begin, end }
    }

    fn header(tensors: &[Listed], file_len: u64) -> Result<Header> {
        let part = DataPart { file_len, start: 64, alignment: 32 };
        Header::listed(tensors, vec![], part, Mode::Strict, &Limits::default(), &Control::new())
    }

    #[test]
    fn tensors_are_numbered_in_data_order_and_padding_is_allowed() {
        let list = [tensor("b", "U8", &[3, 2], 96, 102), tensor("a", "F32", &[2], 64, 72)];
        for file_len in [102, 103, 128, 133] {
            let header = header(&list, file_len).unwrap();
            assert_eq!((header.name(0), header.name(1), header.find("b")), ("a", "b", Some(1)));
            assert_eq!((header.range(1), header.shape(1)), ((32, 38), vec![3, 2]));
        }
        assert_eq!(header(&[], 64).unwrap().len(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let a = tensor("a", "F32", &[2], 64, 72);
        let rows: [(&str, Vec<Listed>, u64); 12] = [
            ("header_beyond_file", vec![], 63),
            ("unknown_dtype", vec![tensor("a", "Q4_0", &[2], 64, 72)], 72),
            ("size_mismatch", vec![tensor("a", "F32", &[2], 64, 71)], 72),
            ("size_overflow", vec![tensor("a", "F32", &[1 << 62, 4], 64, 72)], 72),
            ("offsets_reversed", vec![tensor("a", "F32", &[2], 72, 64)], 72),
            ("truncated", vec![a.clone()], 71),
            ("overlap", vec![tensor("a", "F32", &[2], 56, 64)], 72),
            ("overlap", vec![tensor("a", "F32", &[16], 64, 128), tensor("b", "F32", &[2], 96, 104)], 128),
            ("misaligned", vec![a.clone(), tensor("b", "F32", &[2], 76, 84)], 84),
            ("hole", vec![a.clone(), tensor("b", "U8", &[1], 128, 129)], 129),
            ("duplicate_name", vec![a.clone(), tensor("a", "U8", &[1], 96, 97)], 97),
            ("trailing_data", vec![a], 72 + 32),
        ];
        for (code, list, file_len) in rows {
            assert_eq!(header(&list, file_len).map(|_| ()).unwrap_err().code, code, "{list:?}");
        }
    }
}
