//! Which scale and zero point a code takes: a grid of them, and the runs of columns that share one.

use crate::error::{Error, Result};

/// `((x − zero) · scale) · factor`, each operation rounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub zero: f32,
    pub scale: f32,
    pub factor: f32,
}

impl Affine {
    /// `x · scale`: subtracting +0 changes no bit.
    #[inline(always)]
    pub fn scale(scale: f32) -> Self {
        Self { zero: 0.0, scale, factor: 1.0 }
    }

    /// `PLAIN` leaves out the subtraction of 0 and the product with 1, which change no bit.
    #[inline(always)]
    pub fn apply<const PLAIN: bool>(self, x: f32) -> f32 {
        if PLAIN { x * self.scale } else { ((x - self.zero) * self.scale) * self.factor }
    }

    /// `(number − zero) · scale` for each of the 16 numbers that codes stand for.
    #[inline(always)]
    pub fn table(self, numbers: &[f32; 16]) -> [f32; 16] {
        numbers.map(|x| (x - self.zero) * self.scale)
    }
}

/// Columns up to `end` (from the end of the run before) that belong to one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub end: usize,
    pub group: usize,
}

/// Scales and zero points, wherever they lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid<'a> {
    pub scales: &'a [f32],
    pub zeros: Option<&'a [f32]>,
    /// Everyone's zero point where `zeros` is none.
    pub zero: f32,
    pub factor: f32,
    /// Row `r` of the output lies in row `(row_offset + r) / block_rows` of the grid.
    pub block_rows: usize,
    pub row_offset: usize,
    /// Steps from one row, and from one group, of the grid to the next.
    pub row_stride: usize,
    pub group_stride: usize,
}

impl Grid<'_> {
    pub fn is_plain(&self) -> bool {
        self.zeros.is_none() && self.zero == 0.0 && self.factor == 1.0
    }

    /// Where the grid's row for row `r` of the output begins.
    #[inline(always)]
    pub fn row(&self, r: usize) -> usize {
        (self.row_offset + r) / self.block_rows * self.row_stride
    }

    #[inline(always)]
    pub fn affine(&self, row: usize, group: usize) -> Affine {
        let at = row + group * self.group_stride;
        let zero = self.zeros.map_or(self.zero, |zeros| zeros[at]);
        Affine { zero, scale: self.scales[at], factor: self.factor }
    }
}

/// Runs of `columns` columns in blocks of `block`, the first of which lies `offset` into its block.
pub(super) fn runs_of_blocks(columns: usize, block: usize, offset: usize) -> Vec<Run> {
    let mut runs = Vec::with_capacity(columns / block + 2);
    let mut end = 0;
    while end < columns {
        let group = (offset + end) / block;
        // No overflow: the end of a block that begins within usize is compared, not formed.
        let left = block - (offset + end) % block;
        end += left.min(columns - end);
        runs.push(Run { end, group });
    }
    runs
}

/// Runs of equal neighbours in `groups`, each of which must be below `n_groups`.
pub(super) fn runs_of_groups(groups: &[i32], n_groups: usize) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut start = 0;
    while let Some(&stored) = groups.get(start) {
        let Some(group) = usize::try_from(stored).ok().filter(|&g| g < n_groups) else {
            let message = format!("column {start} names group {stored}, and there are {n_groups}");
            return Err(Error::usage("group_out_of_range", message));
        };
        let end = start + equal(&groups[start..], stored);
        runs.push(Run { end, group });
        start = end;
    }
    Ok(runs)
}

/// How many runs [`runs_of_groups`] finds, which this need not form. Errors: as there.
pub(super) fn count_runs(groups: &[i32], n_groups: usize) -> Result<usize> {
    // Without a branch; a negative group is a large one, from 2^31 on.
    let n_known = n_groups.min(1 << 31) as u32;
    if !groups.iter().fold(true, |all, &g| all & (g.cast_unsigned() < n_known)) {
        return runs_of_groups(groups, n_groups).map(|runs| runs.len());
    }
    let next = groups.get(1..).unwrap_or_default();
    Ok(next.iter().zip(groups).map(|(a, b)| usize::from(a != b)).sum::<usize>() + usize::from(!groups.is_empty()))
}

/// How many of the first `groups` are `group`; 32 at a time without a branch, so that compilers vectorise it.
fn equal(groups: &[i32], group: i32) -> usize {
    let (chunks, _) = groups.as_chunks::<32>();
    let whole = chunks.iter().take_while(|chunk| chunk.iter().fold(true, |all, &g| all & (g == group))).count() * 32;
    whole + groups[whole..].iter().take_while(|&&g| g == group).count()
}
