//! A sample is what picking rows and columns out of the decoded tensor gives, for every dtype and any runs.

use std::fs;
use std::path::{Path, PathBuf};

use weightprint_core::control::Control;
use weightprint_core::dtype::{Class, Dtype};
use weightprint_core::error::ErrorKind;
use weightprint_core::format::{Limits, Mode};
use weightprint_core::source::rect::{self, Rect};
use weightprint_core::source::{Runs, TensorFile, sample};

/// Pseudo-random numbers, the same on every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// One matrix of every dtype but complex ones, of `rows` × `columns`.
fn file(name: &str, rows: u64, columns: u64) -> (PathBuf, Vec<Dtype>) {
    let dtypes: Vec<Dtype> = Dtype::all().filter(|d| d.class() != Class::Complex).collect();
    let (mut entries, mut data, mut draw) = (Vec::new(), Vec::new(), Draw(7));
    for dtype in &dtypes {
        let n = rows * columns * u64::from(dtype.bits()) / 8;
        let begin = data.len();
        data.extend((0..n).map(|_| draw.below(256) as u8));
        entries.push(format!(
            r#""{}":{{"dtype":"{}","shape":[{rows},{columns}],"data_offsets":[{begin},{}]}}"#,
            dtype.name(),
            dtype.name(),
            data.len()
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let folder = std::env::temp_dir().join(format!("weightprint-sample-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
    (path, dtypes)
}

fn open(path: &Path) -> TensorFile {
    TensorFile::open(path, Mode::Strict, &Limits::default(), &Control::new()).unwrap()
}

fn indices(runs: &[(u64, u64)]) -> Vec<u64> {
    runs.iter().flat_map(|&(start, n)| start..start + n).collect()
}

/// Ascending runs below `n`.
fn ascending(draw: &mut Draw, n: u64, longest: u64, gap: u64) -> Vec<(u64, u64)> {
    let (mut runs, mut at) = (Vec::new(), draw.below(gap));
    while at < n {
        let len = (1 + draw.below(longest)).min(n - at);
        runs.push((at, len));
        at += len + draw.below(gap);
    }
    runs
}

fn check(file: &TensorFile, i: usize, columns: u64, across: Option<&[(u64, u64)]>, down: &[(u64, u64)]) {
    let control = Control::new();
    let (n_rows, whole) =
        (file.header().shape(i)[0], Rect { first_row: 0, n_rows: 0, first_column: 0, n_columns: columns });
    let mut full = vec![0f32; (n_rows * columns) as usize];
    rect::read_f32(file, i, Rect { n_rows, ..whole }, &control, &mut full).unwrap();
    let kept = across.map_or_else(|| (0..columns).collect(), indices);
    let want: Vec<u32> = indices(down)
        .iter()
        .flat_map(|r| kept.iter().map(|c| full[(r * columns + c) as usize].to_bits()).collect::<Vec<_>>())
        .collect();
    let rows = Runs::new(down.to_vec()).unwrap();
    let columns = across.map(|runs| Runs::ascending(runs.to_vec()).unwrap());
    assert_eq!(sample::size(file, i, &rows, columns.as_ref()).unwrap(), want.len());
    for threads in [1, 2, 7] {
        let mut out = vec![0f32; want.len()];
        let read = sample::read_f32(file, i, &rows, columns.as_ref(), threads, &control, &mut out).unwrap();
        let got: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
        assert_eq!(got, want, "{} {across:?} {down:?}", file.header().name(i));
        assert!(read >= (want.len() as u64 * u64::from(file.header().dtype(i).bits())) / 8 || want.is_empty());
    }
}

#[test]
fn any_runs_of_any_dtype_are_what_picking_gives() {
    let (rows, columns) = (37, 88);
    let (path, dtypes) = file("small", rows, columns);
    let (file, mut draw) = (open(&path), Draw(1));
    for i in 0..dtypes.len() {
        for _ in 0..20 {
            let across = ascending(&mut draw, columns, 20, 30);
            // Rows may come in any order, and again.
            let mut down = ascending(&mut draw, rows, 5, 9);
            let again = down.clone();
            down.reverse();
            down.extend(again);
            check(&file, i, columns, Some(&across), &down);
            check(&file, i, columns, None, &down);
        }
        check(&file, i, columns, Some(&[(0, columns)]), &[(0, rows)]);
        check(&file, i, columns, Some(&[(3, 1), (4, 1)]), &[]);
        check(&file, i, columns, Some(&[]), &[(0, 2)]);
    }
}

/// Rows so long that runs of columns are read one by one, and matrices so large that threads share them.
#[test]
fn long_rows_and_large_matrices() {
    for (name, rows, columns) in [("long", 5, 1 << 16), ("large", 2000, 1 << 11)] {
        let (path, dtypes) = file(name, rows, columns);
        let (file, mut draw) = (open(&path), Draw(2));
        for i in 0..dtypes.len() {
            check(&file, i, columns, Some(&ascending(&mut draw, columns, columns / 16, columns / 4)), &[(1, rows - 2)]);
            check(&file, i, columns, Some(&[(columns / 2, 8)]), &[(0, rows)]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (path, _) = file("refused", 4, 8);
    let (file, control) = (open(&path), Control::new());
    let runs = |runs: &[(u64, u64)]| Runs::new(runs.to_vec()).unwrap();
    for (rows, columns) in
        [(&[(4, 1)][..], None), (&[(0, 5)], None), (&[(0, 1)], Some(&[(8, 1)][..])), (&[(3, 2)], None)]
    {
        let columns = columns.map(runs);
        let error = sample::size(&file, 0, &runs(rows), columns.as_ref()).unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Usage, "range_out_of_bounds"));
    }
    for bad in [&[(0, 0)][..], &[(u64::MAX, 2)], &[(0, u64::MAX), (1, 5)]] {
        assert_eq!(Runs::new(bad.to_vec()).unwrap_err().code, "bad_runs");
    }
    for bad in [&[(4, 2), (5, 1)][..], &[(4, 2), (0, 1)]] {
        assert_eq!(Runs::ascending(bad.to_vec()).unwrap_err().code, "bad_runs");
    }
    let error = sample::read_f32(&file, 0, &runs(&[(0, 1)]), None, 1, &control, &mut [0.0; 3]).unwrap_err();
    assert_eq!(error.code, "length_mismatch");
    control.cancel();
    let error = sample::read_f32(&file, 0, &runs(&[(0, 1)]), None, 1, &control, &mut [0.0; 8]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}
