"""Every structural operation of the lineage benchmark, done to a random model: is it named, with what was done?

The oracle is what `benches.lineage.zoo.operations` writes down when it does it; values are read as the tests of the
operations' own correctness have checked them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from every_operation import CASES, ENCODED, LAYERS, parent
from weightprint.compare.compare import judge
from weightprint.compare.pipeline import examine, gather

from benches.lineage.zoo import model_folder
from benches.lineage.zoo.operations.table import OPERATIONS


def told(a: model_folder.ZooModel, b: model_folder.ZooModel, folder: Path) -> dict[str, dict[str, Any]]:
    """Operation → parameters, as `compare` names them."""
    for name, model in (("a", a), ("b", b)):
        model_folder.save(folder / name, model)
    with weightprint.open(folder / "a") as first, weightprint.open(folder / "b") as second:
        m = examine(first, second)[2]
        found = judge(m, gather(m))
    return {o.name: dict(o.parameters) for o in found.history.operations}


@pytest.mark.slow_but_first
@pytest.mark.parametrize("case", CASES)
def test_what_was_done_is_named_with_its_parameters(case: str, tmp_path: Path) -> None:
    form, parameters, checked = CASES[case]
    name = case.partition(",")[0]
    a = parent(form)
    b = OPERATIONS[name]([a], 3, **parameters)
    truth = b.truth.operations[0]["parameters"]
    found = told(a, b, tmp_path)
    assert found.keys() - ENCODED == {name}
    for key in checked:
        expected = truth[key]
        near = not isinstance(expected, (bool, str)) and np.asarray(expected).dtype.kind == "f"
        assert found[name][key] == (pytest.approx(expected, rel=0.02, abs=1e-6) if near else expected), key


@pytest.mark.parametrize(("groups", "weighted"), [(2, False), (2, True), (3, False)])
def test_experts_that_are_means_and_of_which(groups: int, weighted: bool, tmp_path: Path) -> None:
    a = parent("moe")
    b = OPERATIONS["experts_merged"]([a], 5, groups=groups, weighted=weighted)
    found = told(a, b, tmp_path)
    assert found.keys() == {"experts_merged"}
    p = found["experts_merged"]
    assert (p["experts"], p["experts_of_a"], p["method"]) == (groups, 4, "weighted" if weighted else "mean")
    made = b.truth.operations[0]["parameters"]["made"]
    assert p["groups"] == [
        [i, [{e: pytest.approx(w, abs=0.01) for e, w in x.items()} for x in rows]] for i, rows in made
    ]


def test_experts_that_were_trained_are_no_means(tmp_path: Path) -> None:
    """Nor are copies that were trained apart, of which each resembles all others."""
    a = OPERATIONS["moe_upcycling"]([parent("llama")], 5)
    rng = np.random.default_rng(1)

    def trained(x: np.ndarray, size: float) -> np.ndarray:
        return (x + size * x.std() * rng.standard_normal(x.shape)).astype(np.float32)

    apart = {n: trained(x, 0.2) if ".experts." in n else x for n, x in a.tensors.items()}
    later = {n: trained(x, 0.1) if ".experts." in n else x for n, x in apart.items()}
    one, other = (model_folder.ZooModel(tensors, a.config, a.truth) for tensors in (apart, later))
    assert "experts_merged" not in told(one, other, tmp_path)


@pytest.mark.parametrize(
    ("of", "power", "falling"), [("all", 2, True), ("down", 2, False), ("up", 1, True), ("gate", 2, True)]
)
def test_units_sorted_by_a_norm(of: str, power: int, falling: bool, tmp_path: Path) -> None:
    a = parent("llama")
    tensors = dict(a.tensors)
    for i in range(LAYERS):
        up, gate, down = (f"model.layers.{i}.mlp.{part}_proj.weight" for part in ("up", "gate", "down"))
        parts = {"up": a.tensors[up], "gate": a.tensors[gate], "down": a.tensors[down].T}
        sizes = sum((np.abs(x) ** power).sum(axis=1) for part, x in parts.items() if of in ("all", part))
        order = np.argsort(-sizes if falling else sizes)
        tensors |= {up: a.tensors[up][order], gate: a.tensors[gate][order], down: a.tensors[down][:, order].copy()}
    found = told(a, model_folder.ZooModel(tensors, a.config, a.truth), tmp_path)
    assert found.keys() == {"unit_permutation"}
    wanted = {"sorted_by": "norm", "norm_of": of, "power": power, "falling": falling}
    assert {k: v for k, v in found["unit_permutation"].items() if k != "share"} == wanted


def test_units_in_any_order_are_not_sorted(tmp_path: Path) -> None:
    a = parent("llama")
    assert "sorted_by" not in told(a, OPERATIONS["unit_permutation"]([a], 3), tmp_path)["unit_permutation"]


def test_nothing_is_named_between_equal_models_and_between_strangers(tmp_path: Path) -> None:
    a = parent("llama")
    assert told(a, a, tmp_path / "equal") == {}
    rng = np.random.default_rng(0)
    drawn = {n: rng.permutation(x.ravel()).reshape(x.shape) for n, x in a.tensors.items()}
    assert told(a, model_folder.ZooModel(drawn, a.config, a.truth), tmp_path / "strangers") == {}


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_has_no_structure(seed: int, tmp_path: Path) -> None:
    """A fine-tune of any size is not an edit of the structure."""
    a = parent("llama")
    rng = np.random.default_rng(seed)
    size = (0.02, 0.2, 0.6)[seed]
    noisy = {n: (x + size * x.std() * rng.standard_normal(x.shape)).astype(np.float32) for n, x in a.tensors.items()}
    structural = {case.partition(",")[0] for case in CASES}
    assert not told(a, model_folder.ZooModel(noisy, a.config, a.truth), tmp_path).keys() & structural
