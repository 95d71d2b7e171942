//! A map of a file that is cut short: the fault is caught, marked and no end of the process.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

use std::ffi::c_int;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use weightprint_core::control::Control;
use weightprint_core::format::{Limits, Mode};
use weightprint_core::source::{TensorFile, Windows};

/// The process has one handler: tests that look at it take turns.
static TURN: Mutex<()> = Mutex::new(());

const LEN: usize = 3 << 20;

fn file(folder: &Path) -> (PathBuf, TensorFile) {
    let path = folder.join("a.safetensors");
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{LEN}],"data_offsets":[0,{LEN}]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..LEN).map(|i| (i % 251) as u8));
    fs::write(&path, bytes).unwrap();
    let file = TensorFile::open(&path, Mode::Strict, &Limits::default(), &Control::new()).unwrap();
    (path, file)
}

fn cut(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// What the process does about SIGBUS.
fn handler() -> usize {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the call writes the present action, which is read then.
    unsafe {
        assert_eq!(libc::sigaction(libc::SIGBUS, std::ptr::null(), now.as_mut_ptr()), 0);
        now.assume_init().sa_sigaction
    }
}

fn set(handler: usize) {
    // SAFETY: all zeros are a valid action with an empty mask.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
    }
}

#[test]
fn windows_show_the_files_bytes_wherever_they_start() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = file(folder.path());
    let content = fs::read(&path).unwrap();
    let windows = Windows::of(&file).unwrap();
    for (start, len) in [(0, content.len()), (1, 10), (4095, 2), (8192, 4096), (content.len() - 1, 1)] {
        assert_eq!(windows.fault_in(start as u64, len).unwrap(), &content[start..start + len]);
        windows.give_back(start as u64, len);
    }
    assert!(windows.fault_in(1, content.len()).is_none());
    assert!(windows.sound());
}

#[test]
fn a_file_cut_before_a_window_has_none_and_one_cut_within_is_found_out() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = handler();
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = file(folder.path());
    let windows = Windows::of(&file).unwrap();
    let other = Windows::of(&file).unwrap();
    assert_ne!(handler(), before);
    let bytes = windows.fault_in(4096, 1 << 20).unwrap();
    assert!(bytes.iter().any(|&b| b != 0));
    cut(&path, 4096);
    assert!(windows.sound() && bytes.iter().all(|&b| b == 0) && !windows.sound());
    assert!(other.sound() && other.fault_in(4096, 1).is_none() && other.sound());
    drop(windows);
    assert_ne!(handler(), before);
    drop(other);
    assert_eq!(handler(), before);
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_signal: c_int) {
    CALLS.fetch_add(1, SeqCst);
}

fn raise_from_outside() {
    // SAFETY: sends a signal to this process, which has a handler for it.
    unsafe { libc::kill(libc::getpid(), libc::SIGBUS) };
}

#[test]
fn what_is_not_ours_goes_to_the_handler_that_was_there() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = handler();
    let count = count as extern "C" fn(c_int) as usize;
    set(count);
    let folder = tempfile::tempdir().unwrap();
    let (_, file) = file(folder.path());
    let windows = Windows::of(&file).unwrap();
    let calls = CALLS.load(SeqCst);
    raise_from_outside();
    // Any thread of the process may be given the signal, a little later.
    while CALLS.load(SeqCst) == calls {
        std::thread::yield_now();
    }
    drop(windows);
    assert_eq!(handler(), count);
    set(before);
}

#[test]
fn behind_another_handler_or_where_the_signal_is_blocked_there_are_no_windows() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = handler();
    let folder = tempfile::tempdir().unwrap();
    let (_, file) = file(folder.path());
    let windows = Windows::of(&file).unwrap();
    let ours = handler();
    std::thread::scope(|scope| {
        let blocked = || {
            // SAFETY: changes this thread's mask alone.
            unsafe {
                let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
                libc::sigfillset(all.as_mut_ptr());
                libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
            }
            windows.fault_in(0, 1).is_none()
        };
        assert!(scope.spawn(blocked).join().unwrap());
    });
    assert!(windows.fault_in(0, 1).is_some());
    set(count as extern "C" fn(c_int) as usize);
    assert!(windows.fault_in(0, 1).is_none() && Windows::of(&file).is_none());
    // The other handler stays, and may call ours: ours is never put before it.
    drop(windows);
    assert_ne!(handler(), before);
    assert!(Windows::of(&file).is_none());
    // It gives ours its place back, as one does that is taken away: all is as it was.
    set(ours);
    drop(Windows::of(&file).unwrap());
    assert_eq!(handler(), before);
}
