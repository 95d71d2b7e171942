"""What a comparison of large models costs beyond reading them once: `compare` against plain reads, in one run.

    python -m benches.lineage big-shapes DIR/root --shape llama-8gb --layers 32 --vocabulary 128256
    python -m benches.lineage big-shapes DIR/child --shape llama-8gb --layers 32 --vocabulary 128256 --kind permuted
    python -m benches.lineage big-shapes DIR/stranger --shape llama-8gb --layers 32 --vocabulary 128256 --seed 1
    python -m benches.lineage budget DIR/root DIR/child DIR/stranger

Every model after the first is compared with the first, each pair in a process of its own. Before and after that both
are read once in two ways, from the page cache where they fit in it: bytes into one buffer per thread, nothing done with
them (the fastest there is), and by `weightprint.scan` with digests. The ratio is

    (seconds of compare - seconds of dense linear algebra that it reports) / seconds of reading both once

with the mean of the reads before and after. With `--cold` the files are dropped from the page cache before each of
these, so that everything comes from the disk, as for two models that were just downloaded. Peak memory is the whole
process', Python and numpy included. Seconds are wall seconds, so on a busy machine only the ratios mean something; CPU
seconds stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Measured", "add_command", "measure", "plain_read"]

_BUFFER = 8 << 20

_SCAN = """
import json, sys, time, weightprint
started, cpu = time.perf_counter(), time.process_time()
for model in sys.argv[2:]:
    weightprint.scan(model, digest=True, threads=int(sys.argv[1]))
print(json.dumps([time.perf_counter() - started, time.process_time() - cpu]))
"""

_COMPARE = """
import json, sys, time, weightprint
from weightprint.util.linear_algebra import accounted
cpu = time.process_time()
with accounted() as spent:
    found = weightprint.compare(sys.argv[2], sys.argv[3], effort=sys.argv[1])
json.dump({
    "verdict": found.verdict, "log10_p": found.log10_p, "seconds": found.seconds, "gemm": found.gemm_seconds,
    "read": found.bytes_read, "peak": found.peak_rss_bytes,
    "cpu": time.process_time() - cpu, "gemm_cpu": spent.cpu,
    "tests": [[e.test, e.basis, e.seconds, e.gemm_seconds] for e in found.evidence],
}, sys.stdout)
"""


@dataclass(frozen=True)
class Measured:
    """One pair: wall seconds of plain reads, of scans and of the comparison, CPU seconds of the last two, and what the
    comparison reports."""

    a: str
    b: str
    effort: str
    bytes: int
    plain: tuple[float, float]
    scan: tuple[float, float]
    scan_cpu: float
    verdict: str
    log10_p: float | None
    seconds: float
    gemm: float
    cpu: float
    gemm_cpu: float
    read: int
    peak: int
    tests: list[tuple[str, str, float, float]]
    cold: bool = False

    @property
    def over_plain(self) -> float:
        """Seconds that are not linear algebra, in plain reads of both."""
        return (self.seconds - self.gemm) / (sum(self.plain) / 2)

    @property
    def over_scan(self) -> float:
        """The same in scans of both."""
        return (self.seconds - self.gemm) / (sum(self.scan) / 2)

    @property
    def cpu_over_scan(self) -> float:
        """The same in CPU seconds, which a busy machine changes less."""
        return (self.cpu - self.gemm_cpu) / self.scan_cpu


def files_of(model: Path) -> list[Path]:
    """The weights of a model's folder."""
    return sorted(model.glob("*.safetensors"))


def plain_read(files: Sequence[Path], threads: int) -> tuple[float, int]:
    """Seconds of reading every byte once, with so many threads and a buffer each, and how many bytes."""
    pieces = [(f, at) for f in files for at in range(0, f.stat().st_size, 16 * _BUFFER)]

    def read(piece: tuple[Path, int]) -> int:
        file, at = piece
        buffer, done = bytearray(_BUFFER), 0
        with file.open("rb", buffering=0) as source:
            source.seek(at)
            while done < 16 * _BUFFER and (n := source.readinto(buffer)):
                done += n
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(read, pieces))
    return time.perf_counter() - started, total


def forget(files: Sequence[Path]) -> None:
    """Drop files from the page cache, so that they are read from the disk again."""
    for file in files:
        with file.open("rb") as source:
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(a: Path, b: Path, effort: str, threads: int, cold: bool = False) -> Measured:
    """Reads, compares, reads again."""
    environment = dict(os.environ) | {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}

    def fresh(code: str, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, check=True, stdout=subprocess.PIPE
        )
        return json.loads(done.stdout)

    files = [*files_of(a), *files_of(b)]
    prepare = forget if cold else lambda files: None
    plain_read(files, threads)  # into the page cache
    plain, scans, cpu = [], [], []
    found: dict[str, Any] = {}
    size = 0
    for turn in (0, 1):
        prepare(files)
        seconds, size = plain_read(files, threads)
        plain.append(seconds)
        prepare(files)
        both = fresh(_SCAN, str(threads), str(a), str(b))
        scans.append(both[0])
        cpu.append(both[1])
        if turn == 0:
            prepare(files)
            found = fresh(_COMPARE, effort, str(a), str(b))
    pair: dict[str, Any] = {"a": a.name, "b": b.name, "effort": effort, "bytes": size, "cold": cold}
    return Measured(**pair, plain=(plain[0], plain[1]), scan=(scans[0], scans[1]), scan_cpu=sum(cpu) / 2, **found)


def add_command(commands: Any) -> None:
    """The command line of this module, under `python -m benches.lineage`."""
    parser = commands.add_parser("budget", help="what comparing large models costs beyond reading them once")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="the first is compared with the others")
    parser.add_argument("--effort", choices=("quick", "standard", "full"), default="standard")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of reads and products (%(default)s)")
    parser.add_argument("--cold", action="store_true", help="everything from the disk, not from the page cache")
    parser.add_argument("--output", type=Path, help="all numbers, one JSON object a line")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    first, *others = args.models
    if not others:
        raise SystemExit("at least two models")
    for other in others:
        found = measure(first, other, args.effort, args.threads, args.cold)
        if args.output:
            with args.output.open("a") as file:
                file.write(json.dumps(asdict(found)) + "\n")
        sys.stdout.write("\n".join(_lines(found)) + "\n")
        sys.stdout.flush()


def _lines(m: Measured) -> list[str]:
    slowest = sorted(m.tests, key=lambda t: -t[2])[:6]
    return [
        f"{m.a} and {m.b}, {m.bytes / 1e9:.1f} GB{', from disk' if m.cold else ''}, {m.effort}: {m.verdict}",
        f"  reading both once: plain {m.plain[0]:.1f} and {m.plain[1]:.1f} s, scan with digests {m.scan[0]:.1f} and "
        f"{m.scan[1]:.1f} s",
        f"  compare: {m.seconds:.1f} s, of which {m.gemm:.1f} s linear algebra; CPU {m.cpu:.1f} s and "
        f"{m.gemm_cpu:.1f} s, of the scan {m.scan_cpu:.1f} s; "
        f"{m.read / 1e9:.1f} GB read; peak memory {m.peak / 1e9:.2f} GB",
        f"  beyond linear algebra: {m.over_plain:.2f} x plain reading, {m.over_scan:.2f} x scanning "
        f"({m.cpu_over_scan:.2f} x in CPU seconds)",
        "  slowest, and of that linear algebra: "
        + ", ".join(f"{test} {seconds:.1f} s ({gemm:.1f})" for test, _, seconds, gemm in slowest),
    ]
