"""The page of a fingerprint: what it is of, what is kept, and where every tensor sits."""

from __future__ import annotations

from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.report.fingerprint import html, place_rows, title
from weightprint.report.html import html_table
from weightprint.report.page.page import Section, document, rendered, trusted

__all__ = ["page"]

_ROWS = 1000


def page(fingerprint: Fingerprint, *, tensors: bool = False) -> str:
    """The whole page; ``tensors``: with a table of every tensor and its place."""
    family = fingerprint.summary["family"] or "no family recognised"
    lead = rendered("told.html", tone="none", word=family, sentence=title(fingerprint))
    rows = place_rows(fingerprint)
    table = html_table("", ("place", "tensor", "dtype", "shape"), rows, _ROWS)
    sections = [
        Section("Kept", trusted(html(fingerprint))),
        Section("Every tensor and its place", trusted(table)) if tensors else None,
    ]
    return document("fingerprint of a model", fingerprint.source, lead, sections)
