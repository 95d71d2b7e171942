"""Two other tools on the same pairs, each in an interpreter of its own that the user names (`--peer-python`).

    modeldna          pip install modeldna                       (Apache-2.0; numpy only)
    provenance_kit    pip install cisco-ai-provenance-kit        (Apache-2.0; asks for Python 3.12, torch, transformers)

They are no dependencies of ours: `--peer-python` points at any interpreter that has them. One child
process per worker answers line by line (:mod:`.peer_driver`), so a tool loads once. A tool that can't start is left
out, and the reason is on the page.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "Peer", "start"]

PEERS = ("modeldna", "provenance_kit")
_DRIVER = Path(__file__).with_name("peer_driver.py")


@dataclass(frozen=True)
class Peer:
    """A tool that starts: its name, its version and its interpreter."""

    name: str
    version: str
    python: str

    def __call__(self, a: Path, b: Path) -> dict[str, Any]:
        answer = _ask(_child(self.name, self.python), {"a": str(a), "b": str(b)})
        if "failed" in answer:
            _child.cache_clear()
            raise RuntimeError(answer["failed"])
        return answer


def start(pythons: Sequence[str]) -> tuple[tuple[Peer, ...], dict[str, str]]:
    """The tools that start in one of these interpreters, and for each that does not, why."""
    found: list[Peer] = []
    reasons: dict[str, str] = dict.fromkeys(PEERS, "no interpreter that has it was named (--peer-python)")
    for name in PEERS:
        for python in pythons:
            process = _launch(name, python)
            hello = _read(process)
            process.terminate()
            process.wait()
            if "version" in hello:
                found.append(Peer(name, hello["version"], python))
                reasons.pop(name, None)
                break
            reasons[name] = hello["failed"]
    return tuple(found), reasons


def _launch(name: str, python: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.Popen(
        [python, str(_DRIVER), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


@cache
def _child(name: str, python: str) -> subprocess.Popen[str]:
    process = _launch(name, python)
    _read(process)
    return process


def _ask(process: subprocess.Popen[str], question: dict[str, str]) -> dict[str, Any]:
    if process.stdin is None or process.poll() is not None:
        return {"failed": "the tool's process ended"}
    try:
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
    except BrokenPipeError:  # it ended between the two lines
        return {"failed": "the tool's process ended"}
    return _read(process)


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        return {"failed": f"the tool's process ended with status {process.wait()}"}
    answer: dict[str, Any] = json.loads(line)
    return answer
