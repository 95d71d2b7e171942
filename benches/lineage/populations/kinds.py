"""Populations of pairs whose truth is known by their making, beside the structured strangers (:mod:`.structured`).

properties   strangers that share a mask, a direction, an embedding, an order that was fitted, an initialisation
kin          parents and children that have the same properties, and must still be found
parts        strangers that hold one part of A and nothing else, with the true share
hidden       the same, the whole then turned and its units renumbered: *no evidence* must not be said
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from ..zoo.model_folder import ZooModel, save
from ..zoo.operations.chain import chain
from ..zoo.operations.table import OPERATIONS
from . import parts, properties
from .case import FOUND, HIDDEN, PART, STRANGERS, Case, Expected

__all__ = ["hidden", "kin", "parts_alone", "strangers"]

#: A table of tokens that is one in both may be named; nothing else may.
_TABLE = Expected(frozenset({"partly_shared", "inconclusive", "no_evidence"}))
_INITIALISED = Expected(frozenset({"shared_initialisation", "inconclusive", "no_evidence"}))
_EMBEDDINGS = ("frozen_embedding", "tuned_embedding")
_TURN: tuple[tuple[str, dict[str, Any]], ...] = (("rotation", {}), ("unit_permutation", {}))


def _write_property(folder: Path, table: str, kind: str, shape: properties.Shape, seed: int, which: int) -> Path:
    return properties.write(folder, properties.pair(getattr(properties, table)[kind], shape, seed)[which], shape)


def _of_properties(table: str, expected: Expected, n: int) -> Iterator[Case]:
    kinds = getattr(properties, table)
    every = [(seed, *which) for seed in range(n) for which in product(properties.SHAPES, kinds)]
    for seed, form, kind in every[:n]:
        a, b = (
            partial(_write_property, table=table, kind=kind, shape=properties.SHAPES[form], seed=seed, which=i)
            for i in (0, 1)
        )
        right = _TABLE if kind in _EMBEDDINGS else expected
        yield Case(f"{table.lower()}-{kind}-{form}-{seed}", a, b, right, kind)


def strangers(n: int) -> Iterator[Case]:
    """Strangers of every kind and shape, then those of one structured initialisation."""
    most = n * len(properties.STRANGERS) // (len(properties.STRANGERS) + len(properties.INITIALISED))
    yield from _of_properties("STRANGERS", STRANGERS, most)
    yield from _of_properties("INITIALISED", _INITIALISED, n - most)


def kin(n: int) -> Iterator[Case]:
    """Parents and children of every kind and shape."""
    yield from _of_properties("KIN", FOUND, n)


def _pair(folder: Path, part: str, shape: parts.Shape, seed: int, how: str, which: str, turned: bool) -> Path:
    made: ZooModel = getattr(parts.pair(part, shape, seed, how), which)
    if turned:
        made = chain([made], [(OPERATIONS[name], parameters) for name, parameters in _TURN], seed, which)
    return save(folder, made)


def _of_parts(n: int, turned: bool, kinds: tuple[str, ...], how: tuple[str, ...]) -> Iterator[Case]:
    every = [(seed, *which) for seed in range(n) for which in product(parts.SHAPES, kinds, how)]
    for seed, shape, part, way in every[:n]:
        share = parts.pair(part, shape, seed, way).share
        right = HIDDEN if turned else FOUND if part == "shared_body" else replace(PART, share=share)
        a, b = (
            partial(_pair, part=part, shape=shape, seed=seed, how=way, which=x, turned=turned and x == "b")
            for x in "ab"
        )
        yield Case(f"{part}-{way}-{shape.width}-{seed}", a, b, right, part)


def parts_alone(n: int) -> Iterator[Case]:
    """One part of A in a stranger: copied, trained on, reordered."""
    yield from _of_parts(n, False, parts.PARTS, parts.HOW)


def hidden(n: int) -> Iterator[Case]:
    """One part of A in a stranger that was then turned."""
    yield from _of_parts(n, True, ("attention", "ffn", "two_layers", "one_layer", "embedding"), ("copied",))
