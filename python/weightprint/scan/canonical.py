"""A scan of canonical tensors: decoder.7.up is measured, however it is named, fused, turned or quantised.

A canonical tensor that is a stored tensor as it stands goes through the core's scan of files. The others are read as
float32 in runs of whole canonical rows (:meth:`Anatomy.read`), several at a time on threads, and added to the core's
:class:`~weightprint._core.Measure`, which is the same scan over values in memory. A run holds about a million values,
so memory stays at some twenty megabytes per thread whatever the tensors' sizes; a turned tensor is read in runs of at
least 256 rows (as memory allows), since these are short pieces of every stored row.

What is measured once is not measured again: a tied head has the numbers of the embedding. Weights without a place are
measured as they are stored, under their own names.

With ``digest`` every float of up to 32 bits goes the second way: the digest is that of the canonical float32 values, so
equal tensors have equal digests in whatever form they are stored. That of integers, of 64-bit and complex types, and of
types below a byte is of their bytes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from weightprint import _core
from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.place import Assignment, View
from weightprint.anatomy.role_order import drawn_at
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.selection import matching
from weightprint.results.table import Column
from weightprint.scan.columns import complete, join, measure
from weightprint.scan.places import placed
from weightprint.scan.request import Progress
from weightprint.scan.result import Scan, result, whole_digest

if TYPE_CHECKING:
    from weightprint.quant.weights import Weight

__all__ = ["scan_canonical"]

_RUN = 1 << 20
_ROWS_OF_TURNED = 256
_LARGEST_RUN = 1 << 24
_ALIGNED = 128
_AS_F32 = frozenset({"F32", "F16", "BF16", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0"})
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the result: a canonical tensor, or a weight without a place (`assignment` None)."""

    name: str
    weight: Weight
    view: View
    assignment: Assignment | None

    @property
    def nbytes(self) -> int:
        """The share of what is stored that holds it."""
        return self.weight.nbytes * prod(self.view.shape) // max(1, self.weight.numel)


def scan_canonical(
    checkpoint: Checkpoint,
    include: str | Iterable[str],
    exclude: str | Iterable[str],
    asked: dict[str, Any],
    threads: int | None,
    progress: Progress | None,
) -> Scan:
    """What `weightprint.scan` returns for ``canonical=True``; `asked` as the core's scan takes it."""
    began = time.perf_counter()
    anatomy = Anatomy(checkpoint)
    rows = _rows(anatomy)
    chosen = matching([row.name for row in rows], include, exclude)
    rows = [row for row in rows if row.name in chosen]
    n_threads = threads or os.cpu_count() or 1

    # A view is measured once, however many places it serves.
    views = {row.view: row for row in reversed(rows)}
    once = [row for row in rows if views[row.view] is row]
    stored = [row for row in once if _as_stored(anatomy, row, asked["digest"])]
    others = [row for row in once if not _as_stored(anatomy, row, asked["digest"])]
    meter = _Meter(progress, sum(row.nbytes for row in once))
    parts = []
    if stored:
        parts.append(_stored(checkpoint, stored, asked, threads, meter))
    if others:
        parts.append(_measured(anatomy, others, asked, n_threads, meter))
    checkpoint.check_unchanged()
    position = {row.view: k for k, row in enumerate(stored + others)}
    measured = _pick(join(parts), [position[row.view] for row in rows]) if rows else measure([], [], asked)
    seconds = time.perf_counter() - began
    digest = None
    if asked["digest"]:
        dtypes = ["F32" if not _as_stored(anatomy, row, True) else row.weight.dtype for row in rows]
        digest = whole_digest(dtypes, [row.view.shape for row in rows], measured["digest"])
    own = [row for row in rows if row.assignment is None or not row.assignment.tied]
    return result(
        checkpoint.source,
        _heads(checkpoint, rows),
        measured,
        range(len(rows)),
        sum(prod(row.view.shape) for row in own),
        sum(row.nbytes for row in own),
        seconds,
        digest,
    )


# What there is to measure


def _rows(anatomy: Anatomy) -> list[_Row]:
    """Canonical tensors in the order of the drawing, then weights without a place."""
    found = sorted(anatomy.assignments, key=lambda a: drawn_at(a.place))
    rows = [_Row(str(a.place), anatomy.weights[a.view.weight], a.view, a) for a in found]
    taken = {row.name for row in rows}
    for name in anatomy.unmapped:
        weight = anatomy.weights[name]
        shown = f"{name} (unmapped)" if name in taken else name
        rows.append(_Row(shown, weight, View(name, weight.shape), None))
    return rows


