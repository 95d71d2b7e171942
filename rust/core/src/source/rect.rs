//! Reads a rectangle of a stored tensor, and little more than its own bytes.
//!
//! Rows are read together, gaps included, where the gap between two pieces costs less than a call of the system would;
//! else piece by piece. Memory is the output and one buffer of [`STEP`] bytes.

use super::file::{Buffer, TensorFile};
use super::matrix::{CHEAP_GAP, Span, about, check_real, matrix};
use crate::control::Control;
use crate::error::Result;
use crate::kernels::decode_f32;

/// Bytes read between two checks for cancellation.
const STEP: u64 = 1 << 20;

/// Rows and columns of a tensor's matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rect {
    pub first_row: u64,
    pub n_rows: u64,
    pub first_column: u64,
    pub n_columns: u64,
}

impl Rect {
    /// How many elements it has: no more than tensor `i` of `file`, in which it is checked to lie.
    ///
    /// Errors: `Usage` if it leaves the matrix or is larger than memory can address.
    pub fn check(&self, file: &TensorFile, i: usize) -> Result<usize> {
        let (rows, columns) = matrix(file, i);
        let inside = |first: u64, n: u64, size: u64| first.checked_add(n).is_some_and(|end| end <= size);
        if !inside(self.first_row, self.n_rows, rows) || !inside(self.first_column, self.n_columns, columns) {
            let message = format!(
                "rows {} + {} and columns {} + {} do not lie within a matrix of {rows} × {columns}",
                self.first_row, self.n_rows, self.first_column, self.n_columns
            );
            return Err(about(file, i, "range_out_of_bounds", message));
        }
        let n = self.n_rows.checked_mul(self.n_columns).and_then(|n| usize::try_from(n).ok());
        n.ok_or_else(|| about(file, i, "too_large", "the rectangle is larger than memory can address".to_owned()))
    }
}

/// The rectangle's values as f32, row-major. `out` has as many as [`Rect::check`] says.
///
/// Errors: `Usage` also for complex numbers; what reading fails with; `Cancelled`.
pub fn read_f32(file: &TensorFile, i: usize, rect: Rect, control: &Control, out: &mut [f32]) -> Result<()> {
    let dtype = check_real(file, i)?;
    let mut done = 0;
    pieces(file, i, rect, out.len(), control, |bytes, first_bit, n| {
        decode_f32(dtype, bytes, first_bit, &mut out[done..done + n]);
        done += n;
    })
}

/// The rectangle's stored bytes, row-major, native to the file (little-endian). `out` is as long as its elements.
///
/// Errors: `Usage` also for types of less than 8 bits; what reading fails with; `Cancelled`.
pub fn read_raw(file: &TensorFile, i: usize, rect: Rect, control: &Control, out: &mut [u8]) -> Result<()> {
    let width = raw_width(file, i)?;
    let mut done = 0;
    pieces(file, i, rect, out.len() / width, control, |bytes, _, n| {
        out[done..done + n * width].copy_from_slice(&bytes[..n * width]);
        done += n * width;
    })
}

/// Bytes per element of tensor `i`. Errors: `Usage` where an element is no whole number of bytes.
pub fn raw_width(file: &TensorFile, i: usize) -> Result<usize> {
    let dtype = file.header().dtype(i);
    if dtype.bits() < 8 {
        let message = format!("elements of {} share bytes; read them as float32", dtype.name());
        return Err(about(file, i, "not_whole_bytes", message));
    }
    Ok(dtype.bits() as usize / 8)
}

/// Calls `take(bytes, first_bit, n)` for consecutive elements of the rectangle, in order.
fn pieces(
    file: &TensorFile,
    i: usize,
    rect: Rect,
    n: usize,
    control: &Control,
    mut take: impl FnMut(&[u8], u32, usize),
) -> Result<()> {
    if rect.check(file, i)? != n {
        return Err(about(file, i, "length_mismatch", "the output does not have the rectangle's size".to_owned()));
    }
    // An axis of 0 leaves the others unbounded: no arithmetic on them.
    if n == 0 {
        return Ok(());
    }
    let (dtype, (_, columns)) = (file.header().dtype(i), matrix(file, i));
    let begin = file.data_start() + file.header().range(i).0;
    let bits = u64::from(dtype.bits());
    // A rectangle of whole rows is one run of elements.
    let whole = rect.n_columns == columns;
    let (rows, width) = if whole { (1, n as u64) } else { (rect.n_rows, rect.n_columns) };
    let first = rect.first_row * columns + rect.first_column;
    let gap = (columns - rect.n_columns) * bits / 8;
    let together = if gap <= CHEAP_GAP || gap <= width * bits / 8 { (STEP * 8 / (columns * bits)).max(1) } else { 1 };
    // A multiple of 8, so that later steps of one row begin at a byte if its first one does.
    let step = (STEP * 8 / bits / 8 * 8).min(width);
    let mut buffer = Buffer::default();
    let mut row = 0;
    while row < rows {
        let now = together.min(rows - row);
        let mut column = 0;
        while column < width {
            control.check()?;
            // Several rows at once have all their columns; a long row alone comes in steps.
            let n = if now > 1 { width } else { step.min(width - column) };
            let start = first + row * columns + column;
            let span = Span::of_elements(dtype, start, start + (now - 1) * columns + n);
            let bytes = buffer.read(file, begin + span.first_byte, span.n_bytes as usize)?;
            for k in 0..now {
                let piece = Span::of_elements(dtype, start + k * columns, start + k * columns + n);
                take(&bytes[(piece.first_byte - span.first_byte) as usize..], piece.first_bit, n as usize);
            }
            control.advance(span.n_bytes);
            column += n;
        }
        row += now;
    }
    Ok(())
}
