"""A comparison shown: first what a lawyer needs (verdict, strength, for, against, blind spots), on request what an
expert checks.

Every string that may hold a name goes through :mod:`weightprint.util.escape` on its way out, whole sentences
included.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from weightprint.evidence.tests import DECIDING, QUOTED
from weightprint.evidence.thresholds import LOG10_P
from weightprint.report.format import byte_count, count, number, seconds
from weightprint.report.html import html_table
from weightprint.report.recipe import sentence as recipe_sentence
from weightprint.util.escape import escape
from weightprint.util.escape import html as safe
from weightprint.verdict.facts import may_decide
from weightprint.verdict.wording import headline, strength

if TYPE_CHECKING:
    from weightprint.compare.compare import Comparison, ModelSummary
    from weightprint.evidence.evidence import Evidence
    from weightprint.operations.base import Operation
    from weightprint.operations.table import History
    from weightprint.verdict.values import ExpertMatch, LayerMatch

__all__ = ["html", "text"]

_WIDTH = 100
_LABEL = 15


def model_line(model: ModelSummary) -> str:
    """``"22.7 M parameters in 103 tensors, 91 MB, 6 layers, hidden size 384"``."""
    parts = [f"{count(model.n_parameters)} parameters in {model.n_tensors:,} tensors", byte_count(model.n_bytes)]
    if model.layers is not None:
        parts.append(f"{model.layers:,} layers")
    if model.hidden_size is not None:
        parts.append(f"hidden size {model.hidden_size:,}")
    return ", ".join(parts)


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The head of the report as (label, text), not yet escaped."""
    result = comparison.result
    rows = [
        ("A", f"{comparison.a.source}  ({model_line(comparison.a)})"),
        ("B", f"{comparison.b.source}  ({model_line(comparison.b)})"),
        ("Verdict", f"{headline(result.readings or (result.name,)).upper()}. {result.sentence}"),
        ("Strength", strength(result.name, result.log10_p)),
    ]
    if result.log10_p is not None and (result.log10_p <= LOG10_P or result.name in ("no_evidence", "inconclusive")):
        deciding = [e for e in comparison.evidence if may_decide(e)]
        first = min(deciding, key=lambda e: e.log10_p or 0.0)
        rows.append(
            (
                "p-value",
                f"log10 p = {result.log10_p:.1f}, the smallest of {len(deciding)} ({first.test}), corrected for that "
                f"choice. It is the chance of such agreement if: {first.null}.",
            )
        )
    share = result.share
    if share.value is not None:
        low, high = _percent(share.low), _percent(share.high)
        span = low if low == high else f"at least {low}, at most {high}"
        rows.append(("Share", f"{span} of B's parameters were found in A"))
    if layers := layer_words(result.layer_map):
        rows.append(("Layers", layers))
    if result.expert_map:
        rows.append(("Experts", expert_words(result.expert_map)))
    direction = result.direction
    if direction.later:
        rows.append(("Direction", f"{direction.later.upper()} is the later one: {direction.because}"))
    elif comparison.operations:
        rows.append(("Direction", f"not known: {direction.because}"))
    rows.extend((label, _done(operation)) for label, operation in told(comparison.history))
    if comparison.mix is not None:
        rows.append(("Mix", recipe_sentence(comparison.mix)))
    return rows


#: Which model the operations start from → what stands before each of them.
_FROM = {"a": "From A to B", "b": "From B to A"}


def told(result: History) -> list[tuple[str, Operation]]:
    """(which way it is told, operation): from the earlier model to the later one; where nobody knows which that is,
    what either reading says, then the two readings."""
    if result.told_from is not None:
        return [(_FROM[result.told_from], o) for o in result.operations]
    one, other = (result.operations_if.get(way, ()) for way in ("a_first", "b_first"))
    both = [o for o in one if _done(o) in map(_done, other)]
    apart = [("If A is first", o) for o in one if o not in both]
    apart += [("If B is first", o) for o in other if _done(o) not in map(_done, both)]
    return [("Either order", o) for o in both] + apart


def _done(operation: Operation) -> str:
    return ": ".join(filter(None, (_named(operation), _plain(operation.parameters))))


