"""How unlikely a count is, given how often the same thing happens when B's channels are permuted.

*Two Poisson counts* (Przyborowski and Wilenski 1940). K is the count as it is, S the total of R permutations. If all
are Poisson with one rate, K given K + S is Binomial(K + S, 1/(1 + R)) whatever the rate, and

    P(K >= k) = I_q(k, S + 1),   q = 1/(1 + R)                 (I: regularised incomplete beta function)

No rate is estimated and no normal tail taken, so it may be read at 1e-200. It is discrete, so on the safe side.

*Borrowing.* Permutations are dear and chance rates small, so one pair's own S says little, while thousands of permuted
pairs say that rates are about mu. Let a pair's rate be Gamma distributed with mean mu and shape alpha; given its own S,
K is then negative binomial:

    P(K >= k) = I_q(k, S + alpha),   q = 1/(1 + R + alpha/mu)

alpha says how even the rates are. It is 1 (exponential rates), less where the permuted counts show more spread, and
more, up to 16, only where they show less by two errors. Where alpha < 1, S + 1 stays in the formula, on the safe side.

*Over-dispersion.* Agreements may come in clusters. phi = variance over mean of one pair's counts from permutation to
permutation, pooled over pairs; where it is beyond 1 by more than its error, both counts are divided by it (K rounded
down, S up).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from weightprint.util.arrays import F64, I64

_MOST_EVEN = 16.0


@dataclass(frozen=True)
class Chance:
    """What permutations say of all pairs.

    ``permuted``: total per pair; ``rates``: expected count per pair as it is; ``permutations``: R, less where only
    some units were looked for again; ``alpha`` and ``phi`` as above.
    """

    permuted: I64
    rates: F64
    permutations: float
    alpha: float
    phi: float

    def log10_p(self, k: int, at: tuple[npt.NDArray[np.intp], ...] | tuple[int, ...], phi: float = 1.0) -> float:
        """log10 P(k or more) in one pair, or in all pairs of an index together."""
        phi = max(phi, self.phi)
        permuted, rate = int(np.sum(self.permuted[at])), float(np.sum(self.rates[at]))
        q = 1 / (1 + self.permutations + self.alpha / rate) if rate > 0 else 1 / (1 + self.permutations)
        return log10_beta_tail(math.floor(k / phi), math.ceil(permuted / phi) + max(1.0, self.alpha), q)

    def log10_each(self, k: I64) -> F64:
        """log10 P(k or more) of every pair, of the shape of ``k``; 0 where none is."""
        at = np.nonzero(k)
        own = np.maximum(np.floor(k[at] / self.phi), 0)
        successes = np.ceil(self.permuted[at] / self.phi) + max(1.0, self.alpha)
        with np.errstate(divide="ignore"):
            q = 1 / (1 + self.permutations + np.where(self.rates[at] > 0, self.alpha / self.rates[at], 0.0))
        cases, which = np.unique(np.stack([own, successes, q]), axis=1, return_inverse=True)
        tails = np.array([log10_beta_tail(int(n), r, x) for n, r, x in cases.T.tolist()])
        out: F64 = np.zeros(k.shape)
        out[at] = tails[which.ravel()] if tails.size else 0.0
        return out


def chance(permuted: I64, sizes: F64, part: float = 1.0) -> Chance:
    """Rates from permuted counts (R, pairs…) of this part of the units, proportional to `sizes` (what a rate would be
    without hubs)."""
    r = permuted.shape[0] * part
    total = permuted.sum(axis=0)
    # One more than was seen: no rate is zero, and few observations are taken as more.
    scale = (float(total.sum()) + 1 + math.sqrt(float(total.sum()))) / max(r * float(sizes.sum()), 1e-300)
    rates = scale * sizes
    seen = float(total.sum()) / max(r * float(sizes.sum()), 1e-300) * sizes * r
    squares = float(np.sum(np.square(seen)))
    error = math.sqrt(2 * squares + float(seen.sum()))  # of the sum of squares, were all rates as expected
    excess = max(0.0, float(np.sum(np.square(total - seen)) - seen.sum()))
    plain, wide = (squares / e if e > 0 else 1.0 for e in (excess, excess + 2 * error))
    alpha = min(_MOST_EVEN, max(wide, min(1.0, plain)))
    return Chance(total, rates, r, alpha, dispersion(permuted.reshape(permuted.shape[0], -1)))


@lru_cache(maxsize=1 << 14)
def log10_beta_tail(k: int, r: float, q: float) -> float:
    """log10 I_q(k, r): P(at least k failures before r successes) where a failure has probability q; 0 for k <= 0."""
    if k <= 0:
        return 0.0
    # Term j: C(j + r - 1, j) (1 - q)^r q^j; the ratio of terms is q (j + r)/(j + 1).
    first = math.lgamma(k + r) - math.lgamma(k + 1) - math.lgamma(r) + r * math.log1p(-q) + k * math.log(q)
    j = np.arange(k, k + 100 + 20 * math.ceil((k + r) * q / (1 - q)))
    logs = np.concatenate([[0.0], np.cumsum(np.log(q * (j + r) / (j + 1)))])
    top = float(logs.max())
    return min(0.0, (first + top + math.log(float(np.exp(logs - top).sum()))) / math.log(10))


def dispersion(counts: I64) -> float:
    """Variance over mean of counts (permutations, cells), pooled over cells; 1 unless it is beyond that by 3 errors."""
    r = counts.shape[0]
    means = counts.mean(axis=0)
    if r < 2 or means.sum() == 0:
        return 1.0
    ratio = float(counts.var(axis=0, ddof=1).sum() / means.sum())
    # For Poisson counts: a cell's variance has variance m/r + 2 m^2/(r - 1).
    error = math.sqrt(float((means / r + 2 * np.square(means) / (r - 1)).sum())) / float(means.sum())
    return ratio if ratio > 1 + 3 * error else 1.0
