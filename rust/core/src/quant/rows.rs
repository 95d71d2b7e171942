//! Runs a decoder over the rows of its output: in chunks that stay in the second-level cache, on several threads where
//! the output is large.

use std::slice::ChunksMut;
use std::sync::{Mutex, PoisonError};

use crate::control::{Control, on_threads, thread_count};
use crate::error::Result;
use crate::kernels::Isa;

/// Values per chunk: 256 KiB of output, decoded between two checks for cancellation.
pub(super) const CHUNK: usize = 64 << 10;
/// Values of output below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 20;

/// How to decode; the result is the same whatever is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Which instructions to use.
    pub isa: Isa,
    /// How many threads, 0 for one per core; small outputs use one.
    pub threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { isa: Isa::detect(), threads: 0 }
    }
}

impl Settings {
    fn threads(self, len: usize) -> usize {
        let useful = (len / WORTH_A_THREAD).max(1);
        // Asking the system costs more than a small output.
        if useful > 1 { thread_count(self.threads).min(useful) } else { 1 }
    }
}

/// Calls `work(scratch, first_row, rows)` for chunks of whole rows of `out`, each a multiple of `step` rows but the
/// last.
///
/// Each thread makes one `scratch`. An empty `out` calls nothing. Errors: `Cancelled`.
pub(super) fn for_rows<S>(
    out: &mut [f32],
    columns: usize,
    step: usize,
    settings: Settings,
    control: &Control,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize, &mut [f32]) + Sync,
) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let step = step.max(1);
    let rows = (CHUNK / columns.max(1)).max(1).next_multiple_of(step);
    let threads = settings.threads(out.len());
    let chunks = Mutex::new(out.chunks_mut(rows.saturating_mul(columns)).enumerate());
    let worker = || {
        let mut scratch = scratch();
        while !control.is_cancelled() {
            let Some((i, chunk)) = next(&chunks) else { break };
            work(&mut scratch, i * rows, chunk);
            control.advance(size_of_val(chunk) as u64);
        }
    };
    on_threads(threads, worker);
    control.check()
}

fn next<'a>(chunks: &Mutex<std::iter::Enumerate<ChunksMut<'a, f32>>>) -> Option<(usize, &'a mut [f32])> {
    chunks.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// `bytes` as native-endian f32, if they are aligned for it and a whole number of them.
pub fn as_floats(bytes: &mut [u8]) -> Option<&mut [f32]> {
    // SAFETY: every bit pattern is a valid f32, every f32 is four valid bytes, and the borrow is exclusive.
    let (before, floats, after) = unsafe { bytes.align_to_mut::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(floats)
}
