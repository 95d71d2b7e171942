"""The sentences of a comparison: the verdict, what speaks for it, what speaks against it, and how strong that is.

Every sentence states what was measured and stops there. Names inside them are not escaped; whoever shows them does
that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.exact_sharing import ExactSharing
from weightprint.evidence.same_values import SameValues
from weightprint.evidence.test import NEEDS
from weightprint.evidence.tests import DECIDING, OWN_BASIS, SUPPORTING
from weightprint.evidence.training_shared import TrainingShared
from weightprint.evidence.unit_agreement import UnitAgreement
from weightprint.fingerprint.ffns import ffns
from weightprint.verdict.absent_parts import stacked_layers
from weightprint.verdict.facts import Facts
from weightprint.verdict.power import lacks
from weightprint.verdict.values import Name

_LISTED = 4
_LITTLE = 0.005  # of B's parameters


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED:,} more" if len(names) > _LISTED else shown


def _plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def headline(readings: Sequence[str]) -> str:
    """The verdict in a few words, ``"shared origin or a part of it"``."""
    name = readings[0].replace("re_encoded", "re-encoded").replace("_", " ")
    return f"{name} or a part of it" if readings[0] == "shared_origin" and "partly_shared" in readings else name


def readings(verdict: Name, facts: Facts) -> tuple[Name, ...]:
    """The verdicts between which the evidence can't tell, the given one first."""
    if verdict == "shared_initialisation" and facts.descent_open:
        return (verdict, "shared_origin")
    if verdict not in ("shared_origin", "partly_shared") or facts.shown or facts.equal_both_ways or facts.same_but:
        return (verdict,)
    out: list[Name] = [verdict]
    if verdict == "shared_origin" and facts.models.effort == "quick":
        out.append("partly_shared")
    if (facts.blocks or facts.units_only) and facts.initialisation_open and not facts.absent.names:
        out.append("shared_initialisation")
    return tuple(out)


def identical(facts: Facts) -> str:
    """Of equal bytes, under whatever names."""
    exact = facts.told(ExactSharing)
    renamed = sum(x.partition("[")[0] != y.partition("[")[0] for x, y in exact.renamed) if exact else 0
    tied = [
        f"; {_names([*names])} of {side} {'is' if len(names) == 1 else 'are'} tied in {other}, and stored in {side}"
        for side, other, names in (("A", "B", facts.tied[0]), ("B", "A", facts.tied[1]))
        if names
    ]
    renamed -= len(facts.tied[1])
    tied.append(_turned(facts))
    if exact is not None and exact.one_file:
        return "A and B are the same file, so they hold the same values; none was compared."
    return f"A and B hold the same values, bit for bit{', under other names' if renamed > 0 else ''}{''.join(tied)}."


def _turned(facts: Facts) -> str:
    n = len(facts.turned)
    return f"; {_plural(n, 'tensor')} stored transposed" if n else ""


def moved(facts: Facts) -> str:
    """Of equal bytes at other places."""
    tensors = _plural(len(facts.moved), "tensor")
    within = Counter(facts.exchanged_roles.values())
    what = (
        "; ".join(words for words, _ in within.most_common(4)) if len(facts.exchanged_roles) == len(facts.moved) else ""
    )
    what = what or _experts_moved(facts) or "layers were moved"
    return f"A and B hold the same tensors, value for value, but {tensors} stand at another place: {what}."


def _experts_moved(facts: Facts) -> str:
    """Of experts under other numbers in their own block, whether or not the router's rows are; empty elsewhere."""
    a, b = facts.models.a.tensors, facts.models.b.tensors
    of_a = {f.b: a[f.a].place for f in facts.copies if f.kind == "exact"}
    for name in facts.moved:
        here, there = b[name].place, of_a[name]
        if here is None or there is None or here.expert is None or (here.block, here.role) != (there.block, there.role):
            return ""
    blocks = {b[name].region for name in facts.moved}
    stay = [p for p in facts.models.pairs if p.b.region in blocks and p.b.place and p.b.place.role == "router"]
    kept = any(p.a.digest == p.b.digest for p in stay)
    return "experts stand under other numbers" + (", and the routers as they stood: not the same function" * kept)


