"""The page, the drawings and the Markdown of a lineage show all of it, in any size, and names stay text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from weightprint.errors import UsageError
from weightprint.report.tree.page import drawings
from weightprint.report.tree.pairs_drawing import pairs_drawing
from weightprint.report.tree.tree_drawing import tree_drawing
from weightprint.report.tree.words import rows
from weightprint.results.lineage import Edge, Lineage, Merge, Unplaced

EVIL = '<script>alert(1)</script>"\u202e](http://x) --> y'


def edge(parent: str, child: str, length: float | None = 0.01, kind: Any = "descent", **more: Any) -> Edge:
    span = (None, None) if length is None else (length / 2, 2 * length)
    return Edge(parent, child, length, *span, **{"support": 0.8, "kind": kind, **more})


def made(edges: Sequence[Edge], unseen: Sequence[str] = (), lost: Sequence[str] = (), **more: Any) -> Lineage:
    names = [name for name in dict.fromkeys(x for e in edges for x in (e.parent, e.child)) if name not in unseen]
    children = {e.child for e in edges}
    roots = tuple(dict.fromkeys(e.parent for e in edges if e.parent not in children))
    models = (*names, *lost)
    values = {
        "models": models,
        "groups": ((*roots, *(name for name in names if name not in roots)),),
        "roots": roots,
        "edges": tuple(edges),
        "unseen": tuple(unseen),
        "merges": (),
        "unplaced": tuple(Unplaced(name, "none of the other models shares an origin with it") for name in lost),
        "seconds": 1.0,
        "version": "0",
        "cosines": tuple(tuple(0.0 if lost and (a in lost or b in lost) else 0.97 for b in models) for a in models),
        "digests": tuple("ab" * 32 for _ in models),
    }  # fmt: skip
    return Lineage(**{**values, **more})


FAMILY = made(
    [
        edge("hub/root", "hub/child", 0.1),
        edge("hub/root", "unseen 1", 0.01),
        edge("unseen 1", "hub/first", 0.001),
        edge("unseen 1", "hub/second", 0.002, support=0.55),
        edge("hub/first", "hub/merge", None, "merge", support=None, weight=0.7),
        edge("hub/child", "hub/merge", None, "merge", support=None, weight=0.3),
        edge("hub/child", "hub/renamed", 0.0, "copy"),
        edge("hub/child", "hub/either", 0.3, "undirected"),
    ],
    unseen=["unseen 1"],
    lost=["other/stranger"],
    merges=(Merge("hub/merge", ("hub/first", "hub/child"), "linear", 0.9987),),
)


def labels(svg: str) -> dict[str, tuple[float, float]]:
    """What is written → where."""
    found = re.findall(r'<text x="([\d.]+)%" y="([\d.]+)"[^>]*>([^<]+)</text>', svg)
    return {name: (float(x), float(y)) for x, y, name in found}


def marks(lineage: Lineage) -> dict[str, tuple[float, float]]:
    """Model → where its mark stands."""
    svg = str(tree_drawing(lineage).inline())
    found = re.findall(r'<rect class="(?:mark-\w+|block unseen)" x="([\d.]+)%" y="([\d.]+)"[^>]*><title>([^<]+)', svg)
    return {name: (float(x), float(y)) for x, y, name in found}


def test_children_stand_right_of_and_below_their_parents() -> None:
    at = marks(FAMILY)
    assert set(at) == {*FAMILY.models, *FAMILY.unseen}
    for step in FAMILY.edges:
        assert at[step.parent][0] < at[step.child][0]
    assert max(y for _, y in at.values()) == at["other/stranger"][1]
    # A merge stands below the parent with the largest weight.
    order = rows(FAMILY)
    assert order.index("hub/merge") == order.index("hub/first") + 1


def test_every_step_shows_how_sure_it_is_and_a_merge_its_weights() -> None:
    drawn = str(tree_drawing(FAMILY).inline())
    told = labels(drawn)
    number = {name.partition("  ")[2]: name.partition("  ")[0] for name in told}
    assert "new 0.1 [0.05, 0.2]; 80 %" in told
    assert "new 0.002 [0.001, 0.004]; 55 %" in told
    assert f"0.70 × {number['first']} + 0.30 × {number['child']} (linear)" in told
    assert "unseen 1: not among them" in told
    assert drawn.count('class="branch mixed"') == 4  # two lines from each of two parents
    assert 'class="branch unsure"' in drawn
    assert "no place in a tree" in told


def test_a_pair_is_as_dark_as_it_is_alike() -> None:
    drawn = pairs_drawing(["a", "b", "c"], [[1, 0.97, 0], [0.6, 1, None], [0, 0, 1]], "likeness")
    cells = {kind: d for d, kind in re.findall(r'<path d="([^"]+)" class="heat (\w+)"', str(drawn.inline()))}
    assert cells["h6"].count("M") == 3  # each with itself
    assert cells["h4"] == "M1 0h1v1h-1z"
    assert cells["h2"] == "M0 1h1v1h-1z"
    assert cells["crossed"].startswith("M2 1")
    assert "1 of 3 pairs" in drawn.title


def test_a_circle_is_drawn_all_the_same() -> None:
    assert set(marks(made([edge("a", "b"), edge("b", "a")], groups=(), roots=()))) == {"a", "b"}


def test_three_hundred_models_are_drawn_small() -> None:
    names = [f"model-{k}" for k in range(300)]
    lineage = made([edge(names[k // 3], names[k]) for k in range(1, 300)])
    shown = [str(drawing.inline()) for drawing in drawings(lineage)]
    assert sum(map(len, shown)) < 1_000_000
    assert all(f"  {name}<" in shown[0] for name in names)
    assert drawings(lineage)[1].height < 1000


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for suffix in ("html", "md", "txt", "json"):
        FAMILY.save(folder / f"family.{suffix}")
    return folder


def test_it_is_saved_in_every_form(saved: Path) -> None:
    page = (saved / "family.html").read_text()
    order = ["Who was made from whom", "How alike", "Step by step", "What could not be placed", "What this can",
             "Identity", "Ten words", "For a court"]  # fmt: skip
    at = [page.index(f"<h2>{title}") for title in order]
    assert at == sorted(at)
    for part in ("1 COMMON ORIGIN", "1 is a merge of others", "unrelated pairs were called related", "99.87", "abab"):
        assert part in page
    assert Lineage.from_dict(json.loads((saved / "family.json").read_text())) == FAMILY
    assert "└─ merge  merge: 0.70 × first + 0.30 × child (linear)" in (saved / "family.txt").read_text()
    with pytest.raises(UsageError, match="can't tell the form"):
        FAMILY.save(saved / "family.docx")


def test_the_markdown_holds_the_tree(saved: Path) -> None:
    text = (saved / "family.md").read_text()
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", text, re.S)
    number = {name: k for k, name in re.findall(r"^\| (\d+) \| ([\w ]+) \|", text, re.M)}
    assert f"  {number['root']} --> {number['child']} & {number['an ancestor not seen']}" in drawn
    assert f'  {number["first"]} -. "0.70" .-> {number["merge"]}' in drawn
    assert "stranger" in text
    many = made([edge("r", f"m{k}") for k in range(200)], lost=[f"x{k}" for k in range(50)])
    many.save(saved / "many.md")
    assert len((saved / "many.md").read_text().splitlines()) <= 60


def test_names_stay_text(saved: Path) -> None:
    bad = [f"{EVIL}{k}" for k in range(4)]
    lineage = made([edge(bad[0], bad[1]), edge(bad[1], bad[2])], lost=[bad[3]])
    for suffix in ("html", "md", "txt"):
        lineage.save(saved / f"evil.{suffix}")
        assert "\u202e" not in (saved / f"evil.{suffix}").read_text()
    assert "<script" not in (saved / "evil.html").read_text()
    assert "<script" not in lineage._repr_html_()
    text = (saved / "evil.md").read_text()
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(", text)
    assert "alert" not in re.findall(r"```mermaid\n(.*?)```", text, re.S)[0]
    for drawing in drawings(lineage):
        assert "<script" not in drawing.file()


def test_what_is_not_known_is_left_out() -> None:
    """As read back from a JSON of an earlier version."""
    old = replace(FAMILY, cosines=(), digests=())
    assert len(drawings(old)) == 1
    assert "How alike" in FAMILY._repr_html_()
    assert "How alike" not in old._repr_html_()
