//! Two stored tensors, element by element, in one pass over both: read, decoded and summed while in the cache.
//!
//! Both are cut into units of a fixed number of elements, which threads take in turn; units are merged in order, so
//! that any number of threads gives the same bits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::values::Pair;
use crate::control::{Control, on_threads, thread_count};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::kernels::{Isa, decode_f32};
use crate::source::{Buffer, Span, TensorFile, Windows, check_real};

/// Elements that are read in one go from either side.
const UNIT: u64 = 256 << 10;
/// Elements that are decoded and summed in one go: both sides fit a second-level cache beside their bytes.
const STEP: usize = 8 << 10;

/// What two tensors are reduced to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Compared {
    /// Their pairs of elements.
    pub pair: Pair,
    /// Elements on either side that are NaN or infinite.
    pub nonfinite: [u64; 2],
}

/// A stored tensor.
struct Side<'a> {
    file: &'a TensorFile,
    windows: Option<Windows>,
    dtype: Dtype,
    begin: u64,
}

impl<'a> Side<'a> {
    fn new(file: &'a TensorFile, i: usize) -> Result<Self> {
        let (dtype, begin) = (check_real(file, i)?, file.data_start() + file.header().range(i).0);
        Ok(Self { file, windows: Windows::of(file), dtype, begin })
    }

    /// Call `use_it` with the bytes of elements `[start, stop)`, which begin at a byte.
    fn with<T>(
        &self,
        start: u64,
        stop: u64,
        buffer: &mut Buffer,
        use_it: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let span = Span::of_elements(self.dtype, start, stop);
        let (at, len) = (self.begin + span.first_byte, span.n_bytes as usize);
        let Some((windows, bytes)) = self.windows.as_ref().and_then(|w| w.fault_in(at, len).map(|bytes| (w, bytes)))
        else {
            return use_it(buffer.read(self.file, at, len)?);
        };
        let result = use_it(bytes);
        windows.give_back(at, len);
        if windows.sound() { result } else { Err(self.file.lost()) }
    }
}

/// Compare the elements of tensor `a.1` of file `a.0` with those of `b`, as float32. `threads`: 0 for one per core.
///
/// Errors: `Usage` for complex values and for tensors of unequal numbers of elements; what reading fails with;
/// `Cancelled`.
pub fn compare(
    a: (&TensorFile, usize),
    b: (&TensorFile, usize),
    threads: usize,
    isa: Isa,
    control: &Control,
) -> Result<Compared> {
    let n = a.0.header().numel(a.1);
    let of_b = b.0.header().numel(b.1);
    if n != of_b {
        return Err(Error::usage("unequal_lengths", format!("{n} elements can't be compared with {of_b}")));
    }
    let (a, b) = (Side::new(a.0, a.1)?, Side::new(b.0, b.1)?);
    let units = usize::try_from(n.div_ceil(UNIT)).unwrap_or(usize::MAX);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let locked = || done.lock().unwrap_or_else(PoisonError::into_inner);
    on_threads(thread_count(threads).clamp(1, units.max(1)), || {
        let mut worker = Worker::default();
        loop {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            if unit >= units {
                return;
            }
            let start = unit as u64 * UNIT;
            let found = control.check().and_then(|()| worker.run(&a, &b, start, (start + UNIT).min(n), isa));
            if found.is_err() {
                next.store(units, Ordering::Relaxed);
            }
            locked().push((unit, found));
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(unit, _)| *unit);
    done.into_iter().try_fold(Compared::default(), |all, (_, found)| Ok(all.merge(found?)))
}

impl Compared {
    fn merge(self, other: Self) -> Self {
        let [a, b] = self.nonfinite;
        let [more_a, more_b] = other.nonfinite;
        Self { pair: self.pair.merge(other.pair), nonfinite: [a + more_a, b + more_b] }
    }
}

/// One thread's space.
#[derive(Default)]
struct Worker {
    buffers: [Buffer; 2],
    values: [Vec<f32>; 2],
}

impl Worker {
    fn run(&mut self, a: &Side, b: &Side, start: u64, stop: u64, isa: Isa) -> Result<Compared> {
        let [buffer_a, buffer_b] = &mut self.buffers;
        let values = &mut self.values;
        a.with(start, stop, buffer_a, |of_a| {
            b.with(start, stop, buffer_b, |of_b| {
                Ok(compared((a.dtype, of_a), (b.dtype, of_b), stop - start, isa, values))
            })
        })
    }
}

/// `n` elements of either side, a step at a time.
fn compared(a: (Dtype, &[u8]), b: (Dtype, &[u8]), n: u64, isa: Isa, [x, y]: &mut [Vec<f32>; 2]) -> Compared {
    let mut all = Compared::default();
    for start in (0..n as usize).step_by(STEP) {
        let stop = (start + STEP).min(n as usize);
        for ((dtype, bytes), out) in [(a, &mut *x), (b, &mut *y)] {
            // A step starts at a multiple of eight elements, and so at a byte.
            let span = Span::of_elements(dtype, start as u64, stop as u64);
            out.resize(stop - start, 0.0);
            decode_f32(dtype, &bytes[span.first_byte as usize..][..span.n_bytes as usize], 0, out);
        }
        let pair = Pair::of(isa, x, y);
        let odd = |values: &[f32]| values.iter().filter(|v| !v.is_finite()).count() as u64;
        let nonfinite = if pair.n_finite < pair.n { [odd(x), odd(y)] } else { [0, 0] };
        all = all.merge(Compared { pair, nonfinite });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the types, the elements are those of the decoded values.
    #[test]
    fn steps_and_types_give_the_pairs_of_the_decoded_values() {
        let n = 2 * STEP + 5;
        let words: Vec<u8> = (0..2 * n).map(|i: usize| (i * 31 % 251) as u8).collect();
        let bytes: Vec<u8> = (0..n).map(|i| (i * 17 % 253) as u8).collect();
        let decoded = |dtype, bytes: &[u8]| {
            let mut out = vec![0.0; n];
            decode_f32(dtype, bytes, 0, &mut out);
            out
        };
        let (x, y) = (decoded(Dtype::F16, &words), decoded(Dtype::F8E4M3, &bytes));
        let odd = |v: &[f32]| v.iter().filter(|v| !v.is_finite()).count() as u64;
        let whole = Pair::of(Isa::Portable, &x, &y);
        for isa in Isa::available() {
            let space = &mut Default::default();
            let got = compared((Dtype::F16, &words), (Dtype::F8E4M3, &bytes), n as u64, isa, space);
            assert_eq!(got.nonfinite, [odd(&x), odd(&y)]);
            let counts = |p: &Pair| (p.n, p.n_finite, p.n_differ, p.n_flipped, p.max_difference);
            assert_eq!(counts(&got.pair), counts(&whole));
            assert!((got.pair.ab - whole.ab).abs() <= 1e-12 * whole.aa.max(whole.bb));
        }
    }
}
