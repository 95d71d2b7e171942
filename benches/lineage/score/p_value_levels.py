"""Does a claimed p-value hold its word? Rates of p <= alpha between strangers, and a Kolmogorov-Smirnov number.

Most of our bounds are on the safe side, so what is claimed is P(p <= alpha) <= alpha for every alpha, and what could
refute it is an excess of *small* p. The one-sided statistic is therefore

    D+ = sup_x (F_n(x) - x),      P(D+ >= d) ≈ exp(-2 n d² - 2 d/3)   (Smirnov, with the finite-sample term)

with F_n the share of pairs with p <= x. Conservative (and discrete) tests have D+ near 0; a liberal one has it large.
Values are log10 p throughout: p may be 1e-1000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

ALPHAS = (0.1, 0.05, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Level:
    """P(p <= alpha) observed: how many of n, and the one-sided probability of so many if the claim were true."""

    alpha: float
    hits: int
    n: int
    log10_tail: float

    def to_dict(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "hits": self.hits, "n": self.n, "log10_tail": self.log10_tail}


@dataclass(frozen=True)
class Calibration:
    """One test's p-values between strangers."""

    n: int
    levels: tuple[Level, ...]
    ks: float
    ks_p: float
    smallest: float
    at_one: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "levels": [level.to_dict() for level in self.levels],
            "ks": self.ks,
            "ks_p": self.ks_p,
            "smallest_log10_p": self.smallest,
            "share_at_one": self.at_one,
        }


def ks_one_sided(log10_p: F64) -> tuple[float, float]:
    """(D+, its p-value): the largest excess of observed small p-values over the claim."""
    n = log10_p.size
    p = np.sort(np.power(10.0, np.minimum(log10_p, 0.0)))
    d = float(np.max(np.arange(1, n + 1) / n - p, initial=0.0))
    # Ties in discrete p-values: F_n jumps at a value, and the last of the ties carries the whole jump.
    return d, min(1.0, math.exp(-2 * n * d * d - 2 * d / 3))


def ks_two_sided(p: F64) -> tuple[float, float]:
    """(D, its p-value) of Kolmogorov's test that p-values are uniform on (0, 1).

    Limit law with Stephens' (1970) term for finite n: P(D >= d) = 2 sum (-1)^(i-1) exp(-2 i² t²),
    t = d (sqrt n + .12 + .11 / sqrt n).
    """
    n = p.size
    ordered = np.sort(p)
    d = float(max(np.max(np.arange(1, n + 1) / n - ordered), np.max(ordered - np.arange(n) / n)))
    t = d * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if t < 0.2:  # the series converges slowly there, to 1
        return d, 1.0
    tail = 2 * math.fsum((-1) ** (i - 1) * math.exp(-2 * i * i * t * t) for i in range(1, 101))
    return d, min(1.0, max(0.0, tail))


def uniformity(p: Sequence[float]) -> dict[str, Any]:
    """How uniform ranks are: the two-sided test, and the share in either twentieth at the ends."""
    values = np.asarray(p, np.float64)
    d, ks_p = ks_two_sided(values)
    low, high = float(np.mean(values <= 0.05)), float(np.mean(values > 0.95))
    return {"n": values.size, "ks": d, "ks_p": ks_p, "lowest": low, "highest": high, "mean": float(values.mean())}


def log10_binomial_tail(hits: int, n: int, p: float) -> float:
    """log10 P(X >= hits) for X ~ Binomial(n, p), summed exactly in logs."""
    if hits <= 0:
        return 0.0
    k = np.arange(hits, n + 1)
    logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
    logs += k * math.log(p) + (n - k) * math.log1p(-p)
    top = float(logs.max())
    return min(0.0, (top + math.log(float(np.exp(logs - top).sum()))) / math.log(10))


def with_silent(found: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Tests in an alignment (`test@basis`) are run only where one was worth a look, which is a choice by values. So the
    pairs on which they were not run count with p = 1: as many as there are for the test as stored, or for the test that
    was run most where it is run in alignments only."""
    out = {}
    most = max(map(len, found.values()), default=0)
    for name, values in found.items():
        base, _, basis = name.partition("@")
        asked = len(found[base]) if base in found else most if basis else 0
        out[name] = [*values, *([0.0] * max(0, asked - len(values)))]
    return out


def calibration(log10_p: Sequence[float] | F64, alphas: Sequence[float] = ALPHAS) -> Calibration:
    """Claimed against observed for one test; raises ValueError without p-values."""
    values = np.asarray(log10_p, np.float64)
    if not values.size:
        raise ValueError("no p-values")
    levels = []
    for alpha in alphas:
        hits = int(np.count_nonzero(values <= math.log10(alpha) + 1e-12))
        levels.append(Level(alpha, hits, values.size, log10_binomial_tail(hits, values.size, alpha)))
    d, p = ks_one_sided(values)
    at_one = float(np.mean(values >= -1e-9))
    return Calibration(values.size, tuple(levels), d, p, float(values.min()), at_one)
