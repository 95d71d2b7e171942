"""The page of a check: sound or not, then every finding by severity with its coordinates, and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from markupsafe import Markup

from weightprint.check.check import CheckReport
from weightprint.check.codes import way_out
from weightprint.report.check import headline
from weightprint.report.html import html_table
from weightprint.report.page.page import Section, document, rendered, trusted
from weightprint.results.finding import Finding

__all__ = ["page"]

_ROWS = 1000
_TITLES = {"error": "Broken", "warning": "Suspicious", "note": "Worth knowing"}


def page(report: CheckReport) -> str:
    """The whole page."""
    word, tone = ("SOUND", "none") if report.sound else ("NOT SOUND", "related")
    lead = rendered("told.html", tone=tone, word=word, sentence=headline(report))
    sections = [_severity(severity, [*some]) for severity, some in groupby(report.findings, lambda f: f.severity)]
    files = html_table("", ("file", "bytes"), [(name, f"{nbytes:,}") for name, nbytes in report.files], _ROWS)
    digest = report.scan.digest if report.scan else None
    told = Markup('<p>Digest of all tensors, as of weightprint check --json: <span class="mono">{}</span></p>').format(
        digest or "not made"
    )
    return document(
        "check of a checkpoint", report.source, lead, [*sections, Section("What was read", trusted(files) + told)]
    )


def _severity(severity: str, findings: list[Finding]) -> Section:
    body = Markup("")
    for code, some in groupby(sorted(findings, key=lambda f: f.code), lambda f: f.code):
        group = [*some]
        caption = f"{code}: {len(group):,}"
        body += trusted(html_table(caption, ("tensor", "file", "byte", "finding"), [*_rows(group)], _ROWS))
        if advice := way_out(code):
            body += Markup('<p class="note">{}</p>').format(advice)
    n = len(findings)
    return Section(f"{_TITLES[severity]}: {n:,} {severity}{'s' * (n != 1)}", body)


def _rows(findings: Iterable[Finding]) -> Iterable[tuple[str, ...]]:
    for f in findings:
        file = "-" if f.path is None else f.path.rpartition("/")[2]
        yield f.tensor or "-", file, "-" if f.offset is None else f"{f.offset:,}", f.message
