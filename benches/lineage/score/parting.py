"""Is it told who came first? Direction of pairs of kin, held against the truth; for the page and for the plot of t.

Descent is right if the later one is named. Siblings are right if they are called so; "descent" is wrong for them where
both have come further than :data:`FAR` from what they parted from, and right enough where one of them still is that
(a renamed or permuted copy of the parent is as good as the parent). Causes of silence are those that the report names.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from weightprint.compare.pipeline import gather
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.same_values import same_values
from weightprint.fingerprint.live import finite_view
from weightprint.verdict import direction_cues
from weightprint.verdict.counterparts import in_place
from weightprint.verdict.direction import direction, relation
from weightprint.verdict.facts import gathered
from weightprint.verdict.parting import parting

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


def _branches(tree: FamilyTree, opened: OpenModels, pair: Pair) -> list[float] | None:
    """How far either has come from where they parted, as a share of its weights; None where that is not in place."""
    met = tree.meet(pair.a, pair.b)
    if met is None:
        return None
    out = []
    for name in (pair.a, pair.b):
        models = opened.models(tree[met].folder, tree[name].folder)
        if not in_place(models):
            return None
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
    causes: Counter[str] = Counter()
    claims: dict[str, Counter[str]] = defaultdict(Counter)
    roots: dict[str, set[str]] = defaultdict(set)
    misses = []
    for r in rows:
        outcome = _outcome(r)
        for key in {r["group"], r["kind"]}:
            counts[f"{r['side']}: {key}"][outcome] += 1
        if outcome == "silent":
            causes[f"{r['side']}: {r['kind']}: {_cause(r)}"] += 1
        if r["claim"] is not None:
            claims[f"{r['side']}: {r['claim']}"][_right(r)] += 1
            roots[f"{r['side']}: {r['claim']}"].update(r["clusters"])
        if outcome in ("wrong", "called siblings", "called descent"):
            misses.append({k: r[k] for k in ("a", "b", "steps", "branches", "because")} | {"outcome": outcome})
    return {
        "counts": {k: dict(v) for k, v in sorted(counts.items())},
        "causes": dict(causes.most_common()),
        "claims": {k: {**v, "roots": len(roots[k])} for k, v in sorted(claims.items())},
        "misses": misses,
    }


def _outcome(r: Row) -> str:
    if r["kind"] == "descent":
        if r["said"] is not None:
            return "right" if r["said"] == r["later"] else "wrong"
        return "called siblings" if r["relation"] == "siblings" else "silent"
    if r["relation"] == "siblings":
        return "right"
    if r["said"] is None:
        return "silent"
    return "called descent" if _apart(r) else "called descent, one as good as the parent"


def _apart(r: Row) -> bool:
    return r["branches"] is not None and min(r["branches"]) > FAR


def _right(r: Row) -> str:
    """Of a claim by the parting alone."""
    if r["claim"] == "siblings":
        return "right" if r["kind"] == "siblings" else "wrong"
    if r["kind"] == "descent":
        return "right" if r["said"] in (r["later"], None) else "wrong"
    return "wrong" if _apart(r) else "near"


def _cause(r: Row) -> str:
    """The sentence without its numbers."""
    if r["parting"] is None:
        return "nothing new to compare"
    text = r["because"].partition("parent from a child: ")[2] or r["because"]
    words = "".join(" " if c.isdigit() or c in ".,[]%=-–" else c for c in text)
    return " ".join(words.split())[:70]


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
