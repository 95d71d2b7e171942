"""The page of a diff: a strip of roles by blocks, then the tensors that are not the same."""

from __future__ import annotations

from weightprint.diff.diff import Diff
from weightprint.report.diff import headline, table
from weightprint.report.page.heat_strip import change_strip
from weightprint.report.page.page import Section, bullets, document, facts, figure, rendered, trusted

__all__ = ["page"]

_ROWS = 1500


def page(found: Diff, *, everything: bool = False) -> str:
    """The whole page; equal tensors are listed where everything is asked for."""
    sides = facts([("A", found.a), ("B", found.b)])
    word = "THE SAME" if found.same else "NOT THE SAME"
    lead = rendered("told.html", tone="none" if found.same else "related", word=word, sentence=headline(found)) + sides
    renamed = [f"{rule} ({n:,} tensors)" for rule, n in found.renamed[:20]]
    listed = trusted(table(found, _ROWS, everything=everything))
    sections = [
        _strip(found),
        Section("Names that differ", bullets(renamed)) if renamed else None,
        Section("Tensor by tensor", listed) if everything or not found.same else None,
    ]
    return document("difference, tensor by tensor", "What changed from A to B", lead, sections)


def _strip(found: Diff) -> Section | None:
    drawn = change_strip(found)
    if drawn is None:
        return None
    note = "‖B − A‖ / ‖A‖ of each role in each layer; crossed out: no number (another shape, only on one side, or NaN)."
    return Section("How much changed, and where", figure(drawn, f"{drawn.title}. {note}"))
