"""Tables and lists of HTML for notebooks and pages: every text escaped, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from weightprint.util.escape import html

__all__ = ["LIMIT", "html_list", "html_table"]

LIMIT = 60
"""Rows that a notebook shows; the rest is counted in a last line."""


def html_table(
    caption: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    limit: int | None = LIMIT,
    total: int | None = None,
) -> str:
    """A `<table>` of already formatted, not yet escaped cells: the first `limit` rows, each cell cut at 200 characters;
    with None all, uncut. `total` rows exist where `rows` is only a part."""
    shown, width = rows[:limit], None if limit is None else 200
    head = "".join(f"<th>{html(header)}</th>" for header in headers)
    body = "".join("<tr>" + "".join(f"<td>{html(cell, width)}</td>" for cell in row) + "</tr>" for row in shown)
    hidden = (total or len(rows)) - len(shown)
    more = f'<tr><td colspan="{len(headers)}">… and {hidden:,} more</td></tr>' if hidden > 0 else ""
    return (
        f"<table><caption>{html(caption, None)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}{more}</tbody></table>"
    )


def html_list(title: str, items: Sequence[str], limit: int | None = LIMIT) -> str:
    """A line of text and the first `limit` items below it; nothing where there are none."""
    if not items:
        return ""
    hidden = len(items) - len(items[:limit])
    shown = [*items[:limit], *([f"… and {hidden:,} more"] if hidden else [])]
    return f"<p>{html(title, None)}</p><ul>{''.join(f'<li>{html(item, None)}</li>' for item in shown)}</ul>"
