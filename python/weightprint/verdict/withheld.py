"""P-values that must not decide, for another test's sake: what two strangers may share without sharing weights.

*One mask.* Where both have zeros at the same places (:mod:`weightprint.evidence.common_zeros`), neither units nor
channels can be exchanged, and the tests that exchange them say nothing.

*A stream that was put in place.* One frozen embedding in both ties every residual channel to its place, and units that
do something with single tokens then agree by meaning; a stream turned onto A's does the same through the strong
directions. Neither is told by p. Permuting B's channels destroys such ties, so the count of agreeing units has no null
there; strangers reach a fifth to a third of an FFN's units that way. `unit_agreement` on the streams as stored
therefore decides alone only where it finds half of the units of some FFN, of the narrower one of the two
(:data:`weightprint.verdict.found_blocks.MOST`), or where :mod:`weightprint.evidence.convergence` finds what neither can
fake, and where token tables agree heads count by their order alone. Tests of the order of units say what they said:
meaning has no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.head_agreement import HeadAgreement
from weightprint.evidence.tests import EXCHANGING, OF_ORDER
from weightprint.evidence.thresholds import EFFECT, FITTED_EFFECT, LOG10_P
from weightprint.evidence.unit_agreement import UnitAgreement
from weightprint.verdict.thresholds import MOST

_KEPT_OUT = "; kept out of the verdict: "
#: Why they are withheld then.
MASKED = "both models have zeros at the same places, so their units and channels can't be exchanged"
_PLACED = (
    "fewer than half of any FFN's units agree, as they may in a stream that was turned onto A's or that one embedding "
    "holds in place"
)


def tied(evidence: Sequence[Evidence]) -> bool:
    """A token table of B agrees with A's, row by row or in place: what reads and writes the stream may then too."""
    for e in evidence:
        if e.basis != "identity" or not e.applied:
            continue
        if e.test == "aligned_weights" and any(r.name == "embedding" and r.excess >= EFFECT for r in e.regions):
            return True
        if e.test == "embeddings" and (e.effect or 0.0) >= EFFECT:
            return True
    return False


def qualified(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The same evidence; p-values that must not decide are None, with the reason in ``details["withheld"]``."""
    masked = any(e.test == "common_zeros" and e.applied for e in evidence)
    if masked:
        evidence = [_without(e, MASKED) if e.test in EXCHANGING else e for e in evidence]
    by_meaning = tied(evidence)
    if by_meaning:
        evidence = [_by_order(e) if e.test == "head_agreement" and e.basis == "identity" else e for e in evidence]
    others = (*OF_ORDER, "head_agreement") if by_meaning else (*OF_ORDER, "head_agreement", "aligned_weights")
    sure = any(e.test in others and e.basis == "identity" and _beyond(e) for e in evidence)
    converged = any(e.test == "convergence" and _beyond(e) and (e.effect or 0.0) >= FITTED_EFFECT for e in evidence)
    if not sure and not converged:
        evidence = [
            _without(e, _PLACED) if e.test == "unit_agreement" and (by_meaning or e.basis == "identity") else e
            for e in evidence
        ]
    return tuple(_said(e) for e in evidence)


def withheld(evidence: Sequence[Evidence]) -> tuple[str, ...]:
    """Why agreement beyond chance does not decide, a sentence for each test."""
    found = [f"{e.test}: {e.withheld}" for e in qualified(evidence) if e.applied and e.withheld]
    for e in evidence:
        if e.test == "embeddings" and e.applied and e.basis == "identity" and (e.effect or 0.0) >= MOST:
            found.append(f"{e.test}: {e.says}; a stream turned onto A's by its tokens would give as much")
    return tuple(dict.fromkeys(found))


def _beyond(e: Evidence) -> bool:
    return e.applied and e.log10_p is not None and e.log10_p <= LOG10_P


def _without(e: Evidence, why: str) -> Evidence:
    """Without its p-value; one that chance explains needs no reason."""
    if not _beyond(e) or (why == _PLACED and e.told(UnitAgreement).most >= MOST):
        return e
    return replace(e, log10_p=None).telling(withheld=why)


def _said(e: Evidence) -> Evidence:
    """With the reason in its sentence."""
    why = e.withheld if e.applied else None
    return replace(e, says=f"{e.says}{_KEPT_OUT}{why}") if why and _KEPT_OUT not in e.says else e


def _by_order(e: Evidence) -> Evidence:
    """Heads that carry the same tokens agree by meaning; which number they have doesn't."""
    return replace(e, log10_p=e.told(HeadAgreement).log10_p_order) if _beyond(e) else e
