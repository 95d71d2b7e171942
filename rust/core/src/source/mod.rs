//! Files of tensors: opened and checked once, then read as bytes, as a rectangle of a matrix, or as a sample of its
//! rows and columns.

mod file;
mod handle;
mod matrix;
pub mod rect;
mod runs;
pub mod sample;

pub use file::{Buffer, TensorFile};
pub use matrix::Span;
pub(crate) use matrix::{about, matrix};
pub use runs::Runs;
