"""A tensor in codes with scales per group, beside the one it may have been made of.

The strict question is :func:`weightprint._core.cells`: does every value lie in the cell that rounding to the group's
levels leaves for it? Quantisers that round to nearest pass it (absmax and min-max of any group size, NF4, FP8 and FP4
in blocks, GGUF's Q types), and nothing else does: of a group that was trained on, or of a stranger's, some value lies
elsewhere. A few groups may miss, where a value stood half-way between two levels.

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
from weightprint.evidence._base import F32, Tensor

__all__ = ["Coded", "coded"]

_FITTING = 0.999  # of the groups, for "every value"
_MIN_GROUPS, _MIN_VALUES = 4, 256  # that show something
_PUSHED = 2.0  # mean square of the difference over that of rounding to nearest, at most, where values were pushed


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


def coded(pieces: Iterable[tuple[F32, F32]], coarse: Tensor, precision: int) -> Coded:
    """Compare runs of whole rows: (finer, decoded), float32 (rows, inputs) each.

    Args:
        pieces: all rows of both.
        coarse: the tensor in codes.
        precision: bits of the finer side's type.
    """
    levels, width = coarse.levels, coarse.matrix[1]
    run = width if levels is None else min(levels.run, width)
    # Of a width that isn't whole groups, the last group is shorter.
    cuts = [(0, width - width % run, run), (width - width % run, width, width % run)]
    sums = np.zeros(5)
    for fine, decoded in pieces:
        for start, stop, n in cuts:
            if start < stop:
                a, b = (np.ascontiguousarray(x[:, start:stop]) for x in (fine, decoded))
                even = levels is not None and levels.even
                sums += _core.cells(a, b, n, even=even, precision=2.0**-precision)
    groups, fit, difference, size, rounding = sums.tolist()
    enough = groups >= _MIN_GROUPS and groups * run >= _MIN_VALUES
    if levels is None:
        return Coded(False, difference <= _limit(coarse) ** 2 * size, difference, size, math.nan, None)
    same = enough and fit >= _FITTING * groups
    return Coded(same, same or difference <= _PUSHED * rounding, difference, size, rounding, run)


def _limit(coarse: Tensor) -> float:
    """The largest relative error that is called one of the codes, by their bits: rounding to nearest leaves a third of
    it in normal weights."""
    bits = next((int(c) for c in coarse.dtype.partition(" ")[0] if c.isdigit()), 8)
    return math.ldexp(1.0, 2 - bits)
