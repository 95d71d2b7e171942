"""Attention heads: do two independent looks at a head of B name the same head of A?

A head is two products (:mod:`weightprint.evidence._heads`): W_q'W_k says where it looks, W_o W_v what it carries. Every
head of B, in every block, is matched with its nearest head among *all* blocks of A, once by each product. A head is
*found* when both name the same head of A. The products share no matrix, so strangers agree by chance only.

*Null for agreement.* If B was trained independently of A, its residual channels carry no relation to A's: a copy of B
with all channels permuted jointly (its q, k, v and o alike, so that everything inside B stays as it is) is as likely
as B. With S agreements over R permuted copies and K in B itself, K given K + S is at most Binomial(K + S, 1/(R + 1))
for Poisson counts (Przyborowski and Wilenski 1940, the conditional test of two rates). Heads are few, so counts are
pooled over blocks. In these counts a head of A counts once per copy, so that a hub, or blocks that B repeats, can't
pile up: agreements must come independently for the counts to be Poisson.

*Null for order.* Sharper, and no alignment fitted elsewhere can fake it: initialisation and training treat the heads
of a block alike, so their order is arbitrary. Each head of B is matched by both products together; a hit is a head
with the same number in its block, in whatever block. Let the H = G·m heads of a block be G groups of m that share keys
and values (m = 1 without groups): orders of groups and orders within a group are equally likely. For k heads of one
block the chance that all are hits is at most 1/(number of images of these k under such orders), and the sum over
k-subsets is at most the number of orbits over k!. With e(t) = sum_{1..m} t^j/j! this gives for the L blocks of B

    E[(1 + t)^hits] <= (sum_{0..G} e(t)^j/j!)^L     and     P(hits >= k) <= min_t of that over (1 + t)^k      (exact)

The reported p is twice the smaller one. After an alignment through shared tokens only order speaks.

Inside heads that were found, the spaces that q, k, v and o span are compared: mean squared cosine of the principal
angles, less what chance gives. Descriptive.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from weightprint import parallel
from weightprint.evidence._base import F32, Evidence, Models, UnitMatch, not_applied, timed
from weightprint.evidence._heads import Attention, Factors, Sketch, attentions, factors, overlaps
from weightprint.evidence._ranked import rank_p
from weightprint.evidence._sample import BUDGETS, Indices, is_large, pick
from weightprint.linear import product

__all__ = ["head_agreement", "log10_p_counts", "log10_p_order"]

R = TypeVar("R")

_QUESTION = Evidence(
    test="head_agreement",
    asked="Do a head's attention pattern (W_q, W_k) and what it carries (W_v, W_o) name the same head of A?",
    applied=True,
    null="B was trained from an initialisation independent of A, so every joint permutation of B's residual channels, "
    "and every order of a block's heads, is equally likely",
    assumes="training treats residual channels alike and heads of a block alike (not so with ALiBi's slopes per head); "
    "for agreement, agreements of strangers come independently. A common random initialisation breaks the null as "
    "shared training does",
    blind_to="query and key biases, per-head norms, attention of another kind, cross-attention, heads made anew, a "
    "permuted or rotated residual stream unless it was aligned",
    statistic_of="heads of B for which both products name the same head of A",
    effect_of="heads found, as a share of those tested, above chance",
)


@dataclass(frozen=True, slots=True)
class _Budget:
    channels: int
    dims: int
    permutations: int
    compared: int  # blocks of B whose found heads are compared inside


_BUDGETS = {
    "quick": _Budget(512, 48, 20, 2),
    "standard": _Budget(1024, 64, 20, 8),
    "full": _Budget(4096, 96, 50, 64),
}
_LARGE = _Budget(512, 64, 20, 4)  # two large models at effort standard
_WHOLE = 1 << 24  # values of a latent matrix from which blocks are looked at one by one


@dataclass
class _Seen:
    """What one block of B showed."""

    attention: Attention
    alive: int
    agreed: list[tuple[int, int, float, float]]  # head of B, head of A (among all), cosines of the two products
    named: list[frozenset[int]]  # heads of A that were agreed on, for B itself and for every permuted copy
    hits: list[int]  # in B, and in every copy, whose heads are put in a random order too
    order: tuple[int, int]  # groups, heads per group


@dataclass
class _Heads:
    """All heads of A: vectors of both products, and where each stands."""

    qk: F32
    vo: F32
    block: npt.NDArray[np.int64]
    head: npt.NDArray[np.int64]
    attentions: list[Attention] = field(default_factory=list)

    @cached_property
    def alive(self) -> npt.NDArray[np.bool_]:
        """Heads that do something."""
        alive: npt.NDArray[np.bool_] = np.logical_and(self.qk.any(axis=1), self.vo.any(axis=1))
        return alive


@timed
def head_agreement(models: Models) -> Evidence:
    """Heads named alike by both products, with the counts of permuted copies, and heads in the same order."""
    budget, limits = BUDGETS[models.effort], _LARGE if is_large(models) else _BUDGETS[models.effort]
    ours, theirs = attentions(models.a, models.b), attentions(models.b, models.a)
    if not ours or not theirs:
        return not_applied(_QUESTION, f"{'A' if not ours else 'B'} has no attention whose heads can be told apart")
    ours = [x for x in ours if x.largest <= budget.streamed]
    theirs = [x for x in theirs if x.largest <= budget.streamed]
    if not ours or not theirs:
        return not_applied(_QUESTION, "whole attention matrices are not read at this effort")
    widths = {_width(x) for x in ours}, {_width(x) for x in theirs}
    aligned = models.basis.channels is not None or models.basis.matrix is not None
    if len(widths[0]) != 1 or len(widths[1]) != 1 or (widths[0] != widths[1] and not aligned):
        return not_applied(_QUESTION, "the two models' residual streams differ in width")
    ours, theirs = _spread(ours, budget.layers), _spread(theirs, budget.layers)
    theirs = [x for x in theirs if not models.basis.fitted & {x.name, *x.parts}]
    if not theirs:
        return not_applied(_QUESTION, "the alignment was fitted on every attention block of B")

    channels = _channels(models, widths[0].pop(), limits.channels)
    rng = np.random.default_rng([models.seed, channels.size, 12])
    orders = [rng.permutation(channels.size) for _ in range(limits.permutations)]
    sketch = Sketch(channels.size, limits.dims, models.seed, orders)
    heads = _all_heads(models, ours, channels, sketch)
    compared = {x.name for x in _spread(theirs, limits.compared)}

    def look(attention: Attention) -> tuple[_Seen, dict[str, list[float]]]:
        products = factors(models, models.b, attention, channels)
        one = _look(heads, attention, sketch, products["qk"], products["vo"], models.seed)
        if attention.name not in compared:
            return one, {}
        return one, _compare_inside(models, heads, one, products["qk"], products["vo"], channels)

    seen: list[_Seen] = []
    inside: dict[str, list[float]] = defaultdict(list)
    for one, angles in _each(look, theirs):
        seen.append(one)
        for role, found in angles.items():
            inside[role] += found
    return _answer(models, heads, seen, inside, orders, channels)


def _each(work: Callable[[Attention], R], blocks: Sequence[Attention]) -> Iterator[R]:
    """Side by side; one by one where latent attention's large matrices, which are read whole, would fill the memory."""
    whole = any(x.latent is not None and x.largest > _WHOLE for x in blocks)
    return map(work, blocks) if whole else parallel.each(work, blocks)


