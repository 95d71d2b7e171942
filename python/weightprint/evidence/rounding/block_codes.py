"""A tensor in codes with scales per group, beside the one it may have been made of.

The strict question is :func:`weightprint._core.cells`: does every value lie in the cell that rounding to the group's
levels leaves for it? Quantisers that round to nearest pass it (absmax and min-max of any group size, NF4, FP8 and FP4
in blocks, GGUF's Q types), and nothing else does: of a group that was trained on, or of a stranger's, some value lies
elsewhere. A few groups may miss, where a value stood half-way between two levels, and no further off. A group of
one level has no cells: it may hold what is tiny beside its neighbours, and next to nothing of the difference. And the
outermost cells are open, so the difference as a whole must be of the size that rounding makes it.

The loose one is whether the difference is of the size that such codes make. Quantisers that look at activations (GPTQ)
push values to levels further off, to make up for the errors of others: 1.1 to 1.5 times the mean square of rounding to
nearest, for inputs whose variances fall like k^-.5 to k^-1.5. A small change before rounding looks alike. So it shows
that the codes were made of these values or of near ones, and is never taken for equality.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from weightprint import _core
from weightprint.fingerprint.model import Tensor
from weightprint.util.arrays import F32

__all__ = ["PUSHED", "Coded", "Codes", "bits_of", "coded"]

_FEW_MISS = 0.9  # of the groups of a run of rows fit, so that what does not is looked at
_ODD = 0.17  # of a group's largest value: half the widest step of any codes of four bits (E2M1, 4 to 6)
_FURTHER = 0.75  # of the way to the next level
_FITTING = 0.999  # of the groups, and of the difference in groups with cells, for "every value"
_MIN_GROUPS, _MIN_VALUES = 4, 256  # that show something
#: Mean square of the difference over that of rounding to nearest, at most, where values were pushed.
PUSHED = 2.0


@dataclass(frozen=True)
class Coded:
    """What the comparison showed.

    Attributes:
        same: every value lies in its cell.
        near: the difference is of the size that the codes make.
        difference: sum of squares of the difference; ``size`` of the finer values; ``rounding`` of what rounding to
            nearest makes of them, NaN where the levels are not known.
        run: inputs that share a scale, None where that is not known.
    """

    same: bool
    near: bool
    difference: float
    size: float
    rounding: float
    run: int | None


class Codes:
    """A tensor in codes and a finer one, compared run of rows by run of rows."""

    def __init__(self, coarse: Tensor, precision: int) -> None:
        """``precision``: bits of the finer side's type."""
        self._coarse, self._precision = coarse, 2.0**-precision
        width = coarse.matrix[1]
        self._run = max(1, width if coarse.levels is None else min(coarse.levels.run, width))
        # Of a width that isn't whole groups, the last group is shorter.
        whole = width - width % self._run
        self._cuts = [(0, whole, self._run)] + ([(whole, width, width - whole)] if whole < width else [])
        self._sums = np.zeros(6)
        self._beyond = 0

    def add(self, fine: F32, decoded: F32) -> None:
        """The next whole rows of both, float32 (rows, inputs)."""
        even = self._coarse.levels is not None and self._coarse.levels.even
        for start, stop, run in self._cuts:
            a, b = (np.ascontiguousarray(x[:, start:stop]) for x in (fine, decoded))
            found = _core.cells(a, b, run, even=even, precision=self._precision)
            self._sums += found
            self._beyond += int(np.count_nonzero(np.isfinite(a) != np.isfinite(b)))  # which the core leaves out
            if found[1] >= _FEW_MISS * found[0]:
                x, y = a.reshape(-1, run), b.reshape(-1, run)
                with np.errstate(invalid="ignore"):
                    odd = ~(np.abs(x - y).max(axis=1) <= _ODD * np.abs(y).max(axis=1)) | (found[1] < found[0])
                self._beyond += _beyond(x[odd], y[odd])

    def found(self) -> Coded:
        """What all rows so far show."""
        groups, fit, difference, size, rounding, flat = self._sums.tolist()
        if self._coarse.levels is None:
            return Coded(False, difference <= _limit(self._coarse) ** 2 * size, difference, size, math.nan, None)
        enough = groups >= _MIN_GROUPS and groups * self._run >= _MIN_VALUES
        near = difference <= PUSHED * rounding
        same = enough and near and not self._beyond and fit >= _FITTING * groups and flat <= (1 - _FITTING) * difference
        return Coded(same, near, difference, size, rounding, self._run)


def _beyond(x: F32, y: F32) -> int:
    """Groups where a value, none of the outermost, is further off than rounding can bring it from the level that the
    group has beside its own on that side."""
    order = np.argsort(y, axis=1)
    fine, levels = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    steps = np.diff(levels, axis=1)
    above, below = np.zeros_like(levels), np.zeros_like(levels)
    for i in range(steps.shape[1]):  # to the next level that differs
        k = steps.shape[1] - 1 - i
        above[:, k] = np.where(steps[:, k] > 0, steps[:, k], above[:, k + 1])
        below[:, i + 1] = np.where(steps[:, i] > 0, steps[:, i], below[:, i])
    further = np.abs(fine - levels) > _FURTHER * np.where(fine < levels, below, above)
    return int(np.count_nonzero((further & (above > 0) & (below > 0)).any(axis=1)))


def coded(pieces: Iterable[tuple[F32, F32]], coarse: Tensor, precision: int) -> Coded:
    """Compare all rows of a finer tensor with those of one in codes; see :class:`Codes`."""
    codes = Codes(coarse, precision)
    for fine, decoded in pieces:
        codes.add(fine, decoded)
    return codes.found()


def _limit(coarse: Tensor) -> float:
    """The largest relative error that is called one of the codes, by their bits: rounding to nearest leaves a third of
    it in normal weights."""
    return math.ldexp(1.0, 2 - bits_of(coarse.dtype))


def bits_of(dtype: str) -> int:
    """Bits per code, as the name of the codes says; 8 where it doesn't."""
    return next((int(c) for c in dtype.partition(" ")[0] if c.isdigit()), 8)
