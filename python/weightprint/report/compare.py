"""A comparison shown: the first screen (:mod:`weightprint.report.screen.screen`), and on request what an expert checks.

Every string that may hold a name goes through :mod:`weightprint.util.escape` on its way out, whole sentences
included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from weightprint.evidence.tests import DECIDING, QUOTED
from weightprint.report.format import byte_count, number, seconds
from weightprint.report.pen import Pen
from weightprint.report.screen.screen import STYLES, screen, told
from weightprint.report.terminal import plain
from weightprint.results.saving import to_json
from weightprint.util.escape import escape
from weightprint.verdict.facts import may_decide
from weightprint.verdict.wording import headline

if TYPE_CHECKING:
    from weightprint.compare.compare import Comparison
    from weightprint.evidence.evidence import Evidence
    from weightprint.operations.base import Operation
    from weightprint.verdict.values import LayerMatch

__all__ = ["html", "lines", "text", "word"]

_LABEL = 16
_SHOWN = 400  # characters of an operation's parameters


def text(comparison: Comparison, *, verbose: bool = False) -> str:
    """The report as plain text of 80 columns, the models' names whole."""
    return plain(lines(comparison, Pen(80), verbose=verbose, whole=True))


def word(comparison: Comparison) -> Text:
    """The verdict in a word or two."""
    return Text(headline(comparison.result.readings or (comparison.verdict,)), STYLES[comparison.verdict])


def lines(comparison: Comparison, pen: Pen, *, verbose: bool = False, whole: bool = False) -> Iterator[Text]:
    """The first screen and, if verbose, every test with its numbers, null and assumptions."""
    yield from screen(comparison, pen, whole=whole or verbose)
    if verbose:
        yield from _tests(comparison, pen)


def described(comparison: Comparison) -> list[str]:
    """Published measures that people quote; the others stand below and in the JSON, where they were asked for."""
    shown = [f"{e.test}: {e.says}" for e in comparison.evidence if e.applied and e.test in QUOTED]
    if not comparison.parameters.get("published", True):
        shown.append("other published measures were not asked for: --published computes them")
    return shown


def _tests(comparison: Comparison, pen: Pen) -> Iterator[Text]:
    result, evidence = comparison.result, comparison.evidence
    done = [f"{way}: {_parameters(o)}" for way, some in told(comparison) for o in some]
    sections = (
        ("For", result.in_favour),
        ("Against, and what was not seen", result.against),
        ("What was done, with parameters", done),
        ("Shown, never decides", described(comparison)),
        ("Not run", [f"{e.test}: {e.why_not}" for e in evidence if not e.applied and e.test in DECIDING]),
        ("What these tests can't see", blind_spots(evidence)),
    )
    for title, sentences in sections:
        if sentences:
            yield from (Text(), pen.line((title, "bold")), *_bullets(sentences, pen))
    if decided := [e for e in evidence if may_decide(e) and e.log10_p is not None]:
        first = min(decided, key=lambda e: e.log10_p or 0.0)
        p = f"log10 p = {result.log10_p or 0.0:.1f}, the smallest of {len(decided)} ({first.test}), corrected for that"
        because = f"{p} choice. It is the chance of such agreement if: {first.null}."
        yield from (Text(), *pen.wrapped(escape(because, None), "p-value".ljust(_LABEL)))
    for e in evidence:
        yield from (Text(), *_test(e, pen))
    rule = f"{result.rule} [{', '.join(result.reads)}]"
    yield from (Text(), *pen.wrapped(escape(rule, None), "Decided by:".ljust(_LABEL)))
    yield from _layers(result.layer_map, pen)
    rss = f", peak memory {byte_count(comparison.peak_rss_bytes)}" if comparison.peak_rss_bytes else ""
    products = f"{seconds(comparison.gemm_seconds)} of it products of matrices"
    read = byte_count(comparison.bytes_read)
    yield from (Text(), *pen.wrapped(f"{seconds(comparison.seconds)} ({products}), {read} read{rss}."))


def blind_spots(evidence: Iterable[Evidence]) -> list[str]:
    """What the tests that were run can't see, one line per test."""
    return [f"{e.test}: {e.blind_to}" for e in {e.test: e for e in evidence if e.applied}.values()]


def _bullets(sentences: Iterable[str], pen: Pen) -> Iterator[Text]:
    for words in sentences:
        yield from pen.wrapped(escape(words, None), "  - ")


def _test(evidence: Evidence, pen: Pen) -> Iterator[Text]:
    """One test in full: question, numbers, null, assumptions, blind spots, details."""
    basis = "" if evidence.basis == "identity" else f", after a {evidence.basis.replace('_', ' ')}"
    yield pen.line((f"{evidence.test}{basis}", "bold"), (f"  ({seconds(evidence.seconds)})", "dim"))
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
    numbers += ["; ".join(simple)] * bool(simple)
    yield from _bullets([evidence.asked, *(numbers if evidence.applied else [f"not run: {evidence.why_not}"])], pen)


def _layers(layer_map: Sequence[LayerMatch], pen: Pen) -> Iterator[Text]:
    if layer_map:
        cells = [f"{b}:{'-' if a is None else a} ({0.0 if score is None else score:+.3f})" for b, a, score in layer_map]
        yield from (Text(), pen.line(("Layers, B:A (share of units, or centred cosine in place)", "bold")))
        yield from _bullets([", ".join(cells)], pen)


def _parameters(operation: Operation) -> str:
    """``"fine_tune (48 tensors changed, confidence 0.8): {"cosine":0.9966, …}"``, as in the JSON, without its end."""
    values = to_json(operation.parameters, None)
    more = " … (--json has it whole)" if len(values) > _SHOWN else ""
    return f"{operation.name} ({operation.where}, confidence {operation.confidence:g}): {values[:_SHOWN]}{more}"


def html(comparison: Comparison) -> str:
    """The verdict, the map, the evidence and the curves, as one block of HTML."""
    from weightprint.report.page.compare import notebook

    return notebook(comparison)
