"""The first screen of a comparison: what a judge needs, in 24 lines of 80 columns.

The verdict and its sentence, how sure and how often such verdicts were wrong, who came first, which layer is which,
what was done, what speaks for it and against it, and where to look further. Test names, p-values per test and what each
of them can't see come with ``-v`` (:mod:`weightprint.report.compare`).

Lines have a rank: those of rank 0 always stand; the others in the order of their rank while there is room.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from weightprint.evidence.tests import QUESTIONS, TESTS
from weightprint.evidence.thresholds import LOG10_P
from weightprint.report.format import byte_count, count, padded, percent, seconds
from weightprint.report.page.map_data import shared_words, stack_maps
from weightprint.report.pen import Pen, tail
from weightprint.report.recipe import sentence as recipe_sentence
from weightprint.report.screen.done import sentence
from weightprint.report.screen.layer_runs import drawn, expert_words
from weightprint.report.screen.looks import Look, found, looked_for
from weightprint.util.escape import escape
from weightprint.util.ranges import spans
from weightprint.verdict.error_rates import counted, error_rate
from weightprint.verdict.wording import headline

if TYPE_CHECKING:
    from weightprint.compare.compare import Comparison, ModelSummary
    from weightprint.operations.base import Operation
    from weightprint.verdict.values import Direction

__all__ = ["DONE", "STYLES", "Row", "often_wrong", "rows", "screen", "spaced", "told", "who_first"]

_WIDTH, _LINES = 80, 23  # and one line for the prompt
_EACH = 2  # lines of one sentence, at most
_LABEL = 16
DONE = "Done"
"""Of operations that are told alike whichever model came first."""
_NEW = {"fine_tune", "continued_pretraining"}  # operations that both of two siblings show, if both hold something new
_QUOTED_FROM = 0.9  # correlation of sigma curves
_NEEDED = f"10^{LOG10_P:g}"
_QUOTED = 100  # beyond 1 in 10^100 a broken assumption is likelier than chance; no more digits are worth quoting

#: Verdict → how it is printed; related ones in one way.
STYLES = {"no_evidence": "bold cyan", "inconclusive": "bold yellow"} | dict.fromkeys(
    ("identical", "re_encoded", "shared_origin", "partly_shared", "shared_initialisation"), "bold green"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing said under a label: a sentence (wrapped), or lines that stand as they are. Not yet escaped."""

    label: str
    says: str | tuple[str, ...]
    rank: int = 0


def screen(comparison: Comparison, pen: Pen, *, whole: bool = False) -> Iterator[Text]:
    """The lines of the first screen, on 80 columns no more than a terminal of 24 lines holds; or the whole of it, with
    nothing left out or cut short."""
    result = comparison.result
    title = f"{headline(result.readings or (result.name,)).upper()}. {spaced(result.sentence)}"
    top = [*pen.wrapped(escape(title, None), style=STYLES[result.name]), *_models(comparison, pen, whole)]
    foot = list(pen.wrapped(f"-v: test by test   -o report.html: to hand on   ({_cost(comparison)})", style="dim"))
    blank = [] if result.name == "identical" else [Text()]
    said = list(rows(comparison, pen.width - _LABEL))
    times = Counter(row.label for row in said)
    bullets = ["- " * (times[row.label] > 1) for row in said]
    every = [list(_lines(row, pen, bullet, whole)) for row, bullet in zip(said, bullets, strict=True)]
    lines = 10**6 if whole else _LINES if pen.width >= _WIDTH else 2 * _LINES
    room = lines - len(top) - len(foot) - 2 * len(blank)
    kept: set[int] = set()
    ranked = sorted(range(len(said)), key=lambda i: (said[i].rank, i))
    for i in ranked:
        if not said[i].rank or sum(len(every[j]) for j in (*kept, i)) <= room:
            kept.add(i)
    for i in (i for i in ranked if i in kept):  # where there is room left, nothing is cut short
        full = list(_lines(said[i], pen, bullets[i], True))
        if sum(len(every[j]) for j in kept) - len(every[i]) + len(full) <= room:
            every[i] = full
    yield from (*top, *blank)
    label = ""
    for i in sorted(kept):
        first, *others = every[i]
        yield from (Text(" " * _LABEL) + first[_LABEL:] if said[i].label == label else first, *others)
        label = said[i].label
    yield from (*blank, *foot)


