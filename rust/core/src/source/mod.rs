//! Files of tensors: opened and checked once, then read as bytes, as a rectangle of a matrix, or as a sample of its
//! rows and columns.

mod file;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod guard;
mod handle;
mod matrix;
pub mod rect;
mod runs;
pub mod sample;
#[cfg_attr(not(all(target_os = "linux", target_pointer_width = "64")), path = "no_windows.rs")]
mod windows;

pub use file::{Buffer, TensorFile};
pub use matrix::Span;
pub(crate) use matrix::{about, check_real, matrix};
pub use runs::Runs;
pub use windows::Windows;
