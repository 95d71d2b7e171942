//! Keeps the process alive when a file is cut short under a map of it.
//!
//! A touch of a page that its file no longer has is the signal SIGBUS, which ends a process. While places of memory are
//! [watched](Watch), a handler stands before whatever handled the signal: a fault in a watched place puts zeros there
//! and marks it, so that who reads the place finds out afterwards and discards what was read. Every other SIGBUS goes to
//! the handler that was there before. With the last watch the former handler is put back.
//!
//! A process has one handler for a signal, so another library may put its own before ours meanwhile. Then a map is not
//! to be read ([`catches`]); and should its handler, in the moment between, be given a fault of ours and pass it on as
//! Python's faulthandler does, by putting ours back and raising the signal anew, ours lets the reader try again.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, TryLockError};

use libc::{SIGBUS, sigaction, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// A place of memory that is watched.
#[derive(Debug)]
struct Place {
    /// First address; [`FREE`], or [`TAKEN`] while it is being set up.
    start: AtomicUsize,
    end: AtomicUsize,
    faulted: AtomicBool,
}

const FREE: usize = 0;
const TAKEN: usize = 1;

/// As many files as can be read through maps at once; all of a process's, since the handler can't allocate.
static PLACES: [Place; 1024] =
    [const { Place { start: AtomicUsize::new(FREE), end: AtomicUsize::new(0), faulted: AtomicBool::new(false) } };
        1024];

/// The handler that was there before ours: its address, and whether it takes three arguments.
static FORMER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static FORMER_TAKES_INFO: AtomicBool = AtomicBool::new(false);

/// Who uses the handler.
struct Users {
    watches: usize,
    /// A child starts with its parent's numbers, and none of its threads.
    process: u32,
    former: Option<sigaction>,
    /// Another handler was put before ours and may call it: ours can't be put before that one without a circle.
    behind: bool,
}

static USERS: Mutex<Users> = Mutex::new(Users { watches: 0, process: 0, former: None, behind: false });

/// A place of memory in which faults are caught, until this is dropped.
#[derive(Debug)]
pub struct Watch {
    place: &'static Place,
}

impl Watch {
    /// Watch `place`, pages that belong to a map of the caller's, which it keeps until this is dropped.
    ///
    /// `None` where it can't be done: another handler is in the way, or there are too many places.
    pub fn over(place: Range<usize>) -> Option<Self> {
        let take = |place: &&Place| place.start.compare_exchange(FREE, TAKEN, SeqCst, SeqCst).is_ok();
        let free = PLACES.iter().find(take)?;
        if !users().is_some_and(|mut users| users.enter()) {
            free.start.store(FREE, SeqCst);
            return None;
        }
        free.end.store(place.end, SeqCst);
        free.faulted.store(false, SeqCst);
        free.start.store(place.start, SeqCst);
        Some(Self { place: free })
    }

    /// Whether something in the place could not be read, and zeros stand there instead.
    pub fn faulted(&self) -> bool {
        self.place.faulted.load(SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.place.start.store(FREE, SeqCst);
        // Where the lock can't be had the handler stays, and passes everything on.
        if let Some(mut users) = users() {
            users.leave();
        }
    }
}

/// Whether a fault of the calling thread would be caught now.
pub fn catches() -> bool {
    is_first() && !is_blocked()
}

fn is_first() -> bool {
    current().is_some_and(|now| now.sa_sigaction == address())
}

/// Whether the calling thread blocks the signal: the system then ends the process without asking a handler.
fn is_blocked() -> bool {
    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    let out = blocked.as_mut_ptr();
    // SAFETY: with no new set the call only writes the old one, which is read if it did.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), out) != 0 || libc::sigismember(out, SIGBUS) != 0 }
}

/// Waits a little for the lock, not for ever: a process that was forked while a thread held it never gets it.
fn users() -> Option<MutexGuard<'static, Users>> {
    for _ in 0..1000 {
        match USERS.try_lock() {
            Ok(users) => return Some(users),
            Err(TryLockError::Poisoned(users)) => return Some(users.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

impl Users {
    /// One more watch: whether the handler stands first now.
    fn enter(&mut self) -> bool {
        let process = std::process::id();
        if self.process != process {
            (self.process, self.watches) = (process, 0);
        }
        if !is_first() && !self.install() {
            return false;
        }
        self.watches += 1;
        true
    }

    fn install(&mut self) -> bool {
        let Some(former) = current().filter(|_| self.watches == 0 && !self.behind) else { return false };
        FORMER.store(former.sa_sigaction, SeqCst);
        FORMER_TAKES_INFO.store(former.sa_flags & libc::SA_SIGINFO != 0, SeqCst);
        self.former = Some(former);
        set(address(), libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART)
    }

    fn leave(&mut self) {
        self.watches = self.watches.saturating_sub(1);
        if self.watches > 0 {
            return;
        }
        self.behind = !is_first();
        if let Some(former) = self.former.take_if(|_| !self.behind) {
            // SAFETY: `former` is what the system gave for this very signal.
            unsafe { sigaction(SIGBUS, &raw const former, ptr::null_mut()) };
        }
    }
}

fn address() -> usize {
    on_sigbus as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize
}

/// What is done about the signal now.
fn current() -> Option<sigaction> {
    let mut now = MaybeUninit::<sigaction>::uninit();
    // SAFETY: with no new action the call only writes the present one, which is read if it did.
    unsafe { (sigaction(SIGBUS, ptr::null(), now.as_mut_ptr()) == 0).then(|| now.assume_init()) }
}

/// Set a handler with an empty mask; async-signal-safe.
fn set(handler: usize, flags: c_int) -> bool {
    // SAFETY: all zeros are a valid `sigaction` with an empty mask; the system only reads it.
    unsafe {
        let mut action: sigaction = MaybeUninit::zeroed().assume_init();
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        sigaction(SIGBUS, &raw const action, ptr::null_mut()) == 0
    }
}

/// The handler. Async-signal-safe: it touches atomics, and asks the system for memory by a bare call.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the handler was set with SA_SIGINFO, so the system gives a valid `info`; the address is read for codes of
    // the kernel's own, which have one.
    let (code, address) = unsafe {
        let code = (*info).si_code;
        (code, if code > 0 { (*info).si_addr() as usize } else { 0 })
    };
    if code > 0 && PLACES.iter().any(|place| place.catches(address)) {
        return;
    }
    // Raised anew by a handler that stood before this one: a true fault comes again, to this handler.
    let watching = || PLACES.iter().any(|place| place.start.load(SeqCst) > TAKEN);
    if code == libc::SI_TKILL && watching() {
        return;
    }
    pass_on(signal, code, info, context);
}

impl Place {
    /// If `address` lies here: put zeros in its stead and mark it.
    fn catches(&self, address: usize) -> bool {
        let (start, end) = (self.start.load(SeqCst), self.end.load(SeqCst));
        // The place may have passed to another watch between the two.
        if start <= TAKEN || !(start..end).contains(&address) || self.start.load(SeqCst) != start {
            return false;
        }
        self.faulted.store(true, SeqCst);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the place is a map of bytes that its watch's owner holds and only reads; they change, as those of a
        // file may at any time, and no pointer into it becomes invalid.
        unsafe { mmap_anonymous(start as *mut c_void, end - start, ProtFlags::READ, flags) }.is_ok()
    }
}

/// Do what was done about the signal before.
fn pass_on(signal: c_int, code: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let former = FORMER.load(SeqCst);
    match former {
        libc::SIG_IGN if code <= 0 => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // A fault comes again when this returns; a signal that was sent is sent again, and waits until then.
            set(libc::SIG_DFL, 0);
            if code <= 0 {
                // SAFETY: raises the signal on this thread, which has it blocked while its handler runs.
                unsafe { libc::raise(signal) };
            }
        }
        _ if FORMER_TAKES_INFO.load(SeqCst) => {
            // SAFETY: the system gave this address as that of a handler with three arguments; these are its own.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = unsafe { std::mem::transmute(former) };
            handler(signal, info, context);
        }
        _ => {
            // SAFETY: the same of a handler with one argument.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(former) };
            handler(signal);
        }
    }
}
