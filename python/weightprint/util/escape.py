"""Names shown safely.

A tensor name is chosen by whoever made the file. Shown raw it can move the cursor, turn text around (bidi marks), hide
behind invisible characters, become a link in HTML or a formula in a spreadsheet. So: every name, metadata string and
path passes through exactly one of these functions on its way out, and none is ever used to build a path.

Hidden characters are written as ``\\u{1b}``, the same in every form, and as the Rust core writes them in errors.
"""

from __future__ import annotations

import html as _html
from collections.abc import Sequence

# Letters by category, blank by looks: they pass str.isprintable.
_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u3164\uffa0\u034f\u2800")
_MARKDOWN = str.maketrans({c: "\\" + c for c in "\\`*_{}[]()<>#+-.!|~$&"})


def escape(text: str, limit: int | None = 200) -> str:
    """`text` with every character that doesn't print visible, cut after `limit` characters (None: never)."""
    cut = limit is not None and len(text) > limit
    if cut:
        text = text[:limit]
    if not (text.isprintable() and _BLANK.isdisjoint(text)):
        text = "".join(c if c.isprintable() and c not in _BLANK else f"\\u{{{ord(c):x}}}" for c in text)
    return text + "…" if cut else text


def listed(names: Sequence[str], limit: int = 5) -> str:
    """``"a, b, c and 7 more"``, escaped."""
    shown = ", ".join(escape(name, 120) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def html(text: str, limit: int | None = 200) -> str:
    """For HTML text and quoted attributes."""
    return _html.escape(escape(text, limit), quote=True)


def csv(text: str) -> str:
    """For a CSV cell: a leading ``= + - @`` gets a quote before it, so that no spreadsheet computes it."""
    shown = escape(text, None)
    return "'" + shown if shown.lstrip()[:1] in ("=", "+", "-", "@") else shown


def markdown(text: str, limit: int | None = 200) -> str:
    """For Markdown text and table cells."""
    return escape(text, limit).translate(_MARKDOWN)
