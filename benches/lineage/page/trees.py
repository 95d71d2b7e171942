"""The section on trees of many models: directed edges, right, wrong and missed; the wrong ones by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markdown import number, table

__all__ = ["trees"]

_WORDS = """\
Every family of the zoo is asked for with two strangers beside it: with all its models, without its root, and with every
model hidden that others were made from. An unseen ancestor is named by the models below it, in brackets. Edges of
merges count as all others do. (`python -m benches.lineage trees`.)"""


def trees(found: Mapping[str, Any]) -> str:
    """Rates by side and case, every family, and what is wrong or missed; of `trees.json`."""
    return "\n\n".join([_WORDS, _rates(found["summary"]), _families(found["families"]), _misses(found["families"])])


def _rates(summary: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{side}: {case}",
            *(str(r[k]) for k in ("trees", "edges")),
            *(number(r[k]) for k in ("precision", "recall", "f1")),
            str(r["between families"]),
        ]
        for side, cases in summary.items()
        for case, r in cases.items()
    ]
    return table(
        ["side: case", "trees", "edges", "precision", "recall", "F1", "false edges between families"],
        rows,
    )


def _families(families: Mapping[str, Any]) -> str:
    rows = [
        [root, of["side"], *(_counts(case) for key, case in of.items() if key != "side")]
        for root, of in families.items()
    ]
    heads = dict.fromkeys(key for of in families.values() for key in of if key != "side")
    told = table(["family", "side", *heads], rows)
    return f"Edges right, wrong and missed in every family that was asked for:\n\n{told}"


def _counts(case: Mapping[str, Any]) -> str:
    return f"{case['right']}, {len(case['wrong'])}, {len(case['missed'])}"


def _misses(families: Mapping[str, Any]) -> str:
    rows = [
        [root, key, what, edge]
        for root, of in families.items()
        for key, case in of.items()
        if key != "side"
        for what in ("wrong", "missed")
        for edge in case[what]
    ]
    return table(["family", "case", "", "edge"], rows) if rows else "None is wrong or missed."
