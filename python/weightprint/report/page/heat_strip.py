"""How much changed where: a strip of roles by blocks, as dark as the relative change is large."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from weightprint.anatomy.roles import ROLES, bias_of, matrix_of
from weightprint.diff.diff import Diff
from weightprint.report.page.svg import Drawing, frame, joined, label, path, rect

__all__ = ["Cell", "change_strip", "heat_strip"]

#: Relative changes from which on a cell gets darker: a thousandth, a hundredth, …
STEPS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
_ROW, _TOP, _LEFT = 17.0, 22.0, 24.0
_CROSSED = "crossed"  # no number
_GROUPS = 200  # columns: more blocks than this share one


#: What has another value and no number for how far.
_BEYOND = ("changed", "not_read", "reshaped", "only_a", "only_b")


class Cell(NamedTuple):
    """A role in a block (None: outside), and ‖B − A‖ / ‖A‖ of its tensors; infinite where there is no number."""

    role: str
    block: int | None
    relative: float


def change_strip(found: Diff) -> Drawing | None:
    """What differs between A and B, role by role and block by block; None where all is the same or has no place."""
    if found.same:
        return None
    return heat_strip(_cells(found), [*ROLES, *map(bias_of, ROLES)])


def _cells(found: Diff) -> Iterable[Cell]:
    columns = (found.table.column(name).tolist() for name in ("role", "block", "relative", "status"))
    for name, block, relative, status in zip(*columns, strict=True):
        if name is None:
            continue
        if relative is None or not math.isfinite(relative):
            relative = math.inf if status in _BEYOND else 0.0
        role = matrix_of(name)
        yield Cell(role if role == name else bias_of(role), block, relative)


def heat_strip(cells: Iterable[Cell], roles: Sequence[str]) -> Drawing | None:
    """Roles in the given order, down; blocks across, what is outside them first. None where nothing has a place."""
    told = list(cells)
    blocks = sorted({c.block for c in told if c.block is not None})
    outside = any(c.block is None for c in told)
    if not told:
        return None
    every = max(1, math.ceil(len(blocks) / _GROUPS))
    column = {block: i // every + 2 * outside for i, block in enumerate(blocks)}
    columns = max(column.values(), default=0) + 1
    seen = {cell.role for cell in told}
    rows = {role: i for i, role in enumerate(role for role in roles if role in seen)}
    worst: dict[tuple[int, int], float] = defaultdict(float)
    for cell in told:
        at = (rows[cell.role], 0 if cell.block is None else column[cell.block])
        worst[at] = max(worst[at], cell.relative)
    shapes: dict[str, list[str]] = defaultdict(list)
    for (y, x), value in worst.items():
        kind = _shade(value)
        shapes[kind].append(f"M{x} {y}h1v1h-1z" if kind != _CROSSED else f"M{x} {y}l1 1M{x} {y + 1}l1-1")
    drawn = [path("".join(d), f"heat {kind}") for kind, d in sorted(shapes.items())]
    if columns <= 80:
        grid = "".join(f"M{x} 0V{len(rows)}" for x in range(1, columns))
        drawn.append(path(grid + "".join(f"M0 {y}H{columns}" for y in range(1, len(rows))), "grid"))
    wide, tall = 98.0 - _LEFT, len(rows) * _ROW
    parts = [frame(_LEFT, _TOP, wide, tall, (float(columns), float(len(rows))), joined(drawn))]
    parts += [label(_LEFT, _TOP + (y + 0.5) * _ROW + 4, role, anchor="end", dx=-8) for role, y in rows.items()]
    if outside:
        parts.append(label(_LEFT, _TOP - 8, "outside", "dim small"))
    for block in {blocks[0], blocks[len(blocks) // 2], blocks[-1]} if blocks else ():
        if outside and column[block] < 0.1 * columns:
            continue  # no room beside the word before it
        middle = _LEFT + wide * (column[block] + 0.5) / columns
        parts.append(label(middle, _TOP - 8, str(block), "dim small", anchor="middle"))
    parts += _legend(_TOP + tall + 12)
    title = f"Relative change of {len(rows)} roles over {len(blocks)} layers"
    if most := max((cell for cell in told if math.isfinite(cell.relative)), key=lambda c: c.relative, default=None):
        title += f"; the largest is of {most.role} " + (
            "outside the layers" if most.block is None else f"in layer {most.block}"
        )
    return Drawing("change", title, _TOP + tall + 34, joined(parts))


def _shade(relative: float) -> str:
    if not math.isfinite(relative):
        return _CROSSED
    return f"h{sum(relative > step for step in STEPS)}"


def _legend(y: float) -> list[Markup]:
    words = ("same", *(f"> {100 * step:g} %" for step in STEPS))
    out = []
    for i, text in enumerate(words):
        x = _LEFT + (98 - _LEFT) * i / len(words)
        out.append(rect(x, y, 2.2, 10, f"heat h{i}"))
        out.append(label(x + 2.8, y + 9, text if i != 1 else "> 0", "dim small"))
    return out
