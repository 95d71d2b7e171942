//! Tests whether one tensor is the other one quantised with a scale per group: whether each value rounds to its level.
//!
//! A quantiser with scales per group sends each value to the nearest of the group's levels. So every value lies in the
//! rounding interval, or *cell*, of the level that was stored for it, which reaches half-way to the two neighbours; the
//! outermost cells are open, as what lies beyond is cut off. Of the stored side only the decoded values are needed:
//! those of a group are some of its levels. Evenly spaced levels are all known then, since the gaps between the ones
//! that occur are multiples of the step; of others (FP8, FP4, NF4) a cell reaches half-way to the next one that occurs,
//! so it may be too wide and never too narrow.
//!
//! Scales and offsets may have been rounded after the values were: one factor per group, within [`SCALE`] of one, may
//! bring all its values into their cells, which are wider by [`OFFSET`] of the largest level. And the finer side may be
//! a rounded copy of what was quantised.

use crate::control::Control;
use crate::error::{Error, Result};

/// How far from one the factor of a group may be: scales are kept with 8 bits of precision or more.
const SCALE: f64 = 1.0 / 128.0;
/// Offsets (the level that the group starts from) are kept in half precision.
const OFFSET: f64 = 1.0 / 2048.0;
/// Part of a cell's half by which it is widened, since levels are float32 and ties may go either way.
const SLACK: f64 = 0.01;
/// The smallest gap that occurs is at most so many steps.
const MULTIPLE: u32 = 16;
/// Part of a step by which a gap may miss a multiple of it.
const UNEVEN: f64 = 0.01;

/// What a run of groups shows.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Groups with two levels or more. Of the others no cell is known.
    pub groups: u64,
    /// Those in which every value lies in its cell.
    pub fit: u64,
    /// Sums of squares of the differences, and of the finer values.
    pub difference: f64,
    /// See `difference`.
    pub size: f64,
    /// What `difference` is expected to be if rounding made it: a twelfth of the squared widths of the cells.
    pub rounding: f64,
    /// The part of `difference` that lies in groups of one level.
    pub flat: f64,
}

/// Compare `fine` with `coarse`, group by group of `run` neighbours.
///
/// `even`: the levels are evenly spaced. `precision`: relative size of the rounding that the finer side went through.
///
/// Errors: `Usage` unless both have the same length, a multiple of `run`; `Cancelled` through `control`.
pub fn cells(fine: &[f32], coarse: &[f32], run: usize, even: bool, precision: f64, control: &Control) -> Result<Fit> {
    if run == 0 || fine.len() != coarse.len() || !fine.len().is_multiple_of(run) {
        let why = format!("{} and {} values, which should be as many and in groups of {run}", fine.len(), coarse.len());
        return Err(Error::usage("bad_groups", why));
    }
    let mut found = Fit::default();
    let mut levels = Vec::with_capacity(run);
    let groups_at_once = (1_usize << 16).div_ceil(run);
    for (fine, coarse) in fine.chunks(groups_at_once * run).zip(coarse.chunks(groups_at_once * run)) {
        control.check()?;
        for (a, b) in fine.chunks_exact(run).zip(coarse.chunks_exact(run)) {
            group(a, b, even, precision, &mut levels, &mut found);
        }
    }
    Ok(found)
}

fn group(fine: &[f32], coarse: &[f32], even: bool, precision: f64, levels: &mut Vec<f32>, found: &mut Fit) {
    let pairs = || fine.iter().zip(coarse).filter(|(a, b)| a.is_finite() && b.is_finite());
    levels.clear();
    levels.extend(pairs().map(|(_, b)| b));
    levels.sort_unstable_by(f32::total_cmp);
    levels.dedup(); // by ==, so the two zeros are one
    let wide = || pairs().map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let difference: f64 = wide().map(|(a, b)| (a - b) * (a - b)).sum();
    found.difference += difference;
    found.size += wide().map(|(a, _)| a * a).sum::<f64>();
    let [first, .., last] = levels[..] else {
        found.flat += difference;
        return;
    };
    found.groups += 1;
    let odd = fine.iter().zip(coarse).any(|(a, b)| {
        let both = a.is_finite() && b.is_finite();
        !(both || a == b || (a.is_nan() && b.is_nan()))
    });
    let step = if even { step(levels) } else { None };
    let offset = OFFSET * f64::from(first.abs().max(last.abs()));
    let fits = !odd && (step.is_some() || !even);
    let (mut low, mut high) = (1.0 - SCALE, 1.0 + SCALE);
    for (&a, &b) in pairs() {
        let (below, above) = match step {
            Some(step) => (step / 2.0, step / 2.0),
            None => halves(levels, b),
        };
        let widest = if below.is_finite() && above.is_finite() { below + above } else { 2.0 * below.min(above) };
        found.rounding += widest * widest / 12.0;
        let (a, slack) = (f64::from(a), SLACK * widest / 2.0 + offset + precision * f64::from(a).abs());
        let from = if b == first { f64::NEG_INFINITY } else { f64::from(b) - below - slack };
        let to = if b == last { f64::INFINITY } else { f64::from(b) + above + slack };
        // The factors u with from <= u a <= to.
        if a > 0.0 {
            (low, high) = (low.max(from / a), high.min(to / a));
        } else if a < 0.0 {
            (low, high) = (low.max(to / a), high.min(from / a));
        } else if from > 0.0 || to < 0.0 {
            low = f64::INFINITY;
        }
    }
    found.fit += u64::from(fits && low <= high);
}