def re_encoded(facts: Facts) -> str:
    """Of equal values in another encoding."""
    extra = "" if facts.complete else ", except for what is listed below"
    same = facts.told(SameValues)
    rounded = "rounded" if same is None or same.later is not None else "rounded at most"
    return (
        f"B holds A's weights in another encoding{extra}: the same values, {rounded} and nothing else{_turned(facts)}."
    )


def same_but(facts: Facts) -> str:
    """Of values that are the other's times a factor, or in another order."""
    what = [factors(facts)] * bool(facts.scaled) + [_orders(facts)] * bool(facts.reordered)
    return f"A and B hold the same values, except that {', and '.join(what)}."


def _orders(facts: Facts) -> str:
    """How many tensors hold the other's values in another order, or read as something else, and how, in words."""
    same = facts.told(SameValues)
    orders, read = Counter[str](), Counter[str]()
    for o in same.reordered.values() if same else ():
        (read if o.get("read") else orders).update((o["order"],))
    orders.update(same.regrouped.values() if same else ())
    kinds = (
        ("holds A's", "hold A's", " in another order", orders),
        ("is one of A's", "are A's", " read otherwise", read),
    )
    return " and ".join(
        f"{_plural(n, 'tensor')} of B {one if n == 1 else more}{how} ({_most(found)})"
        for one, more, how, found in kinds
        if (n := found.total())
    )


def _most(found: Counter[str]) -> str:
    return "; ".join(words for words, _ in found.most_common(3)) + ("; …" if len(found) > 3 else "")


def shared_origin(facts: Facts) -> str:
    """Of blocks that agree."""
    if "partly_shared" in readings("shared_origin", facts):
        return (
            "A and B share an origin or a part of it: quick effort reads too little to tell a whole model from a "
            "part, or from one random initialisation."
        )
    return "A and B share an origin: one descends from the other, or both from a third model or one initialisation."


def partly_shared(facts: Facts) -> str:
    """Of parts, and what is said of the others."""
    low = 0.0 if facts.share.value is None else facts.share.value
    return f"A and B share a part: at least {low:.1%} of B's parameters are A's{_by_stack(facts) or _rest(facts)}."


def _by_stack(facts: Facts) -> str:
    """Which stacks are A's where another's stand beside them: ``"; decoder: found, vision: not A's"``."""
    words = {"found": "found", "in part": "found in part", "absent": "not A's", "open": "not known"}
    stacks = ", ".join(f"{stack}: {words[how]}" for stack, how in facts.stacks.items())
    unread = _not_looked_at(facts)
    return "; ".join(["", stacks, *([unread] if unread else [])]) if facts.exchanged else ""


def shared_initialisation(facts: Facts) -> str:
    """Of one random initialisation, and whether more is ruled out."""
    if facts.descent_open:
        return (
            "A and B grew from one random initialisation, or descend from one model and were trained far apart since; "
            "little or no training in common was found."
        )
    return "A and B grew from one random initialisation; no training in common was found."


def first_factors(facts: Facts) -> str:
    """Of adapters that have only their random start in common."""
    return (
        "A and B are adapters whose factors A are equal and whose factors B are not: they grew from one random "
        "initialisation; no training in common was found."
    )


def no_evidence(facts: Facts) -> str:
    """Of silence that means something."""
    return "Nothing shows that A and B share weights, and these tests would have seen a descendant."


def inconclusive(facts: Facts) -> str:
    """Of silence that does not."""
    return "These tests cannot say whether A and B share an origin."


def _rest(facts: Facts) -> str:
    """What is said of the other parts: not found only where they were looked for."""
    looked_for = bool(facts.absent.names or facts.absent_regions)
    unread = _not_looked_at(facts)
    words = "; other parts were looked for and not found" if looked_for else ""
    return words + (f"; {unread}" if unread else "" if looked_for else ", and nothing is known of the rest")


def _not_looked_at(facts: Facts) -> str:
    """Tensors of either side that no test could read as what they are: ``"not looked at: 9 tensors (98.0% of B's
    parameters) hold stacked layers"``."""
    out = []
    copied = {name for f in (*facts.copies, *facts.reordered) for name in (f.a, f.b)}
    for side in (facts.models.b, facts.models.a):
        left = [t for t in side.tensors.values() if t.place is None and t.name not in copied and len(t.shape) > 1]
        unread = [t for t in side.tensors.values() if t.undecoded and t.name not in copied]
        left = [t for t in left if not t.undecoded]
        stacked = {t.name for t in stacked_layers(left)}
        groups = (
            (("is not decoded", "are not decoded"), unread),
            (("holds stacked layers", "hold stacked layers"), [t for t in left if t.name in stacked]),
            (("has no known role", "have no known role"), [t for t in left if t.name not in stacked]),
        )
        for words, found in groups:
            part = sum(t.numel for t in found) / max(side.numel, 1)
            if part >= _LITTLE:
                whose = f"({part:.1%} of {side.label.upper()}'s parameters)"
                out.append(f"{_plural(len(found), 'tensor')} {whose} {words[len(found) > 1]}")
    return "not looked at: " + " and ".join(out) if out else ""


