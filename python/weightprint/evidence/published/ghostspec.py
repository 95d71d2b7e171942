"""Spectra, GhostSpec [2511.06390]: singular values of the attention's invariant products, layers aligned in order.

Per layer the singular values of W_q W_k' and of W_v W_o (in the paper's orientation; W_q' W_k and W_o W_v here), each
scaled to [0, 1] by its own smallest and largest (min-max). Two layers differ by the mean squared difference of their
scaled spectra; the shorter model's layers are matched to the longer one's one to one and in order, by dynamic
programming, so that the total is smallest. Spectra of different lengths are interpolated over relative rank.

No basis, no vocabulary and no width is needed: orthogonal maps and permutations leave singular values alone. At large
sizes the product is sketched, S' M T with seeded normal S and T (d x c, the same on both sides), whose singular values
depend on M's spectrum and little else.

Known false positives: a scaled spectrum is a smooth falling curve with a few free numbers, and training of like
architectures ends in like curves: of 66 pairs of independently trained small encoders 26 lie closer to each other than
one of them to its own fine-tune (measured, d 64). Known misses: gains moved
between norm and matrix, continued training that grows outliers (min-max scaling hangs on the largest value).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.nulls.exchange import finite, in_range
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import blocks, expanded, grouped, too_large
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32, F64
from weightprint.util.linear_algebra import product, svdvals
from weightprint.util.ranges import evenly

_PAIRS = {"q'k": ("q", "k"), "ov": ("o", "v")}

_QUESTION = Evidence(
    test="ghostspec",
    asked="Do the singular values of the attention's products fall alike, layer by layer in order?",
    null="none: descriptive. Models of one recipe end in like spectra",
    assumes="nothing: it decides nothing",
    blind_to="gains moved between norm and matrix, outliers that grew: everything but singular values",
    statistic_of="minus the root of the mean squared difference of scaled spectra over matched layers",
    effect_of="that difference",
)


def scaled(values: npt.NDArray[np.floating]) -> F64:
    """Singular values, largest first, mapped to [0, 1] by their own extremes; zeros where all are equal."""
    x = np.sort(np.asarray(values, np.float64))[::-1]
    low, high = (float(x[-1]), float(x[0])) if x.size else (0.0, 0.0)
    return (x - low) / (high - low) if high > low else np.zeros(x.size)


def align(cost: F64) -> list[tuple[int, int]]:
    """Rows matched to columns one to one and in order, every row of the shorter side used, at the least total cost."""
    if cost.shape[0] > cost.shape[1]:
        return [(i, j) for j, i in align(cost.T)]
    n, m = cost.shape
    best = np.full((n + 1, m + 1), np.inf)
    best[0] = 0.0
    for i in range(1, n + 1):
        for j in range(i, m - (n - i) + 1):
            best[i, j] = min(best[i, j - 1], best[i - 1, j - 1] + cost[i - 1, j - 1])
    kept, i, j = [], n, m
    while i:
        if j > i and best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            kept.append((i - 1, j - 1))
            i, j = i - 1, j - 1
    return kept[::-1]


def _spectrum(models: ModelPair, side: ModelView, pair: tuple[Tensor, Tensor], limit: int) -> F64 | None:
    """Scaled singular values of one product; None where grouped heads can't be told apart."""
    first, second = pair
    turned = first.role is not None and first.role.axis == "writes"  # o: (d x queries)
    queries, width = first.shape[::-1] if turned else first.shape
    size = grouped(models, side, first.stack, queries, second.shape[0])
    if size is None or second.shape[1] != width:
        return None
    maps = [None if width <= limit else _normal(models.seed, width, limit // 2, which) for which in (0, 1)]
    left = _sketched(side, first, maps[0], turned)
    right = _sketched(side, second, maps[1], False)
    both = product(in_range(left).T, expanded(in_range(right), queries, size))  # blind to scale, and within float32
    return scaled(svdvals(both))


@lru_cache(maxsize=2)
def _normal(seed: int, width: int, columns: int, which: int) -> F32:
    rng = np.random.default_rng([seed, which, 31])
    return rng.standard_normal((width, columns), dtype=np.float32)


def _sketched(side: ModelView, tensor: Tensor, sketch: F32 | None, turned: bool) -> F32:
    """The matrix with its residual channels sketched, (inner rows, sketched channels)."""
    if turned:  # channels are the rows
        if sketch is None:
            return np.ascontiguousarray(finite(side.rows(tensor)).T)
        out = np.zeros((tensor.shape[1], sketch.shape[1]), np.float32)
        for start, piece in side.slices(tensor):
            out += product(finite(piece).T, sketch[start : start + piece.shape[0]])
        return out
    pieces = [finite(piece) if sketch is None else product(finite(piece), sketch) for _, piece in side.slices(tensor)]
    return np.concatenate(pieces)


def _spectra(models: ModelPair, side: ModelView, roles: tuple[str, str]) -> Sequence[F64] | str:
    """One scaled spectrum per sampled layer, in depth order; else the reason why there is none."""
    limit = models.budget.published
    found = blocks(side, roles)
    if len(found) < 2:
        return "fewer than two layers with q, k, v and o told apart by name"
    layers = evenly(list(found), limit.layers)
    if too_large(models, (found[i] for i in layers)):
        return "this effort does not read such matrices whole"
    first, second = roles
    out = [_spectrum(models, side, (found[i][first], found[i][second]), limit.channels) for i in layers]
    kept = [x for x in out if x is not None]
    return kept if len(kept) == len(out) else "heads are grouped and their number is not known"


@partial(Test, published=True, cost="long")
def ghostspec(models: ModelPair) -> Evidence:
    """Root mean squared difference of scaled spectra over the best monotone matching of layers."""
    costs: list[F64] = []
    for roles in _PAIRS.values():
        ours, theirs = (_spectra(models, side, roles) for side in (models.a, models.b))
        for spectra in (ours, theirs):
            if isinstance(spectra, str):
                return not_applied(_QUESTION, spectra)
        costs.append(np.array([[_difference(x, y) for y in theirs] for x in ours]))  # type: ignore[arg-type]
    if len({cost.shape for cost in costs}) != 1:
        return not_applied(_QUESTION, "q, k and v, o were found in different layers")
    cost = np.mean(costs, axis=0)
    kept = align(cost)
    apart = float(np.sqrt(np.mean([cost[i, j] for i, j in kept])))
    return replace(
        _QUESTION,
        says=f"scaled spectra of {len(kept)} matched layers lie {apart:.4f} apart",
        statistic=-apart,
        effect=apart,
        n=len(kept),
        details={
            "layers": [list(p) for p in kept],
            "by_product": {
                name: float(np.sqrt(np.mean([c[i, j] for i, j in kept]))) for name, c in zip(_PAIRS, costs, strict=True)
            },
        },
    )


def _difference(x: F64, y: F64) -> float:
    """Mean squared difference of two spectra, the shorter interpolated over relative rank."""
    n = max(x.size, y.size)
    at = np.linspace(0, 1, n)
    p, q = (np.interp(at, np.linspace(0, 1, z.size), z) for z in (x, y))
    return float(np.mean(np.square(p - q)))
