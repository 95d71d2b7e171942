"""A heat map of all pairs of several models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from weightprint.report.page.svg import Drawing, frame, joined, label, path, rect
from weightprint.report.pen import tail

__all__ = ["STEPS", "pairs_drawing"]

STEPS = (0.0, 0.5, 0.8, 0.95, 0.99, 0.9999)
"""Values above which a cell of the heat map is darker. Cosines of relatives crowd below 1."""
_ROW, _MOST_NAMED = 20.0, 40  # pixels of a row with its name; models whose names all stand beside the map
_TALLEST, _WIDEST = 560.0, 8.0  # pixels of all rows; percent of one column
_NAMES, _LETTERS = 34.0, 16  # percent of the width, and letters that stand there on a phone


def pairs_drawing(names: Sequence[str], values: Sequence[Sequence[float | None]], what: str) -> Drawing:
    """Every pair as a cell, row by row in the order of the names; ``values[i][j]``: 0 to 1, None for a pair that was
    not told, which is crossed out; ``what``: what the values are."""
    n = len(names)
    step = min(_ROW, max(3.0, _TALLEST / max(n, 1)))
    shapes: dict[str, list[str]] = defaultdict(list)
    for i, row in enumerate(values):
        j = 0
        for kind, alike in groupby(row, _shade):
            width = len([*alike])
            if kind == "crossed":
                shapes[kind] += [f"M{x} {i}l1 1M{x} {i + 1}l1-1" for x in range(j, j + width)]
            elif kind != "h0":  # which is what lies below all cells
                shapes[kind].append(f"M{j} {i}h{width}v1h-{width}z")
            j += width
    drawn = [path(f"M0 0h{n}v{n}h-{n}z", "heat h0")]
    drawn += [path("".join(cells), f"heat {kind}") for kind, cells in sorted(shapes.items())]
    if n <= 80:
        grid = "".join(f"M{k} 0V{n}M0 {k}H{n}" for k in range(1, n))
        drawn.append(path(grid, "grid"))
    top, wide = 20.0, min(98.0 - _NAMES, _WIDEST * n)
    parts = [frame(_NAMES, top, wide, n * step, (float(max(n, 1)), float(max(n, 1))), joined(drawn))]
    every = 1 if n <= _MOST_NAMED else -(-n // _MOST_NAMED)
    for i in range(0, n, every):
        at = f"{i + 1}  {tail(names[i], _LETTERS)}"
        parts.append(label(_NAMES, top + (i + 0.5) * step + 4, at, "small", anchor="end", dx=-6))
        if i % (every * (1 if n <= 10 else 2 if n <= 20 else 5)) == 0:
            x = _NAMES + wide * (i + 0.5) / n
            parts.append(label(x, top - 6, str(i + 1), "dim small", anchor="middle"))
    bottom = top + n * step + 14
    for k, words in enumerate(("none", *(f"> {step:g}".replace("0.", ".") for step in STEPS))):
        x = 2 + 96 * k / (len(STEPS) + 1)
        parts += [rect(x, bottom, 2.2, 10, f"heat h{k}"), label(x, bottom + 22, words, "dim small")]
    related = sum(value is not None and value > 0 for i, row in enumerate(values) for value in row[i + 1 :])
    pairs = n * (n - 1) // 2
    title = f"{what[0].upper()}{what[1:]} of every pair of {n:,} models: {related:,} of {pairs:,} pairs share an origin"
    return Drawing("pairs", title, bottom + 28, joined(parts))


def _shade(value: float | None) -> str:
    return "crossed" if value is None else f"h{sum(value > step for step in STEPS)}"
