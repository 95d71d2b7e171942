"""`lineage` on files: a family with a merge, a copy in another order and a stranger; its forms; what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from merges import LAYERS, Model, config_of, linear, root, tuned
from weightprint import Lineage


def reordered(model: Model) -> Model:
    """The same with the hidden units of every FFN in another order."""
    out, rng = dict(model), np.random.default_rng(3)
    for n in range(LAYERS):
        order = rng.permutation(len(out[f"model.layers.{n}.mlp.up_proj.weight"]))
        for role in ("gate", "up"):
            name = f"model.layers.{n}.mlp.{role}_proj.weight"
            out[name] = out[name][order]
        name = f"model.layers.{n}.mlp.down_proj.weight"
        out[name] = out[name][:, order]
    return out


@pytest.fixture
def paths(save: Any) -> dict[str, Path]:
    base = root(0)
    a, b = tuned(base, 1), tuned(base, 2, 0.4)
    models = {"base": base, "a": a, "b": b, "stranger": root(9), "moved": reordered(base)}
    models["merge"] = linear([a, b], (0.7, 0.3))
    out = {}
    for name, model in models.items():
        path: Path = save(f"{name}/model.safetensors", {n: x.astype(np.float32) for n, x in model.items()})
        path.with_name("config.json").write_text(json.dumps(config_of(model)))
        out[name] = path.parent
    return out


def short(name: str) -> str:
    return Path(name).name


def test_a_family_with_a_merge_a_moved_copy_and_a_stranger(paths: dict[str, Path]) -> None:
    found = weightprint.lineage(list(paths.values()))
    edges = {(short(e.parent), short(e.child), e.kind) for e in found.edges}
    assert {("base", "moved", "copy"), ("a", "merge", "merge"), ("b", "merge", "merge")} <= edges
    assert {e[:2] for e in edges} == {("base", "a"), ("base", "b"), ("base", "moved"), ("a", "merge"), ("b", "merge")}
    assert [short(row.model) for row in found.unplaced] == ["stranger"]
    assert [(m.method, [short(p) for p in m.parents]) for m in found.merges] == [("linear", ["a", "b"])]
    assert Lineage.from_dict(json.loads(found.to_json())) == found
    assert found.to_dot().count("->") == len(found.edges)
    assert "linear" in str(found)
    assert "<table" in found._repr_html_()


def test_units_that_stand_elsewhere_are_no_difference(save: Any) -> None:
    """A copy with some units in another order stands for its original where that is not there."""
    base = root(0)
    models = {"copy": dict(base), "a": tuned(base, 1), "b": tuned(base, 2), "c": tuned(base, 3)}
    for n in range(LAYERS):
        units = len(base[f"model.layers.{n}.mlp.up_proj.weight"])
        order = np.arange(units)
        order[: units // 8] = np.roll(order[: units // 8], 1)
        for role, axis in (("gate", 0), ("up", 0), ("down", 1)):
            name = f"model.layers.{n}.mlp.{role}_proj.weight"
            models["copy"][name] = np.take(base[name], order, axis=axis)
    paths = []
    for name, model in models.items():
        path: Path = save(f"{name}/model.safetensors", {n: x.astype(np.float32) for n, x in model.items()})
        path.with_name("config.json").write_text(json.dumps(config_of(model)))
        paths.append(path.parent)
    found = weightprint.lineage(paths)
    assert {(short(e.parent), short(e.child)) for e in found.edges} == {("copy", "a"), ("copy", "b"), ("copy", "c")}
    # They moved by a fifth: a length of .04. Rows in another place would add a fourth.
    assert all(e.length is not None and e.length < 0.06 for e in found.edges)


def test_factors_have_no_length_and_are_not_said_to_be_the_same_values(save: Any) -> None:
    base = root(0)
    scaled = {n: x * 1.7 if "down_proj" in n else x for n, x in base.items()}
    paths = []
    for name, model in {"base": base, "scaled": scaled}.items():
        path: Path = save(f"{name}/model.safetensors", {n: x.astype(np.float32) for n, x in model.items()})
        path.with_name("config.json").write_text(json.dumps(config_of(model)))
        paths.append(path.parent)
    found = weightprint.lineage(paths)
    assert [e.kind for e in found.edges] == ["copy"]
    assert "up to order, basis and factors" in " ".join(str(found).split())
    assert "the same values" not in str(found)
    assert weightprint.compare(*paths).verdict == "shared_origin"


def test_fingerprints_in_place_are_enough_for_a_tree(paths: dict[str, Path]) -> None:
    kept = [weightprint.fingerprint(paths[name]) for name in ("base", "a", "b", "stranger")]
    found = weightprint.lineage(kept)
    assert {(short(e.parent), short(e.child)) for e in found.edges} == {("base", "a"), ("base", "b")}
    assert [short(row.model) for row in found.unplaced] == ["stranger"]


def test_what_it_refuses(paths: dict[str, Path]) -> None:
    with pytest.raises(weightprint.UsageError) as one:
        weightprint.lineage([paths["base"]])
    assert one.value.code == "too_few_models"
    with pytest.raises(weightprint.UsageError) as twice:
        weightprint.lineage([paths["base"], paths["base"]])
    assert twice.value.code == "named_twice"