def layer_words(layer_map: Sequence[LayerMatch]) -> str:
    """``"B 0-5 = A 0-5, B 6-11 = A 2-7; not found: B 12"``; empty where nothing was found."""
    found = [(b, a) for b, a, _ in layer_map if a is not None]
    if not found:
        return ""
    runs = [f"B {_run(b0, n)} = A {_run(a0, n)}" for b0, a0, n in _runs(found)]
    lost = [(b, b) for b, a, _ in layer_map if a is None]
    tail = f"; not found: B {', '.join(_run(b, n) for b, _, n in _runs(lost))}" if lost else ""
    return ", ".join(runs) + tail


def _runs(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Maximal runs that rise by one on both sides: (first B, first A, length)."""
    out: list[tuple[int, int, int]] = []
    for b, a in pairs:
        if out and (b, a) == (out[-1][0] + out[-1][2], out[-1][1] + out[-1][2]):
            out[-1] = (*out[-1][:2], out[-1][2] + 1)
        else:
            out.append((b, a, 1))
    return out


def _run(first: int, n: int) -> str:
    return str(first) if n == 1 else f"{first}-{first + n - 1}"


def expert_words(expert_map: Sequence[ExpertMatch]) -> str:
    """How many experts were found, and how much of them on average."""
    share = sum(row.share for row in expert_map) / len(expert_map)
    layers = len({row.layer for row in expert_map})
    return (
        f"{len(expert_map):,} experts in {layers:,} layers of B were found in A, {share:.0%} of their units on average"
    )


def _percent(part: float) -> str:
    """Never rounds up to 100 % or down to 0 %."""
    if part in (0.0, 1.0):
        return f"{part:.0%}"
    return f"{min(max(part, 0.0001), 0.9999):.2%}"


def _named(operation: Operation) -> str:
    """``"depth-upscaling (0-5, 2-7 -> 12 layers)"``, with how sure where it is not."""
    doubt = f", confidence {operation.confidence:g}" if operation.confidence < 0.9 else ""
    return f"{operation.name.replace('_', '-')} ({operation.where}{doubt})"


_SHOWN = 12  # items of a list; a longer one is in the JSON


def _plain(parameters: Mapping[str, Any]) -> str:
    """``"experts 4; fresh 0.25; order 2, 0, 1"``: names and values in words, long lists left to the JSON."""
    return "; ".join(text for key, value in parameters.items() if (text := _parameter(key.replace("_", " "), value)))


def _item(value: Any) -> str:
    """A range of layers as ``2-7``, a layer with its number as ``2: 0.05``."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    return ("-" if all(isinstance(v, int) for v in value) else ": ").join(map(str, value))


def _parameter(name: str, value: Any) -> str:
    if value is None or value == {} or value == []:
        return ""
    if isinstance(value, Mapping):
        if len(value) > _SHOWN:
            return f"{name}: {len(value)} values"
        return f"{name} " + ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, (list, tuple)):
        if len(value) > _SHOWN:
            return f"{name}: {len(value)} values"
        words = ", ".join(map(_item, value))
        return words if name == "how" else f"{name} {words}"
    return f"{name} {value}"


def blind_spots(evidence: Iterable[Evidence], *, every: bool = True) -> list[str]:
    """What the tests that were run can't see: one line per test, or of those that may decide in one line each kind."""
    shown = [e for e in evidence if e.applied and (every or (may_decide(e) and e.basis == "identity"))]
    return [f"{e.test}: {e.blind_to}" for e in {e.test: e for e in shown}.values()]


def described(evidence: Iterable[Evidence]) -> list[str]:
    """Published measures that people quote; the others stand under -v and in the JSON."""
    return [f"{e.test}: {e.says}" for e in evidence if e.applied and e.test in QUOTED]


def not_run(evidence: Iterable[Evidence]) -> list[str]:
    """Tests that could have decided and could not be run, and why."""
    return [f"{e.test}: {e.why_not}" for e in evidence if not e.applied and e.test in DECIDING]


