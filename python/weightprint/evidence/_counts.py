"""How unlikely a count is, given how often the same thing happens by chance in R permutations.

*Two Poisson counts* (Przyborowski and Wilenski 1940). K is the count as it is, S the total of R permutations. If all
1 + R counts are Poisson with one rate, K given K + S is Binomial(K + S, 1/(1 + R)) whatever the rate. No tail is
extrapolated and no rate estimated, so P(K or more) may be read at 1e-200. It is discrete, so on the safe side:
P(p <= alpha) <= alpha.

*Over-dispersion.* Agreements may come in clusters. Over many pairs the permutations show how much more the counts vary
than Poisson counts do: phi = sum of variances / sum of means. Where phi > 1 both counts are divided by it (K rounded
down, S up).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["dispersion", "log10_binomial_tail", "log10_p_count"]


def log10_binomial_tail(k: int, n: int, q: float) -> float:
    """log10 P(Binomial(n, q) >= k), summed in log space; 0 for k <= 0."""
    if k <= 0:
        return 0.0
    if k > n:
        return -math.inf
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    j = np.arange(k, n + 1)
    terms = log_factorials[n] - log_factorials[j] - log_factorials[n - j] + j * math.log(q) + (n - j) * math.log1p(-q)
    top = float(terms.max())
    return min(0.0, (top + math.log(float(np.exp(terms - top).sum()))) / math.log(10))


def log10_p_count(k: int, permuted: int, permutations: int, phi: float = 1.0) -> float:
    """log10 p of `k` against a total of `permuted` in so many permutations, both divided by `phi`."""
    k, permuted = math.floor(k / phi), math.ceil(permuted / phi)
    return log10_binomial_tail(k, k + permuted, 1 / (1 + permutations))


def dispersion(counts: npt.NDArray[np.int64]) -> float:
    """Variance over mean of counts (permutations, cells), pooled over cells, plus two standard errors; at least 1."""
    r = counts.shape[0]
    means = counts.mean(axis=0)
    if r < 2 or means.sum() == 0:
        return 1.0
    ratio = float(counts.var(axis=0, ddof=1).sum() / means.sum())
    # The ratio's own variance for Poisson counts: 2/(r - 1) per cell, weighted by the means.
    error = math.sqrt(2 / (r - 1) * float(np.square(means).sum())) / float(means.sum())
    return max(1.0, ratio - 2 * error) if ratio - 2 * error > 1 else 1.0
