//! Moments of every dtype on every instruction set against the oracle.

mod stats_support;

use proptest::prelude::{ProptestConfig, any, prop, proptest};
use stats_support::*;
use weightprint_core::dtype::{Class, Dtype};
use weightprint_core::kernels::Isa;
use weightprint_core::stats::{Moments, Number};

fn dtypes() -> impl Iterator<Item = Dtype> {
    Dtype::all().filter(|d| d.bits() >= 8)
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype.class(), Class::Float | Class::Complex)
}

fn moments(dtype: Dtype, isa: Isa, bytes: &[u8], first: u64) -> Moments {
    let mut m = Moments::new(dtype);
    m.update(isa, bytes, first);
    m
}

/// Checks one run of codes on every instruction set; the vector ones must agree bit for bit.
fn check_codes(context: &str, dtype: Dtype, codes: &[u64]) {
    let bytes = pack(codes, width(dtype), 0);
    let want = oracle(&values(dtype, &bytes, 0, codes.len()));
    let mut vector = None;
    for isa in Isa::available() {
        let got = moments(dtype, isa, &bytes, 0).summary();
        check(&format!("{context} {} {}", dtype.name(), isa.name()), &got, &want, bound(dtype));
        if isa != Isa::Portable {
            let bits = format!("{got:?}");
            assert_eq!(*vector.get_or_insert(bits.clone()), bits, "{context}: AVX2 differs from AVX-512");
        }
    }
}

fn check_values(context: &str, dtype: Dtype, values: &[f64]) {
    let codes: Vec<u64> = values.iter().map(|x| encode(dtype, *x)).collect();
    check_codes(context, dtype, &codes);
}

/// The shapes of data that break naive sums, as values.
fn families(n: usize, seed: u64) -> Vec<(&'static str, Vec<f64>)> {
    let mut r = Rng(seed);
    let mut make = |f: &mut dyn FnMut(&mut Rng, usize) -> f64| (0..n).map(|i| f(&mut r, i)).collect::<Vec<f64>>();
    vec![
        ("normal", make(&mut |r, _| 0.02 * r.normal())),
        ("heavy-tailed", make(&mut |r, _| r.normal() / (r.normal().abs() + 1e-6))),
        ("mean far above std", make(&mut |r, _| 1000.0 + 0.01 * r.normal())),
        ("drifting mean", make(&mut |r, i| i as f64 * 0.01 + r.normal())),
        ("subnormal", make(&mut |r, _| 1e-40 * r.normal())),
        ("smallest subnormals", make(&mut |r, _| 3e-45 * r.normal())),
        ("huge", make(&mut |r, _| 1e38 * (2.0 * r.uniform() - 1.0) * 3.3)),
        ("1e30", make(&mut |r, _| 1e30 * r.normal())),
        ("1e-30", make(&mut |r, _| 1e-30 * r.normal())),
        ("all magnitudes", make(&mut |r, _| 10f64.powf(76.0 * r.uniform() - 38.0) * (r.normal()).signum())),
        ("constant", vec![1.5; n]),
        ("zeros", vec![0.0; n]),
        ("alternating", (0..n).map(|i| if i % 2 == 0 { 0.1 } else { -0.1 }).collect()),
        ("sparse", make(&mut |r, _| if r.uniform() < 0.01 { r.normal() } else { -0.0 })),
        ("one outlier", (0..n).map(|i| if i == n / 2 { 1e20 } else { (i % 7) as f64 }).collect()),
        ("positive", make(&mut |r, _| r.uniform() + 1e-3)),
        ("negative", make(&mut |r, _| -r.uniform() - 1e-3)),
        ("sorted", (0..n).map(|i| i as f64 - n as f64 / 3.0).collect()),
    ]
}

#[test]
fn families_of_values() {
    for n in [9000, 70_001] {
        for (name, values) in families(n, 1) {
            for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64] {
                check_values(&format!("{name} {n}"), dtype, &values);
            }
        }
    }
}

