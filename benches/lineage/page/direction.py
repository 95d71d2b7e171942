"""The sections on direction and on operations made on the fly: who came first, by operation; why nothing was said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .markdown import table

__all__ = ["made_on_the_fly", "who_was_first"]

_OUTCOMES = ("right", "wrong", "called siblings", "silent")
_SIBLINGS = ("right", "called descent", "left open", "silent")
_LISTED = 12  # of the operations of one cause

_WORDS = """\
Pairs of a model and one made from it, each in an order that the hash of their names gives; *right*: the later one is
named. Siblings are right if they are called so. Where one of them still is what they parted from, to within 5 % of its
weights, "descent" is as good as right and they are not counted here. *Left open*: one is named as the later one, and
whether it comes from the other or is a sibling that moved further is said to be open; of the descents that are right,
so are those that no sign speaks for. Limits were looked at on the fit side only."""

_CANNOT = """\
An exact rearrangement (names, orders of units, heads, channels or experts) leaves no trace of its direction, and a mean
of two siblings beside one of them is, in every number that two models give, like two siblings or a parent and a child.
Those stay silent. Of siblings the shorter branch x beside the longer y moves t by x² / (x² + y²) only, and what both
learned from the same data moves it back: so a parent can't be told from a sibling that moved less."""


def who_was_first(found: Mapping[str, Any]) -> str:
    """Totals, outcomes by operation on the test side, causes of silence, the misses by name; of `direction.json`."""
    summary = found["summary"]
    return "\n\n".join(
        [
            _WORDS,
            _totals(summary["counts"]),
            "![Where pairs parted](../benches/lineage/results/direction.png)",
            "**By operation** (test side; a chain is one row)",
            _by_operation(summary["operations"].get("test", {})),
            "**Why nothing was said** (both sides)",
            _causes(summary["causes"]),
            _CANNOT,
            "**Misses by name**",
            _misses(summary["misses"]),
        ]
    )


def _totals(counts: Mapping[str, Mapping[str, int]]) -> str:
    rows = []
    for side in ("fit", "test"):
        of = counts.get(f"{side}: descent", {})
        rows.append([f"descents, {side}", *(str(of.get(k, 0)) for k in _OUTCOMES), str(sum(of.values()))])
    head = ["", "right", "wrong", "called siblings", "nothing said", "pairs"]
    siblings = []
    for side in ("fit", "test"):
        of = counts.get(f"{side}: siblings, both far", {})
        siblings.append([f"siblings, {side}", *(str(of.get(k, 0)) for k in _SIBLINGS), str(sum(of.values()))])
    beside = ["", "right", "called descent", "left open", "nothing said", "pairs"]
    return f"{table(head, rows)}\n\n{table(beside, siblings)}"


def _by_operation(operations: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        [steps, *(str(of.get(k, 0) or "") for k in _OUTCOMES)]
        for steps, of in sorted(operations.items())
        if steps != "siblings"
    ]
    return table(["operation", "right", "wrong", "called siblings", "nothing said"], rows)


def _causes(causes: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    every: dict[str, dict[str, Counter[str]]] = {}
    for side, by in causes.items():
        for cause, steps in by.items():
            every.setdefault(cause, {"fit": Counter(), "test": Counter()})[side].update(steps)
    rows = []
    for cause, of in sorted(every.items(), key=lambda kv: -sum(c.total() for c in kv[1].values())):
        most = (of["fit"] + of["test"]).most_common(_LISTED)
        rows.append([cause, str(of["fit"].total()), str(of["test"].total()), ", ".join(f"{k} {n}" for k, n in most)])
    return table(["cause", "fit", "test", "in pairs of"], rows)


def _misses(misses: list[Mapping[str, Any]]) -> str:
    rows = [
        [
            m["a"],
            m["b"],
            m["side"],
            " → ".join(m["steps"]) or "siblings",
            m["outcome"],
            ", ".join("–" if x is None else f"{x:.2f}" for x in m["branches"] or ()),
        ]
        for m in misses
    ]
    return (
        table(["", "", "side", "what lies between", "outcome", "branches, of the weights"], rows) if rows else "None."
    )


def made_on_the_fly(found: Mapping[str, Any]) -> str:
    """Operations that are made for the pair, not kept in the zoo; of `new-operations.json`."""
    rows = [
        [name, *(str(of.get(k, 0)) for k in ("pairs", "named", "right", "alone"))]
        for name, of in sorted(found["operations"].items())
    ]
    false = sum(found["false"].values())
    words = f"Named on {found['others']} other pairs, both ways: {false}."
    return f"{table(['operation', 'pairs', 'named', 'parameters right', 'nothing beside'], rows)}\n\n{words}"
