"""Truth over several steps: a chain's maps are those of its steps put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..model_folder import Truth, ZooModel

Layers = Sequence[Sequence["int | None"]]


def composed(first: Truth, then: Truth) -> Truth:
    """The truth of a model made from `first`'s model by `then`, told from `first`'s parents.

    `then` must have `first`'s model as its first parent. Its other parents stay what they are.
    """
    if not then.parents or then.parents[0] != first.name:
        raise ValueError(f"{then.name} was not made from {first.name}")
    middle = then.layer_map.get(first.name)
    layer_map = {parent: list(m) for parent, m in then.layer_map.items() if parent != first.name}
    for parent in first.parents:
        joined = _layers(first.layer_map.get(parent), middle)
        if joined is not None:
            layer_map[parent] = joined
    before = first.layer_map.get(first.parents[0]) if first.parents else None
    return replace(
        then,
        parents=(*first.parents, *then.parents[1:]),
        operations=(*first.operations, *then.operations),
        layer_map=layer_map,
        unit_map=_units(first.unit_map, then.unit_map, middle),
        expert_map=_experts(first, then, middle, before),
    )


def _layers(first: Layers | None, then: Layers | None) -> list[list[int | None]] | None:
    if then is None:
        return None if first is None else [list(row) for row in first]
    source = None if first is None else {row[0]: row[1] for row in first}
    return [[here, middle if source is None or middle is None else source[middle]] for here, middle in then]


def _units(
    first: Mapping[str, list[int]], then: Mapping[str, list[int]], middle: Layers | None
) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    layers = {str(here): None if m is None else str(m) for here, m in middle or ()}
    for layer in dict.fromkeys([*then, *(here for here, m in layers.items() if m in first), *first]):
        if middle is not None and layer not in layers:
            continue  # the middle model's number; its layers here were dealt with
        source = layers.get(layer, layer) if middle is not None else layer
        outer, inner = then.get(layer), first.get(source) if source is not None else None
        joined = _through(outer, inner)
        if joined is not None:
            out[layer] = joined
    return out


def _through(outer: list[int] | None, inner: list[int] | None) -> list[int] | None:
    if outer is None or inner is None:
        return outer if inner is None else inner
    return [-1 if u < 0 else inner[u] for u in outer]


def _experts(first: Truth, then: Truth, middle: Layers | None, before: Layers | None) -> list[list[Any]]:
    back = {row[0]: row[1] for row in before} if before is not None else None
    rows: Mapping[tuple[int, int | None], list[Any]] = {(row[0], row[1]): row for row in first.expert_map}
    if not then.expert_map:
        if not rows or then.form != "moe":
            return []
        layers = [[here, here] for here in dict.fromkeys(row[0] for row in first.expert_map)]
        return [[here, *row[1:]] for here, m in (middle or layers) for row in first.expert_map if row[0] == m]
    out = []
    for here, expert, layer, units, source in (_five(row) for row in then.expert_map):
        row = rows.get((layer, source)) if source is not None else None
        if row is not None:
            _, _, origin, inner, grand = _five(row)
            out.append([here, expert, origin, _through(units, inner), grand])
        else:
            inner = first.unit_map.get(str(layer)) if source is None else None
            out.append([here, expert, layer if back is None else back[layer], _through(units, inner), source])
    return out


def _five(row: Sequence[Any]) -> tuple[int, int | None, int, list[int] | None, int | None]:
    here, expert, layer, units, source = (*row, None)[:5]
    return here, expert, layer, units, source


def chain(
    parents: Sequence[ZooModel], steps: Iterable[tuple[Any, Mapping[str, Any]]], seed: int, name: str
) -> ZooModel:
    """Operations one after the other on the first parent, as one model: (operation, parameters) each.

    The other parents are given to the steps that take more than one. Step i draws from ``[seed, i]``.
    """
    made = parents[0]
    for i, (operation, parameters) in enumerate(steps):
        others = parents[1:] if operation.parents > 1 else ()
        child = operation([made, *others], seed * 1000 + i, **parameters)
        truth = child.truth if i == 0 else composed(made.truth, child.truth)
        made = replace(child, truth=replace(truth, name=f"{name}.step{i}"))
    return replace(made, truth=replace(made.truth, name=name))
