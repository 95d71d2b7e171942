//! The loops that touch every byte: decoding, power sums of a block, extremes of a block.
//!
//! Each algorithm is written once ([`lanes`], [`wide`]); `avx512` and `avx2` are shells that hold the same 32 lanes in
//! registers, and [`dispatch`] chooses between them at run time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod compensated;
mod decode;
pub(crate) mod dispatch;
pub(crate) mod extremes;
mod fetch;
pub(crate) mod lanes;
mod minifloat;
pub(crate) mod power;
mod sketch;
mod sweep;
pub(crate) mod wide;
mod widen;

pub use decode::{decode_f32, decode_f64};
pub(crate) use decode::{for_each, value16};
pub use dispatch::Isa;
pub(crate) use dispatch::shells;
pub(crate) use fetch::prefetch;
pub(crate) use minifloat::small_values;
pub use sketch::BUCKETS;
pub(crate) use sketch::{WORDS, fold};
pub(crate) use sweep::sweep;
pub(crate) use widen::widen;
