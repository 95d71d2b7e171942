"""Of many candidates the fewest that explain a child: copies, relatives and strangers beside the parents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from merges import D, Model, config_of, dare, linear, root, slerp, stacked, ties, tuned


@pytest.fixture
def folder(tmp_path: Path, save: Any) -> Any:
    """A folder of a family and of strangers; and how to write a child beside it."""
    base = root(0)
    models = {"base": base, **{f"tuned-{k}": tuned(base, k) for k in range(1, 6)}}
    models |= {f"stranger-{k}": root(20 + k) for k in range(5)}
    models["wide"] = root(50, d=2 * D)
    models["later"] = tuned(models["tuned-1"], 9)

    def write(name: str, model: Model) -> Path:
        path: Path = save(f"{name}/model.safetensors", model)
        path.with_name("config.json").write_text(json.dumps(config_of(model)))
        return path.parent

    for name, model in models.items():
        write(f"all/{name}", model)
    (tmp_path / "all" / "notes.txt").write_text("not a model")
    (tmp_path / "all" / "empty").mkdir()
    return models, tmp_path / "all", lambda model: write("child", model)


def names(found: Any) -> set[str]:
    return {Path(name).name for name in found.parents}


MERGES: dict[str, Any] = {
    "linear": (("tuned-1", "tuned-2"), lambda m: linear([m["tuned-1"], m["tuned-2"]], (0.6, 0.4))),
    "strangers": (("tuned-1", "stranger-3"), lambda m: linear([m["tuned-1"], m["stranger-3"]], (0.85, 0.15))),
    "three": (
        ("base", "tuned-1", "tuned-2"),
        lambda m: linear([m[n] for n in ("base", "tuned-1", "tuned-2")], (0.3, 0.4, 0.3)),
    ),
    "slerp": (("tuned-2", "tuned-3"), lambda m: slerp(m["tuned-2"], m["tuned-3"], lambda n: 0.2 + 0.1 * (n or 0))),
    "passthrough": (
        ("stranger-1", "tuned-4"),
        lambda m: stacked([(m["stranger-1"], [0, 1, 2]), (m["tuned-4"], [3, 4, 5])]),
    ),
    "ties": (("base", "tuned-1", "tuned-2"), lambda m: ties(m["base"], [m["tuned-1"], m["tuned-2"]], 0.3, 1.0)),
    "dare": (("base", "tuned-1", "tuned-2"), lambda m: dare(m["base"], [m["tuned-1"], m["tuned-2"]], 0.8, (0.6, 0.5))),
    "copy": (("tuned-3",), lambda m: dict(m["tuned-3"])),
}  # fmt: skip


@pytest.mark.parametrize("merge", MERGES)
def test_the_parents_and_no_other_are_found(folder: Any, merge: str) -> None:
    models, candidates, write = folder
    parents, make = MERGES[merge]
    found = weightprint.recipe(write(make(models)), candidates=candidates)
    assert (names(found), found.explained) == (set(parents), True)
    assert found.search is not None
    assert found.search.candidates == len(models) - 1
    assert {Path(name).name for name in found.search.skipped} == {"wide", "empty"}
    assert all(p is None or p <= -2 for *_, p in found.search.steps)


def test_parents_beside_more_parents_than_needed(folder: Any) -> None:
    models, candidates, write = folder
    given = [candidates / name for name in ("stranger-0", "stranger-1", "tuned-4", "tuned-2", "tuned-1", "base")]
    found = weightprint.recipe(write(MERGES["linear"][1](models)), given)
    assert names(found) == {"tuned-1", "tuned-2"}


@pytest.mark.parametrize("merge", ["linear", "slerp", "ties", "dare"])
def test_where_a_parent_is_missing_relatives_are_no_parents(folder: Any, merge: str) -> None:
    models, candidates, write = folder
    made = write(MERGES[merge][1](models))
    missing = MERGES[merge][0][-1]
    found = weightprint.recipe(made, candidates=[candidates / name for name in models if name not in (missing, "wide")])
    assert not found.explained
    assert found.search is not None
    assert found.search.near
    assert "no proof that they are parents" in " ".join(str(found).split())


def test_none_of_strangers_is_in_a_stranger(folder: Any) -> None:
    models, candidates, write = folder
    strangers = [candidates / name for name in models if name.startswith("stranger")]
    found = weightprint.recipe(write(root(77)), candidates=strangers)
    assert not found.explained
    assert found.search is not None
    assert found.search.steps == ()
    assert found.unknown_origin == pytest.approx(1, abs=0.05)


def test_unrelated_candidates_are_hardly_ever_taken() -> None:
    """The step's p-value is one: strangers of a child pass level .01 at most about as often."""
    from weightprint.compare.candidates import selected
    from weightprint.compare.gram import Gram

    rng = np.random.default_rng(3)
    taken, runs = 0, 60
    for _ in range(runs):
        grams = []
        for block in range(8):
            x = rng.standard_normal((7, 4096))
            x[[0, 1]] = x[[1, 0]]
            x[1:] -= x[0]
            place = weightprint.Place("decoder", block, "up")
            grams.append(Gram(f"{block}", place, True, 4096, (True,) * 6, x @ x.T, np.full(7, 1e-6)))
        taken += bool(selected(grams, np.zeros(6), lambda _: None)[2])
    assert taken <= 3


def test_an_empty_folder_is_an_error(tmp_path: Path, folder: Any) -> None:
    _, _, write = folder
    (tmp_path / "none").mkdir()
    with pytest.raises(weightprint.UsageError, match="holds no models"):
        weightprint.recipe(write(root(1)), candidates=tmp_path / "none")
    with pytest.raises(weightprint.UsageError, match="none of 1 candidates"):
        weightprint.recipe(write(root(1)), candidates=[tmp_path / "all" / "wide"])
