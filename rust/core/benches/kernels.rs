//! The kernels alone, on memory, one thread: read (the limit), moments, moments with rows, counts, columns; per dtype
//! and instruction set. Names are `kernel/dtype/isa`. Compare only numbers of one run.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weightprint_core::dtype::Dtype;
use weightprint_core::kernels::Isa;
use weightprint_core::stats::{ColumnMoments, Counts, Moments, RowMoments};

/// Larger than the last-level cache of most machines, in chunks as the scan reads them.
const BYTES: usize = 64 << 20;
const CHUNK: usize = 512 << 10;
const ROW: u64 = 4096;

/// About normal values of standard deviation 0.02 (sums of uniforms), as any dtype.
fn data(dtype: Dtype) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut normal = || {
        let r = next();
        let sum: u64 = (0..4).map(|i| (r >> (16 * i)) & 0xffff).sum();
        (sum as f32 / 65536.0 - 2.0) * 0.0346
    };
    let mut out = Vec::with_capacity(BYTES);
    while out.len() < BYTES {
        let x = normal();
        let bits = x.to_bits();
        match dtype {
            Dtype::Bf16 => out.extend(((bits >> 16) as u16).to_le_bytes()),
            Dtype::F16 if x.abs() < 6.2e-5 => out.extend(0u16.to_le_bytes()),
            Dtype::F16 => {
                let half = ((bits >> 16) & 0x8000) | (((bits & 0x7fff_ffff) - (112 << 23)) >> 13);
                out.extend((half as u16).to_le_bytes());
            }
            Dtype::F32 => out.extend(x.to_le_bytes()),
            Dtype::F64 => out.extend(f64::from(x).to_le_bytes()),
            Dtype::F8E4M3 => {
                // Scaled so that the type's range is used: 448 is about 4.6 standard deviations.
                let y = (x * 5000.0).clamp(-448.0, 448.0).to_bits();
                let magnitude = ((y & 0x7fff_ffff).max(121 << 23) - (120 << 23)) >> 20;
                out.push((((y >> 24) & 0x80) | magnitude.min(0x7e)) as u8);
            }
            _ => out.extend(((x * 50_000.0) as i32).to_le_bytes()),
        }
    }
    out
}

/// The fastest plain read: every byte once, nothing else.
fn read(bytes: &[u8]) -> u64 {
    #[inline(always)]
    fn fold(bytes: &[u8]) -> u64 {
        let mut lanes = [0u64; 32];
        for group in bytes.as_chunks::<256>().0 {
            for (lane, word) in lanes.iter_mut().zip(group.as_chunks::<8>().0) {
                *lane ^= u64::from_le_bytes(*word);
            }
        }
        lanes.into_iter().fold(0, |a, b| a ^ b)
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn fold_v3(bytes: &[u8]) -> u64 {
        fold(bytes)
    }
    #[cfg(target_arch = "x86_64")]
    if Isa::detect() >= Isa::Avx2 {
        // SAFETY: the machine was seen to have AVX2.
        return unsafe { fold_v3(bytes) };
    }
    fold(bytes)
}

fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels");
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.sample_size(11).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32, Dtype::F64, Dtype::I32, Dtype::F8E4M3] {
        let bytes = data(dtype);
        let (name, bits) = (dtype.name(), u64::from(dtype.bits()));
        let chunks = || bytes.chunks(CHUNK).enumerate().map(|(i, c)| (c, i as u64 * CHUNK as u64 * 8 / bits));
        group.bench_function(format!("read/{name}"), |b| b.iter(|| black_box(read(&bytes))));
        group.bench_function(format!("counts/{name}"), |b| {
            let mut state = Counts::new(dtype);
            b.iter(|| {
                state.reset();
                chunks().for_each(|(c, first)| state.update(c, 0, c.len() as u64 * 8 / bits, first));
                black_box(&state);
            })
        });
        for isa in Isa::available() {
            if bits > 8 {
                group.bench_function(format!("moments/{name}/{}", isa.name()), |b| {
                    b.iter(|| {
                        let mut state = Moments::new(dtype);
                        chunks().for_each(|(c, first)| state.update(isa, c, first));
                        black_box(state.summary())
                    })
                });
                group.bench_function(format!("rows/{name}/{}", isa.name()), |b| {
                    b.iter(|| {
                        let (mut state, mut rows) = (Moments::new(dtype), RowMoments::new(ROW, 0));
                        chunks().for_each(|(c, first)| state.update_rows(isa, c, first, &mut rows));
                        black_box((state.summary(), rows))
                    })
                });
            }
            group.bench_function(format!("columns/{name}/{}", isa.name()), |b| {
                b.iter(|| {
                    let mut columns = ColumnMoments::new(dtype, ROW);
                    chunks().for_each(|(c, first)| columns.update(isa, c, 0, c.len() as u64 * 8 / bits, first));
                    black_box(columns)
                })
            });
        }
    }
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
