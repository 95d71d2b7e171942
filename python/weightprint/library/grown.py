"""The tree of one group: lengths, merges, hubs and root put together, with how sure each edge is.

Every edge is asked again on blocks drawn with replacement (what is new in one block tells of the others): its length
has the interval of the draws, its support is the share of them in which the child hangs from the same parent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from weightprint.compare.recipe import Recipe, recipe
from weightprint.errors import WeightprintError
from weightprint.library.group import Group
from weightprint.library.members import relate
from weightprint.library.merges import Merged, Prove, merges
from weightprint.library.rooting import COPY, SURE, Odds, Rooted, earlier, rooted, share
from weightprint.library.tree import hubs, released, shared_ways, with_root
from weightprint.results.lineage import Edge, Kind, Merge, Unplaced
from weightprint.util.arrays import F64
from weightprint.verdict.direction import cues as direction_cues
from weightprint.verdict.direction.direction import direction

__all__ = ["Tree", "tree_of"]

_DRAWS = 40


@dataclass
class Tree:
    """Of one group: what goes into a `Lineage`. ``root`` is None where nothing could be placed; ``between``: lengths
    between two models."""

    root: str | None
    edges: list[Edge] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    unplaced: list[Unplaced] = field(default_factory=list)
    between: dict[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Hung:
    """What hangs from what, by number (an unseen root comes after the models), and the lengths between them."""

    parent: list[int | None]
    lengths: F64


def tree_of(group: Group, seed: int = 0, unseen: int = 0, prove: Prove | None = None) -> Tree:
    """The tree of one group. ``unseen``: how many unseen ancestors other groups have; ``prove``: in place of `recipe`,
    (child, parents) → Recipe or None."""
    names = [member.name for member in group.members]
    keep = sorted((i for i, found in enumerate(group.coordinates) if found), key=lambda i: names[i])
    if len(names) == 1:
        return Tree(None, unplaced=[Unplaced(names[0], "none of the other models shares an origin with it")])
    if len(keep) < 2:
        return Tree(None, unplaced=[Unplaced(name, _why_not(group)) for name in sorted(names)])
    tree = Tree(None, unplaced=[Unplaced(n, _why_not(group)) for i, n in enumerate(names) if i not in keep])
    group = group.only(keep)
    far, lengths = group.distances.of_children(), group.distances.common()
    placed = [member.name for member in group.members]
    tree.between = {(a, b): float(lengths[i, j]) for i, a in enumerate(placed) for j, b in enumerate(placed)}
    proved = {m.child: m for m in _merges(group, lengths, far, prove)}
    merged = {child: m.parents for child, m in proved.items()}
    signs = _signs(group, seed)
    found = _rooted(group, hubs(far, group.edits, merged), merged, signs)
    rng, n = np.random.default_rng(seed), len(group.distances.blocks)
    draws = [rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64) for _ in range(_DRAWS)]
    hung = _hung(group, found, merged, None)
    copies = [(i, j) for j, i in enumerate(hung.parent) if i is not None and i < len(keep) and _equal(hung, i, j)]
    turn = [(i, j) for i, j in copies if i != found.root and signs(i, j) <= -SURE]
    drawn = [turned(_hung(group, found, merged, draw), turn) for draw in draws]
    _fill(tree, group, turned(hung, turn), found, proved, drawn, unseen)
    return tree


def _equal(hung: _Hung, i: int, j: int) -> bool:
    return bool(hung.lengths[i, j] <= COPY)


def turned(hung: _Hung, pairs: Sequence[tuple[int, int]]) -> _Hung:
    """With the second of each pair in the place of the first, which then hangs from it. Lengths don't tell copies of
    each other apart; what is new beside the values does."""
    parent = list(hung.parent)
    for i, j in pairs:
        if parent[j] == i:
            parent[j], parent[i] = parent[i], j
    return _Hung(parent, hung.lengths)


def _why_not(group: Group) -> str:
    if group.members[0].kept is not None:
        return "it shares an origin with others, but stands in another order or basis: that needs the weights"
    return "it shares an origin with others, but none of its blocks could be laid on theirs"


def _merges(group: Group, lengths: F64, far: F64, prove: Prove | None) -> Iterator[Merged]:
    def by_recipe(child: int, parents: Sequence[int]) -> Recipe | None:
        try:
            return recipe(group.members[child].live, [group.members[p].live for p in parents])
        except WeightprintError:
            return None  # shapes that don't go together

    if group.members[0].kept is None:
        parent = hubs(far, group.edits, {})
        yield from merges(group.coordinates, group.products, lengths, group.edits, parent, prove or by_recipe)


def _signs(group: Group, seed: int) -> Odds:
    """What direction says of two models by its signs, as `rooting` asks for it."""

    def signs(i: int, j: int) -> float:
        if group.members[0].kept is not None:
            return 0.0
        pair = relate(group.members[i], group.members[j], seed)
        if not pair.related:
            return 0.0
        said = direction(direction_cues.gather(pair.models, pair.evidence, pair.maps))
        if said.later is None or said.confidence is None:
            return 0.0
        sure = min(3.0, float(np.log(said.confidence / max(1 - said.confidence, 1e-3))))
        return sure if said.later == "b" else -sure

    return signs


def _rooted(group: Group, parent: Sequence[int | None], merged: Mapping[int, Sequence[int]], signs: Odds) -> Rooted:
    return rooted(
        parent,
        list(merged),
        group.distances.common(),
        odds=lambda i, j: earlier(group.parting(i, j)),
        signs=signs,
        t=lambda i, j: share(group.parting(i, j)),
    )


def _hung(group: Group, found: Rooted, merged: Mapping[int, Sequence[int]], draw: F64 | None) -> _Hung:
    """Who hangs from whom below the root that was found, on all blocks or as they were drawn."""
    far, lengths, edits, root = group.distances.of_children(draw), group.distances.common(draw), group.edits, found.root
    if found.beside:
        far, edits = with_root(far, found), with_root(edits, found, edits=True)
        lengths, root = with_root(lengths, found), len(lengths)
    return _Hung(released(hubs(far, edits, merged, root), lengths), lengths)


def _fill(
    tree: Tree,
    group: Group,
    hung: _Hung,
    found: Rooted,
    proved: Mapping[int, Merged],
    drawn: Sequence[_Hung],
    unseen: int,
) -> None:
    names = [member.name for member in group.members]
    if found.beside:
        names.append(f"unseen {unseen + 1}")
        tree.unseen.append(names[-1])

    def edge(i: int, j: int, kind: Kind) -> Edge:
        some = [d.lengths[i, j] for d in drawn if np.isfinite(d.lengths[i, j])]
        low, high = map(float, np.quantile(some, [0.025, 0.975])) if some else (None, None)
        length = float(hung.lengths[i, j]) if np.isfinite(hung.lengths[i, j]) else None
        return Edge(names[i], names[j], length, low, high, float(np.mean([d.parent[j] == i for d in drawn])), kind)

    for j, i in enumerate(hung.parent):
        if i is not None:
            one = found.root == i and not found.beside and j in found.undirected
            kind: Kind = "copy" if hung.lengths[i, j] <= COPY else "undirected" if one else "descent"
            tree.edges.append(edge(i, j, kind))
    for child, merge in proved.items():
        told, of = merge.recipe, [names[p] for p in merge.parents]
        by_name = {w.parent: w.value for w in told.weights} | dict(told.parameters.get("scales", {}))
        tree.edges += [
            replace(edge(p, child, "merge"), support=None, weight=by_name.get(names[p])) for p in merge.parents
        ]
        tree.merges.append(Merge(names[child], tuple(of), str(told.method), told.reproduces))
    tree.root = names[-1] if found.beside else names[found.root]
    for hub, inside in shared_ways(hung.lengths, hung.parent, list(proved)):
        _between(tree, hung.lengths, names, hub, inside, f"unseen {unseen + len(tree.unseen) + 1}")


def _between(tree: Tree, lengths: F64, names: Sequence[str], hub: int, inside: Sequence[int], name: str) -> None:
    """Put an unseen ancestor between a hub and children that share most of their way from it."""
    ways = [(lengths[hub, i] + lengths[hub, j] - lengths[i, j]) / 2 for i in inside for j in inside if i < j]
    way, below = float(np.mean(ways)), {names[j] for j in inside}
    edges, support = [], 1.0
    for e in tree.edges:
        if e.child in below and e.kind != "merge":
            length, low, high = (None if x is None else max(0.0, x - way) for x in (e.length, e.low, e.high))
            support = min(support, 1.0 if e.support is None else e.support)
            e = replace(e, parent=name, length=length, low=low, high=high)
        edges.append(e)
    edges.append(Edge(names[hub], name, way, float(min(ways)), float(max(ways)), support, "descent"))
    tree.edges = edges
    tree.unseen.append(name)
