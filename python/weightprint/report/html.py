"""Tables for notebooks: plain HTML, every cell escaped, no script and no style that reaches outside."""

from __future__ import annotations

from collections.abc import Sequence

from weightprint.util.escape import html

__all__ = ["html_table"]

LIMIT = 60
"""Rows shown; the rest is counted in a last line."""


def html_table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None) -> str:
    """A `<table>` of already formatted, not yet escaped cells; `total` rows exist where `rows` is only a part."""
    total = len(rows) if total is None else total
    head = "".join(f"<th>{html(header)}</th>" for header in headers)
    body = "".join("<tr>" + "".join(f"<td>{html(cell)}</td>" for cell in row) + "</tr>" for row in rows[:LIMIT])
    hidden = total - min(len(rows), LIMIT)
    more = f'<tr><td colspan="{len(headers)}">… and {hidden:,} more</td></tr>' if hidden > 0 else ""
    return (
        f"<table><caption>{html(caption, None)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}{more}</tbody></table>"
    )
