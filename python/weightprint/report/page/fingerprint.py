"""A fingerprint as text, in a notebook and as a page: what it is of, what is kept, which questions it answers."""

from __future__ import annotations

from weightprint.evidence.tests import TESTS
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.report.format import byte_count, count, plain_table, seconds
from weightprint.report.html import html_table
from weightprint.report.page.page import Section, document, rendered, trusted
from weightprint.results.table import shape_text
from weightprint.util.escape import escape

__all__ = ["html", "page", "text"]

_ROWS = 1000

_WORDS = {
    "units": "hidden units, by number and by content",
    "angles": "angles between hidden units",
    "heads": "products of attention heads",
    "tokens": "rows of token tables",
    "rows": "rows of other matrices",
    "vectors": "gains and biases",
    "sketches": "linear sketches of every matrix",
    "statistics": "statistics of every tensor",
    "gains": "which gain feeds which matrix",
}


def text(fingerprint: Fingerprint, *, tensors: bool = False) -> str:
    """The headline, the parts, and what it can be asked; or where every tensor sits."""
    if tensors:
        return plain_table(("place", "tensor", "dtype", "shape"), _place_rows(fingerprint), left=(0, 1, 2))
    answers = ", ".join(test.name for test in TESTS if test.kept is not None)
    digest = fingerprint.summary["digest"]
    lines = [f"{_title(fingerprint)}\n"]
    if digest is not None:
        lines.append(f"digest of all weights: {digest}\n")
    lines.append("\n" + plain_table(("kept", "bytes", ""), _rows(fingerprint), left=(0, 2)) + "\n")
    lines.append(f"It answers: {answers}. Other tests need the weights.\n")
    return "".join(lines)


def html(fingerprint: Fingerprint, limit: int | None = None) -> str:
    """The headline and the parts as an HTML table."""
    return html_table(_title(fingerprint), ("kept", "bytes", ""), _rows(fingerprint), limit)


def page(fingerprint: Fingerprint, *, tensors: bool = False) -> str:
    """The whole page; ``tensors``: with a table of every tensor and its place."""
    family = fingerprint.summary["family"] or "no family recognised"
    lead = rendered("told.html", tone="none", word=family, sentence=_title(fingerprint))
    rows = _place_rows(fingerprint)
    table = html_table("", ("place", "tensor", "dtype", "shape"), rows, _ROWS)
    sections = [
        Section("Kept", trusted(html(fingerprint))),
        Section("Every tensor and its place", trusted(table)) if tensors else None,
    ]
    return document("fingerprint of a model", fingerprint.source, lead, sections)


def _rows(fingerprint: Fingerprint) -> list[tuple[str, str, str]]:
    parts = fingerprint.bytes_by_part().items()
    return [(part, byte_count(n), _WORDS.get(part, "")) for part, n in sorted(parts, key=lambda item: -item[1])]


def _place_rows(fingerprint: Fingerprint) -> list[tuple[str, str, str, str]]:
    """Of every tensor its place, name, dtype and shape."""
    return [(str(t.place or "-"), t.name, t.dtype, shape_text(t.shape)) for t in fingerprint.tensors.values()]


def _title(fingerprint: Fingerprint) -> str:
    """What it is of, and in how many bytes."""
    told, took = fingerprint.summary, fingerprint.seconds
    made = "" if took is None else f", made in {seconds(took)}"
    return (
        f"fingerprint of {escape(fingerprint.source, None)}: {told['n_tensors']:,} tensors, "
        f"{count(told['n_parameters'])} parameters, {byte_count(told['n_bytes'])} kept in "
        f"{byte_count(fingerprint.nbytes)} (seed {fingerprint.plan.seed}){made}"
    )
