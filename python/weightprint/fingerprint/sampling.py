"""Which rows and channels are read: seeded, the same on both sides, in short contiguous runs so that reading stays
cheap.

The nulls in :mod:`weightprint.evidence.nulls.exchange` hold for any choice made without looking at values, so sampling
costs power and never validity.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from weightprint.fingerprint.model import SLICE_VALUES, ModelView, Runs, Tensor
from weightprint.util.arrays import F32, Indices

_RUN = 32  # rows read in one go


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Rows and columns of a matrix that are read together; None for all."""

    tensor: Tensor
    rows: Indices | None = None
    columns: Indices | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of what is read."""
        n_rows, width = self.tensor.matrix
        return n_rows if self.rows is None else self.rows.size, width if self.columns is None else self.columns.size

    @property
    def runs(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]] | None]:
        """As `ModelView.sample` is asked for them."""
        n_rows, width = self.tensor.matrix
        rows = np.arange(n_rows) if self.rows is None else self.rows
        return _runs(rows), None if self.columns is None or self.columns.size == width else _runs(self.columns)


def pick(n: int, want: int, seed: int, key: str, run: int = _RUN) -> Indices:
    """Sorted indices: all of range(n), or about ``want`` in runs of ``run`` at places drawn from seed and key."""
    if n <= want:
        return np.arange(n)
    run = min(run, want)
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    starts = np.sort(rng.choice(n // run, size=max(1, want // run), replace=False)) * run
    return (starts[:, None] + np.arange(run)).ravel()


def _runs(indices: Indices) -> list[tuple[int, int]]:
    """Maximal runs of consecutive ascending indices as (start, length)."""
    if not indices.size:
        return []
    cuts = np.nonzero(np.diff(indices) != 1)[0]
    starts = indices[np.concatenate(([0], cuts + 1))]
    last = indices[np.concatenate((cuts, [indices.size - 1]))]
    return list(zip(starts.tolist(), (last - starts + 1).tolist(), strict=True))


def sampled(side: ModelView, read: Read) -> F32:
    """What `read` names: float32 (rows, columns)."""
    rows = np.arange(read.tensor.matrix[0]) if read.rows is None else read.rows
    return sampled_rows(side, read.tensor, rows, read.columns)


def sampled_rows(side: ModelView, tensor: Tensor, rows: Indices, columns: Indices | None = None) -> F32:
    """Only these rows (and columns) of a matrix, in the order given: float32 (rows, columns). Where the tensor is not
    stored as it is read, the rows' runs are read a few MB at a time."""
    width = tensor.matrix[1]
    if columns is not None and np.any(np.diff(columns) <= 0):
        ascending, back = np.unique(columns, return_inverse=True)
        return sampled_rows(side, tensor, rows, ascending)[:, back]
    if columns is not None and columns.size == width:
        columns = None  # all of them as they stand: nothing to gather
    runs, across = _runs(rows), None if columns is None else _runs(columns)
    if (found := side.sample(tensor.name, runs, across)) is not None:
        return found
    out = np.empty((rows.size, width if columns is None else columns.size), np.float32)
    step, done = max(1, SLICE_VALUES // max(width, 1)), 0
    for start, n in runs:
        for at in range(start, start + n, step):
            end = min(at + step, start + n)
            _take(side.rows(tensor, at, end), across, out[done : done + end - at])
            done += end - at
    return out


def _take(x: F32, runs: Runs | None, out: F32) -> None:
    """The columns of these runs, or all."""
    at = 0
    for start, n in [(0, x.shape[1])] if runs is None else runs:
        out[:, at : at + n] = x[:, start : start + n]
        at += n


def on_channels(side: ModelView, tensor: Tensor, channels: Indices, *, fold: bool = True) -> F32:
    """All rows of a matrix that reads the stream, on these channels: float32 (rows, channels). ``fold`` multiplies in
    the gain of the norm that feeds it."""
    out = sampled_rows(side, tensor, np.arange(tensor.matrix[0]), channels)
    gain = side.gain(tensor) if fold else None
    if gain is not None:
        out *= gain[channels]
    return out


def sampled_columns(side: ModelView, tensor: Tensor, columns: Indices, rows: Indices | None = None) -> F32:
    """These columns of a matrix, transposed: (columns, rows). Streams the asked rows (None: all) and keeps little."""
    rows = np.arange(tensor.matrix[0]) if rows is None else rows
    return np.ascontiguousarray(sampled_rows(side, tensor, rows, columns).T)


def residual_axis(tensor: Tensor, width: int) -> int | None:
    """The axis (0 = first, 1 = last) of a matrix that runs over residual channels, or None where that isn't sure.

    ``width`` is the model's hidden size. Exactly one axis of that length settles it; a square matrix needs its role.
    """
    rows, columns = tensor.shape
    if (rows == width) != (columns == width):
        return 0 if rows == width else 1
    axis = tensor.role.axis if rows == width and tensor.role is not None else None
    return {"writes": 0, "reads": 1}.get(axis or "")
