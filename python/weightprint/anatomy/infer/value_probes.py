"""Statistics of small rectangles of trained weights, and the roles that each of them tells apart.

W is (units x channels): its rows are units of a head or of the FFN, its columns channels of the residual stream.

=============  =============================================================  ===================================
cue            statistic                                                      tells
=============  =============================================================  ===================================
mean row       m = n |mean row|^2 / mean |row|^2; 1 for rows without a        gate (3 to 40) from up (about 1): SiLU
               common direction, n rows                                       only opens one way, and (up, down) may
                                                                              both change sign for any unit. Plain
                                                                              up (15 to 100) from down (1 to 8):
                                                                              orientation. Head (160) from
                                                                              embedding (10).
channel axis   off-diagonal second moment of the rows (columns scaled to      which axis of a square matrix runs over
               one), correlated with that of the FFN's units: those of the    the residual stream: last in q, k, v,
               residual stream agree or oppose (|r| .03 to .5), a head's      first in o
               axis against it is noise (|r| .005 at d 576)
paired norms   units that multiply have like norms (gradient descent keeps    o from the rest with v, v from k (r .4
               |v_i|^2 - |o_i|^2 constant): log norms of v's rows against     to .8 against 0), which up belongs to
               o's columns, up's rows against down's columns                  which down
bias norm      softmax doesn't see k's bias (it adds q.b, the same for all    q from k, where they have biases
               keys), so it isn't trained
=============  =============================================================  ===================================

*Measured* block by block with this file's functions on SmolLM2-135M (30 blocks, real), MiniLM-L6 (6, real), four
SCEPTRs (13, real), five tiny Llamas of one recipe (25) and four tiny GPT-2s (19); caps were set on SmolLM2 and two of
the Llamas:

==========================  ==============  ================================================
cue                         blocks right    wrong ones
==========================  ==============  ================================================
mean row: gate > up         55 of 55
mean row: up > down         37 of 38        a tiny GPT-2
channel axis: q > o         93 of 93
paired norms: v > k         88 of 93        SmolLM2 1, tiny Llamas 3, a tiny GPT-2 1
paired norms: v > k and q   36 of 38        tiny GPT-2s 2
bias norm: q > 6 k          32 of 38        two SCEPTRs (6 of 6; one by less, one the other way)
==========================  ==============  ================================================

Independent evidence is thin for gates (two recipes) and for head against embedding (one).

q from k without biases in multi-head attention, and any of this in weights that were never trained, can't be told:
the statistics are then about equal, and so are the odds.

Reading is bounded: one statistic reads a rectangle of at most 2^19 elements (2 MB as float32), from at most six
blocks per tensor, and a :class:`Probe` stops after 2^28 elements (1 GB) in all: cues are silent from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from weightprint.errors import WeightprintError
from weightprint.util.arrays import F32, F64
from weightprint.util.linear_algebra import eigh

Read = Callable[..., F32]
Axis = Literal[0, 1]
T = TypeVar("T")
P = ParamSpec("P")

_RECTANGLE = 1 << 19
_BUDGET = 1 << 28
_CHANNELS = 256
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix as the cues see it: a weight, and whether it is stored transposed. ``shape`` is (units, channels)."""

    name: str
    shape: tuple[int, int]
    transposed: bool = False


def _once(measure: Callable[Concatenate[Probe, P], T]) -> Callable[Concatenate[Probe, P], T]:
    """A method of Probe whose answers are remembered."""

    @wraps(measure)
    def remembered(probe: Probe, /, *args: P.args, **named: P.kwargs) -> T:
        if probe.read is None:
            return cast(T, None)
        key = (measure.__name__, *args)
        if key not in probe._kept:
            probe._kept[key] = measure(probe, *args, **named)
        return cast(T, probe._kept[key])

    return remembered


