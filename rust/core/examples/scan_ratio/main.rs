//! Times the scan against a plain read of the same files, in interleaved pairs, and prints raw runs as JSON.
//!
//! ```text
//! scan_ratio [--threads N] [--pairs N] --case WORK/ISA/IO ... FILE...    pairs of (plain read, scan), same I/O path
//! scan_ratio [--threads N] --once WORK/ISA/IO FILE...                    one scan and nothing else
//! ```
//!
//! Bandwidth of a shared machine drifts by a third between runs, so only the ratio of two runs that stand side by side
//! means anything. Each pair is a plain read and a scan along the same I/O path with the same number of threads; the
//! order within the pair alternates. `python -m benches.scan` calls this and makes medians and tables of it. `--once` is
//! for counting instructions and for peak memory; it asks for no time, since valgrind hides the vDSO that tells it.

mod measure;
mod plain_read;
mod subject;

use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;

use measure::{Run, peak_rss};
use plain_read::{Files, Way};
use serde_json::{Value, json};
use subject::{Case, Checkpoint};

struct Args {
    threads: usize,
    pairs: usize,
    cases: Vec<Case>,
    once: Option<Case>,
    files: Vec<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = parse(std::env::args().skip(1))?;
    let checkpoint = Checkpoint::open(&args.files)?;
    let report = match &args.once {
        Some(case) => once(&checkpoint, case, &args)?,
        None => pairs(&checkpoint, &args)?,
    };
    println!("{report}");
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, Box<dyn Error>> {
    let mut args = Args { threads: 2, pairs: 11, cases: Vec::new(), once: None, files: Vec::new() };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--threads" => args.threads = value()?.parse()?,
            "--pairs" => args.pairs = value()?.parse()?,
            "--case" => args.cases.push(Case::parse(&value()?)?),
            "--once" => args.once = Some(Case::parse(&value()?)?),
            option if option.starts_with('-') => return Err(format!("unknown option {option}").into()),
            file => args.files.push(file.into()),
        }
    }
    if args.files.is_empty() || (args.cases.is_empty() && args.once.is_none()) {
        return Err("name at least one file, and a --case or --once".into());
    }
    Ok(args)
}

fn once(checkpoint: &Checkpoint, case: &Case, args: &Args) -> Result<Value, Box<dyn Error>> {
    checkpoint.scan(case, args.threads)?;
    Ok(json!({ "elements": checkpoint.elements(), "isa": case.isa.name(), "peak_rss": peak_rss() }))
}

fn pairs(checkpoint: &Checkpoint, args: &Args) -> Result<Value, Box<dyn Error>> {
    let files = Files::open(&args.files, true)?;
    let way = |io: &str| Way::from_name(io).expect("an I/O path that a case may name");

    // Trying the candidates also warms the page cache and faults the held maps in.
    let mut readers = Vec::new();
    for io in ["pread", "mmap", "held"] {
        if io == "held" || args.cases.iter().any(|c| c.io == io) {
            readers.push((io, files.fastest(way(io), args.threads)?));
        }
    }
    let plain = |io: &str| -> Result<Value, Box<dyn Error>> {
        let reader = readers.iter().find(|r| r.0 == io).expect("chosen above").1;
        let mut sum = Ok(0);
        let run = Run::of(|| sum = black_box(files.read(way(io), reader, args.threads)));
        sum?;
        Ok(run.json())
    };

    let mut held = Vec::new();
    let mut runs = vec![(Vec::new(), Vec::new()); args.cases.len()];
    for pair in 0..args.pairs {
        held.push(plain("held")?);
        for (case, (plains, scans)) in args.cases.iter().zip(&mut runs) {
            for scan_now in [pair % 2 == 1, pair % 2 == 0] {
                if scan_now {
                    scans.push(timed_scan(checkpoint, case, args.threads)?);
                } else {
                    plains.push(plain(case.io)?);
                }
            }
        }
    }

    let cases: Vec<Value> = args
        .cases
        .iter()
        .zip(runs)
        .map(|(c, (plain, scan))| json!({ "work": c.work, "isa": c.isa.name(), "io": c.io, "plain": plain, "scan": scan }))
        .collect();
    let readers: serde_json::Map<_, _> = readers
        .into_iter()
        .map(|(io, r)| (io.to_owned(), json!({ "sweep": r.sweep.name, "block": (io == "pread").then_some(r.block) })))
        .collect();
    Ok(json!({
        "threads": args.threads,
        "nbytes": files.nbytes(),
        "elements": checkpoint.elements(),
        "plain_read": readers,
        "held": held,
        "cases": cases,
    }))
}

fn timed_scan(checkpoint: &Checkpoint, case: &Case, threads: usize) -> Result<Value, Box<dyn Error>> {
    let mut result = Ok(());
    let run = Run::of(|| result = checkpoint.scan(case, threads));
    result?;
    Ok(run.json())
}
