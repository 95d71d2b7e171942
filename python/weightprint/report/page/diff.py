"""The page of a diff: a strip of roles by blocks, then the tensors that are not the same."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from weightprint.anatomy.roles import ROLES, matrix_of
from weightprint.diff.diff import STATUSES, Diff
from weightprint.report.diff import headline, html
from weightprint.report.page.heat_strip import Cell, heat_strip
from weightprint.report.page.page import Section, bullets, document, facts, figure, fragment, rendered, trusted

__all__ = ["notebook", "page"]

_ROWS = 1500
#: What has another value and no number for how far.
_BEYOND = ("changed", "not_read", "reshaped", "only_a", "only_b")


def page(found: Diff, *, everything: bool = False) -> str:
    """The whole page; equal tensors are listed where everything is asked for."""
    counts = [
        (words[0].upper() + words[1:], f"{found.counts.get(status, 0):,} tensors")
        for status, words in STATUSES.items()
        if status in found.counts
    ]
    sides = facts([("A", found.a), ("B", found.b), *counts])
    word = "THE SAME" if found.same else "NOT THE SAME"
    lead = rendered("told.html", tone="none" if found.same else "related", word=word, sentence=headline(found)) + sides
    renamed = [f"{rule} ({n:,} tensors)" for rule, n in found.renamed[:20]]
    table = trusted(html(found, _ROWS, everything=everything))
    sections = [
        _strip(found),
        Section("Names that differ", bullets(renamed)) if renamed else None,
        Section("Tensor by tensor", table) if everything or not found.same else None,
    ]
    return document("difference, tensor by tensor", "What changed from A to B", lead, sections)


def notebook(found: Diff) -> str:
    """The strip and the table."""
    strip = _strip(found)
    return fragment(*([strip.body] if strip else []), trusted(html(found)))


def _strip(found: Diff) -> Section | None:
    cells = [*_cells(found)]
    drawn = heat_strip(cells, [*ROLES, *(f"{role}_bias" for role in ROLES)])
    if drawn is None or found.same:
        return None
    note = "‖B − A‖ / ‖A‖ of each role in each block; hatched: no number (another shape, only on one side, or NaN)."
    return Section("How much changed, and where", figure(drawn, Markup("{}. {}").format(drawn.title, note)))


def _cells(found: Diff) -> Iterable[Cell]:
    for row in found.table.to_records():
        if row["role"] is None:
            continue
        relative = row["relative"]
        if relative is None or not math.isfinite(relative):
            relative = math.inf if row["status"] in _BEYOND else 0.0
        role = matrix_of(row["role"])
        yield Cell(role if role == row["role"] else f"{role}_bias", row["block"], relative)
