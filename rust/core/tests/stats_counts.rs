//! Counts, and everything that follows from them, against sorting and the oracle.

mod stats_support;

use std::collections::HashMap;

use proptest::prelude::{ProptestConfig, any, prop, proptest};
use stats_support::*;
use weightprint_core::dtype::{Class, Dtype};
use weightprint_core::stats::{Counts, QUANTILE_LEVELS};

fn counts(dtype: Dtype, bytes: &[u8], first_bit: u32, n: u64, first: u64) -> Counts {
    let mut c = Counts::new(dtype);
    c.update(bytes, first_bit, n, first);
    c
}

/// Smallest value v with F(v) ≥ level, by sorting.
fn quantile(sorted: &[f64], level: f64) -> f64 {
    let ten_thousandths = (level * 10_000.0).round() as usize;
    match sorted.len() {
        0 => f64::NAN,
        n => sorted[(ten_thousandths * n).div_ceil(10_000).max(1) - 1],
    }
}

fn key(x: f64) -> u64 {
    if x.is_nan() { f64::NAN.to_bits() } else { (x + 0.0).to_bits() }
}

fn check_distribution(context: &str, c: &Counts, values: &[f64]) {
    let d = c.distribution();
    let mut sorted: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let mut magnitudes: Vec<f64> = sorted.iter().map(|x| x.abs()).collect();
    magnitudes.sort_by(f64::total_cmp);
    let near = |got: f64, want: f64, what: &str| {
        let ok = got == want || got.is_nan() && want.is_nan() || (got - want).abs() <= d.quantile_error * want.abs();
        assert!(ok, "{context}: {what} is {got:e}, should be {want:e}");
    };
    for (&level, &got) in QUANTILE_LEVELS.iter().zip(&d.quantiles) {
        near(got, quantile(&sorted, level), &format!("quantile {level}"));
    }
    near(d.abs_q9999, quantile(&magnitudes, 0.9999), "magnitude quantile");
    if c.dtype().bits() <= 16 {
        let mut by_value: HashMap<u64, u64> = HashMap::new();
        values.iter().for_each(|x| *by_value.entry(key(*x)).or_default() += 1);
        assert_eq!(d.n_distinct, Some(by_value.len() as u64), "{context}");
        let n = values.len() as f64;
        let entropy: f64 = by_value.values().map(|&c| -(c as f64 / n) * (c as f64 / n).log2()).sum();
        assert!(values.is_empty() && d.entropy.is_nan() || (d.entropy - entropy).abs() < 1e-9, "{context}: entropy");
    } else {
        assert_eq!(d.n_distinct, None);
    }
}

/// Checks one run of codes: at once, in three pieces through one state, and merged.
fn check_codes(context: &str, dtype: Dtype, codes: &[u64], first_bit: u32) {
    let (w, per) = (width(dtype), dtype.components() as usize);
    let context = format!("{context} {} n={} bit={first_bit}", dtype.name(), codes.len());
    let bytes = pack(codes, w, first_bit);
    let values = values(dtype, &bytes, first_bit, codes.len());
    let elements = codes.len() / per;
    let piece = |from: usize, to: usize, state: &mut Counts| {
        let bit = first_bit as usize + from * per * w as usize;
        state.update(&bytes[bit / 8..], (bit % 8) as u32, (to - from) as u64, (from * per) as u64);
    };
    let cuts = [0, elements / 3, elements / 3 + elements / 2, elements];
    let mut pieces = Counts::new(dtype);
    let mut merged = Counts::new(dtype);
    let mut reused = Counts::new(dtype);
    for w in cuts.windows(2) {
        piece(w[0], w[1], &mut pieces);
        reused.reset();
        piece(w[0], w[1], &mut reused);
        // Later pieces first: merging commutes.
        let mut sum = reused.clone();
        sum.merge(&merged);
        merged = sum;
    }
    for (how, state) in
        [("at once", counts(dtype, &bytes, first_bit, elements as u64, 0)), ("pieces", pieces), ("merged", merged)]
    {
        let context = format!("{context} {how}");
        check_distribution(&context, &state, &values);
        let (got, mut want) = (state.summary(), oracle(&values));
        if dtype.bits() > 16 {
            want.abs_max_index = None;
            want.first_nan = None;
            want.first_inf = None;
            assert!(got.mean.is_nan() && got.l1.is_nan());
            (want.mean, want.std, want.rms, want.l1, want.l2) = (f64::NAN, f64::NAN, f64::NAN, f64::NAN, f64::NAN);
            (want.skewness, want.kurtosis) = (f64::NAN, f64::NAN);
        }
        check(&context, &got, &want, 1e-13);
    }
}

