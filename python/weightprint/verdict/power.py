"""Whether silence means anything: what was asked with power, and what was not."""

from __future__ import annotations

from collections.abc import Sequence

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.tests import OWN_BASIS, QUESTIONS
from weightprint.verdict.facts import Facts
from weightprint.verdict.thresholds import DETECTABLE
from weightprint.verdict.withheld import withheld


def lacks(facts: Facts) -> tuple[str, ...]:
    """Why silence would not be "no evidence": what was not looked for, or not sharply enough. Empty: it was."""
    # Tests as stored, and those that look for a basis themselves.
    own = [e for e in facts.evidence if e.basis == "identity" or e.test in OWN_BASIS]
    out: list[str] = []
    for side in (facts.models.a, facts.models.b):
        label, matrices = side.label.upper(), [t for t in side.tensors.values() if t.rank2]
        placed = sum(t.numel for t in matrices if t.place is not None and t.layer is not None)
        whole = sum(t.numel for t in matrices if t.place is None or t.layer is not None)
        if 2 * placed <= whole or not placed:
            out.append(f"most of {label} lies in tensors whose role is not known")
        spoilt = sum(t.numel for t in matrices if t.n_nan or t.n_infinite)
        if 2 * spoilt > sum(t.numel for t in matrices):
            out.append(f"most of {label} lies in matrices that hold NaN or Inf")
    if facts.models.effort == "quick":
        out.append("quick effort looks at units of the same number only, and at no alignment")
    for question, tests in QUESTIONS.items():
        answers = [e for e in facts.evidence if e.test in tests and e.applied and e in own]
        if not any((e.detectable or 0.0) <= DETECTABLE for e in answers):
            out.append(f"{question}: {_why(own, tests[-1])}")
    return (*out, *withheld(facts.evidence))


def _why(own: Sequence[Evidence], test: str) -> str:
    evidence = next((e for e in own if e.test == test), None)
    if test in OWN_BASIS:
        return f"one could be hidden there ({evidence.why_not or evidence.says if evidence else 'not looked for'})"
    if evidence is None:
        return f"{test} was not run"
    if not evidence.applied:
        return f"{test} could not be run: {evidence.why_not}"
    return f"{test} would not have seen an effect below {evidence.detectable or 0.0:.2f}"
