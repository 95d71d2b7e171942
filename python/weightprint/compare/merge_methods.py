"""How parents were merged, told by what only that way leaves: methods that mix whole tensors.

    copy         one parent's values, tensor by tensor
    passthrough  every block is one parent's block (which may repeat, be left out, or stand elsewhere)
    linear       Σ w_i p_i, one w for all tensors or one for each layer              arXiv 2203.05482
    task arithmetic  p_0 + Σ λ_i (p_i - p_0): linear with Σ w = 1, of which the base's may be below zero   2212.04089
    slerp        sin((1-t)Ω)/sin Ω · p_1 + sin(tΩ)/sin Ω · p_2, Ω the angle of the two tensors; straight where their
                 cosine is above .9995, as mergekit does                             Shoemake 1985

A method holds where what it leaves of nearly every value's tensor is rounding (:data:`LEFT_BY_ROUNDING`). Of those that
hold, the simplest is named that leaves hardly more than the one that leaves least. Slerp and linear differ in the norm:
slerp's two weights lie on the circle w_1² + w_2² + 2 w_1 w_2 cos Ω = 1, linear's on the line w_1 + w_2 = 1, which is
inside it; where parents are so near that both leave the same, they are one, and it is called linear.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weightprint.compare.gram import Gram, total
from weightprint.compare.mixing import LEFT_BY_ROUNDING, fit, left, rounding_of, squares, subset
from weightprint.compare.partners import Block
from weightprint.util.arrays import F64

__all__ = ["HOLDS", "Method", "body", "holding", "kept", "mixed_whole"]

#: Share of the values whose tensors a method must leave nothing of but rounding.
HOLDS = 0.98
_STRAIGHT = 0.9995
_AS_GOOD = 1.02  # times the least that any method leaves: the simplest of these is named
_ONE_WEIGHT = 0.02  # weights that differ by no more from tensor to tensor are one weight


@dataclass(frozen=True)
class Method:
    """A way in which the child was made, with its parameters.

    Attributes:
        name: ``"copy"``, ``"passthrough"``, ``"linear"``, ``"task_arithmetic"``, ``"slerp"``, ``"ties"``,
            ``"dare_linear"``, ``"dare_ties"``.
        reproduces: share of the values that it gives back up to rounding.
        left: sum of the squares that it leaves, of all that was looked at.
        of: what there was to explain there (of TIES and DARE: of a sample), None where it is the sum over the Grams.
        parameters: what it was done with.
        by_tensor: weights of the parents tensor by tensor, where one set doesn't serve all.
        sources: block of the child → (parent, block there), of a passthrough.
    """

    name: str
    reproduces: float
    left: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    by_tensor: Mapping[str, F64] = field(default_factory=dict)
    sources: Mapping[Block, tuple[int, Block]] = field(default_factory=dict)
    of: float | None = None


def body(grams: Sequence[Gram]) -> list[Gram]:
    """The matrices of blocks that all parents have; where there are none, all that all have."""
    whole = [g for g in grams if all(g.present)]
    return [g for g in whole if g.matrix and g.block is not None] or whole


def kept(gram: Gram) -> list[int]:
    """The parents that have the tensor."""
    return [i for i, there in enumerate(gram.present) if there]


@dataclass(frozen=True, slots=True)
class Held:
    """How well weights hold: share of the values in tensors of which they leave nothing but rounding; the sum of what
    they leave; and that over the child's own rounding, tensor by tensor, a mean over the values."""

    share: float
    left: float
    misfit: float


def holding(grams: Sequence[Gram], weights: Callable[[Gram], F64 | None], fitted: int = 0) -> Held:
    """How well the weights hold that a function gives for each tensor, `fitted` of them to itself."""
    good, rest, misfit = 0, 0.0, 0.0
    for g in grams:
        w, size = weights(g), squares(g.products)[0]
        left_here = size if w is None else left(g.products, w)
        own = size * 1e-13  # float64's own
        if w is not None:
            good += g.n * (left_here <= LEFT_BY_ROUNDING * rounding_of(g.rounding, w) + own)
        rest += left_here
        misfit += g.n * (left_here + own) / (float(g.rounding[0]) + own) / max(1 - fitted / g.n, 0.1)
    n = max(1, sum(g.n for g in grams))
    return Held(good / n, rest, misfit / n)


