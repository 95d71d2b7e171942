"""How several models belong together: a heat map of all pairs, and the tree of who was made from whom.

Both are drawn from plain data, so that whatever finds a lineage can show it: names, a square matrix of numbers from
0 to 1, and edges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup

from weightprint.report.page.svg import Drawing, frame, joined, label, line, path, rect
from weightprint.report.pen import tail

__all__ = ["Edge", "pairs_drawing", "tree_drawing"]

_STEPS = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Values from which on a cell of the heat map is darker."""
_ROW, _MOST_NAMED = 20.0, 40  # pixels of a row with its name; models whose names all stand beside the map
_TALLEST = 560.0
_NAMES, _LETTERS = 34.0, 16  # percent of the width, and letters that stand there on a phone


class Edge(NamedTuple):
    """From the model `parent` to the model `child` (places in the list of names): ``length`` ≥ 0 in any unit, None
    where it is not known; ``sure`` False draws it dashed, ``words`` stand under the pointer."""

    parent: int
    child: int
    length: float | None = None
    sure: bool = True
    words: str = ""


def pairs_drawing(names: Sequence[str], values: Sequence[Sequence[float | None]], what: str = "share found") -> Drawing:
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
    top, wide = 20.0, 98.0 - _NAMES
    parts = [frame(_NAMES, top, wide, n * step, (float(max(n, 1)), float(max(n, 1))), joined(drawn))]
    every = 1 if n <= _MOST_NAMED else -(-n // _MOST_NAMED)
    for i in range(0, n, every):
        at = f"{i + 1}  {tail(names[i], _LETTERS)}"
        parts.append(label(_NAMES, top + (i + 0.5) * step + 4, at, "small", anchor="end", dx=-6))
        if i % (every * (1 if n <= 20 else 5)) == 0:
            x = _NAMES + wide * (i + 0.5) / n
            parts.append(label(x, top - 6, str(i + 1), "dim small", anchor="middle"))
    bottom = top + n * step + 14
    legend = ("none", "> 0", *(f"{100 * step:g}" for step in _STEPS[:-1]), f"{100 * _STEPS[-1]:g} %")
    for k, words in enumerate(legend):
        x = _NAMES + wide * k / len(legend)
        parts += [rect(x, bottom, 2.2, 10, f"heat h{k}"), label(x, bottom + 22, words, "dim small")]
    related = sum(value is not None and value > 0 for i, row in enumerate(values) for value in row[i + 1 :])
    pairs = n * (n - 1) // 2
    title = f"{what[0].upper()}{what[1:]} of every pair of {n:,} models: {related:,} of {pairs:,} pairs share something"
    return Drawing("pairs", title, bottom + 28, joined(parts))


def _shade(value: float | None) -> str:
    return "crossed" if value is None else f"h{sum(value > step for step in (0.0, *_STEPS))}"


def tree_drawing(names: Sequence[str], edges: Sequence[Edge]) -> Drawing:
    """Roots left, their descendants right of them; a model with several parents has a line from each. Across, a model
    stands where the lengths from its root add up to; without lengths, at its generation."""
    parents: dict[int, list[Edge]] = defaultdict(list)
    children: dict[int, list[int]] = defaultdict(list)
    for edge in edges:
        parents[edge.child].append(edge)
    for child, found in sorted(parents.items()):
        children[found[0].parent].append(child)
    order = _rows(len(names), parents, children)
    depth = _depths(len(names), parents)
    deepest = max(depth, default=0.0) or 1.0
    row = {model: k for k, model in enumerate(order)}
    step = min(_ROW, max(8.0, 2 * _TALLEST / max(len(names), 1)))
    left, wide = 3.0, 97.0 - _NAMES - 3.0

    def at(model: int) -> tuple[float, float]:
        return left + wide * depth[model] / deepest, 10 + (row[model] + 0.5) * step

    parts: list[Markup] = []
    for edge in edges:
        (x0, y0), (x1, y1) = at(edge.parent), at(edge.child)
        kind = "branch" if edge.sure else "branch unsure"
        parts += [line(x0, y0, x0, y1, kind), line(x0, y1, x1, y1, kind)]
        told = edge.words or f"{names[edge.parent]} → {names[edge.child]}"
        parts.append(rect(x0, y1 - 4, max(x1 - x0, 0.5), 8, "touch", told))
    for model, name in enumerate(names):
        x, y = at(model)
        kind = "mark-for" if parents[model] or children[model] else "mark-against"
        # An upright bar keeps its width on every screen.
        parts.append(rect(x - 0.5, y - 4, 1.0, 8, kind, name, rx=2))
        parts.append(label(x + 0.5, y + 4, tail(name, _LETTERS), "small", dx=8))
    roots = sum(not parents[model] for model in range(len(names)))
    title = f"Tree of {len(names):,} models: {roots:,} without a parent among them, {len(edges):,} steps"
    if any(not edge.sure for edge in edges):
        title += "; dashed: which of the two came first is not known"
    return Drawing("tree", title, 20 + len(names) * step, joined(parts))


def _rows(n: int, parents: dict[int, list[Edge]], children: dict[int, list[int]]) -> list[int]:
    """Models from top to bottom: each above its children, trees with more models first."""
    out: list[int] = []
    seen: set[int] = set()

    def walk(start: int) -> list[int]:
        found, left = [], [start]
        while left:
            model = left.pop()
            if model not in seen:
                seen.add(model)
                found.append(model)
                left.extend(reversed(children[model]))
        return found

    trees = [walk(model) for model in range(n) if not parents[model]]
    for tree in sorted(trees, key=len, reverse=True):
        out += tree
    # Edges that go round in a circle have no root.
    return [*out, *(model for k in range(n) for model in walk(k))]


def _depths(n: int, parents: dict[int, list[Edge]]) -> list[float]:
    """How far each model stands from its root: the lengths added up, or generations where one is missing."""
    told = all(edge.length is not None for found in parents.values() for edge in found)
    depth = [0.0] * n
    for _ in range(n):
        before = list(depth)
        for child, found in parents.items():
            if found:
                depth[child] = max(
                    depth[e.parent] + (e.length if told and e.length is not None else 1.0) for e in found
                )
        if depth == before:
            return depth
    return [min(d, float(n)) for d in depth]  # a circle never comes to rest
