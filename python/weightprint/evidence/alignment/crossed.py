"""The same basis from the other half of B's FFNs, so that every FFN is judged by a basis that did not see it.

A basis that was fitted on some FFNs is tested on the others. Where it proves real there, units of those others are
matched through it and solved for anew (:mod:`weightprint.evidence.alignment.refine`): the result has not seen the first
ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from weightprint.evidence.alignment.copies import with_copies
from weightprint.evidence.alignment.refine import Matched, refine, unit_vectors
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.fingerprint.ffns import ffns
from weightprint.fingerprint.sampling import pick
from weightprint.util.ranges import evenly

__all__ = ["crossed"]

_FFNS = 6
_UNITS = 512


def crossed(models: ModelPair, basis: Basis, counterparts: Mapping[str, str]) -> Basis | None:
    """A basis of the same kind, fitted on FFNs of B that `basis` did not see.

    ``counterparts``: FFN of B (its name) → the FFN of A that it was found in. None where they are too few to solve for.
    """
    if basis.kind == "identity":
        return None
    ours, theirs = ({f.name: f for f in ffns(side) if f.down is not None} for side in (models.a, models.b))
    chosen = [(theirs[b], ours[a]) for b, a in counterparts.items() if not basis.saw(b) and b in theirs and a in ours]
    chosen = [(b, a) for b, a in chosen if (b.gate is None) == (a.gate is None)]
    if not chosen:
        return None
    chosen = evenly(chosen, _FFNS)
    matched, none = [], np.empty(0, np.int64)
    for b, a in chosen:
        (read_a, down_a), (read_b, down_b) = (
            unit_vectors(models.a, a, None),
            unit_vectors(models.b, b, pick(b.units, _UNITS, models.seed, "crossed", run=8)),
        )
        matched.append(Matched(b.name, read_a, read_b, down_a, down_b, none, none))
    fitted = with_copies(models, frozenset(m.name for m in matched))
    found, *_ = refine(matched, basis, f"units of {len(matched)} other FFNs", fitted, basis.kind, (basis.kind,))
    return replace(found, semantic=basis.semantic)
