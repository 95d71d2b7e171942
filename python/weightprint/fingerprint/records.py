"""What a fingerprint's file says in JSON, each field held to its type: it may come from anyone.

A tensor is a list of the fields of `_TENSOR` in this order, which is part of the format: new ones are appended, and a
row may lack the last ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from weightprint.anatomy.place import Geometry, Place
from weightprint.anatomy.roles import role_of
from weightprint.fingerprint.model import Tensor
from weightprint.fingerprint.plan import Plan
from weightprint.quant.base import Levels

_Check = Callable[[Any], bool]
_COUNT_LIMIT = 1 << 62


def _text(x: Any) -> bool:
    return isinstance(x, str)


def _count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and 0 <= x < _COUNT_LIMIT


def _truth(x: Any) -> bool:
    return isinstance(x, bool)


def _number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def _or_none(check: _Check) -> _Check:
    return lambda x: x is None or check(x)


def _list_of(check: _Check) -> _Check:
    return lambda x: isinstance(x, list) and all(check(y) for y in x)


def _place(x: Any) -> bool:
    if not (isinstance(x, list) and len(x) == 4):
        return False
    stack, block, role, expert = x
    known = _text(role) and role_of(role) is not None
    return _text(stack) and (block is None or _count(block)) and known and (_text(expert) or _or_none(_count)(expert))


def _levels(x: Any) -> bool:
    return isinstance(x, list) and len(x) == 2 and _count(x[0]) and _truth(x[1])


def _file(x: Any) -> bool:
    return isinstance(x, dict) and _text(x.get("name")) and _count(x.get("bytes")) and _text(x.get("digest"))


def _geometry(x: Any) -> bool:
    return (
        isinstance(x, dict)
        and x.keys() == set(Geometry.__slots__)
        and _count(x["blocks"])
        and _list_of(_text)(x["guessed"])
        and all(_or_none(_count)(size) for key, size in x.items() if key != "guessed")
    )


_TENSOR: dict[str, _Check] = {
    "name": _text,
    "dtype": _text,
    "shape": _list_of(_count),
    "numel": _count,
    "nbytes": _count,
    "digest": _or_none(_text),
    "std": _or_none(_number),
    "constant": _truth,
    "place": _or_none(_place),
    "zeros": _or_none(_count),
    "levels": _or_none(_levels),
    "offset": _number,
    "undecoded": _truth,
    "simple": _or_none(_truth),
    "sinusoidal": _or_none(_truth),
}
_SUMMARY: dict[str, _Check] = {
    "source": _text,
    "digest": _or_none(_text),
    "files": _list_of(_file),
    "family": _or_none(_text),
    "main_stack": _or_none(_text),
    "geometry": lambda x: isinstance(x, dict) and all(map(_geometry, x.values())),
    "n_tensors": _count,
    "n_parameters": _count,
    "n_bytes": _count,
    "version": _text,
}


def told(tensor: Tensor) -> list[Any]:
    """A tensor's fields in the order of the format."""
    place = tensor.place
    at = None if place is None else [place.stack, place.block, place.role, place.expert]
    return [at if name == "place" else getattr(tensor, name) for name in _TENSOR]


def tensor_of(row: Any) -> Tensor:
    """The tensor that `told` made this of. Raises ValueError where it can't have."""
    if not isinstance(row, list) or not 5 <= len(row) <= len(_TENSOR):
        raise ValueError("a tensor's record is no list of its fields")
    fields = dict(zip(_TENSOR, row, strict=False))
    _held(fields, {name: _TENSOR[name] for name in fields}, "a tensor")
    shape, place, levels, std = (fields.get(name) for name in ("shape", "place", "levels", "std"))
    if math.prod(fields["shape"]) != fields["numel"]:
        raise ValueError(f"{fields['name']!r} has other values than its shape")
    fields["shape"] = tuple(shape or ())
    fields["place"] = None if place is None else Place(*place)
    fields["levels"] = None if levels is None else Levels(*levels)
    fields["std"] = np.nan if std is None else std
    return Tensor(**fields)


def summary_of(found: Any) -> dict[str, Any]:
    """The summary as it is. Raises ValueError where a field is missing or of another type."""
    return _held(found, _SUMMARY, "the summary")


def plan_of(found: Any) -> Plan:
    """The plan. All but its seed is fixed by the version: ValueError for any other."""
    seed: Any = found.get("seed") if isinstance(found, dict) else None
    plan = Plan(seed) if _count(seed) else None
    if plan is None or plan.to_dict() != found:
        raise ValueError("its plan is none of this version")
    return plan


def _held(found: Any, checks: Mapping[str, _Check], what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{what} is no object")
    for name, check in checks.items():
        if name not in found or not check(found[name]):
            raise ValueError(f"{what} says {found.get(name)!r:.60} for {name}")
    return found
