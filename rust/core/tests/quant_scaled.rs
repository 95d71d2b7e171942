//! One-byte codes under a grid of scales, against the formula one element at a time.

mod quant_support;
mod stats_support;

use proptest::prelude::*;
use quant_support::*;
use stats_support::{Rng, code_value};
use weightprint_core::control::Control;
use weightprint_core::dtype::Dtype;
use weightprint_core::quant::{Scaled, Settings};

const TYPES: [Dtype; 6] = [Dtype::F8E4M3, Dtype::F8E5M2, Dtype::F8E4M3Fnuz, Dtype::F8E5M2Fnuz, Dtype::I8, Dtype::U8];

/// The formula, with the grid position of each element.
fn oracle(s: &Scaled<'_>) -> Vec<f32> {
    let mut out = Vec::new();
    for r in 0..s.rows {
        for c in 0..s.columns {
            let row = (s.offset.0 + r) / s.block.0;
            let column = s.groups.map_or((s.offset.1 + c) / s.block.1, |g| g[c] as usize);
            let at = row * s.grid.1 + column;
            let value = code_value(s.dtype, u64::from(s.codes[r * s.columns + c])) as f32;
            let centred = s.zeros.map_or(value, |z| sub(value, z[at]));
            let scaled = mul(centred, s.scales[at]);
            out.push(if s.factor == 1.0 { scaled } else { mul(scaled, s.factor) });
        }
    }
    out
}

fn verify(s: &Scaled<'_>, what: &str) {
    check(&oracle(s), what, |settings, control, out| s.decode(settings, control, out));
}

fn plain<'a>(codes: &'a [u8], dtype: Dtype, columns: usize, scales: &'a [f32], grid: (usize, usize)) -> Scaled<'a> {
    Scaled {
        codes,
        dtype,
        rows: codes.len() / columns,
        columns,
        scales,
        zeros: None,
        grid,
        block: (codes.len() / columns, columns),
        offset: (0, 0),
        groups: None,
        factor: 1.0,
    }
}

#[test]
fn every_code_at_every_place() {
    // 256 codes from each start: each code meets every lane and every tail.
    let codes: Vec<u8> = (0..256 * 3).map(|i| i as u8).collect();
    for dtype in TYPES {
        for scale in [1.0, -0.37, 1e-30, 3e38, f32::INFINITY, f32::NAN, 0.0, f32::from_bits(1)] {
            for start in [0, 1, 7, 63, 64] {
                for n in [256, 257, 300] {
                    let scales = [scale];
                    let s = plain(&codes[start..start + n], dtype, n, &scales, (1, 1));
                    verify(&s, &format!("{} · {scale:e} from {start}", dtype.name()));
                    verify(&Scaled { factor: 0.007_874_016, ..s }, "with a factor");
                    verify(&Scaled { zeros: Some(&[3.0]), ..s }, "with a zero point");
                }
            }
        }
    }
}

#[test]
fn nan_codes_of_fp8_are_nan() {
    // As the OCP and FNUZ papers print them.
    let nans: [(Dtype, Vec<u8>); 4] = [
        (Dtype::F8E4M3, vec![0x7f, 0xff]),
        (Dtype::F8E5M2, vec![0x7d, 0x7e, 0x7f, 0xfd, 0xfe, 0xff]),
        (Dtype::F8E4M3Fnuz, vec![0x80]),
        (Dtype::F8E5M2Fnuz, vec![0x80]),
    ];
    for (dtype, nan) in nans {
        let codes: Vec<u8> = (0..=255).collect();
        let s = plain(&codes, dtype, 256, &[1.0], (1, 1));
        for isa in weightprint_core::kernels::Isa::available() {
            let mut out = vec![0.0; 256];
            s.decode(Settings { isa, threads: 1 }, &Control::new(), &mut out).unwrap();
            let found: Vec<u8> = (0..=255).filter(|&c| out[c as usize].is_nan()).collect();
            assert_eq!(found, nan, "{}", dtype.name());
        }
    }
}

#[test]
fn ragged_blocks() {
    let mut r = Rng(5);
    for dtype in TYPES {
        for (rows, columns) in [(1usize, 1usize), (3, 129), (130, 257), (5, 64), (257, 3), (2, 4096 + 77)] {
            for block in [(128usize, 128usize), (1, 128), (3, 7), (1, 1), (1000, 64), (2, 5000)] {
                for offset in [(0, 0), (block.0 - 1, block.1 / 2), (block.0 * 2 + 1, block.1 * 3)] {
                    let grid = ((offset.0 + rows).div_ceil(block.0), (offset.1 + columns).div_ceil(block.1) + 1);
                    let codes = random_bytes(&mut r, rows * columns);
                    let scales = floats(&mut r, grid.0 * grid.1);
                    let zeros = floats(&mut r, grid.0 * grid.1);
                    let zeros = r.next().is_multiple_of(2).then_some(&zeros[..]);
                    let base = plain(&codes, dtype, columns, &scales, grid);
                    let s = Scaled { rows, block, offset, zeros, ..base };
                    verify(&s, &format!("{} {rows}×{columns} in {block:?} from {offset:?}", dtype.name()));
                }
            }
        }
    }
}

