//! Decodes quantised weights to float32: from codes and their scales to the numbers a model multiplies by.
//!
//! | file | codes | value, each operation rounded to float32 in this order |
//! |---|---|---|
//! | [`scaled`] | one byte: fp8, int8, uint8 | `((value(code) − zero) · scale) · factor` |
//! | [`packed`] | 2, 4 or 8 bits in 32-bit words | `(code − zero) · scale` |
//! | [`codebook`] | 4 bits into 16 values; 8 bits into 256 | `table[code] · scale`; `table[code] · scale + add` |
//!
//! Only the order of roundings is a choice; each file names the library whose order it follows. Value and code tables
//! are exact, subtraction of integers below 2^24 is exact, so most formats round once.
//!
//! Speed comes from two facts. A code of 4 bits has 16 values under one scale: they are computed once per group and
//! looked up, 16 lanes to an instruction ([`nibbles`]). A code of 8 bits has a value that the top half of an f32 holds:
//! it is looked up in byte tables, or rebuilt through half precision ([`bytes`]). Where neighbours of either kind take
//! scales from groups in any order, vectors lie across outputs instead ([`scattered`]). The shells are per instruction
//! set, the arithmetic is the same, so results have the same bits everywhere (but for the payload of a NaN).
//!
//! Every length is checked before the first byte is touched: a mismatch is an error of kind `Usage`, never a panic.

mod block;
mod bytes;
mod check;
pub mod codebook;
mod dispatch;
mod grid;
mod lookup;
mod nibbles;
pub mod packed;
mod rows;
pub mod scaled;
mod scattered;
mod transpose;
pub mod unpack;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use codebook::{Codebook, Lookup, Scales};
pub use packed::{Layout, Packed};
pub use rows::{Settings, as_floats};
pub use scaled::Scaled;
pub use unpack::{Axis, Order, unpack};
