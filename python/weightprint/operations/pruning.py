"""Zeros where the parent has values: one by one (by magnitude, say), or in a pattern such as two in every four inputs.

The share of zeros is counted over whole tensors where their values were scanned, else over the sampled rows. What was
trained or updated behind the pruning is told by its own row.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import ZEROED, Change, Changes
from weightprint.verdict.facts import Facts

__all__ = ["COARSE", "pruning"]

_SOME = 0.1  # of the changed matrices: a few zeros in one or two come of rounding
#: The same where values lie on few levels: codes of few bits have one at zero, and give it to a fifth of normal values.
COARSE = 0.4
_ALIKE = 0.01  # difference between fractions of roles that needs no list


def pruning(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"fraction"}``, by role where roles differ, or ``{"kept", "of"}``."""
    looks: dict[str, list[float | None]] = defaultdict(list)  # of each role: what was cut, None off a grid
    for change, look in changes.seen:
        explained = change.kind in ("grid", "scaling", "low rank")
        looks[change.role].append(None if look.grid is None else 0.0 if explained else look.grid.cut)

    def least(change: Change) -> float:
        """Zeros that are no accident of rounding: where the levels are few, only if A's values were far from zero."""
        cuts = sorted(cut for cut in looks[change.role] if cut is not None)
        if 2 * len(cuts) <= len(looks[change.role]):
            return COARSE if change.b.coded else ZEROED
        return ZEROED if cuts[len(cuts) // 2] >= ZEROED else math.inf

    thinned = [c for c in changes.matrices if max(c.zeroed, _beside_zero(c)) >= least(c)]
    if len(thinned) < 2 or len(thinned) < _SOME * len(changes.matrices):
        return
    rest = all(c.kept >= 0.99 * (1 - c.zeroed) for c in thinned)
    where = f"{len(thinned)} matrices" + (
        ", their other values as they were" if rest else ", their other values changed"
    )
    patterns = Counter(c.seen.pattern for c in thinned if c.seen is not None)
    pattern, n = patterns.most_common(1)[0] if patterns else (None, 0)
    confidence = 0.98 if rest else 0.9
    if pattern is not None and n >= 0.8 * sum(patterns.values()):
        yield Operation("semi_structured_pruning", {"kept": pattern[0], "of": pattern[1]}, where, confidence)
        return
    by_role: dict[str, list[Change]] = defaultdict(list)
    for change in thinned:
        by_role[change.role].append(change)
    fractions = {role: _zeros(changes) for role, changes in by_role.items()}
    parameters: Row = {"fraction": _zeros(thinned)}
    if max(fractions.values()) - min(fractions.values()) > _ALIKE:
        parameters["by_role"] = fractions
    yield Operation("unstructured_pruning", parameters, where, confidence)


def _beside_zero(change: Change) -> float:
    """Share of values at the point next to zero of a grid that has none at it, where larger ones of A's are there."""
    on = change.seen.grid if change.seen is not None else None
    return on.least if on is not None and on.cut >= ZEROED and change.zeroed < on.least / 2 else 0.0


def _zeros(changes: Sequence[Change]) -> float:
    """Share of B's values that are zero, or next to it."""
    if any(beside := [_beside_zero(c) for c in changes]):
        return round(
            sum(x * c.b.numel for x, c in zip(beside, changes, strict=True)) / sum(c.b.numel for c in changes), 2
        )
    counted = [c for c in changes if c.b.zeros is not None]
    if len(counted) == len(changes):
        return round(sum(c.b.zeros or 0 for c in counted) / sum(c.b.numel for c in counted), 4)
    return round(sum(c.zeroed * c.b.numel for c in changes) / sum(c.b.numel for c in changes), 4)
