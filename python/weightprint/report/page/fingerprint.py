"""A fingerprint as text, in a notebook and as a page: what it is of, what is kept, which questions it answers."""

from __future__ import annotations

from markupsafe import Markup

from weightprint.evidence.tests import QUOTED, TESTS, UNASKED
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.report.format import byte_count, count, plain_table, seconds
from weightprint.report.html import html_table
from weightprint.report.page.evidence_axis import called
from weightprint.report.page.page import Section, bullets, document, facts, figure, rendered, trusted
from weightprint.report.page.svg import Drawing, joined, label, rect
from weightprint.report.pen import Pen
from weightprint.results.table import shape_text
from weightprint.util.escape import escape

__all__ = ["headline", "html", "page", "text"]

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
    """The headline, the parts, and what it can be asked, in 80 columns; or where every tensor sits."""
    if tensors:
        return plain_table(("place", "tensor", "dtype", "shape"), _place_rows(fingerprint), left=(0, 1, 2))
    digest, pen = fingerprint.summary["digest"], Pen(80)
    lines = [f"{line.plain}\n" for line in pen.wrapped(headline(fingerprint))]
    if digest is not None:
        lines += ["digest of all weights:\n", f"  {digest}\n"]
    lines.append("\n" + plain_table(("kept", "bytes", ""), _rows(fingerprint), left=(0, 2)) + "\n")
    answers = ", ".join(test.name for test in TESTS if test.kept is not None)
    lines += [f"{line.plain}\n" for line in pen.wrapped(f"It answers: {answers}. Other tests need the weights.")]
    return "".join(lines)


def html(fingerprint: Fingerprint, limit: int | None = None) -> str:
    """The headline and the parts as an HTML table."""
    return html_table(headline(fingerprint), ("kept", "bytes", ""), _rows(fingerprint), limit)


def page(fingerprint: Fingerprint, *, tensors: bool = False) -> str:
    """The whole page; ``tensors``: with a table of every tensor and its place."""
    told = fingerprint.summary
    family = told["family"] or "no family recognised"
    sentence = (
        f"Stands for a model of {count(told['n_parameters'])} parameters in {told['n_tensors']:,} tensors "
        f"({byte_count(told['n_bytes'])}) with {byte_count(fingerprint.nbytes)}: compare, diff and inspect take it in "
        "place of the weights."
    )
    table = html_table("", ("place", "tensor", "dtype", "shape"), _place_rows(fingerprint), _ROWS)
    sections = [
        Section("What is kept", figure(_kept(fingerprint))),
        Section("What it answers, and what needs the weights", _answers()),
        Section("Every tensor and its place", trusted(table)) if tensors else None,
        Section("Identity", _identity(fingerprint)),
    ]
    lead = rendered("told.html", tone="none", word=family, sentence=sentence)
    return document("fingerprint of a model", fingerprint.source, lead, sections)


def _kept(fingerprint: Fingerprint) -> Drawing:
    """A bar per part, as long as the bytes that it takes."""
    sizes = sorted(fingerprint.bytes_by_part().items(), key=lambda item: -item[1])
    most, row, drawn = max((n for _, n in sizes), default=1) or 1, 36.0, []
    for i, (part, n) in enumerate(sizes):
        y = i * row
        drawn += [label(0, y + 12, _WORDS.get(part, part)), rect(0, y + 17, 80 * n / most, 9, "mark-for", part)]
        drawn.append(label(80 * n / most, y + 26, byte_count(n), "dim small", dx=6))
    return Drawing("kept", "Bytes kept of each part", len(sizes) * row, joined(drawn))


def _answers() -> Markup:
    asked = [test for test in UNASKED if test.name not in QUOTED]
    yes, no = ([called(t.name) for t in asked if (t.kept is not None) == kept] for kept in (True, False))
    both = '<div class="two"><div><h3>It answers</h3>{}</div><div><h3>Needs the weights</h3>{}</div></div>'
    note = "A copy that only the second list would find is not told from a fingerprint alone."
    return Markup(both).format(bullets(yes), bullets(no)) + Markup('<p class="note">{}</p>').format(note)


def _identity(fingerprint: Fingerprint) -> Markup:
    told = fingerprint.summary
    took = [] if fingerprint.seconds is None else [("Made in", seconds(fingerprint.seconds))]
    rows = [
        ("Tool", f"weightprint {told['version']}"),
        ("Seed", f"{fingerprint.plan.seed} (fingerprints of one seed can be compared with each other)"),
        ("Source", fingerprint.source),
        ("Its digest", told["digest"] or "not made"),
        *took,
    ]
    files = [(f["name"], f"{f['bytes']:,}", f["digest"]) for f in told["files"]]
    return facts(rows) + trusted(html_table("The files", ("file", "bytes", "digest of its tensors"), files, 200))


def _rows(fingerprint: Fingerprint) -> list[tuple[str, str, str]]:
    parts = fingerprint.bytes_by_part().items()
    return [(part, byte_count(n), _WORDS.get(part, "")) for part, n in sorted(parts, key=lambda item: -item[1])]


def _place_rows(fingerprint: Fingerprint) -> list[tuple[str, str, str, str]]:
    """Of every tensor its place, name, dtype and shape."""
    return [(str(t.place or "-"), t.name, t.dtype, shape_text(t.shape)) for t in fingerprint.tensors.values()]


def headline(fingerprint: Fingerprint) -> str:
    """What it is of, and in how many bytes."""
    told, took = fingerprint.summary, fingerprint.seconds
    made = "" if took is None else f", made in {seconds(took)}"
    return (
        f"fingerprint of {escape(fingerprint.source, None)}: {told['n_tensors']:,} tensors, "
        f"{count(told['n_parameters'])} parameters, {byte_count(told['n_bytes'])} kept in "
        f"{byte_count(fingerprint.nbytes)} (seed {fingerprint.plan.seed}){made}"
    )
