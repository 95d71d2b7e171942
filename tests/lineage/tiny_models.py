"""Tiny random models of every form, and a forward pass of them all, for the tests of the operations.

Written without the code under test: straight from the checkpoint's own names, in float64 numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benches.lineage.zoo.model_folder import Truth, ZooModel

Array = np.ndarray[Any, Any]
TOKENS = np.random.default_rng(5).integers(0, 40, (2, 11))


def tiny(form: str, seed: int = 0, *, layers: int = 4, d: int = 16, kv: int = 2, name: str = "p") -> ZooModel:
    """A random model of a form with nothing at its default: gains, offsets and biases are random too."""
    rng = np.random.default_rng([seed, 1])
    heads, h, vocabulary = 4, 24, 40

    def x(*shape: int) -> Array:
        return (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)

    def gain() -> Array:
        return (rng.normal(0 if form == "gemma" else 1, 0.3, d)).astype(np.float32)

    out: dict[str, Array] = {}
    if form == "gpt2":
        out |= {"wte.weight": x(vocabulary, d), "wpe.weight": x(32, d)}
        for i in range(layers):
            for part, shape in (
                ("attn.c_attn", (d, 3 * d)), ("attn.c_proj", (d, d)), ("mlp.c_fc", (d, h)), ("mlp.c_proj", (h, d)),
            ):  # fmt: skip
                out |= {f"h.{i}.{part}.weight": x(*shape), f"h.{i}.{part}.bias": x(shape[1])}
            for norm in ("ln_1", "ln_2"):
                out |= {f"h.{i}.{norm}.weight": gain(), f"h.{i}.{norm}.bias": x(d)}
        out |= {"ln_f.weight": gain(), "ln_f.bias": x(d)}
        config: dict[str, Any] = {"model_type": "gpt2", "n_embd": d, "n_layer": layers, "n_head": heads, "n_inner": h}
        return ZooModel(out, config | {"vocab_size": vocabulary}, Truth(name, "root", form, (name,), total_tokens=7))
    head = d // heads
    out["model.embed_tokens.weight"] = x(vocabulary, d)
    for i in range(layers):
        at = f"model.layers.{i}"
        out[f"{at}.input_layernorm.weight"] = gain()
        for part, n in (("q", heads), ("k", kv), ("v", kv)):
            out[f"{at}.self_attn.{part}_proj.weight"] = x(n * head, d)
            if form == "qwen2":
                out[f"{at}.self_attn.{part}_proj.bias"] = x(n * head)
        out[f"{at}.self_attn.o_proj.weight"] = x(d, heads * head)
        out[f"{at}.post_attention_layernorm.weight"] = gain()
        if form == "moe":
            out[f"{at}.mlp.gate.weight"] = x(4, d)
        for mlp in [f"{at}.mlp.experts.{e}" for e in range(4)] if form == "moe" else [f"{at}.mlp"]:
            out |= {f"{mlp}.gate_proj.weight": x(h, d), f"{mlp}.up_proj.weight": x(h, d)}
            out[f"{mlp}.down_proj.weight"] = x(d, h)
    out["model.norm.weight"] = gain()
    if form != "gemma":
        out["lm_head.weight"] = x(vocabulary, d)
    config = {
        "model_type": {"moe": "deepseek"}.get(form, form), "hidden_size": d, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "intermediate_size": h, "vocab_size": vocabulary,
        "tie_word_embeddings": form == "gemma", "rope_theta": 10000.0,
        "rms_norm_eps": 1e-12,  # an eps is not scale-free: widening would change the function by as much
    }  # fmt: skip
    if form == "moe":
        config |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": h, "norm_topk_prob": True}
    return ZooModel(out, config, Truth(name, "root", form, (name,), total_tokens=7))


def logits(model: ZooModel, tokens: Array = TOKENS) -> Array:
    """A forward pass in float64, straight from the checkpoint's own names. Written without the code under test."""
    t = {name: np.asarray(v, np.float64) for name, v in model.tensors.items()}
    return _gpt2(t, model.config, tokens) if "wte.weight" in t else _llama(t, model.config, tokens)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _attend(q: Array, k: Array, v: Array) -> Array:
    """(batch, heads, time, width) each; k and v may have fewer heads."""
    k, v = (np.repeat(y, q.shape[1] // k.shape[1], axis=1) for y in (k, v))
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    time = q.shape[2]
    return _softmax(np.where(np.tril(np.ones((time, time), bool)), scores, -np.inf)) @ v


def _heads(y: Array, count: int) -> Array:
    return y.reshape(*y.shape[:2], count, -1).swapaxes(1, 2)


def _rotate(x: Array, theta: float) -> Array:
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[2])[:, None] * theta ** (-np.arange(half) / half)
    a, b, c, s = x[..., :half], x[..., half:], np.cos(angle), np.sin(angle)
    return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)


