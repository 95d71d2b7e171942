"""Peers in child processes, interleaved with ours; and the memory of a whole command."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .native import REPOSITORY, Spread
from .peers import PEERS


class ChildError(Exception):
    """A peer is missing, failed, died or took too long; the message is for the table."""


class Child:
    """One peer (or `weightprint-WORK`) in its own warm process."""

    def __init__(self, python: str, name: str, threads: int, files: Sequence[Path], timeout: float) -> None:
        self._timeout = timeout
        self._process = subprocess.Popen(
            [python, "-m", "benches.scan.peers", name, str(threads), *map(str, files)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        answer = self._answer()
        if "missing" in answer:
            self.close()
            raise ChildError(f"not installed ({answer['missing']})")

    def run(self) -> dict[str, Any]:
        """One measured run."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write("\n")
        stdin.flush()
        answer = self._answer()
        if "failed" in answer:
            raise ChildError(f"failed: {answer['failed']}")
        return answer

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], self._timeout)[0]:
            self.close()
            raise ChildError(f"took more than {self._timeout:.0f} s")
        line = stdout.readline()
        if not line:
            raise ChildError(f"died (exit status {self._process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def compare(
    name: str, files: Sequence[Path], *, python: str, threads: int, pairs: int, seconds: float, timeout: float
) -> dict[str, Any]:
    """Peer `name` against ours: pairs of runs until there are `pairs`, or `seconds` are over after the first pair.

    The first pair warms both up and counts only when it alone is longer than `seconds`.
    """
    peer = PEERS[name]
    row: dict[str, Any] = {"peer": name, "question": peer.question, "against": peer.against}
    try:
        with (
            Child(sys.executable, f"weightprint-{peer.against}", threads, files, timeout) as ours,
            Child(python, name, threads, files, timeout) as theirs,
        ):
            start = time.monotonic()
            runs = [(ours.run(), theirs.run())]
            if time.monotonic() - start < seconds:
                runs.clear()
            while not runs or (len(runs) < pairs and time.monotonic() - start < seconds):
                first, second = (ours, theirs) if len(runs) % 2 == 0 else (theirs, ours)
                pair = (first.run(), second.run())
                runs.append(pair if first is ours else pair[::-1])
    except ChildError as error:
        return row | {"failed": str(error)}
    return row | {
        "ratio": vars(Spread.of([b["wall"] / a["wall"] for a, b in runs])),
        "seconds": vars(Spread.of([b["wall"] for _, b in runs])),
        "our_seconds": vars(Spread.of([a["wall"] for a, _ in runs])),
        "cpu_per_wall": Spread.of([b["cpu"] / b["wall"] for _, b in runs]).median,
        "our_cpu_per_wall": Spread.of([a["cpu"] / a["wall"] for a, _ in runs]).median,
        "peak_rss": runs[-1][1]["peak_rss"],
        "our_peak_rss": runs[-1][0]["peak_rss"],
    }


def versions(python: str) -> dict[str, str]:
    """Versions of the peers' distributions in the interpreter `python`; one that is missing is left out."""
    names = sorted({package for peer in PEERS.values() for package in peer.packages})
    code = (
        "import importlib.metadata as m, json, sys\nfound = {}\nfor name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n    except m.PackageNotFoundError: pass\nprint(json.dumps(found))"
    )
    out = subprocess.run([python, "-c", code, *names], stdout=subprocess.PIPE, check=True, text=True).stdout
    found: dict[str, str] = json.loads(out)
    return found


def memory(command: Sequence[str]) -> dict[str, Any]:
    """Peak memory of `command` in bytes, sampled every 2 ms.

    `anon` is what the process owns, `file` the pages of mapped files that happen to be resident (libraries, and a
    checkpoint read through a map): the system takes those back when it needs room. `peak` is the kernel's high-water
    mark of both together; not `ru_maxrss`, which a child inherits from whoever started it.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = {"RssAnon": 0, "RssFile": 0, "VmHWM": 0}
    while True:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            break
        for line in _status(process.pid):
            key, _, value = line.partition(":")
            if key in peak:
                peak[key] = max(peak[key], int(value.split()[0]) << 10)
        time.sleep(0.002)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        return {"failed": f"exit status {process.returncode}"}
    return {"anon": peak["RssAnon"], "file": peak["RssFile"], "peak": peak["VmHWM"]}


def _status(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return []
