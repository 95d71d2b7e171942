//! Runs a long call so that Ctrl-C stops it, progress is reported and no panic escapes: the one door to the core.
//!
//! The job runs on a thread of its own; the calling thread lets go of the interpreter and comes back every 50 ms to
//! look for Ctrl-C and to report progress. A signal, or an exception in the progress callback, cancels the job, waits
//! for it to stop (jobs look at their [`Control`] at least every 512 KiB) and raises. A panic in the job is caught here
//! and becomes an `InternalError`: none reaches Python. Where the system makes no thread, the job runs on the calling
//! one, and Ctrl-C waits for its end.
//!
//! Threads are scoped to the call: there is no pool to survive a fork, so forked and spawned children just work.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use pyo3::prelude::*;
use weightprint_core::control::Control;
use weightprint_core::error::{Error, ErrorKind, Result};

use crate::errors::to_python;

const POLL: Duration = Duration::from_millis(50);

/// Bytes that are moved in less than a millisecond.
pub const SMALL: usize = 1 << 18;

/// Progress to report while a job runs: a Python callable `(done, total)` and the total in bytes.
pub struct Progress {
    pub callback: Py<PyAny>,
    pub total: u64,
}

/// Run `job` without the interpreter; see the module's description.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<Progress>,
    job: impl FnOnce(&Control) -> Result<T> + Send,
) -> PyResult<T> {
    let control = Control::new();
    let (result, raised) = py.detach(|| wait(&control, progress.as_ref(), job));
    match raised {
        Some(error) => Err(error),
        None => result.map_err(|error| to_python(py, error)),
    }
}

/// As `run`, for a job that reads or writes `bytes`: a small one is done before a thread would have started, so it runs
/// here, still without the interpreter and with panics caught.
pub fn run_sized<T: Send>(py: Python<'_>, bytes: usize, job: impl FnOnce(&Control) -> Result<T> + Send) -> PyResult<T> {
    if bytes > SMALL {
        return run(py, None, job);
    }
    let control = Control::new();
    let result = py.detach(|| caught(|| job(&control)));
    result.map_err(|error| to_python(py, error))
}

fn caught<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| Err(internal(&*panic)))
}

fn wait<T: Send>(
    control: &Control,
    progress: Option<&Progress>,
    job: impl FnOnce(&Control) -> Result<T> + Send,
) -> (Result<T>, Option<PyErr>) {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        let job = Mutex::new(Some(job));
        let run = Arc::new(move || {
            let job = job.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The receiver lives until a result came, so this cannot fail.
            let _ = job.map(|job| sender.send(caught(|| job(control))));
        });
        let theirs = Arc::clone(&run);
        if Builder::new().spawn_scoped(scope, move || theirs()).is_err() {
            run();
        }
        drop(run);
        let mut raised: Option<PyErr> = None;
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(result) => {
                    if raised.is_none() && result.is_ok() {
                        raised = Python::attach(|py| report(py, control, progress)).err();
                    }
                    return (result, raised);
                }
                Err(RecvTimeoutError::Timeout) if raised.is_none() => {
                    raised = Python::attach(|py| py.check_signals().and_then(|()| report(py, control, progress))).err();
                    if raised.is_some() {
                        control.cancel();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return (Err(Error::new(ErrorKind::Internal, "lost_worker", "a worker thread vanished")), raised);
                }
            }
        }
    })
}

fn report(py: Python<'_>, control: &Control, progress: Option<&Progress>) -> PyResult<()> {
    match progress {
        Some(progress) => progress.callback.call1(py, (control.bytes_done(), progress.total)).map(drop),
        None => Ok(()),
    }
}

fn internal(panic: &(dyn Any + Send)) -> Error {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic");
    Error::new(
        ErrorKind::Internal,
        "panic",
        format!("a bug in weightprint: {what}. Please report it, with the file's header if you can share it"),
    )
}
