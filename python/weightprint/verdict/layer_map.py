"""For each layer of B the layer of A that it is, as the verdict shows it."""

from __future__ import annotations

from weightprint.verdict.facts import Facts

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
