"""The page's plots. matplotlib is loaded when the first is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..score.pair_table import CLAIMS, Row
from ..score.pairs import RELATED, SHARED_INIT, UNRELATED

__all__ = ["draw", "draw_partings"]

_FLOOR = 0.01

_COLOURS = {RELATED: "#1b6ca8", SHARED_INIT: "#8d8d8d", UNRELATED: "#d1495b", "teacher_student": "#edae49"}
_NAMES = {
    RELATED: "related",
    SHARED_INIT: "shared initialisation",
    UNRELATED: "unrelated",
    "teacher_student": "teacher, student",
}


def draw(rows: Sequence[Row], real: Sequence[Row], numbers: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw all that there are data for, with `real` ones only where it is about time; returns the files' names."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"})
    drawn = []
    for name, plot in (("distributions", _distributions), ("power", _power), ("time", _time)):
        figure = plot(plt, [*rows, *real] if plot is _time else rows, numbers)
        if figure is not None:
            figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight", metadata={"Software": None})
            plt.close(figure)
            drawn.append(f"{name}.png")
    return drawn


def draw_partings(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Where pairs parted, on the way from the parent (0) to the child (1), against the decay that was seen; siblings on
    the way from either to the other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"})
    groups = {"trained on": ("#1b6ca8", "o"), "siblings": ("#8d8d8d", "."), "merged": ("#d1495b", "x")}
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6))
    for name, (colour, marker) in groups.items():
        found = [(r["parting"], r["later"]) for r in rows if r["group"] == name and r["parting"] is not None]
        narrow = [(p, later) for p, later in found if p["high"] - p["low"] < 1]
        t = np.array([1 - p["t"] if later == "a" else p["t"] for p, later in narrow])
        pull = np.array([-p["pull"] if later == "a" else p["pull"] for p, later in narrow])
        if t.size:
            axes[0].plot(np.clip(t, -1, 2), np.clip(pull, -2, 2), marker, color=colour, ms=4, alpha=0.6, ls="",
                         label=f"{name} ({t.size})")  # fmt: skip
            axes[1].hist(np.clip(t, -1, 2), np.linspace(-1, 2, 61), weights=np.full(t.size, 1 / t.size), color=colour,
                         histtype="step", lw=1.4)  # fmt: skip
    axes[0].set_ylabel("decay from parent to child ÷ |difference|²")
    axes[0].legend(fontsize=7, frameon=False)
    axes[1].set_yticks([])
    for axis in axes:
        axis.set_xlabel("t: where they parted, from the parent (0) to the child (1)")
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def _group(row: Row) -> str:
    return "teacher_student" if row["kind"] == "teacher_student" else str(row["relation"])


def _distributions(plt: Any, rows: Sequence[Row], numbers: Mapping[str, Any]) -> Any:
    """Score of every pair, one panel per method: where the colours overlap the method can't tell."""
    names = [n for n, m in numbers["methods"].items() if "all" in m and m["all"]["applied"] > 0]
    if not names:
        return None
    columns = 4
    lines = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.1 * columns, 1.75 * lines), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        cells = [(_group(r), r["methods"].get(name, {}).get("score")) for r in rows]
        some = np.array([s for _, s in cells if s is not None], float)
        logs = bool(name.startswith("weightprint") and some.size and some.max() > 20)
        groups = [g for g in _COLOURS if any(kind == g and s is not None for kind, s in cells)]
        data = [_scaled([s for kind, s in cells if kind == g and s is not None], name, logs) for g in groups]
        span = (min(map(np.min, data)), max(map(np.max, data)))
        bins = np.linspace(*span, 41) if span[1] > span[0] else 10
        for group, values in zip(groups, data, strict=True):
            axis.hist(values, bins, weights=np.full(values.size, 1 / values.size), histtype="step",
                      color=_COLOURS[group], lw=1.4, label=_NAMES[group])  # fmt: skip
        axis.set_title(name + ("\n(−log10 p, log scale)" if logs else ""), fontsize=8)
        axis.set_yticks([])
        if logs:
            ticks = [t for t in (0, 1, 2, 3, 4, 6) if t <= span[1] + 0.5]
            axis.set_xticks(ticks, ["0" if t == 0 else f"1e{t}" for t in ticks])
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    handles = [plt.Line2D([], [], color=_COLOURS[g], label=_NAMES[g]) for g in _COLOURS]
    figure.legend(handles=handles, loc="upper center", ncol=4, frameon=False, bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    return figure


def _scaled(values: Sequence[float], name: str, logs: bool) -> Any:
    x = np.array(values, float)
    if name == "weightprint":
        x = x % 1e6  # -log10 p, without the verdict's tier
    return np.log10(1 + np.maximum(x, 0)) if logs else x


def _power(plt: Any, rows: Sequence[Row], numbers: Mapping[str, Any]) -> Any:
    """How much training washes a fingerprint out: weightprint's p and share pair by pair, and every method's power."""
    kin = [r for r in rows if r["relation"] == RELATED and r["training"] is not None]
    kin = [r for r in kin if "log10_p" in r.get("weightprint", {})]
    if not kin:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 3.9))
    x = np.array([max(_FLOOR, r["training"]) for r in kin])
    said = [r["weightprint"] for r in kin]
    p = np.array([max(0.0, -(s["log10_p"] or 0.0)) for s in said])
    share = np.array([s["share"] or 0.0 for s in said])
    claimed = np.array([s["verdict"] in CLAIMS for s in said])
    only = np.array([r.get("trained_only", False) for r in kin])
    looks = (
        (claimed & only, "o", "#1b6ca8", "trained on, nothing else"),
        (claimed & ~only, "o", "#a9c9e2", "other operations, too"),
        (~claimed, "x", "#d1495b", "not called related"),
    )
    for axis, y, label in ((axes[0], p, "−log10 p"), (axes[1], share, "share of B found in A")):
        for mask, marker, colour, name in looks:
            axis.plot(x[mask], y[mask], marker, ms=4, alpha=0.7, color=colour, label=f"{name} ({mask.sum()})", ls="")
        axis.set_ylabel(label)
    strangers = [
        r["weightprint"].get("log10_p") or 0.0 for r in rows if r["relation"] == UNRELATED and "weightprint" in r
    ]
    axes[0].set_yscale("symlog", linthresh=1)
    if strangers:
        top = max(0.0, -min(strangers))
        label = f"highest of {len(strangers)} strangers: {top:.1f}"
        axes[0].axhline(top, color=_COLOURS[UNRELATED], lw=1, ls="--", label=label)
    axes[0].legend(fontsize=7, frameon=False, loc="lower left")
    _methods_power(plt, axes[2], numbers["washing_by_method"])
    longest = max(
        [1.0, float(x.max()), *(point[0] for line in numbers["washing_by_method"].values() for point in line)]
    )
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xlim(0.8 * _FLOOR, 1.3 * longest)
        ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1, 3, 10) if t <= longest]
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
        axis.set_xlabel("training apart ÷ the root's own (none: drawn at .01)")
    figure.tight_layout()
    return figure