@dataclass
class Probe:
    """Reads small rectangles and remembers their statistics. Anything that can't be read is None, and no cue."""

    read: Read | None
    shapes: Mapping[str, tuple[int, ...]]
    spent: int = 0
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    def rectangle(self, m: Matrix, rows: int, columns: int) -> F64 | None:
        """The first `rows` units and `columns` channels of m, as float64; None beyond the budget or if not finite."""
        if len(self.shapes[m.name]) != 2:
            return None
        if m.transposed:
            block = self._take(m.name, slice(0, columns), slice(0, rows), rows * columns)
            return None if block is None else block.T
        return self._take(m.name, slice(0, rows), slice(0, columns), rows * columns)

    @_once
    def vector(self, name: str) -> F64 | None:
        """A vector, its first 2^19 elements; None beyond the budget or if not finite."""
        n = min(self.shapes[name][0], _RECTANGLE)
        value = self._take(name, slice(0, n), None, n)
        return None if value is None else value.ravel()

    def _take(self, name: str, rows: slice, columns: slice | None, size: int) -> F64 | None:
        if self.read is None or self.spent > _BUDGET:
            return None
        self.spent += size
        try:
            value = np.asarray(self.read(name, rows, columns), np.float64)
        except (WeightprintError, OSError):
            return None  # a cue less; who reads the tensor for its own sake hears of the error
        return value if value.size and bool(np.isfinite(value).all()) else None

    @_once
    def norms(self, m: Matrix, axis: Axis) -> F64 | None:
        """Logarithms of the norms of m's units (axis 0) or channels (axis 1), from as many elements as allowed."""
        n, other = m.shape[axis], m.shape[1 - axis]
        k = max(1, min(other, _RECTANGLE // max(1, n)))
        block = self.rectangle(m, *((n, k) if axis == 0 else (k, n)))
        return None if block is None else 0.5 * np.log((block * block).mean(1 - axis) + _TINY)

    @_once
    def channels(self, m: Matrix) -> F64 | None:
        """(3 x channels), from the elements that `norms` reads: log rms; log rms - log mean |value|, large where few
        units read the channel; log rms of what the first eighth of the singular directions leaves of it."""
        k = max(1, min(m.shape[0], _RECTANGLE // max(1, m.shape[1])))
        block = self.rectangle(m, k, m.shape[1])
        if block is None:
            return None
        wide = block.shape[0] < block.shape[1]
        squares, axes = eigh(block @ block.T if wide else block.T @ block)
        axes = axes[:, -max(1, len(squares) // 8) :]
        first = block.T @ axes if wide else axes * np.sqrt(np.maximum(squares[-axes.shape[1] :], 0))
        size = 0.5 * np.log((block * block).mean(0) + _TINY)
        uneven = size - np.log(np.abs(block).mean(0) + _TINY)
        return np.array([size, uneven, 0.5 * np.log((first * first).sum(1) / k + _TINY)])

    @_once
    def mean_row(self, m: Matrix) -> float | None:
        """n |mean row|^2 / mean |row|^2 over m's units."""
        columns = min(m.shape[1], 2048)
        rows = min(m.shape[0], _RECTANGLE // columns)
        block = self.rectangle(m, rows, columns)
        if block is None:
            return None
        size = float((block * block).sum(1).mean())
        return float(rows * (block.mean(0) ** 2).sum() / size) if size > 0 else None

    @_once
    def drift(self, m: Matrix) -> float | None:
        """How much more alike rows one apart are than rows four apart: mean cosines of centred rows, subtracted."""
        rows = min(m.shape[0], _RECTANGLE // max(1, m.shape[1]))
        block = self.rectangle(m, rows, m.shape[1]) if rows > 8 else None
        if block is None:
            return None
        u = block - block.mean(0)
        u /= np.sqrt((u * u).sum(1, keepdims=True)) + _TINY
        near, far = (float((u[step:] * u[:-step]).sum(1).mean()) for step in (1, 4))
        return near - far

    @_once
    def moment(self, m: Matrix, axis: Axis) -> F32 | None:
        """Second moment over the channels (axis 1) or the units (axis 0): the upper triangle, scaled to length one.

        Each channel is scaled to mean square one and the diagonal left out: what remains is how channels go together.
        """
        c = min(m.shape[axis], _CHANNELS)
        k = min(m.shape[1 - axis], 1024)
        block = self.rectangle(m, *((k, c) if axis == 1 else (c, k)))
        if block is None:
            return None
        rows = np.ascontiguousarray(block if axis == 1 else block.T, np.float32)
        rows /= np.sqrt(np.einsum("ij,ij->j", rows, rows) / k) + _TINY
        upper = (rows.T @ rows / k)[_upper(c)]
        size = float(np.sqrt(upper @ upper))
        return np.asarray(upper / size, np.float32) if size > 0 else None

    def channel_axis(self, m: Matrix, references: Sequence[tuple[Matrix, Axis]]) -> float | None:
        """Log odds that the last axis of a square m runs over the residual stream rather than its first.

        r are the correlations of m's second moments along either axis with those of the references; under chance
        their sd over c channels is s = sqrt(2) / c (taken three times wider for safety):
        sum of (r_last^2 - r_first^2) / 2 s^2, at most 6.
        """
        last, first = self.moment(m, 1), self.moment(m, 0)
        if last is None or first is None:
            return None
        s = 3.0 * np.sqrt(2.0) / min(m.shape[1], _CHANNELS)
        known = [r for n, axis in references if (r := self.moment(n, axis)) is not None and r.shape == last.shape]
        odds = sum(float((last @ r) ** 2 - (first @ r) ** 2) / (2 * s * s) for r in known)
        return float(np.clip(odds, -6, 6)) if known else None


@lru_cache(maxsize=8)
def _upper(n: int) -> tuple[npt.NDArray[np.intp], ...]:
    """Indices above the diagonal of an n x n table."""
    return np.triu_indices(n, 1)


def correlation(a: F64 | None, b: F64 | None) -> float | None:
    """Pearson's r of two vectors of one length; None if either is missing, constant or of another length."""
    if a is None or b is None or a.shape != b.shape or a.size < 8:
        return None
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 1e-9 * a.size else None


def head_sizes(units: int, key_units: int) -> list[int]:
    """Head sizes that divide both: the usual ones first; nothing to fold where both are equal."""
    if units == key_units:
        return [key_units]
    usual = (64, 128, 96, 80, 256, 32, 16, 48, 112, 160, 192, 8, 12, 24, 40, 72)
    return [size for size in usual if key_units % size == 0 and units % size == 0] or [key_units]


def fold(values: F64 | None, key_units: int, head: int) -> F64 | None:
    """Values per query unit averaged over the query heads that share a key head."""
    if values is None or values.size == key_units:
        return values
    group = values.size // key_units
    return np.asarray(values.reshape(-1, group, head).mean(1).ravel())


def is_positive(value: F64) -> bool:
    """Nearly everywhere, as a gain is: one before training."""
    return float((value > 0).mean()) >= 0.9


def logistic(odds: float) -> float:
    """Probability from log odds."""
    return float(1 / (1 + np.exp(-odds)))
