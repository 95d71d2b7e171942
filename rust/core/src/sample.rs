//! Reads some rows and some columns of a stored tensor, which is what a test that samples a matrix asks for.
//!
//! A tensor is a matrix as in [`rect`](crate::rect). Both axes are given as [`Runs`]. A sample of columns touches every
//! page of its rows, so rows are read whole, from the first column asked for to the last, a block of [`STEP`] bytes at a
//! time, and the columns are gathered while the block is in the cache; where rows are so long that the gaps between
//! runs of columns are worth skipping, each run is read by itself. Blocks are shared out over threads, each of which
//! writes the rows of its own. Memory is the output and two buffers per thread.

use std::num::NonZero;
use std::ops::Range;
use std::thread;

use crate::control::Control;
use crate::dtype::{Class, Dtype};
use crate::error::{Error, Result};
use crate::kernels::decode_f32;
use crate::rect::{CHEAP_GAP, Span, about, matrix};
use crate::source::{Buffer, SafetensorsFile};

/// Bytes of a tensor that are read at once.
const STEP: u64 = 512 << 10;
/// Stored bytes for which another thread is worth starting.
const EACH: u64 = 2 << 20;

/// Indices along one axis: runs (start, length), in any order for rows, ascending for columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    runs: Vec<(u64, u64)>,
    /// Indices in all.
    len: u64,
    /// One past the largest.
    end: u64,
}

impl Runs {
    /// Runs in any order. Errors: `Usage` for an empty run, or indices or a number of them beyond 2^64.
    pub fn new(runs: Vec<(u64, u64)>) -> Result<Self> {
        let (mut end, mut len) = (0u64, 0u64);
        for &(start, n) in &runs {
            let stop = start.checked_add(n).filter(|_| n > 0);
            let both = stop.zip(len.checked_add(n));
            let (stop, sum) = both.ok_or_else(|| bad_runs(format!("a run of {n} indices from {start} on")))?;
            (end, len) = (end.max(stop), sum);
        }
        Ok(Self { runs, len, end })
    }

    /// Runs that ascend and do not overlap. Errors: `Usage` where they don't.
    pub fn ascending(runs: Vec<(u64, u64)>) -> Result<Self> {
        let made = Self::new(runs)?;
        match made.runs.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            Some(pair) => {
                Err(bad_runs(format!("columns ascend: a run from {} after one from {}", pair[1].0, pair[0].0)))
            }
            None => Ok(made),
        }
    }

    /// The runs, (start, length) each.
    pub(crate) fn runs(&self) -> &[(u64, u64)] {
        &self.runs
    }

    /// Indices in all.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Of runs that ascend: those parts that lie in `range`, and how many indices there are before each.
    pub(crate) fn within(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
        let mut before = 0;
        self.runs.iter().filter_map(move |&(start, n)| {
            let part = start.max(range.start)..(start + n).min(range.end);
            let rank = before + part.start.saturating_sub(start);
            before += n;
            (part.start < part.end).then_some((rank, part))
        })
    }

    /// All of an axis of `n`.
    pub(crate) fn all(n: u64) -> Self {
        Self { runs: if n > 0 { vec![(0, n)] } else { Vec::new() }, len: n, end: n }
    }

    /// First index of the first run; 0 of none.
    fn start(&self) -> u64 {
        self.runs.first().map_or(0, |&(start, _)| start)
    }
}

fn bad_runs(message: String) -> Error {
    Error::usage("bad_runs", message)
}

