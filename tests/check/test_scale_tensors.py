"""Faults of scales and initialisations in every spelling, and what of these kinds is sound."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import weightprint
from small_models import BLOCKS, CONFIG, FFN, WIDTH, fp8, gptq, llama, normal, put, said

MODULE = "model.layers.2.mlp.up_proj."


def int8(w=None):
    """INT8 per output, as compressed-tensors has it."""
    w = llama() if w is None else w
    for name in [name for name in w if "_proj" in name]:
        x = w[name]
        s = np.abs(x).max(1, keepdims=True) / 127
        w[name], w[name + "_scale"] = np.round(x / s).astype(np.int8), s.astype(np.float32)
    return w


def mlx(bits=4, group=32):
    """MLX's affine groups; every other group runs downwards, as its scales may be negative."""
    w = llama()
    for name in [name for name in w if "_proj" in name]:
        x = w[name].reshape(len(w[name]), -1, group)
        low, high = x.min(-1), x.max(-1)
        turned = np.add.outer(np.arange(low.shape[0]), np.arange(low.shape[1])) % 2 == 0
        bias, scale = np.where(turned, high, low), np.where(turned, -1, 1) * (high - low) / ((1 << bits) - 1)
        codes = np.clip(np.round((x - bias[..., None]) / scale[..., None]), 0, (1 << bits) - 1).astype(np.uint32)
        words = codes.reshape(len(x), -1, 32 // bits) << (bits * np.arange(32 // bits, dtype=np.uint32))
        w[name] = words.sum(-1).astype(np.uint32)
        stem = name.removesuffix("weight")
        w[stem + "scales"], w[stem + "biases"] = scale.astype(np.float16), bias.astype(np.float16)
    return w


MLX = {"quantization": {"group_size": 32, "bits": 4}}
#: Dialect → (tensors, config, end of the scale's name).
DIALECTS = {
    "fp8": (fp8, CONFIG, "weight_scale"),
    "int8": (int8, CONFIG, "weight_scale"),
    "gptq": (lambda: gptq(7), CONFIG, "scales"),
    "mlx": (mlx, CONFIG | MLX, "scales"),
}
#: Fault of one module's scales → (what is done, codes of which one is said).
FAULTS = {
    "missing": (lambda s: None, {"sibling_missing", "unreadable_quantisation"}),
    "zero": (np.zeros_like, {"scale_values"}),
    "negative": (lambda s: -np.abs(s), {"scale_values"}),
    "largest": (lambda s: np.full_like(s, np.finfo(s.dtype).max), {"scale_values"}),
    "one": (np.ones_like, {"scale_apart"}),
    "another's": (lambda s: (s.astype(np.float64) * 200).astype(s.dtype), {"scale_apart"}),
    "reciprocal": (lambda s: (1 / s.astype(np.float64)).astype(s.dtype), {"scale_apart"}),
    "infinite": (lambda s: np.full_like(s, np.inf), {"infinity"}),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_faults_of_one_scale(tmp_path, dialect, fault):
    if (dialect, fault) == ("mlx", "negative"):
        pytest.skip("a group may run downwards")
    make, config, end = DIALECTS[dialect]
    change, codes = FAULTS[fault]
    w = make()
    changed = change(w.pop(MODULE + end))
    if changed is not None:
        w[MODULE + end] = changed
    found = {f.code: f for f in weightprint.check(put(tmp_path / "m", w, config)).findings}
    assert codes & {code for code, f in found.items() if f.severity != "note"}, found
    assert any(MODULE[:-1] in f.message for f in found.values())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_sound_scales(tmp_path, dialect):
    make, config, _ = DIALECTS[dialect]
    report = weightprint.check(put(tmp_path / "m", make(), config))
    assert report.sound, report.findings


def test_scales_applied_twice_everywhere(tmp_path):
    w = {name: x * x if name.endswith("weight_scale") else x for name, x in fp8().items()}
    assert "out_of_scale" in {f.code for f in weightprint.check(put(tmp_path / "m", w)).findings}


def test_a_scale_turned(tmp_path):
    w = int8(llama() | {MODULE + "weight": normal(WIDTH, WIDTH)})
    for k in range(BLOCKS):  # square, so that one scale per input could be meant
        x = normal(WIDTH, WIDTH, seed=k)
        w[f"model.layers.{k}.mlp.up_proj.weight"] = np.round(x * 127 / 2).astype(np.int8)
        w[f"model.layers.{k}.mlp.up_proj.weight_scale"] = np.full((WIDTH, 1), 2 / 127 + k / 999, np.float32)
    w[MODULE + "weight_scale"] = w[MODULE + "weight_scale"].T.copy()
    (found,) = weightprint.check(put(tmp_path / "m", w, None), select=["scale_apart"]).findings
    assert "another shape" in found.message


def test_group_tables(tmp_path):
    w = gptq(7)
    assert not weightprint.check(put(tmp_path / "a", w), select=["group_index"]).findings
    w[MODULE + "g_idx"] = np.full(WIDTH, -1, np.int32)
    assert not weightprint.check(put(tmp_path / "b", w), select=["group_index"]).findings
    w[MODULE + "g_idx"] = np.arange(WIDTH, dtype=np.int32)
    (found,) = weightprint.check(put(tmp_path / "c", w), select=["group_index"]).findings
    assert "outside 0 … 0" in found.message


# Initialisations


def orthogonal(rng, m, n):
    q, _ = np.linalg.qr(rng.standard_normal((max(m, n), max(m, n))))
    return q[:m, :n]


INITIALISATIONS = {
    "normal": lambda rng, m, n, k: 0.02 * rng.standard_normal((m, n)),
    "truncated": lambda rng, m, n, k: 0.02 * np.clip(rng.standard_normal((m, n)), -2, 2),
    "Xavier": lambda rng, m, n, k: rng.uniform(-1, 1, (m, n)) * np.sqrt(6 / (m + n)),
    "Kaiming": lambda rng, m, n, k: rng.uniform(-1, 1, (m, n)) / np.sqrt(n),
    "smaller with depth": lambda rng, m, n, k: rng.standard_normal((m, n)) / np.sqrt(2 * n * (k + 1)),
    "orthogonal": lambda rng, m, n, k: orthogonal(rng, m, n),
}
_WIDE = said(hidden_size=64, intermediate_size=FFN, num_key_value_heads=4)


def wide(draw, gains=1.0, gain=None):
    """A Llama of width 64, its matrices drawn; `gain`: block → what its gains are instead."""
    rng, w = np.random.default_rng(3), {"model.embed_tokens.weight": normal(96, 64)}
    for k in range(BLOCKS):
        block, mine = f"model.layers.{k}.", (gain or {}).get(k, gains)
        for name, shape in (("q", (64, 64)), ("k", (64, 64)), ("v", (64, 64)), ("o", (64, 64))):
            w[f"{block}self_attn.{name}_proj.weight"] = draw(rng, *shape, k).astype(np.float32)
        for name, shape in (("gate", (FFN, 64)), ("up", (FFN, 64)), ("down", (64, FFN))):
            w[f"{block}mlp.{name}_proj.weight"] = draw(rng, *shape, k).astype(np.float32)
        for name in ("input", "post_attention"):
            w[f"{block}{name}_layernorm.weight"] = np.full(64, mine, np.float32)
    return w | {"model.norm.weight": np.full(64, gains, np.float32), "lm_head.weight": normal(96, 64, seed=1)}


@pytest.mark.parametrize("gains", [1.0, 0.0])
@pytest.mark.parametrize("name", INITIALISATIONS)
def test_fresh_initialisations(tmp_path, name, gains):
    folder = put(tmp_path / "m", wide(INITIALISATIONS[name], gains), _WIDE)
    assert "never_trained" in {f.code for f in weightprint.check(folder).findings}


def trained(rng, m, n, k):
    """Draws, and a few directions that stand out."""
    return 0.02 * (rng.standard_normal((m, n)) + rng.standard_normal((m, 2)) @ rng.standard_normal((2, n)))


def test_folded_gains_are_no_sign(tmp_path):
    folder = put(tmp_path / "m", wide(trained), _WIDE)
    assert "never_trained" not in {f.code for f in weightprint.check(folder).findings}


def test_one_block_was_not_trained(tmp_path):
    def draw(rng, m, n, k):
        return INITIALISATIONS["normal"](rng, m, n, k) if k == 2 else trained(rng, m, n, k)

    w = {n: x.astype(ml_dtypes.bfloat16) for n, x in wide(draw, 1.25, {2: 1.0}).items()}
    folder = put(tmp_path / "m", w, _WIDE)
    (found,) = weightprint.check(folder, select=["never_trained"]).findings
    assert "block 2" in found.message