def _width(attention: Attention) -> int:
    return attention.parts["o"].shape[0]


def _spread(blocks: Sequence[Attention], limit: int) -> list[Attention]:
    """At most so many blocks, evenly over the depth."""
    if len(blocks) <= limit:
        return list(blocks)
    return [blocks[i] for i in np.unique(np.linspace(0, len(blocks) - 1, limit).round().astype(int))]


def _channels(models: Models, width: int, limit: int) -> Indices:
    """Channels of A that are looked at: those that B has, at most so many."""
    chosen = pick(width, limit, models.seed, "head channels")
    if models.basis.channels is None:
        return chosen
    there: Indices = np.nonzero(models.basis.channels >= 0)[0]
    return there[pick(there.size, limit, models.seed, "head channels")]


def _all_heads(models: Models, blocks: list[Attention], channels: Indices, sketch: Sketch) -> _Heads:
    def sketched(attention: Attention) -> tuple[F32, F32]:
        products = factors(models, models.a, attention, channels)
        return sketch(products["qk"], copies=False)[0], sketch(products["vo"], copies=False)[0]

    made = list(_each(sketched, blocks))
    return _Heads(
        np.concatenate([qk for qk, _ in made]),
        np.concatenate([vo for _, vo in made]),
        np.repeat(np.arange(len(blocks)), [x.heads for x in blocks]),
        np.concatenate([np.arange(x.heads) for x in blocks]),
        blocks,
    )