#[test]
fn random_codes_of_every_dtype() {
    let mut r = Rng(1);
    for dtype in Dtype::all() {
        for n in [0, 1, 2, 3, 5, 1000, 50_000] {
            let n = n / dtype.components() as usize * dtype.components() as usize;
            let codes: Vec<u64> = (0..n).map(|_| r.next() & (u64::MAX >> (64 - width(dtype)))).collect();
            // Random f32 and f64 codes are subnormal once in 2^8; their quantiles are not promised, so none is drawn.
            let codes: Vec<u64> = codes
                .into_iter()
                .map(|c| {
                    if matches!(dtype, Dtype::F32 | Dtype::F64 | Dtype::C64) { c | 1 << (width(dtype) - 4) } else { c }
                })
                .collect();
            check_codes("random", dtype, &codes, 0);
        }
    }
}

#[test]
fn sub_byte_types_from_any_bit() {
    let mut r = Rng(2);
    for dtype in Dtype::all().filter(|d| d.bits() < 8) {
        for first_bit in (0..8).filter(|b| b % (dtype.bits() - if dtype.bits() == 6 { 4 } else { 0 }) == 0) {
            for n in [1, 2, 7, 30_001, 30_002, 30_003] {
                let codes: Vec<u64> = (0..n).map(|_| r.next() & ((1 << dtype.bits()) - 1)).collect();
                check_codes("bits", dtype, &codes, first_bit);
            }
        }
    }
}

#[test]
fn normal_values_of_every_float_and_integer() {
    let mut r = Rng(3);
    for dtype in Dtype::all().filter(|d| d.bits() >= 16) {
        let scale = if matches!(dtype.class(), Class::Float | Class::Complex) { 0.02 } else { 100.0 };
        let codes: Vec<u64> = (0..40_000).map(|_| encode(dtype, scale * r.normal())).collect();
        check_codes("normal", dtype, &codes, 0);
        let codes: Vec<u64> = (0..40_000).map(|i| encode(dtype, scale * 300.0 * (i % 100) as f64)).collect();
        check_codes("steps", dtype, &codes, 0);
    }
}

#[test]
fn constant_and_special_values() {
    for dtype in Dtype::all() {
        let w = width(dtype);
        let top = u64::MAX >> (64 - w);
        for code in [0, 1, 1 << (w - 1), top, top >> 1] {
            check_codes("constant", dtype, &vec![code; 20_000], 0);
        }
    }
    let mut r = Rng(4);
    for dtype in [Dtype::F32, Dtype::F64, Dtype::C64, Dtype::F16, Dtype::Bf16] {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
        let codes: Vec<u64> = (0..20_000)
            .map(|_| if r.uniform() < 0.5 { special[(r.next() % 5) as usize] } else { r.normal() })
            .map(|x| encode(dtype, x))
            .collect();
        check_codes("special", dtype, &codes, 0);
    }
}

#[test]
fn coordinates_are_the_first() {
    // The largest magnitude, a NaN and an infinity, each twice, late in a long run.
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F8E5M2, Dtype::F8E4M3, Dtype::I16, Dtype::U16, Dtype::U8, Dtype::I8] {
        let w = dtype.bits();
        let mut codes = vec![1u64; 30_000];
        let top = match dtype {
            Dtype::Bf16 => [0xff7f, 0x7f7f, 0x7fc1, 0xff80],
            Dtype::F16 => [0xfbff, 0x7bff, 0x7e01, 0xfc00],
            Dtype::F8E5M2 => [0xfb, 0x7b, 0x7f, 0xfc],
            Dtype::F8E4M3 => [0xfe, 0x7e, 0xff, 0x02],
            Dtype::I16 | Dtype::I8 => [1 << (w - 1), 1 << (w - 1), 0, 2],
            _ => [(1 << w) - 1, (1 << w) - 1, 0, 2],
        };
        for (i, at) in [29_001, 29_003, 20_001, 25_007].into_iter().enumerate() {
            codes[at] = top[i];
            codes[at + 500] = top[i];
        }
        check_codes("coordinates", dtype, &codes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_of_any_dtype(index in 0usize..22, seed in any::<u64>(), spread in 1u32..17, n in 0usize..3000, sizes in prop::collection::vec(1u64..9, 1..3)) {
        let dtype = Dtype::all().nth(index).expect("22 dtypes");
        let w = width(dtype);
        let n = n * sizes.iter().product::<u64>() as usize / dtype.components() as usize * dtype.components() as usize;
        let mut r = Rng(seed);
        let high = 1u64 << (w - 2).min(w - 1);
        let codes: Vec<u64> = (0..n)
            .map(|_| (r.next() & ((1 << spread.min(w)) - 1)) << (w - spread.min(w)))
            .map(|c| if matches!(dtype, Dtype::F32 | Dtype::F64 | Dtype::C64) { c | high >> 2 } else { c })
            .collect();
        check_codes("any", dtype, &codes, 0);
    }
}
