"""Operations of the benchmark: disguises keep the function, maps say truly where weights came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
pytest.importorskip("jax")
model_folder = import_module("benches.lineage.zoo.model_folder")
from tiny_models import TOKENS, logits, tiny  # noqa: E402  (after the skip)

del sys.path[:2]

from benches.lineage.zoo.model_folder import ZooModel  # noqa: E402
from benches.lineage.zoo.operations.chain import chain, composed  # noqa: E402
from benches.lineage.zoo.operations.table import OPERATIONS  # noqa: E402
from benches.lineage.zoo.operations.work import Operation, named  # noqa: E402


def parents_for(operation: Operation, form: str) -> list[ZooModel]:
    return [tiny(form, seed, name=name) for seed, name in zip(range(operation.parents), "pqrs", strict=False)]


CASES = [
    pytest.param(operation, form, parameters, id=f"{operation.name}-{form}-{k}")
    for operation in OPERATIONS.values()
    for form in operation.forms
    for k, parameters in enumerate(operation.strengths)
]

#: strengths of preserving operations that do change the function, and what they change.
_CHANGES = {("moe_upcycling", "fresh"), ("expert_duplication", "noise"), ("re_dtype", "dtype")}


def keeps(operation: Operation, parameters: Mapping[str, Any]) -> bool:
    return operation.preserves and not any(parameters.get(key) for name, key in _CHANGES if name == operation.name)


PRESERVING = [case for case in CASES if keeps(case.values[0], case.values[2])]


@pytest.mark.slow
def test_the_forward_pass_is_the_trainers() -> None:
    jax = pytest.importorskip("jax")
    from benches.lineage.demo_trainer import gpt2, model
    from benches.lineage.zoo import forms

    for form, experts in (("llama", 0), ("moe", 4)):
        m = tiny(form)
        s = forms.shape(form, hidden=16, layers=4, ffn=24, vocabulary=40, experts=experts, eps=1e-12)
        ours = model.forward({k: jax.numpy.asarray(v) for k, v in m.tensors.items()}, s, TOKENS)[0]
        np.testing.assert_allclose(logits(m), ours, atol=2e-4)
    m = tiny("gpt2")
    s = forms.shape("gpt2", hidden=16, layers=4, ffn=24, vocabulary=40, positions=32)
    np.testing.assert_allclose(logits(m), gpt2.forward(m.tensors, s, TOKENS), atol=2e-4)


@pytest.mark.parametrize(("operation", "form", "parameters"), PRESERVING)
def test_a_disguise_computes_the_same(operation: Operation, form: str, parameters: Mapping[str, Any]) -> None:
    parents = parents_for(operation, form)
    child = operation(parents, 3, **parameters)
    changed = child.tensors.keys() != parents[0].tensors.keys() or any(
        not np.array_equal(child.tensors[n], x) for n, x in parents[0].tensors.items()
    )
    assert changed
    if operation.name in ("rename", "random_names"):
        names = child.truth.operations[0]["parameters"]["names"]
        back = {old: child.tensors[new] for new, old in names.items()}
        child = ZooModel(back, parents[0].config, child.truth)
        if form == "gpt2":
            parents[0] = OPERATIONS["rename"](parents, 3, style="llama")
            assert {n: x.tolist() for n, x in back.items()} == {n: x.tolist() for n, x in parents[0].tensors.items()}
            return
    np.testing.assert_allclose(logits(child), logits(parents[0]), atol=1e-4)


@pytest.mark.parametrize(("operation", "form", "parameters"), CASES)
def test_a_child_is_whole_repeatable_and_tells_its_truth(
    operation: Operation, form: str, parameters: Mapping[str, Any], tmp_path: Path
) -> None:
    parents = parents_for(operation, form)
    before = [{n: x.copy() for n, x in p.tensors.items()} for p in parents]
    child, again = (operation(parents, 3, **parameters) for _ in range(2))
    for p, old in zip(parents, before, strict=True):  # parents are left as they were
        assert all(np.array_equal(p.tensors[n], x) for n, x in old.items())
    assert list(child.tensors) == list(again.tensors)
    assert all(x.tobytes() == again.tensors[n].tobytes() for n, x in child.tensors.items())
    truth = child.truth
    assert truth == again.truth
    assert truth.kind == "descendant"
    assert truth.roots == tuple(p.truth.name for p in parents)
    assert truth.parents == tuple(p.truth.name for p in parents)
    assert [o["name"] for o in truth.operations] == [operation.name]
    recorded = truth.operations[0]["parameters"]
    assert recorded["seed"] == 3
    assert {k: recorded[k] for k, v in parameters.items() if v is not None} == dict(parameters)
    model_folder.save(tmp_path / "child", child)
    assert model_folder.load(tmp_path / "child").truth == replace(
        truth, roots=list(truth.roots), parents=list(truth.parents), operations=list(truth.operations)
    )
    json.dumps(asdict(truth))
    latent = any("kv_b_proj" in name for name in child.tensors)  # which the small forward pass here doesn't know
    if operation.name not in ("rename", "random_names", "quantise", "re_dtype") and not latent:
        shown = logits(child, TOKENS % child.config["vocab_size"])
        assert np.isfinite(shown).all()  # the child's config fits its tensors


def test_another_seed_is_another_child() -> None:
    parent = tiny("llama", layers=12)
    for name in ("unit_permutation", "rotation", "depth_drop", "moe_upcycling"):
        a, b = (OPERATIONS[name]([parent], seed) for seed in (1, 2))
        assert any(not np.array_equal(x, b.tensors.get(n)) for n, x in a.tensors.items()), name


@pytest.mark.parametrize("form", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["depth_drop", "depth_upscaling", "layer_insertion", "layer_shuffle"])
def test_layer_maps_point_to_equal_blocks(name: str, form: str) -> None:
    parent = tiny(form, layers=8)
    child = OPERATIONS[name]([parent], 1)
    block = (lambda i: f"h.{i}.") if form == "gpt2" else (lambda i: f"model.layers.{i}.")
    rows = child.truth.layer_map["p"]
    assert [row[0] for row in rows] == list(range(len(rows)))
    for here, there in rows:
        mine = {n.removeprefix(block(here)): x for n, x in child.tensors.items() if n.startswith(block(here))}
        assert mine
        if there is not None:
            theirs = {n.removeprefix(block(there)): x for n, x in parent.tensors.items() if n.startswith(block(there))}
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(x, theirs[n]) for n, x in mine.items())
    assert (
        len(rows)
        == max(int(n.split(".")[1 if form == "gpt2" else 2]) for n in child.tensors if "proj" in n or "c_" in n) + 1
    )


def test_stacked_ranges_are_the_ranges() -> None:
    child = OPERATIONS["depth_upscaling"]([tiny("llama", layers=8)], 1, ranges=[[0, 5], [2, 7]])
    assert [row[1] for row in child.truth.layer_map["p"]] == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]
    assert child.config["num_hidden_layers"] == 12


@pytest.mark.parametrize("name", ["unit_permutation", "ffn_pruning", "ffn_widening"])
@pytest.mark.parametrize("form", ["llama", "moe", "gpt2"])
def test_unit_maps_point_to_equal_units(name: str, form: str) -> None:
    parent = tiny(form)
    child = OPERATIONS[name]([parent], 2, **({"mixed": True} if name == "ffn_widening" else {}))
    if form == "moe":
        maps = {(row[0], row[1]): row[3] for row in child.truth.expert_map}
        assert all(row[2] == row[0] and row[4] == row[1] for row in child.truth.expert_map)
        ups = {(i, e): f"model.layers.{i}.mlp.experts.{e}.up_proj.weight" for i in range(4) for e in range(4)}
    else:
        maps = {(int(layer), None): units for layer, units in child.truth.unit_map.items()}
        up = "h.{}.mlp.c_fc.weight" if form == "gpt2" else "model.layers.{}.mlp.up_proj.weight"
        ups = {(i, None): up.format(i) for i in range(4)}
    assert maps.keys() == ups.keys()
    for place, up_name in ups.items():
        mine, theirs = child.tensors[up_name], parent.tensors[up_name]
        if form == "gpt2":
            mine, theirs = mine.T, theirs.T
        units = np.array(maps[place])
        assert len(units) == len(mine)
        np.testing.assert_array_equal(mine[units >= 0], theirs[units[units >= 0]])
        assert all(not (theirs == row).all(1).any() for row in mine[units < 0])


def test_expert_maps_point_to_equal_units() -> None:
    parent = tiny("llama")
    for name, parameters in (
        ("moe_upcycling", {"fresh": 0.25}),
        ("expert_split", {"parts": 4, "copies": 2, "used": 4}),
    ):
        child = OPERATIONS[name]([parent], 2, **parameters)
        assert len(child.truth.expert_map) == 4 * (4 if name == "moe_upcycling" else 8)
        for layer, expert, source, units, dense in child.truth.expert_map:
            assert dense is None
            mine = child.tensors[f"model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight"]
            theirs = parent.tensors[f"model.layers.{source}.mlp.gate_proj.weight"]
            index = np.array(units)
            np.testing.assert_array_equal(mine[index >= 0], theirs[index[index >= 0]])
    moe = named(OPERATIONS["moe_upcycling"]([parent], 2, fresh=0.5), "m")
    for name in ("expert_shuffle", "expert_duplication"):
        child = OPERATIONS[name]([moe], 2)
        for layer, expert, source, units, theirs_number in child.truth.expert_map:
            assert units is None
            mine = child.tensors[f"model.layers.{layer}.mlp.experts.{expert}.down_proj.weight"]
            np.testing.assert_array_equal(
                mine, moe.tensors[f"model.layers.{source}.mlp.experts.{theirs_number}.down_proj.weight"]
            )


def test_the_wrong_form_is_refused() -> None:
    for name, form in (("sign_flips", "gpt2"), ("moe_upcycling", "moe"), ("moe_to_dense", "llama")):
        with pytest.raises(ValueError, match="not made for"):
            OPERATIONS[name]([tiny(form)], 0)
    fp8 = OPERATIONS["quantise"]([tiny("llama")], 0, method="fp8")
    with pytest.raises(ValueError, match="encode them last"):
        OPERATIONS["unit_permutation"]([fp8], 0)


def test_a_chain_tells_its_maps_from_the_first_parent() -> None:
    parent = tiny("llama", layers=8)
    steps: Sequence[tuple[Operation, Mapping[str, Any]]] = [
        (OPERATIONS["unit_permutation"], {}),
        (OPERATIONS["depth_drop"], {"layers": [2, 3]}),
        (OPERATIONS["ffn_pruning"], {"keep": 0.5}),
        (OPERATIONS["layer_insertion"], {"at": [1]}),
        (OPERATIONS["moe_upcycling"], {"fresh": 0.25}),
        (OPERATIONS["expert_shuffle"], {}),
    ]
    child = chain([parent], steps, 4, "child")
    truth = child.truth
    assert (truth.name, truth.parents, truth.roots) == ("child", ("p",), ("p",))
    assert [o["name"] for o in truth.operations] == [operation.name for operation, _ in steps]
    assert [row[1] for row in truth.layer_map["p"]] == [0, None, 1, 4, 5, 6, 7]
    seen = 0
    for layer, expert, source, units, _ in truth.expert_map:
        if source is None:
            continue
        mine = child.tensors[f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"]
        theirs = parent.tensors[f"model.layers.{source}.mlp.up_proj.weight"]
        index = np.array(units)
        assert (index >= 0).mean() == 0.75
        np.testing.assert_array_equal(mine[index >= 0], theirs[index[index >= 0]])
        seen += 1
    assert seen == 6 * 4


def test_dense_maps_through_layers_compose() -> None:
    parent = tiny("llama", layers=8)
    child = chain(
        [parent],
        [
            (OPERATIONS["ffn_pruning"], {"keep": 0.5}),
            (OPERATIONS["layer_shuffle"], {}),
            (OPERATIONS["unit_permutation"], {}),
        ],
        4,
        "child",
    )
    for here, there in child.truth.layer_map["p"]:
        units = child.truth.unit_map[str(here)]
        np.testing.assert_array_equal(
            child.tensors[f"model.layers.{here}.mlp.up_proj.weight"],
            parent.tensors[f"model.layers.{there}.mlp.up_proj.weight"][units],
        )


def test_only_a_child_can_be_composed() -> None:
    a, b = tiny("llama", name="a"), tiny("llama", name="b")
    child = OPERATIONS["depth_drop"]([a], 1)
    with pytest.raises(ValueError, match="was not made from"):
        composed(b.truth, child.truth)