def _look(heads: _Heads, attention: Attention, sketch: Sketch, qk: Factors, vo: Factors, seed: int) -> _Seen:
    """Match every head of one block of B, and of its permuted copies, with all heads of A by each product."""
    n = attention.heads
    rng = np.random.default_rng([seed, n, attention.kv_heads, 12])  # equal for all blocks: copies stay copies
    cosines = np.stack([product(sketch(qk), heads.qk.T), product(sketch(vo), heads.vo.T)])
    copies = cosines.shape[1]
    dead = ~(np.abs(cosines[:, 0]).max(axis=2).min(axis=0) > 0)
    # Some heads of A are near to everything: what a head reaches on average over all copies is no likeness.
    above = cosines - cosines.mean(axis=(1, 2), keepdims=True)
    above[:, :, :, ~heads.alive] = -np.inf
    best = above.argmax(axis=3)
    agree = (best[0] == best[1]) & ~dead
    named = [frozenset(best[0, copy][agree[copy]].tolist()) for copy in range(copies)]
    found = [
        (int(j), int(a := best[0, 0, j]), float(cosines[0, 0, j, a]), float(cosines[1, 0, j, a]))
        for j in np.nonzero(agree[0])[0]
    ]
    together = above[0] + above[1]
    moved = [np.arange(n), *(_reordered(attention, rng) for _ in range(copies - 1))]
    comparable = np.array([(x.heads, x.kv_heads) == (n, attention.kv_heads) for x in heads.attentions])
    hits = [0] * len(moved)
    if comparable.any():
        together[:, :, ~comparable[heads.block]] = -np.inf
        nearest = heads.head[together.argmax(axis=2)]
        hits = [int(np.count_nonzero((nearest[copy] == number) & ~dead)) for copy, number in enumerate(moved)]
    order_of = (attention.kv_heads, n // attention.kv_heads)
    return _Seen(attention, int(np.count_nonzero(~dead)), found, named, hits, order_of)


def _reordered(attention: Attention, rng: np.random.Generator) -> Indices:
    """A number for every head of a block as if groups, and heads within each group, stood in a random order."""
    groups, members = attention.kv_heads, attention.heads // attention.kv_heads
    order = rng.permutation(groups)
    inside = np.stack([rng.permutation(members) for _ in range(groups)])
    numbers: Indices = (order[:, None] * members + inside).ravel()
    return numbers


def log10_p_counts(k: int, chance: Sequence[int]) -> float:
    """log10 P(Bin(k + S, 1/(R + 1)) >= k) for k agreements and S = sum(chance) in R permuted copies; never above 0."""
    if k < 1:
        return 0.0
    n, q = k + sum(chance), 1 / (1 + len(chance))
    i = np.arange(k, n + 1)
    log = np.array([math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) for j in i])
    log += i * math.log(q) + (n - i) * math.log1p(-q)
    top = float(log.max())
    return min(0.0, (top + math.log(float(np.exp(log - top).sum()))) / math.log(10))


def log10_p_order(k: int, blocks: Sequence[tuple[int, int]]) -> float:
    """log10 of the bound on P(hits >= k); ``blocks``: (groups, heads per group) of every block of B."""
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


def _compare_inside(
    models: Models, heads: _Heads, one: _Seen, qk: Factors, vo: Factors, channels: Indices
) -> dict[str, list[float]]:
    """Row spaces of q, k, v and o of the heads found in the block of A that holds most of them: role → overlaps."""
    if not one.agreed:
        return {}
    out: dict[str, list[float]] = {}
    (block, _), *_ = Counter(int(heads.block[a]) for _, a, *_ in one.agreed).most_common(1)
    theirs = factors(models, models.a, heads.attentions[block], channels)
    pairs = [(j, int(heads.head[a])) for j, a, *_ in one.agreed if heads.block[a] == block]
    b, a = (np.array(x) for x in zip(*pairs, strict=True))
    of_b, of_a = qk.of[b], theirs["qk"].of[a]
    for role, x, y in (
        ("q", qk.left[b], theirs["qk"].left[a]),
        ("k", qk.right[of_b], theirs["qk"].right[of_a]),
        ("v", vo.right[of_b], theirs["vo"].right[of_a]),
        ("o", vo.left[b], theirs["vo"].left[a]),
    ):
        chance = max(x.shape[1], y.shape[1]) / (channels.size - 1)
        if chance < 0.5:
            out[role] = ((overlaps(x, y) - chance) / (1 - chance)).tolist()
    return out