#[test]
fn nan_and_infinity_anywhere() {
    let mut r = Rng(2);
    for share in [0.0002, 0.3, 1.0] {
        let values: Vec<f64> = (0..20_000)
            .map(|_| match (r.uniform() < share, r.next() % 3) {
                (true, 0) => f64::NAN,
                (true, 1) => f64::INFINITY,
                (true, _) => f64::NEG_INFINITY,
                _ => r.normal(),
            })
            .collect();
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64] {
            check_values(&format!("special {share}"), dtype, &values);
        }
    }
}

#[test]
fn random_codes_of_every_dtype() {
    let mut r = Rng(3);
    for dtype in dtypes() {
        for n in [1000, 10_000] {
            let mask = u64::MAX >> (64 - width(dtype));
            let codes: Vec<u64> = (0..n).map(|_| r.next() & mask).collect();
            check_codes("random codes", dtype, &codes);
        }
    }
}

#[test]
fn extreme_f64() {
    let mut r = Rng(4);
    for scale in [1e-310, 1e-200, 1e200, 1e307] {
        let values: Vec<f64> = (0..5000).map(|_| scale * (r.uniform() - 0.3)).collect();
        check_values(&format!("scale {scale}"), Dtype::F64, &values);
    }
    let values: Vec<f64> = (0..9000).map(|i| if i < 4500 { 1e-300 * r.normal() } else { 1e300 * r.normal() }).collect();
    check_values("both ends", Dtype::F64, &values);
}

#[test]
fn every_short_length_and_alignment() {
    let mut r = Rng(5);
    for dtype in dtypes() {
        let size = (width(dtype) / 8) as usize;
        for n in (0..=100).chain([127, 128, 4095, 4096, 4097]) {
            let n = n / dtype.components() as usize * dtype.components() as usize;
            let codes: Vec<u64> = (0..n)
                .map(|_| if is_float(dtype) && dtype.bits() > 8 { encode(dtype, r.normal()) } else { r.next() >> 57 })
                .collect();
            check_codes(&format!("length {n}"), dtype, &codes);
            let bytes = pack(&codes, width(dtype), 0);
            let mut shifted = vec![0u8; bytes.len() + 64];
            for offset in [1, 3, 31, size] {
                shifted[offset..offset + bytes.len()].copy_from_slice(&bytes);
                for isa in Isa::available() {
                    let at = moments(dtype, isa, &bytes, 7).summary();
                    let off = moments(dtype, isa, &shifted[offset..offset + bytes.len()], 7).summary();
                    assert_eq!(format!("{at:?}"), format!("{off:?}"), "alignment must not matter");
                }
            }
        }
    }
}

#[test]
fn integer_extremes_are_exact() {
    for isa in Isa::available() {
        let words = [i64::MAX, i64::MIN, i64::MAX - 1, 0, -1];
        let bytes: Vec<u8> = words.iter().flat_map(|x| x.to_le_bytes()).collect();
        let s = moments(Dtype::I64, isa, &bytes, 10).summary();
        assert_eq!(s.min, Some(Number::Int(i64::MIN.into())));
        assert_eq!(s.max, Some(Number::Int(i64::MAX.into())));
        assert_eq!((s.abs_max, s.abs_max_index), (Some(Number::Int(1 << 63)), Some(11)));
        let words = [u64::MAX - 1, u64::MAX, u64::MAX];
        let bytes: Vec<u8> = words.iter().flat_map(|x| x.to_le_bytes()).collect();
        let s = moments(Dtype::U64, isa, &bytes, 0).summary();
        assert_eq!((s.max, s.abs_max_index), (Some(Number::Int(u64::MAX.into())), Some(1)));
    }
}

