"""Small models after public reports, and the ways in which tensors are stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

BF16, F8, E8M0, F4 = (
    np.dtype(kind)
    for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e8m0fnu, ml_dtypes.float4_e2m1fn)
)


def matrix(rng: np.random.Generator, out: int, inn: int, std: float = 0.03) -> Array:
    """A decaying spectrum under noise, rows of unequal size; float32."""
    rank = max(4, min(out, inn) // 4)
    left, right = rng.standard_normal((out, rank)), rng.standard_normal((rank, inn))
    w = left * (np.arange(1, rank + 1) ** -0.7) @ right + 0.4 * rng.standard_normal((out, inn))
    w *= np.exp(0.25 * rng.standard_normal((out, 1)))
    return (w * (std / w.std())).astype(np.float32)


def llama(
    seed: int = 1, d: int = 128, layers: int = 2, ffn: int = 256, vocab: int = 512, *, tied: bool = False
) -> Arrays:
    """A decoder under Llama's names, values of bfloat16 in float32; 4 heads, 2 for keys and values."""
    rng = np.random.default_rng(seed)

    def gain() -> Array:
        return np.exp(0.2 * rng.standard_normal(d)).astype(np.float32)

    w = {"model.embed_tokens.weight": matrix(rng, vocab, d, 0.02)}
    for b in range(layers):
        p = f"model.layers.{b}."
        w[p + "input_layernorm.weight"] = gain()
        for role, rows in (("q", d), ("k", d // 2), ("v", d // 2), ("o", d)):
            w[p + f"self_attn.{role}_proj.weight"] = matrix(rng, rows, d)
        w[p + "post_attention_layernorm.weight"] = gain()
        w[p + "mlp.gate_proj.weight"], w[p + "mlp.up_proj.weight"] = matrix(rng, ffn, d), matrix(rng, ffn, d)
        w[p + "mlp.down_proj.weight"] = matrix(rng, d, ffn)
    w["model.norm.weight"] = gain()
    if not tied:
        w["lm_head.weight"] = matrix(rng, vocab, d, 0.02)
    return {name: x.astype(BF16).astype(np.float32) for name, x in w.items()}


def folder(at: Path, encode: Callable[..., bytes], tensors: Mapping[str, Array], **config: Any) -> Path:
    """A model as it is downloaded: one file and its config.json."""
    at.mkdir(parents=True, exist_ok=True)
    tied = "lm_head.weight" not in tensors
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 128, "tie_word_embeddings": tied}
    (at / "config.json").write_text(json.dumps({"model_type": "llama"} | sizes | config))
    (at / "model.safetensors").write_bytes(encode(tensors))
    return at


# Ways to store one matrix (out, in): name → the tensors that a file then has


def plain(kind: Any) -> Callable[[str, Array], Arrays]:
    """A floating-point type."""
    return lambda name, x: {name: x.astype(kind)}


def fp8_rows(name: str, x: Array) -> Arrays:
    """FP8 and a scale per row."""
    scale = np.abs(x).max(1, keepdims=True) / 448
    return {name: (x / scale).astype(F8), f"{name}_scale": scale.astype(np.float32)}


def int8_rows(name: str, x: Array) -> Arrays:
    """Eight-bit integers and a scale per row."""
    scale = (np.abs(x).max(1, keepdims=True) / 127).astype(np.float32)
    return {name: np.rint(x / scale).astype(np.int8), f"{name}_scale": scale}


def mxfp8(name: str, x: Array) -> Arrays:
    """FP8 under a power of two per 32."""
    return _under_powers(name, x, 8, 448, F8)


def mxfp4(name: str, x: Array) -> Arrays:
    """Codes of dtype F4 under a power of two per 32."""
    return _under_powers(name, x, 2, 6, F4)


def _under_powers(name: str, x: Array, top: int, largest: float, kind: Any) -> Arrays:
    groups = x.reshape(len(x), -1, 32)
    power = np.exp2(np.floor(np.log2(np.abs(groups).max(-1))) - top)
    codes = np.clip(groups / power[..., None], -largest, largest).reshape(x.shape).astype(kind)
    return {name: codes, f"{name}_scale": power.astype(E8M0)}


def int4_groups(name: str, x: Array) -> Arrays:
    """compressed-tensors: four bits in words, a scale per 32."""
    codes, scale = int4(x)
    grouped = (codes.reshape(len(x), -1, 8) + 8).astype(np.uint32)
    words = (grouped << (4 * np.arange(8, dtype=np.uint32))).sum(-1).astype(np.uint32)
    return {
        f"{name}_packed": words.view(np.int32),
        f"{name}_scale": scale.astype(BF16),
        f"{name}_shape": np.array(x.shape, np.int64),
    }


def int4(x: Array) -> tuple[Array, Array]:
    """Codes -8 … 7 (out, in) and scales of bfloat16 per 32 of a row, float32 (out, in / 32)."""
    groups = x.reshape(len(x), -1, 32)
    scale = (np.abs(groups).max(-1) / 7).astype(BF16).astype(np.float32)
    return np.clip(np.rint(groups / scale[..., None]), -8, 7).reshape(x.shape).astype(np.int8), scale


#: Each with its bits of precision.
ENCODINGS: dict[str, tuple[Callable[[str, Array], Arrays], int]] = {
    "F64": (plain(np.float64), 24),
    "F32": (plain(np.float32), 24),
    "F16": (plain(np.float16), 11),
    "BF16": (plain(BF16), 8),
    "F8 without a scale": (plain(F8), 4),
    "F8 per row": (fp8_rows, 4),
    "I8 per row": (int8_rows, 7),
    "MXFP8": (mxfp8, 4),
    "MXFP4": (mxfp4, 2),
    "I4 in groups": (int4_groups, 3),
}
