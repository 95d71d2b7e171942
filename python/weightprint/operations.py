"""What was done to make B, as far as maps and exact arithmetic show it: one row per operation, each read off the facts.

Only structure and exact values speak here: which layers, experts and units went where, what had to be undone to see
it, and what was re-encoded. How far values moved (training, noise, merging) is not named yet; the report gives the
cosines. Where two readings leave the same trace, the row says the one with fewer steps, and its confidence is below 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from weightprint.evidence._units import ffns
from weightprint.facts import Facts

__all__ = ["OPERATIONS", "layer_map", "operations"]

Row = dict[str, Any]
LayerMap = tuple[tuple[int, int | None, float | None], ...]

#: What it takes to undo, and what was done.
_TURNED = {"signed_permutation": "channel_permutation", "rotation": "rotation"}

#: Share of the units that must be found for a size change to be called pruning or widening.
_MOST = 0.5


def operations(facts: Facts) -> tuple[Row, ...]:
    """All operations that show, in the order of the table."""
    return tuple(row for read in OPERATIONS for row in read(facts))


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


def _row(name: str, parameters: Row, where: str, confidence: float = 1.0) -> Row:
    return {"name": name, "parameters": parameters, "confidence": confidence, "where": where}


def _encoded(facts: Facts) -> Iterable[Row]:
    exact, same = facts.applied("exact_sharing"), facts.applied("same_values")
    if exact and exact.details["renamed"]:
        yield _row("rename", {"tensors": len(exact.details["renamed"])}, "equal tensors")
    how: dict[str, str] = same.details["how"] if same else {}
    for name, words in (("re_dtype", ("a cast",)), ("quantise", ("scale",)), ("transpose", ("transposed",))):
        chosen = [h for h in how.values() if any(w in h for w in words)]
        if chosen:
            yield _row(name, {"how": sorted(set(chosen))}, f"{len(chosen)} tensors")


def _layers(facts: Facts) -> Iterable[Row]:
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
        yield _row("depth_upscaling", {"from": there}, f"{len(there)} layers", 0.9)
    elif not rising:
        yield _row("layer_shuffle", {"from": there}, f"{len(there)} layers")
    if missing and not repeated:
        yield _row("depth_drop", {"dropped": missing}, f"{len(missing)} layers of A are not in B", 0.9)
    if new:
        yield _row("layer_insertion", {"inserted": new}, f"{len(new)} layers of B were not found in A", 0.7)


def _experts(facts: Facts) -> Iterable[Row]:
    moved = [b for b in facts.blocks.values() if (b.b[2] is None) != (b.a[2] is None)]
    if not moved:
        return
    to_experts = [b for b in moved if b.b[2] is not None]
    name, chosen = ("moe_upcycling", to_experts) if to_experts else ("moe_to_dense", moved)
    layers = {b.b[:2] for b in chosen}
    share = sum(b.effect for b in chosen) / len(chosen)
    yield _row(name, {"experts": len(chosen), "share_of_units": round(share, 4)}, f"{len(layers)} layers", 0.95)


def _widths(facts: Facts) -> Iterable[Row]:
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
            yield _row(name, {"units": chosen[0][0], "units_of_a": chosen[0][1]}, f"{len(chosen)} layers", 0.9)


def _gauge(facts: Facts) -> Iterable[Row]:
    basis = facts.weights.basis if facts.weights else "identity"
    if basis in _TURNED:
        cosine = round(facts.weights.effect or 0.0, 4) if facts.weights else None
        yield _row(_TURNED[basis], {"cosine_once_undone": cosine}, "residual channels")
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
        yield _row("unit_permutation", {}, f"hidden units of {len(moved)} layers stand in another order", 0.95)


def _rising(ours: Any, theirs: Any) -> bool:
    """The order of units is kept (as by pruning or widening), or nearly."""
    by_b = theirs[ours.argsort()]
    steps = by_b[1:] > by_b[:-1]
    return bool(steps.mean() > 0.8)


#: Readers of operations, in the order of the report.
OPERATIONS: tuple[Callable[[Facts], Iterable[Row]], ...] = (_encoded, _layers, _experts, _widths, _gauge)
