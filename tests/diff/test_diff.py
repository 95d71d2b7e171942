"""`diff`: every tensor of either side is in the table once, and what the table says is what the values say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import weightprint
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file
from weightprint import _core
from weightprint.cli import cli

Array = npt.NDArray[Any]


def model(seed: int, layers: int = 2, d: int = 32, h: int = 48) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    out: dict[str, Array] = {
        "model.embed_tokens.weight": rng.standard_normal((100, d)),
        "model.norm.weight": rng.random(d),
    }
    for i in range(layers):
        at = f"model.layers.{i}."
        for part in ("q", "k", "v", "o"):
            out[f"{at}self_attn.{part}_proj.weight"] = rng.standard_normal((d, d))
        for part, shape in (("gate", (h, d)), ("up", (h, d)), ("down", (d, h))):
            out[f"{at}mlp.{part}_proj.weight"] = rng.standard_normal(shape)
        out[f"{at}input_layernorm.weight"] = rng.random(d)
        out[f"{at}post_attention_layernorm.weight"] = rng.random(d)
    return {name: x.astype(np.float32) for name, x in out.items()}


def save(path: Path, tensors: dict[str, Array]) -> Path:
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path)
    return path


def rows(found: weightprint.Diff) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found.table.to_records()}


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_gains_kept_as_distances_from_one_are_compared_as_they_act(tmp_path: Path, dtype: Any) -> None:
    """Gemma's norms add 1 to what is stored; other forms of the same model store what acts."""
    acts = {name: x.astype(dtype) for name, x in model(0, layers=4).items()}
    stored = {name: x.astype(np.float32) - 1 if x.ndim == 1 else x for name, x in acts.items()}
    for folder, tensors, family in (("a", stored, "gemma"), ("b", acts, "llama"), ("c", acts, "gemma")):
        (tmp_path / folder).mkdir()
        config = {"model_type": family, "num_attention_heads": 4, "hidden_size": 32}
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
        save(tmp_path / folder / "model.safetensors", tensors)
    matrices = sum(x.ndim == 2 for x in acts.values())
    gains = len(acts) - matrices
    for sides in ("ab", "ba"):
        found = weightprint.diff(*(tmp_path / side for side in sides))
        assert found.counts == {"re_encoded": gains, "same": matrices}
        assert all(row["n_differ"] == 0 and row["relative"] == 0 for row in rows(found).values())
    assert weightprint.diff(tmp_path / "a", tmp_path / "c").counts == {"changed": gains, "same": matrices}


@given(
    hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32)),
    st.integers(0, 2**31),
)
def test_the_core_sums_what_float64_sums(a: Array, seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = np.where(rng.random(a.size) < 0.5, a, np.float32(1.5)).astype(np.float32)
    n, n_finite, n_differ, n_flipped, sums = _core.compare_values(a.tobytes(), b.tobytes())
    good = np.isfinite(a) & np.isfinite(b)
    x, y = a[good].astype(np.float64), b[good].astype(np.float64)
    assert (n, n_finite) == (a.size, int(good.sum()))
    assert n_differ == int(np.count_nonzero(a.view(np.uint32) != b.view(np.uint32)))
    assert n_flipped == int(np.count_nonzero(np.sign(x) * np.sign(y) < 0))
    with np.errstate(over="ignore"):
        expected = [x.sum(), y.sum(), x @ x, y @ y, x @ y, (x - y) @ (x - y), np.abs(x - y).max(initial=0.0)]
    scale = [np.abs(x).sum(), np.abs(y).sum(), x @ x, y @ y, np.abs(x) @ np.abs(y), (x - y) @ (x - y), expected[6]]
    np.testing.assert_array_less(np.abs(np.array(sums) - expected), 1e-12 * np.array(scale) + 1e-300)


def test_runs_of_unequal_length_are_refused() -> None:
    with pytest.raises(weightprint.UsageError, match="equal length"):
        _core.compare_values(b"\0" * 8, b"\0" * 4)


def test_a_copy_is_the_same_and_every_tensor_is_listed(tmp_path: Path) -> None:
    a = save(tmp_path / "a.safetensors", model(0))
    found = weightprint.diff(a, a)
    assert found.same
    assert found.counts == {"same": len(model(0))}


def test_what_changed_is_measured(tmp_path: Path) -> None:
    parent, child = model(0), model(0)
    changed = "model.layers.1.mlp.up_proj.weight"
    child[changed] = child[changed] + np.float32(0.01) * model(9)[changed]
    child["model.norm.weight"] = child["model.norm.weight"].astype(ml_dtypes.bfloat16)
    child["model.layers.0.self_attn.q_proj.weight"] = child["model.layers.0.self_attn.q_proj.weight"][:16]
    child["extra"] = np.ones(3, np.float32)
    del child["model.layers.0.input_layernorm.weight"]
    child["renamed"] = child.pop("model.layers.1.post_attention_layernorm.weight")
    found = weightprint.diff(save(tmp_path / "a.safetensors", parent), save(tmp_path / "b.safetensors", child))
    got = rows(found)
    assert {name: row["status"] for name, row in got.items() if row["status"] != "same"} == {
        changed: "changed",
        "model.norm.weight": "re_encoded",
        "model.layers.0.self_attn.q_proj.weight": "reshaped",
        "extra": "only_b",
        "model.layers.0.input_layernorm.weight": "only_a",
    }
    assert got["renamed"]["name_a"] == "model.layers.1.post_attention_layernorm.weight"
    x, y = (m[changed].astype(np.float64) for m in (parent, child))
    row = got[changed]
    assert row["relative"] == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-9)
    assert row["cosine"] == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1], rel=1e-9)
    assert row["max_difference"] == pytest.approx(np.abs(y - x).max(), rel=1e-9)
    assert row["n_differ"] == np.count_nonzero(x != y)


