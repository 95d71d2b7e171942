"""Who comes from whom, of many models: groups of one origin, and the tree of each.

    members → groups (verdicts) → frame (one order and basis) → lengths → merges (recipes) → hubs → root → edges

Each step is a file of this folder and says there what it rests on. Names of models decide nothing: they break ties.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.compare.recipe import Recipe, recipe
from weightprint.compare.recipe_inputs import Model
from weightprint.errors import WeightprintError
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.library.group import Group, groups
from weightprint.library.members import members, relate
from weightprint.library.merges import Merged, merges
from weightprint.library.rooting import Rooted, earlier, rooted, share
from weightprint.library.tree import hubs, shared_ways
from weightprint.results.lineage import Edge, Kind, Lineage, Merge, Unplaced
from weightprint.util.arrays import F64
from weightprint.util.progress import phase
from weightprint.verdict.direction import cues as direction_cues
from weightprint.verdict.direction.direction import direction

__all__ = ["Tree", "lineage", "tree_of"]

_DRAWS = 40
_COPY = 1e-7  # length of what is no difference


@dataclass
class Tree:
    """Of one group: what goes into a `Lineage`. ``root`` is None where nothing could be placed."""

    root: str | None
    edges: list[Edge] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    unplaced: list[Unplaced] = field(default_factory=list)


def lineage(models: Sequence[Model | Fingerprint], *, seed: int = 0) -> Lineage:
    """Say which of many models share an origin, and who comes from whom.

    Args:
        models: what `weightprint.open` takes, ``base+adapter``, open Checkpoints, or fingerprints (one fingerprint
            makes fingerprints of all; merges, and models whose units or channels stand in another order, then can't be
            placed).
        seed: fixes which rows are sampled and which blocks are drawn.

    Raises:
        UsageError: fewer than two models, the same one twice, an adapter alone.
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: as `weightprint.open` does.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> names = ["parent", "finetune", "stranger"]
        >>> found = weightprint.lineage([f"weightprint-demo/{name}" for name in names])
        >>> found.groups
        (('weightprint-demo/parent', 'weightprint-demo/finetune'),)
        >>> found.parents("weightprint-demo/finetune")[0].kind
        'descent'
    """
    started = time.perf_counter()
    if isinstance(models, str | Checkpoint | Fingerprint):
        models = [models]
    with members(models) as opened, np.errstate(all="ignore"):
        phase("groups")
        found, _ = groups(opened, seed)
        phase("trees")
        trees: list[tuple[Group, Tree]] = []
        for group in found:
            trees.append((group, tree_of(group, seed, len(list(_unseen(trees))))))
        names = tuple(member.name for member in opened)
    from weightprint import __version__  # the package's own root, which loads this file

    placed = [(group, tree) for group, tree in trees if tree.root is not None]
    return Lineage(
        models=names,
        groups=tuple(_names(group, tree) for group, tree in placed),
        roots=tuple(tree.root for _, tree in placed if tree.root is not None),
        edges=tuple(edge for _, tree in placed for edge in tree.edges),
        unseen=tuple(_unseen(placed)),
        merges=tuple(merge for _, tree in placed for merge in tree.merges),
        unplaced=tuple(row for _, tree in trees for row in tree.unplaced),
        seconds=time.perf_counter() - started,
        version=__version__,
    )


def _unseen(trees: Sequence[tuple[Group, Tree]]) -> Iterator[str]:
    return (name for _, tree in trees for name in tree.unseen)


def _names(group: Group, tree: Tree) -> tuple[str, ...]:
    out = {row.model for row in tree.unplaced}
    inside = sorted(m.name for m in group.members if m.name not in out)
    return tuple(sorted(inside, key=lambda name: name != tree.root))


def tree_of(group: Group, seed: int = 0, unseen: int = 0, prove: object = None) -> Tree:
    """The tree of one group. ``unseen``: how many unseen ancestors other groups have; ``prove``: in place of `recipe`,
    (child, parents) → Recipe or None."""
    empty = [i for i, c in enumerate(group.coordinates) if not c]
    tree = Tree(None, unplaced=[Unplaced(group.members[i].name, _why_not(group)) for i in empty])
    keep = sorted((i for i in range(len(group.members)) if i not in empty), key=lambda i: group.members[i].name)
    if len(group.members) == 1:
        tree.unplaced = [Unplaced(group.members[0].name, "none of the other models shares an origin with it")]
        return tree
    if len(keep) < 2:
        tree.unplaced += [Unplaced(group.members[i].name, _why_not(group)) for i in keep]
        return tree
    group = group.only(keep)
    lengths, far = group.distances.common(), group.distances.of_children()
    proved = {m.child: m for m in _merges(group, lengths, far, prove)}
    parents = {child: m.parents for child, m in proved.items()}
    found = _rooted(group, hubs(far, group.edits, parents), parents, seed)
    rng = np.random.default_rng(seed)
    drawn = [_draw(group, parents, found.root, rng) for _ in range(_DRAWS)]
    _fill(tree, group, lengths, found, proved, drawn, unseen)
    return tree


def _why_not(group: Group) -> str:
    if group.members[0].kept is not None:
        return "it shares an origin with others, but stands in another order or basis: that needs the weights"
    return "it shares an origin with others, but none of its blocks could be laid on theirs"


def _merges(group: Group, lengths: F64, far: F64, prove: object) -> Iterator[Merged]:
    def by_recipe(child: int, parents: Sequence[int]) -> Recipe | None:
        try:
            return recipe(group.members[child].model, [group.members[p].model for p in parents])  # type: ignore[arg-type]
        except WeightprintError:
            return None  # shapes that don't go together

    if group.members[0].kept is None:
        parent = hubs(far, group.edits, {})
        yield from merges(group.coordinates, group.products, lengths, group.edits, parent, prove or by_recipe)  # type: ignore[arg-type]


def _rooted(group: Group, parent: Sequence[int | None], merged: dict[int, tuple[int, ...]], seed: int) -> Rooted:
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

    return rooted(
        parent,
        list(merged),
        odds=lambda i, j: earlier(group.parting(i, j)),
        signs=signs,
        t=lambda i, j: share(group.parting(i, j)),
    )


@dataclass(frozen=True)
class _Draw:
    parent: list[int | None]
    lengths: F64


def _draw(group: Group, merged: dict[int, tuple[int, ...]], root: int, rng: np.random.Generator) -> _Draw:
    """The same on blocks drawn with replacement."""
    n = len(group.distances.blocks)
    draw = rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)
    far = group.distances.of_children(draw)
    return _Draw(hubs(far, group.edits, merged, root), group.distances.common(draw))


def _fill(
    tree: Tree,
    group: Group,
    lengths: F64,
    found: Rooted,
    proved: dict[int, Merged],
    drawn: Sequence[_Draw],
    unseen: int,
) -> None:
    names = [member.name for member in group.members]

    def edge(i: int, j: int, kind: Kind) -> Edge:
        some = [d.lengths[i, j] for d in drawn if np.isfinite(d.lengths[i, j])]
        low, high = np.quantile(some, [0.025, 0.975]) if some else (np.nan, np.nan)
        support = float(np.mean([d.parent[j] == i for d in drawn]))
        return _finite(Edge(names[i], names[j], float(lengths[i, j]), float(low), float(high), support, kind))

    for j, i in enumerate(found.parent):
        if i is None:
            continue
        kind: Kind = "copy" if lengths[i, j] <= _COPY else "undirected" if j in found.undirected else "descent"
        tree.edges.append(edge(i, j, kind))
    for child, merge in proved.items():
        by_name = {w.parent: w.value for w in merge.recipe.weights} | dict(merge.recipe.parameters.get("scales", {}))
        for p in merge.parents:
            weight = by_name.get(names[p])
            tree.edges.append(replace(edge(p, child, "merge"), support=None, weight=weight))
        told = merge.recipe
        tree.merges.append(
            Merge(names[child], tuple(names[p] for p in merge.parents), str(told.method), told.reproduces)
        )
    tree.root = names[found.root]
    if found.beside:
        _unseen_root(tree, names[found.root], {names[j]: s for j, s in found.beside.items()}, unseen)
    for hub, inside in shared_ways(lengths, found.parent, list(proved)):
        _unseen_inside(tree, names[hub], [names[j] for j in inside], lengths, names, unseen)


def _finite(edge: Edge) -> Edge:
    told = {
        key: value if np.isfinite(value) else None
        for key in ("length", "low", "high")
        if (value := getattr(edge, key)) is not None
    }
    return replace(edge, **told)


def _unseen_root(tree: Tree, root: str, beside: dict[str, float], unseen: int) -> None:
    """Put an unseen ancestor above the root and the children that stand beside it."""
    name = f"unseen {unseen + len(tree.unseen) + 1}"
    own: list[float] = []
    edges: list[Edge] = []
    for e in tree.edges:
        if e.parent == root and e.child in beside and e.kind != "merge" and e.length is not None:
            t = beside[e.child]
            own.append(t * e.length)
            low, high = ((1 - t) * x if x is not None else None for x in (e.low, e.high))
            edges.append(replace(e, parent=name, length=(1 - t) * e.length, low=low, high=high))
        else:
            edges.append(e)
    low, middle, high = (float(q) for q in np.quantile(own, [0.025, 0.5, 0.975]))
    edges.append(Edge(name, root, middle, low, high, None, "descent"))
    tree.edges, tree.root = edges, name
    tree.unseen.append(name)


def _unseen_inside(
    tree: Tree, hub: str, inside: Sequence[str], lengths: F64, names: Sequence[str], unseen: int
) -> None:
    """Put an unseen ancestor between a hub and children that share most of their way from it."""
    name = f"unseen {unseen + len(tree.unseen) + 1}"
    at = [names.index(n) for n in inside]
    h = names.index(hub)
    ways = [(lengths[h, i] + lengths[h, j] - lengths[i, j]) / 2 for i in at for j in at if i < j]
    way = float(np.mean(ways))
    edges = []
    moved = [e for e in tree.edges if e.child in inside and e.kind != "merge"]
    for e in tree.edges:
        if e in moved and e.length is not None:
            low, high = (None if x is None else max(0.0, x - way) for x in (e.low, e.high))
            edges.append(replace(e, parent=name, length=max(0.0, e.length - way), low=low, high=high))
        else:
            edges.append(e)
    support = min((e.support for e in moved if e.support is not None), default=None)
    edges.append(Edge(moved[0].parent, name, way, min(ways), max(ways), support, "descent"))
    tree.edges = edges
    tree.unseen.append(name)
