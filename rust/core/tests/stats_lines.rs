//! Rows and columns against the oracle, however the tensor is cut.

mod stats_support;

use stats_support::*;
use weightprint_core::dtype::{Class, Dtype};
use weightprint_core::kernels::Isa;
use weightprint_core::stats::{ColumnMoments, Moments, RowMoments, RowPartial};

fn check_line(context: &str, got: &RowPartial, values: &[f64], eps: f64) {
    let want = oracle(values);
    assert_eq!(got.count(), want.n_finite, "{context}");
    let scale = want.l1 / want.n_finite.max(1) as f64;
    let close = |what: &str, a: f64, b: f64, within: f64| {
        assert!(a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= within, "{context}: {what} {a:e}, not {b:e}");
    };
    close("mean", got.mean(), want.mean, 3.0 * eps * want.std + 1e-14 * scale);
    close("std", got.std(), want.std, eps * want.std + 2e-15 * scale * (want.n_finite as f64).sqrt());
    close("l2", got.l2(), want.l2, eps * want.l2);
}

fn draw(dtype: Dtype, n: usize, seed: u64) -> Vec<u64> {
    let mut r = Rng(seed);
    let float = matches!(dtype.class(), Class::Float | Class::Complex) && dtype.bits() >= 16;
    (0..n)
        .map(|i| match float {
            true if r.uniform() < 1e-4 => encode(dtype, f64::NAN),
            true => encode(dtype, r.normal() + (i / 5000) as f64),
            false => r.next() & (u64::MAX >> (64 - width(dtype))),
        })
        .collect()
}

/// Cuts `n` components into runs of whole bytes and elements.
fn cuts(n: usize) -> Vec<usize> {
    vec![0, n / 5 / 8 * 8, n / 2 / 8 * 8, n / 2 / 8 * 8 + 8, n]
}

#[test]
fn rows_of_any_length_and_cut() {
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64, Dtype::I32, Dtype::C64, Dtype::F8E4M3] {
        let n = 60_000;
        let codes = draw(dtype, n, 1);
        let bytes = pack(&codes, width(dtype), 0);
        let values = values(dtype, &bytes, 0, n);
        let size = (width(dtype) / 8) as usize;
        for row_len in [1usize, 4, 50, 64, 100, 512, 1000, 4096, 7500, 60_000] {
            let row_len = row_len.max(dtype.components() as usize);
            for isa in Isa::available() {
                let context = format!("{} rows of {row_len} {}", dtype.name(), isa.name());
                let mut rows = RowMoments::new(row_len as u64, 0);
                let mut total = Moments::new(dtype);
                for w in cuts(n).windows(2) {
                    // Every run is a unit of its own, as in a scan.
                    let mut unit = RowMoments::new(row_len as u64, w[0] as u64);
                    let mut state = Moments::new(dtype);
                    let middle = (w[0] + w[1]) / 2 / 2 * 2;
                    for (a, b) in [(w[0], middle), (middle, w[1])] {
                        state.update_rows(isa, &bytes[a * size..b * size], a as u64, &mut unit);
                    }
                    rows.merge(&unit);
                    total.merge(&state);
                }
                check(&context, &total.summary(), &oracle(&values), bound(dtype));
                assert_eq!(rows.rows().len(), n.div_ceil(row_len));
                for (i, (row, want)) in rows.rows().iter().zip(values.chunks(row_len)).enumerate() {
                    check_line(&format!("{context} row {i}"), row, want, bound(dtype));
                }
            }
        }
    }
}

#[test]
fn rows_of_counted_types() {
    for dtype in Dtype::all().filter(|d| d.bits() <= 8) {
        let n = 4800;
        let codes = draw(dtype, n, 2);
        let bytes = pack(&codes, width(dtype), 0);
        let values = values(dtype, &bytes, 0, n);
        let mut rows = RowMoments::new(48, 0);
        for w in cuts(n).windows(2) {
            let bit = w[0] * width(dtype) as usize;
            rows.update(Isa::detect(), dtype, &bytes[bit / 8..], (bit % 8) as u32, (w[1] - w[0]) as u64);
        }
        for (i, (row, want)) in rows.rows().iter().zip(values.chunks(48)).enumerate() {
            check_line(&format!("{} row {i}", dtype.name()), row, want, 1e-13);
        }
    }
}

#[test]
fn columns_of_any_number_and_cut() {
    for dtype in Dtype::all() {
        let n = 12_000;
        let codes = draw(dtype, n, 3);
        let bytes = pack(&codes, width(dtype), 0);
        let values = values(dtype, &bytes, 0, n);
        for columns in [2usize, 6, 100, 256, 300, 1000, 6000] {
            for isa in Isa::available() {
                let context = format!("{} {columns} columns {}", dtype.name(), isa.name());
                let mut total = ColumnMoments::new(dtype, columns as u64);
                for w in cuts(n).windows(2) {
                    let mut unit = ColumnMoments::new(dtype, columns as u64);
                    let bit = w[0] * width(dtype) as usize;
                    unit.update(isa, &bytes[bit / 8..], (bit % 8) as u32, (w[1] - w[0]) as u64, w[0] as u64);
                    total.merge(&unit);
                }
                for (j, got) in total.columns().iter().enumerate() {
                    let column: Vec<f64> = values[j..].iter().copied().step_by(columns).collect();
                    check_line(&format!("{context} column {j}"), got, &column, 1e-12);
                }
            }
        }
    }
}

#[test]
fn columns_beyond_the_range_of_squares() {
    let mut r = Rng(4);
    let values: Vec<f64> = (0..3000).map(|i| r.normal() * [1e-300, 1.0, 1e300][i % 3]).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut c = ColumnMoments::new(Dtype::F64, 3);
    c.update(Isa::detect(), &bytes, 0, 3000, 0);
    for (j, got) in c.columns().iter().enumerate() {
        let column: Vec<f64> = values[j..].iter().copied().step_by(3).collect();
        check_line(&format!("column {j}"), got, &column, 1e-12);
    }
}
