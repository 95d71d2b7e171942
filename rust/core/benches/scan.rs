//! Criterion over whole scans of small files, under the same workload names as `benches/test_scan.py`: to see a change of
//! ours before and after. How fast that is against the machine and against others is `python -m benches.scan`'s to say.
//!
//! `cargo bench --bench scan`, or `cargo bench --bench scan -- moments/bf16`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weightprint_core::dtype::Dtype;

#[allow(dead_code)]
#[path = "../examples/scan_ratio/plain_read.rs"]
mod plain_read;
#[allow(dead_code)]
#[path = "../examples/scan_ratio/subject.rs"]
mod subject;

/// Data bytes per file: four tensors of 16 MiB.
const TENSOR_BYTES: u64 = 16 << 20;
const TENSORS: u64 = 4;
const DTYPES: [(&str, Dtype); 4] =
    [("bf16", Dtype::Bf16), ("f16", Dtype::F16), ("f32", Dtype::F32), ("fp8", Dtype::F8E4M3)];

fn scans(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(2);
    for (name, dtype) in DTYPES {
        let path = folder.path().join(name);
        write(&path, dtype).expect("room for 64 MiB");
        let paths: [PathBuf; 1] = [path];
        let checkpoint = subject::Checkpoint::open(&paths).expect("a sound file");
        let files = plain_read::Files::open(&paths, false).expect("a readable file");
        let reader = files.fastest(plain_read::Way::Pread, threads).expect("a readable file");

        let mut group = c.benchmark_group("scan");
        group.sample_size(20).throughput(Throughput::Bytes(TENSORS * TENSOR_BYTES));
        group.bench_function(BenchmarkId::new("plain_read", name), |b| {
            b.iter(|| files.read(plain_read::Way::Pread, reader, threads).expect("a readable file"));
        });
        for (work, _) in subject::WORKLOADS {
            let case = subject::Case::parse(&format!("{work}/auto/pread")).expect("a case");
            group.bench_function(BenchmarkId::new(*work, name), |b| {
                b.iter(|| checkpoint.scan(&case, threads).expect("a sound file"));
            });
        }
        group.finish();
    }
}

/// A checkpoint of four matrices with 1024 columns and roughly normal values.
fn write(path: &Path, dtype: Dtype) -> std::io::Result<()> {
    let rows = TENSOR_BYTES * 8 / u64::from(dtype.bits()) / 1024;
    let entry = |i| {
        let (begin, end) = (i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES);
        format!(
            r#""layers.{i}.weight":{{"dtype":"{}","shape":[{rows},1024],"data_offsets":[{begin},{end}]}}"#,
            dtype.name()
        )
    };
    let header = format!("{{{}}}", (0..TENSORS).map(entry).collect::<Vec<_>>().join(","));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut state = 1u64;
    for _ in 0..TENSORS * TENSOR_BYTES * 8 / u64::from(dtype.bits()) {
        let x = normal(&mut state);
        match dtype {
            Dtype::Bf16 => file.write_all(&((x.to_bits() >> 16) as u16).to_le_bytes())?,
            Dtype::F16 => file.write_all(&f16_bits(x).to_le_bytes())?,
            Dtype::F32 => file.write_all(&x.to_le_bytes())?,
            _ => file.write_all(&[fp8_bits(x)])?,
        }
    }
    file.flush()
}

/// A sum of twelve uniforms is normal but for its tails; deviation 0.02, as weights have.
fn normal(state: &mut u64) -> f32 {
    let mut sum = 0.0;
    for _ in 0..3 {
        // SplitMix64 (Steele, Lea, Flood 2014): four 16-bit uniforms from each word.
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        sum += (0..4).map(|i| (z >> (16 * i) & 0xffff) as f32 / 65_536.0).sum::<f32>();
    }
    (sum - 6.0) * 0.02
}

/// Cut towards zero; the values stay among the normal numbers or become zero.
fn f16_bits(x: f32) -> u16 {
    small_float(x, 15, 10)
}

/// E4M3, after the scaling that quantisers apply: deviation 80 of at most 448.
fn fp8_bits(x: f32) -> u8 {
    let bits = small_float((x * 4000.0).clamp(-448.0, 448.0), 7, 3);
    ((bits >> 8 & 0x80) | (bits & 0x7f)) as u8
}

/// Sign in bit 15, then exponent with `bias` and `mantissa` bits, cut towards zero; below the normal range: zero.
fn small_float(x: f32, bias: i32, mantissa: u32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + bias;
    if exponent < 1 {
        return sign;
    }
    sign | ((exponent as u16) << mantissa) | (bits >> (23 - mantissa) & ((1 << mantissa) - 1)) as u16
}

criterion_group!(benches, scans);
criterion_main!(benches);
