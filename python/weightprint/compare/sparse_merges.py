"""Merges that choose among the entries of differences: TIES and DARE, told entry by entry.

With d = c - p_0 over the base p_0 and δ_i = p_i - p_0, on a sample of whole runs of matrices:

*TIES* (arXiv 2306.01708): each δ_i is trimmed to its largest entries (a share ``density`` of each tensor), a sign is
elected by the sum of what is left, and those that agree are averaged (``normalize``) or added, times λ. The election is
made again for each density; what entries with the same winners have in common are their coefficients, by least squares:
λ where one parent wins alone, in whichever way those that win together are weighed. The density is the one that leaves
least.

*DARE* (2311.03099): entries are dropped at random and the others divided by the share that is kept, so d = Σ a_i m_i
δ_i with m_i 0 or 1. If w_i = a_i q_i are the least-squares weights and the squares of what they leave grow by s_i with
δ_i², then s_i = a_i² q_i (1 - q_i): a_i = (s_i + w_i²) / w_i, kept share q_i = w_i / a_i. From there each entry takes
the subset of parents nearest to it, and a is fitted again. Where two that disagree in sign never stay together, signs
were elected too (``dare_ties``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as choices

import numpy as np

from weightprint.compare.gram import Partners, spacing
from weightprint.compare.merge_methods import HOLDS, Method
from weightprint.compare.mixing import LEFT_BY_ROUNDING
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32, F64, I64, Bools
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.linear_algebra import lstsq

__all__ = ["Entries", "chosen", "entries"]

_MATRICES, _VALUES = 8, 1 << 17  # sampled: so many matrices, so many values of each
_MOST_PARENTS = 4
_BETTER = 5.0  # times less must be left than by the best linear mix
_ROUNDS = 12


@dataclass(frozen=True)
class Entries:
    """The same entries of the child (first) and its parents, matrix by matrix, float64 (k + 1, n), and the variance
    that rounding gives each entry of a mix, float64 (n,)."""

    values: tuple[F64, ...]
    rounding: tuple[F64, ...]

    @property
    def equal(self) -> F64:
        """Share of the child's entries that each parent has too."""
        found = [np.mean(x[0] == x[1:], axis=1) for x in self.values]
        return np.asarray(np.mean(found, axis=0))

    def of(self, parents: Sequence[int]) -> Entries:
        """The same with some of the parents."""
        return Entries(tuple(x[[0, *(i + 1 for i in parents)]] for x in self.values), self.rounding)


