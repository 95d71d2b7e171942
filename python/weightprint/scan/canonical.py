"""A scan of canonical tensors: decoder.7.up is measured, however it is named, fused, transposed or quantised.

A canonical tensor that is a stored tensor as it stands goes through the core's scan of files. The others are read as
float32 in runs of whole canonical rows (:meth:`Anatomy.read`), several at a time on threads, and added to the core's
:class:`~weightprint._core.Measure`, which is the same scan over values in memory. A run holds about a million values,
so memory stays at some twenty megabytes per thread whatever the tensors' sizes; a transposed tensor is read in runs of
at least 256 rows (as memory allows), since these are short pieces of every stored row.

No tensor is measured twice: a tied head has the numbers of the embedding. Weights without a place are measured as they
are stored, under their own names.

With ``digest`` every float of up to 32 bits goes the second way: the digest is that of the canonical float32 values, so
equal tensors have equal digests in whatever form they are stored. The digest of integers, of 64-bit and complex types,
and of types below a byte is of their bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod

import numpy as np

from weightprint import _core
from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.place import Assignment, View
from weightprint.anatomy.role_order import drawn_at
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.selection import matching
from weightprint.quant.weights import Weight
from weightprint.results.table import Column
from weightprint.scan.columns import Columns, measure
from weightprint.scan.places import placed
from weightprint.scan.request import Request, Settings
from weightprint.scan.result import Scan, described, result, whole_digest
from weightprint.util import parallel
from weightprint.util.progress import Meter, Progress

_RUN = 1 << 20
_ROWS_OF_TRANSPOSED = 256
_LARGEST_RUN = 1 << 24
_ALIGNED = 128
_AS_F32 = frozenset({"F32", "F16", "BF16", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0"})


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
    anatomy: Anatomy, include: str | Iterable[str], exclude: str | Iterable[str], request: Request, settings: Settings
) -> Scan:
    """Every canonical tensor measured whose place the globs choose, and every weight without a place."""
    began = time.perf_counter()
    checkpoint = anatomy.checkpoint
    rows = _rows(anatomy)
    chosen = matching([row.name for row in rows], include, exclude)
    rows = [row for row in rows if row.name in chosen]
    once: dict[View, _Row] = {}  # a view is measured once, however many places it serves
    for row in rows:
        once.setdefault(row.view, row)
    stored = [row for row in once.values() if _as_stored(anatomy, row, request.digest)]
    others = [row for row in once.values() if not _as_stored(anatomy, row, request.digest)]
    meter = Meter(settings.progress, sum(row.nbytes for row in once.values()))
    infos = [checkpoint.find(row.weight.name) for row in stored]
    parts = [measure(checkpoint, infos, request, replace(settings, progress=meter.part()))]
    threads = settings.threads or os.cpu_count() or 1
    parts += parallel.each(lambda row: _read(anatomy, row, request, meter.part()), others, len(others), threads)
    for one in anatomy.checkpoints:
        one.check_unchanged()
    position = {row.view: k for k, row in enumerate(stored + others)}
    measured = Columns.join(parts).take([position[row.view] for row in rows])
    seconds = time.perf_counter() - began
    digest = None
    if request.digest:
        as_stored = {row.view for row in stored}
        dtypes = [row.weight.dtype if row.view in as_stored else "F32" for row in rows]
        digest = whole_digest(dtypes, [row.view.shape for row in rows], measured["digest"])
    own = [row for row in rows if row.assignment is None or not row.assignment.tied]
    n, nbytes = sum(prod(row.view.shape) for row in own), sum(row.nbytes for row in own)
    return result(anatomy.source, _heads(checkpoint, rows), measured, n, nbytes, seconds, digest)


# What there is to measure


def _rows(anatomy: Anatomy) -> list[_Row]:
    """Canonical tensors in the order of the drawing, then weights without a place."""
    found = sorted(anatomy.assignments, key=lambda a: drawn_at(a.place))
    rows = [_Row(str(a.place), anatomy.weights[a.view.weight], a.view, a) for a in found]
    taken = {row.name for row in rows}
    for name in (*anatomy.unmapped, *(n for n in anatomy.weights if n in anatomy.adapter_factors)):
        weight = anatomy.weights[name]
        shown = f"{name} (unmapped)" if name in taken else name
        rows.append(_Row(shown, weight, View(name, weight.shape), None))
    return rows


def _as_stored(anatomy: Anatomy, row: _Row, digest: bool) -> bool:
    """Whether the core's scan of files can measure it."""
    info = anatomy.weights.stored(row.weight.name)
    return info is not None and row.view.whole and (not digest or info.dtype not in _AS_F32)


def _heads(checkpoint: Checkpoint, rows: Sequence[_Row]) -> list[Column]:
    names, weights = [row.name for row in rows], [row.weight for row in rows]
    holders = [weight.components[0] for weight in weights]  # a merged adapter's own modules are in none of the files
    files = [checkpoint.files[checkpoint[name].file].name if name in checkpoint else None for name in holders]
    dtypes, shapes = [weight.dtype for weight in weights], [row.view.shape for row in rows]
    return [
        *described(names, dtypes, shapes, [row.nbytes for row in rows], files),
        *placed([row.assignment for row in rows]),
        Column("weight", "str", [weight.name for weight in weights]),
        Column("scheme", "str", [weight.scheme for weight in weights]),
    ]


# Measuring


def _read(anatomy: Anatomy, row: _Row, request: Request, advanced: Progress) -> Columns:
    """The statistics of one canonical tensor, from runs of its rows."""
    state = _core.Measure(row.view.shape, **asdict(request))
    step = _run_rows(row.view)
    n_rows = row.view.shape[0] if row.view.shape else 1
    for start in range(0, n_rows if prod(row.view.shape) else 0, step):
        stop = min(start + step, n_rows)
        values = anatomy.read(row.view, slice(start, stop))
        state.add(np.ascontiguousarray(values, "<f4").tobytes())
        advanced(row.nbytes * stop // n_rows, row.nbytes)
    return Columns.complete(state.finish(), 1)


def _run_rows(view: View) -> int:
    """Canonical rows per run: about a million values; of a transposed tensor more, of a quantised one whole blocks."""
    width = max(1, prod(view.shape[1:]))
    step = max(1, _RUN // width)
    if view.transposed:
        step = max(step, min(_ROWS_OF_TRANSPOSED, max(1, _LARGEST_RUN // width)))
    return step - step % _ALIGNED if step > _ALIGNED else step
