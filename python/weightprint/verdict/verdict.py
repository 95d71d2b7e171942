"""From evidence to a verdict: rules in one table, read top to bottom, the first that holds decides.

Every line of :data:`RULES` names the tests it reads; the numbers it compares with, and where they come from, are in
:mod:`weightprint.verdict.facts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import Models
from weightprint.operations.base import Row
from weightprint.operations.table import operations
from weightprint.verdict.direction import direction
from weightprint.verdict.facts import Facts
from weightprint.verdict.found_blocks import Share
from weightprint.verdict.layer_map import LayerMap, layer_map
from weightprint.verdict.mirrored import mirrored
from weightprint.verdict.rules import RULES
from weightprint.verdict.wording import against, in_favour, readings, sentence

__all__ = ["Verdict", "decide"]


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
        operations: what was done, as far as known, told from the earlier model to the later one; where nobody knows
            which that is, the reading from A to B.
        told_from: which model the operations start from, ``"a"`` or ``"b"``; None where either may be the earlier one.
        operations_if: then what was done if A was there first, from A to B (``"a_first"``), and if B was
            (``"b_first"``); else empty.
        layer_map: [B's layer, A's layer or None, share of units or cosine] for each layer of B.
        expert_map: [B's layer, expert, A's layer, share of units, A's expert, first and last + 1 of A's units] for each
            expert that was found; None for a dense FFN, and for units that lie scattered.
    """

    name: str
    sentence: str
    rule: str
    reads: tuple[str, ...]
    log10_p: float | None
    share: Share
    complete: bool
    in_favour: tuple[str, ...]
    against: tuple[str, ...]
    direction: Mapping[str, Any]
    operations: tuple[Mapping[str, Any], ...]
    layer_map: LayerMap
    expert_map: tuple[tuple[Any, ...], ...]
    readings: tuple[str, ...] = ()
    told_from: str | None = None
    operations_if: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)


_NOTHING = ("inconclusive", "no_evidence")
_NO_DIRECTION = {"later": None, "confidence": None, "because": "nothing shows that one was made from the other"}
_NOT_ASKED = {"later": None, "confidence": None, "because": "quick effort reads too little to tell who came first"}


def decide(models: Models, evidence: Sequence[Evidence]) -> Verdict:
    """Apply the table to the evidence."""
    facts = Facts(models, tuple(evidence))
    rule = next(rule for rule in RULES if rule.holds(facts))
    nothing = rule.verdict in _NOTHING
    order = (
        _NO_DIRECTION
        if nothing or rule.verdict == "shared_initialisation"
        else _NOT_ASKED
        if models.effort == "quick"
        else direction(models, facts.by_test)
    )
    told_from = {"a": "b", "b": "a", None: None}[order["later"]]
    ways = {} if nothing else _read(facts, told_from)
    return Verdict(
        name=rule.verdict,
        sentence=sentence(rule, facts),
        rule=rule.words,
        reads=rule.reads,
        log10_p=facts.log10_p,
        share=Share(None, 0.0, 1.0) if nothing or rule.verdict == "shared_initialisation" else facts.share,
        complete=facts.complete,
        in_favour=in_favour(rule, facts),
        against=against(rule, facts),
        direction=order,
        operations=next(iter(ways.values()), ()),
        layer_map=layer_map(facts),
        expert_map=tuple(tuple(row) for row in facts.maps.expert_map) if facts.maps else (),
        readings=readings(rule.verdict, facts),
        told_from=told_from,
        operations_if=ways if told_from is None else {},
    )


def _read(facts: Facts, told_from: str | None) -> dict[str, tuple[Row, ...]]:
    """Operations from the model that was there first to the other; both ways where nobody knows which that is."""
    out = {"a_first": operations(facts)} if told_from != "b" else {}
    return out if told_from == "a" else out | {"b_first": operations(mirrored(facts))}
