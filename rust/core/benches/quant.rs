//! Decoding of quantised weights on memory, one thread: tiles of 256 KiB of output that stay in the second-level cache.
//!
//! Throughput is of stored bytes. Names are `quant/format/isa`; `quant/read` is a plain read of as many bytes. Compare
//! only numbers of one run; `examples/quant_ratio` makes ratios of them.

#[path = "../examples/scan_ratio/plain_read.rs"]
#[allow(dead_code, reason = "only its reads of memory are needed")]
mod plain_read;
#[path = "../examples/quant_ratio/subject.rs"]
mod subject;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use subject::{Format, Subject, TILE};
use weightprint_core::kernels::Isa;
use weightprint_core::quant::Settings;

fn quant(c: &mut Criterion) {
    let mut group = c.benchmark_group("quant");
    group.sample_size(11).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let mut out = vec![0f32; TILE];
    for format in Format::ALL {
        let subject = Subject::new(format);
        let tiles = subject.values() / TILE;
        if format == Format::ALL[0] {
            group.throughput(Throughput::Bytes(subject.codes.len() as u64));
            let read = plain_read::fastest_in_memory(&subject.codes);
            group.bench_function("read", |b| b.iter(|| black_box(read(&subject.codes))));
        }
        group.throughput(Throughput::Bytes(subject.stored() as u64));
        for isa in Isa::available() {
            let settings = Settings { isa, threads: 1 };
            group.bench_function(format!("{}/{}", format.name(), isa.name()), |b| {
                b.iter(|| {
                    for i in 0..tiles {
                        subject.tile(i, settings, &mut out).expect("a tile of the right size");
                        black_box(&mut out);
                    }
                })
            });
        }
    }
    group.finish();
}

criterion_group!(benches, quant);
criterion_main!(benches);
