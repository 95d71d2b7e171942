"""Which hidden units of an FFN are kept: some by number, and those that stand out by content.

A unit is a row g of the gate, a row u of the up-projection (the norm's gain folded into both) and a column d of the
down-projection. By content are taken the units with the largest |cos(g, u)| + |cos(u, d)| + |cos(g, d)|
(docs/fingerprint.md): a number that does not change with the order of units, their signs and scales, the layer they
stand in, or a gain folded into the matrices, so the same units are taken of a copy whatever was done to hide them. A
plain FFN has |cos(u, d)| alone. Cosines are over the kept channels: over all of them, and then in any basis of the
stream, where it is no wider than the plan keeps.

The choice looks at one model alone. A test whose null puts the stream's channels in another order is not touched by it,
since cosines over the kept channels stay what they are; one whose null exchanges units reads units by number only.
"""

from __future__ import annotations

import numpy as np

from weightprint.fingerprint.ffns import Ffn
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.plan import Plan
from weightprint.fingerprint.sampling import Read, on_channels, sampled_rows
from weightprint.util.arrays import F32, F64, Indices

_TOGETHER = 512  # units whose products are taken at a time: their rows stay in the cache


def unit_reads(ffn: Ffn, channels: Indices) -> tuple[Read, ...]:
    """What is read of an FFN: all of its units on the kept channels."""
    inputs = [Read(tensor, None, channels) for tensor in (ffn.up, ffn.gate) if tensor is not None]
    return (*inputs, Read(ffn.down, channels, None)) if ffn.down is not None else tuple(inputs)


def kept_units(side: ModelView, ffn: Ffn, plan: Plan, each: int) -> tuple[Indices, int, dict[str, F32]]:
    """Unit numbers, how many of them (in front) were taken by number, and their rows as stored on the kept channels:
    role → float32 (units, channels)."""
    channels = plan.stream_channels(ffn.width)
    parts: dict[str, F32] = {}
    for role, tensor in (("up", ffn.up), ("gate", ffn.gate)):
        if tensor is not None:
            parts[role] = on_channels(side, tensor, channels, fold=False)
    if ffn.down is not None:
        parts["down"] = sampled_rows(side, ffn.down, channels).T
    numbered = plan.numbered(ffn.units, (each + 1) // 2)
    gain = side.gain(ffn.up)
    score = content(parts, None if gain is None else gain[channels])
    units = np.concatenate([numbered, by_content(score, each - numbered.size, numbered)])
    return units, numbered.size, {role: np.ascontiguousarray(x[units]) for role, x in parts.items()}


def content(parts: dict[str, F32], gain: F32 | None) -> F64:
    """What a unit is chosen by: (units,) float64, larger first."""
    score = np.zeros(len(parts["up"]))
    for start in range(0, score.size, _TOGETHER):
        here = slice(start, start + _TOGETHER)
        x = {role: rows[here] if gain is None or role == "down" else rows[here] * gain for role, rows in parts.items()}
        x = {role: np.ascontiguousarray(rows) for role, rows in x.items()}
        square = {role: np.einsum("ij,ij->i", rows, rows) for role, rows in x.items()}
        if len(x) == 1:
            score[here] = np.sqrt(square["up"])
        for one, other in (("gate", "up"), ("up", "down"), ("gate", "down")):
            if one in x and other in x:
                length = np.sqrt(square[one]) * np.sqrt(square[other])
                score[here] += np.abs(np.einsum("ij,ij->i", x[one], x[other])) / np.where(length > 0, length, 1)
    return np.nan_to_num(score)


def by_content(score: F64, want: int, taken: Indices) -> Indices:
    """The highest scores that were not taken yet, best first."""
    left = np.argsort(-score, kind="stable")
    return left[~np.isin(left, taken)][: max(0, want)]
