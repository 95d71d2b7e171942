"""Trees held against the truth: directed edges, with unseen ancestors told by what hangs below them.

A model is named by itself, an unseen ancestor by the set of models below it, so that the two trees can be compared
without names that neither could know. Of the true tree an unseen model with one child or none is left out: nobody could
see it. Edges of merges count as all others do, one per parent that gave blocks (not rows of token tables alone).
Copies whose values all are their parent's own (renamed, re-sharded) are that parent as far as weights show: where one
of them stands for the other, or hangs the other way round, the edge is right. A hidden model of which such a copy is
there (also one with other tables, norms, order or signs) is that copy. A model that another one was before its last
step, made from the same parent by an operation without chance (the mean of all experts, trained on by the other), is
that one's parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weightprint.results.lineage import Lineage

from ..zoo.ground_truth import ROWS_ONLY, FamilyTree

__all__ = ["counts", "rates", "true_parents"]

#: Operations after which a model is its parent, in every value and in every place.
_SAME = {"rename", "random_names"}

#: Operations that leave every value of the blocks as it was, maybe elsewhere or with its sign turned.
_IN_BLOCKS = {
    *_SAME,
    *("expert_shuffle", "sign_flips"),
    *("unit_permutation", "channel_permutation", "head_permutation", "vocabulary_permutation", "vocabulary_swap"),
    *("vocabulary_pruning", "vocabulary_extension", "vocabulary_stitching", "embedding_replaced"),
    *("learned_positions_to_rope", "layernorm_to_rmsnorm", "drop_biases", "re_dtype"),
}

Edge = tuple[object, str | frozenset[str]]


def true_parents(tree: FamilyTree, name: str) -> tuple[str, ...]:
    """The models whose blocks it was made from."""
    truth = tree[name].truth
    if truth.kind in ("shared_init", "distilled"):
        return ()
    if {o["name"] for o in truth.operations} & (ROWS_ONLY | {"decoy_stack"}):
        return truth.parents[:1]
    return _on_the_way(tree, name) or truth.parents


#: Operations that chance has no part in: two models that they were made by are one, whatever the seed.
_CERTAIN = {"moe_to_dense", "depth_drop", "drop_biases", "re_dtype"}


def _on_the_way(tree: FamilyTree, name: str) -> tuple[str, ...]:
    """The model that another one was before its last step, made from the same parent by the same operation."""
    truth = tree[name].truth
    first, *more = [_what(o) for o in truth.operations] or [("", "")]
    return tuple(
        other
        for other in tree
        if more and first[0] in _CERTAIN and other != name and tree[other].truth.parents == truth.parents
        if [_what(o) for o in tree[other].truth.operations] == [first]
    )[:1]


def _what(operation: Mapping[str, Any]) -> tuple[str, str]:
    parameters = {key: value for key, value in operation.get("parameters", {}).items() if key != "seed"}
    return str(operation["name"]), repr(sorted(parameters.items()))


def counts(tree: FamilyTree, found: Lineage) -> dict[str, Any]:
    """Right, missed and wrong edges; those between families; root; the wrong ones by name."""
    stands_for = {n: _original(tree, n, set(found.models)) for n in found.models}
    stands_for |= _hidden_copies(tree, found, stands_for)
    truth = _true_edges(tree, [*found.models, *(n for n in stands_for if n not in found.models)], stands_for)
    said = _found_edges(found, stands_for)
    merges = {e.child for e in found.edges if e.kind == "merge"}
    wrong = sorted(map(_told, said - truth))
    between = [
        (e.parent, e.child)
        for e in found.edges
        if e.parent not in found.unseen and e.child not in found.unseen and tree.meet(e.parent, e.child) is None
    ]
    return {
        "models": len(found.models),
        "right": len(said & truth),
        "missed": sorted(map(_told, truth - said)),
        "wrong": wrong,
        "between families": between,
        "merges": sorted(merges),
        "unplaced": [row.model for row in found.unplaced],
    }


def rates(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | int]:
    """Precision, recall and F1 over all edges of several trees."""
    rows = list(rows)
    right, missed, wrong = (
        sum(n if isinstance(n, int) else len(n) for n in (r[key] for r in rows)) for key in ("right", "missed", "wrong")
    )
    precision, recall = right / max(right + wrong, 1), right / max(right + missed, 1)
    f1 = 2 * right / max(2 * right + wrong + missed, 1)
    return {
        "trees": len(rows),
        "edges": right + missed,
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "f1": round(f1, 4),
        "between families": sum(len(r["between families"]) for r in rows),
    }


def _original(tree: FamilyTree, name: str, models: set[str]) -> str:
    truth = tree[name].truth
    if truth.operations and {o["name"] for o in truth.operations} <= _SAME and truth.parents[0] in models:
        return _original(tree, truth.parents[0], models)
    return name


def _hidden_copies(tree: FamilyTree, found: Lineage, stands_for: Mapping[str, str]) -> dict[str, str]:
    """Hidden model → the one of its children that has all its values in the blocks, and so is it as far as those show:
    of several the one that most was hung from."""
    out: dict[str, str] = {}
    for name in found.models:
        parents = true_parents(tree, name)
        if len(parents) == 1 and parents[0] not in stands_for and _names(tree, name) <= _IN_BLOCKS:
            best = out.get(parents[0], name)
            out[parents[0]] = max((best, stands_for[name]), key=lambda n: len(found.children(n)))
    return out


def _names(tree: FamilyTree, name: str) -> set[str]:
    return {str(o["name"]) for o in tree[name].truth.operations}


def _true_edges(tree: FamilyTree, models: Sequence[str], stands_for: Mapping[str, str]) -> set[Edge]:
    """Edges between the models and the unseen ancestors that two or more ways part at."""
    parents: dict[str, tuple[str, ...]] = {}
    queue = list(models)
    while queue:
        name = queue.pop()
        if name not in parents:
            parents[name] = true_parents(tree, name)
            queue += parents[name]
    below: dict[str, set[str]] = {name: set() for name in parents}
    for model in models:
        queue = [model]
        while queue:
            name = queue.pop()
            below[name].add(stands_for[model])
            queue += parents[name]
    children: dict[str, set[str]] = {name: set() for name in parents}
    for name, above in parents.items():
        for parent in above:
            children[parent].add(name)
    hidden = {name for name in parents if name not in models}
    # A hidden model that only one way leads through is no node: its child hangs from its parents.
    while dull := next((n for n in hidden if len(children[n]) < 2), None):
        hidden.discard(dull)
        above = parents.pop(dull)
        for parent in above:
            children[parent].discard(dull)
            children[parent] |= children[dull]
        for child in children[dull]:
            parents[child] = tuple(dict.fromkeys(q for p in parents[child] for q in (above if p == dull else (p,))))
        del children[dull]

    def label(name: str) -> str | frozenset[str]:
        return stands_for[name] if name in stands_for else frozenset(below[name])

    edges = {(label(p), label(name)) for name, above in parents.items() for p in above}
    return {(p, c) for p, c in edges if p != c}


def _found_edges(found: Lineage, stands_for: Mapping[str, str]) -> set[Edge]:
    def below(name: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        own = frozenset() if name in found.unseen else frozenset([stands_for[name]])
        return own.union(*(below(e.child, seen | {name}) for e in found.children(name) if e.child not in seen))

    def label(name: str) -> str | frozenset[str]:
        return below(name) if name in found.unseen else stands_for[name]

    edges = {(label(e.parent), label(e.child)) for e in found.edges if e.kind != "undirected"}
    return {(p, c) for p, c in edges if p != c}


def _told(edge: Edge) -> str:
    return " -> ".join(f"[{' '.join(sorted(e))}]" if isinstance(e, frozenset) else str(e) for e in edge)
