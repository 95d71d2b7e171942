//! The physical limit a scan is held against: XOR of every byte of the files, and nothing else.
//!
//! XOR costs one instruction per load, has no rounding and no order, and its result depends on every byte, so the
//! optimiser cannot drop a load. Eight independent accumulators hide its latency. Which load width, prefetch distance
//! and block size is fastest differs between machines and between I/O paths, so all of [`SWEEPS`] and [`BLOCKS`] are
//! tried on the files themselves and the fastest is the baseline: a slower one would flatter the scan.
//!
//! Three ways to reach the bytes:
//! - `pread`: blocks read into one buffer per thread;
//! - `mmap`: a map made and faulted in by this very read, as a scan of a file just opened has to;
//! - `held`: a map that was faulted in before: memory bandwidth alone, which no scan of a file can beat.
//!
//! Work is cut in units of 8 MiB and handed out by one counter, as the scan does it.

use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use memmap2::Mmap;

/// Bytes handed to a thread at once.
const UNIT: u64 = 8 << 20;
/// Bytes read at once by `pread`: the candidates.
const BLOCKS: [usize; 3] = [512 << 10, 1 << 20, 2 << 20];
/// Bytes at the front of the files on which the candidates are tried.
const TRIAL: u64 = 512 << 20;
/// Bytes per page.
const PAGE: usize = 4096;

/// How the bytes are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Positional reads into a reused buffer.
    Pread,
    /// A fresh map, faulted in by the read.
    Mmap,
    /// A map faulted in earlier.
    Held,
}

impl Way {
    /// From `pread`, `mmap` or `held`.
    pub fn from_name(name: &str) -> Option<Self> {
        [("pread", Self::Pread), ("mmap", Self::Mmap), ("held", Self::Held)]
            .into_iter()
            .find(|p| p.0 == name)
            .map(|p| p.1)
    }
}

/// One way to XOR a slice: its name, whether this CPU has it, and the function.
pub struct Sweep {
    /// E.g. `avx512+4096`: loads of 512 bits, prefetching 4096 bytes ahead.
    pub name: &'static str,
    available: fn() -> bool,
    xor: fn(&[u8]) -> u64,
}

/// All candidates; the portable one always works.
pub const SWEEPS: &[Sweep] = &[
    #[cfg(target_arch = "x86_64")]
    Sweep { name: "avx512", available: x86::has_avx512, xor: x86::avx512::<0> },
    #[cfg(target_arch = "x86_64")]
    Sweep { name: "avx512+1024", available: x86::has_avx512, xor: x86::avx512::<1024> },
    #[cfg(target_arch = "x86_64")]
    Sweep { name: "avx512+4096", available: x86::has_avx512, xor: x86::avx512::<4096> },
    #[cfg(target_arch = "x86_64")]
    Sweep { name: "avx2", available: x86::has_avx2, xor: x86::avx2::<0> },
    #[cfg(target_arch = "x86_64")]
    Sweep { name: "avx2+1024", available: x86::has_avx2, xor: x86::avx2::<1024> },
    #[cfg(target_arch = "x86_64")]
    Sweep { name: "avx2+4096", available: x86::has_avx2, xor: x86::avx2::<4096> },
    Sweep { name: "portable", available: || true, xor: portable },
];

/// A candidate: a sweep and, for `pread`, the block size it reads.
#[derive(Clone, Copy)]
pub struct Reader {
    /// How the bytes are summed.
    pub sweep: &'static Sweep,
    /// Bytes per `pread`.
    pub block: usize,
}

/// The fastest of all candidates on `bytes` that are in memory, for those who time more than files.
#[allow(dead_code, reason = "not every program that takes this file in measures memory")]
pub fn fastest_in_memory(bytes: &[u8]) -> fn(&[u8]) -> u64 {
    let time = |sweep: &Sweep| {
        let tries = (0..3).map(|_| {
            let start = Instant::now();
            black_box((sweep.xor)(bytes));
            start.elapsed()
        });
        tries.min()
    };
    let here = SWEEPS.iter().filter(|sweep| (sweep.available)());
    here.min_by_key(|sweep| time(sweep)).map_or(portable, |sweep| sweep.xor)
}