def _gpt2(t: Mapping[str, Array], config: Mapping[str, Any], tokens: Array) -> Array:
    def linear(name: str, x: Array) -> Array:
        return x @ t[f"{name}.weight"] + t.get(f"{name}.bias", 0)

    def norm(name: str, x: Array) -> Array:
        x = x if config.get("normalization") == "rmsnorm" else x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * t[f"{name}.weight"] + t.get(f"{name}.bias", 0)

    rope = config.get("position_embedding_type") == "rope"
    x = t["wte.weight"][tokens] + (0 if rope else t["wpe.weight"][: tokens.shape[1]])
    for i in range(config["n_layer"]):
        q, k, v = (
            _heads(y, config["n_head"]) for y in np.split(linear(f"h.{i}.attn.c_attn", norm(f"h.{i}.ln_1", x)), 3, -1)
        )
        q, k = (_rotate(y, config["rope_theta"]) if rope else y for y in (q, k))
        y = _attend(q, k, v).swapaxes(1, 2)
        x = x + linear(f"h.{i}.attn.c_proj", y.reshape(*y.shape[:2], -1))
        x = x + linear(f"h.{i}.mlp.c_proj", _gelu(linear(f"h.{i}.mlp.c_fc", norm(f"h.{i}.ln_2", x))))
    return norm("ln_f", x) @ t.get("lm_head.weight", t["wte.weight"]).T


def _llama(t: Mapping[str, Array], config: Mapping[str, Any], tokens: Array) -> Array:
    gemma = config["model_type"] == "gemma"
    activation = _gelu if gemma else lambda x: x / (1 + np.exp(-x))

    def linear(name: str, x: Array) -> Array:
        return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0)

    def norm(name: str, x: Array) -> Array:
        return (t[f"{name}.weight"] + gemma) * x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"])

    def ffn(name: str, x: Array) -> Array:
        return linear(f"{name}.down_proj", activation(linear(f"{name}.gate_proj", x)) * linear(f"{name}.up_proj", x))

    def experts(name: str, x: Array) -> Array:
        p = _softmax(linear(f"{name}.gate", x))
        chosen = np.argsort(-p, axis=-1, kind="stable")[..., : config["num_experts_per_tok"]]
        weight = np.zeros_like(p)
        np.put_along_axis(weight, chosen, np.take_along_axis(p, chosen, -1), -1)
        weight /= weight.sum(-1, keepdims=True)
        return sum(weight[..., [e]] * ffn(f"{name}.experts.{e}", x) for e in range(config["n_routed_experts"]))

    x = t["model.embed_tokens.weight"][tokens]
    x = x * x.shape[-1] ** 0.5 if gemma else x
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        n = norm(f"{at}.input_layernorm", x)
        counts = config["num_attention_heads"], config["num_key_value_heads"], config["num_key_value_heads"]
        q, k, v = (_heads(linear(f"{at}.self_attn.{p}_proj", n), c) for p, c in zip("qkv", counts, strict=True))
        y = _attend(*(_rotate(y, config["rope_theta"]) for y in (q, k)), v).swapaxes(1, 2)
        x = x + linear(f"{at}.self_attn.o_proj", y.reshape(*y.shape[:2], -1))
        n = norm(f"{at}.post_attention_layernorm", x)
        x = x + (experts if f"{at}.mlp.gate.weight" in t else ffn)(f"{at}.mlp", n)
    return norm("model.norm", x) @ t.get("lm_head.weight", t["model.embed_tokens.weight"]).T
