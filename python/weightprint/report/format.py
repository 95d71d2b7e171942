"""How numbers, sizes and names are written for people: short, aligned, the same in every report."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weightprint.report.escape import escape

__all__ = ["Pattern", "byte_count", "count", "number", "patterns", "plain_table", "seconds", "split_layer"]

_LAYER = re.compile(r"(.*?(?:^|[._/])[0-9]+)[._/](.+)", re.DOTALL)
_DIGITS = re.compile(r"([0-9]+)")


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


def seconds(value: float) -> str:
    """``"0.42 s"``, ``"3 min 5 s"``."""
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def split_layer(name: str) -> tuple[str, str]:
    """``"model.layers.7.mlp.up.weight"`` → ``("model.layers.7", "mlp.up.weight")``; ``("", name)`` without a number."""
    match = _LAYER.fullmatch(name)
    return (match[1], match[2]) if match else ("", name)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Tensors that differ only in the numbers in their names: ``layers.{0-31}.mlp.up.weight``, escaped for display."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    nbytes: int


def patterns(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> list[Pattern]:
    """(name, dtype, shape, nbytes) of tensors → their patterns, in the order of the first of each."""
    groups: dict[tuple[tuple[str, ...], str, tuple[int, ...]], list[tuple[str, ...]]] = defaultdict(list)
    sizes: dict[tuple[tuple[str, ...], str, tuple[int, ...]], int] = defaultdict(int)
    for name, dtype, shape, nbytes in tensors:
        parts = _DIGITS.split(name)
        key = (tuple(parts[::2]), dtype, shape)
        groups[key].append(tuple(parts[1::2]))
        sizes[key] += nbytes
    return [
        Pattern(_pattern_name(key[0], members), key[1], key[2], len(members), sizes[key])
        for key, members in groups.items()
    ]


def _pattern_name(words: Sequence[str], members: Sequence[tuple[str, ...]]) -> str:
    parts = [escape(words[0], 120)]
    for slot, word in enumerate(words[1:]):
        seen = {numbers[slot] for numbers in members}
        parts.append(seen.pop() if len(seen) == 1 else "{" + _ranges(sorted(seen, key=lambda d: (len(d), d))) + "}")
        parts.append(escape(word, 120))
    return "".join(parts)


def _ranges(digits: Sequence[str]) -> str:
    numbers = sorted({int(d) for d in digits if len(d) <= 18})
    runs: list[list[int]] = []
    for value in numbers:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:6]]
    return ",".join(shown + ["…"] * (len(runs) > 6 or len(numbers) < len(digits)))


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Aligned text without colour or frames, whole names, one line per row; columns in `left` are left-aligned."""
    widths = [max([len(header), *(len(row[k]) for row in rows)]) for k, header in enumerate(headers)]
    lines = []
    for row in (headers, *rows):
        cells = (
            cell.ljust(w) if k in left else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)