def all_of_one(facts: Facts) -> str:
    """Of one model that holds the other; simple tensors may be left on either side."""
    in_a, in_b = facts.more
    of_a, of_b = facts.contained
    # Rather the side of which nothing at all is left.
    b_in_a = of_b and (not in_b or not of_a or in_a > 0)
    side, less, more, beyond, n = (1, "B", "A", in_b, in_a) if b_in_a else (0, "A", "B", in_a, in_b)
    left = facts.beyond[side][:beyond]
    empty = sum(t.numel == 0 for t in left)
    kinds = ((empty, "empty tensor", ""), (len(left) - empty, "tensor", " too simple to tell"))
    but = " and ".join(f"{_plural(k, word)}{end}" for k, word, end in kinds if k)
    again = beyond - len(left)
    twice = f", {_plural(again, 'tensor')} more often than there" if again else ""
    has = f"; {more} has {_plural(n, 'more tensor')}" if n else ""
    how = "in another encoding" if facts.re_encoded else "value for value"
    return f"Everything in {less}{f' but {but}' if but else ''} is in {more}, {how}{twice}{has}."


def factors(facts: Facts) -> str:
    """Which factor lies between how many tensors, in words."""
    same = facts.told(SameValues)
    scaled = same.scaled if same else {}
    values = sorted(factor for factor, _ in scaled.values() if factor is not None)
    n, free = len(values), len(scaled) - len(values)
    ends = [f"{x:,.7g}" if abs(abs(x) - 1) < 0.01 else f"{x:,.4g}" for x in (values[:1] + values[-1:])]
    size = " to ".join(dict.fromkeys(ends))
    parts = [f"every value of {_plural(n, 'tensor')} of B is A's times {size}"] * bool(n)
    parts += [f"{_plural(free, 'tensor')} hold the other's values in codes whose scale is stored nowhere"] * bool(free)
    return ", and ".join(parts) + (", a factor that nothing stores" if n else "")


def in_favour(verdict: Name, facts: Facts) -> tuple[str, ...]:
    """What speaks for the verdict, one sentence per test that the verdict may rest on and that found something."""
    if verdict == "inconclusive":
        return ()
    if verdict == "no_evidence":
        return tuple(f"{_named(e)}: {e.says}{_power(e)}." for e in facts.evidence if e.applied and e.test in DECIDING)
    lines: list[str] = []
    exact, same = facts.applied("exact_sharing"), facts.applied("same_values")
    if exact and (exact.found or facts.equal_both_ways):
        lines.append(exact.says)
    if same and same.found:
        lines.append(same.says)
        scales = sum(f.kind == "parameter" for f in same.found)
        if scales:
            lines.append(f"{_plural(scales, 'further tensor')} of B hold exactly the scales of this quantisation")
    if facts.equal_rows is not None:
        lines.append(f"embeddings: {facts.equal_rows.says}")
    if facts.decisive:
        chosen = [e for e in facts.evidence if e.applied and e.test in (*DECIDING, *SUPPORTING)]
        for e in chosen:
            if e.log10_p is not None and e.log10_p <= -3 and not e.semantic:
                lines.append(f"{_named(e)}: {e.says} (log10 p {e.log10_p:.1f})")
        lines.extend(_where(facts))
    return tuple(lines)


def _named(evidence: Evidence) -> str:
    """The test, and the basis it was run in where that is not the stored one."""
    return (
        evidence.test
        if evidence.basis == "identity" or evidence.test in OWN_BASIS
        else f"{evidence.test} after a {evidence.basis}"
    )


def _power(evidence: Evidence) -> str:
    if evidence.detectable is None:
        return ""
    return f"; an effect of about {evidence.detectable:.3f} would have been seen"


