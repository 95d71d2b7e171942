//! Control over a long job while it runs: a flag that stops it, a count of the bytes it has read, a number of threads.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::error::{Error, Result};

/// How many threads a job uses that may use `limit`: 0 stands for one per core.
pub fn thread_count(limit: usize) -> usize {
    match limit {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        n => n,
    }
}

/// Run `work` on the calling thread and on up to `threads` - 1 others at once; fewer where the system makes no more.
pub fn on_threads(threads: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..threads {
            if thread::Builder::new().spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}

/// Shared between a job's threads and whoever waits for it.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    bytes_done: AtomicU64,
}

impl Control {
    /// A control that is not cancelled and has counted nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ask the job to stop; it does so at its next [`check`](Self::check).
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether someone asked the job to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// `Err` with kind `Cancelled` once [`cancel`](Self::cancel) was called. Jobs call it at least every 512 KiB.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Count `n` more bytes as done.
    pub fn advance(&self, n: u64) {
        self.bytes_done.fetch_add(n, Ordering::Relaxed);
    }

    /// Bytes done so far.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done.load(Ordering::Relaxed)
    }
}
