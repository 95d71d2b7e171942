"""From evidence to a verdict: rules in one table, read top to bottom, the first that holds decides.

Every line of :data:`RULES` names the tests it reads; the numbers it compares with, and where they come from, are in
:mod:`weightprint.facts`.

"no evidence" is not among the verdicts yet: permuted and rotated copies are not looked for, so silence here is
inconclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weightprint.evidence._base import Evidence, Models, Region
from weightprint.facts import DECIDING, EFFECT, LOG10_P, Facts, Share
from weightprint.wording import against, in_favour, sentence

__all__ = ["RULES", "Rule", "Verdict", "decide"]


@dataclass(frozen=True)
class Verdict:
    """What all tests together say.

    Attributes:
        name: one of identical, re_encoded, shared_origin, partly_shared, inconclusive.
        sentence: the verdict in one sentence.
        rule: the line of the table that decided, in words.
        reads: the tests that this line reads.
        log10_p: combined over the deciding tests and corrected, or None where none of them applied.
        share: see :class:`Share`.
        complete: True when nothing but trivial tensors is missing on either side.
        in_favour: what speaks for it.
        against: what speaks against it, or was not seen.
        direction: which side is later, how sure, and why.
        operations: what was done, as far as known.
        layer_map: [B's layer, A's layer or None, cosine] for each layer tested.
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
    layer_map: tuple[tuple[int, int | None, float | None], ...]


@dataclass(frozen=True)
class Rule:
    """One line of the table: a verdict, the condition, what it means in words, and the tests it reads."""

    verdict: str
    holds: Callable[[Facts], bool]
    words: str
    reads: tuple[str, ...]


_COPY = ("exact_sharing", "same_values")

RULES: tuple[Rule, ...] = (
    Rule(
        "identical",
        lambda f: f.equal_both_ways,
        "every tensor of either model is in the other, bit for bit",
        ("exact_sharing",),
    ),
    Rule(
        "re_encoded",
        lambda f: bool(f.re_encoded) and (f.complete or f.missing_outside_blocks_only),
        "every value of every block of either model is a value of the other in another encoding",
        _COPY,
    ),
    Rule(
        "shared_origin",
        lambda f: bool(f.shown) and (not f.missing_in_a or not f.missing_in_b),
        "one model holds all of the other, value for value, and more",
        _COPY,
    ),
    Rule(
        "partly_shared",
        lambda f: bool(f.found_regions) and bool(f.absent_blocks),
        f"some blocks agree (log10 p <= {LOG10_P:g} and cosine >= {EFFECT:g}), others were tested with power and do "
        f"not",
        DECIDING,
    ),
    Rule(
        "shared_origin",
        lambda f: any(r.layer is not None for r in f.found_regions) or f.units_only,
        f"channels or hidden units find themselves again (log10 p <= {LOG10_P:g}) in blocks with cosine >= {EFFECT:g}",
        DECIDING,
    ),
    Rule(
        "partly_shared",
        lambda f: bool(f.shown) or bool(f.found_regions),
        "some tensors are equal or agree, and no more than these was shown",
        (*_COPY, *DECIDING),
    ),
    Rule("inconclusive", lambda f: True, "no test that may decide found enough", (*_COPY, *DECIDING)),
)


def decide(models: Models, evidence: Sequence[Evidence]) -> Verdict:
    """Apply the table to the evidence."""
    facts = Facts(models, {e.test: e for e in evidence})
    rule = next(rule for rule in RULES if rule.holds(facts))
    return Verdict(
        name=rule.verdict,
        sentence=sentence(rule, facts),
        rule=rule.words,
        reads=rule.reads,
        log10_p=facts.log10_p,
        share=facts.share if rule.verdict != "inconclusive" else Share(None, 0.0, 1.0),
        complete=facts.complete,
        in_favour=in_favour(rule, facts),
        against=against(rule, facts),
        direction=_direction(facts),
        operations=_operations(facts),
        layer_map=_layer_map(facts),
    )


def _direction(facts: Facts) -> dict[str, Any]:
    same = facts.applied("same_values")
    later = same.details["later"] if same and facts.re_encoded else None
    if later is None:
        return {"later": None, "confidence": None, "because": "nothing that was tested tells a parent from a child"}
    other = "b" if later == "a" else "a"
    because = (
        f"{later.upper()} is {other.upper()} rounded, and {other.upper()} holds the bits that {later.upper()} lost, "
        f"unless someone "
        "made those bits up afterwards"
    )
    return {"later": later, "confidence": 0.9, "because": because}


def _operations(facts: Facts) -> tuple[dict[str, Any], ...]:
    """Only what exact arithmetic shows: renaming and re-encoding. Everything else is a later stage's."""
    done: list[dict[str, Any]] = []
    exact, same = facts.applied("exact_sharing"), facts.applied("same_values")
    if exact and exact.details["renamed"]:
        done.append(_operation("rename", {"tensors": len(exact.details["renamed"])}, "equal tensors"))
    how: dict[str, str] = same.details["how"] if same else {}
    for name, words in (("re_dtype", ("a cast",)), ("quantise", ("scale",)), ("transpose", ("transposed",))):
        chosen = [h for h in how.values() if any(w in h for w in words)]
        if chosen:
            done.append(_operation(name, {"how": sorted(set(chosen))}, f"{len(chosen)} tensors"))
    return tuple(done)


def _operation(name: str, parameters: dict[str, Any], where: str) -> dict[str, Any]:
    return {"name": name, "parameters": parameters, "confidence": 1.0, "where": where}


def _layer_map(facts: Facts) -> tuple[tuple[int, int | None, float | None], ...]:
    """Layer by layer in place, for the stack with the most layers that were tested."""
    stacks: dict[str, list[Region]] = {}
    for region in facts.regions:
        if region.layer is not None:
            stacks.setdefault(region.name.rsplit(".", 1)[0], []).append(region)
    if not stacks:
        return ()
    found = {r.name for r in facts.found_regions}
    rows = max(stacks.values(), key=len)
    return tuple((r.layer, r.layer if r.name in found else None, r.effect) for r in rows if r.layer is not None)
