"""Which of two related models is the later one, or are they siblings?

*Signs.* A trace that one order explains and the other doesn't: information that one side lost (rounding, zeros) while
the two agree exactly in all else, or structure that one side could only have by copying (repeated layers, experts
alike). They are looked for by :func:`weightprint.verdict.direction.cues.gather`. Their confidences are judgements of
how often somebody would go the other way on purpose; no share of a benchmark stands behind them.

*Where the two parted* (:mod:`weightprint.verdict.direction.parting`): t = 0 if B was made from A, 1 if A was made from
B, between for siblings. Confidences are measured (:data:`MEASURED`). It claims descent only where decay goes the same
way, since a mean of relatives lies between them and the origin and looks like the ancestor of both, but lets go of
nothing; for the same reason t far beyond 1 without decay shows such a mean. What is nearly an ancestor (the sibling
whose own branch is short, or an ancestor's copy with something exact done to it) looks like one, to within the square
of that branch; and of siblings trained on the same data one looks like the other's ancestor however far both went. So
the later one is named, and whether it comes from the other is left open, unless they are so near that it makes no
difference, or a sign speaks too.

What agrees is told together. Signs that name both sides, or a sign and a child by decay on the other side, mean
siblings: each lacks what the other holds. Where both hold something new, a sign tells what was done to one of the two
since. Matrices that are the other's, rounded to a grid, end a claim that the other was made from them: a projection or
another edit that is followed by quantisation looks like training backwards. Whatever else contradicts claims nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from weightprint.verdict.direction.samples import names
from weightprint.verdict.values import Cues, Direction, Label, Parting

# Looked at on the fit side of the lineage benchmark only.
_SD = 0.3  # a standard deviation of t above it says nothing
_APART = 0.4  # between both sides' t: more is no parting but something else, such as changed scales
_WHOLE = 0.2  # t of an ancestor from sketches, its whole interval
_NEAR, _BEFORE = 0.12, -0.3  # t of an ancestor, and the least that one may read
_BETWEEN, _SHARP = (0.1, 0.9), 0.5  # siblings' whole interval, and how wide it may be
_FAR = 0.15  # siblings' difference; nearer ones may be means of relatives
_AS_GOOD = 0.05  # of the weights: an ancestor's sibling that is so near is as good as the ancestor
_PULL = 0.3  # decay of what was trained on; in means of relatives it is below
_SHRUNK, _SMALL, _MEAN_PULL = 1.1, 0.3, 0.45  # t of a mean from its main parent; the largest difference; any decay
_SCALES = (0.8, 1.25)
_NOISE = 0.5  # largest noise, of the weights' size
_BY_CHANCE, _ROUNDED = 3, 0.02  # standard deviations of plain t that noise reaches, and what rounding adds
_WHITE, _EXACT = 1.1, 0.3  # times the largest singular value of white noise; plain t, with two standard deviations
_EXACTLY = 0.01  # standard deviations of plain t: chance leaves as little once in 125 times
_ZEROED = 0.01  # pruning by size keeps what grew, which bends t
_OPEN = 3  # standard deviations that a sketch leaves open: within them of 0 it may be a projection
_OTHER, _SIDE, _SURE = 0.9, 0.08, 0.05  # of a merge with a stranger: what is left of A; |t|, and its standard deviation


#: Pairs that the counts below are of: every descent of the lineage benchmark's test side, and a sample of its siblings.
_DESCENTS, _SIBLINGS = 229, 72


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How often a claim was right and wrong among descents and among siblings: pairs that no limit was chosen on."""

    descents: tuple[int, int]
    siblings: tuple[int, int]
    roots: int
    pairs: tuple[int, int] = (_DESCENTS, _SIBLINGS)

    @property
    def confidence(self) -> float:
        """How often it is right if descents and siblings are equally common; half a case of each is added."""
        right, wrong = (
            (of_descents + 0.5) / self.pairs[0] + (of_siblings + 0.5) / self.pairs[1]
            for of_descents, of_siblings in zip(self.descents, self.siblings, strict=True)
        )
        return round(right / (right + wrong), 2)


#: By claim. A later one of siblings counts as right where the other still is what they parted from to within 5 % of its
#: weights, and as wrong where both went further.
MEASURED: dict[str, Outcomes] = {
    "descent": Outcomes((90, 0), (16, 6), 12),
    "siblings": Outcomes((0, 3), (13, 0), 6),
    "each the later": Outcomes((0, 0), (3, 0), 3),
    "mean of relatives": Outcomes((1, 0), (0, 0), 1),
    "merge with another": Outcomes((9, 0), (7, 1), 3),
    "noise": Outcomes((2, 0), (0, 0), 2),
    "descent, from sketches": Outcomes((17, 0), (2, 3), 8, pairs=(188, 145)),
}


@dataclass(frozen=True, slots=True)
class _Claim:
    """What the parting says; ``name``: a row of :data:`MEASURED`, None where it claims nothing."""

    name: str | None
    later: Label | None
    relation: Literal["descent", "siblings"] | None
    because: str


