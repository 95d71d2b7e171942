"""Operations of the benchmark whose numbers can be recomputed: merges, noise, zeros, lattices, pooled heads."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
pytest.importorskip("jax")
import_module("benches.lineage.zoo.model_folder")
from tiny_models import TOKENS, logits, tiny  # noqa: E402  (after the skip)

del sys.path[:2]

from benches.lineage.zoo.model_folder import ZooModel  # noqa: E402
from benches.lineage.zoo.operations.table import OPERATIONS  # noqa: E402

UP, Q = "model.layers.1.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight"


def parameters(made: ZooModel) -> dict[str, Any]:
    return dict(made.truth.operations[-1]["parameters"])


def fine_tunes(base: ZooModel, sd: float = 0.02) -> list[ZooModel]:
    """Two models near a base, under names of their own."""
    out = []
    for seed, name in enumerate("xy"):
        rng = np.random.default_rng([seed, 8])
        near = {n: (v + sd * rng.standard_normal(v.shape)).astype(np.float32) for n, v in base.tensors.items()}
        out.append(ZooModel(near, base.config, replace(base.truth, name=name, parents=(base.truth.name,))))
    return out


def test_linear_merges_are_weighted_sums() -> None:
    a, b, c = (tiny("llama", seed, name=name) for seed, name in enumerate("abc"))
    child = OPERATIONS["linear_merge"]([a, b, c], 0, weights=[0.5, 0.3, 0.2])
    assert child.truth.roots == ("a", "b", "c")
    for name, x in child.tensors.items():
        expected = 0.5 * a.tensors[name] + 0.3 * b.tensors[name] + 0.2 * c.tensors[name]
        np.testing.assert_allclose(x, expected, atol=1e-6)
    assert parameters(OPERATIONS["linear_merge"]([a, b], 0))["weights"] == [0.5, 0.5]
    with pytest.raises(ValueError, match="3 weights"):
        OPERATIONS["linear_merge"]([a, b, c], 0, weights=[1.0])


def test_slerp_turns_by_its_share_of_the_angle() -> None:
    a, b = tiny("llama", 1, name="a"), tiny("llama", 2, name="b")
    child = OPERATIONS["slerp_merge"]([a, b], 0, first=0.2, last=0.8)
    ts = parameters(child)["t"]
    np.testing.assert_allclose(ts, [0.2, 0.4, 0.6, 0.8])

    def angle(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
        return float(np.arccos((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)))

    for layer, t in enumerate(ts):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        x, y, z = (m.tensors[name].astype(np.float64) for m in (a, b, child))
        spread = [v * np.linalg.norm(x) / np.linalg.norm(v) for v in (x, y)]
        mine = np.sin((1 - t) * angle(x, y)) * x + np.sin(t * angle(x, y)) * y
        np.testing.assert_allclose(z, mine / np.sin(angle(x, y)), atol=1e-6)
        assert angle(*spread) == pytest.approx(angle(x, y))
    same = OPERATIONS["slerp_merge"]([a, a], 0)
    np.testing.assert_allclose(same.tensors[UP], a.tensors[UP], atol=1e-7)


def test_task_vectors_ties_and_dare() -> None:
    base = tiny("llama")
    x, y = fine_tunes(base)
    dx, dy = ((m.tensors[UP] - base.tensors[UP]).astype(np.float64) for m in (x, y))
    task = OPERATIONS["task_arithmetic"]([base, x, y], 0, weights=[0.8, 0.6])
    np.testing.assert_allclose(task.tensors[UP] - base.tensors[UP], 0.8 * dx + 0.6 * dy, atol=1e-6)
    assert task.truth.roots == ("p",)
    assert task.truth.parents == ("p", "x", "y")

    ties = OPERATIONS["ties_merge"]([base, x, y], 0, density=0.2).tensors[UP] - base.tensors[UP]
    tx, ty = (np.where(np.abs(d) >= np.quantile(np.abs(d), 0.8), d, 0) for d in (dx, dy))
    elected = np.sign(tx + ty)
    agree = [np.where(np.sign(t) == elected, t, 0) for t in (tx, ty)]
    expected = (agree[0] + agree[1]) / np.maximum((agree[0] != 0).astype(int) + (agree[1] != 0), 1)
    assert (np.abs(ties - expected) < 1e-6).mean() > 0.99  # the quantile may fall on the other side of one value

    dare = OPERATIONS["dare_merge"]([base, x, y], 0, drop=0.9, weights=[1.0, 0.0]).tensors[UP] - base.tensors[UP]
    kept = np.abs(dare) > 1e-9
    assert 0.05 < kept.mean() < 0.15
    np.testing.assert_allclose(dare[kept], 10 * dx[kept], atol=1e-5)


def test_noise_has_its_spread() -> None:
    parent = tiny("llama", d=64)
    flat = OPERATIONS["gaussian_noise"]([parent], 0)
    assert parameters(flat)["sd"] == 1 / 708
    for name in (UP, Q, "model.embed_tokens.weight"):
        assert (flat.tensors[name] - parent.tensors[name]).std() == pytest.approx(1 / 708, rel=0.06)
    relative = OPERATIONS["gaussian_noise"]([parent], 0, relative=0.3)
    for name in (UP, Q):
        difference = relative.tensors[name] - parent.tensors[name]
        assert difference.std() == pytest.approx(0.3 * parent.tensors[name].std(), rel=0.06)


def test_zeros_are_the_smallest() -> None:
    parent = tiny("llama")
    thin = OPERATIONS["unstructured_pruning"]([parent], 0, fraction=0.3).tensors[UP]
    x = parent.tensors[UP]
    assert (thin == 0).sum() == round(0.3 * x.size)
    assert np.abs(x[thin == 0]).max() <= np.abs(x[thin != 0]).min()
    np.testing.assert_array_equal(thin[thin != 0], x[thin != 0])
    half = OPERATIONS["semi_structured_pruning"]([parent], 0).tensors[UP]
    groups, old = half.reshape(-1, 4), np.abs(x.reshape(-1, 4))
    assert ((groups == 0).sum(1) == 2).all()
    assert (np.where(groups == 0, old, 0).max(1) <= np.where(groups != 0, old, np.inf).min(1)).all()
    turned = OPERATIONS["semi_structured_pruning"]([tiny("gpt2")], 0).tensors["h.0.mlp.c_fc.weight"]
    assert ((turned.reshape(4, 4, -1) == 0).sum(1) == 2).all()  # inputs run along the first axis there


def test_lora_has_its_rank_and_size() -> None:
    parent = tiny("llama", d=32)
    child = OPERATIONS["lora_merge"]([parent], 0, rank=3, size=0.2)
    assert parameters(child)["matrices"] == [
        f"model.layers.{i}.self_attn.{p}_proj.weight" for i in range(4) for p in "qv"
    ]
    update = (child.tensors[Q] - parent.tensors[Q]).astype(np.float64)
    singular = np.linalg.svd(update, compute_uv=False)
    assert singular[3] < 1e-5 * singular[2]
    assert np.linalg.norm(update) == pytest.approx(0.2 * np.linalg.norm(parent.tensors[Q]), rel=1e-4)
    np.testing.assert_array_equal(child.tensors[UP], parent.tensors[UP])


def test_pooled_and_pruned_heads() -> None:
    parent = tiny("llama", kv=4)
    child = OPERATIONS["heads_to_gqa"]([parent], 0)
    name = "model.layers.1.self_attn.k_proj.weight"
    old = parent.tensors[name].reshape(4, 4, 16)
    np.testing.assert_allclose(child.tensors[name].reshape(2, 4, 16)[1], (old[2] + old[3]) / 2, atol=1e-7)
    pruned = OPERATIONS["head_pruning"]([parent], 0, keep=0.5, by="random")
    kept = parameters(pruned)["kept_kv_heads"][1]
    np.testing.assert_array_equal(pruned.tensors[name].reshape(2, 4, 16), old[kept])
    # Heads that write nothing may go: the function stays.
    name = "model.layers.{}.self_attn.o_proj.weight"
    silent = dict(parent.tensors)
    for i in range(4):
        silent[name.format(i)] = silent[name.format(i)] * np.repeat([1, 0, 1, 0], 4).astype(np.float32)
    quiet = ZooModel(silent, parent.config, parent.truth)
    np.testing.assert_allclose(logits(OPERATIONS["head_pruning"]([quiet], 0)), logits(quiet), atol=1e-5)


def test_pruned_channels_are_the_ones_recorded() -> None:
    parent = tiny("qwen2")
    for by in ("norm", "random"):
        child = OPERATIONS["hidden_pruning"]([parent], 0, keep=0.5, by=by)
        kept = parameters(child)["kept_channels"]
        assert len(kept) == 8
        np.testing.assert_array_equal(child.tensors[UP], parent.tensors[UP][:, kept])
        name = "model.layers.1.mlp.down_proj.weight"
        np.testing.assert_array_equal(child.tensors[name], parent.tensors[name][kept])


def test_vocabularies() -> None:
    a, b = tiny("llama", 1, name="a"), tiny("llama", 2, name="b")
    name = "model.embed_tokens.weight"
    for operation in ("vocabulary_permutation", "vocabulary_pruning"):
        child = OPERATIONS[operation]([a], 0)
        rows = parameters(child)["rows"]
        np.testing.assert_array_equal(child.tensors[name], a.tensors[name][rows])
        np.testing.assert_array_equal(child.tensors["lm_head.weight"], a.tensors["lm_head.weight"][rows])
    rows = parameters(OPERATIONS["vocabulary_permutation"]([a], 0))["rows"]
    new_number = np.argsort(rows)
    np.testing.assert_allclose(
        logits(OPERATIONS["vocabulary_permutation"]([a], 0), new_number[TOKENS]), logits(a)[..., rows], atol=1e-6
    )
    stitched = OPERATIONS["vocabulary_stitching"]([a, b], 0, share=0.3)
    second = parameters(stitched)["rows_of_second"]
    assert len(second) == 12
    for row in range(40):
        np.testing.assert_array_equal(stitched.tensors[name][row], (b if row in second else a).tensors[name][row])
    replaced = OPERATIONS["embedding_replaced"]([a, b], 0)
    np.testing.assert_array_equal(replaced.tensors[name], b.tensors[name])
    np.testing.assert_array_equal(replaced.tensors[UP], a.tensors[UP])
    assert replaced.truth.roots == ("a", "b")
    longer = OPERATIONS["vocabulary_extension"]([a], 0, factor=1.5)
    assert longer.tensors[name].shape == (60, 16)
    np.testing.assert_array_equal(longer.tensors[name][:40], a.tensors[name])


def test_a_decoy_stands_beside_the_model() -> None:
    a, b = tiny("llama", 1, name="a"), tiny("llama", 2, name="b", layers=6)
    drawn = OPERATIONS["decoy_stack"]([a], 0, depth=1.5)
    assert sum(n.startswith("draft.") and n.endswith("up_proj.weight") for n in drawn.tensors) == 6
    assert drawn.truth.roots == ("a",)
    real = OPERATIONS["decoy_stack"]([a, b], 0, first=True)
    np.testing.assert_array_equal(real.tensors[f"draft.{UP}"], b.tensors[UP])
    np.testing.assert_array_equal(real.tensors[UP], a.tensors[UP])
    assert next(iter(real.tensors)).startswith("draft.")
    assert real.truth.roots == ("a", "b")


def test_edits_keep_the_rest() -> None:
    qwen = tiny("qwen2")
    plain = OPERATIONS["drop_biases"]([qwen], 0)
    assert plain.truth.form == "llama"
    assert set(qwen.tensors) - set(plain.tensors) == {n for n in qwen.tensors if n.endswith(".bias")}
    gpt2 = tiny("gpt2")
    edited = OPERATIONS["layernorm_to_rmsnorm"]([OPERATIONS["learned_positions_to_rope"]([gpt2], 0)], 0)
    lost = {n for n in gpt2.tensors if n == "wpe.weight" or ("ln_" in n and n.endswith(".bias"))}
    assert set(gpt2.tensors) - set(edited.tensors) == lost
    assert all(np.array_equal(x, gpt2.tensors[n]) for n, x in edited.tensors.items())


def test_dense_from_experts() -> None:
    moe = tiny("moe")
    one, mean, all_ = (OPERATIONS["moe_to_dense"]([moe], 2, method=m) for m in ("one", "mean", "concatenation"))
    at = "model.layers.2.mlp"
    e = one.truth.operations[0]["parameters"]["experts"][0]
    np.testing.assert_array_equal(one.tensors[f"{at}.up_proj.weight"], moe.tensors[f"{at}.experts.{e}.up_proj.weight"])
    stack = np.stack([moe.tensors[f"{at}.experts.{k}.up_proj.weight"] for k in range(4)])
    np.testing.assert_allclose(mean.tensors[f"{at}.up_proj.weight"], stack.mean(0), atol=1e-6)
    np.testing.assert_array_equal(all_.tensors[f"{at}.up_proj.weight"], stack.reshape(-1, 16))
    uniform = {n: x * 0 if n.endswith("mlp.gate.weight") else x for n, x in moe.tensors.items()}
    everyone = ZooModel(uniform, {**moe.config, "num_experts_per_tok": 4}, moe.truth)
    np.testing.assert_allclose(logits(all_), logits(everyone), atol=1e-4)  # all experts, evenly, are their stack
    assert {row[4] for row in all_.truth.expert_map} == {0, 1, 2, 3}


def test_quantised_values_lie_on_their_lattice() -> None:
    parent = tiny("llama")
    name = "model.layers.1.mlp.up_proj.weight"
    x = parent.tensors[name]
    int8 = OPERATIONS["quantise"]([parent], 1, method="int8").tensors[name]
    steps = int8 / (np.abs(int8).max(1, keepdims=True) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert np.abs(int8 - x).max() <= np.abs(x).max() / 254 * 1.001
    int4 = OPERATIONS["quantise"]([parent], 1, method="int4", group=8).tensors[name].astype(np.float32)
    assert all(len(np.unique(int4[r, c : c + 8])) <= 16 for r in range(len(x)) for c in (0, 8))
    assert np.abs(int4 - x).max() < 0.1
    fp8 = OPERATIONS["quantise"]([parent], 1, method="fp8", block=8)
    scale = np.kron(fp8.tensors[f"{name}_scale_inv"], np.ones((8, 8)))
    np.testing.assert_allclose(fp8.tensors[name].astype(np.float32) * scale, x, rtol=0.07, atol=1e-3)
