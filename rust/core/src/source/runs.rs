//! Sets of indices along an axis, as runs (start, length).

use std::ops::Range;

use crate::error::{Error, Result};

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

    /// One past the largest index.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// First index of the first run; 0 of none.
    pub(super) fn start(&self) -> u64 {
        self.runs.first().map_or(0, |&(start, _)| start)
    }
}

fn bad_runs(message: String) -> Error {
    Error::usage("bad_runs", message)
}