def direction(cues: Cues) -> Direction:
    """What the signs that were found and the parting say together."""
    found, parting = cues.found, cues.parting
    claim = relation(parting)
    if {f.later for f in found} == {"a", "b"}:
        told = "; but ".join(f.because for f in found)
        because = f"each lacks what the other holds, or was given what the other lacks: {told}"
        return Direction(None, MEASURED["each the later"].confidence, because, "siblings", measured=parting)
    coarser = cues.coarser
    if found and coarser is not None and found[0].later == coarser.later != claim.later:
        claim = _Claim(None, None, None, "")
    if found and claim.later is not None and claim.later != found[0].later:
        told = f"{'; '.join(f.because for f in found)}; but {claim.because}"
        if claim.name != "descent":
            return Direction(None, None, f"the signs contradict each other: {told}", measured=parting)
        because = f"each holds something new: {told}"
        return Direction(None, MEASURED["each the later"].confidence, because, "siblings", measured=parting)
    if coarser is not None and not found and claim.later not in (None, coarser.later):
        told = f"{coarser.because}; but {claim.because}"
        return Direction(None, None, f"the signs contradict each other: {told}", measured=parting)
    if claim.relation == "siblings" and parting is not None:
        at = (parting.t, parting.low, parting.high)
        because = "; ".join([claim.because, *(f.because for f in found)])  # what was done to one since they parted
        return Direction(None, MEASURED["siblings"].confidence, because, "siblings", at, parting)
    if not found and claim.later is None:
        hint = f"; {cues.hint}" if cues.hint else ""
        return Direction(None, None, f"{claim.because}{hint}", measured=parting)
    surest = sorted(((f.confidence, f.because) for f in found), reverse=True)
    if claim.name is not None:
        surest.append((MEASURED[claim.name].confidence, claim.because))
    later = found[0].later if found else claim.later
    because = "; ".join(why for _, why in surest)
    sure = max(sure for sure, _ in surest)
    return Direction(later, sure, because, "descent" if found else claim.relation, measured=parting)


def relation(parting: Parting | None) -> _Claim:
    """What the parting alone says: the first row that holds, read from A to B and from B to A. Its relation is open
    where the earlier one may be a sibling of the later one that moved less."""
    if parting is None:
        return _Claim(None, None, None, "nothing that was tested tells a parent from a child: no new values to compare")
    ways: tuple[tuple[Label, Parting], ...] = (("b", parting), ("a", mirrored(parting)))
    for holds, name, because in _CLAIMS:
        for later, read in ways:
            claim = name if not read.sketched else _OF_SKETCHES.get(name) if _told_by_sketches(read) else None
            if claim is not None and holds(read):
                told, other = because(read, *names(later)), names(later)[1]
                if name in _DESCENT or parting.relative < _AS_GOOD:
                    return _Claim(claim, later, "descent", told)
                return _Claim(claim, later, None, f"{told}; or they are siblings, and {other} moved much less")
    for stops, why in _ABSTENTIONS:
        if stops(parting):
            return _Claim(None, None, None, f"nothing that was tested tells a parent from a child: {why(parting)}")
    told = f"both hold something new; they parted at {_t(parting)} of the way from A (0) to B (1), unless one is a mean"
    return _Claim("siblings", None, "siblings", f"{told} of the other and a relative")


def mirrored(p: Parting) -> Parting:
    """The same parting on the way from B to A."""
    return replace(
        p,
        t=1 - p.t,
        low=1 - p.high,
        high=1 - p.low,
        of_a=1 - p.of_b,
        of_b=1 - p.of_a,
        sd_of_a=p.sd_of_b,
        sd_of_b=p.sd_of_a,
        within_kinds=1 - p.within_kinds,
        kept=p.kept[::-1],
        pull=-p.pull,
        plain=1 - p.plain,
        kinds={kind: (1 - high, 1 - t, 1 - low) for kind, (low, t, high) in p.kinds.items()},
    )


# Rows: does it hold, read so that the second model would be the later one; name; why


def _merged(p: Parting) -> bool:
    """The earlier one's side is sharp, and less is left of it than decay leaves; the other side makes no sense."""
    sharp = abs(p.of_a) < _SIDE and p.sd_of_a < _SURE and 0 < p.kept[0] < _OTHER
    other = p.sd_of_b <= _SD and (abs(p.of_b - 1) < 2 * _SIDE or 0 < p.kept[1] < 1 / _OTHER)
    return sharp and not other


def _measurable(p: Parting) -> bool:
    kept = all(_SCALES[0] < c < _SCALES[1] for c in p.kept)
    return max(p.sd_of_a, p.sd_of_b) <= _SD and abs(p.of_a - p.of_b) <= _APART and kept


def _between(p: Parting) -> bool:
    return _BETWEEN[0] <= p.t <= _BETWEEN[1]


def _trained(p: Parting) -> bool:
    """The earlier one is where they parted, and the later one let go of a part of it. Training is orthogonal to it
    within chance; what is far more so is what a projection took from the other one."""
    projected = abs(p.plain) <= max(_EXACTLY / (p.relative * math.sqrt(p.values)), _OPEN * p.sd_of_plain)
    return not projected and _measurable(p) and p.pull >= _PULL and p.t <= _NEAR and p.high >= _BEFORE


