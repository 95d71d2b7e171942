"""Hidden units of a feed-forward block, as rows over the residual channels.

Unit i of an FFN reads the stream through row i of the up-projection (and of the gate) and writes it through column i of
the down-projection. An `Ffn` is one such set of units: the FFN of a dense block, or one expert. All of them are listed,
in every stack, so a decoy beside the real stack hides nothing.

*Folding.* Where a norm feeds the FFN its gain g multiplies the columns: up·diag(g) is what the unit sees of the
normalised stream, whether g was folded into the matrix or not. Where the norm is a LayerNorm the stream's mean is gone,
so the mean over channels of every row means nothing: centring rows removes it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from weightprint.anatomy.place import Expert
from weightprint.evidence.pair import Basis
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import sampled_columns, sampled_rows
from weightprint.util.arrays import F32, Indices

__all__ = ["Ffn", "ffns", "unit_inputs", "unit_outputs", "width_in_a"]


@dataclass(frozen=True, slots=True)
class Ffn:
    """The units of one FFN or one expert. ``gate`` is None for a plain FFN, ``down`` where it was not found."""

    stack: str
    block: int
    expert: Expert
    up: Tensor
    gate: Tensor | None
    down: Tensor | None

    @property
    def name(self) -> str:
        """``"decoder.7"``, or ``"decoder.7.expert.3"``."""
        return f"{self.stack}.{self.block}" + ("" if self.expert is None else f".expert.{self.expert}")

    @property
    def key(self) -> tuple[str, int, Expert]:
        """Where it is: stack, block, expert."""
        return self.stack, self.block, self.expert

    @property
    def units(self) -> int:
        """Hidden units."""
        return self.up.shape[0]

    @property
    def width(self) -> int:
        """Residual channels."""
        return self.up.shape[1]

    @property
    def numel(self) -> int:
        """Parameters of its matrices."""
        return sum(t.numel for t in (self.up, self.gate, self.down) if t is not None)


def ffns(side: ModelView, smallest: int = 16) -> list[Ffn]:
    """Every FFN of a model in depth order, experts one by one; those with fewer than `smallest` units are left out.

    Reads headers only. A gate or down-projection whose shape does not go with the up-projection is left out of its
    `Ffn`; constant tensors (where statistics are known) are too.
    """
    found: dict[tuple[str, int, Expert], dict[str, Tensor]] = defaultdict(dict)
    for tensor in side.tensors.values():
        place = tensor.place
        if place is not None and place.block is not None and place.role in ("up", "gate", "down") and tensor.rank2:
            found[place.stack, place.block, place.expert].setdefault(place.role, tensor)
    out = []
    for (stack, block, expert), parts in found.items():
        up, gate, down = (parts.get(role) for role in ("up", "gate", "down"))
        if up is None or up.constant or up.shape[0] < smallest:
            continue
        h, d = up.shape
        gate = gate if gate is not None and gate.shape == (h, d) and not gate.constant else None
        down = down if down is not None and down.shape == (d, h) and not down.constant else None
        out.append(Ffn(stack, block, expert, up, gate, down))
    return sorted(out, key=lambda f: (f.stack, f.block, str(f.expert).zfill(8)))


def unit_inputs(
    side: ModelView, ffn: Ffn, units: Indices | None = None, channels: Indices | None = None, *, fold: bool = False
) -> tuple[F32, F32 | None]:
    """Rows of up and of gate for these units over these channels (None: all): two float32 arrays (units, channels), the
    second None without a gate. ``fold`` multiplies in the gain of the norm that feeds them."""
    out: list[F32 | None] = []
    for tensor in (ffn.up, ffn.gate):
        if tensor is None:
            out.append(None)
            continue
        x = sampled_rows(side, tensor, np.arange(ffn.units) if units is None else units, channels)
        gain = side.gain(tensor) if fold else None
        if gain is not None:
            x *= gain if channels is None else gain[channels]
        out.append(x)
    assert out[0] is not None
    return out[0], out[1]


def unit_outputs(side: ModelView, ffn: Ffn, units: Indices | None = None) -> F32 | None:
    """Columns of down for these units (None: all) as rows: float32 (units, channels); None without a down-projection.

    Streams the whole matrix, since a column is no run of bytes, and keeps what was asked.
    """
    if ffn.down is None:
        return None
    return sampled_columns(side, ffn.down, np.arange(ffn.units) if units is None else units)


def width_in_a(basis: Basis, ffn: Ffn) -> int | None:
    """How many of A's channels an FFN of B is written in; None where the basis does not fit it."""
    if basis.matrix is not None:
        return int(basis.matrix.shape[1]) if basis.matrix.shape[0] == ffn.width else None
    if basis.channels is not None:
        return int(basis.channels.size) if int(basis.channels.max(initial=-1)) < ffn.width else None
    return ffn.width
