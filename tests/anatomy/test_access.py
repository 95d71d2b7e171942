"""Reading through an anatomy: parts, folded norms, products, tied heads, errors; against numpy on the stored arrays."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import weightprint
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from weightprint import Place
from weightprint.anatomy.place import Rows

Array = npt.NDArray[Any]
D, H, HEADS, KV, HD = 16, 24, 4, 2, 4


def write(folder: Path, tensors: dict[str, Array], config: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def fused_llama() -> tuple[dict[str, Array], dict[str, Any]]:
    """Phi-3's fusion with Gemma-free norms, two blocks, no head."""
    tensors: dict[str, Array] = {"model.embed_tokens.weight": noise(50, D), "model.norm.weight": noise(D, seed=1)}
    for b in range(2):
        at = f"model.layers.{b}."
        tensors |= {
            f"{at}self_attn.qkv_proj.weight": noise((HEADS + 2 * KV) * HD, D, seed=10 + b),
            f"{at}self_attn.o_proj.weight": noise(D, HEADS * HD, seed=20 + b),
            f"{at}mlp.gate_up_proj.weight": noise(2 * H, D, seed=30 + b),
            f"{at}mlp.down_proj.weight": noise(D, H, seed=40 + b),
            f"{at}input_layernorm.weight": noise(D, seed=50 + b),
            f"{at}post_attention_layernorm.weight": noise(D, seed=60 + b),
        }
    config = {"model_type": "phi3", "num_attention_heads": HEADS, "num_key_value_heads": KV, "hidden_size": D}
    return tensors, config


@pytest.fixture
def phi(tmp_path: Path) -> weightprint.Anatomy:
    return weightprint.anatomy(write(tmp_path / "phi", *fused_llama()))


SLICES = st.one_of(st.none(), st.builds(slice, st.integers(-60, 60), st.integers(-60, 60)))


@settings(max_examples=60, deadline=None)
@given(rows=SLICES, columns=SLICES, role=st.sampled_from(["q", "k", "v", "gate", "up", "o", "down"]))
def test_any_part_is_the_slice_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: slice | None, columns: slice | None, role: str
) -> None:
    tensors, config = fused_llama()
    folder = tmp_path_factory.getbasetemp() / "phi"
    phi = weightprint.anatomy(folder if folder.exists() else write(folder, tensors, config))
    fused = tensors["model.layers.1.self_attn.qkv_proj.weight"]
    halves = tensors["model.layers.1.mlp.gate_up_proj.weight"]
    n, kv = HEADS * HD, KV * HD
    whole = {
        "q": fused[:n],
        "k": fused[n : n + kv],
        "v": fused[n + kv :],
        "gate": halves[:H],
        "up": halves[H:],
        "o": tensors["model.layers.1.self_attn.o_proj.weight"],
        "down": tensors["model.layers.1.mlp.down_proj.weight"],
    }[role]
    got = phi.tensor(1, role, rows=rows, columns=columns)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, whole[rows or slice(None), columns or slice(None)])


def test_norms_fold_into_what_reads_them(phi: weightprint.Anatomy) -> None:
    gain = phi.tensor(0, "attn_norm")
    for role in ("q", "k", "v"):
        np.testing.assert_array_equal(phi.tensor(0, role, fold_norms=True), phi.tensor(0, role) * gain)
    gain = phi.tensor(0, "ffn_norm")
    folded = phi.tensor(0, "up", fold_norms=True, rows=slice(3, 9), columns=slice(2, 7))
    np.testing.assert_array_equal(folded, (phi.tensor(0, "up") * gain)[3:9, 2:7])
    for role in ("o", "down"):
        np.testing.assert_array_equal(phi.tensor(0, role, fold_norms=True), phi.tensor(0, role))
    head = phi.tensor(None, "head", fold_norms=True)
    np.testing.assert_array_equal(head, phi.tensor(None, "embedding") * phi.tensor(None, "final_norm"))


def test_a_copy_with_its_norms_folded_agrees_after_folding(tmp_path: Path) -> None:
    tensors, config = fused_llama()
    folded = dict(tensors)
    for b in range(2):
        for norm, matrix in (
            ("input_layernorm", "self_attn.qkv_proj"),
            ("post_attention_layernorm", "mlp.gate_up_proj"),
        ):
            gain = tensors[f"model.layers.{b}.{norm}.weight"]
            folded[f"model.layers.{b}.{matrix}.weight"] = tensors[f"model.layers.{b}.{matrix}.weight"] * gain
            folded[f"model.layers.{b}.{norm}.weight"] = np.ones(D, np.float32)
    a = weightprint.anatomy(write(tmp_path / "a", tensors, config))
    b_ = weightprint.anatomy(write(tmp_path / "b", folded, config))
    for role in ("q", "k", "v", "gate", "up"):
        np.testing.assert_array_equal(a.tensor(1, role, fold_norms=True), b_.tensor(1, role, fold_norms=True))


