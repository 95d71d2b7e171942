"""Benchmarks the scan and writes its tables.

    python -m benches.scan                                    all sizes and dtypes; about an hour, 10 GB of disk
    python -m benches.scan --size 200MB --dtypes bf16 --dry   a quick look that writes nothing

Peers run in `--peers-python`, any interpreter that has some of torch, safetensors, numpy, ml_dtypes, weightlens,
weightwatcher, blake3, xxhash; a missing one is a row that says so. Results of earlier runs on other sizes and dtypes
stay in results.json, and so do those of other machines; `--report` only rewrites the tables from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import native, report, runner, synthetic
from .peers import PEERS

HERE = Path(__file__).resolve().parent
RESULTS, TABLES = HERE / "results.json", HERE / "RESULTS.md"
UNITS = {"MB": 1_000_000, "GB": 1_000_000_000}


def size(text: str) -> int:
    """`1GB`, `200MB`."""
    number, unit = text[:-2], text[-2:].upper()
    if unit not in UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 200MB or 8GB")
    return int(float(number) * UNITS[unit])


def names(text: str) -> tuple[str, ...]:
    """A comma-separated list; `none` for an empty one."""
    return () if text == "none" else tuple(text.split(","))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("benches.scan", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--size", type=size, action="append", help="like 1GB; repeat it (default: 1GB and 8GB)")
    add("--dtypes", type=names, default=tuple(synthetic.DTYPES), help="of bf16,f16,f32,fp8 (default: all)")
    add("--threads", type=int, default=2)
    add("--pairs", type=int, default=11, help="interleaved pairs per figure (default: 11)")
    add("--isa", type=names, default=runner.isas(), help="of avx512,avx2,portable (default: those this machine has)")
    add("--io", type=names, default=("mmap", "pread"), help="the first with every ISA (default: mmap,pread)")
    add("--peers", type=names, default=tuple(PEERS), help="which peers, or none (default: all)")
    add("--peer-dtypes", type=names, default=("bf16",), help="dtypes on which peers run (default: bf16)")
    add("--peers-python", default=sys.executable, help="interpreter that has the peers (default: this one)")
    add("--peer-seconds", type=float, default=60.0, help="time for one peer on one checkpoint (default: 60)")
    add("--peer-timeout", type=float, default=900.0, help="a single run longer than this is given up (default: 900)")
    add("--keep", action="store_true", help="keep the checkpoints in $WEIGHTPRINT_BENCH_DIR or .cache/bench")
    add("--fresh", action="store_true", help="forget the results of earlier runs on this machine")
    add("--dry", action="store_true", help="print the tables and write nothing")
    add("--report", action="store_true", help="measure nothing; rewrite the tables")
    return parser.parse_args()


def main() -> None:
    """Measure, merge with earlier results, write the tables."""
    args = parse()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and not args.dry else {}
    if not args.report:
        runner.check_names(args.peers)
        plan = runner.Plan(
            args.threads, args.pairs, args.isa, args.io, args.peers, args.peers_python,
            args.peer_seconds, args.peer_timeout, args.keep,
        )  # fmt: skip
        program = native.build()
        machine = runner.machine(plan)
        name = report.machine_name(machine)
        earlier = {} if args.fresh else results.get(name, {}).get("checkpoints", {})
        results[name] = {"machine": machine, "checkpoints": earlier}
        for nbytes in args.size or [size("1GB"), size("8GB")]:
            for dtype in args.dtypes:
                entry = runner.measure(nbytes, dtype, dtype in args.peer_dtypes, program, plan)
                results[name]["checkpoints"][f"{nbytes} {dtype}"] = entry
                if not args.dry:
                    # An hour's figures outlive a crash in the middle of writing.
                    written = RESULTS.with_suffix(".new")
                    written.write_text(json.dumps(results, indent=1) + "\n")
                    written.replace(RESULTS)
    if args.dry:
        print(report.full(results), report.short(results), sep="\n---\n\n")
        return
    TABLES.write_text(report.full(results))
    report.update_readme(HERE.parents[1] / "README.md", results)


if __name__ == "__main__":
    main()
