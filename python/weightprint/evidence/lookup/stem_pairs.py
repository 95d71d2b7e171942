"""Units of blocks that only the pairing of tensors knows: one side's names say what a tensor does, the other's don't.

Pairs that met by name, if there are any, so that a p-value owes nothing to a choice by values; else all, and the price.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from weightprint.evidence.nulls.exchange import double_centre
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.fingerprint.sampling import pick, residual_axis, sampled_columns, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.ranges import evenly

_ROLES = ("up", "gate")
_MIN_UNITS = 16


@dataclass(frozen=True)
class Paired:
    """Per block its name, number, and the same sampled units of A and of B, (units, columns), up and gate side by
    side; and what a p-value pays for the pairing, log10."""

    found: tuple[tuple[str, int | None, F32, F32], ...]
    multiplicity: float


def paired_rows(models: ModelPair, width: int) -> Paired:
    """The blocks whose up- or gate-projections the pairing brought together."""
    budget = models.budget
    blocks: dict[str, list[tuple[Pair, int]]] = defaultdict(list)
    known = [p for p in models.pairs if p.known.place and p.known.place.role in _ROLES and p.a.rank2 and p.b.rank2]
    for pair in [pair for pair in known if pair.by_name] or known:
        tensor = pair.known
        axis = residual_axis(tensor if not pair.transposed else pair.a, width)
        if tensor.layer is not None and axis is not None and not pair.a.constant and not pair.b.constant:
            expert = tensor.key[2]
            blocks[tensor.region if expert is None else f"{tensor.region}.expert.{expert}"].append((pair, axis))
    chosen = evenly(list(blocks.items()), budget.layers)
    found = []
    for name, members in chosen:
        x, y = _units(models, name, members, budget.units)
        if x.size:
            found.append((name, members[0][0].known.layer, x, y))
    return Paired(tuple(found), models.multiplicity(pair for _, members in chosen for pair, _ in members))


def _units(models: ModelPair, key: str, members: list[tuple[Pair, int]], want: int) -> tuple[F32, F32]:
    """The same sampled units of both sides: (units, columns), rows of up and gate side by side, double-centred."""
    counts = {pair.a.shape[1 - axis] for pair, axis in members}
    empty = np.empty((0, 0), np.float32)
    if len(counts) != 1 or min(counts) < _MIN_UNITS:
        return empty, empty
    units: Indices = pick(counts.pop(), want, models.seed, key)
    sides: tuple[list[F32], list[F32]] = ([], [])
    for pair, axis in members:
        flips = ((models.a, pair.a, axis == 1), (models.b, pair.b, (axis == 1) != pair.transposed))
        for out, (side, tensor, last) in zip(sides, flips, strict=True):
            x = sampled_rows(side, tensor, units) if last else sampled_columns(side, tensor, units)
            out.append(double_centre(x))
    return np.concatenate(sides[0], axis=1), np.concatenate(sides[1], axis=1)
