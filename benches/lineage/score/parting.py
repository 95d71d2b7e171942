"""Is it told who came first? Direction of pairs of kin, held against the truth; for the page and for the plot of t.

Descent is right if the later one is named. Siblings are right if they are called so; "descent" is wrong for them where
both have come further than :data:`FAR` from what they parted from, and right enough where one of them still is that
(a renamed or permuted copy of the parent is as good as the parent). Where one is named as the later one and it is left
open whether it comes from the other or is a sibling that moved further, that is counted by itself. Causes of silence
are those that the report names.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from weightprint.compare.pipeline import gather
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.same_values import same_values
from weightprint.fingerprint.live import finite_view
from weightprint.verdict.direction import cues as direction_cues
from weightprint.verdict.direction.counterparts import in_place
from weightprint.verdict.direction.direction import direction, relation
from weightprint.verdict.direction.parting import parting
from weightprint.verdict.facts import gathered

from ..zoo.ground_truth import FamilyTree
from .open_models import OpenModels
from .pairs import TRAINING, Pair

__all__ = ["FAR", "group", "row", "summary", "write"]

FAR = 0.05  # of the weights that two siblings parted from

Row = dict[str, Any]

_MERGES = ("linear_merge", "slerp_merge", "task_arithmetic", "ties_merge", "dare_merge")
_ROUNDED = ("quantise", "re_dtype", "unstructured_pruning", "semi_structured_pruning")
#: Operations after which no value of the blocks is new: nothing there can tell who came first.
_EXACT = {
    *("rename", "random_names", "unit_permutation", "channel_permutation", "head_permutation", "expert_shuffle"),
    *("rotation", "sign_flips", "scale_folding", "per_head_maps", "layer_shuffle", "decoy_stack", "drop_biases"),
    *("vocabulary_permutation", "vocabulary_swap", "vocabulary_pruning", "vocabulary_extension"),
    *("vocabulary_stitching", "embedding_replaced", "learned_positions_to_rope", "layernorm_to_rmsnorm"),
    *("depth_drop", "head_pruning", "ffn_pruning", "hidden_pruning"),
}


@dataclass(frozen=True)
class _Told:
    """What is said of a pair, and the evidence that is needed for it."""

    models: ModelPair
    maps: Any
    evidence: Mapping[str, Any]


def row(tree: FamilyTree, opened: OpenModels, pair: Pair) -> Row:
    """One pair: truth, what was said and why, and the numbers."""
    told = _told(opened.models(tree[pair.a].folder, tree[pair.b].folder))
    cues = direction_cues.gather(told.models, told.evidence, told.maps)
    said = direction(cues)
    found = cues.parting
    return {
        "a": pair.a,
        "b": pair.b,
        "side": pair.side,
        "kind": pair.kind,
        "group": group(pair),
        "clusters": pair.clusters,
        "later": pair.later,
        "steps": pair.steps,
        "branches": _branches(tree, opened, pair) if pair.kind == "siblings" else None,
        "said": said.later,
        "relation": said.relation,
        "confidence": said.confidence,
        "because": said.because,
        "by": [f.later for f in cues.found],
        "claim": relation(found).name,
        "parting": None if found is None else {k: getattr(found, k) for k in _NUMBERS},
    }


_NUMBERS = ("t", "low", "high", "of_a", "of_b", "pull", "kept", "plain", "relative", "zeroed", "blocks")


def _told(models: ModelPair) -> _Told:
    with np.errstate(all="ignore"):
        finite = replace(models, a=finite_view(models.a), b=finite_view(models.b))
        if in_place(finite):  # the other signs read maps, and there is nothing to map
            return _Told(finite, None, {"same_values": same_values(models)})
        facts = gathered(finite, gather(models))
        return _Told(facts.models, facts.maps, facts.by_test)


def _branches(tree: FamilyTree, opened: OpenModels, pair: Pair) -> list[float | None] | None:
    """How far either has come from where they parted, as a share of its weights: 0 where nothing in it is new, None
    where that is not in place."""
    met = tree.meet(pair.a, pair.b)
    if met is None:
        return None
    out: list[float | None] = []
    for name in (pair.a, pair.b):
        models = opened.models(tree[met].folder, tree[name].folder)
        if {step["name"] for step in tree.operations(met, name)} <= _EXACT:
            out.append(0.0)
        elif not in_place(models):
            out.append(None)
        else:
            found = parting(models, None)
            out.append(0.0 if found is None else found.relative)
    return out


def group(pair: Pair) -> str:
    """What lies between a parent and its child, in a word."""
    if pair.kind == "siblings":
        return "siblings"
    steps = set(pair.steps)
    if steps & TRAINING:
        return "trained on"
    if steps & set(_MERGES):
        return "merged"
    if steps & set(_ROUNDED):
        return "rounded or pruned"
    return "rearranged or cut" if steps <= _EXACT else "added to"


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    """Counts by side and group; causes of silence; rates of the claims that the parting makes; the worst misses."""
    rows = list(rows)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    causes: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    operations: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    claims: dict[str, Counter[str]] = defaultdict(Counter)
    roots: dict[str, set[str]] = defaultdict(set)
    misses = []
    for r in rows:
        outcome, steps = _outcome(r), " → ".join(r["steps"]) or "siblings"
        keys = {r["group"], r["kind"]} | ({"siblings, both far"} if r["kind"] == "siblings" and _apart(r) else set())
        for key in keys:
            counts[f"{r['side']}: {key}"][outcome] += 1
        operations[r["side"]][steps][outcome] += 1
        if outcome == "silent":
            causes[r["side"]][_cause(r)][steps] += 1
        if (claim := _claim(r)) is not None:
            claims[f"{r['side']}: {claim}"][_right(r)] += 1
            roots[f"{r['side']}: {claim}"].update(r["clusters"])
        if outcome in ("wrong", "called siblings", "called descent") or (outcome == "left open" and _apart(r)):
            misses.append({k: r[k] for k in ("side", "a", "b", "steps", "branches")} | {"outcome": outcome})
    return {
        "counts": {k: dict(v) for k, v in sorted(counts.items())},
        "operations": {side: {k: dict(v) for k, v in sorted(by.items())} for side, by in sorted(operations.items())},
        "causes": {
            side: {k: dict(v.most_common()) for k, v in sorted(by.items(), key=lambda kv: -kv[1].total())}
            for side, by in sorted(causes.items())
        },
        "claims": {k: {**v, "roots": len(roots[k])} for k, v in sorted(claims.items())},
        "misses": misses,
    }


def _claim(r: Row) -> str | None:
    """The row of `direction.MEASURED` that it counts for: signs against each other or against the parting are one."""
    sides = set(r["by"]) | ({r["said"]} if r["said"] else set())
    if r["relation"] == "siblings" and sides and r["claim"] != "siblings":
        return "each the later"
    return str(r["claim"]) if r["claim"] is not None else None


def _outcome(r: Row) -> str:
    if r["kind"] == "descent":
        if r["said"] is not None:
            return "right" if r["said"] == r["later"] else "wrong"
        return "called siblings" if r["relation"] == "siblings" else "silent"
    if r["relation"] == "siblings":
        return "right"
    if r["said"] is None:
        return "silent"
    if r["relation"] is None:
        return "left open"
    return "called descent" if _apart(r) else "called descent, one as good as the parent"


def _apart(r: Row) -> bool:
    return r["branches"] is not None and all(x is not None and x > FAR for x in r["branches"])


def _right(r: Row) -> str:
    """Of a claim by the parting alone."""
    if _claim(r) in ("siblings", "each the later"):
        return "right" if r["kind"] == "siblings" else "wrong"
    if r["kind"] == "descent":
        return "right" if r["said"] in (r["later"], None) else "wrong"
    return "wrong" if _apart(r) else "near"


#: Why nothing was told, the first that holds of what was measured.
_CAUSES: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("signs contradict what was measured", lambda r: len(r["by"]) > 0),
    ("nothing new in the blocks, and no sign", lambda r: r["parting"] is None),
    ("t is not sharp: too small or too even a change", lambda r: r["parting"]["high"] - r["parting"]["low"] > 1.2),
    (
        "t is bent: scales, a merge with a stranger, units put elsewhere",
        lambda r: (
            abs(r["parting"]["of_a"] - r["parting"]["of_b"]) > 0.4
            or not all(0.8 < c < 1.25 for c in r["parting"]["kept"])
        ),
    ),
    ("t between: siblings, or a mean beside one that is in it", lambda r: 0.2 <= r["parting"]["t"] <= 0.8),
    ("t at one end without decay: a child, or a mean of relatives", lambda r: abs(r["parting"]["pull"]) < 0.3),
    ("t nearly at one end, and not quite", lambda r: True),
)


def _cause(r: Row) -> str:
    return next(name for name, holds in _CAUSES if holds(r))


def write(rows: list[Row], path: Path) -> None:
    """All of it as JSON: one pair a line, without the sentences."""
    found = json.dumps(summary(rows), indent=1)
    lines = ",\n".join(json.dumps(_rounded({k: v for k, v in r.items() if k != "because"})) for r in rows)
    path.write_text(f'{{"summary": {found},\n"pairs": [\n{lines}\n]}}\n')


def _rounded(x: Any) -> Any:
    if isinstance(x, float):
        return float(f"{x:.4g}") if np.isfinite(x) else None
    if isinstance(x, Mapping):
        return {k: _rounded(v) for k, v in x.items()}
    return [_rounded(v) for v in x] if isinstance(x, list | tuple) else x
