"""What the core measures of many tensors: one array per statistic, one entry per tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.results.table import Kind
from weightprint.scan.request import Request, Settings
from weightprint.util.progress import Progress

#: The columns that every scan fills, in the order of the table. -1 stands for no position, and for no number.
MEASURED: dict[str, Kind] = {
    "min": "number",
    "max": "number",
    "abs_max": "number",
    "abs_max_index": "i64",
    "mean": "f64",
    "std": "f64",
    "rms": "f64",
    "l1": "f64",
    "l2": "f64",
    "skewness": "f64",
    "kurtosis": "f64",
    "n": "u64",
    "n_finite": "u64",
    "n_zero": "u64",
    "n_nan": "u64",
    "n_posinf": "u64",
    "n_neginf": "u64",
    "first_nan": "i64",
    "first_inf": "i64",
    "abs_q9999": "f64",
    "quantile_error": "f64",
    "n_distinct": "i64",
    "entropy": "f64",
}

#: Types of the columns that the core returns as bytes; the others are lists.
_DTYPES = {name: np.dtype(kind[0] + "8") for name, kind in MEASURED.items() if kind != "number"}
_DTYPES["quantiles"] = np.dtype((np.float64, 9))

#: What the core leaves out where it counted the values of no tensor, and what one tensor then has.
_UNCOUNTED = {
    "abs_q9999": np.nan,
    "quantile_error": np.nan,
    "entropy": np.nan,
    "n_distinct": -1,
    "quantiles": np.nan,
}


#: Tensors that go through the core at once: it holds all results of a call, a kilobyte each, until the call is over.
_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Columns:
    """Statistics of n tensors by name (:data:`MEASURED`); all columns have n entries.

    f64, u64 and i64 arrays of shape (n,), and ``quantiles`` of shape (n, 9). Of object: min, max, abs_max (float, int
    or None), and what was asked for of ``digest`` (64 hex digits) and ``row_mean row_std row_l2 column_mean column_std
    column_l2`` (bytes of float64, or None where a tensor has no rows), and ``sketch`` (bytes of 256 float64, or None).
    """

    arrays: dict[str, npt.NDArray[Any]]

    @classmethod
    def complete(cls, found: dict[str, Any], n: int) -> Columns:
        """From what the core returned for `n` tensors; every column is there, whatever their dtypes are."""
        arrays = {
            name: np.frombuffer(column, _DTYPES[name]) if name in _DTYPES else np.array(column, object)
            for name, column in found.items()
        }
        missing = {name: np.full(n, none, _DTYPES[name]) for name, none in _UNCOUNTED.items() if name not in found}
        return cls(arrays | missing)

    @classmethod
    def join(cls, parts: Sequence[Columns]) -> Columns:
        """Those of several measurements, one after the other."""
        return cls({name: np.concatenate([part[name] for part in parts]) for name in parts[0].arrays})

    def take(self, order: Sequence[int]) -> Columns:
        """Those of these tensors, in this order."""
        index = np.asarray(order, np.intp)
        return Columns({name: array[index] for name, array in self.arrays.items()})

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]


def measure(
    checkpoint: Checkpoint,
    infos: Sequence[TensorInfo],
    request: Request,
    settings: Settings,
    keep: Sequence[Any] = (),
    sketch: Sequence[int | None] | None = None,
) -> Columns:
    """Read every byte of these tensors once, on threads of this process; `keep` and `sketch` as the core's scan takes
    them."""
    files = [checkpoint.core_file(f) for f in range(len(checkpoint.files))]
    return measure_files(files, [(info.file, info.index) for info in infos], request, settings, keep, sketch)


def measure_files(
    files: Sequence[_core.SafetensorsFile],
    tensors: Sequence[tuple[int, int]],
    request: Request,
    settings: Settings,
    keep: Sequence[Any] = (),
    sketch: Sequence[int | None] | None = None,
) -> Columns:
    """The same of pairs (position in `files`, tensor number)."""
    parts = []
    for start in range(0, max(1, len(tensors)), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        found = _core.scan(
            files,
            tensors[some],
            **asdict(request),
            threads=settings.threads or 0,
            io=settings.io,
            progress=_progress_from(settings.progress, files, tensors, start),
            keep=[(place - start, *what) for place, *what in keep if some.start <= place < some.stop],
            sketch=None if sketch is None else sketch[some],
        )
        n = len(tensors[some])
        if sketch is not None and "sketch" not in found and any(key is not None for key in sketch):
            found["sketch"] = [None] * n  # the core leaves out what no tensor of a call has
        parts.append(Columns.complete(found, n))
    return parts[0] if len(parts) == 1 else Columns.join(parts)


def _progress_from(
    progress: Progress | None,
    files: Sequence[_core.SafetensorsFile],
    tensors: Sequence[tuple[int, int]],
    start: int,
) -> Progress | None:
    """Progress of a scan of `tensors` from number `start` on, told as that of them all."""
    if progress is None or len(tensors) <= _AT_ONCE:
        return progress
    sizes = [end - begin for file, i in tensors for *_, begin, end in [files[file].tensor(i)]]
    before, total = sum(sizes[:start]), sum(sizes)
    return lambda done, _: progress(before + done, total)
