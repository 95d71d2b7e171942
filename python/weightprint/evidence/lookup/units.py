"""Hidden units of a feed-forward block, as rows over the residual channels.

Unit i of an FFN reads the stream through row i of the up-projection (and of the gate) and writes it through column i of
the down-projection. An `Ffn` is one such set of units: the FFN of a dense block, or one expert. All of them are listed,
in every stack, so a decoy beside the real stack hides nothing.

*Folding.* Where a norm feeds the FFN its gain g multiplies the columns: up·diag(g) is what the unit sees of the
normalised stream, whether g was folded into the matrix or not. Where the norm is a LayerNorm the stream's mean is gone,
so the mean over channels of every row means nothing: centring rows removes it.
"""

from __future__ import annotations

import numpy as np

from weightprint.evidence.pair import Basis
from weightprint.fingerprint.ffns import Ffn
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import sampled_columns, sampled_rows
from weightprint.util.arrays import F32, Indices


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
