"""The heat map of pairs and the tree show what they were given, in any size, and names stay text."""

from __future__ import annotations

import re

from weightprint.report.page.tree_drawing import Edge, pairs_drawing, tree_drawing

EVIL = '<script>alert(1)</script>"\u202e'


def places(svg: str) -> dict[str, tuple[float, float]]:
    """Name → where its label stands."""
    found = re.findall(r'<text x="([\d.]+)%" y="([\d.]+)"[^>]*>([^<]+)</text>', svg)
    return {name: (float(x), float(y)) for x, y, name in found}


def test_a_pair_is_as_dark_as_what_it_shares() -> None:
    drawn = pairs_drawing(["a", "b", "c"], [[1, 0.7, 0], [0.5, 1, None], [0, 0, 1]])
    cells = dict(re.findall(r'<path d="([^"]+)" class="heat (\w+)"', str(drawn.inline())))
    kinds = {kind: d for d, kind in cells.items()}
    assert kinds["h6"].count("M") == 3  # each with itself
    assert kinds["h5"] == "M1 0h1v1h-1z"
    assert kinds["h4"] == "M0 1h1v1h-1z"
    assert kinds["crossed"].startswith("M2 1")
    assert "1 of 3 pairs" in drawn.title


def test_children_stand_right_of_and_below_their_parents() -> None:
    names = ["root", "child", "grandchild", "stranger", "merge"]
    edges = [Edge(0, 1, 0.1), Edge(1, 2, 0.3), Edge(0, 4, 0.2), Edge(1, 4, 0.1, sure=False)]
    drawn = tree_drawing(names, edges)
    at = places(str(drawn.inline()))
    assert at["root"][0] == at["stranger"][0] < at["child"][0] < at["merge"][0] < at["grandchild"][0]
    assert at["root"][1] < at["child"][1] < at["grandchild"][1]
    assert at["stranger"][1] == max(y for _, y in at.values())
    assert (at["child"][0] - at["root"][0]) * 4 == round((at["grandchild"][0] - at["root"][0]), 1)
    assert "unsure" in str(drawn.inline())
    assert "2 without a parent" in drawn.title
    # One length that is not known: generations.
    at = places(str(tree_drawing(names, [Edge(0, 1, 0.1), Edge(1, 2)]).inline()))
    assert at["child"][0] - at["root"][0] == at["grandchild"][0] - at["child"][0]


def test_a_circle_is_drawn_all_the_same() -> None:
    at = places(str(tree_drawing(["a", "b", "c"], [Edge(0, 1), Edge(1, 0)]).inline()))
    assert set(at) == {"a", "b", "c"}


def test_three_hundred_models_are_drawn_small() -> None:
    n = 300
    names = [f"model-{k}" for k in range(n)]
    pairs = pairs_drawing(names, [[float(i % 7 == j % 7) for j in range(n)] for i in range(n)])
    tree = tree_drawing(names, [Edge(k // 3, k) for k in range(1, n)])
    assert pairs.height < 1000
    assert len(pairs.inline()) + len(tree.inline()) < 1_000_000
    assert all(name in tree.inline() for name in names)


def test_names_stay_text() -> None:
    for drawn in (pairs_drawing([EVIL, "b"], [[1, 0], [0, 1]]), tree_drawing([EVIL, "b"], [Edge(0, 1, words=EVIL)])):
        assert "<script" not in drawn.file()
        assert "\u202e" not in drawn.file()
        assert "script" in drawn.file()