#[test]
fn groups_in_any_order() {
    let mut r = Rng(6);
    let (rows, columns, n) = (7, 300, 9);
    let codes = random_bytes(&mut r, rows * columns);
    let (scales, zeros) = (floats(&mut r, rows * n), floats(&mut r, rows * n));
    let groups: Vec<i32> = (0..columns).map(|_| (r.next() % n as u64) as i32).collect();
    for dtype in TYPES {
        let s = Scaled {
            block: (1, 1),
            groups: Some(&groups),
            zeros: Some(&zeros),
            ..plain(&codes, dtype, columns, &scales, (rows, n))
        };
        verify(&s, dtype.name());
    }
}

#[test]
fn threads_and_chunks_change_nothing() {
    let mut r = Rng(7);
    let (rows, columns) = (1100, 2049);
    let codes = random_bytes(&mut r, rows * columns);
    let grid = (rows.div_ceil(128), columns.div_ceil(128));
    let scales = floats(&mut r, grid.0 * grid.1);
    let s = Scaled { block: (128, 128), ..plain(&codes, Dtype::F8E4M3, columns, &scales, grid) };
    let mut out = vec![0.0; rows * columns];
    s.decode(Settings { threads: 3, ..Settings::default() }, &Control::new(), &mut out).unwrap();
    assert_same(&out, &oracle(&s), "three threads");
    let control = Control::new();
    control.cancel();
    let stopped = s.decode(Settings::default(), &control, &mut out).unwrap_err();
    assert_eq!(stopped.kind, weightprint_core::error::ErrorKind::Cancelled);
}

#[test]
fn mismatches_are_typed() {
    let (codes, scales) = ([0u8; 12], [1.0f32; 4]);
    let good = Scaled { block: (2, 2), rows: 3, ..plain(&codes, Dtype::I8, 4, &scales, (2, 2)) };
    let run = |s: Scaled<'_>, n: usize| s.decode(Settings::default(), &Control::new(), &mut vec![0.0; n]);
    run(good, 12).unwrap();
    assert_eq!(usage_code(run(good, 11)), "length_mismatch");
    assert_eq!(usage_code(run(Scaled { rows: 4, ..good }, 16)), "length_mismatch");
    assert_eq!(usage_code(run(Scaled { scales: &scales[..3], ..good }, 12)), "length_mismatch");
    assert_eq!(usage_code(run(Scaled { zeros: Some(&scales[..1]), ..good }, 12)), "length_mismatch");
    assert_eq!(usage_code(run(Scaled { offset: (2, 0), ..good }, 12)), "grid_too_small");
    assert_eq!(usage_code(run(Scaled { offset: (0, 1), ..good }, 12)), "grid_too_small");
    assert_eq!(usage_code(run(Scaled { offset: (usize::MAX, 0), ..good }, 12)), "too_large");
    assert_eq!(usage_code(run(Scaled { block: (0, 2), ..good }, 12)), "zero_size");
    assert_eq!(usage_code(run(Scaled { block: (2, 0), ..good }, 12)), "zero_size");
    assert_eq!(usage_code(run(Scaled { rows: usize::MAX, ..good }, 12)), "too_large");
    assert_eq!(usage_code(run(Scaled { grid: (usize::MAX, 2), ..good }, 12)), "too_large");
    assert_eq!(usage_code(run(Scaled { groups: Some(&[0, 1, 1]), ..good }, 12)), "length_mismatch");
    assert_eq!(usage_code(run(Scaled { groups: Some(&[0, 1, 2, 0]), ..good }, 12)), "group_out_of_range");
    assert_eq!(usage_code(run(Scaled { groups: Some(&[0, -1, 0, 0]), ..good }, 12)), "group_out_of_range");
    assert_eq!(usage_code(run(Scaled { dtype: Dtype::Bf16, ..good }, 12)), "not_a_byte_type");
    assert_eq!(usage_code(run(Scaled { dtype: Dtype::F4, ..good }, 12)), "not_a_byte_type");
    let empty = plain(&[], Dtype::I8, 4, &scales, (2, 2));
    run(Scaled { block: (1, 2), ..empty }, 0).unwrap();
    run(Scaled { rows: 5, columns: 0, block: (8, 1), ..empty }, 0).unwrap();
}

proptest! {
    #[test]
    fn no_length_panics(
        (codes, rows, columns, n) in (0usize..40, 0usize..8, 0usize..8, 0usize..40),
        (n_scales, grid_rows, grid_columns) in (0usize..12, 0usize..4, 0usize..4),
        block in (0usize..5, 0usize..5),
        offset in (prop_oneof![0usize..6, Just(usize::MAX)], prop_oneof![0usize..6, Just(usize::MAX)]),
        groups in proptest::option::of(proptest::collection::vec(-1i32..5, 0..8)),
        zeros in proptest::option::of(0usize..12),
    ) {
        let (codes, scales) = (vec![0x3c; codes], vec![1.0; n_scales]);
        let zeros = zeros.map(|n| vec![0.5; n]);
        let s = Scaled {
            codes: &codes, dtype: Dtype::F8E4M3, rows, columns, scales: &scales, zeros: zeros.as_deref(),
            grid: (grid_rows, grid_columns), block, offset, groups: groups.as_deref(), factor: 1.0,
        };
        let mut out = vec![0.0; n];
        match s.decode(Settings::default(), &Control::new(), &mut out) {
            Ok(()) => assert_same(&out, &oracle(&s), "accepted"),
            Err(e) => prop_assert_eq!(e.kind, weightprint_core::error::ErrorKind::Usage),
        }
    }
}