def _as_stored(anatomy: Anatomy, row: _Row, digest: bool) -> bool:
    """Whether the core's scan of files can measure it."""
    info = anatomy.weights.stored(row.weight.name)
    return info is not None and row.view.whole and (not digest or info.dtype not in _AS_F32)


def _heads(checkpoint: Checkpoint, rows: Sequence[_Row]) -> list[Column]:
    files = [info.name for info in checkpoint.files]
    return [
        Column("name", "str", [row.name for row in rows]),
        Column("dtype", "str", [row.weight.dtype for row in rows]),
        Column("shape", "shape", [row.view.shape for row in rows]),
        Column("numel", "u64", np.array([prod(row.view.shape) for row in rows], np.uint64)),
        Column("nbytes", "u64", np.array([row.nbytes for row in rows], np.uint64)),
        Column("file", "str", [files[checkpoint.find(row.weight.components[0]).file] for row in rows]),
        *placed([row.assignment for row in rows]),
        Column("weight", "str", [row.weight.name for row in rows]),
        Column("scheme", "str", [row.weight.scheme for row in rows]),
    ]


# Measuring


class _Meter:
    """Bytes done, over both ways of measuring; the callback is called from the caller's thread only."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.before = 0
        self._done = 0
        self._lock = threading.Lock()

    def add(self, n: int) -> None:
        with self._lock:
            self._done += n

    def report(self) -> None:
        if self.progress is not None:
            self.progress(min(self.total, self.before + self._done), self.total)

    def of_files(self, done: int, total: int) -> None:
        """The core's callback."""
        self.before = done
        self.report()


def _stored(
    checkpoint: Checkpoint, rows: Sequence[_Row], asked: dict[str, Any], threads: int | None, meter: _Meter
) -> dict[str, Any]:
    infos = [checkpoint.find(row.weight.name) for row in rows]
    files = [checkpoint.core_file(f) for f in range(len(checkpoint.files))]
    progress = None if meter.progress is None else meter.of_files
    plan = [(info.file, info.index) for info in infos]
    return measure(files, plan, {**asked, "threads": threads or 0}, progress)


def _measured(
    anatomy: Anatomy, rows: Sequence[_Row], asked: dict[str, Any], threads: int, meter: _Meter
) -> dict[str, Any]:
    """All rows on threads. An exception in one, Ctrl-C, or one in the callback stops the others at their next run."""
    stop = threading.Event()
    options = {key: value for key, value in asked.items() if key != "io"}
    found: list[dict[str, Any]] = [{}] * len(rows)
    numbers = iter(range(len(rows)))
    lock = threading.Lock()

    def work() -> None:
        while not stop.is_set():
            with lock:
                k = next(numbers, None)
            if k is None:
                return
            found[k] = _one(anatomy, rows[k], options, meter, stop)

    with ThreadPoolExecutor(min(threads, len(rows)), thread_name_prefix="weightprint") as pool:
        left = {pool.submit(work) for _ in range(min(threads, len(rows)))}
        try:
            while left:
                done, left = wait(left, _POLL, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                meter.report()
        finally:
            stop.set()
    return join([complete(measured, 1) for measured in found])


def _one(anatomy: Anatomy, row: _Row, options: dict[str, Any], meter: _Meter, stop: threading.Event) -> dict[str, Any]:
    view, n_values = row.view, prod(row.view.shape)
    state = _core.Measure(view.shape, **options)
    step = _run_rows(view)
    n_rows = view.shape[0] if view.shape else 1
    for start in range(0, n_rows if n_values else 0, step):
        if stop.is_set():
            return {}  # someone else failed; nobody asks for this result
        values = anatomy.read(view, slice(start, min(start + step, n_rows)))
        state.add(np.ascontiguousarray(values, "<f4").tobytes())
        meter.add(row.nbytes * values.size // n_values)
    return state.finish()


def _run_rows(view: View) -> int:
    """Canonical rows per run: about a million values; of a turned tensor more, and of a quantised one whole blocks."""
    width = max(1, prod(view.shape[1:]))
    step = max(1, _RUN // width)
    if view.transposed:
        step = max(step, min(_ROWS_OF_TURNED, max(1, _LARGEST_RUN // width)))
    return step - step % _ALIGNED if step > _ALIGNED else step


def _pick(measured: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The core's columns with these entries, in this order."""
    n = max(order) + 1
    out: dict[str, Any] = {}
    for key, column in measured.items():
        if isinstance(column, bytes):
            matrix = np.frombuffer(column, np.uint8).reshape(max(n, 1), -1) if n else np.empty((0, 0), np.uint8)
            out[key] = matrix[list(order)].tobytes()
        else:
            out[key] = [column[k] for k in order]
    return out
