"""How the demo's models are made: first weights, upcycling that changes no function, a recipe that repeats.

Needs the `lineage` extra (JAX) and the repository; skipped elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import weightprint

pytest.importorskip("jax")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from benches.lineage.demo_trainer import demo_models, model  # noqa: E402  (after the skip)
from benches.lineage.zoo import data, forms, forms_train, model_folder  # noqa: E402

sys.path.remove(str(ROOT))

CONFIG = forms.shape("llama", hidden=16, layers=2, ffn=24, heads=2, kv_heads=1)
TOKENS = np.random.default_rng(0).integers(0, 256, (2, 9))


def test_init_has_the_declared_shapes_and_depends_on_the_seed() -> None:
    one, again, other = (model.init(CONFIG, seed) for seed in (1, 1, 2))
    assert {name: value.shape for name, value in one.items()} == model.shapes(CONFIG)
    for name, value in one.items():
        assert (value == again[name]).all()
        assert (value == other[name]).all() == (value.ndim == 1)


def test_no_byte_sees_a_later_one() -> None:
    params = model.init(CONFIG, 1)
    changed = TOKENS.copy()
    changed[:, 5] += 1
    before, after = (np.asarray(model.forward(params, CONFIG, tokens)[0]) for tokens in (TOKENS, changed % 256))
    np.testing.assert_allclose(before[:, :5], after[:, :5], rtol=1e-5, atol=1e-6)
    assert (before[:, 5] != after[:, 5]).any()


def test_upcycling_without_redrawn_units_computes_the_same() -> None:
    params = model.init(CONFIG, 1)
    moe, config = model.upcycle(params, CONFIG, experts=3, fresh=0.0, seed=5)
    assert {name: value.shape for name, value in moe.items()} == model.shapes(config)
    dense, _ = model.forward(params, CONFIG, TOKENS)
    sparse, imbalance = model.forward(moe, config, TOKENS)
    np.testing.assert_allclose(sparse, dense, rtol=1e-4, atol=1e-5)
    assert 0.5 < float(imbalance) < 3


def test_upcycling_redraws_the_same_units_in_all_three_matrices() -> None:
    params = model.init(CONFIG, 1)
    moe, config = model.upcycle(params, CONFIG, experts=2, fresh=0.25, seed=5)
    for layer in range(CONFIG.layers):
        for expert in model.ffn_prefixes(config, layer):
            kept = []
            for role, axis in (("gate_proj", 1), ("up_proj", 1), ("down_proj", 0)):
                old, new = params[f"model.layers.{layer}.mlp.{role}.weight"], moe[f"{expert}.{role}.weight"]
                kept.append(np.asarray((old == new).all(axis=axis)))
            assert (kept[0] == kept[1]).all()
            assert (kept[0] == kept[2]).all()
            assert kept[0].sum() == 0.75 * CONFIG.ffn


def test_a_recipe_learns_and_gives_the_same_weights_twice() -> None:
    start = {name: np.asarray(x) for name, x in model.init(CONFIG, 1).items()}
    recipe = forms_train.Recipe("docs", 30, 3, 4e-3, warmup=5, context=32)
    once, twice = (demo_models.trained(start, CONFIG, recipe, "x") for _ in range(2))
    assert once.keys() == start.keys()
    assert all((x == twice[name]).all() for name, x in once.items())
    before, after = (forms_train.evaluate(forms.stack(x, CONFIG), CONFIG, "docs", rows=32) for x in (start, once))
    assert after < before - 1


def test_a_model_is_built_from_the_saved_form_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = forms_train.Recipe("docs", 2, 3, warmup=1, rows=2, context=16)
    plans = {
        "root": demo_models.Plan(recipe, 1),
        "moe": demo_models.Plan(recipe, 7, "root", True, "upcycled"),
    }
    monkeypatch.setattr(demo_models, "PLANS", plans)
    monkeypatch.setattr(demo_models, "DENSE", CONFIG)
    demo_models.build(["moe"], tmp_path)
    start, shape = demo_models._start(plans["moe"], tmp_path)
    root = model_folder.read_safetensors(tmp_path / "root" / "model.safetensors")
    assert shape.experts == demo_models.EXPERTS
    assert all((x == root[name]).all() for name, x in start.items() if ".mlp." not in name)
    with weightprint.open(tmp_path / "moe") as checkpoint:
        assert {tensor.dtype for tensor in checkpoint.tensors} == {"BF16"}
        assert checkpoint.metadata["parents"] == "root"
        assert checkpoint.names() == sorted(start)


def test_the_bytes_we_write_are_read_by_the_safetensors_package(tmp_path: Path) -> None:
    from safetensors.flax import load_file

    params = {name: np.asarray(value.astype("bfloat16")) for name, value in model.init(CONFIG, 1).items()}
    file = tmp_path / "model.safetensors"
    model_folder.write_safetensors(file, params, {"name": "x"})
    back = load_file(file)
    assert set(back) == set(params)
    for name, value in params.items():
        assert (back[name] == value).all()


def test_held_out_text_is_disjoint_and_a_tenth() -> None:
    text = data.load("docs")
    assert 0.05 < text.held_out.size / (text.held_out.size + text.train.size) < 0.12
    assert 4 < text.unigram_bits < 5.5
