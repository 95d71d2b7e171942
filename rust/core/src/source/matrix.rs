//! A stored tensor seen as a matrix: its last axis are the columns, all others, flattened, the rows.

use super::file::TensorFile;
use crate::dtype::{Class, Dtype};
use crate::error::{Error, Result};

/// A gap between two pieces that is read rather than skipped.
pub(super) const CHEAP_GAP: u64 = 4 << 10;

/// Rows and columns of tensor `i`.
pub(crate) fn matrix(file: &TensorFile, i: usize) -> (u64, u64) {
    let shape = file.header().shape(i);
    let columns = shape.last().copied().unwrap_or(1);
    // The header's check of the tensor's size bounds the product where no axis is 0.
    let rows = shape.iter().rev().skip(1).fold(1u64, |n, &axis| n.saturating_mul(axis));
    (rows, columns)
}

/// A `Usage` error about tensor `i`.
pub(crate) fn about(file: &TensorFile, i: usize, code: &'static str, message: String) -> Error {
    Error::usage(code, message).with_tensor(file.header().name(i)).with_path(file.path())
}

/// The dtype of tensor `i`. Errors: `Usage` for complex numbers.
pub(crate) fn check_real(file: &TensorFile, i: usize) -> Result<Dtype> {
    let dtype = file.header().dtype(i);
    if dtype.class() == Class::Complex {
        let message = format!("{} values are not numbers of float32; read them raw", dtype.name());
        return Err(about(file, i, "complex_values", message));
    }
    Ok(dtype)
}

/// Where a run of elements or components lies within a tensor's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Span {
    pub first_byte: u64,
    pub first_bit: u32,
    pub n_bytes: u64,
}

impl Span {
    /// Of elements `[start, stop)`.
    pub fn of_elements(dtype: Dtype, start: u64, stop: u64) -> Self {
        Self::of_bits(dtype.bits().into(), start, stop)
    }

    /// Of components `[start, stop)`: a complex element has two, any other is its own.
    pub fn of_components(dtype: Dtype, start: u64, stop: u64) -> Self {
        Self::of_bits(u64::from(dtype.bits()) / dtype.components(), start, stop)
    }

    fn of_bits(bits: u64, start: u64, stop: u64) -> Self {
        // Eight numbers of any width are whole bytes; so split, no product overflows.
        let byte = |number: u64| (number / 8 * bits + number % 8 * bits / 8, number % 8 * bits % 8);
        let ((first_byte, first_bit), (last_byte, last_bit)) = (byte(start), byte(stop));
        Self { first_byte, first_bit: first_bit as u32, n_bytes: last_byte + u64::from(last_bit > 0) - first_byte }
    }
}