/// Rows and columns of tensor `i` of `file`; `columns` `None` for all.
///
/// Errors: `Usage` if an index lies beyond the matrix, or the sample is larger than memory can address; complex types.
pub fn size(file: &SafetensorsFile, i: usize, rows: &Runs, columns: Option<&Runs>) -> Result<usize> {
    let (n_rows, n_columns) = matrix(file, i);
    let dtype = file.header().dtype(i);
    if dtype.class() == Class::Complex {
        let message = format!("{} values are not numbers of float32; read them raw", dtype.name());
        return Err(about(file, i, "complex_values", message));
    }
    let last = columns.map_or(n_columns, |c| c.end);
    if rows.end > n_rows || last > n_columns {
        let message = format!("row {} or column {last} lies beyond a matrix of {n_rows} × {n_columns}", rows.end);
        return Err(about(file, i, "range_out_of_bounds", message));
    }
    let n = rows.len.checked_mul(columns.map_or(n_columns, |c| c.len)).and_then(|n| usize::try_from(n).ok());
    let n = n.filter(|n| n.checked_mul(4).is_some());
    n.ok_or_else(|| about(file, i, "too_large", "the sample is larger than memory can address".to_owned()))
}

/// The sample's values as f32, row-major; `out` is as long as [`size`] says. `threads`: 0 for one per core.
///
/// Returns the bytes that were read from the file. Errors: as [`size`]; what reading fails with; `Cancelled`.
pub fn read_f32(
    file: &SafetensorsFile,
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
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        n => n,
    };
    let threads = threads.min(bytes.div_ceil(EACH) as usize).clamp(1, blocks.len());
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
    thread::scope(|scope| {
        let mut parts = parts.into_iter();
        let own = parts.next();
        let others: Vec<_> = parts.map(|(mine, here)| scope.spawn(|| sampler.read(mine, here, control))).collect();
        let mut result = own.map_or(Ok(()), |(mine, here)| sampler.read(mine, here, control));
        for other in others {
            let theirs = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(theirs);
        }
        result
    })?;
    Ok(bytes)
}

/// What reading any block of rows of one sample needs to know.
struct Sampler<'a> {
    file: &'a SafetensorsFile,
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
    fn new(file: &'a SafetensorsFile, i: usize, columns: &'a Runs) -> Self {
        let dtype = file.header().dtype(i);
        let (begin, row) = (file.data_start() + file.header().range(i).0, matrix(file, i).1);
        let bits = u64::from(dtype.bits());
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for (k, &(start, _)) in columns.runs.iter().enumerate() {
            let before = k.checked_sub(1).map_or(0, |k| columns.runs[k].0 + columns.runs[k].1);
            match pieces.last_mut() {
                Some(piece) if (start - before) * bits / 8 <= CHEAP_GAP => piece.end = k + 1,
                _ => pieces.push(k..k + 1),
            }
        }
        let (span, gap) = (columns.end - columns.start(), row - (columns.end - columns.start()));
        let cheap = pieces.len() == 1 && (gap * bits / 8 <= CHEAP_GAP || gap <= span);
        let together = if cheap { (STEP * 8 / (row * bits)).max(1) } else { 1 };
        Self { file, dtype, begin, row, columns, width: columns.len as usize, pieces, together }
    }

    /// The rows in blocks that are read in one go, in order.
    fn blocks(&self, rows: &Runs) -> Vec<Range<u64>> {
        let step = self.together;
        let cut = |&(start, n): &(u64, u64)| {
            (start..start + n).step_by(step as usize).map(move |at| at..(at + step).min(start + n))
        };
        rows.runs.iter().flat_map(cut).collect()
    }

    /// First and last column of a piece, the last one excluded.
    fn reach(&self, piece: &Range<usize>) -> (u64, u64) {
        let (last, n) = self.columns.runs[piece.end - 1];
        (self.columns.runs[piece.start].0, last + n)
    }

    /// Where a piece of a block lies within the tensor.
    fn span(&self, block: &Range<u64>, piece: &Range<usize>) -> Span {
        let (first, last) = self.reach(piece);
        Span::of(self.dtype, block.start * self.row + first, (block.end - 1) * self.row + last)
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
                filled += piece.clone().map(|k| self.columns.runs[k].1 as usize).sum::<usize>();
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
            for &(start, n) in &self.columns.runs[piece.clone()] {
                let first = row * self.row + start;
                let part = Span::of(self.dtype, first, first + n);
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