def mixed_whole(
    grams: Sequence[Gram], base: int | None, blocks: Sequence[Mapping[Block, Block | None]]
) -> Method | None:
    """The simplest method that mixes whole tensors and holds; None where none does."""
    if (one := _one_parent_each(grams, blocks)) is not None:
        return one
    used = [g for g in grams if any(g.present)]
    if not body(used):
        return None
    products, _ = total(body(used))
    k = len(products) - 1
    if k == 1:
        return None if base is not None else _scaled(used, products)
    found = [x for x in (*_one_mix(used, products, base), *_by_tensor(used, products)) if x[0].reproduces >= HOLDS]
    least = min((misfit for _, misfit in found), default=0.0)
    margin = _AS_GOOD + 4 * math.sqrt(2 / sum(g.n for g in used))
    return next((method for method, misfit in found if misfit <= margin * least), None)


def _one_parent_each(grams: Sequence[Gram], maps: Sequence[Mapping[Block, Block | None]]) -> Method | None:
    """Copy or passthrough."""
    k = len(maps)
    one = np.eye(k)
    regions: dict[Block | None, list[Gram]] = defaultdict(list)
    for g in grams:
        regions[g.block].append(g)
    sources: dict[Block | None, int] = {}
    held = lost = 0.0
    for block, inside in regions.items():
        told = [holding(inside, lambda g, i=i: one[i] if g.present[i] else None) for i in range(k)]  # type: ignore[misc]
        shares, rest = [h.share for h in told], [h.left for h in told]
        good = [i for i in range(k) if shares[i] >= HOLDS]
        if not good and block is not None:
            return None
        held += max(shares) * sum(g.n for g in inside)
        if good:
            before = next((s for b, s in reversed(sources.items()) if b is not None), good[0])
            sources[block] = min(good, key=lambda i: (rest[i], i != before))
            lost += rest[sources[block]]
    share = held / max(1, sum(g.n for g in grams))
    inner = {block: i for block, i in sources.items() if block is not None}
    if not inner and None not in sources:
        return None
    there = {b: (i, t) for b, i in inner.items() if (t := maps[i].get(b, b)) is not None}
    plain = len(set(sources.values())) == 1 and all(t == b for b, (_, t) in there.items())
    if plain and share >= HOLDS:
        parent = next(iter(sources.values()))
        whole = len(maps[parent]) == len(inner)
        return Method("copy" if whole else "passthrough", share, lost, {"parent": parent}, sources=there)
    return Method("passthrough", share, lost, sources=there) if inner and not plain else None


def _scaled(grams: Sequence[Gram], products: F64) -> Method | None:
    weights = fit(products, [0])
    held = holding(grams, lambda g: weights)
    return Method("linear", held.share, held.left, {"sum": float(weights.sum())}) if held.share >= HOLDS else None


def _one_mix(grams: Sequence[Gram], products: F64, base: int | None) -> Iterator[tuple[Method, float]]:
    """Linear or task arithmetic, with one set of weights for all tensors; and its misfit."""
    every = list(range(len(products) - 1))
    for sum_to_one in (True, False):
        weights = fit(products, every, sum_to_one=sum_to_one)
        held = holding(grams, lambda g, w=weights: w if all(g.present) else None)  # type: ignore[misc]
        below = [i for i in every if weights[i] < -_ONE_WEIGHT]
        over = base if base is not None else below[0] if len(below) == 1 else None
        name: str = "linear"
        told: dict[str, Any] = {"sum": 1.0 if sum_to_one else float(weights.sum())}
        if sum_to_one and over is not None and abs(weights[over]) > _ONE_WEIGHT:
            scales = {str(i): float(weights[i]) for i in every if i != over}
            name, told = "task_arithmetic", {"base": over, "scales": scales}
        yield Method(name, held.share, held.left, told), held.misfit


