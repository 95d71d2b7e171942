"""What had to be undone before the weights could be compared: it changes no output of the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weightprint.facts import Facts
from weightprint.operations._base import Row, row

__all__ = ["gauge"]

#: What it takes to undo, and what was done.
_TURNED = {"signed_permutation": "channel_permutation", "rotation": "rotation"}


def gauge(facts: Facts) -> Iterable[Row]:
    """Channels permuted or turned, hidden units in another order."""
    basis = facts.weights.basis if facts.weights else "identity"
    if basis in _TURNED:
        cosine = round(facts.weights.effect or 0.0, 4) if facts.weights else None
        yield row(_TURNED[basis], {"cosine_once_undone": cosine}, "residual channels")
    order, anywhere = facts.by_test.get("aligned_units"), facts.applied("unit_agreement")
    if anywhere is None or not facts.decisive:
        return
    moved = [
        m
        for m in anywhere.matches
        if m.b in facts.blocks
        and m.units is not None
        and len(m.units) >= 8
        and m.b[2] is None
        and m.a[2] is None
        and not _rising(m.units[:, 0], m.units[:, 1])
    ]
    if moved and (order is None or (order.log10_p or 0.0) > -6):
        yield row("unit_permutation", {}, f"hidden units of {len(moved)} layers stand in another order", 0.95)


def _rising(ours: Any, theirs: Any) -> bool:
    """The order of units is kept (as by pruning or widening), or nearly."""
    by_b = theirs[ours.argsort()]
    steps = by_b[1:] > by_b[:-1]
    return bool(steps.mean() > 0.8)
