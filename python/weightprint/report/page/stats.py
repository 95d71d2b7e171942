"""The page of a scan: what was measured, and the table."""

from __future__ import annotations

from weightprint.report.page.page import Section, document, rendered, trusted
from weightprint.report.scan import summary
from weightprint.report.stats import html
from weightprint.results.table import StatsTable
from weightprint.scan.result import Scan

__all__ = ["page"]

_ROWS = 1500


def page(scan: Scan, table: StatsTable, *, everything: bool = False) -> str:
    """The whole page; ``table``: the scan's own, or one pooled from it."""
    lead = rendered("told.html", tone="none", word="Measured", sentence=summary(scan))
    body = trusted(html(table, _ROWS, everything=everything))
    return document("statistics of tensors", scan.source, lead, [Section("The numbers", body)])
