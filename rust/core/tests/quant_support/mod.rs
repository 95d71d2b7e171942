//! What the tests of quantised weights share: rounding of one operation at a time through f64, and comparison of bits.
#![allow(dead_code)]

use weightprint_core::control::Control;
use weightprint_core::error::{Error, ErrorKind, Result};
use weightprint_core::kernels::Isa;
use weightprint_core::quant::Settings;

use super::stats_support::Rng;

/// a · b rounded once: the product of two f32 is exact in f64.
pub fn mul(a: f32, b: f32) -> f32 {
    (f64::from(a) * f64::from(b)) as f32
}

/// a − b rounded once: rounding to 53 bits first cannot change a result of 24 (Figueroa 1995: 53 ≥ 2·24 + 2).
pub fn sub(a: f32, b: f32) -> f32 {
    (f64::from(a) - f64::from(b)) as f32
}

/// As [`sub`].
pub fn add(a: f32, b: f32) -> f32 {
    (f64::from(a) + f64::from(b)) as f32
}

/// The same bits, or both NaN.
pub fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let same = f.to_bits() == e.to_bits() || f.is_nan() && e.is_nan();
        assert!(same, "{what}: element {i} is {f:e} ({:#x}), not {e:e} ({:#x})", f.to_bits(), e.to_bits());
    }
}

/// Decodes with every instruction set and compares each with `expected`.
pub fn check(expected: &[f32], what: &str, decode: impl Fn(Settings, &Control, &mut [f32]) -> Result<()>) {
    for isa in Isa::available() {
        let mut out = vec![f32::from_bits(0x7fab_cdef); expected.len()];
        decode(Settings { isa, threads: 1 }, &Control::new(), &mut out).expect(what);
        assert_same(&out, expected, &format!("{what}, {}", isa.name()));
    }
}

/// Numbers like scales: normal, of either sign.
pub fn floats(r: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| (r.normal() * 0.01) as f32).collect()
}

/// Random bytes.
pub fn random_bytes(r: &mut Rng, n: usize) -> Vec<u8> {
    (0..n).map(|_| r.next() as u8).collect()
}

/// The code of an error of kind `Usage`.
pub fn usage_code(result: Result<()>) -> &'static str {
    match result {
        Err(Error { kind: ErrorKind::Usage, code, .. }) => code,
        other => panic!("expected an error of kind Usage, got {other:?}"),
    }
}
