"""For each layer of B the layer of A that it is, as the verdict shows it."""

from __future__ import annotations

from weightprint.verdict.facts import Facts
from weightprint.verdict.values import LayerMatch


def layer_map(facts: Facts) -> tuple[LayerMatch, ...]:
    """The stack with the most blocks found; the share is of units, or the cosine in place."""
    if facts.maps is not None and any(row.a is not None for row in facts.maps.layers):
        return facts.maps.layer_map
    rows = [(r, r.layer, r.stack) for r in facts.regions if r.layer is not None]
    stacks = [stack for *_, stack in rows]
    if not stacks:
        return ()
    main = max(dict.fromkeys(stacks), key=stacks.count)
    found = {r.name for r in facts.found_regions}
    return tuple(
        LayerMatch(layer, layer if r.name in found else None, r.effect) for r, layer, stack in rows if stack == main
    )
