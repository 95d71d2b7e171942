"""A scan shown: its table, and one line on what was measured."""

from __future__ import annotations

from weightprint.report import stats
from weightprint.report.format import byte_count, count, seconds
from weightprint.report.html import LIMIT
from weightprint.results.table import StatsTable
from weightprint.scan.result import Scan
from weightprint.util.escape import escape
from weightprint.util.escape import html as safe

__all__ = ["html", "summary", "text"]


def text(scan: Scan) -> str:
    """The table as aligned text, then the summary."""
    return f"{stats.text(stats.in_order(scan.table))}\n{_title(scan)}\n"


def html(scan: Scan, limit: int | None = LIMIT, table: StatsTable | None = None, *, everything: bool = False) -> str:
    """The summary and the first `limit` rows of the scan's table, or of one pooled from it."""
    shown = stats.html(stats.in_order(scan.table) if table is None else table, limit, everything=everything)
    return f"<div class='weightprint'><p>{safe(_title(scan), None)}</p>{shown}</div>"


def _title(scan: Scan) -> str:
    return f"{escape(scan.source, None)}: {summary(scan)}"


def summary(scan: Scan) -> str:
    """How much was measured, how fast, and the digest if there is one."""
    rate = byte_count(scan.bytes_read / scan.seconds) + "/s" if scan.seconds > 0 else "-"
    size = f"{scan.n_tensors:,} tensors, {count(scan.n_parameters)} parameters, {byte_count(scan.bytes_read)}"
    return f"{size} in {seconds(scan.seconds)} ({rate})" + (f", digest {scan.digest}" if scan.digest else "")
