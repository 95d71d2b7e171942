"""Where each measured tensor lies in the model: stack, block, part, role, expert and component, as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.place import Assignment
from weightprint.anatomy.role_order import drawn_at
from weightprint.results.table import Column, Kind
from weightprint.util.ranges import ranges

PLACED: dict[str, Kind] = {
    "stack": "str", "block": "i64", "part": "str", "role": "str", "expert": "str", "component": "str",
}  # fmt: skip
"""The columns, with their kinds."""

_Place = tuple[Any, ...]

_NOWHERE: _Place = (None,) * len(PLACED)


def place_columns(anatomy: Anatomy, names: Iterable[str]) -> list[Column]:
    """Stack, block, part, role, expert and component of stored tensors, as columns; None where there is no place."""
    places: dict[str, _Place] = {}
    for weight in anatomy.weights:
        place = _place([a for a in anatomy.of(weight) if not a.tied])
        quantised = anatomy.weights[weight].scheme is not None
        for name in anatomy.weights[weight].components:
            places[name] = (*place, _component(weight, name) if quantised and place != _NOWHERE[:-1] else None)
    return _columns([places.get(name, _NOWHERE) for name in names])


def placed(assignments: Sequence[Assignment | None]) -> list[Column]:
    """The same columns for canonical tensors; None for a weight without a place."""
    return _columns([_NOWHERE if a is None else (*_place([a]), None) for a in assignments])


def _columns(places: Sequence[_Place]) -> list[Column]:
    return [Column(name, kind, [place[k] for place in places]) for k, (name, kind) in enumerate(PLACED.items())]


def _place(assignments: Sequence[Assignment]) -> _Place:
    """(stack, block, part, role, expert) of all that is cut from one tensor; None where that is not one thing."""
    if not assignments:
        return _NOWHERE[:-1]
    places = sorted((a.place for a in assignments), key=drawn_at)
    stack, block, part = (_only(getattr(p, key) for p in places) for key in ("stack", "block", "part"))
    experts = dict.fromkeys(p.expert for p in places)
    numbers = [e for e in experts if isinstance(e, int)]
    words = [ranges(numbers)] * bool(numbers) + [e for e in experts if isinstance(e, str)]
    roles = dict.fromkeys(p.role for p in places)
    return stack, block, part, "+".join(roles), "+".join(words) or None


def _only(values: Iterable[Any]) -> Any:
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _component(weight: str, name: str) -> str:
    """``"scales"`` of ``h.0.q_proj.scales``, ``"weight.absmax"``: what a stored tensor is of its weight."""
    stem = weight.removesuffix(".weight") + "."
    return name.removeprefix(stem) if name.startswith(stem) else name.rpartition(".")[2]
