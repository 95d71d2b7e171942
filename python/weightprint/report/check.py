"""A check report shown: the verdict in one line, then the findings, worst first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from rich.text import Text

from weightprint.check.check import CheckReport
from weightprint.check.codes import way_out
from weightprint.check.context import listed, pattern_of
from weightprint.report.format import byte_count, count, seconds
from weightprint.report.html import LIMIT, html_table
from weightprint.report.terminal import finding_text, plain
from weightprint.results.finding import Finding
from weightprint.util.escape import escape

__all__ = ["headline", "html", "lines", "text"]

_PER_CODE = 8


def text(report: CheckReport, *, everything: bool = False) -> str:
    """What `lines` says, without colour."""
    return plain(lines(report, everything=everything))


def html(report: CheckReport, limit: int | None = LIMIT) -> str:
    """The findings as an HTML table, the first `limit` of them."""
    rows = [(f.severity, f.code, f.message) for f in report.findings]
    return html_table(headline(report), ("severity", "code", "finding"), rows, limit)


def headline(report: CheckReport) -> str:
    """``"model: sound; 1 note. 290 tensors, …"``."""
    found = ", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in report.counts.items() if n) or "no finding"
    verdict = f"{escape(report.source)}: {'sound' if report.sound else 'not sound'}; {found}."
    scan = report.scan
    if scan is None:
        return f"{verdict} No value could be read."
    return (
        f"{verdict} {scan.n_tensors:,} tensors, {count(scan.n_parameters)} parameters, {byte_count(scan.bytes_read)} "
        f"read in {seconds(scan.seconds)}."
    )


def lines(report: CheckReport, *, everything: bool = False) -> Iterator[Text]:
    """The findings, line by line, with the way out once per code.

    Unless `everything`, findings that say the same of tensors whose names differ only in numbers are one line, and of
    many with one code only the first few are shown.
    """
    seen: dict[str, int] = {}
    hidden: dict[str, int] = {}
    groups = [[finding] for finding in report.findings] if everything else _alike(report.findings)
    for group in groups:
        code = group[0].code
        seen[code] = seen.get(code, 0) + 1
        if everything or seen[code] <= _PER_CODE:
            yield finding_text(_told(group))
            if seen[code] == 1 and group[0].severity != "note" and (advice := way_out(code)):
                yield Text(f"{'':<8}{advice}", style="dim")
        else:
            hidden[code] = hidden.get(code, 0) + len(group)
    for code, n in hidden.items():
        yield Text(f"… and {n:,} more of {escape(code)} (--all shows them)", style="dim")
    yield Text(headline(report), style="bold green" if report.sound else "bold red")


def _alike(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings grouped by code, severity and the tensor's name without its numbers, in the order of the first."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for k, finding in enumerate(findings):
        key = (finding.code, finding.severity, k if finding.tensor is None else pattern_of(finding.tensor))
        groups.setdefault(key, []).append(finding)
    return list(groups.values())


def _told(group: list[Finding]) -> Finding:
    """One finding for the group: the first one's message, and which other tensors it holds for."""
    first = group[0]
    if len(group) == 1:
        return first
    others = listed(finding.tensor for finding in group[1:] if finding.tensor is not None)
    return replace(first, message=f"{first.message}; {len(group) - 1:,} more: {others}")
