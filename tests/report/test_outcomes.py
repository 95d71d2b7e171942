"""The first screen of every kind of outcome: a reader of it alone can say whether the models are related, how sure that
is, what was done, and what speaks against it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import weightprint
from outcomes import KINDS
from rich.cells import cell_len
from weightprint.compare.compare import Comparison
from weightprint.evidence.tests import TESTS
from weightprint.report import compare as shown
from weightprint.report.page.compare import page
from weightprint.report.page.markdown import compare as markdown
from weightprint.report.pen import Pen

#: Labels of what was done, however it is told.
DONE = {"Done", "From A to B", "From B to A", "If A is first", "If B is first", "If done to B", "Each since"}
OTHERS = {"How sure", "How often wrong", "Who first", "Found", "Shared", "Experts", "For", "Differs", "Against"}
OTHERS |= {"Not told", "Not tested", "Looked for", "To decide", "If done to A"}
SECTIONS = ("where-the-layers-of-b-come-from", "evidence-for-and-against", "what-was-done", "curves-over-depth")
SECTIONS += (
    "who-came-first",
    "what-could-not-be-tested",
    "identity-and-how-to-repeat-this",
    "ten-words",
    "for-a-court",
)
CERTAIN = {"identical", "re_encoded"}
OPEN = {"no_evidence", "inconclusive"}
JARGON = {"log10", "residual", "Spearman", "FFN", "FFNs", "orthogonal", *(t.name for t in TESTS)} - {"embeddings"}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Comparison]:
    @cache
    def of(kind: str) -> Comparison:
        folder: Path = tmp_path_factory.mktemp("pair")
        a, b, *others = KINDS[kind].make(folder)
        return weightprint.compare(a, b, others=others)

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_screen_says_all_that_a_reader_must_know(comparison: Callable[[str], Comparison], kind: str) -> None:
    found, (_, verdict, says) = comparison(kind), KINDS[kind]
    lines = [line.plain for line in shown.lines(found, Pen(80))]
    text = " ".join(" ".join(lines).split())
    labels = {line[2:16].strip() for line in lines if re.match("  [A-Z][a-z]", line)}
    assert found.verdict == verdict
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(verdict.replace("re_encoded", "re-encoded").replace("_", " ").upper())
    assert "How sure" in labels
    assert ("Error rate" in labels) == (verdict not in CERTAIN)
    assert ("Not told" if verdict in CERTAIN else "Against") in labels
    assert bool(labels & DONE) == (verdict not in OPEN and verdict != "identical")
    assert ("Who first" in labels) == (verdict not in OPEN and verdict != "identical")
    for part in says:
        assert part in text
    assert not {*re.findall(r"\w+", re.sub(r"\([^()]*[./][^()]*…?", "", text))} & JARGON


LONG = {
    "a long path": "/srv/mirrors/"
    + "organisation-of-some-length/" * 5
    + "Model-70B-Instruct-v0.3-GPTQ-4bit-32g-actorder",
    "letters two columns wide": "/模型/日本語の大きな言語モデル一二三四五六七八九十/通义千问七十亿参数指令",
    "marks without width": "/models/" + "x\u0301" * 90,
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_whatever_the_models_are_called(comparison: Callable[[str], Comparison], kind: str, name: str) -> None:
    found = comparison(kind)
    a, b = replace(found.a, source=LONG[name]), replace(found.b, source=LONG[name] + "-b")
    for width in (60, 80, 120):
        lines = [line.plain for line in shown.lines(replace(found, a=a, b=b), Pen(width))]
        assert max(map(cell_len, lines)) <= width
        assert width < 80 or len(lines) < 24


@pytest.mark.parametrize("kind", KINDS)
def test_page_and_markdown_say_the_same(comparison: Callable[[str], Comparison], kind: str) -> None:
    found = comparison(kind)
    html, text = page(found), markdown(found)
    assert len(html) < 150_000
    assert len(text.splitlines()) <= 60
    assert set(re.findall(r"^\| (\w[\w ]+) \|", text, re.M)) <= DONE | OTHERS
    if KINDS[kind].verdict not in CERTAIN:
        assert "Against" in text or "What could have been missed" in html


def test_the_page_goes_in_the_order_in_which_a_reader_asks(comparison: Callable[[str], Comparison]) -> None:
    html = page(comparison("fine-tune"), command="weightprint compare a b")
    places = [html.index(f'<section id="{name}">') for name in SECTIONS]
    assert [html.index('class="verdict'), *places] == sorted([html.index('class="verdict'), *places])
    assert "How often wrong" in html[: places[0]]
    words, court = (html[html.index(f'id="{name}"') :].split("</section>")[0] for name in ("ten-words", "for-a-court"))
    assert words.count("<dt>") == 10
    asked = ["Was it tested?", "Is it published?", "Known error rate", "Controls", "Acceptance"]
    assert re.findall("<dt>(.*?)</dt>", court) == asked
    assert "independently trained models of the benchmark" in html  # what the band behind a curve rests on
    assert "weightprint compare a b" in html
