//! Decoding of quantised weights against a plain read of the same stored bytes, in interleaved pairs, one thread.
//!
//! ```text
//! quant_ratio [--pairs N] [NAME...]      formats whose names contain one of the NAMEs; all without
//! ```
//!
//! Both sides work on 96 MiB of codes, larger than the caches. Per format and instruction set it prints medians of:
//!
//! - `read`: GB/s of reading the stored bytes and nothing else, the fastest way that this machine has;
//! - `(a)`: stored bytes per second of decoding ÷ `read`, with one output tile of 256 KiB that is written again and
//!   again, so that it stays in the second-level cache: what a consumer sees that streams tiles;
//! - `(a, limit)`: the same if the tile were only filled with a constant, and nothing read: what no decoder can pass;
//! - `(a, moved)`: the same decoding, but stored bytes plus bytes of float32 written ÷ `read`;
//! - `(b)`: stored bytes plus bytes of float32 per second ÷ `read`, when output goes to 384 MiB of memory;
//! - `fill`: GB/s of filling those 384 MiB with a constant and nothing else ÷ `read`: what no decoder can pass in (b).

#[path = "../scan_ratio/plain_read.rs"]
#[allow(dead_code, reason = "only its reads of memory are needed")]
mod plain_read;
mod subject;

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};
use subject::{Format, Subject, TILE};
use weightprint_core::kernels::Isa;
use weightprint_core::quant::Settings;

/// Values of output that goes to memory.
const LARGE: usize = 96 << 20;

/// Processor time of this thread: a neighbour that takes the core away does not count.
fn seconds(work: impl FnOnce()) -> f64 {
    let now = || clock_gettime(ClockId::ThreadCPUTime);
    let start = now();
    work();
    let end = now();
    (end.tv_sec - start.tv_sec) as f64 + (end.tv_nsec - start.tv_nsec) as f64 * 1e-9
}

/// All but the first and last values, from the beginning of a cache line on: 64-byte stores that straddle two cost double.
fn aligned(values: &mut [f32]) -> &mut [f32] {
    let (skip, n) = (values.as_ptr().align_offset(64), values.len() - 16);
    &mut values[skip..skip + n]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn decode(subject: &Subject, settings: Settings, tiles: usize, mut out: impl FnMut(usize, &mut dyn FnMut(&mut [f32]))) {
    for i in 0..tiles {
        out(i, &mut |tile| subject.tile(i, settings, tile).expect("a tile of the right size"));
    }
}

fn measure(format: Format, isa: Isa, pairs: usize, large: &mut [f32]) {
    let subject = Subject::new(format);
    let settings = Settings { isa, threads: 1 };
    let read = plain_read::fastest_in_memory(&subject.codes);
    let tiles = subject.values() / TILE;
    let few = tiles.min(large.len() / TILE);
    let share = few as f64 / tiles as f64;
    let mut tile = vec![0f32; TILE + 16];
    let tile = aligned(&mut tile);
    let (stored, written) = (subject.stored() as f64, subject.values() as f64 * 4.0);
    let mut columns = [const { Vec::new() }; 6];
    for _ in 0..pairs {
        let plain = stored
            / seconds(|| {
                black_box(read(&subject.codes));
            })
            * subject.codes.len() as f64
            / stored;
        let streamed = seconds(|| {
            decode(&subject, settings, tiles, |_, f| {
                f(tile);
                black_box(&mut *tile);
            })
        });
        let kept = seconds(|| decode(&subject, settings, few, |i, f| f(&mut large[i * TILE..][..TILE])));
        black_box(&mut *large);
        let limit = seconds(|| {
            (0..tiles).for_each(|i| {
                tile.fill(black_box(i as f32));
                black_box(&mut *tile);
            })
        });
        let size = few * TILE;
        let filled = seconds(|| {
            large[..size].fill(black_box(1.5));
            black_box(&mut *large);
        });
        let row = [
            plain / 1e9,
            stored / streamed / plain,
            stored / limit / plain,
            (stored + written) / streamed / plain,
            (stored + written) * share / kept / plain,
            size as f64 * 4.0 / filled / plain,
        ];
        columns.iter_mut().zip(row).for_each(|(column, x)| column.push(x));
    }
    let [read, a, limit, moved, b, fill] = columns.map(median);
    println!("{:22} {:9} {read:6.1} {a:8.2} {limit:11.2} {moved:11.2} {b:8.2} {fill:8.2}", format.name(), isa.name());
}

fn main() {
    let (mut pairs, mut names) = (11, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--pairs" {
            pairs = words.next().and_then(|n| n.parse().ok()).expect("--pairs needs a number");
        } else {
            names.push(word);
        }
    }
    println!("format                 isa         read      (a)  (a, limit)  (a, moved)      (b)     fill");
    let mut large = vec![1f32; LARGE + 16];
    let large = aligned(&mut large);
    for format in Format::ALL {
        if names.is_empty() || names.iter().any(|n| format.name().contains(n.as_str())) {
            for isa in Isa::available() {
                measure(format, isa, pairs, large);
            }
        }
    }
}
