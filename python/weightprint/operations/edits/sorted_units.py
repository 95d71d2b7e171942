"""The order that reordered hidden units stand in: by a norm of their weights, as importance sorting leaves them.

Norms tried: of what a unit reads (rows of up, of gate), of what it writes (columns of down), of all of these together;
sums of squares or of magnitudes; rising or falling. An order of n units is any of these by chance in 16 of n! cases, so
what stands in one order in every FFN looked at, to the rounding of the stored type, was sorted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weightprint.evidence.lookup.units import unit_inputs, unit_outputs
from weightprint.fingerprint.ffns import Ffn
from weightprint.fingerprint.model import ModelView
from weightprint.operations.base import Row
from weightprint.util.arrays import F64
from weightprint.util.floats import MANTISSA

__all__ = ["sorted_by"]

_FFNS = 4


def sorted_by(side: ModelView, several: Sequence[Ffn]) -> Row:
    """``{"sorted_by": "norm", "norm_of", "power": 1 or 2, "falling"}`` of these FFNs' units, or nothing."""
    ways: set[tuple[str, int, bool]] | None = None
    for ffn in several[:_FFNS]:
        slack = 2.0 ** -(MANTISSA[ffn.up.dtype][0] if ffn.up.dtype in MANTISSA else 8)
        here = {
            (of, power, falling)
            for (of, power), sizes in _norms(side, ffn).items()
            for falling in (False, True)
            if _in_order(-sizes if falling else sizes, slack)
        }
        ways = here if ways is None else ways & here
    if not ways:
        return {}
    of, power, falling = min(ways)
    return {"sorted_by": "norm", "norm_of": of, "power": power, "falling": falling}


def _norms(side: ModelView, ffn: Ffn) -> Mapping[tuple[str, int], F64]:
    up, gate = unit_inputs(side, ffn)
    parts = {"up": up, "gate": gate, "down": unit_outputs(side, ffn)}
    sums = {
        (name, power): (np.abs(x.astype(np.float64)) ** power).sum(axis=1)
        for name, x in parts.items()
        if x is not None
        for power in (1, 2)
    }
    every = {("all", power): np.sum([x for (_, p), x in sums.items() if p == power], axis=0) for power in (1, 2)}
    return every | sums


def _in_order(sizes: F64, slack: float) -> bool:
    """Rising, but for what rounding can turn round between neighbours; and not all alike."""
    return bool(
        (np.diff(sizes) >= -slack * np.abs(sizes[1:])).all() and np.ptp(sizes) > 16 * slack * np.abs(sizes).max()
    )