/// Half the gaps from a level to its neighbours among `levels`; infinite where there is none.
fn halves(levels: &[f32], level: f32) -> (f64, f64) {
    let at = levels.partition_point(|x| *x < level);
    let gap = |from: usize, to: usize| (f64::from(levels[to]) - f64::from(levels[from])) / 2.0;
    let below = if at > 0 { gap(at - 1, at) } else { f64::INFINITY };
    let above = if at + 1 < levels.len() { gap(at, at + 1) } else { f64::INFINITY };
    (below, above)
}

/// The largest step of which all gaps between these (two or more, ascending) are multiples; None where there is none.
fn step(levels: &[f32]) -> Option<f64> {
    let gaps = || levels.windows(2).map(|pair| f64::from(pair[1]) - f64::from(pair[0]));
    let least = gaps().fold(f64::INFINITY, f64::min);
    (1..=MULTIPLE).map(|k| least / f64::from(k)).find(|step| {
        gaps().all(|gap| {
            let steps = gap / step;
            (steps - steps.round()).abs() <= UNEVEN
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: f64 = 1.0 / (1 << 24) as f64;

    /// Values of a group of 32 without regularity.
    fn values(group: u64) -> Vec<f32> {
        (0..32).map(|i| ((((group * 32 + i) * 2_654_435_761) >> 7) % 2001) as f32 / 1000.0 - 1.0).collect()
    }

    /// Four bits, one scale per group, as most libraries do it: the largest size goes to level 7.
    fn quantised(a: &[f32]) -> Vec<f32> {
        let step = a.iter().fold(0f32, |top, x| top.max(x.abs())) / 7.0;
        a.iter().map(|x| (x / step).round() * step).collect()
    }

    fn run(a: &[f32], b: &[f32], even: bool) -> Fit {
        cells(a, b, 32, even, EXACT, &Control::new()).unwrap()
    }

    #[test]
    fn rounded_values_lie_in_their_cells() {
        let a: Vec<f32> = (0..100).flat_map(values).collect();
        let b: Vec<f32> = a.chunks(32).flat_map(quantised).collect();
        for even in [true, false] {
            let found = run(&a, &b, even);
            assert_eq!((found.groups, found.fit), (100, 100));
        }
        let found = run(&a, &b, true);
        assert!((found.difference / found.rounding - 1.0).abs() < 0.2, "{found:?}");
    }

    /// One value of one group that went to the level after the nearest.
    #[test]
    fn one_wrong_level_shows() {
        let a = values(3);
        let mut b = quantised(&a);
        let step = step(&{
            let mut levels = b.clone();
            levels.sort_unstable_by(f32::total_cmp);
            levels.dedup();
            levels
        })
        .unwrap() as f32;
        let inner = (0..32).find(|&i| b[i].abs() < 4.0 * step && b[i] != 0.0).unwrap();
        b[inner] += step;
        assert_eq!(run(&a, &b, true).fit, 0);
    }

    #[test]
    fn strangers_fit_nowhere() {
        let a: Vec<f32> = (0..50).flat_map(values).collect();
        let b: Vec<f32> = (50..100).flat_map(|g| quantised(&values(g))).collect();
        for even in [true, false] {
            let found = run(&a, &b, even);
            assert_eq!((found.groups, found.fit), (50, 0));
        }
    }

    /// A step that never occurs as a gap is found from the others: gaps of 2 and 3.
    #[test]
    fn the_step_is_the_common_measure_of_the_gaps() {
        assert_eq!(step(&[0.0, 2.0, 5.0, 7.0]), Some(1.0));
        assert_eq!(step(&[0.0, 2.0, 6.0]), Some(2.0));
        assert_eq!(step(&[0.0, 1.0, std::f32::consts::E, 2.0 * std::f32::consts::PI]), None);
    }

    /// A scale kept in half precision, and saturated ends.
    #[test]
    fn a_rounded_scale_and_values_beyond_the_ends_fit() {
        let a = values(8);
        let mut b: Vec<f32> = quantised(&a).iter().map(|x| x * 1.003).collect();
        assert_eq!(run(&a, &b, true).fit, 1);
        let mut wide = a.clone();
        let top = (0..32).max_by(|&i, &j| b[i].total_cmp(&b[j])).unwrap();
        wide[top] *= 1.5;
        assert_eq!(run(&wide, &b, true).fit, 1);
        b[0] = f32::NAN;
        assert_eq!(run(&wide, &b, true).fit, 0);
        wide[0] = f32::NAN;
        assert_eq!(run(&wide, &b, true).fit, 1);
    }

    #[test]
    fn groups_of_one_level_say_nothing_and_bad_sizes_are_refused() {
        assert_eq!(run(&[0.0; 32], &[0.0; 32], true), Fit::default());
        let erased = run(&[0.5; 32], &[0.0; 32], true);
        assert_eq!((erased.groups, erased.difference, erased.flat), (0, 8.0, 8.0));
        assert!(cells(&[0.0; 33], &[0.0; 33], 32, true, 0.0, &Control::new()).is_err());
        assert!(cells(&[0.0; 32], &[0.0; 31], 32, true, 0.0, &Control::new()).is_err());
        assert!(cells(&[0.0; 32], &[0.0; 32], 0, true, 0.0, &Control::new()).is_err());
    }
}