def entries(
    child: ModelView,
    parents: Sequence[ModelView],
    rows: Sequence[Partners],
    matrices: int = _MATRICES,
    most: int = _VALUES,
) -> Entries:
    """A sample from the matrices of blocks that all have, spread over the model: so many matrices, and the first so
    many values of each."""
    inside = [r for r in rows if r.complete and r.child.rank2 and r.child.layer is not None]
    some = [inside[i] for i in sorted({int(i) for i in np.linspace(0, len(inside) - 1, matrices)})] if inside else []
    values, rounding = [], []
    for row in some:
        stop = max(1, min(row.child.shape[0], most // row.child.shape[1]))
        tensors = [(child, row.child), *zip(parents, row.parents, strict=True)]
        found = [(side.rows(t, 0, stop), t) for side, t in tensors if t is not None]
        values.append(np.stack([x.reshape(-1).astype(np.float64) for x, _ in found]))
        # Each is rounded; of a parent only the part that its weight gives, which is less than all of it.
        steps = [_steps(x.reshape(-1).astype(np.float64), x, t) for x, t in found]
        rounding.append(np.sum(np.square(steps), axis=0) / 12)
    return Entries(tuple(values), tuple(rounding))


def _steps(x: F64, found: F32, tensor: Tensor) -> F64:
    return ulp(x, tensor.dtype) if tensor.dtype in MANTISSA else np.full(x.size, float(np.mean(spacing(found, tensor))))


def chosen(sample: Entries, bases: Sequence[int]) -> Method | None:
    """TIES or DARE over the first of these bases under which one of them holds; None where none does."""
    k = len(sample.values[0]) - 1 if sample.values else 0
    if not 2 <= k <= _MOST_PARENTS + 1:
        return None
    for base in bases:
        others = [i for i in range(k) if i != base]
        over = _Over(
            [x[0] - x[1 + base] for x in sample.values],
            [np.stack([x[1 + i] - x[1 + base] for i in others]) for x in sample.values],
            list(sample.rounding),
        )
        for method in (_ties(over, base, others), _dare(over, base, others)):
            if method is not None:
                return method
    return None


@dataclass(frozen=True)
class _Over:
    """d and δ over one base, matrix by matrix; the variance of rounding."""

    d: list[F64]
    deltas: list[F64]
    rounding: list[F64]

    def linear(self) -> float:
        """What the best linear mix of the differences leaves."""
        d, deltas = np.concatenate(self.d), np.concatenate(self.deltas, axis=1)
        return float(np.sum(np.square(d - lstsq(deltas.T, d) @ deltas)))

    def agrees(self, predicted: Sequence[F64], certain: Bools | None = None) -> tuple[float, float]:
        """(share of the entries that are as predicted up to rounding, sum of squares that is left); of the certain."""
        rest = np.concatenate([d - p for d, p in zip(self.d, predicted, strict=True)])
        bound = 3 * np.sqrt(LEFT_BY_ROUNDING * np.concatenate(self.rounding))
        if certain is not None:
            rest, bound = rest[certain], bound[certain]
        return float(np.mean(np.abs(rest) <= bound)), float(np.sum(np.square(rest)))


# TIES


def _ties(over: _Over, base: int, others: Sequence[int]) -> Method | None:
    order = [np.argsort(np.abs(x), axis=1, kind="stable") for x in over.deltas]
    ranks = [np.argsort(o, axis=1) / o.shape[1] for o in order]
    linear = over.linear()
    density = np.full(len(others), 0.5)
    votes = np.ones(len(others))

    def rest(density: F64) -> float:
        return over.agrees(_elected(over, ranks, density, votes)[0])[1]

    density = min((np.full(len(others), q) for q in np.arange(0.05, 1.01, 0.05)), key=rest)
    step = 0.04
    while step > 0.0005:
        moves = [density, *(np.clip(density + s * step, 0.005, 1) for s in (-1, 1))]
        for i in range(len(others)):
            for s in (-1, 1):
                moves.append(np.clip(density + s * step * np.eye(len(others))[i], 0.005, 1))
        density = min(moves, key=rest)
        step /= 2
    predicted, coefficients = _elected(over, ranks, density, votes)
    together = coefficients.get((True,) * len(others))
    if together is not None and len(others) > 1 and np.all(together > 0):
        # Those that win together show their weights; with other weights the election may have gone otherwise.
        weighed = together / together.mean()
        again, other = _elected(over, ranks, density, weighed)
        if over.agrees(again)[1] < over.agrees(predicted)[1]:
            predicted, coefficients = again, other
    share, left = over.agrees(predicted, _certain(over, order, density))
    if not share >= HOLDS or left * _BETTER > linear:
        return None
    alone = [coefficients.get(tuple(np.eye(len(others), dtype=bool)[i].tolist())) for i in range(len(others))]
    scales = [float(c[i]) if c is not None else 0.0 for i, c in enumerate(alone)]
    averaged = together is None or len(others) == 1 or float(together.sum()) < 0.75 * sum(scales)
    return Method(
        "ties",
        share,
        left,
        {
            "base": base,
            "density": {str(i): round(float(q), 4) for i, q in zip(others, density, strict=True)},
            "scales": {str(i): s for i, s in zip(others, scales, strict=True)},
            "normalize": averaged,
        },
        of=float(sum(np.sum(np.square(d)) for d in over.d)),
    )


def _certain(over: _Over, order: Sequence[I64], density: F64) -> Bools:
    """Entries whose magnitude is not just that at which a difference is trimmed: of equal ones (there are many in
    bfloat16) nobody knows which were kept."""
    found = []
    for deltas, o in zip(over.deltas, order, strict=True):
        n = o.shape[1]
        at = o[np.arange(len(o)), np.minimum((n * (1 - density)).round().astype(int), n - 1)]
        sizes = np.abs(deltas)
        found.append((sizes != sizes[np.arange(len(o)), at][:, None]).all(axis=0))
    return np.concatenate(found)


def _elected(
    over: _Over, ranks: Sequence[F64], density: F64, votes: F64
) -> tuple[list[F64], dict[tuple[bool, ...], F64]]:
    """What TIES makes of the differences at these densities, with the coefficients that fit best; and these."""
    winners: list[Bools] = []
    for deltas, rank in zip(over.deltas, ranks, strict=True):
        trimmed = np.where(rank >= 1 - density[:, None], deltas, 0)
        winners.append(trimmed * np.sign(votes @ trimmed) > 0)
    d, deltas = np.concatenate(over.d), np.concatenate(over.deltas, axis=1)
    won = np.concatenate(winners, axis=1)
    predicted = np.zeros(d.size)
    coefficients: dict[tuple[bool, ...], F64] = {}
    for pattern in choices((False, True), repeat=len(won)):
        here = (won == np.array(pattern)[:, None]).all(axis=0)
        if any(pattern) and here.any():
            x = np.where(np.array(pattern)[:, None], deltas[:, here], 0)
            found = coefficients[pattern] = lstsq(x @ x.T + 1e-300 * np.eye(len(x)), x @ d[here])
            predicted[here] = found @ x
    ends = np.cumsum([x.size for x in over.d])[:-1]
    return np.split(predicted, ends), coefficients


# DARE


def _dare(over: _Over, base: int, others: Sequence[int]) -> Method | None:
    d, deltas = np.concatenate(over.d), np.concatenate(over.deltas, axis=1)
    rounding = np.concatenate(over.rounding)
    weights = lstsq(deltas.T, d)
    rest = np.square(d - weights @ deltas)
    linear = float(rest.sum())
    squared = np.square(deltas)
    grows = np.maximum(lstsq(squared.T, rest - rounding), 0)
    if np.any(np.abs(weights) < 1e-9):
        return None
    masks = np.array(list(choices((0, 1), repeat=len(others))), bool)
    starts = ((grows + weights**2) / weights, _commonest_ratios(d, deltas, rounding))
    factors, picked = min((_picked(d, deltas, masks, start) for start in starts), key=lambda f: f[2])[:2]
    kept = masks[picked].T
    predicted = np.split((kept * deltas).T @ factors, np.cumsum([x.size for x in over.d])[:-1])
    share, left = over.agrees(predicted)
    if not share >= HOLDS or left * _BETTER > linear:
        return None
    # Whether an entry was kept shows only where it is well above rounding.
    clear = np.abs(factors[:, None] * deltas) > 6 * np.sqrt(rounding)
    density = [float(kept[i, clear[i]].mean()) if clear[i].any() else float("nan") for i in range(len(others))]
    signs = np.sign(factors[:, None] * deltas)
    fought = clear.all(axis=0) & (np.abs(signs.sum(axis=0)) < len(others))
    both = float(kept[:, fought].all(axis=0).mean()) if fought.any() else 1.0
    elected = len(others) > 1 and both < 0.1 * float(np.prod(density))
    return Method(
        "dare_ties" if elected else "dare_linear",
        share,
        left,
        {
            "base": base,
            "density": {str(i): round(q, 4) for i, q in zip(others, density, strict=True)},
            "factors": {str(i): float(a) for i, a in zip(others, factors, strict=True)},
            "scales": {str(i): float(a * q) for i, a, q in zip(others, factors, density, strict=True)},
        },
        of=float(np.sum(np.square(d))),
    )


def _commonest_ratios(d: F64, deltas: F64, rounding: F64) -> F64:
    """For each parent the ratio d / δ_i that most entries have, nearly: where it alone was kept."""
    found = []
    for delta in deltas:
        clear = (np.abs(delta) > 6 * np.sqrt(rounding)) & (np.abs(d) > 6 * np.sqrt(rounding))
        ratios = np.sort(d[clear] / delta[clear])
        if (n := max(4, ratios.size // 20)) >= ratios.size:
            found.append(1.0)
            continue
        width = ratios[n:] - ratios[:-n]
        found.append(float(ratios[int(width.argmin()) + n // 2]))
    return np.array(found)


def _picked(d: F64, deltas: F64, masks: Bools, factors: F64) -> tuple[F64, I64, float]:
    """(factors, number of the mask of each entry, squares left): masks by the nearest sum, factors by least squares."""
    picked = np.zeros(d.size, np.int64)
    for _ in range(_ROUNDS):
        picked = np.abs(d - (masks * factors) @ deltas).argmin(axis=0)
        used = masks[picked].T * deltas
        again = lstsq(used @ used.T + 1e-300 * np.eye(len(used)), used @ d)
        if np.allclose(again, factors, rtol=1e-6, atol=0):
            break
        factors = again
    rest = d - factors @ (masks[picked].T * deltas)
    return factors, picked, float(rest @ rest)
