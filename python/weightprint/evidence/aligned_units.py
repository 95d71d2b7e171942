"""Aligned hidden units: do the FFN's units stand in the same places? The identity form of phi_U [Independence Tests
2502.12292].

A hidden unit is a row of the up-projection (and of the gate). For each block take the same sampled units of A and B,
their rows double-centred and joined over up and gate, and find for each unit of A the unit of B with the largest
cosine. A *hit* is the unit of the same number. Training treats the units of a layer alike, so if B's initialisation
is independent of A the units of each of the L blocks are exchangeable, independently from block to block, and P(hits
>= k) <= L^k/k! exactly (:mod:`weightprint.evidence._exchange`).

This does not lean on the residual channels being exchangeable, so fixed sinusoidal positions can't fool it: it stands
beside aligned_weights as a second, separately assumed, look.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np

from weightprint.evidence._base import F32, Evidence, Models, Pair, Region, not_applied, timed
from weightprint.evidence._exchange import double_centre, hits, log10_p_hits
from weightprint.evidence._sample import (
    Indices,
    budget_of,
    hidden_size,
    pick,
    residual_axis,
    sampled_columns,
    sampled_rows,
)

__all__ = ["aligned_units"]

_ROLES = ("up", "gate")
_MIN_UNITS = 16

_QUESTION = Evidence(
    test="aligned_units",
    asked="Does each FFN hidden unit of A find itself again in the same block of B, under the same number?",
    applied=True,
    null="B was trained from an initialisation independent of A, so in every block any order of B's hidden units is "
    "equally likely",
    assumes="hidden units of a layer are treated alike by initialisation and training: no nested (MatFormer) "
    "widths. A common "
    "random initialisation breaks the null as shared training does",
    blind_to="copies whose hidden units were permuted, layers in another order, a permuted or rotated residual stream",
    statistic_of="hits: hidden units whose best match in the same block of B has the same number",
    effect_of="hits as a share of the units tested, above chance",
)


@timed
def aligned_units(models: Models) -> Evidence:
    """Identity hits of hidden units, block by block."""
    width = hidden_size(models)
    if width is None:
        return not_applied(_QUESTION, "no hidden size common to both models was found")
    budget = budget_of(models)
    blocks = _blocks(models, width)
    if not blocks:
        return not_applied(_QUESTION, "no pair of up- or gate-projections of equal shape was recognised by name")
    if len(blocks) > budget.layers:
        names = list(blocks)
        blocks = {
            names[i]: blocks[names[i]]
            for i in np.unique(np.linspace(0, len(names) - 1, budget.layers).round().astype(int))
        }
    price = models.price(pair for members in blocks.values() for pair, _ in members)
    regions: list[Region] = []
    chance = 0.0
    for name, members in blocks.items():
        x, y = _units(models, name, members, budget.units)
        if not x.size:
            continue
        similarity = _normalised(x) @ _normalised(y).T
        n = similarity.shape[0]
        own = float(np.mean(np.diagonal(similarity)))
        other = float((similarity.sum() - np.trace(similarity)) / max(n * n - n, 1))
        spread = float(similarity.std() / math.sqrt(n))
        k = hits(similarity)
        regions.append(Region(name, members[0][0].known.layer, n * x.shape[1], own, other, spread, k, n))
        chance += 1.0
    if not regions:
        return not_applied(_QUESTION, "every up-projection that could be paired is constant or has fewer than 16 units")
    total, tested = sum(r.hits for r in regions), sum(r.channels for r in regions)
    log10_p = min(0.0, log10_p_hits(total, len(regions)) + price)
    return replace(
        _QUESTION,
        says=f"{total} of {tested} hidden units in {len(regions)} blocks find themselves again (chance: about "
        f"{chance:.0f})",
        statistic=float(total),
        effect=max(0.0, (total - chance) / tested),
        n=tested,
        log10_p=log10_p,
        regions=tuple(regions),
        details={
            "blocks": len(regions),
            "expected_by_chance": chance,
            "hits": {r.name: [r.hits, r.channels] for r in regions},
        },
    )


def _blocks(models: Models, width: int) -> dict[str, list[tuple[Pair, int]]]:
    """Pairs of up- and gate-projections by block (and expert), with the axis of the residual stream in A.

    Pairs that met by name, if there are any, so that the p-value owes nothing to a choice by values.
    """
    blocks: dict[str, list[tuple[Pair, int]]] = defaultdict(list)
    known = [p for p in models.pairs if p.known.place and p.known.place.role in _ROLES and p.a.rank2 and p.b.rank2]
    for pair in [pair for pair in known if pair.by_name] or known:
        tensor = pair.known
        axis = residual_axis(tensor if not pair.transposed else pair.a, width)
        if tensor.layer is not None and axis is not None and not pair.a.constant and not pair.b.constant:
            expert = tensor.key[2]
            blocks[tensor.region if expert is None else f"{tensor.region}.expert.{expert}"].append((pair, axis))
    return dict(blocks)


def _units(models: Models, key: str, members: list[tuple[Pair, int]], want: int) -> tuple[F32, F32]:
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


def _normalised(x: F32) -> F32:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    out: F32 = x / np.where(norms > 0, norms, np.float32(1))
    return out