def _answer(
    models: Models,
    heads: _Heads,
    seen: list[_Seen],
    inside: dict[str, list[float]],
    orders: list[Indices],
    channels: Indices,
) -> Evidence:
    tested = sum(s.alive for s in seen)
    k, *chance = (len(frozenset().union(*heads_of_a)) for heads_of_a in zip(*(s.named for s in seen), strict=True))
    agreed = sum(len(s.agreed) for s in seen)
    expected = (sum(chance) + 1) / len(orders)
    copies = [sum(counts) for counts in zip(*(s.hits for s in seen), strict=True)]
    hits = copies[0]
    price = math.log10(max(models.basis.candidates, 1))
    by_agreement = min(0.0, log10_p_counts(k, chance) + price)
    by_order = min(0.0, log10_p_order(hits, [s.order for s in seen]) + price)
    log10_p = by_order if models.basis.semantic else min(0.0, min(by_agreement, by_order) + math.log10(2))
    effect = max(0.0, (agreed - expected) / max(tested, 1))
    return replace(
        _QUESTION,
        says=f"{agreed} of {tested} heads are named alike by both products (chance: about {expected:.1f}); {hits} "
        f"stand at the same number in their block (chance: about {len(seen)})",
        statistic=float(agreed),
        effect=effect,
        n=tested,
        log10_p=log10_p,
        rank_p=_ranked([k, *chance], copies, [s.order for s in seen], heads, seen)
        if models.basis.kind == "identity"
        else None,
        detectable=min(1.0, (expected + 5 * math.sqrt(max(expected, 1.0))) / max(tested, 1)),
        matches=tuple(m for s in seen for m in _matches(heads, s)),
        details={
            "heads_a": int(heads.head.size),
            "heads_b": tested,
            "agreed": agreed,
            "agreed_distinct": k,
            "expected": expected,
            "permutations": len(orders),
            "channels": int(channels.size),
            "log10_p_agreement": by_agreement,
            "log10_p_order": by_order,
            "hits": hits,
            "head_map": _head_map(heads, seen),
            "inside": {role: float(np.mean(x)) for role, x in inside.items() if x},
            "basis": models.basis.found_by,
            "convergence_possible": models.basis.semantic,
        },
    )


def _ranked(
    named: Sequence[int], hits: Sequence[int], order: Sequence[tuple[int, int]], heads: _Heads, seen: Sequence[_Seen]
) -> float:
    """B among its permuted copies, each looked at as B is: its agreements against those of all others; its order."""
    told = [
        min(0.0, log10_p_counts(k, [*named[:i], *named[i + 1 :]]), log10_p_order(there, order))
        for i, (k, there) in enumerate(zip(named, hits, strict=True))
    ]
    salt = [float(heads.qk.sum()), float(heads.vo.sum()), [[sorted(x) for x in s.named] for s in seen]]
    return rank_p([-p for p in told], named, hits, salt=salt)


def _head_map(heads: _Heads, seen: list[_Seen]) -> list[dict[str, Any]]:
    """One row per block of B: A's block and head for each of its heads, None where the two products disagree."""
    rows = []
    for s in seen:
        row: list[list[Any] | None] = [None] * s.attention.heads
        for j, a, by_qk, by_vo in s.agreed:
            row[j] = [heads.attentions[heads.block[a]].name, int(heads.head[a]), round(by_qk, 3), round(by_vo, 3)]
        rows.append({"b": s.attention.name, "heads": row})
    return rows


def _matches(heads: _Heads, s: _Seen) -> list[UnitMatch]:
    """Blocks of A that hold heads of this block of B; `units` are (head of B, head of A)."""
    by_block: dict[int, list[tuple[int, int]]] = {}
    for j, a, *_ in s.agreed:
        by_block.setdefault(int(heads.block[a]), []).append((j, int(heads.head[a])))
    total = (sum(map(len, s.named[1:])) + 1) / max(len(s.named) - 1, 1)
    out = []
    for block, pairs in by_block.items():
        ours = heads.attentions[block]
        expected = total / len(heads.attentions)
        log10_p = _log10_poisson(len({a for _, a in pairs}), expected)
        out.append(
            UnitMatch(
                (s.attention.stack, s.attention.block, None),
                (ours.stack, ours.block, None),
                s.alive,
                len(pairs),
                expected,
                log10_p,
                np.array(pairs, np.int64),
            )
        )
    return sorted(out, key=lambda m: m.log10_p)


def _log10_poisson(k: int, mean: float) -> float:
    """log10 P(Poisson(mean) >= k), by its first terms."""
    terms = [i * math.log(mean) - mean - math.lgamma(i + 1) for i in range(k, k + 60)]
    top = max(terms)
    return min(0.0, (top + math.log(math.fsum(math.exp(x - top) for x in terms))) / math.log(10))