#[test]
fn negative_zero_counts_as_zero() {
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64] {
        check_values("zeros of both signs", dtype, &[-0.0, 0.0, -0.0]);
        check_values("negative and -0", dtype, &[-1.0, -0.0, -2.0]);
        check_values("positive and -0", dtype, &[1.0, -0.0, 2.0]);
        check_values("positive and +0", dtype, &[1.0, 0.0, 2.0]);
    }
}

/// A zero, or a sign that no other element has, in a vector's every kind of place: first, last, at a sweep's and a
/// block's end, in the tail.
#[test]
fn one_odd_element_among_many_of_one_sign() {
    let n = 40_011;
    let mut r = Rng(8);
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for sign in [1.0, -1.0] {
            let plain: Vec<f64> = (0..n).map(|_| sign * (0.01 + r.normal().abs())).collect();
            check_values("one sign", dtype, &plain);
            for at in [0, 31, 4095, 8191, 8192, 16_384, 32_767, 32_768, n - 1] {
                for odd in [0.0, -0.0, -sign * 0.5, -sign * 30.0, f64::NAN] {
                    let mut values = plain.clone();
                    values[at] = odd;
                    check_values(&format!("{odd} at {at}"), dtype, &values);
                }
            }
        }
    }
}

#[test]
fn same_chunks_same_bits() {
    let mut r = Rng(6);
    let bytes: Vec<u8> = (0..100_000).flat_map(|_| (r.normal() as f32).to_le_bytes()).collect();
    for isa in Isa::available() {
        let run = || {
            let mut total = Moments::new(Dtype::F32);
            for unit in 0..2u64 {
                let mut state = Moments::new(Dtype::F32);
                let unit_bytes = &bytes[unit as usize * 200_000..][..200_000];
                for (i, chunk) in unit_bytes.chunks(65_536).enumerate() {
                    state.update(isa, chunk, unit * 50_000 + i as u64 * 16_384);
                }
                total.merge(&state);
            }
            total.summary()
        };
        assert_eq!(format!("{:?}", run()), format!("{:?}", run()));
    }
}

/// The lanes' typical error is far below their bound; what users see should be too.
#[test]
fn normal_weights_are_accurate() {
    let mut r = Rng(7);
    let codes: Vec<u64> = (0..1_000_000).map(|_| encode(Dtype::Bf16, 0.02 * r.normal())).collect();
    let bytes = pack(&codes, 16, 0);
    let want = oracle(&values(Dtype::Bf16, &bytes, 0, codes.len()));
    for isa in Isa::available() {
        check(isa.name(), &moments(Dtype::Bf16, isa, &bytes, 0).summary(), &want, 5e-7);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_is_associative_within_the_bound(
        seed in any::<u64>(),
        cuts in prop::collection::vec(0usize..30_000, 0..6),
        scale in -40i32..38,
    ) {
        let mut r = Rng(seed);
        let values: Vec<f64> = (0..30_000).map(|_| 10f64.powi(scale) * (r.normal() + 0.5)).collect();
        let codes: Vec<u64> = values.iter().map(|x| encode(Dtype::F32, *x)).collect();
        let bytes = pack(&codes, 32, 0);
        let want = oracle(&stats_support::values(Dtype::F32, &bytes, 0, codes.len()));
        let mut cuts = cuts;
        cuts.extend([0, codes.len()]);
        cuts.sort_unstable();
        let parts: Vec<Moments> = cuts
            .windows(2)
            .map(|w| moments(Dtype::F32, Isa::detect(), &bytes[w[0] * 4..w[1] * 4], w[0] as u64))
            .collect();
        let fold = |parts: &[Moments]| {
            let mut total = Moments::new(Dtype::F32);
            parts.iter().for_each(|p| total.merge(p));
            total
        };
        let (left, right) = parts.split_at(parts.len() / 2);
        let (mut halves, right) = (fold(left), fold(right));
        halves.merge(&right);
        check("left to right", &fold(&parts).summary(), &want, 2e-5);
        check("by halves", &halves.summary(), &want, 2e-5);
    }
}
