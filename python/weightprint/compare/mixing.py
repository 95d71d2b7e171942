"""Least squares on Gram matrices: which weights of the parents come nearest to the child, and what they leave.

``child ≈ Σ w_i p_i``, the w free, or summing to one, or none below zero. Fits are made on differences from one parent,
so that siblings (whose weights are nearly parallel) are told apart by what makes them differ::

    c - p_0 = Σ_(i>0) w_i (p_i - p_0) + (Σ w - 1) p_0

Task arithmetic over a base is the fit that sums to one with the base among the parents: λ_i are the others' weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weightprint.util.arrays import F64
from weightprint.util.linear_algebra import lstsq

__all__ = ["LEFT_BY_ROUNDING", "cosines", "fit", "interval", "left", "rounding_of", "squares", "subset"]

#: What is left of the child is rounding where it is no more than so many times what storing the models costs: the
#: arithmetic of a merge rounds a few times too.
LEFT_BY_ROUNDING = 4.0
_RESAMPLES = 200


def subset(products: F64, keep: Sequence[int]) -> F64:
    """The Gram of the child and some of the parents, differences taken from the first of these."""
    turn = np.zeros((len(keep) + 1, len(products)))
    turn[0, 0] = 1
    turn[1, 1] = 1
    first = keep[0] + 1
    if keep[0] > 0:
        turn[0, first] = 1
        turn[1, first] -= 1
    for row, parent in enumerate(keep[1:], 2):
        if parent > 0:
            turn[row, parent + 1] += 1
        if keep[0] > 0:
            turn[row, first] -= 1
    return turn @ products @ turn.T


def fit(products: F64, keep: Sequence[int], *, sum_to_one: bool = False, signed: bool = True) -> F64:
    """Weights of all parents, float64 (k,), 0 for those not in `keep`.

    Args:
        products: of a `Gram`, or a sum of them.
        keep: numbers of the parents that may take part; all that have the tensor.
        sum_to_one: of weights, exactly.
        signed: they may be below zero; else those that would be are left out, the lowest first.
    """
    weights = np.zeros(len(products) - 1)
    keep = list(keep)
    while keep:
        x = subset(products, keep)
        used = [*range(2, len(x)), *([] if sum_to_one else [0])]
        scale = np.sqrt(np.maximum(np.diag(x)[used], 1e-300))
        solved = lstsq(x[np.ix_(used, used)] / np.outer(scale, scale), x[used, 1] / scale) / scale if used else x[:0, 1]
        rest = solved[: len(keep) - 1]
        beyond = 0.0 if sum_to_one else float(solved[-1])
        found = np.array([1 + beyond - rest.sum(), *rest])
        if signed or found.min() >= 0 or len(keep) == 1:
            weights[keep] = found if signed else np.maximum(found, 0)
            return weights
        keep.pop(int(found.argmin()))
    return weights


def left(products: F64, weights: F64) -> float:
    """‖c - Σ w p‖²."""
    a = np.array([1 - weights.sum(), 1.0, *(-weights[1:])])
    return max(0.0, float(a @ products @ a))


def squares(products: F64) -> tuple[float, F64]:
    """‖c‖² and ‖p_i‖²."""
    base, cross, own = products[0, 0], products[0, 1:], np.diag(products)[1:]
    norms = base + 2 * cross + own
    return float(norms[0]), np.array([base, *norms[1:]])


def rounding_of(rounding: F64, weights: F64) -> float:
    """What rounding leaves of a mix with these weights: the child's own, and the parents' by the squares of theirs."""
    return float(rounding[0] + np.square(weights) @ rounding[1:])


def cosines(products: F64) -> F64:
    """Cosine of the child with each parent."""
    c, p = squares(products)
    cross = np.array(
        [products[0, 0] + products[0, 1], *(products[0, 0] + products[0, 1] + products[0, 2:] + products[1, 2:])]
    )
    return np.asarray(cross / np.sqrt(np.maximum(c * p, 1e-300)))


def interval(clusters: Sequence[F64], fitted: Callable[[F64], F64], seed: int = 0) -> tuple[F64, F64]:
    """95 % of refits where clusters (the tensors of a block together) are drawn again with replacement: (low, high)."""
    rng = np.random.default_rng(seed)
    stacked = np.stack(clusters)
    draws = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), _RESAMPLES)
    refits = np.stack([fitted(np.tensordot(draw, stacked, 1)) for draw in draws])
    low, high = np.quantile(refits, [0.025, 0.975], axis=0)
    return low, high