def _where(facts: Facts) -> list[str]:
    """How many blocks of B were found, and where in A."""
    blocks = {key[:2]: block for key, block in facts.blocks.items()}
    if not blocks:
        return []
    listed = {(f.stack, f.block) for f in ffns(facts.models.b)} | {
        (r.stack, r.layer) for r in facts.regions if r.layer is not None
    }
    there = sum(block.b[:2] == block.a[:2] for block in blocks.values())
    elsewhere = "" if there == len(blocks) else f", {len(blocks) - there:,} of them at another depth"
    attention = sum((*at, None) in facts.absent.ffns for at in blocks)
    ffn = sum(at in facts.absent.attention for at in blocks)
    only = "".join(f", {n:,} of them in their {part} only" for n, part in ((attention, "attention"), (ffn, "FFN")) if n)
    return [f"{len(blocks):,} of {_plural(len(listed), 'block')} of B were found in A{elsewhere}{only}"]


def against(verdict: Name, facts: Facts) -> tuple[str, ...]:
    """What speaks against the verdict, and what was not seen."""
    unasked = [e.test for e in facts.evidence if (e.why_not or "").startswith(NEEDS)]
    kept = (f"Compared from fingerprints: {', '.join(unasked)} need the weights, and so does silence.",)
    return (*_not_finite(facts), *_against(verdict, facts), *(kept if unasked else ()))


def _not_finite(facts: Facts) -> tuple[str, ...]:
    """NaN and infinities of either side: whatever else is true of it, such a model does not compute."""
    said = []
    for side in (facts.models.b, facts.models.a):
        found = [t for t in side.tensors.values() if t.n_nan or t.n_infinite]
        counts = (("NaN", sum(t.n_nan for t in found)), ("Inf", sum(t.n_infinite for t in found)))
        said.append((" and ".join(f"{n:,} {what}" for what, n in counts if n), _names([t.name for t in found])))
    (of_b, names), (of_a, names_a) = said
    if of_a and said[0] == said[1]:
        return (f"A and B hold {of_b} ({names}).",)
    others = (f"; B {of_b or 'none'}", f"; A {of_a or 'none'}")
    if of_b:
        return (f"B holds {of_b} ({names}){others[1]}{f' ({names_a})' if of_a else ''}.",)
    return (f"A holds {of_a} ({names_a}){others[0]}.",) if of_a else ()


def _against(verdict: Name, facts: Facts) -> tuple[str, ...]:
    lines: list[str] = []
    if verdict in ("identical", "re_encoded"):
        lines.extend(_missing(facts))
        same = facts.told(SameValues)
        if same is not None and same.later is not None:
            lines.append("Rounding says which of the two files came later, not who trained the weights.")
        else:
            lines.append("Equal weights do not say who made them first.")
        return tuple(lines)
    if verdict == "no_evidence":
        return (*_near_misses(facts), *_BLIND)
    if facts.shown or facts.blocks or facts.units_only or facts.equal_rows or facts.found_regions:
        lines.extend(_missing(facts) if facts.shown else ())
        lines.extend(_initialisation(facts) if facts.decisive or facts.shown else ())
        if facts.absent.names or facts.absent_regions:
            parts = [*facts.absent.names, *(r.name for r in facts.absent_regions)]
            lines.append(f"Looked for with power and not found in A: {_names(parts)}.")
        copied = {copy.b for copy in facts.copies}
        unclear = [
            r.name
            for r in facts.regions
            if r.layer is None
            and r not in facts.found_regions
            and r not in facts.absent_regions
            and not copied.issuperset(r.tensors)
        ]
        if unclear:
            lines.append(f"Compared without power to tell: {_names(unclear)}.")
        if unread := _not_looked_at(facts):
            lines.append(f"{unread[0].upper()}{unread[1:]}.")
        untested = facts.share.high - facts.share.low
        if untested > 0.0005:
            lines.append(f"{untested:.1%} of B's parameters were not tested or not told apart.")
        return tuple(lines)
    return (*_why_inconclusive(facts), *lines)


_BLIND = (
    "A descendant that was both trained far away and moved to a basis that could not be undone would not have been "
    "seen.",
    "Distillation and shared training data leave no trace in weights.",
)


def _near_misses(facts: Facts) -> list[str]:
    """Looks that came closest, and weak agreement that only shared tokens show."""
    lines = []
    if facts.log10_p is not None and facts.log10_p <= -2:
        lines.append(f"The smallest corrected p-value is {10**facts.log10_p:.1g}.")
    lines.extend(_similar_data(facts))
    return lines