def _by_tensor(grams: Sequence[Gram], products: F64) -> Iterator[tuple[Method, float]]:
    """Linear with other weights in each layer, or slerp; and the misfit."""
    whole = [g for g in grams if all(g.present)]
    k = len(products) - 1
    pair = sorted(np.argsort(-np.abs(fit(products, range(k))))[:2].tolist())
    slerps = {g.name: _slerp(g, *pair) for g in whole}
    ways: tuple[tuple[str, int, dict[str, Any], dict[str, F64]], ...] = (
        ("linear", k - 1, {"sum": 1.0}, {g.name: fit(g.products, kept(g), sum_to_one=True) for g in whole}),
        ("slerp", 1, {"of": pair, **_course(whole, slerps)}, {name: w for name, (w, _, _) in slerps.items()}),
        ("linear", k, {"sum": None}, {g.name: fit(g.products, kept(g)) for g in whole}),
    )
    for name, fitted, told, of in ways:
        held = holding(grams, lambda g, of=of: of.get(g.name), fitted)  # type: ignore[misc]
        told = told if name == "slerp" else {**told, "by_layer": True}
        yield Method(name, held.share, held.left, told, by_tensor=of), held.misfit


def _slerp(gram: Gram, first: int, second: int) -> tuple[F64, float, float]:
    """(weights, t, ‖p_2 - p_1‖²) of the slerp that comes nearest to a tensor.

    With free weights (w_1, w_2) in the plane of the parents, the point lies at the angle tan(tΩ) = w_2 sin Ω / (w_1 +
    w_2 cos Ω) from p_1, since s_1 + s_2 cos Ω = cos tΩ and s_2 sin Ω = sin tΩ.
    """
    x = subset(gram.products, [first, second])
    _, (aa, bb) = squares(x)
    weights = np.zeros(len(gram.products) - 1)
    apart = float(x[2, 2])
    if apart <= 1e-14 * (aa + bb):
        weights[first] = 1
        return weights, 0.0, 0.0
    cosine = (aa + x[0, 2]) / max(math.sqrt(aa * bb), 1e-300)
    if abs(cosine) > _STRAIGHT:
        t = float(x[1, 2] / apart)
        weights[[first, second]] = 1 - t, t
        return weights, t, apart
    angle = math.acos(cosine)
    w1, w2 = fit(x, [0, 1])
    t = math.atan2(w2 * math.sin(angle), w1 + w2 * cosine) / angle
    weights[[first, second]] = np.sin(np.array([1 - t, t]) * angle) / math.sin(angle)
    return weights, t, apart


def _course(grams: Sequence[Gram], slerps: Mapping[str, tuple[F64, float, float]]) -> dict[str, Any]:
    """t by layer (the mean by distance of the parents, so that what they share says nothing), outside, its slope."""
    by_block: dict[Block | None, list[tuple[float, float]]] = defaultdict(list)
    for g in grams:
        _, t, apart = slerps[g.name]
        by_block[g.block].append((t, apart * g.matrix))
    mean = {
        b: float(np.average([t for t, _ in v], weights=[w for _, w in v]))
        for b, v in by_block.items()
        if sum(w for _, w in v) > 0
    }
    layers = [[b[0], b[1], t] for b, t in sorted((b, t) for b, t in mean.items() if b is not None)]
    numbers = np.array([n for _, n, _ in layers], float)
    values = np.array([t for _, _, t in layers])
    slope = float(np.polyfit(numbers, values, 1)[0]) if len(layers) > 1 and np.ptp(numbers) > 0 else 0.0
    constant = bool(values.size) and float(np.ptp(values)) <= _ONE_WEIGHT
    spread = max((float(np.ptp([t for t, w in v if w > 0])) for b, v in by_block.items() if b), default=0.0)
    return {
        "t": float(values.mean()) if constant else None,
        "t_by_layer": layers,
        "t_outside": mean.get(None),
        "slope": slope,
        "spread_in_layers": spread,
    }