/// XOR of the slice's 64-bit words and of its last bytes.
fn portable(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 8];
    let blocks = bytes.chunks_exact(64);
    let rest = blocks.remainder();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            *lane ^= u64::from_ne_bytes(word.try_into().expect("chunks of eight"));
        }
    }
    lanes.into_iter().chain(rest.iter().map(|&b| u64::from(b))).fold(0, |a, b| a ^ b)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    pub fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f")
    }

    pub fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2")
    }

    /// Loads of 512 bits, `AHEAD` bytes prefetched (0: none).
    pub fn avx512<const AHEAD: usize>(bytes: &[u8]) -> u64 {
        assert!(has_avx512());
        // SAFETY: the CPU has AVX-512F, checked above.
        unsafe { avx512_inner::<AHEAD>(bytes) }
    }

    /// Loads of 256 bits, `AHEAD` bytes prefetched (0: none).
    pub fn avx2<const AHEAD: usize>(bytes: &[u8]) -> u64 {
        assert!(has_avx2());
        // SAFETY: the CPU has AVX2, checked above.
        unsafe { avx2_inner::<AHEAD>(bytes) }
    }

    /// Ask for the cache lines of `block`, `AHEAD` bytes further on.
    #[inline(always)]
    fn prefetch<const AHEAD: usize>(block: &[u8]) {
        if AHEAD > 0 {
            for line in block.chunks_exact(64) {
                // SAFETY: a prefetch never faults, whatever the address; `wrapping_add` keeps the arithmetic defined.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(AHEAD).cast()) };
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn avx512_inner<const AHEAD: usize>(bytes: &[u8]) -> u64 {
        let mut lanes = [_mm512_setzero_si512(); 8];
        let blocks = bytes.chunks_exact(512);
        let rest = super::portable(blocks.remainder());
        for block in blocks {
            prefetch::<AHEAD>(block);
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(64)) {
                // SAFETY: `word` is 64 readable bytes, and the load asks for no alignment.
                *lane = _mm512_xor_si512(*lane, unsafe { _mm512_loadu_si512(word.as_ptr().cast()) });
            }
        }
        let mut words = [0u64; 64];
        for (out, lane) in words.chunks_exact_mut(8).zip(lanes) {
            // SAFETY: `out` is 64 writable bytes, and the store asks for no alignment.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), lane) };
        }
        words.into_iter().fold(rest, |a, b| a ^ b)
    }

    #[target_feature(enable = "avx2")]
    fn avx2_inner<const AHEAD: usize>(bytes: &[u8]) -> u64 {
        let mut lanes = [_mm256_setzero_si256(); 8];
        let blocks = bytes.chunks_exact(256);
        let rest = super::portable(blocks.remainder());
        for block in blocks {
            prefetch::<AHEAD>(block);
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(32)) {
                // SAFETY: `word` is 32 readable bytes, and the load asks for no alignment.
                *lane = _mm256_xor_si256(*lane, unsafe { _mm256_loadu_si256(word.as_ptr().cast()) });
            }
        }
        let mut words = [0u64; 32];
        for (out, lane) in words.chunks_exact_mut(4).zip(lanes) {
            // SAFETY: `out` is 32 writable bytes, and the store asks for no alignment.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), lane) };
        }
        words.into_iter().fold(rest, |a, b| a ^ b)
    }
}

/// The files to read, opened once, with the maps that `held` uses.
pub struct Files {
    files: Vec<(File, u64)>,
    held: Vec<Mmap>,
    /// (file, first byte, bytes), in file order.
    units: Vec<(usize, u64, u64)>,
}

impl Files {
    /// Open `paths`; with `hold`, also map them for [`Way::Held`].
    pub fn open(paths: &[PathBuf], hold: bool) -> io::Result<Self> {
        let files = paths.iter().map(|p| open_one(p)).collect::<io::Result<Vec<_>>>()?;
        let held = if hold { map_all(&files)? } else { Vec::new() };
        let mut units = Vec::new();
        for (i, &(_, len)) in files.iter().enumerate() {
            units.extend((0..len).step_by(UNIT as usize).map(|at| (i, at, UNIT.min(len - at))));
        }
        Ok(Self { files, held, units })
    }

    /// Bytes in all files.
    pub fn nbytes(&self) -> u64 {
        self.files.iter().map(|f| f.1).sum()
    }

    /// XOR of everything, read along `way` with `threads` threads.
    pub fn read(&self, way: Way, reader: Reader, threads: usize) -> io::Result<u64> {
        self.read_units(&self.units, way, reader, threads)
    }

    fn read_units(&self, units: &[(usize, u64, u64)], way: Way, reader: Reader, threads: usize) -> io::Result<u64> {
        let fresh = if way == Way::Mmap { map_all(&self.files)? } else { Vec::new() };
        let maps = if way == Way::Mmap { &fresh } else { &self.held };
        let next = AtomicUsize::new(0);
        let worker = || -> io::Result<u64> {
            let mut buffer = vec![0u8; if way == Way::Pread { reader.block + PAGE } else { 0 }];
            // Reads begin where a page does; the kernel copies fastest to 8 bytes before one. The scan does the same.
            let place = (PAGE - 8).wrapping_sub(buffer.as_ptr().addr()) % PAGE;
            let mut sum = 0;
            while let Some(&(file, start, len)) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                if way != Way::Pread {
                    sum ^= (reader.sweep.xor)(&maps[file][start as usize..(start + len) as usize]);
                    continue;
                }
                for at in (start..start + len).step_by(reader.block) {
                    let len = (start + len - at).min(reader.block as u64) as usize;
                    let block = &mut buffer[place..place + len];
                    self.files[file].0.read_exact_at(block, at)?;
                    sum ^= (reader.sweep.xor)(block);
                }
            }
            Ok(sum)
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
            let mine = worker()?;
            others.into_iter().try_fold(mine, |sum, t| Ok(sum ^ t.join().expect("a reader panicked")?))
        })
    }

    /// The fastest reader for `way` on these files: the best of five runs of each candidate that this CPU has. One full
    /// read comes first, so the files are warm afterwards.
    pub fn fastest(&self, way: Way, threads: usize) -> io::Result<Reader> {
        let mut best = (f64::INFINITY, Reader { sweep: SWEEPS.last().expect("never empty"), block: BLOCKS[0] });
        black_box(self.read(way, best.1, threads)?);
        let trial = self.units.len().min((TRIAL / UNIT) as usize);
        let blocks = if way == Way::Pread { &BLOCKS[..] } else { &BLOCKS[..1] };
        for sweep in SWEEPS.iter().filter(|s| (s.available)()) {
            for &block in blocks {
                let reader = Reader { sweep, block };
                for _ in 0..5 {
                    let start = Instant::now();
                    black_box(self.read_units(&self.units[..trial], way, reader, threads)?);
                    let seconds = start.elapsed().as_secs_f64();
                    if seconds < best.0 {
                        best = (seconds, reader);
                    }
                }
            }
        }
        Ok(best.1)
    }
}

fn open_one(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

fn map_all(files: &[(File, u64)]) -> io::Result<Vec<Mmap>> {
    // SAFETY: the benchmark wrote these files itself and nothing changes them while it runs.
    files.iter().map(|(file, _)| unsafe { Mmap::map(file) }).collect()
}
