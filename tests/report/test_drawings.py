"""What the drawings draw is what was found: maps, experts, the axis, curves, strips; and they stay small."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from markupsafe import Markup
from weightprint.anatomy.place import Geometry, Place
from weightprint.diff.diff import Diff
from weightprint.evidence.evidence import Evidence, UnitMatch
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.unit_agreement import UnitAgreement
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.report.page.curves import Panel, curve_drawing
from weightprint.report.page.diff import page as diff_page
from weightprint.report.page.direction_line import direction_line
from weightprint.report.page.evidence_axis import evidence_axis
from weightprint.report.page.heat_strip import Cell, heat_strip
from weightprint.report.page.map_data import stack_maps
from weightprint.report.page.map_drawing import expert_drawing, map_drawing, map_words
from weightprint.report.page.reference import unrelated
from weightprint.results.table import Column, StatsTable
from weightprint.verdict.facts import Facts
from weightprint.verdict.values import Direction


def model(label: str, blocks: int, experts: int) -> ModelView:
    """A decoder's outline: 64 channels, FFNs (or experts) of 32 units."""
    tensors = {}

    def add(role: str, block: int | None, shape: tuple[int, ...], expert: int | None = None) -> None:
        name, n = f"{block}.{expert}.{role}", math.prod(shape)
        place = Place("decoder", block, role, expert)
        tensors[name] = Tensor(name, "BF16", shape, n, 2 * n, None, place=place)

    add("embedding", None, (1000, 64))
    add("head", None, (1000, 64))
    for block in range(blocks):
        for role in "qkvo":
            add(role, block, (64, 64))
        for expert in range(experts) if experts else [None]:
            for role, shape in (("gate", (32, 64)), ("up", (32, 64)), ("down", (64, 32))):
                add(role, block, shape, expert)
    return ModelView(label, tensors, lambda *_: np.zeros(0, np.float32), geometry={"decoder": Geometry(blocks, 64)})


def facts(
    a: ModelView, b: ModelView, blocks: Callable[[int], int | None], experts: Callable[[int], int] = lambda x: x
) -> Facts:
    """B's FFNs found in those of A that the functions name, nine tenths of their units."""
    keys = {(t.layer, t.place.expert): None for t in b.tensors.values() if t.place and t.place.role == "down"}
    dense = all(t.place is None or t.place.expert is None for t in a.tensors.values())
    matches = tuple(
        UnitMatch(
            ("decoder", k, x),
            ("decoder", to, None if x is None or dense else experts(x)),
            32,
            29,
            0.1,
            -90.0,
            nearest=29,
        )
        for k, x in keys
        if (to := blocks(k)) is not None
    )
    told = UnitAgreement(None, {}, "all", 1000, len(matches), 32, 64, 20, 0.0, 1.0, 0.0, "identity", (), -900.0, 1.0)
    found = Evidence("unit_agreement", "?", "n", "a", "b", log10_p=-900.0, effect=0.9, matches=matches, details=told)
    return Facts(ModelPair(a, b, (), 0.0, 0, "standard"), (found,))


def test_dropped_doubled_and_new_blocks_are_told_apart() -> None:
    sources = [0, 1, 2, 1, 2, None, 5]  # blocks 3 and 4 of A are gone, 1 and 2 stand twice, one of B is nobody's
    (stack,) = stack_maps(facts(model("a", 6, 0), model("b", 7, 0), sources.__getitem__), denied=False)
    assert {(link.b, link.a, link.moved) for link in stack.links} == {
        (0, 0, False), (1, 1, False), (2, 2, False), (3, 1, True), (4, 2, True), (6, 5, True),
    }  # fmt: skip
    assert stack.unused == {3, 4}
    assert stack.doubled == {1, 2}
    assert [state != "found" for state in stack.states] == [source is None for source in sources]
    ffn, whole = 3 * 32 * 64, 3 * 32 * 64 + 4 * 64 * 64
    assert all(abs(link.share - 29 / 32 * ffn / whole) < 0.01 for link in stack.links)
    drawn = map_drawing((stack,))
    assert drawn.body.count('class="ribbon kept') == 3
    assert drawn.body.count('class="ribbon moved') == 3
    assert drawn.body.count("block dropped") == 2
    assert "In A only: layers 3–4." in map_words((stack,))


def test_what_nobody_is_related_to_is_hatched() -> None:
    strangers = replace(facts(model("a", 3, 0), model("b", 3, 0), lambda k: None))
    (stack,) = stack_maps(strangers, denied=True)
    assert set(stack.states) == {"absent"}
    assert stack.links == ()
    assert "none was found in A" in map_words((stack,))
    (stack,) = stack_maps(strangers, denied=False)
    assert set(stack.states) == {"open"}


def test_large_models_are_drawn_small() -> None:
    order = np.random.default_rng(0).permutation(256).tolist()
    (stack,) = stack_maps(facts(model("a", 61, 256), model("b", 61, 256), lambda k: k, order.__getitem__), denied=False)
    drawn, experts = map_drawing((stack,)), expert_drawing(stack)
    assert experts is not None
    assert drawn.body.count('class="ribbon') == 61
    assert len(stack.cells) == 61 * 256
    assert sum(cell.moved for cell in stack.cells) == 61 * sum(order[x] != x for x in range(256))
    assert len(drawn.body) + len(experts.body) < 200_000
    assert drawn.height < 700
    assert experts.height < 500


