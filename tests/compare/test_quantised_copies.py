"""A checkpoint beside its own quantised release: the same values, and nothing else is said to have been done to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint
from gguf_files import LLAMA, write_gguf
from makers import ENCODINGS
from safetensors.numpy import save_file
from synthetic import Arrays, child, decoder
from weightprint.quant.weights import Weights

from tests.conftest import encode

gguf = pytest.importorskip("gguf")
quants = pytest.importorskip("gguf.quants")

BF16 = np.dtype(ml_dtypes.bfloat16)
_HEADS = 8
_NAMES = {theirs: ours for ours, theirs in LLAMA.items()}


def folder(at: Path, tensors: Mapping[str, Any], family: str = "llama") -> Path:
    """As Hugging Face's Llama stores it, or another family of the same names."""
    at.mkdir()
    size = tensors["model.norm.weight"].size if tensors else 64
    config = {"model_type": family, "num_attention_heads": _HEADS, "hidden_size": size}
    (at / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors), at / "model.safetensors")
    return at


def release(at: Path, tensors: Arrays, kind: str) -> Path:
    """As llama.cpp's converter writes it: its names, rows of q and k by rotary pairs, matrices in blocks."""
    number = gguf.GGMLQuantizationType[kind]
    out: dict[str, Any] = {}
    for name, x in tensors.items():
        words = name.split(".")
        if words[1] == "layers":
            to = f"blk.{words[2]}.{_NAMES['.'.join(words[3:-1])]}.weight"
        else:
            to = {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[words[1]]
        if "q_proj" in name or "k_proj" in name:
            x = np.ascontiguousarray(x.reshape(_HEADS, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape))
        out[to] = x if x.ndim == 1 else (q6_k(x) if kind == "Q6_K" else quants.quantize(x, number), number)
    sizes = {
        "block_count": 4,
        "embedding_length": tensors["model.norm.weight"].size,
        "head_count": _HEADS,
        "feed_forward_length": len(tensors["model.layers.0.mlp.up_proj.weight"]),
    }
    return write_gguf(at, out, sizes=sizes)


def q6_k(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Q6_K as ggml lays it out: 256 values with 16 scales of 8 bits under one in half precision; bytes (rows, …)."""
    groups = x.reshape(-1, 16, 16).astype(np.float64)
    scales = np.abs(groups).max(-1) / 31
    d = (scales.max(-1) / 127).astype(np.float16)
    eight = np.rint(scales / np.maximum(d[:, None].astype(np.float64), 1e-30)).clip(-128, 127)
    step = (d[:, None].astype(np.float64) * eight)[..., None]
    codes = (np.rint(groups / np.where(step > 0, step, 1)).clip(-32, 31) + 32).astype(np.uint8)
    q = codes.reshape(-1, 2, 4, 32)  # halves of a block, and which of its four runs of 32
    low = np.concatenate([(q[:, :, 0] & 15) | (q[:, :, 2] & 15) << 4, (q[:, :, 1] & 15) | (q[:, :, 3] & 15) << 4], -1)
    high = sum((q[:, :, k] >> 4) << 2 * k for k in range(4))
    parts = [low.reshape(len(q), 128), high.reshape(len(q), 64), eight.astype(np.int8).view(np.uint8)]
    blocks = np.concatenate([*parts, d.view(np.uint8).reshape(-1, 2)], axis=1)
    return np.ascontiguousarray(blocks.reshape(len(x), -1))


def done(result: Any) -> dict[str, Any]:
    return {o.name: o.parameters for o in result.operations}


@pytest.mark.slow_but_first
@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "MXFP4"])
def test_the_quantised_release_is_re_encoded(tmp_path: Path, kind: str) -> None:
    a = decoder(0)
    result = weightprint.compare(folder(tmp_path / "a", a), release(tmp_path / "b.gguf", a, kind))
    assert result.verdict == "re_encoded"
    assert result.result.complete
    assert result.result.direction.later == "b"
    assert set(done(result)) == {"rename", "quantise"}
    what = done(result)["quantise"]
    assert (what["method"], what["scheme"], what["bits"], what["group"]) == (
        kind,
        "gguf",
        int(kind.strip("MXFQP_")[0]),
        32,
    )
    x = a["model.layers.1.mlp.up_proj.weight"]
    off = quants.dequantize(quants.quantize(x, gguf.GGMLQuantizationType[kind]), gguf.GGMLQuantizationType[kind]) - x
    assert what["error"] == pytest.approx(np.linalg.norm(off) / np.linalg.norm(x), rel=0.2)


def test_from_the_release_back_to_the_original(tmp_path: Path) -> None:
    a = decoder(0)
    result = weightprint.compare(release(tmp_path / "a.gguf", a, "Q4_0"), folder(tmp_path / "b", a))
    assert result.verdict == "re_encoded"
    assert result.result.direction.later == "a"
    assert set(done(result)) == {"rename", "quantise"}


def test_a_decoded_release_lost_nothing_and_has_no_direction(tmp_path: Path) -> None:
    packed = release(tmp_path / "b.gguf", decoder(0), "Q5_1")
    read = weightprint.anatomy(packed)
    decoded = {}
    for i in range(4):
        for theirs, ours in (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")):
            decoded[f"model.layers.{i}.{theirs}.weight"] = read.tensor(i, ours)
        for part in ("q", "k", "v", "o"):
            decoded[f"model.layers.{i}.self_attn.{part}_proj.weight"] = read.tensor(i, part)
        for part in ("gate", "up", "down"):
            decoded[f"model.layers.{i}.mlp.{part}_proj.weight"] = read.tensor(i, part)
    decoded["model.embed_tokens.weight"] = read.tensor(None, "embedding")
    decoded["model.norm.weight"] = read.tensor(None, "final_norm")
    result = weightprint.compare(folder(tmp_path / "a", decoded), packed)
    assert result.verdict == "re_encoded"
    assert result.result.direction.later is None
    (quantise,) = (o for o in result.operations if o.name == "quantise")
    assert quantise.parameters["error"] == 0
    assert quantise.confidence == 0.5


@pytest.mark.slow_but_first
@pytest.mark.parametrize("kept", [0.9999, 0.9])
def test_a_model_that_was_changed_first_is_no_re_encoding(tmp_path: Path, kept: float) -> None:
    a = decoder(0)
    result = weightprint.compare(folder(tmp_path / "a", a), release(tmp_path / "b.gguf", child(a, kept), "Q4_0"))
    assert result.verdict == "shared_origin"
    assert done(result)["quantise"]["error"] == pytest.approx(0.14, rel=0.1)  # of four bits, and not of the change
    assert "unstructured_pruning" not in done(result)
    assert ("fine_tune" in done(result) or "continued_pretraining" in done(result)) == (kept < 0.99)


def test_a_strangers_release_is_a_stranger(tmp_path: Path) -> None:
    a, b = decoder(0), decoder(1)
    result = weightprint.compare(folder(tmp_path / "a", a), release(tmp_path / "b.gguf", b, "Q4_0"))
    assert result.verdict in ("no_evidence", "inconclusive")
    same = next(e for e in result.evidence if e.test == "same_values")
    assert (same.details["n_same"], same.details["n_rounded"]) == (0, 0)


@pytest.mark.parametrize(("kept", "status"), [(1.0, {"re_encoded", "same"}), (0.999, {"changed"})])
def test_diff_tells_rounding_from_change(tmp_path: Path, kept: float, status: set[str]) -> None:
    a = decoder(0)
    ours, theirs = folder(tmp_path / "a", a), release(tmp_path / "b.gguf", child(a, kept) if kept < 1 else a, "Q4_0")
    for one, two in ((ours, theirs), (theirs, ours)):
        assert set(weightprint.diff(one, two).table["status"]) == status


def test_a_turned_tensor_in_codes_is_changed(tmp_path: Path) -> None:
    """Groups of a transposed partner lie across its rows: nothing is said of them, and nothing breaks."""
    x = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    save_file({"w": np.ascontiguousarray(x.T)}, tmp_path / "a.safetensors")
    number = gguf.GGMLQuantizationType["Q8_0"]
    write_gguf(tmp_path / "b.gguf", {"w": (quants.quantize(x, number), number)})
    both = tmp_path / "a.safetensors", tmp_path / "b.gguf"
    for one, two in (both, both[::-1]):
        assert list(weightprint.diff(one, two).table["status"]) == ["changed"]
        assert weightprint.compare(one, two).verdict != "re_encoded"


def absmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Four bits and groups of 16 or 32, decoded again."""
    groups = x.reshape(len(x), -1, 32 if x.shape[1] % 32 == 0 else 16)
    step = np.abs(groups).max(-1, keepdims=True) / 7
    return (np.rint(groups / step) * step).reshape(x.shape)


def test_zeros_of_a_coarse_grid_are_no_pruning(tmp_path: Path) -> None:
    """Stored decoded, and more matrices than are looked at closely."""
    a = {n: x.astype(BF16) for n, x in decoder(0, layers=8).items()}
    b = {n: absmax(x.astype(np.float32)).astype(BF16) if x.ndim == 2 else x for n, x in a.items()}
    result = weightprint.compare(folder(tmp_path / "a", a), folder(tmp_path / "b", b))
    assert result.verdict == "shared_origin"
    assert set(done(result)) == {"quantise"}
    assert done(result)["quantise"].items() >= {"bits": 4}.items()


@pytest.mark.slow_but_first
@pytest.mark.parametrize("turned", [False, True])
def test_decoded_codes_rounded_to_bf16_are_not_the_original(tmp_path: Path, turned: bool) -> None:
    """FP8 in blocks, and its values in bfloat16: the second side holds no bit that the first one lost."""
    a, codes, decoded = decoder(0), {}, {}
    for name, x in a.items():
        if x.ndim == 2 and ".layers." in name:
            scale = np.float32(np.abs(x[:, :128]).max() / 448)
            codes[name] = (x / scale).astype(ml_dtypes.float8_e4m3fn)
            codes[f"{name}_scale_inv"] = np.full((-(-len(x) // 128), -(-x.shape[1] // 128)), scale)
            decoded[name] = (codes[name].astype(np.float32) * scale).astype(BF16)
        else:
            codes[name] = decoded[name] = x.astype(BF16)
    both = folder(tmp_path / "codes", codes), folder(tmp_path / "decoded", decoded)
    result = weightprint.compare(*(both[::-1] if turned else both))
    assert result.verdict == "re_encoded"
    assert result.result.direction.later is None


@pytest.mark.slow
def test_gains_kept_as_distances_from_one(tmp_path: Path) -> None:
    """Gemma's norms add 1 to what is stored; its releases in GGUF store what acts."""
    acts = {n: x.astype(BF16) for n, x in decoder(0, d=256).items()}
    stored = {n: (x.astype(np.float32) - 1) if x.ndim == 1 else x for n, x in acts.items()}
    both = folder(tmp_path / "a", stored, "gemma"), folder(tmp_path / "b", acts)
    result = weightprint.compare(*both)
    assert (result.a.family, result.b.family) == ("gemma", "llama")
    assert result.verdict == "re_encoded"
    assert result.result.complete
    same = next(e for e in result.evidence if e.test == "same_values")
    assert same.details["n_same"] + same.details["n_simple"] == sum(x.ndim == 1 for x in acts.values())
    assert weightprint.compare(both[0], folder(tmp_path / "c", acts, "gemma")).verdict == "shared_origin"


@pytest.mark.slow_but_first
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("how", ["I4 in groups", "MXFP4"])
def test_from_one_scheme_to_another(tmp_path: Path, kind: str, how: str) -> None:
    """Codes decoded and quantised again: the first one's values, rounded and nothing else, told in either order."""
    stored: dict[str, Any] = {}
    for name, x in decoder(0).items():
        stored |= ENCODINGS[how][0](name, x) if "_proj" in name else {name: x}
    hub = folder(tmp_path / "hub", {})
    (hub / "model.safetensors").write_bytes(encode(stored))
    with weightprint.open(hub) as opened:
        weights = Weights(opened)
        decoded = {name: weights.read(name) for name in weights}
    packed = release(tmp_path / "b.gguf", decoded, kind)
    for a, b in ((hub, packed), (packed, hub)):
        result = weightprint.compare(a, b)
        assert result.verdict == "re_encoded"
        assert set(done(result)) <= {"rename", "quantise"}
        assert set(weightprint.diff(a, b).counts) <= {"re_encoded", "same"}


@pytest.mark.slow
def test_two_levels_of_scales(tmp_path: Path) -> None:
    """Q6_K: the scale of 16 values is an integer times that of 256."""
    a = decoder(0, d=256, h=512)
    x = a["model.layers.0.mlp.up_proj.weight"]
    kind = gguf.GGMLQuantizationType["Q6_K"]
    off = quants.dequantize(q6_k(x), kind) - x
    assert np.linalg.norm(off) < 0.04 * np.linalg.norm(x)  # the writer above is right
    result = weightprint.compare(folder(tmp_path / "a", a), release(tmp_path / "b.gguf", a, "Q6_K"))
    assert result.verdict == "re_encoded"
    assert done(result)["quantise"].items() >= {"method": "Q6_K", "bits": 6, "group": 16}.items()
    result = weightprint.compare(tmp_path / "a", release(tmp_path / "c.gguf", child(a, 0.9999), "Q6_K"))
    assert result.verdict == "shared_origin"


def test_changed_and_then_quantised_values_stored_decoded(tmp_path: Path) -> None:
    """Half of the values pruned, or more noise than the steps: each is named, and the zeros of the grid are not."""
    a = {n: x.astype(BF16).astype(np.float32) for n, x in decoder(0, layers=8).items()}
    rng = np.random.default_rng(5)
    pruned = {n: np.where(rng.random(x.shape) < 0.5, x, 0) if x.ndim == 2 else x for n, x in a.items()}
    ours = folder(tmp_path / "a", {n: x.astype(BF16) for n, x in a.items()})
    for name, b, more in (
        ("pruned", pruned, {"unstructured_pruning"}),
        ("trained", child(a, 0.9), {"continued_pretraining"}),
    ):
        stored = {n: (absmax(x) if x.ndim == 2 else x).astype(BF16) for n, x in b.items()}
        result = weightprint.compare(ours, folder(tmp_path / name, stored))
        assert result.verdict == "shared_origin", name
        assert set(done(result)) == {"quantise", *more}, name
        assert done(result)["quantise"].items() >= {"bits": 4}.items(), name
