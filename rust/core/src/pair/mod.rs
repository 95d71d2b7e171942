//! Kernels that compare two matrices, or fit one to another: what a test of shared origin calls per pair of tensors.

pub mod assign;
pub mod cells;
pub mod nearest;
pub mod standardise;
pub mod stored;
pub mod values;