def _lines(row: Row, pen: Pen, bullet: str, whole: bool) -> Iterator[Text]:
    label = f"  {row.label}".ljust(_LABEL) + bullet
    if isinstance(row.says, tuple):
        for k, line in enumerate(row.says):
            yield pen.line((" " * _LABEL if k else label, "dim"), (line, ""))
        return
    lines = list(pen.wrapped(escape(row.says, None), label))
    each = _EACH if pen.width >= _WIDTH else _EACH + 1
    if len(lines) > each and not whole:
        last = lines[each - 1].plain
        if len(last) + 2 > pen.width:
            last = last[: max(last.rfind(" ", _LABEL), _LABEL)]
        lines = [*lines[: each - 1], pen.line((last.rstrip() + " …", ""))]
    yield from lines


def _models(comparison: Comparison, pen: Pen, whole: bool) -> Iterator[Text]:
    """Both models, one line each: where they are, their size, and the digest of their tensors where there is room."""
    sides = (comparison.a, comparison.b)
    sizes = [_size(side) for side in sides]
    digests = [f"   blake3 {side.digest[:8]}" if side.digest and pen.width >= 72 else "" for side in sides]
    most = max(map(len, sizes))
    sources = [escape(side.source, None) for side in sides]
    longest = max(map(cell_len, sources))
    room = max(8, min(longest, pen.width - 8 - most - max(map(len, digests))))
    for label, source, size, digest in zip("AB", sources, sizes, digests, strict=True):
        if whole and longest > room:
            yield from (*pen.wrapped(source, f"  {label}  "), *pen.wrapped(f"{size}{digest}", "     "))
        else:
            yield pen.line((f"  {label}  {padded(tail(source, room), room)}   {size:<{most}}{digest}".rstrip(), ""))


def _size(model: ModelSummary) -> str:
    layers = "" if model.layers is None else f", {model.layers:,} layer{'s' * (model.layers != 1)}"
    return f"{count(model.n_parameters)} parameters{layers}"


def _cost(comparison: Comparison) -> str:
    return f"{seconds(comparison.seconds)}, {byte_count(comparison.bytes_read)} read"


# What is said


def rows(comparison: Comparison, width: int = 86) -> Iterator[Row]:
    """Everything that the first screen may say, in its order; drawings are `width` columns wide."""
    result = comparison.result
    yield Row("How sure", _sure(comparison))
    if result.name not in ("identical", "re_encoded"):
        yield Row("Error rate", often_wrong(comparison))
    if result.related:
        yield from _related(comparison, width)
    else:
        yield from _silent(comparison, width)
    label = "Not told" if result.name in ("identical", "re_encoded") else "Against"
    words = list(_against(comparison))
    differs = [w for w in words if _DIFFERS.match(w)]
    yield from (Row("Differs", w, 2 + k) for k, w in enumerate(differs))
    against = [w for w in words if w not in differs]
    if result.related and label == "Against":
        against = against or ["nothing that was looked at speaks against it"]
    yield from (Row("Against" if w.startswith(_HOLDS) else label, w, k) for k, w in enumerate(against))
    if result.related and label == "Against":
        yield Row("Not told", "who owns A, its licence, distillation: weights do not say", 4)
    yield from (Row("To decide", words) for words in _next_steps(comparison)[:1])


def _sure(comparison: Comparison) -> str:
    """How sure in words, and the number."""
    name, log10_p = comparison.verdict, comparison.log10_p
    if name == "identical" and any(e.details.get("one_file") for e in comparison.evidence):
        return "certain: one file (device and inode) under two names, or under one named twice"
    if name == "identical":
        return "certain: every tensor was compared bit for bit (BLAKE3 digests)"
    if name == "re_encoded":
        return "certain: every value was compared with what rounding makes of it"
    chance = "" if log10_p is None else f" (p = {_p(log10_p)}; a finding needs {_NEEDED})"
    if name == "inconclusive" and log10_p is not None and log10_p <= LOG10_P:
        return f"not sure: something agrees beyond chance, but too little of any part to count{chance}"
    if name == "inconclusive":
        return f"not at all: nothing was found that only shared weights explain, and it could have been missed{chance}"
    if name == "no_evidence":
        return f"nothing agrees beyond chance{chance}"
    if log10_p is None or log10_p > LOG10_P:
        return "certain of what is equal: it was compared bit for bit"
    words = "strong" if log10_p > -20 else "very strong" if log10_p > -50 else "overwhelming"
    most = max(log10_p, -_QUOTED)
    less = "<" if log10_p < -_QUOTED else "="
    return (
        f"{words}: models that started apart agree this much at most once in 10^{-most:.0f} pairs (p {less} "
        f"{_p(most)}; a finding needs {_NEEDED})"
    )


def _p(log10_p: float) -> str:
    return f"{10**log10_p:.2g}" if log10_p > -4 else f"10^{log10_p:.0f}"


