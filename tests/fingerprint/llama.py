"""A small Llama drawn at random, with structure that a test can move: units, heads, gains, signs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

D, H, HEADS, SIZE, LAYERS, VOCABULARY = 64, 256, 8, 8, 3, 96
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": D,
    "intermediate_size": H,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS // 2,
    "head_dim": SIZE,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCABULARY,
}
FFN = ("gate_proj", "up_proj", "down_proj")


def draw(seed, layers=LAYERS):
    """Weights by name, float32; a unit's gate, up and down are tied to each other as training ties them."""
    rng = np.random.default_rng(seed)
    out = {"model.embed_tokens.weight": rng.normal(0, 0.05, (VOCABULARY, D))}
    for i in range(layers):
        at = f"model.layers.{i}."
        out[f"{at}input_layernorm.weight"] = rng.normal(1, 0.2, D)
        for name, rows in (("q", D), ("k", D // 2), ("v", D // 2)):
            out[f"{at}self_attn.{name}_proj.weight"] = rng.normal(0, 0.1, (rows, D))
        out[f"{at}self_attn.o_proj.weight"] = rng.normal(0, 0.1, (D, D))
        out[f"{at}post_attention_layernorm.weight"] = rng.normal(1, 0.2, D)
        common, how_much = rng.normal(0, 0.1, (H, D)), rng.uniform(0, 1.5, (3, H, 1))
        gate, up, down = (rng.normal(0, 0.1, (H, D)) + part * common for part in how_much)
        for name, x in zip(FFN, (gate, up, down.T), strict=True):
            out[f"{at}mlp.{name}.weight"] = x
    out["model.norm.weight"] = rng.normal(1, 0.2, D)
    out["lm_head.weight"] = rng.normal(0, 0.05, (VOCABULARY, D))
    return {name: x.astype(np.float32) for name, x in out.items()}


def noised(weights, share, seed=5):
    """Every matrix moved by a random step of this share of its length, as training moves it."""
    rng = np.random.default_rng(seed)
    return {
        n: (x + share * x.std() * rng.standard_normal(x.shape)).astype(np.float32) if x.ndim == 2 else x
        for n, x in weights.items()
    }


def of_units(weights, change):
    """``change(i, gate, up, down)`` of every block's units, rows of units."""
    out = dict(weights)
    for i in range(LAYERS):
        names = [f"model.layers.{i}.mlp.{name}.weight" for name in FFN]
        gate, up, down = (weights[name] for name in names)
        for name, x in zip(names, change(i, gate, up, down.T), strict=True):
            out[name] = np.ascontiguousarray(x.T if "down" in name else x, np.float32)
    return out


def permuted(weights, seed=6):
    """Units of every block in another order."""
    orders = [np.random.default_rng([seed, i]).permutation(H) for i in range(LAYERS)]
    return of_units(weights, lambda i, *parts: [x[orders[i]] for x in parts]), orders


def write(folder: Path, weights, save, dtype=np.float32, config=CONFIG):
    """A model folder; its path as text."""
    path = save(f"{folder}/model.safetensors", {n: x.astype(dtype) for n, x in weights.items()})
    (path.parent / "config.json").write_text(json.dumps(config))
    return str(path.parent)
