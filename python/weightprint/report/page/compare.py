"""The page of a comparison: the verdict and how often such a one is wrong, the map, the evidence, and how to repeat it.

Sentences are those of the first screen (:mod:`weightprint.report.screen.screen`): page and terminal tell one story.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from weightprint.evidence.tests import DECIDING
from weightprint.evidence.thresholds import LOG10_P
from weightprint.report.attest.files import FileDigest
from weightprint.report.format import byte_count, count, number, percent, powers, seconds
from weightprint.report.html import html_table
from weightprint.report.page.curves import curve_drawing, panels
from weightprint.report.page.direction_line import direction_line
from weightprint.report.page.evidence_axis import evidence_axis, named
from weightprint.report.page.map_data import StackMap, stack_maps
from weightprint.report.page.map_drawing import expert_drawing, map_drawing, map_words
from weightprint.report.page.mix_drawing import mix_figure
from weightprint.report.page.page import Section, bullets, document, facts, figure, fragment, macros, rendered, trusted
from weightprint.report.page.reference import unrelated
from weightprint.report.page.svg import Drawing
from weightprint.report.recipe import sentence as recipe_sentence
from weightprint.report.screen.done import sentence
from weightprint.report.screen.looks import found, looked_for
from weightprint.report.screen.screen import DONE, often_wrong, rows, spaced, told, who_first
from weightprint.verdict.error_rates import counted
from weightprint.verdict.facts import may_decide
from weightprint.verdict.wording import headline

if TYPE_CHECKING:
    from weightprint.compare.compare import Comparison, ModelSummary

__all__ = ["drawings", "maps_of", "notebook", "page", "rate_words"]

_TONES = {"no_evidence": "none", "inconclusive": "open"}
#: What a verdict without a rate of errors rests on.
_CHECKED = "does not apply: every value was compared, and none was estimated"


def page(comparison: Comparison, digests: Sequence[FileDigest] = (), command: str = "") -> str:
    """The whole page. ``digests``: SHA-256 of the files, where they were made; ``command``: what repeats it."""
    title = f"{_short(comparison.a.source)} and {_short(comparison.b.source)}"
    return document("comparison of weights", title, _lead(comparison), sections(comparison, digests, command))


def notebook(comparison: Comparison) -> str:
    """The verdict, the map, the evidence and the curves."""
    shown = [_lead(comparison)]
    chosen = (_map(comparison), _evidence(comparison), _curves(comparison))
    shown += [Markup("<h3>{}</h3>{}").format(s.title, s.body) for s in chosen if s is not None]
    return fragment(*shown)


def drawings(comparison: Comparison) -> list[Drawing]:
    """Every drawing of the page, for files of their own."""
    maps = maps_of(comparison)
    axis = evidence_axis(comparison.evidence, unrelated()["p_values"]["log10_p"])
    line = direction_line(comparison.result.direction)
    experts = [drawing for stack in maps if (drawing := expert_drawing(stack)) is not None]
    curves = [curve_drawing(panel) for panel in panels(comparison)]
    whole = [map_drawing(maps)] if maps else []
    return [*whole, *experts[:1], *([axis] if axis else []), *curves, *([line] if line else [])]


def maps_of(comparison: Comparison) -> tuple[StackMap, ...]:
    """The map of every stack."""
    return stack_maps(comparison.facts, denied=comparison.verdict == "no_evidence")


def sections(comparison: Comparison, digests: Sequence[FileDigest], command: str) -> list[Section | None]:
    """What stands below the verdict, in the order in which a reader asks."""
    return [
        _map(comparison),
        _evidence(comparison),
        _done(comparison),
        _curves(comparison),
        _direction(comparison),
        _limits(comparison),
        _identity(comparison, digests, command),
        Section("Ten words", rendered("glossary.html")),
        Section("For a court", rendered("court.html", rates=counted(), level=powers(f"10^{LOG10_P:g}"), more=())),
        _tests(comparison),
    ]


# The verdict


def rate_words(comparison: Comparison) -> str:
    """How often such a verdict was wrong, and what that rests on."""
    if comparison.verdict in ("identical", "re_encoded"):
        return _CHECKED
    if comparison.parameters.get("effort") == "quick":
        return often_wrong(comparison)
    return f"{often_wrong(comparison)}; measured on the benchmark's small models, whose family tree is known"


def _lead(comparison: Comparison) -> Markup:
    result = comparison.result
    said = {row.label: row.says for row in reversed([*rows(comparison)]) if isinstance(row.says, str)}
    share = result.share
    if share.value is None:
        part = "nothing" if result.name == "no_evidence" else "not known"
    else:
        low, high = percent(share.low), percent(share.high)
        part = f"{low} of B's parameters" if low == high else f"at least {low} of B's parameters, at most {high}"
    word = headline(result.readings or (result.name,))
    return rendered(
        "verdict.html",
        tone=_TONES.get(result.name, "related"),
        word=word.upper(),
        sentence=spaced(result.sentence),
        sure=powers(said.get("How sure", "")),
        done=_done_words(comparison),
        wrong=rate_words(comparison),
        share=part,
        first=said.get("Who first", "nothing to say: no shared weights were found"),
        decide=said.get("To decide", ""),
        models=[("A", _model(comparison.a)), ("B", _model(comparison.b))],
    )


def _done_words(comparison: Comparison) -> str:
    """The mix where it was found, else from the earlier model to the later one, or as read from A to B."""
    if comparison.mix is not None and comparison.mix.explained:
        return recipe_sentence(comparison.mix)
    ways = told(comparison)
    if not ways or not ways[0][1]:
        return ""
    label, operations = ways[0]
    before = "" if label == DONE else f"{label}: "
    return f"{before}{'; '.join(map(sentence, operations))}"


def _model(model: ModelSummary) -> dict[str, str]:
    shape = [
        f"{value:,} {word}"
        for value, word in ((model.layers, "layers"), (model.hidden_size, "channels"), (model.vocabulary, "tokens"))
        if value is not None
    ]
    return {
        "source": model.source,
        "size": f"{count(model.n_parameters)} parameters, {byte_count(model.n_bytes)}",
        "shape": ", ".join(shape) or "not known",
        "digest": model.digest[:20] + "…" if model.digest else "not made",
    }


def _short(source: str) -> str:
    """The end of a path."""
    return source.rstrip("/").rpartition("/")[2] or source


# Sections


def _map(comparison: Comparison) -> Section | None:
    maps = maps_of(comparison)
    if not any(stack.blocks_a or stack.blocks_b for stack in maps):
        return None
    caption = Markup("{} {}").format(map_words(maps), macros().map_legend(_shown_kinds(maps)))
    body = figure(map_drawing(maps), caption)
    for stack in maps:
        drawn = expert_drawing(stack)
        if drawn is not None:
            body += Markup("<h3>Experts of B, layer by layer</h3>") + figure(drawn, drawn.title)
    return Section("Where the layers of B come from", body)


def _shown_kinds(maps: Sequence[StackMap]) -> set[str]:
    """What the legend must tell."""
    linked = [stack for stack in maps if stack.links]
    caps = [cap for stack in maps for cap in stack.caps]
    states = {state for stack in maps for state in stack.states} | {cap.state for cap in caps if cap.in_b}
    out = {"absent"} & states | ({"hollow"} if "open" in states else set())
    out |= {"moved" if link.moved else "kept" for stack in linked for link in stack.links}
    out |= {"kept"} if any(cap.share > 0 for cap in caps) else set()
    out |= {"moved"} if any(cell.moved and cell.share > 0 for stack in maps for cell in stack.cells) else set()
    dropped = any(stack.unused for stack in linked) or any(cap.in_a != cap.in_b for cap in caps)
    return out | ({"dropped"} if dropped else set())


def _evidence(comparison: Comparison) -> Section:
    stranger = unrelated()["p_values"]
    drawn = evidence_axis(comparison.evidence, stranger["log10_p"])
    body = Markup("")
    if drawn is not None:
        body += figure(
            drawn,
            "How seldom chance alone gives such agreement: the further right, the less likely. Filled: passes the "
            "level that decides. Hollow: looked for, and not beyond it. Grey: where every one of "
            f"{stranger['pairs']:,} unrelated pairs of the benchmark lies, test by test.",
        )
    looks = [look.sentence for look in found(comparison.evidence)]
    said = [(row.label, words) for row in rows(comparison) if isinstance(words := row.says, str)]
    against, differs = (
        [words for label, words in said if label in labels] for labels in (("Not tested", "Against"), ("Differs",))
    )
    if comparison.result.related:
        right = bullets(against or ["nothing that was looked at speaks against it"])
        left = bullets(looks or comparison.result.in_favour)
        both = "<div><h3>For it</h3>{}</div><div><h3>Against it, or not seen</h3>{}</div>"
        body += Markup(f'<div class="two">{both}</div>').format(left, right)
        body += Markup("<h3>What differs, tensor by tensor</h3>") + bullets(differs) if differs else Markup("")
        return Section("Evidence for and against", body)
    body += Markup("<h3>Looked for</h3>") + _looks(comparison)
    body += Markup("<h3>What could have been missed</h3>") + bullets(against)
    return Section("Evidence for and against", body)


def _looks(comparison: Comparison) -> Markup:
    table = [
        (
            look.what,
            f"{look.found:,} of {look.of:,}",
            f"{look.chance:.2g}",
            "-" if look.seen_from is None else percent(look.seen_from),
        )
        for look in looked_for(comparison.evidence)
    ]
    caption = "found, what chance finds, and the part that would have been seen"
    return trusted(html_table(caption, ("", "found", "by chance", "seen from"), table, None))


def _done(comparison: Comparison) -> Section | None:
    ways = [(label, operations) for label, operations in told(comparison) if operations]
    mix = comparison.mix
    if not ways and mix is None:
        return None
    body = Markup("")
    if mix is not None:
        body += Markup("<p>{}</p>").format(recipe_sentence(mix)) + mix_figure(mix)
        body += Markup("<p>{}</p>").format("From the pair alone, without the other parents, it would read:") * bool(
            ways
        )
    for label, operations in ways:
        body += Markup("<h3>{}</h3>").format("Whichever came first" if label == DONE else label)
        body += bullets(map(sentence, operations))
        body += Markup("").join(
            trusted(html_table(f"{o.where} ({o.name})", ("parameter", "value"), _parameters(o.parameters), 12))
            for o in operations
            if o.parameters
        )
    return Section("What was done", body)


def _parameters(parameters: Any) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _value(value)) for key, value in parameters.items() if value not in (None, {}, [])]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(v)}" for key, v in value.items())
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_pair(v) if isinstance(v, (list, tuple)) else str(v) for v in value[:24])
        return shown + (f" and {len(value) - 24:,} more" if len(value) > 24 else "")
    return number(value) if isinstance(value, float) else str(value)


def _pair(values: Sequence[Any]) -> str:
    """A range of layers, or a layer and its number."""
    return ("-" if all(isinstance(v, int) for v in values) else ": ").join(map(str, values))


def _curves(comparison: Comparison) -> Section | None:
    shown = panels(comparison)
    if not shown:
        return None
    grid = Markup("").join(figure(curve_drawing(panel)) for panel in shown)
    body = macros().curve_legend() + Markup('<div class="three">{}</div>').format(grid)
    rests = dict.fromkeys(panel.rests_on for panel in shown if panel.band is not None)
    spreads = "Spreads (σ) stand in the model's own standard deviations around its mean over depth."
    body += Markup('<p class="note">{} Grey bands: {}.</p>').format(spreads, "; ".join(rests))
    sigma = next((e for e in comparison.evidence if e.test == "sigma_curve" and e.applied), None)
    if sigma is not None:
        body += Markup("<p>{}</p>").format(
            f"The four σ {sigma.says}. This is shown because people quote it, and decides nothing."
        )
        table = [
            (
                f"{row[0]:g}",
                f"{100 * row[1]:.1f} %",
                f"{100 * row[2]:.1f} %",
                "reached" if (sigma.statistic or 0) >= row[0] else "",
            )
            for row in sigma.details.get("error_table", ())
        ]
        related, unlike = sigma.details.get("error_table_pairs", (0, 0))
        headers = ("score above", f"of {related:,} related public pairs", f"of {unlike:,} unrelated ones", "this pair")
        body += trusted(html_table("How many pairs of public models pass a threshold", headers, table, None))
    return Section("Curves over depth", body)


def _direction(comparison: Comparison) -> Section | None:
    direction = comparison.result.direction
    if not comparison.result.related or comparison.verdict == "identical":
        return None
    drawn = direction_line(direction)
    who = who_first(direction)
    body = Markup("<p>{}.</p>").format(who[0].upper() + who[1:])
    caption = (
        "Where A and B parted, on the way from A (0) to B (1), with a 95 % interval: a parent is where they parted."
    )
    measured = "" if direction.measured is None else caption
    return Section("Who came first", body + (figure(drawn, measured) if drawn else Markup("")))


def _limits(comparison: Comparison) -> Section:
    share = comparison.result.share
    untested = share.high - share.low
    items = (
        [f"{percent(untested)} of B's parameters were not tested or not told apart."]
        if share.value is not None and untested > 0.0005
        else []
    )
    idle = [e for e in comparison.evidence if not e.applied and e.test in DECIDING]
    idle = [e for e in idle if not (e.why_not or "").startswith("not needed")]
    items += [f"Not run: {named(e)} ({e.test}): {e.why_not}." for e in idle]
    seen = {e.test: e for e in comparison.evidence if may_decide(e) and e.basis == "identity"}
    items += [f"Looking at {named(e)} ({e.test}) can't see {e.blind_to}." for e in seen.values()]
    items.append("Weights do not say who owns a model, under which licence it is, or whether it was distilled.")
    return Section("What could not be tested", bullets(items))


def _identity(comparison: Comparison, digests: Sequence[FileDigest], command: str) -> Section:
    p = comparison.parameters
    told_facts = [
        ("Tool", f"weightprint {comparison.version}"),
        ("Effort, seed", f"{p.get('effort')}, {p.get('seed')}"),
        ("Read", f"{byte_count(comparison.bytes_read)} in {seconds(comparison.seconds)}"),
        ("Source of A", comparison.a.source),
        ("Its digest", comparison.a.digest or "not made"),
        ("Source of B", comparison.b.source),
        ("Its digest", comparison.b.digest or "not made"),
    ]
    body = facts(told_facts)
    if command:
        body += Markup("<p>To repeat it:</p><p><code>{}</code></p>").format(command)
    known: dict[tuple[str, str], str] = {(d.side, d.name): d.sha256 for d in digests}
    files = [
        (
            side.upper(),
            f["name"],
            f"{f['nbytes']:,}",
            known.get((side, f["name"])) or "not made",
            f.get("revision") or "-",
        )
        for side, listed in comparison.files.items()
        for f in listed
    ]
    if files:
        made = html_table("The files that were read", ("", "file", "bytes", "SHA-256", "revision"), files, 200)
        body += trusted(made)
    note = (
        "A model's digest is one SHA-256 over type, shape and BLAKE3 of every tensor, whatever the names and shards; "
        "weightprint check --json gives the same. The same files, version, effort and seed give the same numbers on "
        "any machine; only times differ."
    )
    return Section("Identity, and how to repeat this", body + Markup('<p class="note">{}</p>').format(note))


def _tests(comparison: Comparison) -> Section:
    rows = []
    for e in comparison.evidence:
        turned = "" if e.basis == "identity" else f", after a {e.basis.replace('_', ' ')}"
        said = [("Answer", e.says if e.applied else f"not run: {e.why_not}")]
        if e.applied:
            said += [("Statistic", f"{number(e.statistic)}: {e.statistic_of}")] * (e.statistic is not None)
            said += [("Effect", f"{number(e.effect)}: {e.effect_of}")] * (e.effect is not None)
            said += [("log10 p", f"{number(e.log10_p)}, by chance if {e.null}")] * (e.log10_p is not None)
            said += [("Assumes", e.assumes)]
        role = "may decide" if may_decide(e) else "shown, never decides"
        rows.append({"title": e.asked, "test": f"{e.test}{turned}: {role}", "said": said})
    return Section("Every test, in the order of the JSON", Markup(macros().tests(rows)))
