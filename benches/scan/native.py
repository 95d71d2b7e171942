"""The Rust side: builds `scan_ratio`, runs it, and turns its raw pairs into ratios."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


def build() -> Path:
    """Compile the example in release mode; returns the executable."""
    command = ["cargo", "build", "--release", "--package", "weightprint-core", "--example", "scan_ratio"]
    output = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, text=True,
    ).stdout  # fmt: skip
    messages = [json.loads(line) for line in output.splitlines()]
    return Path(next(m["executable"] for m in reversed(messages) if m.get("executable")))


def run(program: Path, arguments: Sequence[str]) -> Any:
    """What `scan_ratio` prints."""
    return json.loads(subprocess.run([program, *arguments], stdout=subprocess.PIPE, check=True, text=True).stdout)


def ratios(program: Path, files: Sequence[Path], cases: Sequence[str], threads: int, pairs: int) -> dict[str, Any]:
    """Medians of the paired ratios of `cases` (each WORK/ISA/IO) to the plain read of `files`."""
    options = [word for case in cases for word in ("--case", case)]
    raw = run(program, ["--threads", str(threads), "--pairs", str(pairs), *options, *map(str, files)])
    held = [r["wall"] for r in raw["held"]]
    return {
        "threads": threads,
        "nbytes": raw["nbytes"],
        "elements": raw["elements"],
        "plain_read": raw["plain_read"],
        "held_gb_per_s": raw["nbytes"] / statistics.median(held) / 1e9,
        "cases": [_case(case, held, raw["nbytes"]) for case in raw["cases"]],
    }


def _case(case: dict[str, Any], held: list[float], nbytes: int) -> dict[str, Any]:
    plain, scan = case["plain"], case["scan"]
    walls = [r["wall"] for r in scan]
    return {
        "work": case["work"],
        "isa": case["isa"],
        "io": case["io"],
        "ratio": vars(Spread.of([s["wall"] / p["wall"] for s, p in zip(scan, plain, strict=True)])),
        "ratio_to_held": vars(Spread.of([wall / h for wall, h in zip(walls, held, strict=True)])),
        "seconds": vars(Spread.of(walls)),
        "gb_per_s": nbytes / statistics.median(walls) / 1e9,
        "plain_gb_per_s": nbytes / statistics.median(r["wall"] for r in plain) / 1e9,
        "cpu_per_wall": statistics.median(r["cpu"] / r["wall"] for r in scan),
        "plain_cpu_per_wall": statistics.median(r["cpu"] / r["wall"] for r in plain),
        "minor_faults": statistics.median(r["minor_faults"] for r in scan),
        "major_faults": max(r["major_faults"] for r in [*plain, *scan]),
    }


def peak_rss(program: Path, files: Sequence[Path], case: str, threads: int) -> int:
    """Peak resident bytes of a process that does one scan and nothing else, without any Python."""
    return int(run(program, ["--threads", str(threads), "--once", case, *map(str, files)])["peak_rss"])
