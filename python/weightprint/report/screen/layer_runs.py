"""The layer map of a comparison in characters: runs of B's layers above the layers of A that they are.

::

    B  0-7       8-15
       ████████  ████████
    A  0-7       2-9
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from weightprint.report.format import percent
from weightprint.verdict.values import ExpertMatch, LayerMatch

__all__ = ["drawn", "expert_words", "layer_words"]

#: Share of a layer's units that was found, from which on → its shade.
_SHADES = ((0.9, "█"), (0.6, "▓"), (0.3, "▒"), (0.0, "░"))
_CELLS = 48  # of a bar; of more layers each stands for several


def drawn(layer_map: Sequence[LayerMatch], width: int) -> list[str]:
    """Three lines, or one where all stand in one run; words where that is wider than `width`; none without layers."""
    runs = _runs(layer_map)
    if all(a is None for _, a, _ in runs):
        return []
    seen = [row.share or 0.0 for row in layer_map if row.a is not None]
    each = -(-len(layer_map) // min(_CELLS, max(width - 24, 8)))
    cells = []
    at = 0
    for b, a, n in runs:
        bar = "".join(_shade(row) for row in layer_map[at : at + n : each])
        cells.append((_run(b, n), bar, "-" if a is None else _run(a, n)))
        at += n
    shares = [percent(max(share, 0.0)) for share in (min(seen), max(seen))]
    agreement = f"  agreement {' to '.join(dict.fromkeys(shares))}"
    if len(cells) == 1:
        of_b, bar, of_a = cells[0]
        lines = [f"B {of_b} = A {of_a}  {bar}{agreement}"]
        return lines if len(lines[0]) <= width else _folded(layer_words(layer_map), width)
    wide = [max(map(len, cell)) for cell in cells]
    lines = ["  ".join(cell[k].ljust(w) for cell, w in zip(cells, wide, strict=True)).rstrip() for k in range(3)]
    lines = [f"{head}  {line}" for head, line in zip("B A", lines, strict=True)]
    lines[1] += agreement
    return lines if max(map(len, lines)) <= width else _folded(layer_words(layer_map), width)


def _shade(row: LayerMatch) -> str:
    if row.a is None:
        return "·"
    return next((shade for least, shade in _SHADES if (row.share or 0.0) >= least), "░")


def _folded(words: str, width: int) -> list[str]:
    lines = textwrap.wrap(words, width, break_on_hyphens=False)
    return lines if len(lines) <= 3 else [*lines[:2], lines[2][: width - 2] + " …"]


def layer_words(layer_map: Sequence[LayerMatch]) -> str:
    """``"B 0-5 = A 0-5, B 6-11 = A 2-7; not found: B 12"``; empty where nothing was found."""
    runs = _runs(layer_map)
    found = [f"B {_run(b, n)} = A {_run(a, n)}" for b, a, n in runs if a is not None]
    lost = ", ".join(_run(b, n) for b, a, n in runs if a is None)
    return ", ".join(found) + f"; not found: B {lost}" * bool(lost) if found else ""


def _runs(layer_map: Sequence[LayerMatch]) -> list[tuple[int, int | None, int]]:
    """Maximal runs that rise by one on both sides, or were not found: (first B, first A or None, length)."""
    out: list[tuple[int, int | None, int]] = []
    for b, a, _ in layer_map:
        first, origin, n = out[-1] if out else (-1, None, 0)
        if out and b == first + n and (a is None if origin is None else a == origin + n):
            out[-1] = (first, origin, n + 1)
        else:
            out.append((b, a, 1))
    return out


def _run(first: int, n: int) -> str:
    return str(first) if n == 1 else f"{first}-{first + n - 1}"


def expert_words(expert_map: Sequence[ExpertMatch]) -> str:
    """How many experts were found, and how much of them on average."""
    share = sum(row.share for row in expert_map) / len(expert_map)
    layers = len({row.layer for row in expert_map})
    whose = "B are A's" if any(row.expert is not None for row in expert_map) else "A are in B's feed-forward parts"
    return f"{len(expert_map):,} in {layers:,} layers of {whose}, {percent(share)} of their units on average"
