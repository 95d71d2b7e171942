"""The lightest tree that spans a set of models with every edge pointing from parent to child.

Edmonds' algorithm (Chu and Liu 1965, Edmonds 1967): every node but the root takes its lightest incoming edge; a cycle
that arises is shrunk to one node, into which an edge then costs what it costs beyond the cycle's own edge; when no
cycle is left, each shrunk one is opened where the tree enters it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightprint.util.arrays import F64


@dataclass(frozen=True)
class _Edge:
    tail: int
    head: int
    weight: float
    under: _Edge | None = None  # the edge that it stands for, one level down


def arborescence(weights: F64) -> list[int]:
    """Parent of each node, -1 for the root, so that the sum of the edges' weights is smallest.

    Args:
        weights: (n, n), ``weights[i, j]`` of the edge from parent i to child j; the diagonal does not count.
    """
    n = weights.shape[0]
    if n == 0:
        return []
    # A node above all whose edges cost more than any tree: exactly one of them is taken, into the best root.
    high = (float(np.abs(weights).max()) + 1.0) * (n + 1) if n > 1 else 1.0
    edges = [_Edge(i, j, float(weights[i, j])) for i in range(n) for j in range(n) if i != j]
    edges += [_Edge(n, j, high) for j in range(n)]
    parents = [-1] * n
    for edge in _solve(edges, n, set(range(n + 1))):
        parents[edge.head] = -1 if edge.tail == n else edge.tail
    return parents


def _solve(edges: list[_Edge], root: int, nodes: set[int]) -> list[_Edge]:
    lightest: dict[int, _Edge] = {}
    for edge in edges:
        if edge.head != root and edge.tail != edge.head:
            best = lightest.get(edge.head)
            if best is None or edge.weight < best.weight:
                lightest[edge.head] = edge
    cycle = _cycle(lightest, root)
    if not cycle:
        return list(lightest.values())
    whole = max(nodes) + 1
    smaller: list[_Edge] = []
    for edge in edges:
        tail, head = (whole if node in cycle else node for node in (edge.tail, edge.head))
        if tail != head:
            extra = lightest[edge.head].weight if edge.head in cycle else 0.0
            smaller.append(_Edge(tail, head, edge.weight - extra, edge))
    tree = [e.under for e in _solve(smaller, root, (nodes - cycle) | {whole}) if e.under is not None]
    entered = next(edge.head for edge in tree if edge.head in cycle)
    return tree + [lightest[node] for node in cycle if node != entered]


def _cycle(lightest: dict[int, _Edge], root: int) -> set[int]:
    """The nodes of one cycle among the chosen edges; empty where there is none."""
    done = {root}
    for start in lightest:
        path: dict[int, None] = {}
        node = start
        while node not in done and node not in path:
            path[node] = None
            node = lightest[node].tail
        if node in path:
            order = list(path)
            return set(order[order.index(node) :])
        done.update(path)
    return set()
