"""Who was made from whom: a row per model, its parents' lines, how much is new in it, and how sure that is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from weightprint.report.page.svg import Drawing, joined, label, line, rect
from weightprint.report.pen import tail
from weightprint.report.tree.words import main_edge, mix_words, rows, short_names, step_words

if TYPE_CHECKING:
    from weightprint.results.lineage import Edge, Lineage

__all__ = ["tree_drawing"]

_TREE, _AXIS, _NAMES = (1.5, 25.0), (28.0, 42.0), 44.5  # percent: where the parts of a row stand
_TALL, _LOW, _MOST_TALL = 34.0, 16.0, 80  # pixels of a row with and without what stands below a name; rows that have it
_LETTERS, _TOLD = 24, 34  # that fit beside the drawing on a phone
_TOP = 30.0


class _Axis(NamedTuple):
    """Decades of what is new in a child."""

    low: int
    high: int

    def at(self, length: float) -> float:
        """Percent of the width."""
        log = min(max(math.log10(max(length, 1e-12)), self.low), self.high)
        return _AXIS[0] + (_AXIS[1] - _AXIS[0]) * (log - self.low) / (self.high - self.low)


def tree_drawing(lineage: Lineage) -> Drawing:
    """Roots left, their descendants right of them, one generation after the other; a merge has a line from each of its
    parents. Beside it the length of each step with its interval, on a logarithmic axis."""
    order = rows(lineage)
    row, depth = {name: k for k, name in enumerate(order)}, _generations(lineage)
    numbers = {name: str(k + 1) for k, name in enumerate(n for n in order if n not in lineage.unseen)}
    short = short_names(lineage)
    step = _TALL if len(order) <= _MOST_TALL else _LOW
    deepest = max(depth.values(), default=0) or 1

    def at(name: str) -> tuple[float, float]:
        return _TREE[0] + (_TREE[1] - _TREE[0]) * depth[name] / max(deepest, 3), _TOP + (row[name] + 0.5) * step

    parts, axis = _ground(lineage, len(order) * step)
    parts += [line(at(name)[0] + 1.2, at(name)[1], _NAMES - 0.8, at(name)[1], "tick") for name in order]
    for child in order:
        edges = lineage.parents(child)
        for edge in edges:
            words = f"{short[edge.parent]} → {short[child]}: {step_words(lineage, edge, short)}"
            parts += _branch(at(edge.parent), at(child), edge, edge == main_edge(lineage, child), words)
        if axis is not None and edges:
            parts += _whisker(axis, main_edge(lineage, child), at(child)[1])
    lost = {gone.model for gone in lineage.unplaced}
    for name in order:
        x, y = at(name)
        kind = "block unseen" if name in lineage.unseen else "mark-against" if name in lost else "mark-for"
        parts.append(rect(x - 0.6, y - 5, 1.2, 10, kind, name, rx=2))
        called = f"{numbers[name]}  {tail(short[name], _LETTERS)}" if name in numbers else f"{name}: not among them"
        told = "" if step == _LOW else _told(lineage, name, numbers, lost)
        parts.append(label(_NAMES, y - 2 if told else y + 4, called, "small" if step == _LOW else ""))
        parts += [label(_NAMES, y + 12, told, "dim small")] * bool(told)
    n = len(lineage.models)
    title = f"Tree of {n:,} models: {len(lineage.roots):,} roots, {len(lineage.edges):,} steps"
    return Drawing("tree", title.replace(": 1 roots", ": 1 root"), _TOP + len(order) * step + 6, joined(parts))


def _told(lineage: Lineage, name: str, numbers: dict[str, str], lost: set[str]) -> str:
    """What stands below a name."""
    if name in lost:
        return "no place in a tree"
    if not lineage.parents(name):
        return f"root; {len(lineage.children(name)):,} made from it"
    edge = main_edge(lineage, name)
    if edge.kind == "merge":
        words = mix_words(lineage, name, numbers)
        return words if len(words) <= _TOLD else f"{words[: _TOLD - 1]}…"
    if edge.kind == "copy":
        return f"nothing new against {numbers.get(edge.parent, 'it')}"
    parted = [] if edge.length is None else [f"new {edge.length:.2g}"]
    if edge.low is not None and edge.high is not None:
        parted[-1:] = [f"{parted[-1] if parted else ''} [{edge.low:.2g}, {edge.high:.2g}]"]
    parted += [f"{edge.support:.0%}".replace("%", " %")] * (edge.support is not None)
    return "; ".join([*parted, *["or reversed"] * (edge.kind == "undirected")])


def _ground(lineage: Lineage, height: float) -> tuple[list[Markup], _Axis | None]:
    """The axis of lengths, and its lines."""
    logs = [math.log10(x) for e in lineage.edges for x in (e.low, e.length, e.high) if x is not None and x > 1e-9]
    if not logs:
        return [], None
    axis = _Axis(math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1))
    parts = [label(_AXIS[0], 10, "how much is new", "dim small")]
    for k in range(axis.low, axis.high + 1):
        x = axis.at(10.0**k)
        parts.append(line(x, _TOP - 4, x, _TOP + height, "tick"))
        if k in (axis.low, axis.high):
            parts.append(label(x, _TOP - 7, f"{10.0**k:g}", "dim small", anchor="middle"))
    return parts, axis


def _branch(
    parent: tuple[float, float], child: tuple[float, float], edge: Edge, main: bool, words: str
) -> Sequence[Markup]:
    """Down from the parent, then across to the child; further parents of a merge beside its first."""
    (x0, y0), (x1, y1) = parent, child
    kind = {"merge": "branch mixed", "undirected": "branch unsure", "copy": "branch unsure"}.get(edge.kind, "branch")
    x0, y1 = (x0, y1) if main else (x0 + 0.5, y1 + 3)
    touch = rect(min(x0, x1), y1 - 4, max(abs(x1 - x0), 0.5), 8, "touch", words)
    return [line(x0, y0, x0, y1, kind), line(x0, y1, x1, y1, kind), touch]


def _whisker(axis: _Axis, edge: Edge, y: float) -> Sequence[Markup]:
    if edge.length is None or edge.kind in ("copy", "merge"):
        return []
    low, high = (edge.length if x is None else x for x in (edge.low, edge.high))
    return [
        line(axis.at(low), y, axis.at(high), y, "stem"),
        rect(axis.at(edge.length) - 0.4, y - 4, 0.8, 8, "mark-for", rx=2),
    ]


def _generations(lineage: Lineage) -> dict[str, int]:
    """How many steps each model stands from its root, by the longest way."""
    names = [*lineage.models, *lineage.unseen]
    parents: dict[str, list[str]] = defaultdict(list)
    for edge in lineage.edges:
        parents[edge.child].append(edge.parent)
    depth = dict.fromkeys(names, 0)
    for _ in names:
        before = dict(depth)
        for child, found in parents.items():
            depth[child] = max(depth[parent] + 1 for parent in found)
        if depth == before:
            return depth
    return {name: min(d, len(names)) for name, d in depth.items()}  # a circle never comes to rest
