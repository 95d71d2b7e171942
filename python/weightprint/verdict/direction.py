"""Which of two related models is the later one: signs that a difference has a direction.

Most differences have none: B - A says as little about who came first as A - B. A *sign* is a trace that one order
explains and the other doesn't: information that one side lost (rounding, zeros) while the two agree exactly in all
else, or structure that one side could only have by copying (repeated layers, experts alike). They are looked for by
:func:`weightprint.verdict.direction_cues.gather`. Signs that agree: the surest speaks. Signs that contradict each
other: nothing is claimed, and both are told.

Confidences are judgements of how often somebody would go the other way on purpose (fill the zeros of a sparse model,
train a dense model on a MoE's average expert); no share of a benchmark stands behind them, except where a row says so.
Left out because either order explains them: another width or depth alone, a sparse difference, noise, the larger
weights, the finer type; and anything lost beside training, since the other may be what was trained on from it.
"""

from __future__ import annotations

from weightprint.verdict.values import Cues, Direction

__all__ = ["direction"]


def direction(cues: Cues) -> Direction:
    """What the signs that were found say together."""
    found = cues.found
    if not found:
        hint = f"; {cues.hint}" if cues.hint else ""
        return Direction(None, None, f"nothing that was tested tells a parent from a child{hint}")
    if len({f.later for f in found}) > 1:
        told = "; but ".join(f.because for f in found)
        return Direction(None, None, f"the signs contradict each other: {told}")
    surest = sorted(found, key=lambda f: -f.confidence)
    return Direction(surest[0].later, surest[0].confidence, "; ".join(f.because for f in surest))
