//! Runs a plan: threads take units in order, read them chunk by chunk, and merge each tensor when its last unit is
//! done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::digest::{self, Piece, UnitHasher};
use super::plan::{Plan, Tensor, Unit};
use super::reader::Source;
use super::request::{Request, Settings};
use super::result::{Lines, TensorResult};
use super::retained::RetainedSamples;
use crate::control::{Control, on_threads, thread_count};
use crate::dtype::{Class, Dtype};
use crate::error::{Error, Result};
use crate::source::{Buffer, TensorFile};
use crate::stats::{ColumnMoments, Counts, Moments, RowMoments, RowPartial, Sketch};

/// Scan `tensors` of `files`: every byte once, one result per tensor, in order.
///
/// Errors: what reading fails with (`truncated`, I/O), `FileChanged` if a file's size or time differs at the end,
/// `Cancelled` through `control`. Of several failing units the first in plan order that was reached is reported.
pub fn scan(
    files: &[&TensorFile],
    tensors: &[Tensor],
    request: Request,
    settings: Settings,
    control: &Control,
) -> Result<Vec<TensorResult>> {
    scan_retaining(files, tensors, &[], request, settings, control)
}

/// As [`scan`], and copies `retained` samples as the bytes pass.
pub fn scan_retaining(
    files: &[&TensorFile],
    tensors: &[Tensor],
    retained: &[RetainedSamples<'_>],
    request: Request,
    settings: Settings,
    control: &Control,
) -> Result<Vec<TensorResult>> {
    let states = tensors.iter().map(|_| State::Waiting).collect();
    let retain = |tensor: usize, bytes: &[u8], first: u64, buffer: &mut Vec<u8>| {
        for samples in retained.iter().filter(|samples| samples.tensor == tensor) {
            samples.copy(bytes, first, buffer);
        }
    };
    let job = Job::new(files, Source::files(files, settings.io), tensors, request, settings, control, states)
        .retaining(&retain);
    let threads = (thread_count(settings.threads) as u64).min(job.plan.len());
    on_threads(threads as usize, || Worker::new(&job).work());
    if let Some((_, error)) = lock(&job.failure).take() {
        return Err(error);
    }
    files.iter().try_for_each(|file| file.verify_unchanged())?;
    Ok(job.into_states().map(State::done).collect())
}

/// What is done with a chunk of a tensor beyond measuring it: (tensor, bytes, first component, scratch space).
type Retain<'a> = dyn Fn(usize, &[u8], u64, &mut Vec<u8>) + Sync + 'a;

/// What the threads of one scan share.
pub(super) struct Job<'a> {
    files: &'a [&'a TensorFile],
    source: Source<'a>,
    tensors: &'a [Tensor],
    retain: &'a Retain<'a>,
    plan: Plan<'a>,
    request: Request,
    settings: Settings,
    control: &'a Control,
    next: AtomicU64,
    states: Vec<Mutex<State>>,
    failed: AtomicBool,
    /// The failing unit that comes first in the plan, of those reached.
    failure: Mutex<Option<(u64, Error)>>,
}

/// How far one tensor has come.
pub(super) enum State {
    Waiting,
    Open(Box<Open>),
    Done(Box<TensorResult>),
}

/// A tensor of which some units are done.
pub(super) struct Open {
    partials: Vec<(u64, Partial)>,
    /// Counts are added up as units end: integers commute.
    counts: Option<Box<Counts>>,
}

/// What one unit found, but for counts.
struct Partial {
    moments: Option<Moments>,
    rows: Option<RowMoments>,
    columns: Option<ColumnMoments>,
    digest: Option<Piece>,
    sketch: Option<Sketch>,
}

/// Which kernels a tensor goes through.
#[derive(Clone, Copy)]
struct Needs {
    moments: bool,
    counts: bool,
    rows: bool,
    columns: bool,
    digest: bool,
}

impl Needs {
    fn of(tensor: &Tensor, request: Request) -> Self {
        let counted = always_counted(tensor.dtype);
        let rows = request.rows && tensor.row.is_some();
        Self {
            // Counts of a 16-bit float give its exact moments; rows still need the block sums.
            moments: !counted && (rows || !(request.exact && tensor.dtype.bits() == 16)),
            counts: counted || request.exact,
            rows,
            columns: request.columns && tensor.row.is_some(),
            digest: request.digest,
        }
    }
}

/// Types with so few values that counting them is as cheap as anything else, and exact.
fn always_counted(dtype: Dtype) -> bool {
    dtype.bits() <= 8 || (dtype.bits() == 16 && dtype.class() != Class::Float)
}

