"""The list of descendants of the real model, tried on a tiny one in its place; and the row order that GGUF changes."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
pytest.importorskip("jax")
real_scale = import_module("benches.lineage.scale.real_scale")
from tiny_models import tiny  # noqa: E402  (after the skip)

del sys.path[:2]

from benches.lineage.zoo import model_folder  # noqa: E402
from benches.lineage.zoo.operations.table import OPERATIONS  # noqa: E402


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_scale, "smollm2", lambda: tiny("llama", layers=8, name="smollm2"))


def test_every_operation_is_in_the_list_and_every_model_is_made() -> None:
    names = real_scale.names()
    assert len(set(names)) == len(names)
    made = dict(real_scale.descendants())
    assert list(made) == names
    for name, model in made.items():
        assert model.truth.name == name
        assert model.truth.roots[0] == "smollm2"
        assert model.truth.parents[:1] == (() if name == "smollm2" else ("smollm2",))
    used = {step["name"] for model in made.values() for step in model.truth.operations}
    assert used == {o.name for o in OPERATIONS.values() if {"llama", "moe"} & set(o.forms)}
    assert made["smollm2-linear_merge-0"].truth.roots == ("smollm2", "drawn")
    assert made["smollm2-ties_merge-0"].truth.roots == ("smollm2",)


def test_a_model_depends_on_its_name_and_seed_alone(tmp_path: Path) -> None:
    (_, one), (_, again), (_, other) = (
        next(iter(real_scale.descendants(only, seed)))
        for only, seed in (("smollm2-rotation-0", 0), ("*rotation*", 0), ("*rotation*", 1))
    )
    assert all(np.array_equal(x, again.tensors[n]) for n, x in one.tensors.items())
    assert any(not np.array_equal(x, other.tensors[n]) for n, x in one.tensors.items())
    real_scale.build(tmp_path, "*rotation*")
    before = (tmp_path / "smollm2-rotation-0" / "model.safetensors").stat().st_mtime_ns
    real_scale.build(tmp_path, "*rotation*")
    assert (tmp_path / "smollm2-rotation-0" / "model.safetensors").stat().st_mtime_ns == before
    assert model_folder.truth_of(tmp_path / "smollm2-rotation-1").name == "smollm2-rotation-1"


def test_scores_are_kept_and_models_are_not(tmp_path: Path) -> None:
    (row,) = real_scale.score(tmp_path, "smollm2-unit_permutation-0")
    assert row["weightprint"]["verdict"] == "shared_origin"
    assert {row["a"], row["b"]} == {"smollm2", "smollm2-unit_permutation-0"}
    assert not (tmp_path / "smollm2-unit_permutation-0").exists()
    before = (tmp_path / "rows.jsonl").read_text()
    again = real_scale.score(tmp_path, "smollm2-unit_permutation-0")
    assert json.dumps(again) == json.dumps([row])  # its seconds too: nothing is made or compared again
    assert (tmp_path / "rows.jsonl").read_text() == before


def test_rows_of_q_and_k_are_put_back() -> None:
    rng = np.random.default_rng(0)
    stored = {"token_embd.weight": rng.random((4, 6)), "output_norm.weight": np.ones(6)}
    true = rng.random((128, 6))  # two heads of 64
    # GGUF writes the pair (i, i + 32) of a head as the rows 2i and 2i + 1.
    order = np.array([64 * h + i + 32 * half for h in range(2) for i in range(32) for half in range(2)])
    for i in range(30):
        for module in ("attn_norm", "ffn_norm"):
            stored[f"blk.{i}.{module}.weight"] = np.ones(6)
        for module in ("attn_q", "attn_k"):
            stored[f"blk.{i}.{module}.weight"] = true[order]
        for module in ("attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            stored[f"blk.{i}.{module}.weight"] = rng.random((6, 6))
    out = real_scale.respelled(stored)
    np.testing.assert_array_equal(out["model.layers.3.self_attn.q_proj.weight"], true)
    np.testing.assert_array_equal(out["model.layers.3.self_attn.v_proj.weight"], stored["blk.3.attn_v.weight"])
    assert len(out) == 30 * 9 + 2
