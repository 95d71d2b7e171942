//! A fuzz harness for stable Rust: mutates the rows of `tests/malformed` and looks for a panic or a broken promise.
//!
//! ```text
//! cargo run --release --example fuzz_header -- [seconds] [seed]
//! ```
//!
//! Each file is read in both modes. What is accepted must tile its data and find its names again; what `strict` accepts,
//! `compatible` accepts with the same tensors; an error has a sentence. A failure prints the seed and the file in hex.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use mutate::{Random, check_accepted, mutate};
use weightprint_core::control::Control;
use weightprint_core::format::{Header, Index, Limits, Mode, parse_bytes};

/// Larger rows are about size, not about structure.
const SEED_BYTES: usize = 8 << 10;

/// A mutated file joins the seeds when it was accepted, or when its answer is rare; as many as this.
const KEPT: usize = 4000;

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().map_or(60, |a| a.parse().expect("seconds: a number"));
    let seed: u64 = args.next().map_or(1, |a| a.parse().expect("seed: a number"));

    let rows = common::rows();
    let of = |wanted: &dyn Fn(&common::Row) -> bool| -> Vec<Vec<u8>> {
        let small = rows.iter().filter(|row| wanted(row) && row.nbytes() <= SEED_BYTES);
        small.map(common::Row::content).collect()
    };
    // Most files start from an accepted one: a broken one is rarely looked at behind its fault.
    let mut sound = of(&|row| row.kind == "file" && row.compatible == "ok");
    let mut broken = of(&|row| row.kind == "file" && row.compatible != "ok");
    let indexes = of(&|row| row.kind == "index");
    let mut random = Random(seed);
    let mut answers: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (start, mut runs) = (Instant::now(), 0u64);
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    while start.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1000 {
            runs += 1;
            let of_index = runs.is_multiple_of(10);
            let mut seeds = || match (of_index, random.below(4)) {
                (true, _) => random.pick(&indexes).clone(),
                (false, 0) => random.pick(&broken).clone(),
                (false, _) => random.pick(&sound).clone(),
            };
            let (mut file, other) = (seeds(), seeds());
            mutate(&mut file, &other, &mut random);
            let answer = catch_unwind(|| if of_index { one_index(&file) } else { one_file(&file) });
            let Ok(answer) = answer else {
                let hex: String = file.iter().map(|b| format!("{b:02x}")).collect();
                eprintln!("seed {seed}, run {runs}, file {hex}");
                std::process::exit(1);
            };
            let count = answers.entry(answer).or_default();
            *count += 1;
            let pool = if answer == "ok" { &mut sound } else { &mut broken };
            let rare = *count < 50 || (answer == "ok" && random.below(20) == 0);
            if !of_index && rare && pool.len() < KEPT && file.len() <= SEED_BYTES {
                pool.push(file);
            }
        }
    }
    println!("{runs} files in {:.0} s, seed {seed}; no panic, no broken promise", start.elapsed().as_secs_f64());
    for (answer, count) in answers {
        println!("{count:>12}  {answer}");
    }
}

/// Read a file in both modes; the answer is that of `strict`.
fn one_file(file: &[u8]) -> &'static str {
    let read = |mode| parse_bytes(file, mode, &Limits::default(), &Control::new());
    let (strict, compatible) = (read(Mode::Strict), read(Mode::Compatible));
    for header in [&strict, &compatible].into_iter().flatten() {
        let n = u64::from_le_bytes(*file.first_chunk().expect("accepted, so it has a length"));
        check_accepted(header, file.len() as u64 - 8 - n);
    }
    match (&strict, &compatible) {
        (Ok(a), Ok(b)) => {
            assert!((0..a.len()).eq(0..b.len()) && (0..a.len()).all(|i| same(a, b, i)));
            "ok"
        }
        (Ok(_), Err(e)) => panic!("strict accepts, compatible does not: {e}"),
        (Err(e), _) => {
            assert!(!e.to_string().contains(char::is_control));
            e.code
        }
    }
}

/// Whether tensor `i` is the same in both headers.
fn same(a: &Header, b: &Header, i: usize) -> bool {
    a.name(i) == b.name(i) && a.dtype(i) == b.dtype(i) && a.shape(i) == b.shape(i) && a.range(i) == b.range(i)
}

/// Read an index: its shard names stay in their folder.
fn one_index(json: &[u8]) -> &'static str {
    match Index::parse(json, &Limits::default(), &Control::new()) {
        Ok(index) => {
            for (_, file) in &index.weight_map {
                assert_eq!(std::path::Path::new("folder").join(file).parent(), Some(std::path::Path::new("folder")));
            }
            "index ok"
        }
        Err(e) => e.code,
    }
}
