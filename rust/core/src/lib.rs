//! The pure core of weightprint: which bytes are which tensor, and what is in them.
//!
//! Data moves one way: [`source`] opens a file, with [`mod@format`], which says which bytes are which tensor; [`scan`]
//! reads every byte once and feeds [`kernels`], whose block results [`stats`] merges into one summary per tensor.
//! [`quant`] turns quantised weights into float32, [`pair`] compares the values of two tensors.
//! Nothing here knows Python; every error is an [`error::Error`] and every long call takes a [`control::Control`].
//!
//! So do imports, from left to right only; those that a comma parts know nothing of each other, and no two files import
//! each other in a circle (`tests/util/test_rust_order.py` holds them to it):
//!
//! `scan, pair > source, stats, quant > format, kernels > control > dtype, error`

pub mod control;
pub mod dtype;
pub mod error;
pub mod format;
pub mod kernels;
pub mod pair;
pub mod quant;
pub mod scan;
pub mod source;
pub mod stats;
