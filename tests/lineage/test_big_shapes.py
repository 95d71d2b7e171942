"""Synthetic models at big shapes, tried at small ones: whole files, any rows alone, children that are what they say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint

ROOT = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, ROOT)
pytest.importorskip("jax")
big = import_module("benches.lineage.scale.big_shapes")
sys.path.remove(ROOT)

Array = np.ndarray[Any, Any]
DENSE = big.Shape("qwen2", 256, 8, 4, 2, 10 * 64 + 384, 500, biases=True)
SPARSE = big.Shape("PanguProMoE", 256, 8, 4, 2, 64, 500, experts=8, shared=160, biases=True)
LATENT = big.Shape(
    "deepseek_v3", 256, 8, 4, 4, 64, 500, experts=8, shared=64, latent=(96, 64, 16, 8, 16), fp8=True
)  # fmt: skip
_DTYPES = {"BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F32": np.float32}


def read(folder: Path) -> dict[str, Array]:
    """All tensors of a sharded folder, read by its index."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    out = {}
    for name, file in index["weight_map"].items():
        raw = (folder / file).read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        entry = json.loads(raw[8:start])[name]
        a, b = entry["data_offsets"]
        x = np.frombuffer(raw[start + a : start + b], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        out[name] = x.astype(np.float32)
    return out


@pytest.mark.parametrize("shape", [DENSE, SPARSE, LATENT], ids=["dense", "sparse", "latent"])
def test_a_written_model_is_whole_and_its_places_are_known(shape: Any, tmp_path: Path) -> None:
    folder = big.write(tmp_path / "m", big.Plan(shape, layers=2, experts=4), shard_bytes=1 << 20)
    assert len(list(folder.glob("*.safetensors"))) > 1
    tensors = read(folder)
    assert all(np.isfinite(x).all() for x in tensors.values())
    assert len(weightprint.open(folder)) == len(tensors)
    assert weightprint.anatomy(folder).unmapped == ()


def test_any_rows_can_be_drawn_alone() -> None:
    plan = big.Plan(DENSE)
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"):
        entry = big.entries(plan)[name]
        whole = big.drawn(3, name, entry, 0, entry.shape[0])
        np.testing.assert_array_equal(big.drawn(3, name, entry, 100, 213), whole[100:213])
        assert whole.shape == entry.shape
        assert not np.array_equal(whole, big.drawn(4, name, entry, 0, entry.shape[0]))


def test_roots_have_the_structure_of_real_ones() -> None:
    entry = big.entries(big.Plan(DENSE))["model.layers.1.mlp.up_proj.weight"]
    x = big.drawn(0, "model.layers.1.mlp.up_proj.weight", entry, 0, entry.shape[0]).astype(np.float64)
    rms = np.sqrt((x * x).mean(0))
    assert (rms > 4 * np.median(rms)).sum() == 3
    common = x / rms
    centred = (common - common.mean(0)) / common.std(0)
    assert (centred**4).mean() > 3.3  # heavier than normal
    assert np.linalg.svd(centred, compute_uv=False)[0] > 2 * np.linalg.svd(centred, compute_uv=False)[2]


def test_permuted_units_are_where_the_truth_says(tmp_path: Path) -> None:
    root = read(big.write(tmp_path / "root", big.Plan(DENSE)))
    child = big.write(tmp_path / "child", big.Plan(DENSE, kind="permuted", noise=0.0))
    truth = json.loads((child / "truth.json").read_text())
    assert truth["parents"] == ["synthetic-0"]
    tensors = read(child)
    for layer, units in truth["unit_map"].items():
        at = f"model.layers.{layer}.mlp"
        for part in ("gate", "up"):
            name = f"{at}.{part}_proj.weight"
            np.testing.assert_array_equal(tensors[name], root[name][units])
        name = f"{at}.down_proj.weight"
        np.testing.assert_array_equal(tensors[name], root[name][:, units])
    assert sorted(truth["unit_map"]) == ["0", "1"]


def test_experts_take_the_ranges_that_the_truth_says(tmp_path: Path) -> None:
    root = read(big.write(tmp_path / "root", big.Plan(DENSE, seed=2)))
    child = big.write(tmp_path / "child", big.Plan(SPARSE, experts=4, kind="upcycled", seed=2, noise=0.0))
    truth = json.loads((child / "truth.json").read_text())
    tensors = read(child)
    assert len(truth["expert_map"]) == 2 * 4
    for layer, expert, source, units, _ in truth["expert_map"]:
        mine, theirs = f"model.layers.{layer}.mlp.experts.{expert}", f"model.layers.{source}.mlp"
        np.testing.assert_array_equal(tensors[f"{mine}.up_proj.weight"], root[f"{theirs}.up_proj.weight"][units])
        np.testing.assert_array_equal(tensors[f"{mine}.down_proj.weight"], root[f"{theirs}.down_proj.weight"][:, units])
    for layer, (start, stop) in enumerate(truth["operations"][0]["parameters"]["shared_units"]):
        name = f"model.layers.{layer}.mlp.{{}}up_proj.weight"
        np.testing.assert_array_equal(tensors[name.format("shared_expert.")], root[name.format("")][start:stop])
    name = "model.layers.1.self_attn.q_proj.weight"
    np.testing.assert_array_equal(tensors[name], root[name])


def test_noise_is_as_large_as_asked(tmp_path: Path) -> None:
    root = read(big.write(tmp_path / "root", big.Plan(DENSE)))
    child = read(big.write(tmp_path / "child", big.Plan(DENSE, kind="noised", noise=0.5)))
    name = "model.layers.0.self_attn.o_proj.weight"
    assert (child[name] - root[name]).std() == pytest.approx(0.5 * 0.02, rel=0.05)


def test_fp8_decodes_to_what_was_drawn(tmp_path: Path) -> None:
    plan = big.Plan(LATENT, layers=1, experts=2)
    tensors = read(big.write(tmp_path / "fp8", plan))
    plain = read(big.write(tmp_path / "plain", replace(plan, shape=replace(LATENT, fp8=False))))
    name = "model.layers.0.self_attn.o_proj.weight"
    scale = np.kron(tensors[f"{name}_scale_inv"], np.ones((128, 128)))[: plain[name].shape[0], : plain[name].shape[1]]
    np.testing.assert_allclose(tensors[name] * scale, plain[name], rtol=0.08, atol=1e-3)