def often_wrong(comparison: Comparison) -> str:
    """How often such a verdict was wrong; for verdicts that rest on chance."""
    if comparison.parameters.get("effort") == "quick":
        return "not measured at quick effort"
    rate = error_rate(comparison.verdict)
    if rate is not None:
        return rate.sentence
    of = {relation: counted()[relation]["inconclusive"] for relation in ("related", "unrelated")}
    counts = " and ".join(f"{row['n']:,} of {row['pairs']:,} {relation}" for relation, row in of.items())
    return f"nothing is claimed; {counts} pairs ended so too"


def _related(comparison: Comparison, width: int) -> Iterator[Row]:
    result = comparison.result
    direction, name = result.direction, result.name
    if name == "identical":
        return
    yield Row("Who first", who_first(direction))
    share = result.share
    if share.value is not None:
        low, high = percent(share.low), percent(share.high)
        most = "" if low == high else f", at most {high}"
        yield Row("Found", f"{'at least ' * bool(most)}{low} of B's parameters in A{most}", 2)
    if lines := drawn(result.layer_map, width):
        yield Row("Layers", tuple(lines))
    if name == "partly_shared" and (words := shared_words(stack_maps(comparison.facts, denied=False))):
        yield Row("Shared", words)
    if result.expert_map:
        yield Row("Experts", expert_words(result.expert_map), 3)
    mix = comparison.mix
    if mix is not None:
        yield Row(DONE, recipe_sentence(mix))
    if name != "shared_initialisation" and not (mix and mix.explained):
        ways = told(comparison)
        for label, operations in ways:
            yield from (Row(label, sentence(o), min(k, 1)) for k, o in enumerate(operations))
        if not any(operations for _, operations in ways):
            yield Row(DONE, "not told: none of the changes that are looked for was recognised", 1)
    if name != "re_encoded":
        first, *others = [look.sentence for look in found(comparison.evidence)] or ["see -v"]
        yield Row("For", first)
        yield from (Row("For", "; ".join(others[:2]), 3) for _ in others[:1])


def who_first(direction: Direction) -> str:
    """Which model is the later one, how sure, and why."""
    sure = "" if direction.confidence is None else f" (confidence {direction.confidence:.2g})"
    because = _plain(direction.because)
    if direction.later:
        if found := _CONCLUSION.fullmatch(because):
            because = f"{found[2]}: {found[1]}"
        return f"{'B; A' if direction.later == 'a' else 'A; B'} is the later one{sure}: {because}"
    if direction.relation == "siblings":
        return f"neither, they are siblings{sure}: {because}"
    return f"not known: {because.removeprefix(_NOTHING)}"


def told(comparison: Comparison) -> list[tuple[str, Sequence[Operation]]]:
    """(which way it is told, operations): from the earlier model to the later one; where nobody knows which that is,
    the two readings, then what either says; of siblings what was done to the one, the other, one or both since they
    parted, then what was done to each: training, where both hold something new."""
    history = comparison.history
    if history.told_from is not None:
        return [({"a": "From A to B", "b": "From B to A"}[history.told_from], history.operations)]
    one, other = (history.operations_if.get(way, ()) for way in ("a_first", "b_first"))
    if history.siblings:
        names = {o.name for o in history.operations}
        both_new = comparison.result.direction.parted_at is not None

        def each(o: Operation) -> bool:
            return both_new and o.name in _NEW

        since = (
            ("If done to B", [o for o in one if o.name not in names]),
            ("If done to A", [o for o in other if o.name not in names]),
            ("One or both", [o for o in history.operations if not each(o)]),
            ("Each since", [o for o in history.operations if each(o)]),
        )
        return [(label, some) for label, some in since if some]
    told_both = {_shape(o) for o in one} & {_shape(o) for o in other}
    ways = (
        ("If A is first", [o for o in one if _shape(o) not in told_both]),
        ("If B is first", [o for o in other if _shape(o) not in told_both]),
        (DONE, [o for o in one if _shape(o) in told_both]),
    )
    return [(label, some) for label, some in ways if some]


def _shape(operation: Operation) -> str:
    """What its sentence says but for numbers, which hardly differ from one reading to the other."""
    return re.sub(r"\b[\d.,]+", "", sentence(operation))


def _seen(look: Look) -> str:
    return "" if look.seen_from is None else f", seen from {percent(look.seen_from)}"