def _similar_data(facts: Facts) -> list[str]:
    """Agreement that a fitted basis makes by itself: an observation of its own, and never shared weights."""
    fitted = [e for e in facts.evidence if e.applied and e.basis != "identity" and e.test == "unit_agreement"]
    seen = [e for e in fitted if (e.told(UnitAgreement).log10_p_of_permuted_channels or 0.0) <= -3]
    return [
        f"Similar training data or distillation: aligned by their shared tokens, {e.says}; strangers that learned from "
        f"the same data do that too."
        if e.semantic
        else f"Strong directions laid on each other by a {e.basis}: {e.says}; units that load on a few strong "
        f"directions do that in any two models."
        for e in seen[:1]
    ]


def _missing(facts: Facts) -> list[str]:
    """What differs: tensors of one name with other values, then what only one side has."""
    in_a, in_b = (
        {t.name: t for t in missing if not t.undecoded and t.name not in known}
        for missing, known in (
            (facts.missing_in_b, {f.a for f in facts.reordered}),
            (facts.missing_in_a, {f.b for f in facts.reordered}),
        )
    )
    changed = [name for name in in_b if name in in_a]
    groups = (
        ("Other values under the same name in A and B", [in_b[n] for n in changed], facts.models.b),
        ("In A, without an equal in B", [t for n, t in in_a.items() if n not in in_b], facts.models.a),
        ("In B, without an equal in A", [t for n, t in in_b.items() if n not in in_a], facts.models.b),
    )
    lines = []
    if facts.reordered:
        part = sum(f.numel for f in facts.reordered) / max(facts.models.b.numel, 1)
        names = _names(list(dict.fromkeys(f.b for f in facts.reordered)))
        lines.append(f"The same values in another order: {_orders(facts)}, {part:.1%} of B's parameters: {names}.")
    for label, side in (("A", facts.models.a), ("B", facts.models.b)):
        unread = [t.name for t in facts.undecoded if side.tensors.get(t.name) is t]
        if unread:
            n = _plural(len(unread), "tensor")
            lines.append(f"Not read: {n} of {label}, stored in a way that is not decoded ({_names(unread)}).")
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
    gains = facts.equal_gains
    if gains:
        return [
            f"A common random initialisation alone is ruled out if norm gains and biases started constant, as is "
            f"usual: "
            f"{_plural(len(gains), 'trained one')} of them {'is' if len(gains) == 1 else 'are'} equal bit for bit."
        ]
    training = facts.training
    if training is None:
        return [
            "A common random initialisation would also leave agreement in place, and could not be told from common "
            "training here."
        ]
    reading = training.told(TrainingShared).reads_as
    if reading == "descent":
        return [f"A common random initialisation alone would leave other traces: training_shared {training.says}."]
    if reading == "either":
        return [f"One common random initialisation, trained apart, is not ruled out: training_shared {training.says}."]
    return [f"training_shared {training.says}. Descent so long ago that little of it is left would look alike."]


def _why_inconclusive(facts: Facts) -> list[str]:
    lines = []
    unclear = [f.b for f in facts.copies if f.kind in ("exact", "re_encoded")]
    if unclear:
        lines.append(
            f"{_plural(len(unclear), 'tensor')} of B {'holds' if len(unclear) == 1 else 'hold'} A's values, but no "
            f"name says that they were learned; a window or a filter bank is the same in strangers: {_names(unclear)}."
        )
    for e in facts.evidence:
        if e.test in DECIDING and e.applied:
            lines.append(f"{_named(e)}: {e.says} (log10 p {e.log10_p or 0:.1f}){_power(e)}.")
    limits = facts.limits
    if facts.decisive:
        lines.append(
            f"A p-value of log10 p {facts.log10_p:.1f} without any part reaching an effect of {limits.effect:g} is not "
            f"taken as a finding."
        )
    elif facts.log10_p is not None:
        lines.append(
            f"A finding needs log10 p <= {limits.log10_p:g} and a cosine or share of units of {limits.effect:g} or "
            f"more in some part."
        )
    lines.extend(_similar_data(facts))
    lines.extend(f"Why this is not 'no evidence': {reason}." for reason in lacks(facts))
    lines.append(_BLIND[-1])
    return lines
