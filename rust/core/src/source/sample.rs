//! Reads some rows and some columns of a stored tensor, seen as a matrix.
//!
//! Both axes are given as [`Runs`]. A sample of columns touches every page of its rows, so rows are read whole, from
//! the first column asked for to the last, a block of [`STEP`] bytes at a time, and the columns are gathered while
//! the block is in the cache; where rows are so long that the gaps between runs of columns are worth skipping, each
//! run is read by itself. Blocks are shared out over threads, each of which writes the rows of its own. Memory is the
//! output and two buffers per thread.

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::file::{Buffer, TensorFile};
use super::matrix::{CHEAP_GAP, Span, about, check_real, matrix};
use super::runs::Runs;
use crate::control::{Control, on_threads, thread_count};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::decode_f32;

/// Bytes of a tensor that are read at once.
const STEP: u64 = 512 << 10;
/// Stored bytes for which another thread is worth starting.
const EACH: u64 = 2 << 20;

/// Rows and columns of tensor `i` of `file`; `columns` `None` for all.
///
/// Errors: `Usage` if an index lies beyond the matrix, or the sample is larger than memory can address; complex types.
pub fn size(file: &TensorFile, i: usize, rows: &Runs, columns: Option<&Runs>) -> Result<usize> {
    let (n_rows, n_columns) = matrix(file, i);
    check_real(file, i)?;
    let last = columns.map_or(n_columns, Runs::end);
    if rows.end() > n_rows || last > n_columns {
        let message = format!("row {} or column {last} lies beyond a matrix of {n_rows} × {n_columns}", rows.end());
        return Err(about(file, i, "range_out_of_bounds", message));
    }
    let n = rows.len().checked_mul(columns.map_or(n_columns, Runs::len)).and_then(|n| usize::try_from(n).ok());
    let n = n.filter(|n| n.checked_mul(4).is_some());
    n.ok_or_else(|| about(file, i, "too_large", "the sample is larger than memory can address".to_owned()))
}

