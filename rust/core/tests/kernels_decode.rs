//! Decoding of every code of every dtype against the formats' formulas.

mod stats_support;

use stats_support::*;
use weightprint_core::dtype::Dtype;
use weightprint_core::kernels::{Isa, decode_f32, decode_f64};

fn same(a: f64, b: f64) -> bool {
    a == b && a.is_sign_negative() == b.is_sign_negative() || a.is_nan() && b.is_nan()
}

#[test]
fn every_code_up_to_sixteen_bits() {
    for dtype in Dtype::all().filter(|d| d.bits() <= 16) {
        let codes: Vec<u64> = (0..1u64 << dtype.bits()).collect();
        let bytes = pack(&codes, dtype.bits(), 0);
        let (mut f32s, mut f64s) = (vec![0.0f32; codes.len()], vec![0.0f64; codes.len()]);
        decode_f32(dtype, &bytes, 0, &mut f32s);
        decode_f64(dtype, &bytes, 0, &mut f64s);
        for &code in &codes {
            let want = code_value(dtype, code);
            assert!(same(f64s[code as usize], want), "{} {code:#x}: {want}", dtype.name());
            assert!(same(f64::from(f32s[code as usize]), want), "{} {code:#x}: {want}", dtype.name());
        }
    }
}

#[test]
fn wide_types() {
    let mut r = Rng(1);
    for dtype in Dtype::all().filter(|d| d.bits() > 16) {
        let w = width(dtype);
        let edges = [0, 1, u64::MAX, 1 << (w - 1), (1 << (w - 1)) - 1, 0x7f80_0000, 0x8000_0001];
        let codes: Vec<u64> =
            edges.into_iter().chain((0..993).map(|_| r.next())).map(|c| c & (u64::MAX >> (64 - w))).collect();
        let bytes = pack(&codes, w, 0);
        let mut f64s = vec![0.0f64; codes.len()];
        let mut f32s = vec![0.0f32; codes.len()];
        decode_f64(dtype, &bytes, 0, &mut f64s);
        decode_f32(dtype, &bytes, 0, &mut f32s);
        for (i, &code) in codes.iter().enumerate() {
            assert!(same(f64s[i], code_value(dtype, code)), "{} {code:#x}", dtype.name());
            // One rounding, from the integer itself: through f64 it would be two.
            let once = match dtype {
                Dtype::I64 => code as i64 as f32,
                Dtype::U64 => code as f32,
                _ => code_value(dtype, code) as f32,
            };
            assert!(same(f64::from(f32s[i]), f64::from(once)), "{} {code:#x}", dtype.name());
        }
    }
}

#[test]
fn documented_limits() {
    let largest = |dtype: Dtype| {
        let n = 1usize << dtype.bits();
        let bytes = pack(&(0..n as u64).collect::<Vec<_>>(), dtype.bits(), 0);
        let mut out = vec![0.0; n];
        decode_f64(dtype, &bytes, 0, &mut out);
        out.into_iter().filter(|x| x.is_finite()).fold(0.0, f64::max)
    };
    // The maxima that the OCP and FNUZ papers print.
    assert_eq!(largest(Dtype::F8E4M3), 448.0);
    assert_eq!(largest(Dtype::F8E5M2), 57344.0);
    assert_eq!(largest(Dtype::F8E4M3Fnuz), 240.0);
    assert_eq!(largest(Dtype::F8E5M2Fnuz), 57344.0);
    assert_eq!(largest(Dtype::F4), 6.0);
    assert_eq!(largest(Dtype::F6E2M3), 7.5);
    assert_eq!(largest(Dtype::F6E3M2), 28.0);
    assert_eq!(largest(Dtype::F8E8M0), 2f64.powi(127));
    assert_eq!(largest(Dtype::F16), 65504.0);
}

#[test]
fn sub_byte_types_from_any_bit() {
    let mut r = Rng(2);
    for dtype in Dtype::all().filter(|d| d.bits() < 8) {
        for first_bit in 0..8 {
            for n in 0..20 {
                let codes: Vec<u64> = (0..n).map(|_| r.next() & ((1 << dtype.bits()) - 1)).collect();
                let bytes = pack(&codes, dtype.bits(), first_bit);
                let mut out = vec![0.0; n];
                decode_f64(dtype, &bytes, first_bit, &mut out);
                let want: Vec<f64> = codes.iter().map(|c| code_value(dtype, *c)).collect();
                assert_eq!(out, want, "{} from bit {first_bit}", dtype.name());
            }
        }
    }
}

#[test]
fn instruction_sets_have_names() {
    for isa in Isa::available() {
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
        assert_eq!(isa.supported(), isa);
    }
    assert_eq!(Isa::available()[0], Isa::detect());
    assert_eq!(Isa::available().last(), Some(&Isa::Portable));
    assert_eq!(Isa::from_name("sse9"), None);
}
