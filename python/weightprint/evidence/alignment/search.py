"""How B's residual channels are written in A's: the search (METHODS alignment).

A copy may have permuted its residual channels, flipped their signs or rotated them with the norms' gains folded away;
then no test that compares channel with channel sees anything. Each finder looks in its own way and offers bases;
`find_bases` scores them on FFNs that they were not fitted on and keeps what aligns anything. The tests of
:mod:`weightprint.evidence` are then run in the best ones, and their p-values pay for the number tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from weightprint.evidence.alignment.channels import by_channels
from weightprint.evidence.alignment.copies import with_copies
from weightprint.evidence.alignment.held_out import Score, score
from weightprint.evidence.alignment.tokens import by_tokens
from weightprint.evidence.alignment.unit_order import by_unit_order
from weightprint.evidence.alignment.unit_signatures import by_unit_signatures
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import IDENTITY, Basis, ModelPair
from weightprint.util.progress import phase

__all__ = ["FINDERS", "find_bases"]

Finder = Callable[[ModelPair], list[Basis]]

#: Every finder, the ones that use nothing semantic first.
FINDERS: tuple[Finder, ...] = (by_unit_order, by_unit_signatures, by_channels, by_tokens)

_SETTLED = 0.9  # share of units that makes further search pointless
_LOOK = -3.0  # log10 p (of chance) above which a basis aligns nothing
_SAME = 0.9  # a basis this near the identity is the identity
_OFFERED = 2  # bases at most, by each finder: p-values pay for those, too, that its first look ruled out


def find_bases(models: ModelPair, geometry: Evidence | None = None) -> list[Basis]:
    """Bases in which B may be compared with A, best first; never empty, the identity among them where widths agree.
    ``geometry``: what `unit_geometry` said, where it was asked.

    Each carries ``scores["agreed"]`` and ``scores["share"]`` (unit agreement on FFNs it was not fitted on),
    ``scores["log10_p_chance"]``, and ``candidates``: how many could have been offered. A signed permutation stands
    before a rotation that does no better. Search stops once a basis aligns nearly all units.
    """
    phase("rotations")
    scored: list[tuple[Basis, Score]] = []
    widths = {f for f in (_width(models, "a"), _width(models, "b")) if f}
    if len(widths) <= 1:
        scored.append((IDENTITY, score(models, IDENTITY)))
    tried = len(scored)
    for finder in FINDERS:
        if any(s.share >= _SETTLED for _, s in scored):
            break
        tried += _OFFERED
        for basis in by_unit_order(models, geometry) if finder is by_unit_order else finder(models):
            basis = replace(basis, fitted=with_copies(models, basis.fitted))
            if not _is_identity(basis):
                scored.append((basis, score(models, basis)))
    kept = [(b, s) for b, s in scored if b is IDENTITY or s.log10_p <= _LOOK or not s.tested]
    best = max((s.share for _, s in kept), default=0.0)
    kept = [(b, s) for b, s in kept if b is IDENTITY or s.share >= best / 2 or not s.tested]
    kept.sort(key=lambda found: (-round(found[1].share, 1), _RANK[found[0].kind], found[0].semantic))
    return [
        replace(
            b,
            candidates=max(tried, 1),
            scores={**b.scores, "agreed": s.agreed, "tested": s.tested, "share": s.share, "log10_p_chance": s.log10_p},
        )
        for b, s in kept or [(IDENTITY, Score(0, 0, 0.0))]
    ]


_RANK = {"identity": 0, "signed_permutation": 1, "rotation": 2}


def _width(models: ModelPair, label: str) -> int | None:
    from weightprint.fingerprint.ffns import ffns

    found = ffns(models.a if label == "a" else models.b)
    return found[0].width if found else None


def _is_identity(basis: Basis) -> bool:
    if basis.matrix is not None:
        rows, columns = basis.matrix.shape
        return bool(rows == columns and np.trace(basis.matrix) >= _SAME * rows)
    if basis.channels is None:
        return True
    own = basis.channels == np.arange(basis.channels.size)
    kept = own if basis.signs is None else own & (basis.signs > 0)
    return bool(kept.mean() >= _SAME)
