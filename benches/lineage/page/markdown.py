"""Numbers, rates and tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["number", "percent", "rate", "scored_with", "seconds", "table"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: first column left, the rest right."""
    lines = [
        list(head),
        [":--"] + ["--:"] * (len(head) - 1),
        *([cell.replace("|", "/") for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(x: float | None, digits: int = 3) -> str:
    """Three digits after the point; a dash for None."""
    return "–" if x is None else f"{x:.{digits}f}"


def percent(x: float | None) -> str:
    """`12.3 %`; a dash for None."""
    return "–" if x is None else f"{_hundredths(x)} %"


def _hundredths(x: float) -> str:
    """One digit after the point; more where that would call something nothing, or not quite all all."""
    text = f"{100 * x:.1f}"
    return f"{100 * x:.3f}" if (text == "0.0" and x > 0) or (text == "100.0" and x < 1) else text


def rate(r: Mapping[str, Any] | None, as_percent: bool = False) -> str:
    """A value with its interval: `.981 [.95–.99]`."""
    if r is None or r["value"] is None:
        return "–"
    show, unit = (_hundredths, " %") if as_percent else (number, "")
    value, low, high = (None if r[key] is None else show(r[key]) for key in ("value", "low", "high"))
    return f"{value}{unit}" if low is None else f"{value}{unit} [{low}–{high}]"


def seconds(x: float | None) -> str:
    """`0.08 s`, `1.3 ms`."""
    if x is None:
        return "–"
    return f"{1000 * x:.2g} ms" if x < 0.1 else f"{x:.2g} s" if x < 100 else f"{x:.0f} s"


def scored_with(code: Sequence[Mapping[str, Any]]) -> str:
    """`code 1a2b… of commit 3c4d… (20 pairs), …`: what scores were made with."""
    of = [f" of commit {c['commit']}" if c["commit"] else "" for c in code]
    return ", ".join(f"code {c['version']}{x} ({c['pairs']} pairs)" for c, x in zip(code, of, strict=True))


def log10(x: float | None) -> str:
    """`-312`, `-4.2`; a dash for None."""
    return "–" if x is None or not math.isfinite(x) else f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}"
