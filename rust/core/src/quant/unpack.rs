//! Unpacks codes of 2, 4 or 8 bits from 32-bit words to one byte each: for zero points, which are few.

use super::check::length;
use crate::control::Control;
use crate::error::{Error, Result};

/// Which place of a word, from its low bits up, holds each of eight consecutive codes of AWQ: the inverse of
/// 0 2 4 6 1 3 5 7.
pub(super) const AWQ_PLACE: [u8; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Along which axis consecutive codes share a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Axis {
    Rows,
    Columns,
}

/// In which order codes lie in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the low bits up.
    Linear,
    /// Places 0 to 7 hold codes 0 2 4 6 1 3 5 7.
    Awq,
}

/// The codes of a matrix of words, row-major; `axis` is 32 / `bits` times as long as in `shape`.
///
/// Errors: `Usage` for a length that does not fit or bits that are not known, `Cancelled`.
pub fn unpack(
    words: &[u8],
    shape: (usize, usize),
    bits: u32,
    axis: Axis,
    order: Order,
    control: &Control,
) -> Result<Vec<u8>> {
    if !matches!(bits, 2 | 4 | 8) || (order == Order::Awq && bits != 4) {
        return Err(Error::usage("unknown_bits", format!("codes of {bits} bits in this order are not known")));
    }
    length("words", words.len(), shape.0.checked_mul(shape.1).and_then(|n| n.checked_mul(4)))?;
    let (words, per) = (words.as_chunks::<4>().0, 32 / bits as usize);
    let code = |word: [u8; 4], i: usize| {
        let place = if order == Order::Awq { AWQ_PLACE[i] as usize } else { i };
        (u32::from_le_bytes(word) >> (place * bits as usize)) as u8 & (u8::MAX >> (8 - bits))
    };
    let mut out = Vec::with_capacity(words.len() * per);
    if shape.1 == 0 {
        return Ok(out);
    }
    for row in words.chunks_exact(shape.1) {
        control.check()?;
        match axis {
            Axis::Columns => out.extend(row.iter().flat_map(|&w| (0..per).map(move |i| code(w, i)))),
            Axis::Rows => (0..per).for_each(|i| out.extend(row.iter().map(|&w| code(w, i)))),
        }
    }
    Ok(out)
}
