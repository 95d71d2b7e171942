//! The pure core of weightprint: which bytes are which tensor, and what is in them.
//!
//! Data moves one way: [`source`] opens a file, [`mod@format`] says which bytes are which tensor, [`scan`] reads every
//! byte once and feeds [`kernels`], whose block results [`stats`] merges into one summary per tensor. [`quant`] turns
//! quantised weights into float32.
//! Nothing here knows Python; every error is an [`error::Error`] and every long call takes a [`control::Control`].

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
