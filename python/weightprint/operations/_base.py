"""What every reader of operations shares: the shape of a row, and the layer map."""

from __future__ import annotations

from typing import Any

from weightprint.facts import Facts

__all__ = ["LayerMap", "Row", "layer_map", "row"]

#: ``{"name", "parameters", "confidence", "where"}``, as in the JSON contract; names as in METHODS section 5.
Row = dict[str, Any]
LayerMap = tuple[tuple[int, int | None, float | None], ...]


def layer_map(facts: Facts) -> LayerMap:
    """[B's layer, A's layer or None, share of units or cosine in place] of the stack with the most blocks found."""
    if facts.maps is not None and any(row.a is not None for row in facts.maps.layers):
        return tuple((b, a, share) for b, a, share in facts.maps.layer_map)
    rows = [r for r in facts.regions if r.layer is not None]
    stacks = [r.name.rsplit(".", 1)[0] for r in rows]
    if not stacks:
        return ()
    main = max(dict.fromkeys(stacks), key=stacks.count)
    found = {r.name for r in facts.found_regions}
    return tuple(
        (r.layer, r.layer if r.name in found else None, r.effect)
        for r, stack in zip(rows, stacks, strict=True)
        if stack == main and r.layer is not None
    )


def row(name: str, parameters: Row, where: str, confidence: float = 1.0) -> Row:
    """One operation. ``confidence`` below 1 where another reading leaves the same trace."""
    return {"name": name, "parameters": parameters, "confidence": confidence, "where": where}
