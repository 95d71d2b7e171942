"""Compare fingerprints: every test that can be answered from what was kept, on the view that it needs.

A live model on the other side is fingerprinted first, so both are seen through the same few rows and units. A test that
only weights can answer is not applied, says what it would need, and so does the verdict. Nothing is called equal,
related or independent here that the weights would not show: digests are of all values, the nulls of channels, units and
heads hold for any choice that looks at one model alone, and the tests that give silence its power do not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from weightprint.evidence.budget import KEPT
from weightprint.evidence.evidence import Evidence, UnitMatch, not_applied
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.pairing import pair_tensors
from weightprint.evidence.test import NEEDS, Test
from weightprint.evidence.tests import TESTS
from weightprint.fingerprint.ffns import ffns
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.fingerprint.live import finite_view
from weightprint.fingerprint.stored import View, check_plans, view
from weightprint.util import parallel
from weightprint.util.arrays import Indices
from weightprint.verdict.direction.sketched import sketched_parting
from weightprint.verdict.values import Cues
from weightprint.verdict.withheld import qualified

__all__ = ["gather_kept", "pair_of", "told_by_sketches"]

_UNASKED = Evidence(test="", asked="", applied=False, null="none: not run", assumes="nothing", blind_to="everything")


def pair_of(a: Fingerprint, b: Fingerprint, kind: View = "identity") -> ModelPair:
    """Two fingerprints as tests of this kind see them. Raises UsageError as `check_plans` does."""
    check_plans(a, b)
    ours, theirs = view(a, kind, "a"), view(b, kind, "b")
    if kind != "identity":
        ours, theirs = finite_view(ours), finite_view(theirs)
    pairs, log10_pairings = pair_tensors(ours, theirs, values=kind != "identity")
    effort = "standard" if kind == "identity" else KEPT
    return ModelPair(ours, theirs, pairs, log10_pairings, a.plan.seed, effort)


def gather_kept(a: Fingerprint, b: Fingerprint, tests: Sequence[Test] = TESTS) -> tuple[Evidence, ...]:
    """Every test's answer from two fingerprints, in the order of the report."""
    run = [test for test in tests if test.unasked]
    kinds = dict.fromkeys(test.kept for test in run if test.kept is not None)
    views: dict[View, ModelPair] = {kind: pair_of(a, b, kind) for kind in kinds}

    def answer(test: Test) -> Evidence:
        if test.kept is None:
            question = (test.run.__doc__ or "").partition("\n")[0]
            return not_applied(replace(_UNASKED, test=test.name, asked=question), f"{NEEDS}{test.needs}")
        return _numbered(test(views[test.kept]), a, b, test.kept)

    return qualified(tuple(parallel.each(answer, run, ahead=len(run))))


def told_by_sketches(a: Fingerprint, b: Fingerprint) -> Cues:
    """Who came first, as far as linear sketches tell."""
    return Cues((), f"{NEEDS}what rounding, zeros, low rank and lone parts show", sketched_parting(a, b))


def _numbered(evidence: Evidence, a: Fingerprint, b: Fingerprint, kind: View) -> Evidence:
    """With the numbers that units have in their FFN, where a test knows their places among what was kept."""
    if kind not in ("units", "rows", "angles") or not evidence.matches:
        return evidence
    of_a, of_b = _numbers(a, kind), _numbers(b, kind)

    def told(match: UnitMatch) -> UnitMatch:
        ours, theirs = of_a.get(match.a), of_b.get(match.b)
        if match.units is None or ours is None or theirs is None or not match.units.size:
            return match
        return replace(match, units=np.stack([theirs[match.units[:, 0]], ours[match.units[:, 1]]], axis=1))

    matches, others = (tuple(map(told, found)) for found in (evidence.matches, evidence.others))
    return replace(evidence, matches=matches, others=others)


def _numbers(of: Fingerprint, kind: View) -> dict[object, Indices]:
    """FFN → the numbers of its kept units."""
    kept = of.part("units")
    out: dict[object, Indices] = {}
    for ffn in ffns(view(of, "identity", "a")):
        if kind == "angles":
            out[ffn.key] = of.plan.numbered(ffn.units, of.plan.angles)
        elif ffn.name in kept:
            out[ffn.key] = kept[ffn.name]["units"].astype(np.int64)
    return out
