"""What an order or a turn fitted to A would reach: the floor that agreement in place must beat.

The bounds of :mod:`weightprint.evidence.nulls.exchange` are against models that were *trained* apart. A stranger whose
units were then *put* into A's order by an assignment (git re-basin), or whose stream was turned onto A's (Procrustes),
is beyond chance at any p, since the fit took the largest likeness that there was to be had. So beside p the likeness
itself must be larger than a fit yields between things that do not correspond:

* an order: the best assignment of B's rows to A's that leaves none at its own number. For strangers, and for strangers
  whose order was fitted, other numbers are as good to choose from as the own ones, so it comes within a tenth or two of
  what the fit reached; in a descendant it stays what strangers give;
* a turn: with the sign of every row of B drawn anew, all that ties A's rows to B's is gone, and every strong direction
  and uneven row of either stays. The nuclear norm of their cross product is what the best rotation reaches, and no
  order of channels reaches more, being a rotation.

Whoever fits may do both. :data:`MARGIN` pays for what a best order elsewhere falls short of, for the spread from block
to block, and for fitting in turns.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from weightprint.util.arrays import F32
from weightprint.util.assignment import assign
from weightprint.util.linear_algebra import svd, svdvals

#: A likeness must be so many times what a fitted order or turn reaches.
MARGIN = 1.5

#: Why a p-value was withheld.
FITTED = "an order fitted to A would give as much"

_FEWEST = 8
_COMMON = 8  # leading directions of a similarity that are taken for common structure, at most a sixteenth of all


def against_order(similarity: F32, size: int = 0) -> tuple[float, float]:
    """How alike rows are to those of their own number, and what the best order gives in which none keeps its number.

    Both are means above that of all other pairs, over all rows or over the quarter with the largest (where only some
    units were kept), whichever speaks more clearly; once the few directions that govern the whole matrix are taken out:
    what all rows have in common makes every order good. ``size``: of how many rows these are a sample; the largest of
    more is larger, as maxima of normal values are.
    """
    n = len(similarity)
    if n < _FEWEST or not np.isfinite(similarity).all():
        return 0.0, math.inf
    u, s, v = svd(similarity.astype(np.float64))
    k = min(_COMMON, n // 16)
    left = similarity - (u[:, :k] * s[:k]) @ v[:k]
    least, most = float(left.min()), float(left.max())
    cost = -left
    np.fill_diagonal(cost, -least + 2 * (most - least) + 1)
    own, other = np.sort(np.diagonal(left)), np.sort(left[np.arange(n), assign(cost).columns])
    usual = (float(left.sum()) - float(own.sum())) / (n * n - n)
    looks = [
        (float(own[at:].mean()) - usual, (float(other[at:].mean()) - usual) * _among(n, size)) for at in (0, -n // 4)
    ]
    return max(looks, key=lambda look: look[0] / max(look[1], 1e-9))


def _among(n: int, size: int) -> float:
    """How much larger what the best order of ``size`` rows picks is than that of n, for normal values: there are so
    many of the largest entries as there are rows, and a few more to choose from."""
    return _picked(size) / _picked(n) if size > n > 1 else 1.0


def _picked(n: int) -> float:
    return NormalDist().inv_cdf(1 - 0.6 / n)


def stands(reached: float, floor: float) -> bool:
    """Whether a likeness is well above what a fit reaches."""
    return reached >= MARGIN * floor


def best_turn(c: F32) -> float:
    """The largest trace that any rotation gives this cross product of B's channels with A's."""
    values = svdvals(np.asarray(c, np.float64))
    return float(values.sum())
