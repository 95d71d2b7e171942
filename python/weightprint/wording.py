"""The sentences of a comparison: the verdict, what speaks for it, what speaks against it, and how strong that is.

Every sentence states what was measured and stops there. Names inside them are not escaped; whoever shows them does
that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightprint.facts import DECIDING, EFFECT, LOG10_P, NOT_TRIED, Facts

if TYPE_CHECKING:
    from weightprint.verdict import Rule

__all__ = ["against", "in_favour", "sentence", "strength"]

_LISTED = 4
_QUOTED = 100  # beyond 1 in 10^100 a broken assumption is likelier than chance; no more digits are worth quoting


def strength(verdict: str, log10_p: float | None) -> str:
    """The strength of a verdict in words."""
    if verdict == "identical":
        return "certain: equal digests (BLAKE3) of every tensor"
    if verdict == "re_encoded":
        return "certain: checked value by value"
    if verdict == "inconclusive":
        return "none: these tests can't decide"
    if log10_p is None or log10_p > -6:
        return "equal tensors, checked bit by bit"
    words = "strong" if log10_p > -20 else "very strong" if log10_p > -50 else "overwhelming"
    power = f"10^{-log10_p:.0f}" if log10_p > -_QUOTED else f"10^{_QUOTED}"
    return f"{words}: if the assumption below holds, chance does this at most once in {power} pairs"


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED:,} more" if len(names) > _LISTED else shown


def _plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def sentence(rule: Rule, facts: Facts) -> str:
    """The verdict in one sentence."""
    share = facts.share
    if rule.verdict == "identical":
        exact = facts.applied("exact_sharing")
        renamed = len(exact.details["renamed"]) if exact else 0
        return "A and B hold the same values, bit for bit" + (", under other names." if renamed else ".")
    if rule.verdict == "re_encoded":
        extra = "" if facts.complete else ", except for what is listed below"
        return f"B holds A's weights in another encoding{extra}: the same values, rounded and nothing else."
    if "holds all" in rule.words:
        if not facts.missing_in_a:
            return f"Everything in B is in A, value for value; A has {_plural(len(facts.missing_in_b), 'more tensor')}."
        return f"Everything in A is in B, value for value; B has {_plural(len(facts.missing_in_a), 'more tensor')}."
    if rule.verdict == "shared_origin":
        return "A and B share an origin: one descends from the other, or both from a third model or one initialisation."
    if rule.verdict == "partly_shared":
        low = 0.0 if share.value is None else share.value
        return f"A and B share a part: at least {low:.1%} of B's parameters are A's, and other parts were not found."
    return "These tests cannot say whether A and B share an origin."


def in_favour(rule: Rule, facts: Facts) -> tuple[str, ...]:
    """What speaks for the verdict, one sentence per test that the rule may rest on and that found something."""
    if rule.verdict == "inconclusive":
        return ()
    lines: list[str] = []
    exact, same = facts.applied("exact_sharing"), facts.applied("same_values")
    if exact and (exact.found or facts.equal_both_ways):
        lines.append(exact.says)
    if same and same.found:
        lines.append(same.says)
        scales = sum(f.kind == "parameter" for f in same.found)
        if scales:
            lines.append(f"{_plural(scales, 'further tensor')} of B hold exactly the scales of this quantisation")
    if facts.decisive:
        for test in ("aligned_weights", "aligned_units", "norm_gains"):
            evidence = facts.applied(test)
            if evidence and evidence.log10_p is not None and evidence.log10_p <= -3:
                lines.append(f"{evidence.says} (log10 p {evidence.log10_p:.1f})")
        blocks = [r for r in facts.found_regions if r.layer is not None]
        if blocks:
            tested = sum(r.layer is not None for r in facts.regions)
            lines.append(f"{len(blocks)} of {_plural(tested, 'block')} tested agree in place")
    return tuple(lines)


def against(rule: Rule, facts: Facts) -> tuple[str, ...]:
    """What speaks against the verdict, and what was not seen."""
    lines: list[str] = []
    if rule.verdict in ("identical", "re_encoded"):
        lines.extend(_missing(facts))
        lines.append("Equal weights do not say who made them first.")
        return tuple(lines)
    if facts.shown or facts.found_regions:
        lines.extend(_missing(facts) if facts.shown else ())
        lines.extend(_initialisation(facts))
        parts = [r.name for r in facts.absent_regions]
        if parts:
            lines.append(
                f"Not shared in place, although a cosine of .02 would have been seen: {_names(parts)}. "
                "The same parts in another order were not looked for."
            )
        unclear = [r.name for r in facts.regions if r not in facts.found_regions and r not in facts.absent_regions]
        if unclear:
            lines.append(f"Compared without power to tell: {_names(unclear)}.")
        untested = facts.share.high - facts.share.low
        if untested > 0.0005:
            lines.append(f"{untested:.1%} of B's parameters were not tested or not told apart.")
        lines.append("Who is the parent, and what was done to make the other, is not tested yet.")
        return tuple(lines)
    return (*_why_inconclusive(facts), *lines)


def _missing(facts: Facts) -> list[str]:
    """What differs: tensors of one name with other values, then what only one side has."""
    in_a, in_b = {t.name: t for t in facts.missing_in_b}, {t.name: t for t in facts.missing_in_a}
    changed = [name for name in in_b if name in in_a]
    groups = (
        ("Other values under the same name in A and B", [in_b[n] for n in changed], facts.models.b),
        ("In A, without an equal in B", [t for n, t in in_a.items() if n not in in_b], facts.models.a),
        ("In B, without an equal in A", [t for n, t in in_b.items() if n not in in_a], facts.models.b),
    )
    lines = []
    for words, tensors, side in groups:
        if tensors:
            part = sum(t.numel for t in tensors) / max(side.numel, 1)
            names = _names([t.name for t in tensors])
            lines.append(
                f"{words}: {_plural(len(tensors), 'tensor')}, {part:.1%} of {side.label.upper()}'s parameters "
                f"({names})."
            )
    return lines


def _initialisation(facts: Facts) -> list[str]:
    """Shared training against a shared random seed: what the weights allow one to say."""
    tensors = facts.models.b.tensors
    gains = [f.b for f in facts.copies if f.kind == "exact" and (r := tensors[f.b].role) and r.part == "norm"]
    if gains:
        return [
            f"A common random initialisation alone is ruled out if norm gains and biases started constant, as is "
            f"usual: "
            f"{_plural(len(gains), 'trained one')} of them {'is' if len(gains) == 1 else 'are'} equal bit for bit."
        ]
    lines = [
        "A common random initialisation would also leave agreement in place; these tests can't tell how much "
        "training was shared."
    ]
    norm = facts.applied("norm_gains")
    if norm and norm.log10_p is not None and norm.log10_p <= -3:
        lines.append(
            "Norm gains and biases, which start constant, agree too: both were trained with the same channels in "
            "the same "
            "places. One initialisation trained twice on similar data could do that as well."
        )
    return lines


def _why_inconclusive(facts: Facts) -> list[str]:
    lines = []
    unclear = [f.b for f in facts.copies if f.kind in ("exact", "re_encoded")]
    if unclear:
        lines.append(
            f"{_plural(len(unclear), 'tensor')} of B hold A's values, but no name says that they were learned; a "
            f"window or a filter bank is the same in strangers: {_names(unclear)}."
        )
    for test in DECIDING:
        evidence = facts.by_test.get(test)
        if evidence is None:
            continue
        if not evidence.applied:
            lines.append(f"{test} could not be run: {evidence.why_not}.")
            continue
        power = (
            f"; a cosine of about {evidence.detectable:.3f} would have been seen"
            if evidence.detectable is not None
            else ""
        )
        lines.append(f"{test}: {evidence.says} (log10 p {evidence.log10_p or 0:.1f}{power}).")
    if facts.decisive:
        lines.append(
            f"A p-value of log10 p {facts.log10_p:.1f} without any part reaching a cosine of {EFFECT:g} is not "
            f"taken as a finding."
        )
    elif facts.log10_p is not None:
        lines.append(f"A finding needs log10 p <= {LOG10_P:g} and a cosine of at least {EFFECT:g} in some part.")
    lines.append(f"Not tried yet, so this is not 'no evidence': {NOT_TRIED}.")
    lines.append("Distillation and shared training data leave no trace in weights.")
    return lines