def _silent(comparison: Comparison, width: int) -> Iterator[Row]:
    looks = looked_for(comparison.evidence)
    if looks:
        table = [("", "found", "chance", "seen from")]
        for look in looks:
            seen = _seen(look).rpartition("from ")[2]
            table.append((look.what, f"{look.found:,} of {look.of:,}", f"{look.chance:.2g}", seen))
        wide = [max(map(len, column)) for column in zip(*table, strict=True)]
        cells = [[cell.ljust(wide[0]) if not k else cell.rjust(wide[k]) for k, cell in enumerate(r)] for r in table]
        lines = tuple("  ".join(row).rstrip() for row in cells)
        if max(map(len, lines)) <= width:
            yield Row("Looked for", lines)
        else:
            yield from (Row("Looked for", f"{look.sentence}{_seen(look)}") for look in looks)
    yield from (Row("Not tested", _not_tested(*why)) for why in _not_asked(comparison).items())


# What speaks against it

_TESTS = "|".join(test.name for test in TESTS)
#: Beginnings of sentences that stand under -v, or are said in other words. A name inside a sentence hides nothing.
_DIFFERS = re.compile(r"other values under the same name|In [AB], without an equal|the same values in another order")
_TECHNICAL = re.compile(
    rf"(?:{_TESTS})\b|(?:A|One) common random initialisation|A finding needs log10 p|A p-value of log10 p|The smallest "
    rf"corrected p-value|Why this is not"
)
_WHY = "Why this is not 'no evidence': "


def _against(comparison: Comparison) -> Iterator[str]:
    """What speaks against the verdict or was not seen, without the names of tests."""
    result = comparison.result
    if result.name == "no_evidence" and (words := _alike(comparison)):
        yield words
    if result.name == "shared_initialisation":
        yield "descent so long ago that little of it is left would look alike"
    elif "shared_initialisation" in result.readings:
        row = counted()["shared_init"]["claimed"]
        often = f"{row['n']:,} of {row['pairs']:,} such pairs were called related"
        yield f"one random start, trained apart since, is not ruled out: {often}"
    for words in result.against:
        if words.startswith("Similar training data"):
            yield "brought together by their shared tokens some units agree, as in strangers that learned the same data"
        elif not _TECHNICAL.match(words):
            yield _parts(words)


def _alike(comparison: Comparison) -> str:
    """What people quote as a sign of descent, where it is there in strangers."""
    sigma = next((e for e in comparison.evidence if e.test == "sigma_curve" and e.applied), None)
    if sigma is None or (sigma.statistic or 0.0) < _QUOTED_FROM:
        return ""
    says = re.sub(r" \(detrended.*?\)| public(?= pairs)", "", sigma.says)
    return f"shown, decides nothing: over depth the spreads' {says}"


def _not_asked(comparison: Comparison) -> dict[str, list[str]]:
    """Why something was not looked for, or not sharply enough → what."""
    reasons: dict[str, list[str]] = {}
    for words in comparison.result.against:
        if words.startswith(_WHY):
            question, _, why = words.removeprefix(_WHY).removesuffix(".").partition(": ")
            if question not in QUESTIONS:
                question, why = "", words.removeprefix(_WHY).removesuffix(".")
            for pattern, short in _SHORTER:
                why = re.sub(pattern, short, why)
            why = next((short for words, short, _ in _REASONS if words in why), why)
            reasons.setdefault(_plain(why), []).extend([_plain(question)] * bool(question))
    return reasons


_SHORTER = (
    (rf"^(?:{_TESTS}): ", ""),
    (r"^one could be hidden there \((.*)\)$", r"\1"),
    (r"^\w+ (could not be run: |was )", ""),
    (r"^\w+ would not have seen an effect below (.*)$", r"less than \1 would not have shown"),
)


def _not_tested(reason: str, questions: Sequence[str]) -> str:
    turned = [q.removesuffix(_TURNED) for q in questions if q.endswith(_TURNED)]
    what = [q for q in questions if not q.endswith(_TURNED)] + [f"{', '.join(turned)} once turned"] * bool(turned)
    return f"{reason}: {', '.join(what)}" if what else reason


_TURNED = " in a turned stream"
_OTHER_WIDTH = "compare each with models of its own width: the one it is said to come from, or its siblings"
_EFFORT = "run it again without --effort quick"
_NAMES = "restore the tensors' usual names, or put config.json beside them: `weightprint inspect` shows what is unknown"
_ZEROS = "compare with a third model that has the same zeros: what that one shares shows nothing"
_TABLE = "compare with a third model that has the same token table: what that one shares shows nothing"
#: What stands in a reason → the reason in short, and what to do about it.
_REASONS = (
    ("hidden size", "the models differ in width", _OTHER_WIDTH),
    ("width", "the models differ in width", _OTHER_WIDTH),
    ("effort", "quick effort reads samples only", _EFFORT),
    ("not looked for", "quick effort reads samples only", _EFFORT),
    ("role is not known", "what most tensors do is not known", _NAMES),
    ("one embedding holds", "a few units agree, as they may around one shared token table", _TABLE),
    ("zeros at the same places", "both have zeros at the same places", _ZEROS),
)