def text(comparison: Comparison, *, verbose: bool = False) -> str:
    """The report as plain text, wrapped at 100 columns."""
    lines: list[str] = []
    for label, text in facts(comparison):
        lines.extend(_labelled(label, text))
    sections = (
        ("For", comparison.result.in_favour),
        ("Against, and what was not seen", comparison.result.against),
        ("Shown, never decides", described(comparison.evidence)),
        ("Not run", not_run(comparison.evidence)),
        ("What these tests can't see", blind_spots(comparison.evidence, every=verbose)),
    )
    for title, sentences in sections:
        if sentences:
            lines.extend(["", title, *_bullets(sentences)])
    if verbose:
        for evidence in comparison.evidence:
            lines.extend(["", *_test_lines(evidence)])
        rule = f"{comparison.result.rule} [{', '.join(comparison.result.reads)}]"
        lines.extend(["", *_labelled("Decided by:", rule)])
        lines.extend(_layer_lines(comparison.result.layer_map))
    rss = f", peak memory {byte_count(comparison.peak_rss_bytes)}" if comparison.peak_rss_bytes else ""
    products = f" ({seconds(comparison.gemm_seconds)} of it products of matrices)" if verbose else ""
    lines.extend(["", f"{seconds(comparison.seconds)}{products}, {byte_count(comparison.bytes_read)} read{rss}."])
    if not verbose:
        lines[-1] += " -v shows every test with its numbers."
    return "\n".join(lines) + "\n"


def _labelled(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        escape(text, None),
        _WIDTH,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
    )


def _bullets(sentences: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for text in sentences:
        lines.extend(
            textwrap.wrap(
                escape(text, None), _WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False
            )
        )
    return lines


def _test_lines(evidence: Evidence) -> list[str]:
    """One test in full: question, numbers, null, assumptions, blind spots, details."""
    basis = "" if evidence.basis == "identity" else f", after a {evidence.basis.replace('_', ' ')}"
    lines = [f"{evidence.test}{basis}  ({seconds(evidence.seconds)})", *_bullets([evidence.asked])]
    if not evidence.applied:
        return [*lines, *_bullets([f"not run: {evidence.why_not}"])]
    p = "none: descriptive" if evidence.log10_p is None else f"{evidence.log10_p:.2f}"
    numbers = [
        evidence.says,
        f"statistic {number(evidence.statistic)}: {evidence.statistic_of}",
        f"effect {number(evidence.effect)}: {evidence.effect_of}",
        f"n {evidence.n:,}; log10 p {p}; null: {evidence.null}",
        f"assumes: {evidence.assumes}",
    ]
    if evidence.rank_p is not None:
        numbers.append(f"rank among permuted copies of B, uniform under the null: p {evidence.rank_p:.3f}")
    if evidence.detectable is not None:
        numbers.append(f"would have seen an effect of about {number(evidence.detectable)}")
    simple = [
        f"{k} {number(v) if isinstance(v, (int, float)) else v}"
        for k, v in evidence.details.items()
        if isinstance(v, (int, float, str))
    ]
    return [*lines, *_bullets([*numbers, "; ".join(simple)] if simple else numbers)]


def _layer_lines(layer_map: Sequence[LayerMatch]) -> list[str]:
    if not layer_map:
        return []
    cells = [f"{b}:{'-' if a is None else a} ({0.0 if score is None else score:+.3f})" for b, a, score in layer_map]
    return ["", "Layers, B:A (share of units, or centred cosine in place)", *_bullets([", ".join(cells)])]


def html(comparison: Comparison) -> str:
    """The report as one block of HTML without script or style from elsewhere."""
    head = "".join(f"<tr><th>{safe(label)}</th><td>{safe(text, None)}</td></tr>" for label, text in facts(comparison))
    parts = [f"<table><tbody>{head}</tbody></table>"]
    for title, sentences in (
        ("For", comparison.result.in_favour),
        ("Against, and what was not seen", comparison.result.against),
        ("What these tests can't see", blind_spots(comparison.evidence)),
    ):
        if sentences:
            items = "".join(f"<li>{safe(text, None)}</li>" for text in sentences)
            parts.append(f"<h4>{safe(title)}</h4><ul>{items}</ul>")
    rows = [
        (
            e.test,
            "yes" if e.applied else f"no: {e.why_not}",
            number(e.statistic),
            number(e.effect),
            number(e.log10_p),
            e.says,
        )
        for e in comparison.evidence
    ]
    parts.append(html_table("Tests", ("test", "run", "statistic", "effect", "log10 p", "outcome"), rows))
    return f"<div class='weightprint'>{''.join(parts)}</div>"
