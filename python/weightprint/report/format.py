"""How numbers, sizes and names are written for people: short, aligned, the same in every report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rich.cells import cell_len

__all__ = ["byte_count", "count", "number", "padded", "percent", "plain_table", "powers", "seconds"]


def byte_count(n: float) -> str:
    """``"1.23 GB"``: decimal units, three digits."""
    return _scaled(n, ("B", "kB", "MB", "GB", "TB", "PB"))


def count(n: float) -> str:
    """``"1.24 B"``: thousands, millions, billions, trillions; exact below ten thousand."""
    return f"{n:,}" if n < 10_000 else _scaled(n, ("", "K", "M", "B", "T", "Q"))


def _scaled(n: float, units: Sequence[str]) -> str:
    size, unit = float(n), 0
    while size >= 999.5 and unit < len(units) - 1:
        size, unit = size / 1000, unit + 1
    text = f"{n:.0f}" if unit == 0 else f"{size:.3g}"
    return f"{text} {units[unit]}".strip()


def number(value: float | int | None, digits: int = 4) -> str:
    """Four significant digits; an integer below a million exactly; ``-`` for what is undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, int):
        return str(value) if abs(value) < 1_000_000 else f"{value:.{digits}g}"
    return f"{value:.{digits}g}"


def percent(part: float) -> str:
    """``"8.3 %"``, ``"75 %"``: two digits, and never 100 % of what is not all."""
    value = 100 * part
    if 99.5 <= value < 100:
        return f"{min(value, 99.9):.1f} %"
    return f"{value:.3g} %" if value >= 1e6 else f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.2g} %"


def powers(words: str) -> str:
    """``10^-6`` as people write it."""
    high = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"10\^(-?\d+)", lambda found: "10" + found[1].translate(high), words)


def seconds(value: float) -> str:
    """``"0.42 s"``, ``"3 min 5 s"``."""
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Aligned text without colour or frames, whole names, one line per row; columns in `left` are left-aligned."""
    widths = [max(cell_len(row[k]) for row in (headers, *rows)) for k in range(len(headers))]
    lines = []
    for row in (headers, *rows):
        cells = (padded(cell, w, k not in left) for k, (cell, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def padded(text: str, width: int, right: bool = False) -> str:
    """Text filled up to `width` columns of a terminal, where some letters take two."""
    blank = " " * (width - cell_len(text))
    return blank + text if right else text + blank
