"""FFNs made narrower or wider: read off the unit map."""

from __future__ import annotations

from collections.abc import Iterable

from weightprint.evidence._units import ffns
from weightprint.facts import Facts
from weightprint.operations._base import Row, row

__all__ = ["widths"]

#: Share of the units that must be found for a size change to be called pruning or widening.
_MOST = 0.5


def widths(facts: Facts) -> Iterable[Row]:
    """FFN pruning and widening."""
    a = {(f.stack, f.block, f.expert): f.units for f in ffns(facts.models.a)}
    b = {(f.stack, f.block, f.expert): f.units for f in ffns(facts.models.b)}
    pairs = [
        (b[x.b], a[x.a], x.effect)
        for x in facts.blocks.values()
        if x.b in b and x.a in a and x.test != "aligned_weights" and (x.b[2] is None) == (x.a[2] is None)
    ]
    fewer = [p for p in pairs if p[0] < p[1] and p[2] >= _MOST]
    more = [p for p in pairs if p[0] > p[1]]
    for name, chosen in (("ffn_pruning", fewer), ("ffn_widening", more)):
        if chosen and 2 * len(chosen) > len(pairs):
            yield row(name, {"units": chosen[0][0], "units_of_a": chosen[0][1]}, f"{len(chosen)} layers", 0.9)
