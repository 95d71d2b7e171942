"""A check report shown: the verdict in one line, then the findings, worst first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from weightprint.check import CheckReport
from weightprint.report.escape import escape
from weightprint.report.format import byte_count, count, seconds
from weightprint.report.html import html_table
from weightprint.report.terminal import finding_text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["headline", "renderables", "report_html"]

_PER_CODE = 8


def headline(report: CheckReport) -> str:
    """``"model: sound; 1 note. 290 tensors, …"``."""
    found = ", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in report.counts.items() if n) or "no finding"
    text = f"{escape(report.source)}: {'sound' if report.sound else 'not sound'}; {found}."
    scan = report.scan
    if scan is None:
        return f"{text} No value could be read."
    return (
        f"{text} {scan.n_tensors:,} tensors, {count(scan.n_parameters)} parameters, {byte_count(scan.bytes_read)} "
        f"read in {seconds(scan.seconds)}."
    )


def renderables(report: CheckReport, *, everything: bool = False) -> Iterator[RenderableType]:
    """The findings, line by line; of many with one code only the first few unless `everything`."""
    from rich.text import Text

    seen: dict[str, int] = {}
    for finding in report.findings:
        seen[finding.code] = seen.get(finding.code, 0) + 1
        if everything or seen[finding.code] <= _PER_CODE:
            yield finding_text(finding)
    for code, n in seen.items():
        if n > _PER_CODE and not everything:
            yield Text(f"… and {n - _PER_CODE:,} more of {escape(code)} (--all shows them)", style="dim")
    yield Text(headline(report), style="bold green" if report.sound else "bold red")


def report_html(report: CheckReport) -> str:
    """The findings as HTML."""
    rows = [(f.severity, f.code, f.message) for f in report.findings]
    return html_table(headline(report), ("severity", "code", "finding"), rows)
