//! The linear sketch against its definition, and on every instruction set, cut and type.

mod stats_support;

use stats_support::*;
use weightprint_core::dtype::Dtype;
use weightprint_core::kernels::{BUCKETS, Isa};
use weightprint_core::stats::Sketch;

fn of(isa: Isa, dtype: Dtype, bytes: &[u8], n: usize, key: u64, step: usize) -> [f64; BUCKETS] {
    let mut total = Sketch::new(key);
    let bits = width(dtype) as usize;
    for first in (0..n).step_by(step) {
        let here = step.min(n - first);
        let mut part = Sketch::new(key);
        part.update(isa, dtype, &bytes[first * bits / 8..], first as u64, here as u64);
        total.merge(&part);
    }
    total.finish()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn bits_do_not_depend_on_instructions_cuts_or_the_stored_type() {
    let n = (1 << 20) + 3 * (1 << 18) + 777;
    let mut r = Rng(1);
    let codes: Vec<u64> = (0..n).map(|_| encode(Dtype::Bf16, r.normal())).collect();
    let bytes = pack(&codes, 16, 0);
    let wide = f32s(&values(Dtype::Bf16, &bytes, 0, n).iter().map(|&x| x as f32).collect::<Vec<_>>());
    let want = of(Isa::Portable, Dtype::Bf16, &bytes, n, 5, 1 << 18);
    for isa in Isa::available() {
        for step in [1 << 17, 1 << 20, 1 << 22] {
            assert_eq!(of(isa, Dtype::Bf16, &bytes, n, 5, step), want, "{isa:?} {step}");
            assert_eq!(of(isa, Dtype::F32, &wide, n, 5, step), want, "{isa:?} {step}");
        }
    }
}

#[test]
fn each_value_is_in_its_bucket_with_a_sign_of_its_own() {
    for i in [0, 1, 255, 256, 70_001, (1 << 20) + 3] {
        let mut x = vec![0f32; (1 << 20) + 512];
        x[i] = 3.0;
        let sums = of(Isa::detect(), Dtype::F32, &f32s(&x), x.len(), 9, 1 << 20);
        let hit: Vec<_> = (0..BUCKETS).filter(|&k| sums[k] != 0.0).collect();
        assert_eq!(hit, [i % BUCKETS]);
        assert_eq!(sums[i % BUCKETS].abs(), 3.0);
    }
    // Signs are fair: 4096 of them sum to 0 within 5 deviations.
    let ones = f32s(&vec![1.0; BUCKETS]);
    let plus: f64 =
        (0..16).map(|key| of(Isa::detect(), Dtype::F32, &ones, BUCKETS, key, BUCKETS).iter().sum::<f64>()).sum();
    assert!(plus.abs() < 5.0 * 64.0, "{plus}");
}

#[test]
fn what_is_no_number_adds_nothing() {
    let mut x: Vec<f32> = (0..5000u16).map(|i| f32::from(i) - 2500.0).collect();
    let mut cleaned = x.clone();
    for (i, bad) in [(3, f32::NAN), (300, f32::INFINITY), (4000, f32::NEG_INFINITY), (4999, 1e15), (7, -f32::NAN)] {
        x[i] = bad;
        cleaned[i] = 0.0;
    }
    for isa in Isa::available() {
        let [a, b] = [&x, &cleaned].map(|x| of(isa, Dtype::F32, &f32s(x), x.len(), 2, 1 << 20));
        assert_eq!(a, b, "{isa:?}");
    }
}

#[test]
fn sketches_add_up_and_keep_inner_products() {
    let n = 200_000;
    let mut r = Rng(4);
    let a: Vec<f32> = (0..n).map(|_| r.normal() as f32).collect();
    let b: Vec<f32> = a.iter().map(|x| 0.5 * x + r.normal() as f32).collect();
    let both: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (norm_a, norm_b, inner) = (dot(&wide(&a), &wide(&a)), dot(&wide(&b), &wide(&b)), dot(&wide(&a), &wide(&b)));
    let deviation = ((norm_a * norm_b + inner * inner) / BUCKETS as f64).sqrt();
    let (mut sum, mut squares) = (0.0, 0.0);
    for key in 0..200 {
        let [x, y, z] = [&a, &b, &both].map(|v| of(Isa::detect(), Dtype::F32, &f32s(v), n, key, 1 << 20));
        for ((x, y), z) in x.iter().zip(&y).zip(&z) {
            assert!((x + y - z).abs() < 1e-6 * (norm_a + norm_b).sqrt(), "{x} + {y} is not {z}");
        }
        let error = (dot(&x, &y) - inner) / deviation;
        sum += error;
        squares += error * error;
    }
    // 200 draws: the mean within 4/√200 deviations, the variance within 4·√(2/200) (a little more: χ² of few buckets).
    assert!((sum / 200.0f64).abs() < 0.29, "biased by {} deviations", sum / 200.0);
    assert!((squares / 200.0 - 1.0f64).abs() < 0.45, "the variance is {} times the derived one", squares / 200.0);
}