def test_a_fused_copy_is_the_same(tmp_path: Path) -> None:
    """Other names, other fusion: every canonical tensor finds its partner by place."""
    parent = model(3)
    fused: dict[str, Array] = {}
    for name, x in parent.items():
        if "q_proj" in name:
            others = [parent[name.replace("q_proj", f"{part}_proj")] for part in "kv"]
            fused[name.replace("q_proj", "qkv_proj")] = np.concatenate([x, *others])
        elif "gate_proj" in name:
            fused[name.replace("gate_proj", "gate_up_proj")] = np.concatenate([x, parent[name.replace("gate", "up")]])
        elif not any(part in name for part in ("k_proj", "v_proj", "up_proj")):
            fused[name] = x
    folder = tmp_path / "phi3"
    folder.mkdir()
    config = {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    save(folder / "model.safetensors", fused)
    found = weightprint.diff(save(tmp_path / "a.safetensors", parent), folder)
    assert found.counts == {"same": len(parent)}


def test_globs_choose_on_either_side(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.safetensors", model(0)), save(tmp_path / "b.safetensors", model(1))
    found = weightprint.diff(a, b, include="*.q_proj.*")
    assert found.counts == {"changed": 2}
    with pytest.raises(weightprint.UsageError, match="matches none"):
        weightprint.diff(a, b, include="nothing")


def test_the_command(tmp_path: Path) -> None:
    parent, child = model(0), model(0)
    child["model.norm.weight"] = child["model.norm.weight"] * 2
    a, b = save(tmp_path / "a.safetensors", parent), save(tmp_path / "b.safetensors", child)
    same = CliRunner().invoke(cli, ["diff", str(a), str(a)])
    assert same.exit_code == 0
    assert "the same" in same.output
    result = CliRunner().invoke(cli, ["diff", str(a), str(b), "--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["counts"] == {"changed": 1, "same": len(parent) - 1}
    out = tmp_path / "diff.csv"
    assert CliRunner().invoke(cli, ["diff", str(a), str(b), "--format", "csv", "-o", str(out)]).exit_code in (0, 1)
    assert "model.norm.weight" in out.read_text()


def test_what_has_no_place_is_listed_all_the_same(tmp_path: Path) -> None:
    odd = {
        f"{word}.thing": np.random.default_rng(k).random((3, 5, 7)).astype(np.float32) for k, word in enumerate("xyz")
    }
    a = save(tmp_path / "a.safetensors", model(0) | odd)
    b = save(tmp_path / "b.safetensors", model(0) | odd | {"x.thing": odd["x.thing"] + 1})
    assert set(weightprint.anatomy(a).unmapped) == set(odd)
    found = rows(weightprint.diff(a, b))
    assert {name: found[name]["status"] for name in odd} == {"x.thing": "changed", "y.thing": "same", "z.thing": "same"}
    exact = next(e for e in weightprint.compare(a, b).evidence if e.test == "exact_sharing")
    assert {"y.thing", "z.thing"} <= {shared.b for shared in exact.found}
    assert exact.details["only_in_b"] == ["x.thing"]


def test_components_that_do_not_hold_together_are_equal_or_not_read(tmp_path: Path) -> None:
    """An FP8 weight whose scale has a shape that fits nothing: nothing is decoded, nothing is dropped."""
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = model(0) | {
        name: np.ones((48, 32), ml_dtypes.float8_e4m3fn) * 2,
        f"{name}_scale_inv": np.ones((7, 3), np.float32),
    }
    a = save(tmp_path / "a.safetensors", tensors)
    b = save(tmp_path / "b.safetensors", tensors | {f"{name}_scale_inv": np.full((7, 3), 2, np.float32)})
    found = rows(weightprint.diff(a, b))
    assert found[name]["status"] == "same"
    assert found[f"{name}_scale_inv"]["status"] == "not_read"
    assert weightprint.compare(a, b).verdict not in ("identical", "re_encoded")
    assert weightprint.compare(a, a).verdict == "identical"
    with pytest.raises(weightprint.FormatError, match="scale"):
        weightprint.anatomy(a).tensor(0, "up")
