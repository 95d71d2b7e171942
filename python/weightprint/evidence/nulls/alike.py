"""Groups of units that do about the same thing, and what dealing out their remainders within the groups would give.

After a basis was fitted, the strong directions of two independent models lie on each other: units of both can then be
paired by what they do there, and whatever depends on that (which unit, how large, what else it reads) agrees as well.
So a remainder is compared only among units whose strong parts are alike. If, within such a group, the remainders of
B's units are equally likely in any order, k of n units in groups of g find their own with

    P(hits >= k) <= min_t prod_groups (sum_{j <= g} t^j/j!) / (1 + t)^k

since E[C(hits, r)] <= 1/r! in each group (:mod:`weightprint.evidence.nulls.exchange`) and groups are dealt out apart.
All of n hits in groups of eight give (1/8!)^(n/8), 10^-0.58 each.

Groups are halves of halves along the longest axis of the strong parts, so no pair of values that is tested takes part.
"""

from __future__ import annotations

import numpy as np

from weightprint.evidence.nulls.exchange import choices, trace_sd
from weightprint.evidence.nulls.ranked import hits_of_copies, joint_orders
from weightprint.util.arrays import F32, I64
from weightprint.util.linear_algebra import product

_SIZE = 8
_STEPS = 12  # of the power iteration for a longest axis


def alike(x: F32) -> list[I64]:
    """Rows in groups of 8 to 15 that lie near each other: sorted row numbers; fewer rows are one group."""
    groups, left = [], [np.arange(len(x))]
    while left:
        rows = left.pop()
        if rows.size < 2 * _SIZE:
            groups.append(np.sort(rows))
            continue
        centred = x[rows] - x[rows].mean(axis=0)
        axis = centred[int(np.einsum("ij,ij->i", centred, centred).argmax())]
        for _ in range(_STEPS):
            axis = product(centred.T, product(centred, axis))
            axis = axis / max(float(np.linalg.norm(axis)), 1e-30)
        order = np.argsort(product(centred, axis), kind="stable")
        left += [rows[order[: rows.size // 2]], rows[order[rows.size // 2 :]]]
    return sorted(groups, key=lambda rows: int(rows[0]))


def _within(similarity: F32, groups: list[I64]) -> list[F32]:
    return [similarity[np.ix_(rows, rows)] for rows in groups]


def copies(similarity: F32, groups: list[I64], seed: int) -> I64:
    """Hits within groups: of B as it is, then of copies with every group dealt out anew; int64 (1 + copies,)."""
    out = np.zeros(1, np.int64)
    for k, part in enumerate(_within(similarity, groups)):
        out = out + hits_of_copies(choices(part), joint_orders(len(part), seed + k))
    return out


def excess(similarity: F32, groups: list[I64]) -> float:
    """Mean similarity of a row with its own column, minus that with the others of its group."""
    total = 0.0
    for part in _within(similarity, groups):
        n, own = len(part), float(np.trace(part))
        total += own - (float(part.sum()) - own) / max(n - 1, 1)
    return total / len(similarity)


def excess_sd(similarity: F32, groups: list[I64]) -> float:
    """Standard deviation of `excess` when every group is dealt out at random (Hoeffding 1951)."""
    variances = [
        (trace_sd(part) * len(part) / (len(part) - 1)) ** 2 for part in _within(similarity, groups) if len(part) > 1
    ]
    return float(np.sqrt(np.sum(variances))) / len(similarity)
