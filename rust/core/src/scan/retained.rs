//! Copies a sample of a tensor, some rows and columns, while it is scanned, so that it need not be read again.

use std::sync::{Mutex, PoisonError};

use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::decode_f32;
use crate::source::sample::size;
use crate::source::{Runs, TensorFile, about, matrix};

/// A sample to retain of one tensor of a scan.
#[derive(Debug)]
pub struct RetainedSamples<'a> {
    /// Its place in the scan's list.
    pub(super) tensor: usize,
    dtype: Dtype,
    /// Columns of the matrix.
    row: u64,
    rows: Runs,
    columns: Runs,
    /// Float32 (rows, columns), row by row. Threads that scan different units of the tensor write by turns.
    out: Mutex<&'a mut [f32]>,
}

impl<'a> RetainedSamples<'a> {
    /// Rows and columns (`None` for all) of tensor `i` of `file`, which stands at `tensor` in the scan's list; as
    /// float32 into `out`, which is as long as [`size`] says.
    ///
    /// Errors: as [`size`]; `Usage` for an `out` of another length and for elements that share bytes.
    pub fn new(
        (tensor, file, i): (usize, &TensorFile, usize),
        rows: Runs,
        columns: Option<Runs>,
        out: &'a mut [f32],
    ) -> Result<Self> {
        let (dtype, row) = (file.header().dtype(i), matrix(file, i).1);
        if size(file, i, &rows, columns.as_ref())? != out.len() {
            return Err(about(file, i, "length_mismatch", "the output does not have the sample's size".to_owned()));
        }
        if dtype.bits() % 8 != 0 {
            let message = format!("elements of {} can't be retained while they are scanned", dtype.name());
            return Err(about(file, i, "not_kept", message));
        }
        let columns = columns.unwrap_or_else(|| Runs::all(row));
        Ok(Self { tensor, dtype, row, rows, columns, out: Mutex::new(out) })
    }

    /// Copy what is wanted out of `bytes`, the tensor's elements from `first` on. `buffer` is scratch space.
    pub(super) fn copy(&self, bytes: &[u8], first: u64, buffer: &mut Vec<u8>) {
        let element = self.dtype.bits() as usize / 8;
        let end = first + (bytes.len() / element) as u64;
        if first >= end || self.row == 0 {
            return;
        }
        let (width, whole) = (self.columns.len(), first.div_ceil(self.row)..end / self.row);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        for (rank, rows) in self.rows.within(first / self.row..end.div_ceil(self.row)) {
            buffer.clear();
            let mut gathered = None;
            for (rank, row) in (rank..).zip(rows) {
                let begins = row * self.row;
                let at = |column: u64| (begins + column - first) as usize * element;
                let target = rank as usize * width as usize;
                if whole.contains(&row) {
                    // Whole rows that follow each other are decoded together.
                    gathered.get_or_insert(target);
                    for &(start, n) in self.columns.runs() {
                        buffer.extend_from_slice(&bytes[at(start)..at(start + n)]);
                    }
                    continue;
                }
                let here = first.saturating_sub(begins)..(end - begins).min(self.row);
                let mut done = target as u64;
                for &(start, n) in self.columns.runs() {
                    let (from, to) = (start.max(here.start), (start + n).min(here.end));
                    if from < to {
                        let place = (done + from - start) as usize;
                        let part = &mut out[place..place + (to - from) as usize];
                        decode_f32(self.dtype, &bytes[at(from)..at(to)], 0, part);
                    }
                    done += n;
                }
            }
            if let Some(target) = gathered {
                let part = &mut out[target..target + buffer.len() / element];
                decode_f32(self.dtype, buffer, 0, part);
            }
        }
    }
}
