"""A mix of parents: a bar per layer, one piece per parent, as wide as its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from weightprint.report.format import percent
from weightprint.report.page.page import figure, macros
from weightprint.report.page.svg import Drawing, joined, label, line, rect
from weightprint.report.recipe import nearest, shortened

if TYPE_CHECKING:
    from weightprint.compare.recipe import Recipe

__all__ = ["mix_drawing", "mix_figure"]

_LEFT, _WIDE = 12.0, 60.0  # percent: where the bars begin, how wide all of them are
_TALLEST = 420.0  # pixels of all bars
_LOOKS = 6  # parents beyond share the last look


def mix_drawing(recipe: Recipe) -> Drawing | None:
    """None where no layer was read, or no parent is in any."""
    layers = [mix for mix in recipe.layers if any(mix.weights)]
    if not layers:
        return None
    low = min(0.0, *(sum(w for w in mix.weights if w and w < 0) for mix in layers))
    high = max(1.0, *(sum(w for w in mix.weights if w and w > 0) for mix in layers))
    step = min(20.0, max(5.0, _TALLEST / len(layers)))
    top, every = 20.0, 1 if step >= 12 else 10
    told = every == 1 and len(recipe.parents) <= 2
    parts: list[Markup] = []
    for i, mix in enumerate(layers):
        y, ends = top + i * step, {True: 0.0, False: 0.0}
        for k, weight in enumerate(mix.weights):
            if not weight:
                continue
            start = ends[weight > 0]
            ends[weight > 0] += weight
            left, right = sorted((start, ends[weight > 0]))
            words = f"{mix.where}: {weight:.3f} of P{k + 1}"
            kind = f"mix mix{min(k + 1, _LOOKS)}"
            parts.append(
                rect(_at(left, low, high), y + 1, _at(right, low, high) - _at(left, low, high), step - 2, kind, words)
            )
        if i % every == 0 or i == len(layers) - 1:
            parts.append(label(_LEFT, y + step / 2 + 4, mix.where.rpartition(".")[2], "dim small", anchor="end", dx=-8))
        if told:
            weights = " + ".join("-" if w is None else f"{w:.2f}" for w in mix.weights)
            parts.append(label(_LEFT + _WIDE, y + step / 2 + 4, weights, "small", dx=10))
    bottom = top + len(layers) * step
    for value in (0.0, 1.0):
        x = _at(value, low, high)
        parts.append(line(x, top - 4, x, bottom, "axis"))
        parts.append(label(x, top - 8, f"{value:g}", "dim small", anchor="middle"))
    parts.append(label(0, top - 8, "layer", "dim small"))
    worst = max(mix.unexplained for mix in layers)
    title = f"Weights of {len(recipe.parents)} parents in {len(layers)} layers; at most {percent(worst)} is unexplained"
    return Drawing("mix", title, bottom + 4, joined(parts))


def mix_figure(recipe: Recipe) -> Markup:
    """The drawing with the parents' names below it; nothing where there is none."""
    drawn = mix_drawing(recipe)
    if drawn is None:
        return Markup("")
    short = shortened(recipe)
    names = [(f"mix{min(k, _LOOKS)}", f"P{k}: {short[name]}") for k, name in enumerate(recipe.parents, 1)]
    words = ". ".join(filter(None, (nearest(recipe), drawn.title)))
    return figure(drawn, Markup("{}. {}").format(words, macros().legend(names)))


def _at(value: float, low: float, high: float) -> float:
    return _LEFT + _WIDE * (value - low) / (high - low)
