"""The evidence of a pair read the other way round: what B's tensors are to A's becomes what A's are to B's.

Operations are told from the earlier model to the later one. The tests compare B with A, so where A is the later one, or
nobody knows, their evidence is turned instead of being gathered again: matches name the same two blocks, whichever is
looked for; of their units as many are the other side's as its FFN is wide. What a test did not look at (blocks of A
that no block of B named) stays unknown. p-values are those of the pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from weightprint.evidence.evidence import Evidence, Shared, UnitMatch
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.tests import MIRRORED
from weightprint.fingerprint.ffns import ffn_name, ffns
from weightprint.verdict.facts import Facts
from weightprint.verdict.values import Label

__all__ = ["mirrored"]

_OTHER: Mapping[Label, Label] = {"a": "b", "b": "a"}


def mirrored(facts: Facts) -> Facts:
    """The facts of (B, A) from those of (A, B)."""
    models = facts.models
    turned = replace(
        models,
        a=replace(models.b, label="a"),
        b=replace(models.a, label="b"),
        pairs=tuple(replace(p, a=p.b, b=p.a) for p in models.pairs),
        collectors=[],
    )
    simple = frozenset((_OTHER[label], name) for label, name in facts.simple)
    return Facts(turned, tuple(_evidence(e, models) for e in facts.evidence), simple, facts.limits)


def _evidence(e: Evidence, models: ModelPair) -> Evidence:
    if not e.applied:
        return e
    names = {p.b.name: p.a.name for p in models.pairs} | {f.b: f.a for f in e.found}
    matches, others = _matches(e, models)
    if fitted := e.left_out_of_p:
        e = e.telling(left_out_of_p=sorted({ffn_name(m.a) for m in (*e.matches, *e.others) if m.name in fitted}))
    return replace(
        e,
        details=MIRRORED[e.test](e.details, names, models) if e.test in MIRRORED else e.details,
        found=tuple(Shared(f.a, f.b, f.kind, f.numel) for f in e.found if f.kind != "parameter"),
        regions=tuple(replace(r, tensors=tuple(names[n] for n in r.tensors if n in names)) for r in e.regions),
        matches=matches,
        others=others,
    )


# Matches


def _matches(e: Evidence, models: ModelPair) -> tuple[tuple[UnitMatch, ...], tuple[UnitMatch, ...]]:
    """For each FFN of A that was named, the best FFN of B; and the others."""
    widths = {side.label: {f.key: f.units for f in ffns(side)} for side in (models.a, models.b)}
    by_a: dict[Any, list[UnitMatch]] = defaultdict(list)
    for match in (*e.matches, *e.others):
        of_b, of_a = widths["b"].get(match.b, 1), widths["a"].get(match.a, 1)
        by_a[match.a].append(_turned(match, of_a / of_b if e.test != "head_agreement" else 1.0))
    ranked = [sorted(same, key=lambda m: (-m.nearest, -m.agreed, m.a != m.b, m.log10_p)) for same in by_a.values()]
    return tuple(same[0] for same in ranked), tuple(m for same in ranked for m in same[1:])


def _turned(match: UnitMatch, wider: float) -> UnitMatch:
    """``wider``: A's units over B's, the units of A that stand for those of B that were looked for."""
    tested = max(1, round(match.tested * wider))
    units = None
    agreed = match.agreed
    if match.units is not None:
        units = match.units[np.argsort(match.units[:, 1], kind="stable")][:, ::-1]
        if len(units):  # several units of B may be one of A's
            agreed = round(agreed * np.unique(units[:, 0]).size / len(units))
    return replace(match, b=match.a, a=match.b, tested=tested, agreed=min(agreed, tested), units=units)
