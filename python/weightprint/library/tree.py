"""From lengths between models to who hangs from whom: the fewest inner nodes that explain them.

*Which observed models are inner nodes.* A model that others descend from is nearer to them than all else is; and
fine-tunes of one base on the same data share part of their way, so that one of them may be somewhat nearer to another
than their common base. So an inner node has to be worth it: besides the most central model (the 1-median of log
lengths) another one is taken for a parent only of models to which it is nearer by the factor :data:`NEARER` (or as near
with fewer edits), the best first, as in greedy facility location (Charikar & Guha 1999).

*Unseen ancestors.* t says of a parent and its child whether the parent is where they parted (0) or has come further
itself (:mod:`weightprint.verdict.direction.parting`). A node that most of its children do not descend from stands
beside them, under an ancestor that isn't among the models; children that share more of their way than siblings do hang
from an unseen node of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from weightprint.library.rooting import Rooted
from weightprint.util.arrays import F64

__all__ = ["NEARER", "SHARED", "hubs", "released", "shared_ways", "with_root"]

#: Chosen on the fit side of the lineage benchmark. Siblings reach .63 of the length from their base, real children .45.
NEARER = 0.6
#: Cosine of what two siblings have beyond their base, from which they share an unseen ancestor; on common data .65.
SHARED = 0.75
#: Own way of an inner node, of that to its children, from which it stands beside them.
BESIDE = 0.15
_TOLD = 0.02  # of its way, that is told from what lengths miss of adding up
_LEAST = 1e-6  # a length that is none
_EDIT = 5.0  # of logarithms, that edits of all tensors are worth
_FEW = 0.05  # share of the tensors: its tables, or its norms
_GAIN = 0.1  # of logarithms of lengths, that another inner node is worth
_UNKNOWN = 4.0  # length where nothing is common


def _cost(lengths: F64, edits: F64, other: bool) -> F64:
    """Logarithm of how far a child (column) is from a parent (row)."""
    far = np.where(np.isfinite(lengths), lengths, _UNKNOWN)
    out = np.log(far + _LEAST) + _EDIT * edits + (np.log(1 / NEARER) if other else 0.0)
    np.fill_diagonal(out, np.inf)
    return np.asarray(out)


def hubs(lengths: F64, edits: F64, merged: Mapping[int, Sequence[int]], root: int | None = None) -> list[int | None]:
    """The parent of each model, None for the most central one (or `root`) and for those that are `merged`.

    ``merged``: models whose parents are known, with these; they may be parents of others, but not of their own.
    """
    n = len(lengths)
    free = [j for j in range(n) if j not in merged]
    main, cost = _cost(lengths, edits, False), _cost(lengths, edits, True)
    if root is None:
        totals = [main[i, [j for j in free if j != i]].sum() for i in free]
        root = free[int(np.argmin(totals))]
    # A few edits that only the root has are those of a copy whose original isn't there: nothing is further for them.
    # (Many may be those of the one child that all others come from.)
    cost[root] = main[root] - _EDIT * min(_own(edits, root), _FEW)
    cost[:, root] = np.inf
    cost[:, list(merged)] = np.inf
    cost[root, list(merged)] = 0.0  # they hang from elsewhere
    while True:
        parent = [None if j == root or j in merged else p for j, p in enumerate(arborescence(cost, root))]
        loops = [(p, j) for m in merged for p, j in _loop(parent, merged, m)]
        poor = _poorest(parent, cost, root)
        if loops:
            cost[max(loops, key=lambda edge: cost[edge])] = np.inf
        elif poor is not None:
            cost[poor] = np.inf
        else:
            return parent


def _own(edits: F64, i: int) -> float:
    """The least that a model has for itself beside any two others: of distances in a tree, its own branch."""
    ways = [
        (edits[i, j] + edits[i, k] - edits[j, k]) / 2 for j, k in combinations(range(len(edits)), 2) if i not in (j, k)
    ]
    return max(0.0, float(min(ways, default=0.0)))


def _poorest(parent: Sequence[int | None], cost: F64, root: int) -> int | None:
    """The inner node whose children are least nearer to it than to other inner nodes (none below themselves), if that
    isn't worth one."""
    inner = {p for p in parent if p is not None}

    def worth(h: int) -> float:
        instead = {j: [i for i in inner - {h, j} if j not in _way(parent, i)] for j in _children(parent, h)}
        return sum(float(cost[others, j].min() - cost[h, j]) for j, others in instead.items())

    least = min(inner - {root}, key=worth, default=None)
    return least if least is not None and worth(least) < _GAIN else None


def _way(parent: Sequence[int | None], i: int) -> list[int]:
    """What a model hangs from, up to the root or a merge."""
    out: list[int] = []
    while (above := parent[i]) is not None:
        out.append(above)
        i = above
    return out


def _children(parent: Sequence[int | None], h: int) -> list[int]:
    return [j for j, p in enumerate(parent) if p == h]


