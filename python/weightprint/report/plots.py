"""Plots for notebooks, with matplotlib (``pip install 'weightprint[plots]'``): what the page draws, to work on."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from weightprint.errors import UsageError
from weightprint.report.page.compare import maps_of
from weightprint.report.page.curves import panels
from weightprint.util.escape import escape

if TYPE_CHECKING:
    from weightprint.compare.compare import Comparison
    from weightprint.scan.result import Scan

__all__ = ["plot_curves", "plot_map", "plot_scan"]

_KEPT, _MOVED, _DIM = "#2f5d8a", "#a8560b", "#57606a"


def plot_map(comparison: Comparison, ax: Any = None) -> Any:
    """Blocks of A left and of B right, a ribbon from each block of B to where it came from."""
    maps = maps_of(comparison)
    if not maps:
        raise UsageError("no block of either model is known by its place", code="nothing_to_plot")
    stack = maps[0]
    rows = max(len(stack.blocks_a), len(stack.blocks_b), 1)
    ax = _axes(ax, (6, 1 + 0.22 * rows))
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    for link in stack.links:
        a, b = link.a, link.b
        points = [(1, a), (2, a), (2, b), (3, b), (3, b + 0.8), (2, b + 0.8), (2, a + 0.8), (1, a + 0.8), (1, a)]
        codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
        colour = _MOVED if link.moved else _KEPT
        ax.add_patch(PathPatch(Path(points, codes), color=colour, alpha=0.1 + 0.7 * min(1.0, link.share), linewidth=0))
    for x, blocks in ((0, stack.blocks_a), (3, stack.blocks_b)):
        for i, block in enumerate(blocks):
            missing = x == 0 and stack.links and i in stack.unused
            absent = x == 3 and stack.states[i] == "absent"
            look, hatch = "--" if missing else "-", "///" if absent else None
            ax.add_patch(Rectangle((x, i), 1, 0.8, facecolor="none", edgecolor=_DIM, linestyle=look, hatch=hatch))
            ax.text(x + 0.5, i + 0.4, str(block), ha="center", va="center", fontsize=8)
    ax.set(xlim=(-0.1, 4.1), ylim=(rows + 0.2, -1), title="where the layers of B come from")
    ax.text(0.5, -0.4, "A", ha="center")
    ax.text(3.5, -0.4, "B", ha="center")
    ax.axis("off")
    return ax


def plot_curves(comparison: Comparison) -> Any:
    """A figure with every curve over depth: A drawn through, B dashed, unrelated models as a grey band."""
    shown = panels(comparison)
    if not shown:
        raise UsageError("no curve over depth was measured of this pair", code="nothing_to_plot")
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = _pyplot().subplots(rows, columns, figsize=(3.6 * columns, 2.4 * rows), squeeze=False)
    for ax, panel in zip(axes.flat, shown, strict=False):
        if panel.band is not None:
            depth = np.linspace(0, 1, panel.band[0].size)
            ax.fill_between(depth, *panel.band, color="#c3cad2", alpha=0.6, linewidth=0, label="unrelated models")
        for side, curve in panel.curves.items():
            look = {"a": (_KEPT, "-"), "b": (_MOVED, "--")}[side]
            depth = np.linspace(0, 1, curve.size)
            ax.plot(depth, curve, color=look[0], linestyle=look[1], label=side.upper())
        ax.set(title=panel.title, xlabel="depth", ylabel=panel.unit)
    for ax in axes.flat[len(shown) :]:
        ax.axis("off")
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def plot_scan(scan: Scan, column: str, ax: Any = None) -> Any:
    """A line per role: a column of the scan's table over the blocks of a model."""
    table = scan.table
    if not {"block", "role", column} <= set(table.names) or not any(block is not None for block in table["block"]):
        message = (
            f"plot needs the columns role, block and {escape(column)}: scan an anatomy (weightprint.anatomy(model))"
        )
        raise UsageError(message, code="nothing_to_plot")
    lines: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for role, block, value in zip(table["role"], table["block"], table[column], strict=True):
        if role is not None and block is not None and value is not None:
            lines[role][block].append(value)
    ax = _axes(ax, (7, 4))
    for role, by in lines.items():
        blocks = sorted(by)
        ax.plot(blocks, [float(np.mean(by[block])) for block in blocks], marker=".", label=escape(role))
    ax.set(xlabel="layer", ylabel=column, title=escape(scan.source))
    ax.legend(fontsize=8, ncols=2)
    return ax


def _axes(ax: Any, size: tuple[float, float]) -> Any:
    return _pyplot().subplots(figsize=size)[1] if ax is None else ax


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        message = "plots need matplotlib: pip install 'weightprint[plots]'"
        raise UsageError(message, code="matplotlib_not_installed") from error
    return pyplot
