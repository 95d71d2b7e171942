"""The order in which roles and places are drawn and listed: as data flows through a block."""

from __future__ import annotations

from typing import Any

from weightprint.anatomy.place import Place
from weightprint.anatomy.roles import BEFORE, ROLES, matrix_of

ORDER = {role: k for k, role in enumerate(ROLES)}

STACKS = ("vision", "audio", "text", "encoder", "decoder", "mtp")


def drawn_at(place: Place) -> tuple[Any, ...]:
    """Sort key that puts places in the order of the drawing."""
    stack = STACKS.index(place.stack) if place.stack in STACKS else len(STACKS)
    late = matrix_of(place.role) not in BEFORE
    block = place.block if place.block is not None else 10**9 if late else -1
    expert = place.expert if isinstance(place.expert, int) else -1 if place.expert else -2
    return stack, place.stack, block, expert, role_place(place.role)


def role_place(role: str) -> tuple[int, str]:
    """Where a role is drawn: its matrix' place, then itself, its bias, its adapter."""
    return ORDER.get(matrix_of(role), len(ORDER)), role
