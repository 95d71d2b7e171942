"""FFNs and the residual stream made narrower or wider: read off unit maps and the channel map.

Sizes say that it was done, the maps say which units and channels are A's. Of new units: *zero* if their outputs are all
zero, *copied* if they hold units of A a second time (Net2Net, arXiv 1511.05641), else drawn or trained anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from weightprint.evidence.lookup.units import unit_outputs
from weightprint.fingerprint.ffns import Ffn
from weightprint.fingerprint.model import ModelView
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes, signatures
from weightprint.operations.structure import Channels, Found, channels, common, found_ffns, number
from weightprint.verdict.facts import Facts

__all__ = ["widths"]

_LOOKED_AT = 2  # FFNs whose new units are read
_MOST = 0.5  # of the narrower side's channels
_ZERO = 1e-6


def widths(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """FFN pruning and widening, hidden pruning and widening."""
    found = found_ffns(facts)
    alike = [f for f in found if (f.row.b[2] is None) == (f.a.expert is None)]
    sizes = common([(f.b.units, f.a.units) for f in alike])
    if sizes is not None and sizes[0] != sizes[1]:
        chosen = [f for f in alike if (f.b.units, f.a.units) == sizes]
        if 2 * len(chosen) > len(alike):
            yield _ffn(facts.models.b, chosen, *sizes)
    yield from _hidden(facts, found)


def _ffn(b: ModelView, chosen: Sequence[Found], units: int, units_of_a: int) -> Operation:
    where = f"{len(chosen)} FFNs, {units_of_a:,} -> {units:,} units"
    parameters: Row = {"units": units, "units_of_a": units_of_a}
    if units < units_of_a:
        return Operation("ffn_pruning", {"keep": number(units / units_of_a), **parameters}, where, 0.9)
    parameters = {"factor": number(units / units_of_a), "new": _new(b, chosen), **parameters}
    return Operation("ffn_widening", parameters, where, 0.9)


def _new(b: ModelView, chosen: Sequence[Found]) -> str:
    """What the units are that A does not have."""
    extra = chosen[0].b.units - chosen[0].a.units
    zero = [_silent_units(b, f.b) for f in chosen[:_LOOKED_AT]]
    if all(n >= 0.9 * extra for n in zero):
        return "zero"
    if common([_again(f) >= 0.5 for f in chosen]) or all(_doubled(b, f.b) >= 0.5 * extra for f in chosen[:_LOOKED_AT]):
        return "copied"
    return "random"


def _again(f: Found) -> float:
    """Units found a second time, as a share of the new ones that were looked for."""
    held = f.row.units[:, 1]
    new = (f.b.units - f.a.units) * len(held) / (f.b.units * max(f.row.found, 1e-9))
    return (held.size - np.unique(held).size) / max(new, 1.0)


def _doubled(side: ModelView, ffn: Ffn) -> int:
    """Units that read what one before them reads, value by value."""
    rows = np.concatenate([signatures(x.astype(np.float64)) for _, x in side.slices(ffn.gate or ffn.up)])
    return rows.size - np.unique(rows).size


def _silent_units(side: ModelView, ffn: Ffn) -> int:
    """Units that write next to nothing."""
    out = unit_outputs(side, ffn)
    if out is None:
        return 0
    size = np.abs(out).max(axis=1)
    return int(np.count_nonzero(size <= _ZERO * size.max(initial=0.0)))


def _hidden(facts: Facts, found: Sequence[Found]) -> Iterable[Operation]:
    sizes = common([(f.b.width, f.a.width) for f in found])
    if sizes is None or sizes[0] == sizes[1]:
        return
    seen = channels(facts)
    if seen is None or seen.known < _MOST:
        return
    d_b, d_a = sizes
    where = f"residual stream, {d_a:,} -> {d_b:,} channels; {seen.known:.0%} of the narrower found"
    if d_b < d_a:
        kept = seen.of_a.tolist()
        parameters: Row = {"keep": number(d_b / d_a), "kept_channels": kept}
        yield Operation("hidden_pruning", parameters, where, 0.95)
        return
    parameters = {"factor": number(d_b / d_a), "new": _new_channels(facts, found, seen)}
    yield Operation("hidden_widening", {**parameters, "channels": seen.of_a.tolist()}, where, 0.95)


def _new_channels(facts: Facts, found: Sequence[Found], seen: Channels) -> str:
    """Zero if nothing writes to the channels that A does not have."""
    new = np.nonzero(seen.of_a < 0)[0]
    down = next((f.b.down for f in found if f.b.down is not None), None)
    if down is None or not new.size:
        return "random"
    silent = [i for i in new.tolist() if not facts.models.b.rows(down, i, i + 1).any()]
    return "zero" if len(silent) >= 0.9 * (seen.of_a.size - seen.width_a) else "random"