def test_gemma_gains_are_one_more_than_stored(tmp_path: Path) -> None:
    tensors: dict[str, Array] = {"model.embed_tokens.weight": noise(50, D), "model.norm.weight": noise(D, seed=1)}
    at = "model.layers.0."
    for name, shape in (("q", (D, D)), ("k", (D, D)), ("v", (D, D)), ("o", (D, D))):
        tensors[f"{at}self_attn.{name}_proj.weight"] = noise(*shape, seed=3)
    for name, shape in (("gate", (H, D)), ("up", (H, D)), ("down", (D, H))):
        tensors[f"{at}mlp.{name}_proj.weight"] = noise(*shape, seed=4)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{at}{name}.weight"] = noise(D, seed=5)
    gemma = weightprint.anatomy(write(tmp_path / "gemma", tensors, {"model_type": "gemma", "num_attention_heads": 4}))
    gain = np.float32(1) + tensors[f"{at}input_layernorm.weight"]
    np.testing.assert_array_equal(gemma.tensor(0, "attn_norm", fold_norms=True), gain)
    np.testing.assert_array_equal(gemma.tensor(0, "q", fold_norms=True), tensors[f"{at}self_attn.q_proj.weight"] * gain)


def gpt2() -> dict[str, Array]:
    tensors: dict[str, Array] = {"wte.weight": noise(50, D), "wpe.weight": noise(12, D, seed=1)}
    tensors |= {"ln_f.weight": noise(D, seed=2), "ln_f.bias": noise(D, seed=3)}
    for b in range(2):
        at = f"h.{b}."
        for part, n_in, n_out in (
            ("attn.c_attn", D, 3 * D),
            ("attn.c_proj", D, D),
            ("mlp.c_fc", D, 4 * D),
            ("mlp.c_proj", 4 * D, D),
        ):
            tensors[f"{at}{part}.weight"] = noise(n_in, n_out, seed=5 + b)
            tensors[f"{at}{part}.bias"] = noise(n_out, seed=7 + b)
        for norm in ("ln_1", "ln_2"):
            tensors |= {f"{at}{norm}.weight": noise(D, seed=9 + b), f"{at}{norm}.bias": noise(D, seed=11 + b)}
    return tensors


def test_an_offset_folds_into_the_bias(tmp_path: Path) -> None:
    """W·(γx̂ + β) + b = (W·diag γ)·x̂ + (b + W·β), on a layout that is stored transposed and fused."""
    tensors = gpt2()
    found = weightprint.anatomy(write(tmp_path / "gpt2", tensors, {"model_type": "gpt2", "n_head": 4}))
    w, b = tensors["h.1.attn.c_attn.weight"].T[D : 2 * D], tensors["h.1.attn.c_attn.bias"][D : 2 * D]
    gain, offset = tensors["h.1.ln_1.weight"], tensors["h.1.ln_1.bias"]
    np.testing.assert_array_equal(found.tensor(1, "k"), w)
    np.testing.assert_array_equal(found.tensor(1, "k", columns=slice(2, 5), rows=slice(1, 3)), w[1:3, 2:5])
    x = noise(D, seed=99)
    whole = w @ (gain * x + offset) + b
    folded = found.tensor(1, "k", fold_norms=True) @ x + found.tensor(1, "k_bias", fold_norms=True)
    np.testing.assert_allclose(folded, whole, rtol=1e-5, atol=1e-5)


def test_mla_products_act_as_plain_attention(tmp_path: Path) -> None:
    """Keys, queries and values of the multiplied-out form against the modules one after the other."""
    heads, nope, rope, value, r_q, r_kv = 2, 6, 4, 5, 7, 8
    at = "model.layers.0."
    t: dict[str, Array] = {
        "model.embed_tokens.weight": noise(50, D),
        "model.norm.weight": noise(D),
        "lm_head.weight": noise(50, D),
    }
    t |= {
        f"{at}self_attn.q_a_proj.weight": noise(r_q, D),
        f"{at}self_attn.q_a_layernorm.weight": noise(r_q),
        f"{at}self_attn.q_b_proj.weight": noise(heads * (nope + rope), r_q),
        f"{at}self_attn.kv_a_proj_with_mqa.weight": noise(r_kv + rope, D),
        f"{at}self_attn.kv_a_layernorm.weight": noise(r_kv),
        f"{at}self_attn.kv_b_proj.weight": noise(heads * (nope + value), r_kv),
        f"{at}self_attn.o_proj.weight": noise(D, heads * value),
        f"{at}input_layernorm.weight": noise(D, seed=1),
        f"{at}post_attention_layernorm.weight": noise(D, seed=2),
        f"{at}mlp.gate_proj.weight": noise(H, D),
        f"{at}mlp.up_proj.weight": noise(H, D, seed=1),
        f"{at}mlp.down_proj.weight": noise(D, H),
    }
    config = {
        "model_type": "deepseek_v3", "num_attention_heads": heads, "qk_nope_head_dim": nope, "qk_rope_head_dim": rope,
        "v_head_dim": value, "q_lora_rank": r_q, "kv_lora_rank": r_kv, "hidden_size": D, "num_hidden_layers": 1,
    }  # fmt: skip
    mla = weightprint.anatomy(write(tmp_path / "mla", t, config))
    with pytest.raises(weightprint.TensorNotFoundError, match="q_a"):
        mla.tensor(0, "q")
    x = noise(D, seed=7)

    def stored(name: str) -> Array:
        return t[f"{at}self_attn.{name}.weight"].astype(np.float64)

    for fold in (False, True):
        outer = t[f"{at}input_layernorm.weight"] * x if fold else x
        gains = [stored(f"{k}_a_layernorm") if fold else 1.0 for k in ("q", "kv")]
        q = stored("q_b_proj") @ (gains[0] * (stored("q_a_proj") @ outer))
        latent = stored("kv_a_proj_with_mqa") @ outer
        kv = (stored("kv_b_proj") @ (gains[1] * latent[:r_kv])).reshape(heads, nope + value)
        k = np.concatenate([kv[:, :nope], np.tile(latent[r_kv:], (heads, 1))], axis=1).ravel()
        v = kv[:, nope:].ravel()
        for role, truth in (("q", q), ("k", k), ("v", v)):
            got = mla.tensor(0, role, products=True, fold_norms=fold)
            np.testing.assert_allclose(got @ x, truth, rtol=2e-4, atol=1e-4)
            part = mla.tensor(0, role, products=True, fold_norms=fold, rows=slice(2, 9), columns=slice(1, 4))
            np.testing.assert_allclose(part, got[2:9, 1:4], rtol=1e-5, atol=1e-6)


