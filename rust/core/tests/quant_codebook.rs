//! Codes into tables, against one look-up at a time.

mod quant_support;
mod stats_support;

use proptest::prelude::*;
use quant_support::*;
use stats_support::{Rng, code_value};
use weightprint_core::control::Control;
use weightprint_core::dtype::Dtype;
use weightprint_core::error::ErrorKind;
use weightprint_core::quant::{Codebook, Lookup, Scales, Settings};

/// E2M1 as OCP MX v1.0 prints it.
const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

fn oracle(b: &Codebook<'_>) -> Vec<f32> {
    let mut out = Vec::new();
    for r in 0..b.rows {
        for c in 0..b.columns {
            let n = b.first + r * b.stride + c;
            let byte = b.codes[n / 2];
            let code = if n.is_multiple_of(2) == b.low_first { byte % 16 } else { byte / 16 };
            let block = (b.block_offset + n) / b.block;
            let scale = match b.scales {
                Scales::F32(scales) => scales[block],
                Scales::Small(dtype, codes) => code_value(dtype, u64::from(codes[block])) as f32,
            };
            out.push(mul(b.table[code as usize], scale));
        }
    }
    out
}

fn verify(b: &Codebook<'_>, what: &str) {
    check(&oracle(b), what, |settings, control, out| b.decode(settings, control, out));
}

#[test]
fn rectangles_of_flat_blocks() {
    let mut r = Rng(21);
    let table: [f32; 16] = std::array::from_fn(|_| r.normal() as f32);
    let codes = random_bytes(&mut r, 40_000);
    let scales = floats(&mut r, 9000);
    for low_first in [false, true] {
        for block in [64usize, 32, 16, 1, 7, 4096, 1 << 40] {
            for (rows, columns, stride) in
                [(1, 1, 0), (3, 64, 64), (5, 100, 333), (40, 1000, 1000), (7, 33, 35), (2, 4101, 5000)]
            {
                for (first, block_offset) in [(0usize, 0usize), (1, 0), (13, 3), (64, 63)] {
                    let need = (block_offset + first + (rows - 1) * stride + columns).div_ceil(block);
                    if need > scales.len() {
                        continue;
                    }
                    let scales = Scales::F32(&scales[..need]);
                    let b = Codebook {
                        codes: &codes,
                        low_first,
                        table,
                        scales,
                        block,
                        block_offset,
                        rows,
                        columns,
                        first,
                        stride,
                    };
                    verify(
                        &b,
                        &format!("{rows}×{columns} of {stride} from {first}, blocks of {block} from {block_offset}"),
                    );
                }
            }
        }
    }
}

#[test]
fn scales_of_eight_bits() {
    let mut r = Rng(22);
    let codes = random_bytes(&mut r, 256 * 32 / 2);
    // Every code of the scale's type once, 2^-127 and NaN among them.
    let scales: Vec<u8> = (0..=255).collect();
    for (dtype, block) in [(Dtype::F8E8M0, 32), (Dtype::F8E4M3, 32), (Dtype::F8E5M2, 32)] {
        let b = Codebook {
            codes: &codes,
            low_first: true,
            table: E2M1,
            scales: Scales::Small(dtype, &scales),
            block,
            block_offset: 0,
            rows: 16,
            columns: 512,
            first: 0,
            stride: 512,
        };
        verify(&b, dtype.name());
    }
}

#[test]
fn tables_of_256() {
    let mut r = Rng(23);
    let table: [f32; 256] = std::array::from_fn(|_| r.normal() as f32);
    for (n, block, offset) in
        [(0usize, 256usize, 0usize), (1, 1, 0), (1000, 256, 100), (200_000, 256, 0), (300, 1 << 50, 3)]
    {
        let codes = random_bytes(&mut r, n);
        let scales = floats(&mut r, (offset + n).div_ceil(block));
        let expected: Vec<f32> =
            (0..n).map(|i| add(mul(table[codes[i] as usize], scales[(offset + i) / block]), 0.125)).collect();
        let lookup = Lookup { codes: &codes, table: &table, scales: &scales, block, offset, add: 0.125 };
        check(&expected, "lookup", |settings, control, out| lookup.decode(settings, control, out));
    }
    let lookup = Lookup { codes: &[0; 9], table: &table, scales: &[1.0; 2], block: 4, offset: 0, add: 0.0 };
    let run = |l: Lookup<'_>, n: usize| usage_code(l.decode(Settings::default(), &Control::new(), &mut vec![0.0; n]));
    assert_eq!(run(lookup, 9), "grid_too_small");
    assert_eq!(run(lookup, 8), "length_mismatch");
    assert_eq!(run(Lookup { block: 0, ..lookup }, 9), "zero_size");
    assert_eq!(run(Lookup { offset: usize::MAX, ..lookup }, 9), "too_large");
}

#[test]
fn mismatches_are_typed() {
    let (codes, scales) = ([0u8; 8], [1.0f32; 4]);
    let good = Codebook {
        codes: &codes,
        low_first: false,
        table: E2M1,
        scales: Scales::F32(&scales),
        block: 4,
        block_offset: 0,
        rows: 2,
        columns: 8,
        first: 0,
        stride: 8,
    };
    let run = |b: Codebook<'_>, n: usize| b.decode(Settings::default(), &Control::new(), &mut vec![0.0; n]);
    run(good, 16).unwrap();
    assert_eq!(usage_code(run(good, 15)), "length_mismatch");
    assert_eq!(usage_code(run(Codebook { first: 1, ..good }, 16)), "codes_too_short");
    assert_eq!(usage_code(run(Codebook { stride: usize::MAX, ..good }, 16)), "codes_too_short");
    assert_eq!(usage_code(run(Codebook { stride: 7, ..good }, 16)), "rows_overlap");
    assert_eq!(usage_code(run(Codebook { block_offset: 1, ..good }, 16)), "grid_too_small");
    assert_eq!(usage_code(run(Codebook { block: 0, ..good }, 16)), "zero_size");
    assert_eq!(
        usage_code(run(Codebook { scales: Scales::Small(Dtype::I8, &codes), ..good }, 16)),
        "unknown_scale_dtype"
    );
    assert_eq!(
        usage_code(run(Codebook { scales: Scales::Small(Dtype::F4, &codes), ..good }, 16)),
        "unknown_scale_dtype"
    );
    run(Codebook { rows: 0, codes: &[], ..good }, 0).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn no_length_panics(
        codes in 0usize..20,
        (rows, columns, stride) in (0usize..5, 0usize..9, prop_oneof![0usize..9, Just(usize::MAX)]),
        first in prop_oneof![0usize..9, Just(usize::MAX)],
        (block, block_offset) in (prop_oneof![0usize..9, Just(usize::MAX)], prop_oneof![0usize..9, Just(usize::MAX)]),
        n_scales in 0usize..9,
        (exact, n) in (any::<bool>(), 0usize..40),
    ) {
        let (codes, scales) = (vec![0x4b; codes], vec![0.5; n_scales]);
        let b = Codebook {
            codes: &codes, low_first: true, table: E2M1, scales: Scales::F32(&scales), block, block_offset, rows, columns,
            first, stride,
        };
        let mut out = vec![0.0; if exact { rows * columns } else { n }];
        match b.decode(Settings::default(), &Control::new(), &mut out) {
            Ok(()) => assert_same(&out, &oracle(&b), "accepted"),
            Err(e) => prop_assert_eq!(e.kind, ErrorKind::Usage),
        }
    }
}
