"""Plots for notebooks show what the page shows, and say what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import pytest
import weightprint
from weightprint.demo import demo_models
from weightprint.errors import UsageError
from weightprint.report.page.compare import maps_of

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_models.write(tmp_path_factory.mktemp("demo") / "models")


@pytest.fixture(scope="module")
def moe(demo: Path):
    return weightprint.compare(demo / "parent", demo / "moe")


def test_a_map_has_a_ribbon_per_block(moe) -> None:
    ax = moe.plot_map()
    ribbons = [patch for patch in ax.patches if type(patch).__name__ == "PathPatch"]
    assert len(ribbons) == len(maps_of(moe)[0].links) == 5
    assert moe.plot_map(ax) is ax


def test_curves_stand_on_the_band_of_unrelated_models(moe) -> None:
    figure = moe.plot_curves()
    titles = {ax.get_title() for ax in figure.axes}
    assert {"σ of Q", "σ of K", "σ of V", "σ of O", "σ of norm gains, attention"} <= titles
    assert all(ax.collections for ax in figure.axes if ax.get_title().startswith("σ"))
    assert [line.get_label() for line in figure.axes[0].lines] == ["A", "B"]


def test_a_scan_draws_a_line_per_role(demo: Path) -> None:
    scan = weightprint.scan(weightprint.anatomy(demo / "parent"))
    ax = scan.plot()
    lines = {line.get_label(): line for line in ax.lines}
    assert {"q", "k", "v", "o", "gate", "up", "down"} <= set(lines)
    stored = [s for r, s in zip(scan.table["role"], scan.table["std"], strict=True) if r == "up"]
    assert sorted(lines["up"].get_ydata()) == pytest.approx(sorted(stored))
    with pytest.raises(UsageError, match="anatomy"):
        weightprint.scan(demo / "parent").plot()
    with pytest.raises(UsageError, match="no_such"):
        scan.plot("no_such")


def test_without_matplotlib_it_says_how_to_get_it(moe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'weightprint\[plots\]'"):
        moe.plot_map()