impl State {
    fn done(self) -> TensorResult {
        match self {
            Self::Done(result) => *result,
            // Every unit of the plan ran without failure, and the last one of each tensor closes it.
            Self::Waiting | Self::Open(_) => unreachable!("a tensor was left open"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's buffers, reused from unit to unit.
pub(super) struct Worker<'a> {
    job: &'a Job<'a>,
    buffer: Buffer,
    /// The count table of the last counted dtype.
    counts: Option<(Dtype, Box<Counts>)>,
    gathered: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(job: &'a Job<'a>) -> Self {
        Self { job, buffer: Buffer::default(), counts: None, gathered: Vec::new() }
    }

    /// Take units until there are none, or until some thread failed.
    fn work(mut self) {
        while !self.job.failed.load(Ordering::Relaxed) {
            let number = self.job.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.job.plan.len() {
                return;
            }
            let unit = self.job.plan.unit(number);
            self.job.ask_ahead(number);
            if let Err(error) = self.run(unit) {
                self.job.failed.store(true, Ordering::Relaxed);
                let mut failure = lock(&self.job.failure);
                if failure.as_ref().is_none_or(|(first, _)| number < *first) {
                    let tensor = &self.job.tensors[unit.tensor];
                    let file = self.job.files[tensor.file];
                    *failure =
                        Some((number, error.with_tensor(file.header().name(tensor.index)).with_path(file.path())));
                }
                return;
            }
        }
    }

    /// Read one unit, and merge its tensor if it was the last one missing.
    pub(super) fn run(&mut self, unit: Unit) -> Result<()> {
        let Self { job, buffer, counts, gathered } = self;
        let tensor = &job.tensors[unit.tensor];
        let needs = Needs::of(tensor, job.request);
        let isa = job.settings.isa;
        let start = tensor.component_at(unit.start);
        let row = tensor.row.unwrap_or(1);

        let mut counts = needs.counts.then(|| table(counts, tensor.dtype));
        let mut moments = needs.moments.then(|| Moments::new(tensor.dtype));
        let mut rows = needs.rows.then(|| RowMoments::new(row, start));
        let mut columns = needs.columns.then(|| ColumnMoments::new(tensor.dtype, row));
        let mut sketch = tensor.sketch.map(Sketch::new);
        let mut hasher = needs.digest.then(|| UnitHasher::new(unit.start, tensor.nbytes));
        let mut reader = job.source.reader(tensor, unit, buffer);
        for (begin, end) in unit.chunks() {
            job.control.check()?;
            let bytes = reader.chunk(begin, end)?;
            let first = tensor.component_at(begin);
            let n = tensor.component_at(end) - first;
            // The slowest first: it hides the wait for memory, and leaves the chunk in the cache for the others.
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            match (&mut moments, &mut rows) {
                (Some(moments), Some(rows)) => moments.update_rows(isa, bytes, first, rows),
                (Some(moments), None) => moments.update(isa, bytes, first),
                (None, Some(rows)) => rows.update(isa, tensor.dtype, bytes, 0, n),
                (None, None) => {}
            }
            if let Some(counts) = &mut counts {
                counts.update(bytes, 0, n / tensor.dtype.components(), first);
            }
            if let Some(columns) = &mut columns {
                columns.update(isa, bytes, 0, n, first);
            }
            if let Some(sketch) = &mut sketch {
                sketch.update(isa, tensor.dtype, bytes, first, n);
            }
            (job.retain)(unit.tensor, bytes, first, gathered);
            job.control.advance(end - begin);
        }
        reader.finish()?;
        let digest = hasher.map(UnitHasher::finish);
        job.close(unit, Partial { moments, rows, columns, digest, sketch }, counts);
        Ok(())
    }
}

/// The worker's count table for `dtype`, empty.
fn table(slot: &mut Option<(Dtype, Box<Counts>)>, dtype: Dtype) -> &mut Counts {
    if slot.as_ref().is_none_or(|(last, _)| *last != dtype) {
        *slot = Some((dtype, Box::new(Counts::new(dtype))));
    }
    match slot {
        Some((_, counts)) => {
            counts.reset();
            counts
        }
        None => unreachable!("set above"),
    }
}

impl<'a> Job<'a> {
    /// A job over the bytes of `source`; `files` is empty where they are not those of files.
    pub(super) fn new(
        files: &'a [&'a TensorFile],
        source: Source<'a>,
        tensors: &'a [Tensor],
        request: Request,
        settings: Settings,
        control: &'a Control,
        states: Vec<State>,
    ) -> Self {
        Self {
            files,
            source,
            tensors,
            retain: &|_, _, _, _| {},
            plan: Plan::new(tensors),
            request,
            settings,
            control,
            next: AtomicU64::new(0),
            states: states.into_iter().map(Mutex::new).collect(),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// The same with something done with every chunk.
    fn retaining(self, retain: &'a Retain<'a>) -> Self {
        Self { retain, ..self }
    }

    /// How far every tensor has come.
    pub(super) fn into_states(self) -> impl Iterator<Item = State> {
        self.states.into_iter().map(|state| state.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// While unit `number` is read, the disk brings one that comes soon.
    fn ask_ahead(&self, number: u64) {
        let soon = number + 2 * thread_count(self.settings.threads) as u64;
        if soon < self.plan.len() {
            let unit = self.plan.unit(soon);
            self.source.ask_ahead(&self.tensors[unit.tensor], unit);
        }
    }

    /// Take in what `unit` found; if its tensor is complete, merge.
    fn close(&self, unit: Unit, partial: Partial, counts: Option<&mut Counts>) {
        let tensor = &self.tensors[unit.tensor];
        if tensor.n_units() == 1 {
            let result = summarise(partial, counts.as_deref());
            *lock(&self.states[unit.tensor]) = State::Done(Box::new(result));
            return;
        }
        let mut state = lock(&self.states[unit.tensor]);
        if matches!(*state, State::Waiting) {
            *state = State::Open(Box::new(Open { partials: Vec::new(), counts: None }));
        }
        let State::Open(open) = &mut *state else { unreachable!("a unit ran twice") };
        open.partials.push((unit.number, partial));
        if let Some(counts) = counts {
            open.counts.get_or_insert_with(|| Box::new(Counts::new(tensor.dtype))).merge(counts);
        }
        if open.partials.len() as u64 == tensor.n_units() {
            let partials = std::mem::take(&mut open.partials);
            let result = summarise(join(partials), open.counts.as_deref());
            *state = State::Done(Box::new(result));
        }
    }
}

/// All partials of a tensor as one, merged in unit order.
fn join(mut partials: Vec<(u64, Partial)>) -> Partial {
    partials.sort_unstable_by_key(|(number, _)| *number);
    let mut pieces = Vec::new();
    let mut partials = partials.into_iter().map(|(_, mut partial)| {
        pieces.extend(partial.digest.take());
        partial
    });
    let Some(mut all) = partials.next() else { unreachable!("a tensor has at least one unit") };
    for later in partials {
        if let (Some(mine), Some(theirs)) = (&mut all.moments, &later.moments) {
            mine.merge(theirs);
        }
        if let (Some(mine), Some(theirs)) = (&mut all.rows, &later.rows) {
            mine.merge(theirs);
        }
        if let (Some(mine), Some(theirs)) = (&mut all.columns, &later.columns) {
            mine.merge(theirs);
        }
        if let (Some(mine), Some(theirs)) = (&mut all.sketch, &later.sketch) {
            mine.merge(theirs);
        }
    }
    all.digest = (!pieces.is_empty()).then(|| Piece::Whole(digest::join(pieces.into_iter())));
    all
}

fn summarise(partial: Partial, counts: Option<&Counts>) -> TensorResult {
    // Exact counts of a narrow type know more than its moments; those of a wide type are of bins, and know less.
    let (summary, distribution) = match (counts, &partial.moments) {
        (Some(counts), _) if counts.dtype().bits() <= 16 => {
            let (summary, distribution) = counts.finish();
            (summary, Some(distribution))
        }
        (counts, Some(moments)) => (moments.summary(), counts.map(Counts::distribution)),
        (_, None) => unreachable!("a tensor is counted or measured"),
    };
    TensorResult {
        summary,
        distribution,
        rows: partial.rows.map(|rows| lines(rows.rows())),
        columns: partial.columns.map(|columns| lines(columns.columns())),
        digest: partial.digest.map(|piece| digest::join(std::iter::once(piece))),
        sketch: partial.sketch.map(|sketch| Box::new(sketch.finish())),
    }
}

fn lines(parts: &[RowPartial]) -> Lines {
    Lines {
        mean: parts.iter().map(RowPartial::mean).collect(),
        std: parts.iter().map(RowPartial::std).collect(),
        l2: parts.iter().map(RowPartial::l2).collect(),
    }
}
