"""Where B stands among permuted copies of itself: a p-value that is uniform, beside the bound that may be tiny.

The tests of this package quote bounds: exact however far out, but on the safe side, so that most strangers read p = 1
and nothing can be seen of whether the null holds. The same null allows a second reading. If given A every order of B's
channels (or hidden units) is equally likely, B and R copies of it in random orders are exchangeable, and the rank of
B's statistic among the R + 1 is uniform whatever the statistic is. With ties broken by a uniform U

    p = (#{T_r > T_0} + U (1 + #{T_r = T_0})) / (R + 1)              is uniform on (0, 1) exactly

(Barnard 1963; Dufour 2006, section 2, for the ties). It can't be small, so it never decides; on models known to be
independent its uniformity (`python -m benches.lineage calibrate`) is the test of the null itself: of exchangeability,
not of the bound's slack.

Where a statistic is a count of hits, a copy costs nothing: permuting B's columns moves the column that a row names.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint.evidence.nulls.exchange import log10_p_hits
from weightprint.util.arrays import F64, I64

#: Permuted copies of B, and pairs of FFNs up to which they are looked at.
COPIES, RANKED_PAIRS = 39, 1 << 12


@lru_cache(maxsize=16)
def joint_orders(n: int, seed: int, copies: int = COPIES) -> I64:
    """The order as it is, then random ones: int64 (1 + copies, n)."""
    rng = np.random.default_rng([seed, n, 20061])
    orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(copies))])
    orders.setflags(write=False)
    return orders


def hits_of_copies(choice: I64, orders: I64) -> I64:
    """Rows that name the column of their own number, in B and in every copy: int64 (1 + copies, …).

    ``choice``: the column each row names, -1 for none (:func:`weightprint.evidence.nulls.exchange.choices`); (…, rows).
    """
    rows = np.arange(choice.shape[-1])
    named = np.where(choice >= 0, orders[:, choice], -1)
    out: I64 = np.count_nonzero(named == rows, axis=-1)
    return out


def log10_p_of(hits: I64) -> F64:
    """The bound of :func:`log10_p_hits` on every count."""
    table = np.array([log10_p_hits(k) for k in range(int(hits.max(initial=0)) + 1)])
    out: F64 = table[hits]
    return out


def rank_p(statistic: npt.ArrayLike, *tied: npt.ArrayLike, salt: Any) -> float:
    """p from the rank of entry 0 among all, large values being extreme; ties are settled by ``tied``, then at random.

    ``salt``: something that differs from pair to pair; U is drawn from its digest, so that the same pair gives the same
    number.
    """
    columns = [np.asarray(x, np.float64).round(9) for x in (statistic, *tied)]
    keys = list(zip(*(column.tolist() for column in columns), strict=True))
    above, equal = sum(key > keys[0] for key in keys[1:]), sum(key == keys[0] for key in keys)
    digest = hashlib.blake2b(repr(salt).encode(), digest_size=8).digest()
    u = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
    return (above + u * equal) / len(keys)


def smallest(looks: Sequence[F64]) -> F64:
    """The look that says most, for B and every copy, corrected for how many there are."""
    out: F64 = np.minimum(np.min(looks, axis=0) + math.log10(len(looks)), 0.0)
    return out
