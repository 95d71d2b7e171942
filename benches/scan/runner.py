"""Measures one checkpoint: our scan against the plain read, peers against our scan, and memory."""

from __future__ import annotations

import datetime
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import children, native, synthetic
from .peers import OURS, PEERS

WORKLOADS = ("moments", "rows", "exact", "digest", "all")


@dataclass(frozen=True)
class Plan:
    """What a run measures, and how long it may take."""

    threads: int
    pairs: int
    isas: tuple[str, ...]
    ios: tuple[str, ...]
    peers: tuple[str, ...]
    peers_python: str
    peer_seconds: float
    peer_timeout: float
    keep: bool


def measure(nbytes: int, dtype: str, with_peers: bool, program: Path, plan: Plan) -> dict[str, Any]:
    """Everything about one checkpoint; the entry under its name in results.json."""
    folder = synthetic.checkpoint(nbytes, dtype)
    files = synthetic.shard_files(folder)
    try:
        entry: dict[str, Any] = {
            "size": nbytes,
            "dtype": dtype,
            "model": folder.name.split("MB-")[0].rsplit("-", 1)[0],
            "date": datetime.date.today().isoformat(),
            "load_before": os.getloadavg()[0],
        }
        _say(f"{folder.name}: scan against plain read")
        entry |= native.ratios(program, files, _cases(plan), plan.threads, plan.pairs)
        _say(f"{folder.name}: memory")
        entry["memory"] = _memory(program, folder, files, plan)
        entry["peers"] = [_peer(name, files, plan) for name in plan.peers] if with_peers else []
        return entry
    finally:
        if not plan.keep:
            shutil.rmtree(folder)


def _cases(plan: Plan) -> list[str]:
    """Every workload with every instruction set by the first I/O path; with the others, the moments only."""
    first, *others = plan.ios
    cases = [f"{work}/{isa}/{first}" for work in WORKLOADS for isa in plan.isas]
    return cases + [f"{work}/{plan.isas[0]}/{io}" for io in others for work in WORKLOADS]


def _memory(program: Path, folder: Path, files: Sequence[Path], plan: Plan) -> dict[str, Any]:
    core = {f"{work}/{io}": _core_rss(program, files, work, io, plan) for work in ("moments", "all") for io in plan.ios}
    if importlib.util.find_spec("weightprint") is None:
        return {"core": core, "stats": {"failed": "weightprint is not installed"}, "import": {}}
    start = [sys.executable, "-m", "weightprint"]
    return {
        "core": core,
        "stats": children.memory([*start, "stats", str(folder), "--format", "json"]),
        "import": children.memory([*start, "--version"]),
    }


def _core_rss(program: Path, files: Sequence[Path], work: str, io: str, plan: Plan) -> int:
    return native.peak_rss(program, files, f"{work}/auto/{io}", plan.threads)


def _peer(name: str, files: Sequence[Path], plan: Plan) -> dict[str, Any]:
    _say(f"  peer {name}")
    row = children.compare(
        name,
        files,
        python=plan.peers_python,
        threads=plan.threads,
        pairs=plan.pairs,
        seconds=plan.peer_seconds,
        timeout=plan.peer_timeout,
    )
    ratio = row.get("ratio")
    _say(f"    {row['failed']}" if ratio is None else f"    {ratio['median']:.2f} × ours ({ratio['n']} pairs)")
    return row


def machine(plan: Plan) -> dict[str, Any]:
    """What the figures depend on, without naming the machine."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "isa": list(isas()),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "rustc": subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True).stdout.split(" (")[0],
        "python": platform.python_version(),
        "peers": children.versions(plan.peers_python),
    }


def _cpu_name() -> str:
    """As the kernel tells it, with family and model, since virtual machines hide the rest."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def isas() -> tuple[str, ...]:
    """Of the instruction sets with kernels of their own, those this machine has, best first; else the portable one."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return ("portable",)
    return tuple(name for name, flag in (("avx512", "avx512bw"), ("avx2", "avx2")) if flag in flags) or ("portable",)


def check_names(peers: Sequence[str]) -> None:
    """Every peer is known, and stands against a workload of ours that the binding serves."""
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        raise SystemExit(f"unknown peers {', '.join(unknown)}; known: {', '.join(PEERS)}")
    assert all(PEERS[name].against in OURS for name in peers)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
