"""Who comes from whom, of many models: groups of one origin, and the tree of each.

    members → groups (verdicts) → frame (one order and basis) → lengths → merges (recipes) → hubs → root → edges

Each step is a file of this folder and says there what it rests on. Names of models decide nothing: they break ties.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.compare.recipe_inputs import Model
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.library.group import Group, groups
from weightprint.library.grown import Tree, tree_of
from weightprint.library.members import members
from weightprint.results.lineage import Lineage
from weightprint.util.progress import phase

__all__ = ["lineage"]


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
        >>> names = ["parent", "finetune", "moe", "stranger"]
        >>> found = weightprint.lineage([f"weightprint-demo/{name}" for name in names])
        >>> found.groups
        (('weightprint-demo/parent', 'weightprint-demo/finetune', 'weightprint-demo/moe'),)
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
        digests = tuple(member.digest for member in opened)
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
        seed=seed,
        cosines=_cosines(names, trees),
        digests=digests,
    )


def _cosines(names: Sequence[str], trees: Sequence[tuple[Group, Tree]]) -> tuple[tuple[float | None, ...], ...]:
    """Of every two models; the lengths of trees are -2 log of them."""
    of = {member.name: k for k, (group, _) in enumerate(trees) for member in group.members}

    def cosine(a: str, b: str) -> float | None:
        if a == b or of[a] != of[b]:
            return float(a == b)
        length = trees[of[a]][1].between.get((a, b), np.nan)
        return float(np.exp(-length / 2)) if np.isfinite(length) else None

    return tuple(tuple(cosine(a, b) for b in names) for a in names)


def _unseen(trees: Sequence[tuple[Group, Tree]]) -> Iterator[str]:
    return (name for _, tree in trees for name in tree.unseen)


def _names(group: Group, tree: Tree) -> tuple[str, ...]:
    out = {row.model for row in tree.unplaced}
    inside = sorted(m.name for m in group.members if m.name not in out)
    return tuple(sorted(inside, key=lambda name: name != tree.root))