def arborescence(cost: F64, root: int) -> list[int]:
    """The parents that cost least in all, of i as the parent of j ``cost[i, j]`` (Edmonds 1967); the root's is itself.

    Where the cheapest parents make a ring, it is one node: it is entered where that costs least more.
    """
    parent: list[int] = np.argmin(cost, axis=0).tolist()
    parent[root] = root
    ring = _ring(parent, root)
    if not ring:
        return parent
    others = [i for i in range(len(cost)) if i not in ring]
    leaving = cost[np.ix_(ring, others)]
    entering = cost[np.ix_(others, ring)] - cost[[parent[j] for j in ring], ring]
    n = len(others)
    smaller = np.full((n + 1, n + 1), np.inf)
    smaller[:n, :n], smaller[n, :n], smaller[:n, n] = cost[np.ix_(others, others)], leaving.min(0), entering.min(1)
    found = arborescence(smaller, others.index(root))
    for k, j in enumerate(others):
        parent[j] = ring[int(np.argmin(leaving[:, k]))] if found[k] == n else others[found[k]]
    entered = ring[int(np.argmin(entering[found[n]]))]
    parent[entered] = others[found[n]]
    return parent


def _ring(parent: Sequence[int], root: int) -> list[int]:
    """Numbers of a ring, empty where all lead to the root."""
    done = {root}
    for start in range(len(parent)):
        way: list[int] = []
        at = start
        while at not in done and at not in way:
            way.append(at)
            at = parent[at]
        if at in way:
            return way[way.index(at) :]
        done.update(way)
    return []


def _loop(parent: Sequence[int | None], merged: Mapping[int, Sequence[int]], m: int) -> list[tuple[int, int]]:
    """The edges by which a merge would be above what it is made from."""
    above: set[int] = set()
    queue = [m]
    while queue:
        at = queue.pop()
        new = {p for p in (*merged.get(at, ()), parent[at]) if p is not None} - above
        above |= new
        queue += new
    below = {m}
    while more := {j for j in above if parent[j] in below} - below:
        below |= more
    return [(p, j) for j in below if m in above and (p := parent[j]) is not None and p in below]


def released(parent: Sequence[int | None], lengths: F64) -> list[int | None]:
    """Without inner nodes that stand beside their children: these hang from the node's own parent again.

    Of a parent h with its own parent p and a child j, d(p, j) = d(p, h) + d(h, j). What is missing is twice the way
    that h itself has come since it parted from j.
    """
    out = list(parent)
    for hub in dict.fromkeys(p for p in parent if p is not None):
        above = parent[hub]
        children = [j for j, p in enumerate(parent) if p == hub and lengths[hub, j] > _LEAST]
        if above is None or not children:
            continue
        own = [(lengths[above, hub] + lengths[hub, j] - lengths[above, j]) / 2 for j in children]
        least = max(BESIDE * float(np.median(lengths[hub, children])), _TOLD * lengths[above, hub])
        if float(np.median(own)) > least:
            for j in children:
                out[j] = above
    return out


def shared_ways(lengths: F64, parent: Sequence[int | None], merged: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """(hub, children of its that share more of their way from it than siblings do): an unseen node is between.

    Of two children the share is that of the way which both went, over the geometric mean of both ways: the cosine of
    what each has beyond the hub. Children are joined where every two of them share so much.
    """
    for hub in dict.fromkeys(p for p in parent if p is not None):
        children = [j for j, p in enumerate(parent) if p == hub and j not in merged and lengths[hub, j] > _LEAST]
        groups: list[list[int]] = [[j] for j in children]
        while len(groups) > 1:
            pairs = [(min(_shared(lengths, hub, i, j) for i in x for j in y), x, y) for x, y in combinations(groups, 2)]
            best, x, y = max(pairs, key=lambda p: p[0])
            if not best > SHARED:
                break
            groups = [g for g in groups if g is not x and g is not y] + [sorted([*x, *y])]
        yield from ((hub, g) for g in groups if len(g) > 1)


def _shared(lengths: F64, hub: int, i: int, j: int) -> float:
    """No way that both went is longer than either way. (It would read so where one is all but the hub, and lacks
    matrices or channels that the other two have.)"""
    both = min((lengths[hub, i] + lengths[hub, j] - lengths[i, j]) / 2, lengths[hub, i], lengths[hub, j])
    return float(both / np.sqrt(lengths[hub, i] * lengths[hub, j]))


def with_root(lengths: F64, found: Rooted, *, edits: bool = False) -> F64:
    """With a last row and column for the unseen ancestor of the root that was found and of what stands beside it.

    As far as can be told it has the root's edits; its lengths follow from how far the root came from it.
    """
    n = len(lengths)
    out = np.zeros((n + 1, n + 1))
    out[:n, :n] = lengths
    row = lengths[found.root].copy()
    if not edits:
        beside = np.array([j in found.beside for j in range(n)])
        row = np.where(beside, np.maximum(row - found.own, 0.0), row + found.own)
    out[n, :n] = out[:n, n] = row
    return out
