"""Which rows and channels are read: seeded, the same on both sides, in short contiguous runs so that reading stays
cheap.

The nulls in :mod:`weightprint.evidence._exchange` hold for any choice made without looking at values, so sampling
costs power and never validity. The number of rows follows from a budget of multiplications, so a large model takes
bounded time.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from weightprint.evidence._base import F32, SLICE_VALUES, Models, Runs, Side, Tensor

__all__ = [
    "BUDGETS",
    "Budget",
    "Read",
    "budget_of",
    "hidden_size",
    "is_large",
    "on_channels",
    "pick",
    "residual_axis",
    "sampled",
    "sampled_columns",
    "sampled_rows",
]

Indices = npt.NDArray[np.int64]
_RUN = 32  # rows read in one go
_MIN_WIDTH = 8


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one effort level may do."""

    rows: int  # per tensor
    units: int  # hidden units per layer
    layers: int  # sampled evenly over the depth
    channels: int  # residual channels
    multiplications: float  # for the channel products
    streamed: int  # largest tensor (in values) that may be read whole for the sake of some columns


BUDGETS: dict[str, Budget] = {
    "quick": Budget(rows=64, units=256, layers=6, channels=2048, multiplications=2e11, streamed=1 << 16),
    "standard": Budget(rows=512, units=512, layers=64, channels=1024, multiplications=2e12, streamed=1 << 40),
    "full": Budget(rows=4096, units=4096, layers=4096, channels=16384, multiplications=1e14, streamed=1 << 40),
}


#: Quick reads at most this share of a model's values, or this many where that would be too few to see anything.
QUICK_SHARE, QUICK_VALUES = 0.006, 1 << 20


#: From this many parameters on, `standard` samples further: what is sampled says enough.
LARGE = 1 << 29


def is_large(models: Models) -> bool:
    """Whether effort `standard` samples further."""
    return models.effort == "standard" and min(models.a.numel, models.b.numel) >= LARGE


def budget_of(models: Models) -> Budget:
    """What the models' effort allows. Quick shrinks its samples to a share of the smaller model; of two large models
    standard samples half as many channels.

    A sampled block costs about nine row samples (the matrices that read the stream, and the looks that take gate and
    up again) and six unit samples.
    """
    budget = BUDGETS[models.effort]
    if models.effort != "quick":
        return replace(budget, channels=budget.channels // 2) if is_large(models) else budget
    allowed = max(QUICK_VALUES, int(QUICK_SHARE * min(models.a.numel, models.b.numel)))
    per_row = budget.layers * (hidden_size(models) or 1024)
    return replace(
        budget,
        rows=min(budget.rows, max(8, allowed // (9 * per_row))),
        units=min(budget.units, max(32, allowed // (6 * per_row))),
        streamed=allowed // (12 * budget.layers),
    )


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
        """As `Side.sample` is asked for them."""
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


def sampled(side: Side, read: Read) -> F32:
    """What `read` names: float32 (rows, columns)."""
    rows = np.arange(read.tensor.matrix[0]) if read.rows is None else read.rows
    return sampled_rows(side, read.tensor, rows, read.columns)


def sampled_rows(side: Side, tensor: Tensor, rows: Indices, columns: Indices | None = None) -> F32:
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


def on_channels(side: Side, tensor: Tensor, channels: Indices, *, fold: bool = True) -> F32:
    """All rows of a matrix that reads the stream, on these channels: float32 (rows, channels). ``fold`` multiplies in
    the gain of the norm that feeds it."""
    out = sampled_rows(side, tensor, np.arange(tensor.matrix[0]), channels)
    gain = side.gain(tensor) if fold else None
    if gain is not None:
        out *= gain[channels]
    return out


def sampled_columns(side: Side, tensor: Tensor, columns: Indices, rows: Indices | None = None) -> F32:
    """These columns of a matrix, transposed: (columns, rows). Streams the asked rows (None: all) and keeps little."""
    rows = np.arange(tensor.matrix[0]) if rows is None else rows
    return np.ascontiguousarray(sampled_rows(side, tensor, rows, columns).T)


def hidden_size(models: Models) -> int | None:
    """Width of the residual stream common to A and B: the commonest length of norm gains, else of matrix axes.

    Gains on one side are enough (the other may hide its names); gains that disagree mean that there is no common width.
    """
    gains = [Counter[int](), Counter[int]()]
    axes: Counter[int] = Counter()
    for count, side in zip(gains, (models.a, models.b), strict=True):
        for tensor in side.tensors.values():
            role = tensor.role
            if role is not None and role.part == "norm" and role.axis == "channels" and len(tensor.shape) == 1:
                count[tensor.numel] += 1
            elif tensor.rank2 and role is not None and role.part != "fixed":
                axes.update({n for n in tensor.shape if n >= _MIN_WIDTH})
    widths = {_commonest(count) for count in gains if count} or ({_commonest(axes)} if axes else set())
    return widths.pop() if len(widths) == 1 else None


def _commonest(count: Counter[int]) -> int:
    """The most frequent length; of equally frequent ones the smallest (an FFN is wider than the stream)."""
    return max(count, key=lambda width: (count[width], -width))


def residual_axis(tensor: Tensor, width: int) -> int | None:
    """The axis (0 = first, 1 = last) of a matrix that runs over residual channels, or None where that isn't sure.

    ``width`` is the model's hidden size. Exactly one axis of that length settles it; a square matrix needs its role.
    """
    rows, columns = tensor.shape
    if (rows == width) != (columns == width):
        return 0 if rows == width else 1
    axis = tensor.role.axis if rows == width and tensor.role is not None else None
    return {"writes": 0, "reads": 1}.get(axis or "")
