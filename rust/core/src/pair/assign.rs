//! Linear assignment: which row goes with which column at the smallest total cost.
//!
//! Shortest augmenting paths with potentials (Jonker and Volgenant 1987; Crouse 2016 for the rectangular form).
//! Potentials u, v with u_i + v_j <= c_ij are kept, and tight edges are those where the two are equal. Rows that find a
//! free tight column take it; every other row sends a Dijkstra search through the reduced costs c - u - v to the
//! nearest free column. O(n^3) at worst, with one pass over a row of the matrix as its inner loop.

use crate::control::Control;
use crate::error::{Error, Result};

const FREE: usize = usize::MAX;

/// For each of `rows` rows the column it goes with; `cost` is row-major, with at least as many columns as rows.
///
/// Errors: `Usage` for a size that isn't rows × columns, for fewer columns than rows, and for costs that aren't finite,
/// or so large that sums of them aren't; `Cancelled` through `control`.
pub fn assign(cost: &[f64], rows: usize, columns: usize, control: &Control) -> Result<Vec<usize>> {
    if rows.checked_mul(columns) != Some(cost.len()) || columns < rows {
        let why = format!("{} costs for {rows} rows and {columns} columns, of which there must be as many", cost.len());
        return Err(Error::usage("bad_costs", why));
    }
    // A path has at most as many steps as there are columns, each of a cost and two potentials.
    let most = f64::MAX / (8.0 * (columns as f64 + 1.0));
    if !cost.iter().all(|c| c.abs() <= most) {
        return Err(Error::usage("bad_costs", "an assignment needs finite costs with finite sums"));
    }
    if rows == 0 {
        return Ok(Vec::new());
    }
    let mut state = State::new(cost, rows, columns);
    for start in 0..rows {
        if state.column_of[start] == FREE {
            state.augment(start, control)?;
        }
    }
    Ok(state.column_of)
}

struct State<'a> {
    cost: &'a [f64],
    columns: usize,
    u: Vec<f64>,
    v: Vec<f64>,
    row_of: Vec<usize>,
    column_of: Vec<usize>,
    /// Of the search that runs: length of the shortest path to each column, the row before it, and whether the search
    /// has been there.
    distance: Vec<f64>,
    before: Vec<usize>,
    seen: Vec<bool>,
}

impl<'a> State<'a> {
    /// Potentials that are feasible, and what they settle already.
    fn new(cost: &'a [f64], rows: usize, columns: usize) -> Self {
        // Any v makes a start where all columns are used in the end; else columns left over must keep v = 0.
        let mut v = vec![0.0; columns];
        if rows == columns {
            v.copy_from_slice(&cost[..columns]);
            for row in cost.chunks_exact(columns) {
                v.iter_mut().zip(row).for_each(|(v, &c)| *v = v.min(c));
            }
        }
        let mut u = Vec::with_capacity(rows);
        let (mut row_of, mut column_of) = (vec![FREE; columns], vec![FREE; rows]);
        for (i, row) in cost.chunks_exact(columns).enumerate() {
            let least = row.iter().zip(&v).map(|(c, v)| c - v).fold(f64::INFINITY, f64::min);
            let tight = (0..columns).find(|&j| row_of[j] == FREE && row[j] - v[j] - least <= 0.0);
            if let Some(j) = tight {
                (row_of[j], column_of[i]) = (i, j);
            }
            u.push(least);
        }
        let (distance, before, seen) = (vec![0.0; columns], vec![0; columns], vec![false; columns]);
        Self { cost, columns, u, v, row_of, column_of, distance, before, seen }
    }

    /// Give row `start` a column by the shortest path of swaps; keeps the potentials feasible.
    fn augment(&mut self, start: usize, control: &Control) -> Result<()> {
        self.distance.fill(f64::INFINITY);
        self.seen.fill(false);
        let (mut row, mut low) = (start, 0.0);
        let mut passed = Vec::new();
        let mut end = loop {
            control.check()?;
            let (j, reach) = self.step(row, low);
            low = reach;
            if self.row_of[j] == FREE {
                break j;
            }
            self.seen[j] = true;
            passed.push(j);
            row = self.row_of[j];
        };
        self.u[start] += low;
        for j in passed {
            let gain = low - self.distance[j];
            self.u[self.row_of[j]] += gain;
            self.v[j] -= gain;
        }
        loop {
            let i = self.before[end];
            self.row_of[end] = i;
            std::mem::swap(&mut self.column_of[i], &mut end);
            if i == start {
                return Ok(());
            }
        }
    }

    /// Go on from `row`, which lies `low` away: the nearest column where the search hasn't been, and its distance.
    fn step(&mut self, row: usize, low: f64) -> (usize, f64) {
        let costs = &self.cost[row * self.columns..][..self.columns];
        let away = low - self.u[row];
        let (mut nearest, mut least) = (0, f64::INFINITY);
        let table = self.distance.iter_mut().zip(&mut self.before).zip(&self.seen);
        for (j, ((&c, &v), ((distance, before), &seen))) in costs.iter().zip(&self.v).zip(table).enumerate() {
            if seen {
                continue;
            }
            let further = away + (c - v);
            if further < *distance {
                (*distance, *before) = (further, row);
            }
            if *distance < least {
                (nearest, least) = (j, *distance);
            }
        }
        (nearest, least)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    /// The least total by trying everything.
    fn least(cost: &[f64], columns: usize, row: usize, used: &mut Vec<usize>) -> f64 {
        if row * columns == cost.len() {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for j in 0..columns {
            if !used.contains(&j) {
                used.push(j);
                best = best.min(cost[row * columns + j] + least(cost, columns, row + 1, used));
                used.pop();
            }
        }
        best
    }

    proptest! {
        #[test]
        fn the_total_is_the_least(rows in 1usize..6, more in 0usize..3, seed in proptest::collection::vec(-9i32..9, 64)) {
            let columns = rows + more;
            let cost: Vec<f64> = seed[..rows * columns].iter().map(|&x| f64::from(x) / 4.0).collect();
            let found = assign(&cost, rows, columns, &Control::new()).unwrap();
            let total: f64 = found.iter().enumerate().map(|(i, &j)| cost[i * columns + j]).sum();
            let mut distinct = found.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), rows);
            prop_assert_eq!(total, least(&cost, columns, 0, &mut Vec::new()));
        }
    }

    #[test]
    fn wrong_sizes_values_and_a_caller_who_left() {
        let control = Control::new();
        for (cost, rows, columns) in
            [(&[1.0, 2.0][..], 2, 1), (&[1.0], 1, 2), (&[f64::NAN], 1, 1), (&[f64::MAX], 1, 1), (&[], usize::MAX, 2)]
        {
            assert_eq!(assign(cost, rows, columns, &control).unwrap_err().code, "bad_costs");
        }
        assert!(assign(&[], 0, 0, &control).unwrap().is_empty());
        control.cancel();
        assert_eq!(assign(&[0.0, 0.0, 0.0, 1.0], 2, 2, &control).unwrap_err().kind, ErrorKind::Cancelled);
    }
}
