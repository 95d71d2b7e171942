"""Tail probabilities in log10, for the p-values that papers claim.

They are never ours: they go into ``details`` so that a benchmark can judge their calibration. Kept in logarithms, since
a float ends at 1e-308 and a copy's p-value does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_LN10 = math.log(10)


def spearman(order: npt.NDArray[np.integer], other: npt.NDArray[np.integer]) -> float:
    """Rank correlation of two lists of distinct numbers; nan for fewer than two."""
    ranks = [np.argsort(np.argsort(x)).astype(np.float64) for x in (order, other)]
    x, y = (r - r.mean() for r in ranks)
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / scale if scale > 0 else math.nan


def log10_spearman(rho: float, n: int) -> float:
    """log10 of the two-sided p-value of a rank correlation, t = rho sqrt((n-2)/(1-rho^2)) against n - 2 degrees.

    That is P(|t| >= ...) = I_{1-rho^2}((n-2)/2, 1/2). Never below 1/n!, the chance of one order among all.
    """
    if n < 3 or not math.isfinite(rho):
        return 0.0
    floor = -math.lgamma(n + 1) / _LN10
    rest = (1 - abs(rho)) * (1 + abs(rho))
    return 0.0 if rest >= 1 else floor if rest <= 0 else max(floor, _log_beta_tail(rest, (n - 2) / 2, 0.5) / _LN10)


def log10_fisher(log10_p: Iterable[float]) -> float:
    """Fisher's combination of independent p-values: chi2 of 2L degrees, P = e^-t sum_{k<L} t^k/k!, t = -sum ln p."""
    logs = [-p * _LN10 for p in log10_p]
    t = sum(logs)
    if not logs or t <= 0:
        return 0.0
    terms = [k * math.log(t) - math.lgamma(k + 1) for k in range(len(logs))]
    top = max(terms)
    return min(0.0, (-t + top + math.log(sum(math.exp(x - top) for x in terms))) / _LN10)


def _log_beta_tail(x: float, a: float, b: float) -> float:
    """ln of the regularised incomplete beta function I_x(a, b), 0 < x < 1."""
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):
        return front + math.log(_fraction(x, a, b) / a)
    return math.log1p(-min(1.0, math.exp(front) * _fraction(1 - x, b, a) / b))


def _fraction(x: float, a: float, b: float) -> float:
    """Continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 + term * d
            c = 1 + term / c
            d = 1 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