def _methods_power(plt: Any, axis: Any, found: Mapping[str, list[list[float]]]) -> None:
    """Share of kin above the score of 1 % of the strangers, against training; pairs with nothing else between them."""
    colours = plt.get_cmap("tab20").colors
    names = [name for name in found if name == "weightprint" or "." not in name]
    for i, name in enumerate(names):
        points = [point for point in found[name] if point[2] >= 3]
        x, y = (np.array([point[k] for point in points]) for k in (0, 1))
        first = name == "weightprint"
        axis.plot(x, y, "o-" if first else ".-", color="black" if first else colours[i % len(colours)],
                  lw=2 if first else 1, ms=4, label=name)  # fmt: skip
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel("share of kin found at 1 % false alarms")
    if names:
        axis.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _time(plt: Any, rows: Sequence[Row], numbers: Mapping[str, Any]) -> Any:
    """Seconds of one comparison against the bytes of both models."""
    names = [n for n in numbers["methods"] if "." not in n]
    if not names:
        return None
    figure, axis = plt.subplots(figsize=(6.5, 3.6))
    colours = plt.get_cmap("tab20").colors
    for i, name in enumerate(names):
        cells = [(sum(r["nbytes"]) / 1e6, r["methods"].get(name, {})) for r in rows]
        points = [(x, c["seconds"]) for x, c in cells if c.get("seconds") and c["score"] is not None]
        if points:
            x, y = np.array(points).T
            first = name == "weightprint"
            axis.plot(x, y, "o" if first else ".", ms=4 if first else 3, alpha=0.35, label=name, ls="",
                      color="black" if first else colours[i % len(colours)])  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    low, high = axis.get_xlim()
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= t <= high]
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.set_xlabel("MB of both models")
    axis.set_ylabel("seconds per pair")
    legend = axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    figure.tight_layout()
    return figure
