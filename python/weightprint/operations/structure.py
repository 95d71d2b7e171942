"""What the readers of structure share: FFNs of the maps, sizes of either side, and the channel map.

*Channel map.* Once units of B are known by their numbers in A, each residual channel is a pair of columns over the same
units: column c of the up-projections (of the gates where there are gates, whose signs nothing can flip) of B, and of A.
A channel of B is the channel of A with the largest |cosine| if that stands out (``_NEAR``, and ``_APART`` from the
second best). So a basis that was found by any means is read again from weights, signs and all; a turned stream has no
such map. Where nearly all channels find themselves under their own numbers nothing else is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import sampled_rows
from weightprint.util.arrays import F32, I64
from weightprint.util.linear_algebra import unit_rows
from weightprint.verdict.facts import Facts
from weightprint.verdict.maps import FfnRow

__all__ = ["Channels", "Found", "channels", "common", "found_ffns", "number", "placed"]


_NEAR, _APART = 0.4, 0.1
_OWN = 0.9  # of the channels, under their own numbers
_BLOCKS, _UNITS = 4, 256
_FEWEST = 16
_STEP = 512  # channels of B at a time


@dataclass(frozen=True, slots=True)
class Found:
    """An FFN or expert of B with the one of A that its units are from."""

    row: FfnRow
    b: Ffn
    a: Ffn


def found_ffns(facts: Facts) -> list[Found]:
    """FFNs and experts of B that were found, each with its best of A, in B's order."""
    if facts.maps is None:
        return []
    ours = {f.key: f for f in ffns(facts.models.a)}
    theirs = {f.key: f for f in ffns(facts.models.b)}
    rows = ((row, theirs.get(row.b), ours.get(row.a) if row.a is not None else None) for row in facts.maps.ffns)
    return [Found(row, b, a) for row, b, a in rows if a is not None and b is not None]


@dataclass(frozen=True, slots=True)
class Channels:
    """For each residual channel of B its channel of A, -1 where none stands out, int64 (d_b,); its sign, float32; and
    A's width."""

    of_a: I64
    signs: F32
    width_a: int

    @property
    def known(self) -> float:
        """Channels that were found, as a share of the narrower stream's."""
        return float(np.count_nonzero(self.of_a >= 0)) / max(1, min(self.of_a.size, self.width_a))

    @property
    def moved(self) -> float:
        """Of those, the share that stands under another number."""
        there = np.nonzero(self.of_a >= 0)[0]
        return float(np.mean(self.of_a[there] != there)) if there.size else 0.0


def channels(facts: Facts) -> Channels | None:
    """The channel map read off matched units; None where too few units are known, or at effort "quick", where their
    rows would be most of what is read."""
    if not facts.models.budget.whole:
        return None
    found = sorted((f for f in found_ffns(facts) if len(f.row.units) >= _FEWEST), key=lambda f: -len(f.row.units))
    if not found:
        return None
    d_b, d_a = found[0].b.width, found[0].a.width
    blocks = [f for f in found if (f.b.width, f.a.width) == (d_b, d_a)][:_BLOCKS]
    x = np.concatenate([_inputs(facts.models.a, f.a, f.row.units[:_UNITS, 1]) for f in blocks])
    y = np.concatenate([_inputs(facts.models.b, f.b, f.row.units[:_UNITS, 0]) for f in blocks])
    x, y = _columns(x), _columns(y)
    if d_a == d_b:
        own = np.einsum("uc,uc->c", x, y)
        if np.mean(np.abs(own) >= _NEAR) >= _OWN:
            return Channels(np.arange(d_b), np.where(own < 0, -1, 1).astype(np.float32), d_a)
    of_a, signs = np.full(d_b, -1, np.int64), np.ones(d_b, np.float32)
    for start in range(0, d_b, _STEP):
        alike = y[:, start : start + _STEP].T @ x
        size = np.abs(alike)
        best = size.argmax(axis=1)
        top = np.sort(size, axis=1)[:, -2:]
        clear = (top[:, 1] >= _NEAR) & (top[:, 1] - top[:, 0] >= _APART)
        of_a[start : start + _STEP] = np.where(clear, best, -1)
        signs[start : start + _STEP] = np.where(alike[np.arange(best.size), best] < 0, -1, 1)
    named = Counter(of_a.tolist())
    of_a[[named[int(j)] > 1 for j in of_a]] = -1
    return Channels(of_a, signs, d_a)


def _inputs(side: ModelView, ffn: Ffn, units: I64) -> F32:
    """Rows of the gate (of up where there is none) with the norm's gain, float32 (units, channels)."""
    tensor = ffn.gate or ffn.up
    gain = side.gain(tensor)
    rows = sampled_rows(side, tensor, units)
    return rows if gain is None else rows * gain


def _columns(x: F32) -> F32:
    """Columns centred over units, of length one."""
    return unit_rows(np.nan_to_num(x - x.mean(axis=0)), axis=0)


def placed(side: ModelView, role: str) -> list[Tensor]:
    """The side's tensors of this role."""
    return [t for t in side.tensors.values() if t.place is not None and t.place.role == role]


def common(values: Sequence[Any]) -> Any:
    """The commonest of them; None of none."""
    return Counter(values).most_common(1)[0][0] if values else None


def number(x: float) -> float:
    """Three significant digits."""
    return float(f"{x:.3g}")
