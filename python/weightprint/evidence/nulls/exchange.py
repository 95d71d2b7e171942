"""Exact p-values from exchangeability: how many units find themselves again.

Null: B was trained from an initialisation independent of A. Architecture, initialisation and optimiser treat the d
residual channels (or the h hidden units of a layer) alike, so given A every joint permutation of B's channels is
equally likely.

*Hits.* Let f map each channel of A to the channel of B that it resembles most, by any rule that commutes with
permutations of B's channels. A hit is f(j) = j. For any k channels the chance that all of them are hits is (d-k)!/d!
when f is injective on them and 0 otherwise, so E[C(hits, k)] <= C(d, k) (d-k)!/d! = 1/k!, and by Markov's inequality

    P(hits >= k) <= 1/k!                                       (exact for every d, every f, every distribution)

For L groups permuted independently (the hidden units of L layers) factorial moments of the sum are at most those of a
Poisson(L) variable: E[C(hits, r)] <= L^r/r! for every r, so P(hits >= k) <= L^r (k-r)!/k!, least at r = k - L (r = k
gives the simpler L^k/k!, useless while k < eL). Chung, Diaconis, Graham and Mallows (1981) study the same matching
problem; [Independence Tests 2502.12292] use the identity of an assignment in the same spirit.

No normal tail and no simulation enters, so the bound may be read at 1e-200. Ties count as misses: a tie broken by
index would prefer small indices on both sides.

*What the null excludes.* Models that were trained apart and then *arranged*: a stranger's units or channels put into
A's order by an assignment, or its stream turned onto A's, beat the bound at any k (what such a fit reaches, and what a
test must beat as well, says :mod:`weightprint.evidence.nulls.fitted`). And an architecture that tells units or channels
apart (:mod:`weightprint.evidence.common_zeros`).

*Trace.* For the size of an effect: under the same null tr(C) of a d x d matrix has mean sum(C)/d and variance
||C double-centred||^2/(d-1) (Hoeffding 1951). It gives a standard deviation to quote, not a p-value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from weightprint import _core
from weightprint.util.arrays import F32, I64

_TAME = (1e-12, 1e12)


def double_centre(x: F32) -> F32:
    """Subtract row means and column means (docs/methods.md, section 1). Non-finite values count as 0.

    Extreme values are scaled to one first, so that squares stay within float32; what follows is blind to scale.
    """
    return _centre(in_range(x))


def peak(x: F32) -> float:
    """The largest absolute value, 0 of none; NaN or infinite where one of the values is."""
    return _core.peaks(x if x.flags.forc else np.ascontiguousarray(x))[0]


def finite(x: F32) -> F32:
    """NaN and infinities count as 0. The same array where there are none."""
    if math.isfinite(peak(x)):
        return x
    out: F32 = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
    return out


def in_range(x: F32) -> F32:
    """The values with non-finite ones as 0 and, where they are extreme, all divided by the largest. The same array
    where there is nothing to do."""
    top = peak(x)
    if not math.isfinite(top):
        return in_range(finite(x))
    return x / np.float32(top) if top > 0 and not _TAME[0] < top < _TAME[1] else x


def _centre(x: F32) -> F32:
    out: F32 = np.array(x, np.float32, order="K" if x.flags.forc else "C")
    n = out.shape[1]
    one = np.ones(n, np.float32)
    _core.standardise(out, out.mean(axis=0), one / np.float32(max(n, 1)), one, one, unit=False)
    return out


def choices(similarity: F32) -> I64:
    """The column of each row's single largest entry, int64 (rows,); -1 for a tie or where nothing is finite."""
    if similarity.shape[1] < 2:
        return np.full(similarity.shape[0], -1, np.int64)
    top = similarity.max(axis=1, keepdims=True)
    single = ((similarity == top).sum(axis=1) == 1) & np.isfinite(top[:, 0])
    return np.where(single, similarity.argmax(axis=1), -1).astype(np.int64)


def hits(similarity: F32) -> int:
    """Number of rows j whose single largest entry is at column j. Rows with a tie or nothing finite are misses."""
    chosen = choices(similarity)
    return int(np.count_nonzero(chosen == np.arange(chosen.size)))


def log10_p_hits(k: int, groups: int = 1) -> float:
    """log10 of the bound L^r (k-r)!/k!, r = k - L, on P(hits >= k); 0 (p = 1) where the bound says nothing."""
    groups = max(groups, 1)
    if k <= groups:
        return 0.0
    r = k - groups
    return min(0.0, (r * math.log(groups) + math.lgamma(groups + 1) - math.lgamma(k + 1)) / math.log(10))


def log10_p_order(k: int, blocks: Sequence[tuple[int, int]]) -> float:
    """log10 of a bound on P(hits >= k) for blocks that are ordered independently: ``blocks`` of (groups, members).

    Orders of a block's groups and orders within its groups are equally likely. With e(t) = sum_{1..members} t^j/j!

        E[(1 + t)^hits] <= prod_blocks sum_{0..groups} e(t)^j/j!,     P(hits >= k) <= min_t of that over (1 + t)^k
    """
    if k < 2:
        return 0.0
    kinds = Counter(blocks)

    def log_bound(t: float) -> float:
        total = -k * math.log1p(t)
        for (groups, members), count in kinds.items():
            inner = math.log(math.fsum(math.exp(j * math.log(t) - math.lgamma(j + 1)) for j in range(1, members + 1)))
            terms = [j * inner - math.lgamma(j + 1) for j in range(groups + 1)]
            top = max(terms)
            total += count * (top + math.log(math.fsum(math.exp(x - top) for x in terms)))
        return total

    # Every t > 0 gives a valid bound, so a grid loses sharpness only.
    return min(0.0, min(log_bound(t) for t in np.geomspace(0.05, 1e4, 120)) / math.log(10))


def trace_sd(c: F32) -> float:
    """Standard deviation of tr(C) when C's columns are permuted at random."""
    d = c.shape[0]
    if d < 2:
        return math.nan
    return math.sqrt(float(np.sum(np.square(_centre(c)), dtype=np.float64)) / (d - 1))