def _mean(p: Parting) -> bool:
    """The later one holds less new than an ancestor would have, without decay."""
    whole = p.zeroed < _ZEROED and p.relative < _SMALL
    return whole and _measurable(p) and abs(p.pull) < _MEAN_PULL and p.low > _SHRUNK


def _noised(p: Parting) -> bool:
    """Nothing but white noise was added, which no mean of relatives differs by; it knows nothing of the earlier one.
    Half the weights' size of it leaves no model: such a difference is what a projection or a mean of strangers lost.
    What codes lose is white as well, and orthogonal to the codes: there it says nothing."""
    sd = 1 / (p.relative * math.sqrt(p.values))
    white = p.edge is not None and p.edge <= _WHITE
    orthogonal = abs(p.plain) <= max(_BY_CHANCE * sd, _ROUNDED) and abs(p.plain) + 2 * sd <= _EXACT
    return not p.coded and p.relative < _NOISE and white and p.zeroed < _ZEROED and orthogonal


def _because_trained(p: Parting, this: str, other: str) -> str:
    lost = f"{(1 - p.kept[0]) * 100:.2g} %"
    return (
        f"what {this} has beyond {other} knows nothing of {other} (they parted at {p.t:.2f} [{p.low:.2f}, "
        f"{p.high:.2f}] of the way from it), and {this} let go of {lost} of {other}, as weight decay does: {this} was "
        f"trained on from {other}, or from what {other} still holds"
    )


def _because_mean(p: Parting, this: str, other: str) -> str:
    return (
        f"{this} holds a smaller part of {other} than an ancestor of it would (t = {p.t:.2f} [{p.low:.2f}, "
        f"{p.high:.2f}] from {other}), and lost nothing by decay: {this} is a mean of {other} and a relative of it"
    )


def _because_noised(p: Parting, this: str, other: str) -> str:
    return f"{this} is {other} plus white noise ({p.relative:.2g} of its size) that knows nothing of {other}"


def _because_merged(p: Parting, this: str, other: str) -> str:
    return (
        f"{this} is {p.kept[0]:.2f} times {other} plus something that owes nothing to {other}, as a merge with another "
        "model or very long training leaves it"
    )


_CLAIMS: tuple[tuple[Callable[[Parting], bool], str, Callable[[Parting, str, str], str]], ...] = (
    (_merged, "merge with another", _because_merged),
    (_trained, "descent", _because_trained),
    (_mean, "mean of relatives", _because_mean),
    (_noised, "noise", _because_noised),
)
#: Those that a sibling does not make.
_DESCENT = {"mean of relatives"}


#: What sketches may claim, and its row of :data:`MEASURED`; the rest hangs on values.
_OF_SKETCHES = {"descent": "descent, from sketches"}


def _told_by_sketches(p: Parting) -> bool:
    """Nothing was taken from either or given to it that would be another sign, the whole interval is an ancestor's,
    and no mean of relatives has as much decay."""
    whole = p.same_parts and not p.coded and p.zeroed < _ZEROED
    return whole and p.low >= _BEFORE and p.high <= _WHOLE and p.pull >= _MEAN_PULL


def _t(p: Parting) -> str:
    return f"t = {p.t:.2f} [{p.low:.2f}, {p.high:.2f}]"


#: Why nothing is claimed, the first that holds.
_ABSTENTIONS: tuple[tuple[Callable[[Parting], bool], Callable[[Parting], str]], ...] = (
    (lambda p: p.sketched, lambda p: f"sketches of {p.matrices} matrices put where they parted at {_t(p)}"),
    (
        lambda p: max(p.sd_of_a, p.sd_of_b) > _SD,
        lambda p: f"the difference ({p.relative:.1%} of the weights) is too small or too even to say where they parted",
    ),
    (
        lambda p: not _measurable(p),
        lambda p: (
            f"read from A they parted at t = {p.of_a:.2f}, from B at {p.of_b:.2f}: a change of scale, a merge or "
            "units put elsewhere bends it"
        ),
    ),
    (
        lambda p: _between(p) and (p.low < _BETWEEN[0] or p.high > _BETWEEN[1] or p.high - p.low > _SHARP),
        lambda p: f"{_t(p)} is not sharp enough to call them siblings",
    ),
    (
        lambda p: _between(p) and p.relative < _FAR,
        lambda p: (
            f"{_t(p)}, and they differ by {p.relative:.0%} of the weights only: siblings do so, and so does a mean of "
            "one and a relative from that one"
        ),
    ),
    (
        lambda p: p.zeroed >= _ZEROED,
        lambda p: f"{p.zeroed:.0%} of the values are zero on one side only; pruning by size bends where they parted",
    ),
    (
        lambda p: not _between(p) and abs(p.pull) < _PULL,
        lambda p: f"{_t(p)} without decay, which a parent has, and so has a mean of relatives",
    ),
    (
        lambda p: not _between(p),
        lambda p: f"{_t(p)}: nearly an ancestor, and not quite one",
    ),
)
