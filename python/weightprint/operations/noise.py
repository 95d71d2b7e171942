"""Gaussian noise: the difference is normal, of one standard deviation over a tensor, and full rank.

That sd may be the same in every tensor (a published model turned out to be another one plus noise of sd 1/708), or the
same fraction of each tensor's own sd. The standard error of an sd from n values is sd / sqrt(2n); tensors together give
it to a tenth of a percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from weightprint.operations.base import Operation
from weightprint.operations.changes import Change, Changes
from weightprint.verdict.facts import Facts

__all__ = ["noise"]

_FLAT = 0.03  # spread of sds over tensors, as a fraction, that still counts as one sd
_MOST = 0.8  # of the changed matrices must be noise, or something else was done as well


def noise(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"sd"}`` or ``{"relative"}``; the range over tensors where neither is the same everywhere."""
    found = changes.of_kind("noise", _MOST)
    if not found or _of_copies(changes, [c for c, _ in found]):
        return
    weights = [float(s.n) for _, s in found]
    sds = [s.sd for _, s in found]
    shares = [s.sd / c.a.std if c.a.std > 0 else math.nan for c, s in found]
    where = f"{len(changes.changed)} tensors; in {len(found)} matrices the difference is normal and of full rank"
    if (spread := _spread(sds)) <= _FLAT and not spread > _spread(shares):
        yield Operation("gaussian_noise", {"sd": _mean(sds, weights)}, f"{where}, of one sd", 0.98)
    elif _spread(shares) <= _FLAT:
        yield Operation("gaussian_noise", {"relative": _mean(shares, weights)}, f"{where}, its sd in proportion", 0.98)
    else:
        yield Operation("gaussian_noise", {"sd_from": min(sds), "sd_to": max(sds)}, f"{where}, of several sds", 0.8)


def _of_copies(changes: Changes, noisy: Sequence[Change]) -> bool:
    """Only experts changed, and others of the same roles did not: noise that tells copies of one apart."""

    def experts(some: Iterable[Change]) -> set[str]:
        return {c.role for c in some if c.b.place is not None and c.b.place.expert is not None}

    every = all(c.b.place is not None and c.b.place.expert is not None for c in noisy)
    return every and bool(experts(noisy) & experts(changes.untouched))


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Root of the mean square."""
    total = sum(weights)
    return float(f"{math.sqrt(sum(w * v * v for w, v in zip(weights, values, strict=True)) / total):.4g}")


def _spread(values: Sequence[float]) -> float:
    """Median deviation from the median, as a fraction of it, in units of a normal sd."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    away = sorted(abs(v - middle) for v in values)
    return away[len(away) // 2] / 0.6745 / middle if middle > 0 else math.inf
