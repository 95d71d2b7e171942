"""Direction held against the truth: what counts as right, wrong, near, and why nothing was said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benches.lineage.page.plots import draw_partings
from benches.lineage.score.parting import summary, write


def row(kind: str, said: str | None, **more: Any) -> dict[str, Any]:
    numbers = {"t": 0.05, "low": -0.1, "high": 0.2, "pull": 0.6}
    out = {
        "a": "x", "b": "y", "side": "test", "kind": kind, "group": "siblings" if kind == "siblings" else "trained on",
        "clusters": ["x"], "later": "b" if kind == "descent" else None, "steps": [], "branches": None, "said": said,
        "relation": "descent" if said else None, "because": "no new values", "claim": "descent" if said else None,
        "by": [], "parting": numbers,
    }  # fmt: skip
    return out | more


def test_outcomes(tmp_path: Path) -> None:
    rows = [
        row("descent", "b"),
        row("descent", "a"),
        row("descent", None, parting=None),
        row("descent", None, relation="siblings", claim="siblings"),
        row("siblings", None, relation="siblings", claim="siblings"),
        row("siblings", "b", branches=[0.1, 0.3]),
        row("siblings", "b", branches=[0.01, 0.3]),
    ]
    found = summary(rows)
    assert found["counts"]["test: descent"] == {"right": 1, "wrong": 1, "silent": 1, "called siblings": 1}
    near = "called descent, one as good as the parent"
    assert found["counts"]["test: siblings"] == {"right": 1, "called descent": 1, near: 1}
    assert found["causes"] == {"test": {"nothing new in the blocks, and no sign": {"siblings": 1}}}
    assert found["claims"]["test: descent"] == {"right": 1, "wrong": 2, "near": 1, "roots": 1}
    assert found["claims"]["test: siblings"] == {"right": 1, "wrong": 1, "roots": 1}
    assert [m["outcome"] for m in found["misses"]] == ["wrong", "called siblings", "called descent"]
    write(rows, tmp_path / "out.json")
    assert "because" not in (tmp_path / "out.json").read_text().partition('"pairs"')[2]
    draw_partings(rows, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 1000
