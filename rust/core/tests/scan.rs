//! A scan's results do not depend on who did the work: threads, source of bytes, instruction set.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use weightprint_core::control::Control;
use weightprint_core::dtype::Dtype;
use weightprint_core::error::ErrorKind;
use weightprint_core::format::{Limits, Mode};
use weightprint_core::kernels::Isa;
use weightprint_core::scan::{Io, Request, Settings, Tensor, TensorResult, find_above, scan};
use weightprint_core::source::TensorFile;

const ALL: Request = Request { exact: true, rows: true, columns: true, digest: true };

/// Bytes that look random, the same on every run.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&next().to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A file with tensors (name, dtype, shape, bytes).
fn write(path: &Path, tensors: &[(String, Dtype, Vec<u64>, Vec<u8>)]) {
    let (mut entries, mut at) = (Vec::new(), 0);
    for (name, dtype, shape, bytes) in tensors {
        let end = at + bytes.len();
        entries
            .push(format!(r#""{name}":{{"dtype":"{}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#, dtype.name()));
        at = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    tensors.iter().for_each(|(.., bytes)| file.write_all(bytes).unwrap());
}

/// One tensor of every dtype that spans several units and whose rows straddle their ends, and some small ones.
fn zoo(folder: &Path) -> PathBuf {
    let mut tensors = Vec::new();
    for (i, dtype) in Dtype::all().enumerate() {
        for (rows, row) in [(1000, 1001 * 8), (3, 8), (0, 5), (1, 1 << 15)] {
            let bytes = (rows * row * u64::from(dtype.bits()) / 8) as usize;
            // Raw noise holds every pattern: NaN, infinities, denormals.
            let mut data = noise(bytes, (i as u64) << 8 | rows);
            if dtype == Dtype::F32 || dtype == Dtype::C64 || dtype == Dtype::F64 {
                // Keep most exponents near 0, so that moments are finite and comparable.
                let word = if dtype == Dtype::F64 { 8 } else { 4 };
                data.chunks_exact_mut(word).for_each(|w| w[word - 1] = 0x3f | (w[word - 1] & 0x80));
            }
            tensors.push((format!("{}.{rows}x{row}", dtype.name()), dtype, vec![rows, row], data));
        }
    }
    let path = folder.join("zoo.safetensors");
    write(&path, &tensors);
    path
}

fn open(path: &Path) -> TensorFile {
    TensorFile::open(path, Mode::Strict, &Limits::default(), &Control::new()).unwrap()
}

fn run(file: &TensorFile, request: Request, settings: Settings) -> Vec<TensorResult> {
    let tensors: Vec<_> = (0..file.header().len()).map(|i| Tensor::new(&[file], 0, i)).collect();
    scan(&[file], &tensors, request, settings, &Control::new()).unwrap()
}

/// Bit for bit, NaN included: the debug form prints every digit that tells two floats apart.
fn bits(results: &[TensorResult]) -> Vec<String> {
    results.iter().map(|r| format!("{r:?}")).collect()
}

#[test]
fn same_bits_for_any_threads_source_and_wide_instruction_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(&zoo(folder.path()));
    for request in [ALL, Request { rows: true, ..Request::default() }, Request::default()] {
        let base = bits(&run(&file, request, Settings { threads: 1, io: Io::Pread, isa: Isa::detect() }));
        assert_eq!(base.len(), 22 * 4);
        for threads in [2, 7] {
            for io in [Io::Pread, Io::Mmap] {
                for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Portable) {
                    let other = bits(&run(&file, request, Settings { threads, io, isa }));
                    for (i, (a, b)) in base.iter().zip(&other).enumerate() {
                        assert_eq!(a, b, "{} {threads} threads {io:?} {isa:?}", file.header().name(i));
                    }
                }
            }
        }
    }
}

#[test]
fn the_portable_path_counts_the_same_and_measures_within_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(&zoo(folder.path()));
    let best = run(&file, ALL, Settings::default());
    let portable = run(&file, ALL, Settings { isa: Isa::Portable, ..Settings::default() });
    for (i, (a, b)) in best.iter().zip(&portable).enumerate() {
        let name = file.header().name(i);
        assert_eq!(a.digest, b.digest);
        assert_eq!(format!("{:?}", a.distribution), format!("{:?}", b.distribution), "{name}");
        let counted = |r: &TensorResult| {
            let s = r.summary;
            (s.n, s.n_finite, s.n_zero, s.n_nan, s.n_posinf, s.n_neginf, s.min, s.max, s.abs_max_index, s.first_nan)
        };
        assert_eq!(counted(a), counted(b), "{name}");
        for (x, y) in [(a.summary.std, b.summary.std), (a.summary.l1, b.summary.l1), (a.summary.l2, b.summary.l2)] {
            assert!(x.is_nan() && y.is_nan() || (x - y).abs() <= 1e-5 * x.abs(), "{name}: {x} {y}");
        }
    }
}

