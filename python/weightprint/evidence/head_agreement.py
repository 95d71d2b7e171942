"""Attention heads: do two independent looks at a head of B name the same head of A?

A head is two products (:mod:`weightprint.evidence.lookup.heads`): W_q'W_k says where it looks, W_o W_v what it carries.
Every head of B, in every block, is matched with its nearest head among *all* blocks of A, once by each product. A head
is *found* when both name the same head of A. The products share no matrix, so strangers agree by chance only.

*Null for agreement.* If B was trained independently of A, its residual channels carry no relation to A's: B beside a
copy of A with all channels permuted jointly (its q, k, v and o alike, so that everything inside A stays as it is) is as
likely as beside A. With S agreements over R permuted copies and K with A itself, K given K + S is at most
Binomial(K + S, 1/(R + 1)) for Poisson counts (Przyborowski and Wilenski 1940, the conditional test of two rates). Heads
are few, so counts are pooled over blocks. In these counts a head of A counts once per copy, so that a hub, or blocks
that B repeats, can't pile up: agreements must come independently for the counts to be Poisson.

*Null for order.* Sharper, and no alignment fitted elsewhere can fake it: initialisation and training treat the heads
of a block alike, so their order is arbitrary. Each head of B is matched by both products together; a hit is a head
with the same number in its block, in whatever block. Let the H = G·m heads of a block be G groups of m that share keys
and values (m = 1 without groups): orders of groups and orders within a group are equally likely. For k heads of one
block the chance that all are hits is at most 1/(number of images of these k under such orders), and the sum over
k-subsets is at most the number of orbits over k!. With e(t) = sum_{1..m} t^j/j! this gives for the L blocks of B

    E[(1 + t)^hits] <= (sum_{0..G} e(t)^j/j!)^L     and     P(hits >= k) <= min_t of that over (1 + t)^k      (exact)

The reported p is twice the smaller one. In a basis that was fitted only order speaks.

Inside heads that were found, the spaces that q, k, v and o span are compared: mean squared cosine of the principal
angles, less what chance gives. Descriptive.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypedDict

import numpy as np

from weightprint.evidence.evidence import Details, Evidence, UnitMatch, not_applied
from weightprint.evidence.lookup.head_table import HeadTable, Seen
from weightprint.evidence.lookup.heads import Kind, factors, overlaps
from weightprint.evidence.nulls.exchange import log10_p_order
from weightprint.evidence.nulls.ranked import rank_p
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.streamed import done, with_cost
from weightprint.evidence.test import Test
from weightprint.fingerprint.attentions import Attention, attentions
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import pick
from weightprint.util import parallel
from weightprint.util.arrays import Indices
from weightprint.util.ranges import evenly

_QUESTION = Evidence(
    test="head_agreement",
    asked="Do a head's attention pattern (W_q, W_k) and what it carries (W_v, W_o) name the same head of A?",
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


#: Role, the product that it is a factor of, and which.
_PARTS: tuple[tuple[str, Kind, str], ...] = (
    ("q", "qk", "left"),
    ("k", "qk", "right"),
    ("v", "vo", "right"),
    ("o", "vo", "left"),
)


class HeadRow(TypedDict):
    """A block of B, and for each of its heads A's block and head with the cosines of both products, None where these
    disagree."""

    b: str
    heads: Sequence[Sequence[Any] | None]


@dataclass(frozen=True)
class HeadAgreement(Details):
    """Heads counted, the two p-values that the reported one is of, and which head is which.

    ``inside``: overlap of the spaces that q, k, v and o of found heads span; ``order_only``: the basis was fitted.
    """

    heads_a: int
    heads_b: int
    agreed: int
    agreed_distinct: int
    expected: float
    permutations: int
    channels: int
    log10_p_agreement: float
    log10_p_order: float
    hits: int
    head_map: Sequence[HeadRow]
    inside: Mapping[str, float]
    basis: str
    order_only: bool
    withheld: str | None = None


def _mirrored(told: HeadAgreement, names: Mapping[str, str], models: ModelPair) -> HeadAgreement:
    """Block of A → for each of its heads the block and head of B that named it, the best of several."""
    rows: dict[str, dict[int, list[Any]]] = defaultdict(dict)
    for block in told.head_map:
        for i, head in enumerate(block["heads"]):
            if head is not None:
                name, j, by_qk, by_vo = head
                before = rows[name].get(j)
                if before is None or min(by_qk, by_vo) > min(before[2:]):
                    rows[name][j] = [block["b"], i, by_qk, by_vo]
    head_map: list[HeadRow] = [
        {"b": name, "heads": [heads.get(j) for j in range(max(_n_heads(models.a, name), max(heads) + 1))]}
        for name, heads in rows.items()
    ]
    return replace(told, head_map=head_map)


def _n_heads(side: ModelView, block: str) -> int:
    geometry = side.geometry.get(block.rpartition(".")[0])
    return int(geometry.heads or 0) if geometry is not None else 0


def head_collector(models: ModelPair) -> HeadTable | None:
    """What this test does while the models stream by; needs their headers only."""
    table = _table(models)
    return None if isinstance(table, str) else table


@partial(
    Test,
    decides="any basis",
    bases=("stored", "found"),
    exchanges=True,
    of_heads=True,
    details=HeadAgreement,
    mirrored=_mirrored,
    collector=head_collector,
    cost="alone",
    kept="heads",
)
def head_agreement(models: ModelPair) -> Evidence:
    """Heads named alike by both products, with the counts of permuted copies, and heads in the same order."""
    table = _table(models)
    if isinstance(table, str):
        return not_applied(_QUESTION, table)
    table, streamed = done(models, table)
    seen = table.seen()
    chosen = {x.name for x in evenly(table.theirs, models.budget.heads.compared)}
    compared = [one for one in seen if one.attention.name in chosen and one.agreed]
    inside: dict[str, list[float]] = defaultdict(list)
    for angles in parallel.each(lambda one: _compare_inside(models, table, one), compared):
        for role, found in angles.items():
            inside[role] += found
    answer = _answer(models, table, seen, inside)
    return with_cost(answer, table) if streamed else answer


def _table(models: ModelPair) -> HeadTable | str:
    """The heads to be compared, or why there are none."""
    budget = models.budget
    ours, theirs = attentions(models.a, models.b), attentions(models.b, models.a)
    if not ours or not theirs:
        return f"{'A' if not ours else 'B'} has no attention whose heads can be told apart"
    ours = [x for x in ours if x.largest <= budget.columns_of]
    theirs = [x for x in theirs if x.largest <= budget.columns_of]
    if not ours or not theirs:
        return "whole attention matrices are not read at this effort"
    widths = {_width(x) for x in ours}, {_width(x) for x in theirs}
    aligned = models.basis.channels is not None or models.basis.matrix is not None
    if len(widths[0]) != 1 or len(widths[1]) != 1 or (widths[0] != widths[1] and not aligned):
        return "the two models' residual streams differ in width"
    ours, theirs = evenly(ours, budget.layers), evenly(theirs, budget.layers)
    theirs = [x for x in theirs if not models.basis.fitted & {x.name, *x.parts}]
    if not theirs:
        return "the alignment was fitted on every attention block of B"
    channels = _channels(models, widths[0].pop(), budget.heads.channels)
    rng = np.random.default_rng([models.seed, channels.size, 12])
    orders = [rng.permutation(channels.size) for _ in range(budget.heads.permutations)]
    return HeadTable(models, ours, theirs, channels, budget.heads.dims, orders)


def _width(attention: Attention) -> int:
    return attention.parts["o"].shape[0]


def _channels(models: ModelPair, width: int, limit: int) -> Indices:
    """Channels of A that are looked at: those that B has, at most so many."""
    chosen = pick(width, limit, models.seed, "head channels")
    if models.basis.channels is None:
        return chosen
    there: Indices = np.nonzero(models.basis.channels >= 0)[0]
    return there[pick(there.size, limit, models.seed, "head channels")]


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


def _compare_inside(models: ModelPair, heads: HeadTable, one: Seen) -> dict[str, list[float]]:
    """Row spaces of q, k, v and o of the heads found in the block of A that holds most of them: role → overlaps."""
    channels = heads.channels
    out: dict[str, list[float]] = {}
    (block, _), *_ = Counter(int(heads.block[a]) for _, a, *_ in one.agreed).most_common(1)
    with heads.room_for(one.attention):
        ours, theirs = (
            factors(models, side, attention, channels)
            for side, attention in ((models.a, heads.ours[block]), (models.b, one.attention))
        )
    pairs = [(j, int(heads.head[a])) for j, a, *_ in one.agreed if heads.block[a] == block]
    pairs = evenly(pairs, models.budget.heads.inside)
    b, a = (np.array(x) for x in zip(*pairs, strict=True))
    for role, kind, part in _PARTS:
        of_b, of_a = theirs[kind], ours[kind]
        x, y = getattr(of_b, part), getattr(of_a, part)
        x, y = (x[b], y[a]) if part == "left" else (x[of_b.of[b]], y[of_a.of[a]])
        chance = max(x.shape[1], y.shape[1]) / (channels.size - 1)
        if chance < 0.5:
            out[role] = ((overlaps(x, y) - chance) / (1 - chance)).tolist()
    return out


def _answer(models: ModelPair, heads: HeadTable, seen: list[Seen], inside: dict[str, list[float]]) -> Evidence:
    tested = sum(s.alive for s in seen)
    k, *chance = (len(frozenset().union(*heads_of_a)) for heads_of_a in zip(*(s.named for s in seen), strict=True))
    agreed = sum(len(s.agreed) for s in seen)
    expected = (sum(chance) + 1) / len(heads.orders)
    copies = [sum(counts) for counts in zip(*(s.hits for s in seen), strict=True)]
    hits = copies[0]
    multiplicity = math.log10(max(models.basis.candidates, 1))
    by_agreement = min(0.0, log10_p_counts(k, chance) + multiplicity)
    by_order = min(0.0, log10_p_order(hits, [s.order for s in seen]) + multiplicity)
    # A fitted basis aligns the strong directions of strangers, on which both products of a head may load: only the
    # order of heads is still arbitrary then.
    fitted = models.basis.kind != "identity"
    log10_p = by_order if fitted else min(0.0, min(by_agreement, by_order) + math.log10(2))
    effect = max(0.0, (hits - len(seen) if fitted else agreed - expected) / max(tested, 1))
    return replace(
        _QUESTION,
        says=f"{agreed} of {tested} heads are named alike by both products (chance: about {expected:.1f}); {hits} "
        f"stand at the same number in their block (chance: about {len(seen)})",
        statistic=float(agreed),
        effect=effect,
        n=tested,
        log10_p=log10_p,
        rank_p=None if fitted else _ranked([k, *chance], copies, [s.order for s in seen], seen),
        detectable=min(1.0, (expected + 5 * math.sqrt(max(expected, 1.0))) / max(tested, 1)),
        matches=tuple(m for s in seen for m in _matches(heads, s)),
        details=HeadAgreement(
            heads_a=int(heads.head.size),
            heads_b=tested,
            agreed=agreed,
            agreed_distinct=k,
            expected=expected,
            permutations=len(heads.orders),
            channels=int(heads.channels.size),
            log10_p_agreement=by_agreement,
            log10_p_order=by_order,
            hits=hits,
            head_map=_head_map(heads, seen),
            inside={role: float(np.mean(x)) for role, x in inside.items() if x},
            basis=models.basis.found_by,
            order_only=fitted,
        ),
    )


def _ranked(named: Sequence[int], hits: Sequence[int], order: Sequence[tuple[int, int]], seen: Sequence[Seen]) -> float:
    """B among its permuted copies, each looked at as B is: its agreements against those of all others; its order."""
    told = [
        min(0.0, log10_p_counts(k, [*named[:i], *named[i + 1 :]]), log10_p_order(there, order))
        for i, (k, there) in enumerate(zip(named, hits, strict=True))
    ]
    salt = [[[sorted(x) for x in s.named], s.agreed] for s in seen]
    return rank_p([-p for p in told], named, hits, salt=salt)


def _head_map(heads: HeadTable, seen: list[Seen]) -> list[HeadRow]:
    rows: list[HeadRow] = []
    for s in seen:
        row: list[list[Any] | None] = [None] * s.attention.heads
        for j, a, by_qk, by_vo in s.agreed:
            row[j] = [heads.ours[heads.block[a]].name, int(heads.head[a]), round(by_qk, 3), round(by_vo, 3)]
        rows.append({"b": s.attention.name, "heads": row})
    return rows


def _matches(heads: HeadTable, s: Seen) -> list[UnitMatch]:
    """Blocks of A that hold heads of this block of B; `units` are (head of B, head of A)."""
    by_block: dict[int, list[tuple[int, int]]] = {}
    for j, a, *_ in s.agreed:
        by_block.setdefault(int(heads.block[a]), []).append((j, int(heads.head[a])))
    total = (sum(map(len, s.named[1:])) + 1) / max(len(s.named) - 1, 1)
    out = []
    for block, pairs in by_block.items():
        ours = heads.ours[block]
        expected = total / len(heads.ours)
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
