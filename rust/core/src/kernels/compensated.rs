//! Compensated sums over a table of values and their counts: each rounding is summed too (Neumaier 1974), in four
//! lanes.
//!
//! A rounding is had by Knuth's TwoSum, which compares nothing and so runs in vectors; it is exact, and no product is
//! fused, so every instruction set gives the same bits.

use super::dispatch::shells;

const LANES: usize = 4;

type Values = [(f64, u64)];

shells!(totals, totals_v3, totals_v4, totals_body, (values: &Values) -> [f64; 2]);
shells!(powers, powers_v3, powers_v4, powers_body, (values: &Values, center: f64) -> [f64; 4]);

/// Σ c·x and Σ c·|x|.
#[inline(always)]
fn totals_body<const FMA: bool>(values: &Values) -> [f64; 2] {
    sums(values, |x, c| [x * c, x.abs() * c])
}

/// Σ c·(x − center)^k for k from 1 to 4.
#[inline(always)]
fn powers_body<const FMA: bool>(values: &Values, center: f64) -> [f64; 4] {
    sums(values, |x, c| {
        let d = x - center;
        let q = d * d;
        [d * c, q * c, q * d * c, q * q * c]
    })
}

/// The sums of `N` terms of every value.
#[inline(always)]
fn sums<const N: usize>(values: &Values, terms: impl Fn(f64, f64) -> [f64; N]) -> [f64; N] {
    let (mut sum, mut lost) = ([[0.0; LANES]; N], [[0.0; LANES]; N]);
    let (groups, tail) = values.as_chunks::<LANES>();
    // A value that never occurs adds 0.
    let mut last = [(0.0, 0); LANES];
    last[..tail.len()].copy_from_slice(tail);
    for group in groups.iter().chain([&last]) {
        let mut new = [[0.0; LANES]; N];
        for j in 0..LANES {
            let (x, c) = group[j];
            let terms = terms(x, c as f64);
            for k in 0..N {
                new[k][j] = terms[k];
            }
        }
        for k in 0..N {
            for j in 0..LANES {
                let (next, rounding) = two_sum(sum[k][j], new[k][j]);
                sum[k][j] = next;
                lost[k][j] += rounding;
            }
        }
    }
    std::array::from_fn(|k| {
        let (mut total, mut rest) = (0.0, 0.0);
        for x in sum[k] {
            let (next, rounding) = two_sum(total, x);
            total = next;
            rest += rounding;
        }
        total + (rest + lost[k].iter().sum::<f64>())
    })
}

/// a + b, and what its rounding lost.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::{BASE_FMA, Isa};
    use super::*;

    #[test]
    fn what_cancels_is_kept_and_every_instruction_set_agrees() {
        // ±2^60 around a small rest, at every place of a group and of the tail.
        for n in 1..20 {
            let mut values: Vec<(f64, u64)> = (0..n).map(|i| (f64::from(i) + 0.5, u64::from(i as u32 % 3))).collect();
            let rest: f64 = values.iter().map(|&(x, c)| x * c as f64).sum();
            for at in 0..=values.len() {
                values.insert(at, (2f64.powi(58), 4));
                values.insert(values.len() - at, (-2f64.powi(60), 1));
                let base = totals_body::<BASE_FMA>(&values);
                assert_eq!(base, [rest, rest + 2f64.powi(61)], "{values:?}");
                for isa in Isa::available() {
                    assert_eq!(totals(isa, &values), base, "{isa:?}");
                    assert_eq!(powers(isa, &values, 0.75), powers_body::<BASE_FMA>(&values, 0.75), "{isa:?}");
                }
                values.retain(|v| v.0.abs() < 1e9);
            }
        }
    }
}