#[test]
fn a_digest_is_blake3_of_the_raw_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = zoo(folder.path());
    let file = open(&path);
    let all = fs::read(&path).unwrap();
    let results = run(&file, Request { digest: true, ..Request::default() }, Settings::default());
    for (i, result) in results.iter().enumerate() {
        let (begin, end) = file.header().range(i);
        let start = file.data_start();
        let bytes = &all[(start + begin) as usize..(start + end) as usize];
        assert_eq!(result.digest, Some(blake3::hash(bytes)), "{}", file.header().name(i));
    }
}

#[test]
fn rows_and_columns_agree_with_a_naive_sum() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    // Rows of 1001 straddle chunks and units; a mean of 5 makes the standard deviation a real difference.
    let (rows, row) = (4000u64, 1001u64);
    let values: Vec<f32> = noise((rows * row) as usize, 7).iter().map(|&b| 5.0 + f32::from(b) / 256.0).collect();
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    write(&path, &[("a".into(), Dtype::F32, vec![rows, row], bytes)]);
    let result = run(&open(&path), ALL, Settings { threads: 2, ..Settings::default() }).remove(0);

    let check = |got: (f64, f64, f64), line: &mut dyn Iterator<Item = f32>| {
        let line: Vec<f64> = line.map(f64::from).collect();
        let n = line.len() as f64;
        let mean = line.iter().sum::<f64>() / n;
        let m2: f64 = line.iter().map(|x| (x - mean).powi(2)).sum();
        let l2 = line.iter().map(|x| x * x).sum::<f64>().sqrt();
        // f32 lanes of at most 128 additions: (128 + 5)·2^-24 of the sums of magnitudes, in the worst case.
        assert!(
            (got.0 - mean).abs() < 1e-5 && (got.1 - (m2 / n).sqrt()).abs() < 1e-5 && (got.2 / l2 - 1.0).abs() < 1e-5
        );
    };
    let lines = result.rows.unwrap();
    assert_eq!(lines.mean.len() as u64, rows);
    for r in 0..rows as usize {
        let line = &values[r * row as usize..(r + 1) * row as usize];
        check((lines.mean[r], lines.std[r], lines.l2[r]), &mut line.iter().copied());
    }
    let lines = result.columns.unwrap();
    assert_eq!(lines.mean.len() as u64, row);
    for c in 0..row as usize {
        let line = values.iter().copied().skip(c).step_by(row as usize);
        check((lines.mean[c], lines.std[c], lines.l2[c]), &mut line.into_iter());
    }
}

#[test]
fn a_file_cut_short_after_opening_is_an_error_that_names_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    write(
        &path,
        &[
            ("first".into(), Dtype::U8, vec![1000], noise(1000, 1)),
            ("second".into(), Dtype::U8, vec![1000], noise(1000, 2)),
        ],
    );
    let file = open(&path);
    let len = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 10).unwrap();
    let tensors: Vec<_> = (0..2).map(|i| Tensor::new(&[&file], 0, i)).collect();
    let error = scan(&[&file], &tensors, Request::default(), Settings::default(), &Control::new()).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::FileChanged, "truncated"));
    assert_eq!(error.tensor.as_deref(), Some("second"));
    let settings = Settings { io: Io::Mmap, ..Settings::default() };
    let error = scan(&[&file], &tensors, Request::default(), settings, &Control::new()).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::FileChanged, "truncated"));
}

#[test]
fn a_file_rewritten_under_the_scan_gives_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    write(&path, &[("a".into(), Dtype::U8, vec![1000], noise(1000, 1))]);
    let file = open(&path);
    let later = fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(5);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(later).unwrap();
    let error = scan(&[&file], &[Tensor::new(&[&file], 0, 0)], ALL, Settings::default(), &Control::new()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::FileChanged);
}

#[test]
fn a_cancelled_scan_stops() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(&zoo(folder.path()));
    let control = Control::new();
    control.cancel();
    let error = scan(&[&file], &[Tensor::new(&[&file], 0, 0)], ALL, Settings::default(), &control).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

#[test]
fn outliers_are_found_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut values = vec![0.5f32; 3 << 20];
    for (i, v) in [(0, 9.0), (7, f32::NAN), (1 << 20, -8.0), ((3 << 20) - 1, f32::INFINITY), ((3 << 20) - 2, 7.0)] {
        values[i] = v;
    }
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    write(&path, &[("a".into(), Dtype::F32, vec![3, 1 << 20], bytes)]);
    let file = open(&path);
    let found = find_above(&file, &Tensor::new(&[&file], 0, 0), 1.0, 2, &Control::new()).unwrap();
    assert_eq!((found.total, found.indices, found.values), (3, vec![0, 1 << 20], vec![9.0, -8.0]));
}
