"""Which end of a tree is the earlier one, and whether the earliest is among the models at all.

Every edge is asked which of its two came first: the parting of the two in the frame
(:mod:`weightprint.verdict.direction.parting`), with the confidences that direction has by itself, and a plain t near 0
or 1 for a little. The root moves over an edge that says the other way round, the surest first. Of copies, and where
only few models or little evidence speaks, the signs of direction are gathered from the models
(:mod:`weightprint.verdict.direction.cues`).

A root that its children parted from half way (t between .12 and .88) is itself a sibling of theirs: the ancestor is not
among the models. Two such children and a fifth of all are enough, since of an ancestor there are none, while a sibling
with a short branch of its own looks like the ancestor of those that went far. Before, its nearest children are asked
whether one of them is that ancestor: what was trained for a moment on the same data as the others is the most central.
Of two models alone one t, bent by decay, is too little: their edge has no direction then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.util.arrays import F64
from weightprint.verdict.direction.direction import relation
from weightprint.verdict.values import Parting

__all__ = ["COPY", "SURE", "Odds", "Rooted", "earlier", "rooted", "share"]

#: Log odds that move the root, or turn a copy round.
SURE = 0.8
_CLAIMED = 1.5  # of what direction claims by itself
#: A length that says nothing of which came first: a difference of .03 %; factors have no length.
COPY = 1e-7
_BESIDE = (0.12, 0.88)  # t of siblings
_SD, _APART = 0.3, 0.6  # beyond which t says nothing; of siblings both sides' t lie apart
_BENT = 0.5  # beyond 0 and 1: a scale moved, or a mean of relatives
_FEW = 0.2  # of the children: so many, and two, that stand beside the root are enough
_HUB = 3  # children that make an ancestor of the one they are nearest to, whatever direction says

#: (i, j) → log odds that i came before j.
Odds = Callable[[int, int], float]


@dataclass(frozen=True)
class Rooted:
    """``parent`` of each model, None for the root and for merges; ``undirected``: children whose edge nothing orients;
    ``beside``: models that stand beside the root under an unseen ancestor, empty where the root is the ancestor;
    ``own``: how far the root has come from there."""

    parent: tuple[int | None, ...]
    root: int
    undirected: frozenset[int]
    beside: frozenset[int]
    own: float


def earlier(parting: Parting | None) -> float:
    """Log odds that the first of the two is the ancestor, from where they parted."""
    if parting is None:
        return 0.0
    claim = relation(parting)
    if claim.later is not None:
        return 2.0 if claim.later == "b" else -2.0
    t = share(parting)
    return 0.0 if t is None else max(-1.0, min(1.0, 2 * (0.5 - t)))


def share(parting: Parting | None) -> float | None:
    """t, where it can be read."""
    if parting is None or not -_BENT <= parting.t <= 1 + _BENT or max(parting.sd_of_a, parting.sd_of_b) > _SD:
        return None
    return parting.t if abs(parting.of_a - parting.of_b) <= _APART else None


def rooted(
    parent: Sequence[int | None],
    merged: Sequence[int],
    lengths: F64,
    odds: Odds,
    signs: Odds,
    t: Callable[[int, int], float | None],
) -> Rooted:
    """Move the root to where the edges around it say.

    Args:
        parent: of :func:`weightprint.library.tree.hubs`.
        merged: models whose parents are known.
        lengths: between all, float64 (n, n).
        odds: from partings.
        signs: from all that direction knows; dear, asked where partings say little.
        t: where two parted.
    """
    tree = list(parent)
    root = next(i for i in range(len(tree)) if tree[i] is None and i not in merged)
    seen = {root}
    told: dict[tuple[int, int], float] = {}
    while True:
        children = [j for j, p in enumerate(tree) if p == root]
        for j in children:
            told.setdefault((root, j), odds(root, j))
        little = abs(sum(told[root, j] for j in children)) < 2 * _CLAIMED
        silent = sorted(children, key=lambda j: abs(told[root, j]))[:_HUB]
        for j in silent if little else [j for j in silent if lengths[root, j] <= COPY]:  # copies have no t
            told[root, j] = max(told[root, j], signs(root, j), key=abs)
        against = [j for j in children if told[root, j] <= -SURE and j not in seen]
        if not against:
            break
        new = min(against, key=lambda j: told[root, j])
        if lengths[root, new] <= COPY:  # what hung from the one hangs from the other
            tree = [new if p == root else p for p in tree]
        tree[root], tree[new] = new, None
        root = new
        seen.add(root)
    children = [j for j, p in enumerate(tree) if p == root]
    beside = _beside(root, children, lengths, told, t)
    for new in sorted(children, key=lambda j: lengths[root, j])[: _HUB if beside[0] else 0]:
        others = [root, *(j for j in children if j != new)]
        told |= {(new, j): odds(new, j) for j in others}
        instead = _beside(new, others, lengths, told, t)
        if not instead[0] and sum(told[new, j] for j in others) >= 2 * _CLAIMED:  # the ancestor is there
            tree = [new if j in others else p for j, p in enumerate(tree)]
            tree[new], root, children, beside = None, new, others, instead
            break
    undirected = frozenset(
        j for j in children if len(children) < _HUB and sum(told.get((root, k), 0.0) for k in children) < SURE
    )
    return Rooted(tuple(tree), root, undirected, *beside)


def _beside(
    root: int,
    children: Sequence[int],
    lengths: F64,
    told: Mapping[tuple[int, int], float],
    t: Callable[[int, int], float | None],
) -> tuple[frozenset[int], float]:
    """Models that stand beside the root, and how far it has come from where they parted."""
    shares = {j: s for j in children if (s := t(root, j)) is not None}
    seen = [j for j, s in shares.items() if _BESIDE[0] < s < _BESIDE[1] and told[root, j] < _CLAIMED]
    below = [j for j in children if j not in seen and (j in shares or told[root, j] >= _CLAIMED)]
    if len(seen) < 2 or (len(seen) <= len(below) and len(seen) < _FEW * (len(seen) + len(below))):
        return frozenset(), 0.0
    own = float(np.median([shares[j] * lengths[root, j] for j in seen]))
    # Whoever else parted where they did shares the root's own branch with all of them (the four-point condition).
    more = []
    for j in range(len(lengths)):
        ways = [(lengths[root, j] + lengths[root, k] - lengths[j, k]) / 2 for k in seen if k != j]
        if j not in (root, *seen) and ways and float(np.median(ways)) > own / 2:
            more.append(j)
    return frozenset([*seen, *more]), own
