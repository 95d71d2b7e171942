"""How well a score tells related pairs from unrelated ones, and how far the answer can be trusted.

For scores s of related pairs and t of unrelated pairs, larger meaning more related:

    AUC         = P(s > t) + P(s = t)/2                      (the Mann-Whitney statistic over n_s n_t)
    TPR at FPR α = share of s at or above c, c the lowest score with share(t >= c) <= α

A method that does not apply to a pair claims nothing there: its score is minus infinity, below every other.

Pairs are not independent of each other: all of them come from a few roots. So intervals come from a cluster bootstrap:
draw as many roots as there are, with replacement, and keep a pair as often as the product of its roots' counts says
(once drawn twice, a root's own pairs count twice; a pair of strangers r and s counts m_r·m_s times). The number of
roots is therefore written beside every rate: it, and not the number of pairs, is the sample size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
Clusters = Sequence[Sequence[str]]

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Rate:
    """A number with its interval, and what it rests on: pairs and independent roots."""

    value: float | None
    low: float | None
    high: float | None
    pairs: int
    roots: int

    def to_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("value", "low", "high", "pairs", "roots")}


@dataclass(frozen=True)
class Ranking:
    """Scores turned into ranks once, so that any reweighting of the pairs costs one pass.

    Attributes:
        rank: per pair, 0 for the highest score, equal for ties; int64 (n,).
        related: per pair.
        levels: the distinct scores, highest first.
    """

    rank: NDArray[np.int64]
    related: Mask
    levels: F64

    @classmethod
    def of(cls, scores: F64, related: Mask) -> Ranking:
        """NaN means "does not apply" and ranks below everything."""
        filled = np.where(np.isnan(scores), -np.inf, scores)
        levels, rank = np.unique(-filled, return_inverse=True)
        return cls(rank.astype(np.int64), related, -levels)

    def curve(self, weights: F64) -> tuple[F64, F64]:
        """(false, true) positive rates when everything down to level k is called related; (levels,) each."""
        n = self.levels.size
        true = np.bincount(self.rank[self.related], weights[self.related], n).cumsum()
        false = np.bincount(self.rank[~self.related], weights[~self.related], n).cumsum()
        return _share(false), _share(true)

    def auc(self, weights: F64) -> float:
        """Area under the curve, ties counted half; NaN without pairs of either kind."""
        false, true = self.curve(weights)
        steps = np.diff(false, prepend=0.0)
        return float(np.sum(steps * (true + np.concatenate(([0.0], true[:-1]))) / 2))

    def tpr(self, weights: F64, alpha: float) -> float:
        """True positives at the lowest threshold with at most a share ``alpha`` of false ones."""
        false, true = self.curve(weights)
        if np.isnan(true[-1]) or np.isnan(false[-1]):
            return math.nan
        # Thresholds in the wordless tail (minus infinity) call nothing: a method that is silent claims nothing.
        k = int(np.count_nonzero((false <= alpha + 1e-12) & np.isfinite(self.levels)))
        return float(true[k - 1]) if k else 0.0

    def threshold(self, weights: F64, alpha: float) -> float:
        """The score that :meth:`tpr` draws the line at; infinite where no line is low enough."""
        false, _ = self.curve(weights)
        k = int(np.count_nonzero((false <= alpha + 1e-12) & np.isfinite(self.levels)))
        return float(self.levels[k - 1]) if k else math.inf


def _share(counts: F64) -> F64:
    out: F64 = counts / counts[-1] if counts[-1] > 0 else np.full(counts.shape, np.nan)
    return out


class Bootstrap:
    """Weights of the pairs under resampled roots, drawn once and used for every method."""

    def __init__(self, clusters: Clusters, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.names = sorted({name for members in clusters for name in members})
        index = {name: i for i, name in enumerate(self.names)}
        rng = np.random.default_rng([seed, len(self.names)])
        n = len(self.names)
        counts = rng.multinomial(n, np.full(n, 1 / max(n, 1)), size=resamples).astype(np.float64) if n else None
        self.weights: F64 = np.ones((resamples, len(clusters)))
        if counts is not None:
            widest = max(map(len, clusters), default=0)
            for k in range(widest):  # the k-th root of every pair that has one
                has = np.array([len(members) > k for members in clusters])
                columns = [index[members[k]] for members in clusters if len(members) > k]
                self.weights[:, has] *= counts[:, columns]
        self.clusters = clusters

    def roots(self, mask: Mask | None = None) -> int:
        """How many distinct roots the chosen pairs touch."""
        chosen = self.clusters if mask is None else [c for c, keep in zip(self.clusters, mask, strict=True) if keep]
        return len({name for members in chosen for name in members})

    def rate(self, statistic: Callable[[F64], float], mask: Mask | None = None) -> Rate:
        """A statistic of pair weights with its percentile interval; resamples without pairs to count are left out."""
        n = self.weights.shape[1]
        base = np.ones(n) if mask is None else mask.astype(np.float64)
        value = statistic(base)
        drawn = np.array([statistic(base * row) for row in self.weights])
        drawn = drawn[np.isfinite(drawn)]
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail]) if drawn.size else (math.nan, math.nan)
        pairs = int(np.count_nonzero(base))
        return Rate(_finite(value), _finite(low), _finite(high), pairs, self.roots(mask))

    def share(self, hits: Mask, mask: Mask) -> Rate:
        """Share of the pairs in ``mask`` that are hits, with an interval that has a width for none and for all, too."""
        x = hits.astype(np.float64)

        def statistic(weights: F64) -> float:
            total = float(weights.sum())
            return float(weights @ x) / total if total > 0 else math.nan

        return _reach(self.rate(statistic, mask), self.roots(mask))


def _tpr(ranking: Ranking, alpha: float, bootstrap: Bootstrap, mask: Mask) -> Rate:
    rate = bootstrap.rate(lambda weights: ranking.tpr(weights, alpha), mask)
    return _reach(rate, bootstrap.roots(mask & ranking.related))


def _reach(rate: Rate, roots: int) -> Rate:
    """None or all of n roots: a bootstrap of equal values has no width, so 1 - 0.05^(1/n) gives it (rule of three)."""
    if rate.value not in (0.0, 1.0) or not roots:
        return rate
    reach = 1 - (1 - LEVEL) ** (1 / roots)
    low, high = (0.0, reach) if rate.value == 0 else (1 - reach, 1.0)
    return Rate(rate.value, low, high, rate.pairs, rate.roots)


def _finite(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


@dataclass(frozen=True)
class Separation:
    """One method on one set of pairs."""

    auc: Rate
    tpr: dict[str, Rate]
    thresholds: dict[str, float | None]
    applied: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "auc": self.auc.to_dict(),
            "tpr": {key: rate.to_dict() for key, rate in self.tpr.items()},
            "thresholds": self.thresholds,
            "applied": self.applied,
        }


def separation(
    scores: F64, related: Mask, bootstrap: Bootstrap, mask: Mask, alphas: Sequence[float] = (0.01, 0.001)
) -> Separation:
    """AUC and true positives of one method on the pairs of ``mask``; NaN scores mean that it did not apply."""
    ranking = Ranking.of(scores, related)
    weights = mask.astype(np.float64)
    chosen = int(np.count_nonzero(mask))
    return Separation(
        auc=bootstrap.rate(ranking.auc, mask),
        tpr={f"{a:g}": _tpr(ranking, a, bootstrap, mask) for a in alphas},
        thresholds={f"{a:g}": _finite(ranking.threshold(weights, a)) for a in alphas},
        applied=float(np.count_nonzero(~np.isnan(scores) & mask)) / chosen if chosen else 0.0,
    )