def test_a_tied_head_is_the_embedding_and_counts_once(phi: weightprint.Anatomy) -> None:
    np.testing.assert_array_equal(phi.tensor(None, "head"), phi.tensor(None, "embedding"))
    assert phi[Place("decoder", None, "head")].tied
    assert sum(phi.parameters().values()) == sum(w.numel for w in phi.weights.values())


def test_slices_are_the_tensor_in_runs(phi: weightprint.Anatomy) -> None:
    place = Place("decoder", 0, "up")
    runs = list(phi.slices(place, values=5 * D))
    assert [start for start, _ in runs] == [0, 5, 10, 15, 20]
    np.testing.assert_array_equal(np.concatenate([x for _, x in runs]), phi.tensor(0, "up"))


def test_what_is_not_there_is_said(phi: weightprint.Anatomy) -> None:
    with pytest.raises(weightprint.TensorNotFoundError, match=r"decoder\.0\.router.*block 0 of decoder has.*up"):
        phi.tensor(0, "router")
    with pytest.raises(weightprint.TensorNotFoundError, match=r"blocks 0\.\.1"):
        phi.tensor(7, "up")
    with pytest.raises(weightprint.UsageError, match="step"):
        phi.tensor(0, "up", rows=slice(0, 9, 2))
    with pytest.raises(weightprint.UsageError, match="only a matrix has columns"):
        phi.tensor(0, "attn_norm", columns=slice(0, 2))
    with pytest.raises(AttributeError):
        phi.family = "x"  # type: ignore[misc]


def test_it_pickles_and_serialises(phi: weightprint.Anatomy) -> None:
    again = pickle.loads(pickle.dumps(phi))
    assert again.assignments == phi.assignments
    told = json.loads(json.dumps(phi.to_dict()))
    assert told["family"] == "phi3"
    assert {row["role"] for row in told["tensors"] if row["block"] == 0} >= {"q", "k", "v", "gate", "up", "down", "o"}
    assert "phi3" in repr(phi)


def test_an_expert_is_named(tmp_path: Path) -> None:
    at = "model.layers.0."
    t = {"model.embed_tokens.weight": noise(50, D), "model.norm.weight": noise(D), "lm_head.weight": noise(50, D)}
    t |= {f"{at}self_attn.{p}_proj.weight": noise(D, D) for p in "qkvo"}
    t |= {f"{at}{n}.weight": noise(D) for n in ("input_layernorm", "post_attention_layernorm")}
    t[f"{at}block_sparse_moe.gate.weight"] = noise(3, D)
    for e in range(3):
        for w, shape in (("w1", (H, D)), ("w2", (D, H)), ("w3", (H, D))):
            t[f"{at}block_sparse_moe.experts.{e}.{w}.weight"] = noise(*shape, seed=e)
    mixtral = weightprint.anatomy(write(tmp_path / "moe", t, {"model_type": "mixtral", "num_attention_heads": 4}))
    np.testing.assert_array_equal(mixtral.tensor(0, "up", expert=2), noise(H, D, seed=2))
    with pytest.raises(weightprint.TensorNotFoundError, match="3 experts have one"):
        mixtral.tensor(0, "up")


@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 5))
def test_rows_are_regular_runs(start: int, length: int, count: int) -> None:
    stride = length + start
    rows = Rows(start, length, stride, count)
    expected = [start + stride * c + i for c in range(count) for i in range(length)]
    assert rows.indices().tolist() == expected
    assert rows.n == len(expected)
    assert not rows.contiguous or expected == list(range(start, start + rows.n))


def test_rotary_pairs_come_out_as_halves() -> None:
    stored = Rows(8, 8, 8, 2, pairs=8).indices()
    assert stored.tolist() == [8, 10, 12, 14, 9, 11, 13, 15, 16, 18, 20, 22, 17, 19, 21, 23]
