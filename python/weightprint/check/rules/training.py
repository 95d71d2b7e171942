"""Was this ever trained? The marks of a fresh initialisation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from weightprint.check.context import CheckContext, pattern_of
from weightprint.results.finding import Finding

__all__ = ["never_trained"]

_BLOCKS = 4  # matrices of one pattern that must agree
_SIGMAS = 6.0


def never_trained(context: CheckContext) -> Iterator[Finding]:
    """All norm gains exactly 1, and in every block matrices of one standard deviation, as far as chance allows.

    Either alone is known from trained models: gains folded into the matrices behind them, or a depth that trains
    evenly. Of n independent normal or uniform draws the standard deviation scatters by less than 1/√(2n) of itself.
    """
    gains, alike, apart = 0, 0, 0
    deviations: dict[str, list[tuple[float, int]]] = defaultdict(list)
    low, high = context.column("min"), context.column("max")
    for k, name in enumerate(context.column("name")):
        shape = context.column("shape")[k]
        parts = context.parts(name)
        if len(shape) == 1 and "norm" in parts and "bias" not in parts:
            if low[k] != 1 or high[k] != 1:
                return
            gains += 1
        elif len(shape) == 2 and parts & {"attention", "ffn"} and name not in context.components:
            deviations[pattern_of(name)].append((float(context.column("std")[k]), int(context.column("n")[k])))
    for found in deviations.values():
        if len(found) < _BLOCKS:
            continue
        sd, n = (np.array(column, np.float64) for column in zip(*found, strict=True))
        chance = _SIGMAS * float(np.mean(sd)) / np.sqrt(2 * n)
        same = bool(np.all(np.abs(sd - np.mean(sd)) <= chance))
        alike, apart = alike + same, apart + (not same)
    if gains > 1 and alike and not apart:
        message = (
            f"never trained, by all signs: all {gains:,} norm gains are exactly 1, and the matrices of one role have "
            "one standard deviation in every block, as an initialisation gives them"
        )
        yield Finding("never_trained", "warning", message)
