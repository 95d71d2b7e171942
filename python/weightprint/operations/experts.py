"""Experts made from FFNs and FFNs from experts: read off the expert map."""

from __future__ import annotations

from collections.abc import Iterable

from weightprint.facts import Facts
from weightprint.operations._base import Row, row

__all__ = ["experts"]


def experts(facts: Facts) -> Iterable[Row]:
    """MoE upcycling, and the way back."""
    moved = [b for b in facts.blocks.values() if (b.b[2] is None) != (b.a[2] is None)]
    if not moved:
        return
    to_experts = [b for b in moved if b.b[2] is not None]
    name, chosen = ("moe_upcycling", to_experts) if to_experts else ("moe_to_dense", moved)
    layers = {b.b[:2] for b in chosen}
    share = sum(b.effect for b in chosen) / len(chosen)
    yield row(name, {"experts": len(chosen), "share_of_units": round(share, 4)}, f"{len(layers)} layers", 0.95)
