"""From facts to a verdict: rules in one table, read top to bottom, the first that holds decides.

Every line of :data:`RULES` names the tests it reads; the numbers it compares with, and where they come from, are in
:mod:`weightprint.verdict.thresholds`. Nothing here opens a file: the same facts give the same verdict anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weightprint.verdict.direction.direction import direction
from weightprint.verdict.facts import Facts
from weightprint.verdict.layer_map import layer_map
from weightprint.verdict.rules import RULES, Rule
from weightprint.verdict.values import Cues, Direction, ExpertMatch, LayerMatch, Name, Share
from weightprint.verdict.wording import against, in_favour, readings


@dataclass(frozen=True)
class Verdict:
    """What all tests together say.

    Attributes:
        name: one of identical, re_encoded, shared_origin, partly_shared, shared_initialisation, no_evidence,
            inconclusive.
        readings: the verdicts between which this evidence can't tell, ``name`` first: ``(name,)`` where it is the only
            one. Quick effort looks at too little to tell a whole from a part; and where a common random initialisation
            that was trained apart is not ruled out, it stands here.
        sentence: the verdict in one sentence.
        rule: the line of the table that decided, in words.
        reads: the tests that this line reads.
        log10_p: combined over the deciding tests and corrected, or None where none of them applied.
        share: see :class:`Share`.
        complete: True when nothing but trivial tensors is missing on either side.
        in_favour: what speaks for it.
        against: what speaks against it, or was not seen.
        direction: which side is later, how sure, and why.
        layer_map: for each layer of B.
        expert_map: for each expert that was found.
        stacks: for each stack of B's blocks (decoder, vision …) the verdict on it alone: ``no_evidence`` where it was
            looked for with power and not found, ``inconclusive`` where it was neither found nor ruled out. Empty where
            the whole is one of these.
    """

    name: Name
    sentence: str
    rule: str
    reads: tuple[str, ...]
    log10_p: float | None
    share: Share
    complete: bool
    in_favour: tuple[str, ...]
    against: tuple[str, ...]
    direction: Direction
    layer_map: tuple[LayerMatch, ...]
    expert_map: tuple[ExpertMatch, ...]
    readings: tuple[Name, ...]
    stacks: Mapping[str, Name] = field(default_factory=dict)

    @property
    def related(self) -> bool:
        """Something shared was found, so something was done to make one from the other."""
        return self.name not in _NOTHING


_NOTHING = ("inconclusive", "no_evidence")
_UNORDERED = (*_NOTHING, "shared_initialisation")
_NO_DIRECTION = Direction(None, None, "nothing shows that one was made from the other")
_NOT_ASKED = Direction(None, None, "quick effort reads too little to tell who came first")
_NOT_GATHERED = Direction(None, None, "no values were looked at that tell who came first")


def asks_direction(facts: Facts) -> bool:
    """A verdict on these facts says who came first, so the cues should be gathered."""
    return facts.models.effort != "quick" and _rule(facts).verdict not in _UNORDERED


def decide(facts: Facts, cues: Cues | None = None) -> Verdict:
    """Apply the table to the facts; ``cues`` of who came first, where they were gathered."""
    rule = _rule(facts)
    unordered = rule.verdict in _UNORDERED
    return Verdict(
        name=rule.verdict,
        sentence=rule.sentence(facts),
        rule=rule.told(facts.limits),
        reads=rule.reads,
        log10_p=facts.log10_p,
        share=Share(None, 0.0, 1.0) if unordered else facts.share,
        complete=facts.complete,
        in_favour=in_favour(rule.verdict, facts),
        against=against(rule.verdict, facts),
        direction=_NO_DIRECTION
        if unordered
        else _NOT_ASKED
        if facts.models.effort == "quick"
        else _NOT_GATHERED
        if cues is None
        else direction(cues),
        layer_map=layer_map(facts),
        expert_map=facts.maps.expert_map if facts.maps else (),
        readings=readings(rule.verdict, facts),
        stacks=_stacks(rule.verdict, facts),
    )


def _stacks(verdict: Name, facts: Facts) -> dict[str, Name]:
    if verdict in _NOTHING:
        return {}
    if verdict in ("identical", "re_encoded"):
        return dict.fromkeys(facts.stacks, verdict)
    found: Name = "shared_origin" if verdict == "partly_shared" else verdict
    words: dict[str, Name] = {
        "found": found, "in part": "partly_shared", "absent": "no_evidence", "open": "inconclusive"
    }  # fmt: skip
    return {stack: words[how] for stack, how in facts.stacks.items()}


def _rule(facts: Facts) -> Rule:
    return next(rule for rule in RULES if rule.holds(facts))
