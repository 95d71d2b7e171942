"""FFNs of one model that are copies of each other: stacked layers, upcycled experts.

A basis that was fitted on one of them has seen the others too, so agreement there proves no more than agreement on the
FFN itself. Units of the same number are compared within the model: hits, with the exact bound of
:mod:`weightprint.evidence.nulls.exchange`; FFNs that are no copies of each other are independent of each other by
order.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from weightprint.evidence.alignment.solve import cosines
from weightprint.evidence.nulls.exchange import hits, log10_p_hits
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.thresholds import COPY_LOG10_P
from weightprint.fingerprint.ffns import ffns
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32

__all__ = ["with_copies"]

_UNITS = 64
_FFNS = 256  # more of them are not compared pair by pair


def with_copies(models: ModelPair, fitted: Iterable[str]) -> frozenset[str]:
    """Names of regions of B, and of all FFNs of B whose units stand in the order of one of them."""
    seen = set(fitted)
    found = ffns(models.b)
    if len(found) > _FFNS:
        return frozenset(seen)
    rows: dict[int, list[tuple[str, F32]]] = defaultdict(list)
    for ffn in found:
        units = pick(ffn.units, _UNITS, models.seed, f"copies {ffn.units}")
        rows[ffn.units].append((ffn.name, sampled_rows(models.b, ffn.gate or ffn.up, units)))
    multiplicity = math.log10(max(1, len(found) * (len(found) - 1) // 2))
    for group in rows.values():
        known = [x for name, x in group if name in seen]
        for name, x in group:
            if name not in seen and any(_copy(x, y, multiplicity) for y in known if x.shape == y.shape):
                seen.add(name)
    return frozenset(seen)


def _copy(x: F32, y: F32, multiplicity: float) -> bool:
    return log10_p_hits(hits(cosines(x, y))) + multiplicity <= COPY_LOG10_P