/// The sample's values as f32, row-major; `out` is as long as [`size`] says. `threads`: 0 for one per core.
///
/// Returns the bytes that were read from the file. Errors: as [`size`]; what reading fails with; `Cancelled`.
pub fn read_f32(
    file: &TensorFile,
    i: usize,
    rows: &Runs,
    columns: Option<&Runs>,
    threads: usize,
    control: &Control,
    out: &mut [f32],
) -> Result<u64> {
    if size(file, i, rows, columns)? != out.len() {
        return Err(about(file, i, "length_mismatch", "the output does not have the sample's size".to_owned()));
    }
    if out.is_empty() {
        return Ok(0);
    }
    let all = Runs::all(matrix(file, i).1);
    let sampler = Sampler::new(file, i, columns.unwrap_or(&all));
    let blocks = sampler.blocks(rows);
    let bytes: u64 = blocks.iter().map(|block| sampler.bytes(block)).sum();
    let threads = thread_count(threads).min(bytes.div_ceil(EACH) as usize).clamp(1, blocks.len());
    // An equal part of the blocks for each thread: their order in the file and in the output.
    let mut parts = Vec::with_capacity(threads);
    let (mut left, mut rest) = (blocks.as_slice(), out);
    for t in 0..threads {
        let (mine, later) = left.split_at(left.len() / (threads - t));
        let n = mine.iter().map(|block| (block.end - block.start) as usize * sampler.width).sum();
        let (here, after) = rest.split_at_mut(n);
        parts.push((mine, here));
        (left, rest) = (later, after);
    }
    let results: Vec<_> = parts.iter().map(|_| OnceLock::new()).collect();
    let parts = Mutex::new(parts.into_iter().zip(&results));
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    on_threads(threads, || {
        while let Some(((mine, here), result)) = next() {
            let _ = result.set(sampler.read(mine, here, control));
        }
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect::<Result<()>>()?;
    Ok(bytes)
}

/// What reading any block of rows of one sample needs to know.
struct Sampler<'a> {
    file: &'a TensorFile,
    dtype: Dtype,
    /// First byte of the tensor in the file.
    begin: u64,
    /// Columns of the matrix.
    row: u64,
    columns: &'a Runs,
    /// Columns of the sample.
    width: usize,
    /// Runs of columns by number, those that are read in one go together.
    pieces: Vec<Range<usize>>,
    /// Rows that are read in one go.
    together: u64,
}

impl<'a> Sampler<'a> {
    fn new(file: &'a TensorFile, i: usize, columns: &'a Runs) -> Self {
        let dtype = file.header().dtype(i);
        let (begin, row) = (file.data_start() + file.header().range(i).0, matrix(file, i).1);
        let bits = u64::from(dtype.bits());
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for (k, &(start, _)) in columns.runs().iter().enumerate() {
            let before = k.checked_sub(1).map_or(0, |k| columns.runs()[k].0 + columns.runs()[k].1);
            match pieces.last_mut() {
                Some(piece) if (start - before) * bits / 8 <= CHEAP_GAP => piece.end = k + 1,
                _ => pieces.push(k..k + 1),
            }
        }
        let (span, gap) = (columns.end() - columns.start(), row - (columns.end() - columns.start()));
        let cheap = pieces.len() == 1 && (gap * bits / 8 <= CHEAP_GAP || gap <= span);
        let together = if cheap { (STEP * 8 / (row * bits)).max(1) } else { 1 };
        Self { file, dtype, begin, row, columns, width: columns.len() as usize, pieces, together }
    }

    /// The rows in blocks that are read in one go, in order.
    fn blocks(&self, rows: &Runs) -> Vec<Range<u64>> {
        let step = self.together;
        let cut = |&(start, n): &(u64, u64)| {
            (start..start + n).step_by(step as usize).map(move |at| at..(at + step).min(start + n))
        };
        rows.runs().iter().flat_map(cut).collect()
    }

    /// First and last column of a piece, the last one excluded.
    fn reach(&self, piece: &Range<usize>) -> (u64, u64) {
        let (last, n) = self.columns.runs()[piece.end - 1];
        (self.columns.runs()[piece.start].0, last + n)
    }

    /// Where a piece of a block lies within the tensor.
    fn span(&self, block: &Range<u64>, piece: &Range<usize>) -> Span {
        let (first, last) = self.reach(piece);
        Span::of_elements(self.dtype, block.start * self.row + first, (block.end - 1) * self.row + last)
    }

    /// Bytes that a block takes.
    fn bytes(&self, block: &Range<u64>) -> u64 {
        self.pieces.iter().map(|piece| self.span(block, piece).n_bytes).sum()
    }

    fn read(&self, blocks: &[Range<u64>], out: &mut [f32], control: &Control) -> Result<()> {
        let (mut buffer, mut kept) = (Buffer::default(), Vec::new());
        let mut done = 0;
        for block in blocks {
            let n = (block.end - block.start) as usize * self.width;
            let here = &mut out[done..done + n];
            done += n;
            kept.clear();
            let mut filled = 0;
            for piece in &self.pieces {
                control.check()?;
                let span = self.span(block, piece);
                let bytes = buffer.read(self.file, self.begin + span.first_byte, span.n_bytes as usize)?;
                control.advance(span.n_bytes);
                self.gather(block, piece, &span, bytes, &mut kept, &mut here[filled..]);
                // Several pieces mean one row per block, whose values stand one after the other.
                filled += piece.clone().map(|k| self.columns.runs()[k].1 as usize).sum::<usize>();
            }
            if self.dtype.bits() >= 8 {
                decode_f32(self.dtype, &kept, 0, here);
            }
        }
        Ok(())
    }

    /// The columns of a piece of a block: appended to `kept` as they are stored, or decoded one run at a time where
    /// elements share bytes.
    fn gather(
        &self,
        block: &Range<u64>,
        piece: &Range<usize>,
        span: &Span,
        buffer: &[u8],
        kept: &mut Vec<u8>,
        out: &mut [f32],
    ) {
        let mut done = 0;
        for row in block.clone() {
            for &(start, n) in &self.columns.runs()[piece.clone()] {
                let first = row * self.row + start;
                let part = Span::of_elements(self.dtype, first, first + n);
                let at = (part.first_byte - span.first_byte) as usize;
                let bytes = &buffer[at..at + part.n_bytes as usize];
                if self.dtype.bits() >= 8 {
                    kept.extend_from_slice(bytes);
                } else {
                    decode_f32(self.dtype, bytes, part.first_bit, &mut out[done..done + n as usize]);
                    done += n as usize;
                }
            }
        }
    }
}
