"""Runs every method on every pair that has no record yet, in several processes, with progress and resume."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..populations.case import Maker
from . import methods
from .code_digest import commit
from .peers import Peer
from .records import Records

__all__ = ["Task", "due", "run"]

_HERE = Path(__file__).resolve().parent
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """One pair and the methods that have no record of it. A model is its path, or what writes it when it is needed."""

    key: str
    a: Path | Maker
    b: Path | Maker
    methods: tuple[str, ...]


def due(
    pairs: Iterable[tuple[str, Path | Maker, Path | Maker]],
    chosen: Sequence[methods.Method],
    records: Records,
    any_version: bool = False,
) -> list[Task]:
    """What is left to do, in the order of the pairs. ``any_version`` takes records of earlier versions for done."""
    known = {m.name: records.read(m.name, None if any_version else m.version).keys() for m in chosen}
    out = []
    for key, a, b in pairs:
        missing = tuple(m.name for m in chosen if key not in known[m.name])
        if missing:
            out.append(Task(key, a, b, missing))
    return out


def run(tasks: Sequence[Task], records: Records, jobs: int, peers: tuple[Peer, ...], label: str = "score") -> None:
    """Score the tasks, writing every record as it comes. Progress goes to stderr."""
    started = time.monotonic()
    for done, (task, found) in enumerate(_results(tasks, jobs, peers), 1):
        for name, version, values in found:
            records.append(name, version, task.key, {"commit": commit(_HERE), **values})
        spent = time.monotonic() - started
        _say(label, done, len(tasks), spent * (len(tasks) - done) / done)
    if tasks:
        sys.stderr.write("\n")


def _results(tasks: Sequence[Task], jobs: int, peers: tuple[Peer, ...]) -> Iterator[tuple[Task, list[Any]]]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # processes, not threads, share the cores
    try:  # one process, too, is a new one: numpy reads these when it is loaded
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=_end_with_parent) as pool:
            waiting: dict[Future[list[Any]], Task] = {}
            queue = iter(tasks)
            while True:
                for task in itertools.islice(queue, 2 * jobs - len(waiting)):
                    waiting[pool.submit(_one, task, peers)] = task
                if not waiting:
                    return
                ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield waiting.pop(future), future.result()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; a thread of its own ends it."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _one(task: Task, peers: tuple[Peer, ...]) -> list[tuple[str, str, dict[str, Any]]]:
    """All that is missing of one pair."""
    with tempfile.TemporaryDirectory() as folder:
        a, b = (
            model if isinstance(model, Path) else model(Path(folder) / side)
            for side, model in (("a", task.a), ("b", task.b))
        )
        return _asked(a, b, task.methods, peers)


def _asked(a: Path, b: Path, names: Sequence[str], peers: tuple[Peer, ...]) -> list[tuple[str, str, dict[str, Any]]]:
    """A method that raises is on record as one that could not answer."""
    out = []
    for method in methods.find(names, peers):
        started = time.perf_counter()
        try:
            values = method.run(a, b)
        except Exception as error:  # one method's failure on one pair is a result
            values = {"applied": False, "score": None, "error": f"{type(error).__name__}: {error}"[:300]}
        values["wall"] = time.perf_counter() - started
        out.append((method.name, method.version, _finite(values)))
    return out


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _say(label: str, done: int, total: int, left: float) -> None:
    minutes, seconds = divmod(int(left), 60)
    end = "" if sys.stderr.isatty() else "\n"
    if sys.stderr.isatty() or done == total or done % max(1, total // 50) == 0:
        sys.stderr.write(f"\r{label}: {done} of {total} pairs, {minutes}:{seconds:02d} left{end}")
        sys.stderr.flush()
