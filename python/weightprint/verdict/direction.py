"""Which of two related models is the later one: signs that a difference has a direction.

Most differences have none: B - A says as little about who came first as A - B. A *sign* is a trace that one order
explains and the other doesn't: information that one side lost (rounding, zeros) while the two agree exactly in all
else, or structure that one side could only have by copying (repeated layers, experts alike). :data:`SIGNS` holds them,
one row each: a function that looks at values or at the tests' evidence and answers with the later side, a confidence
and why, or with nothing. Signs that agree: the surest speaks. Signs that contradict each other: nothing is claimed, and
both are told.

Confidences are judgements of how often somebody would go the other way on purpose (fill the zeros of a sparse model,
train a dense model on a MoE's average expert); no share of a benchmark stands behind them, except where a row says so.
Left out because either order explains them: another width or depth alone, a sparse difference, noise, the larger
weights, the finer type; and anything lost beside training, since the other may be what was trained on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import Models
from weightprint.verdict import direction_cues as _signs
from weightprint.verdict.direction_samples import Found, Seen

__all__ = ["SIGNS", "Sign", "direction"]

Holds = Callable[[Seen], Found | None]


@dataclass(frozen=True, slots=True)
class Sign:
    """One row of the table: a name and the look."""

    name: str
    holds: Holds


#: Every sign, in the order of the report.
SIGNS: tuple[Sign, ...] = (
    Sign("rounded", _signs.rounded),
    Sign("zeros", _signs.zeros),
    Sign("lattice", _signs.lattice),
    Sign("low rank", _signs.low_rank),
    Sign("vocabulary", _signs.vocabulary),
    Sign("experts", _signs.experts),
    Sign("repeated blocks", _signs.repeats),
    Sign("widened", _signs.new_units),
)


def direction(models: Models, evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    """The later side (``"a"``, ``"b"`` or None), how sure (0..1, None without a claim), and why, in a sentence."""
    seen = Seen(models, evidence)
    found = [f for sign in SIGNS if (f := sign.holds(seen)) is not None]
    sides = {f.later for f in found}
    if not found:
        hint = _signs.hint(seen)
        because = "nothing that was tested tells a parent from a child" + (f"; {hint}" if hint else "")
    elif len(sides) > 1:
        told = "; but ".join(f.because for f in found)
        because = f"the signs contradict each other: {told}"
    else:
        surest = sorted(found, key=lambda f: -f.confidence)
        return {
            "later": surest[0].later,
            "confidence": surest[0].confidence,
            "because": "; ".join(f.because for f in surest),
        }
    return {"later": None, "confidence": None, "because": because}
