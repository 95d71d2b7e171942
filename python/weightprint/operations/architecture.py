"""Parts that A has and B lacks while the blocks are A's: biases, the offsets of norms, learned positions."""

from __future__ import annotations

from collections.abc import Iterable

from weightprint.anatomy.roles import matrix_of, role_of
from weightprint.fingerprint.model import ModelView
from weightprint.operations.base import Operation
from weightprint.operations.changes import Changes
from weightprint.verdict.facts import Facts

__all__ = ["architecture"]

_POSITIONS = ("position",)


def architecture(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """Biases dropped, LayerNorm to RMSNorm, learned positions gone."""
    if not facts.blocks or facts.maps is None or facts.maps.stack is None:
        return
    stack = facts.maps.stack
    origin = next((r.a[0] for r in facts.maps.layers if r.b[0] == stack and r.a is not None), stack)
    ours, theirs = _roles(facts.models.a, origin), _roles(facts.models.b, stack)
    biases = {r for r in ours if _is_bias(r) and role_of(matrix_of(r)).part != "norm"}
    offsets = {r for r in ours if _is_bias(r) and role_of(matrix_of(r)).part == "norm"}
    if biases and not biases & theirs and {matrix_of(r) for r in biases} <= theirs:
        yield Operation("drop_biases", {"roles": sorted(biases)}, f"A's {len(biases)} kinds of bias are not in B", 0.95)
    if offsets and not offsets & theirs and {matrix_of(r) for r in offsets} <= theirs:
        where = "norms of B have A's kind of gains and no offsets"
        yield Operation("layernorm_to_rmsnorm", {"roles": sorted(offsets)}, where, 0.95)
    if any(r in ours for r in _POSITIONS) and not any(r in theirs for r in _POSITIONS):
        yield Operation(
            "learned_positions_to_rope", {}, "A's table of positions is not in B, so positions are rotary", 0.8
        )


def _roles(side: ModelView, stack: str) -> set[str]:
    """Roles in a stack and outside of all blocks."""
    return {
        t.place.role
        for t in side.tensors.values()
        if t.place is not None and (t.place.stack == stack or t.place.block is None)
    }


def _is_bias(role: str) -> bool:
    return "." not in role and matrix_of(role) != role