def test_experts_of_one_dense_block_stand_in_the_map() -> None:
    (stack,) = stack_maps(facts(model("a", 2, 0), model("b", 2, 4), lambda k: k), denied=False)
    assert expert_drawing(stack) is None
    assert "8 of 8 experts of B were found" in map_words((stack,))
    assert 'class="cell kept' in map_drawing((stack,)).body


def test_the_axis_tells_what_passes_the_level() -> None:
    def look(test: str, log10_p: float) -> Evidence:
        return Evidence(test, "?", "n", "a", "b", log10_p=log10_p)

    drawn = evidence_axis([look("unit_agreement", -900.0), look("head_agreement", -5.9), look("pcs", -99.0)], -2.8)
    assert drawn is not None
    assert drawn.body.count("mark-for") == 1
    assert drawn.body.count("mark-against") == 1
    marks = dict(zip(("for", "against"), re.findall(r'circle cx="([\d.]+)%', drawn.body), strict=True))
    level = re.search(r'x1="([\d.]+)%"[^>]*level-line', drawn.body)
    assert level
    assert float(marks["against"]) < float(level[1]) < float(marks["for"])
    assert evidence_axis([], -2.8) is None


def test_a_curve_of_thousands_of_layers_has_two_hundred_points() -> None:
    curve = np.sin(np.linspace(0, 9, 5000))
    drawn = curve_drawing(Panel("q", "σ of Q", {"a": curve, "b": -curve}, None, "standard deviations"))
    (a, b) = re.findall(r'd="M([^"]*)" class="curve', drawn.body)
    assert len(a.split("L")) == len(b.split("L")) == 200


def test_the_bands_rest_on_models_and_say_on_how_many() -> None:
    for part, band in unrelated()["curves"].items():
        assert band["roots"] >= 20, part
        assert all(low <= high for low, high in zip(band["low"], band["high"], strict=True))
    assert unrelated()["p_values"]["log10_p"] > -6


@pytest.mark.parametrize(("later", "first"), [("b", "A, earlier"), ("a", "A, later")])
def test_the_line_tells_who_came_first(later: str, first: str) -> None:
    drawn = direction_line(Direction(later, 0.9, "because"))  # type: ignore[arg-type]
    assert drawn is not None
    assert first in drawn.body
    assert direction_line(Direction(None, None, "nothing")) is None


def test_the_line_tells_where_siblings_parted() -> None:
    drawn = direction_line(Direction(None, None, "because", relation="siblings", parted_at=(0.4, 0.3, 0.5)))
    assert drawn is not None
    assert "parted at 0.40 [0.30, 0.50]" in drawn.body
    at = {name: float(x) for x, name in re.findall(r'x="([\d.]+)%" y="16[.\d]*"[^>]*>([AB])', drawn.body)}
    (parted,) = re.findall(r'x1="([\d.]+)%"[^>]*level-line', drawn.body)
    assert float(parted) == pytest.approx(at["A"] + 0.4 * (at["B"] - at["A"]))


def test_a_strip_is_as_dark_as_the_change() -> None:
    cells = [
        Cell("q", 0, 0.0),
        Cell("q", 1, 0.02),
        Cell("up", 0, 0.5),
        Cell("up", 1, math.inf),
        Cell("head", None, 0.001),
    ]
    drawn = heat_strip(cells, ["head", "q", "up"])
    assert drawn is not None
    shades = dict(re.findall(r'<path d="(M[^"]*)" class="heat (\w+)"', drawn.body))
    assert shades == {
        "M2 1h1v1h-1z": "h0",
        "M3 1h1v1h-1z": "h3",
        "M2 2h1v1h-1z": "h6",
        "M3 2l1 1M3 3l1-1": "crossed",
        "M0 0h1v1h-1z": "h1",
    }
    many = heat_strip([Cell("q", block, 0.1) for block in range(1000)], ["q"])
    assert many is not None
    assert many.body.count("M") < 250


def test_a_page_of_a_hundred_thousand_tensors_is_under_a_megabyte() -> None:
    n = 100_000
    names = [f"model.layers.{i // 100}.mlp.experts.{i % 100}.down_proj.weight" for i in range(n)]
    from weightprint.diff.diff import _COLUMNS

    told = {
        "name": names,
        "name_a": names,
        "status": ["changed"] * n,
        "role": ["down"] * n,
        "block": [i // 100 for i in range(n)],
    }
    told |= {"relative": [0.1] * n, "numel": np.ones(n, np.uint64), "shape_a": [(9, 9)] * n, "shape_b": [(9, 9)] * n}
    columns = tuple(Column(name, kind, told.get(name, [None] * n)) for name, kind in _COLUMNS)
    made = diff_page(Diff("a", "b", StatsTable(columns), 0), everything=True)
    assert len(made) < 1_000_000
    assert "more</td>" in made


def test_every_text_of_a_drawing_is_escaped() -> None:
    evil = "</text><script>x</script>\x1b[31m\u202e"
    drawn = heat_strip([Cell(evil, 0, 0.1)], [evil])
    assert drawn is not None
    for text in (str(drawn.inline()), drawn.file()):
        assert "<script" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert isinstance(drawn.inline(), Markup)


def test_the_map_of_a_hundred_thousand_tensors_is_small() -> None:
    a, b = model("a", 128, 256), model("b", 128, 256)
    assert len(b.tensors) > 98_000
    maps = stack_maps(facts(a, b, lambda layer: layer, lambda expert: (expert + 1) % 256), denied=False)
    experts = expert_drawing(maps[0])
    assert experts is not None
    assert "32,768 of 32,768 experts" in experts.title
    assert len(map_drawing(maps).inline()) + len(experts.inline()) < 300_000
