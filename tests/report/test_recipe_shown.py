"""A recipe on a screen and as Markdown: short for deep models, as wide as the terminal, names whole and harmless."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from weightprint.compare.recipe import Recipe
from weightprint.compare.recipe_parts import Mix, Weight
from weightprint.report.page.markdown import recipe as markdown
from weightprint.report.pen import Pen
from weightprint.report.recipe import folded, lines

EVIL = "hub/`<b>|\u202e\n# x](y)"
LAYERS = 96


def made(n: int = 2, weights: Callable[[int], tuple[float, ...]] = lambda k: (k / LAYERS, 1 - k / LAYERS)) -> Recipe:
    parents = tuple(f"models/{'p' * 30}{k}" for k in range(n))
    layers = tuple(Mix(f"decoder.{k}", weights(k), 0.001 * (k % 7)) for k in range(LAYERS))
    told = tuple(Weight(parent, 1 / n, 0.9 / n, 1.1 / n) for parent in parents)
    return Recipe(
        child="models/child",
        parents=parents,
        base=None,
        method="linear",
        parameters={"by_layer": True},
        reproduces=0.999,
        weights=told,
        sum_to_one=True,
        layers=layers,
        roles=(Mix("q", (0.5,) * n, 0.0),),
        unexplained=0.0,
        unknown_origin=0.0,
        dtype="BF16",
    )


def many(k: int) -> tuple[float, ...]:
    return tuple((k + p) % 13 / 100 for p in range(20))


@pytest.mark.parametrize("recipe", [made(), made(20, many)], ids=["two parents", "twenty"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_and_is_short_for_deep_models(recipe: Recipe, width: int) -> None:
    shown = [line.plain for line in lines(recipe, Pen(width))]
    assert max(map(len, shown)) <= width
    layers = [line for line in shown if line.startswith("decoder.")]
    assert len(layers) <= 24
    assert [layers[0].split()[0], layers[-1].split()[0]] == ["decoder.0-3", "decoder.92-95"]
    assert any("-v also shows every layer" in line for line in shown)
    every = [line.plain for line in lines(recipe, Pen(width), verbose=True)]
    assert sum(line.startswith("decoder.") for line in every) == LAYERS
    if len(recipe.parents) == 20:
        assert any("more parents with less weight" in line for line in shown)
    assert all(line.plain.isascii() for line in lines(recipe, Pen(width, ascii=True)))


def test_layers_of_one_mix_are_one_row_and_a_mean_hides_nothing_that_is_left() -> None:
    recipe = made(weights=lambda k: (0.7, 0.3) if k < 40 else (0.2, 0.8))
    rows = folded(recipe.layers, 24)
    assert [(row.where, row.weights) for row in rows] == [
        ("decoder.0-39", pytest.approx((0.7, 0.3))),
        ("decoder.40-95", pytest.approx((0.2, 0.8))),
    ]
    assert rows[0].unexplained == 0.006
    several = folded(made().layers, 24)
    assert sum(row.weights[0] or 0 for row in several) * 4 == pytest.approx(sum(k / LAYERS for k in range(LAYERS)))
    assert folded(recipe.layers[:3] + made().layers[:3], 24)[0].where == "decoder.0-2"


@pytest.mark.parametrize("recipe", [made(), made(20, many)], ids=["two parents", "twenty"])
def test_the_markdown_is_at_most_sixty_lines(recipe: Recipe) -> None:
    text = markdown(recipe)
    assert len(text.splitlines()) <= 60
    (last,) = re.findall(r"^\| decoder.*?95 \|", text, re.M)
    assert last
    assert re.search(r'p1\["P1"\] -- "0\.\d+" --> c\["child"\]', text)
    bad = replace(recipe, child=EVIL, parents=(EVIL, *recipe.parents[1:]), notes=(EVIL,))
    text = markdown(bad)
    assert "\u202e" not in text
    assert not re.search(r"(?<!\\)<b>|(?<!\\)\]\(|^# x", text, re.M)
