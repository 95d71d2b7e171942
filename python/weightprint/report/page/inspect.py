"""The page of an anatomy: stacks as they are drawn, parameters by part, files, metadata, findings."""

from __future__ import annotations

from collections.abc import Sequence

from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.parameters import parts, stored
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.report.anatomy import html as anatomy_html
from weightprint.report.anatomy import n_tensor_rows, pattern_rows, tensor_rows
from weightprint.report.format import byte_count, count, number, percent
from weightprint.report.html import html_table
from weightprint.report.inspect import layout
from weightprint.report.page.page import Section, document, figure, rendered, trusted
from weightprint.report.page.svg import Drawing, joined, label, rect
from weightprint.results.finding import Finding

__all__ = ["page"]

_ROWS = 1000


def page(
    checkpoint: Checkpoint, anatomy: Anatomy | None, noticed: Sequence[Finding] = (), *, tensors: bool = False
) -> str:
    """The whole page; ``tensors``: with a table of where every one sits."""
    n = anatomy.weights.n_parameters if anatomy is not None else checkpoint.n_parameters
    files = len(checkpoint.files)
    sentence = (
        f"{checkpoint.n_tensors:,} tensors, {count(n)} parameters, {byte_count(checkpoint.n_bytes)} in {files:,} "
        f"file{'s' * (files != 1)}"
    )
    family = (anatomy.family if anatomy is not None else None) or "no family recognised"
    lead = rendered("told.html", tone="none", word=family, sentence=sentence)
    found = [*checkpoint.findings, *(anatomy.findings if anatomy is not None else ()), *noticed]
    listed = [(f.name, f"{f.nbytes:,}", f"{f.n_tensors:,}") for f in checkpoint.files]
    sections = [
        None if anatomy is None else Section("Stacks", trusted(anatomy_html(anatomy, _ROWS))),
        None if anatomy is None else _parts(anatomy),
        None if anatomy is None else _stored(anatomy),
        _table("Findings", ("severity", "code", "finding"), [(f.severity, f.code, f.message) for f in found]),
        _table(
            "Every tensor and its place", ("place", "shape", "type", "stored as", "how", "known by"),
            tensor_rows(anatomy, _ROWS) if tensors and anatomy is not None else [],
            None if anatomy is None else n_tensor_rows(anatomy),
        ),
        _table("Tensors as stored", ("layout", "dtype", "shape", "count", "bytes"), pattern_rows(layout(checkpoint))),
        _table("Files", ("file", "bytes", "tensors"), listed),
        _table("Metadata", ("key", "value"), [*checkpoint.metadata.items()]),
    ]  # fmt: skip
    source = checkpoint.source if anatomy is None else anatomy.source
    return document("anatomy of a model", source, lead, sections)


def _table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None
) -> Section | None:
    return Section(title, trusted(html_table("", headers, rows, _ROWS, total))) if rows else None


def _parts(anatomy: Anatomy) -> Section | None:
    found = parts(anatomy)
    if not found:
        return None
    total, most, row = sum(p.n_parameters for p in found) or 1, max(p.n_parameters for p in found) or 1, 22.0
    drawn = []
    for i, part in enumerate(found):
        y = i * row
        drawn.append(label(0, y + 14, part.part))
        drawn.append(rect(22, y + 4, 48 * part.n_parameters / most, 12, "mark-for", part.part))
        words = f"{count(part.n_parameters)}, {percent(part.n_parameters / total)}"
        drawn.append(label(22 + 48 * part.n_parameters / most, y + 14, words, "dim small", dx=6))
    drawing = Drawing("parts", "Parameters by part", len(found) * row + 4, joined(drawn))
    return Section("Parameters by part", figure(drawing))


def _stored(anatomy: Anatomy) -> Section | None:
    rows = [
        (s.kind, f"{s.n_weights:,}", count(s.n_parameters), byte_count(s.n_bytes), number(s.bits, 3))
        for s in stored(anatomy)
    ]
    return _table("How it is stored", ("as", "weights", "parameters", "bytes", "bits each"), rows)
