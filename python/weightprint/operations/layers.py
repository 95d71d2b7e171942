"""Layers dropped, repeated, inserted or moved: read off the layer map."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from weightprint.evidence._units import ffns
from weightprint.facts import Facts
from weightprint.operations._base import Row, layer_map, row

__all__ = ["layers"]


def layers(facts: Facts) -> Iterable[Row]:
    """Depth drop, up-scaling, insertion, shuffle."""
    rows = layer_map(facts)
    there = [a for _, a, _ in rows if a is not None]
    if len(there) < 2 or not facts.blocks:
        return
    stack = next(block.a[0] for block in facts.blocks.values())
    missing = sorted({f.block for f in ffns(facts.models.a) if f.stack == stack} - set(there))
    new = [b for b, a, _ in rows if a is None]
    repeated = sorted({a for a in there if there.count(a) > 1})
    rising = all(x <= y for x, y in itertools.pairwise(there))
    if repeated:
        yield row("depth_upscaling", {"from": there}, f"{len(there)} layers", 0.9)
    elif not rising:
        yield row("layer_shuffle", {"from": there}, f"{len(there)} layers")
    if missing and not repeated:
        yield row("depth_drop", {"dropped": missing}, f"{len(missing)} layers of A are not in B", 0.9)
    if new:
        yield row("layer_insertion", {"inserted": new}, f"{len(new)} layers of B were not found in A", 0.7)