def _next_steps(comparison: Comparison) -> list[str]:
    """What would decide an inconclusive comparison."""
    if comparison.verdict != "inconclusive":
        return []
    why = _not_asked(comparison)
    steps = [step for _, short, step in _REASONS if short in why]
    if any("no name says that they were learned" in words for words in comparison.result.against):
        steps.append("name these tensors by what they do, or compare the whole models that they are from")
    more = "compare with checkpoints from between the two, or with a known relative of either"
    full = "run it again with --effort full, which looks at every layer and unit"
    return steps or [more if comparison.parameters.get("effort") == "full" else full]


_HOLDS = ("A holds", "B holds", "A and B hold")
_ABSENT = "Looked for with power and not found in A: "
_PART = re.compile(r"(?P<stack>.+?)\.(?P<layer>\d+)(?P<part> attention| FFN|\.expert\.\d+)?")
_KINDS = {" attention": "attention of layer ", " FFN": "feed-forward part of layer ", "": "layer "}


def _parts(words: str) -> str:
    """A sentence in small letters; parts of the model (``decoder.3 FFN``) as people call them."""
    words = spaced(words.removesuffix("."))
    if not words.startswith(_ABSENT):
        return words if words.startswith(("In A", "In B", *_HOLDS)) else words[0].lower() + words[1:]
    names, more, n = words.removeprefix(_ABSENT).partition(" and ")
    said = []
    for name in names.split(", "):
        found = _PART.fullmatch(name)
        part = (found["part"] or "") if found else ""
        kind = _KINDS.get(part, f"expert {part[8:]} of layer ")
        stack = found["stack"].removeprefix("decoder").removeprefix(":") if found else ""
        said.append((kind, found["layer"] if found else name, stack))
    groups = [(key, [at for _, at, _ in some]) for key, some in groupby(said, key=lambda x: (x[0], x[2]))]
    listed = "; ".join(f"{_kind(kind, at)}{f' of {stack}' * bool(stack)}" for (kind, stack), at in groups)
    return f"looked for in A and not found: {listed}{more}{n}"


def _kind(kind: str, at: Sequence[str]) -> str:
    """``"feed-forward part of layers 0-2"``."""
    if not kind or len(at) == 1 or not all(map(str.isdecimal, at)):
        return f"{kind}{', '.join(at)}"
    return f"{kind.rstrip()}s {spans(sorted(map(int, at)))}"


def spaced(words: str) -> str:
    """``"8.1 % of B's parameters"``, as everywhere else; names are left as they are."""
    return re.sub(r"(?<=\d)%(?= of [AB]'s parameters)", " %", words)


#: Why, and what follows, which a reader wants first.
_CONCLUSION = re.compile(r"([^;]+): ([AB] (?:is|was) [^:;]+)")
_NOTHING = "nothing that was tested tells a parent from a child: "


def _plain(words: str) -> str:
    """A sentence without abbreviations: t is where the two parted."""
    words = re.sub(rf"at t = ({_NUMBER}) \[({_NUMBER}), ({_NUMBER})\] of the way from A \(0\) to B \(1\)", _AT, words)
    words = re.sub(rf"\bt = ({_NUMBER}) \[({_NUMBER}), ({_NUMBER})\]", _PARTED, words)
    words = re.sub(
        rf"at ({_NUMBER}) \[({_NUMBER}), ({_NUMBER})\] of the way from it", r"\1 of the way (\2 to \3)", words
    )
    words = re.sub(
        r"a parting (.+?\)) without decay, which a parent has, and so has a mean of relatives", _EARLY, words
    )
    words = re.sub(r"a parting (.+?\)) is not sharp enough to call them siblings", _VAGUE, words)
    return re.sub(r"\bFFN(s?)\b", r"feed-forward part\1", words.replace("an FFN", "a FFN"))


_NUMBER = r"-?\d+\.\d+"
_AT = r"\1 of the way from A to B (\2 to \3)"
_EARLY = r"they parted \1, without decay: so does a parent from its child, and a mean of relatives from one of them"
_VAGUE = r"they parted about \1, too vague to call one the parent, or both siblings"
_PARTED = r"a parting \1 of the way from A to B (\2 to \3)"
