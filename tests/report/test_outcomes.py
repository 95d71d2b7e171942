"""The first screen of every kind of outcome: a reader of it alone can say whether the models are related, how sure that
is, what was done, and what speaks against it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import weightprint
from outcomes import KINDS
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


@pytest.mark.parametrize("kind", KINDS)
def test_page_and_markdown_say_the_same(comparison: Callable[[str], Comparison], kind: str) -> None:
    found = comparison(kind)
    html, text = page(found), markdown(found)
    assert len(html) < 150_000
    assert len(text.splitlines()) <= 60
    assert set(re.findall(r"^\| (\w[\w ]+) \|", text, re.M)) <= DONE | OTHERS
    if KINDS[kind].verdict not in CERTAIN:
        assert "Against" in text or "What could have been missed" in html
