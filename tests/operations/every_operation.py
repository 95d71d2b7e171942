"""Every structural operation of the lineage benchmark with the parameters to be told, and random parents for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benches.lineage.zoo import model_folder

D, H, HEADS, KV, LAYERS, VOCABULARY = 64, 96, 8, 4, 4, 160

CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "moe_upcycling": ("llama", {"experts": 4, "fresh": 0.0}, ("experts", "fresh")),
    "moe_upcycling, fresh": ("llama", {"experts": 3, "fresh": 0.25}, ("experts", "fresh")),
    "expert_split": ("llama", {"parts": 3, "copies": 2}, ("parts", "copies")),
    "expert_duplication": ("moe", {"times": 2, "noise": 0.1}, ("times", "noise")),
    "expert_shuffle": ("moe", {"share": 1.0}, ("share",)),
    "experts_merged": ("moe", {"groups": 2}, ()),
    "experts_merged, weighted": ("moe", {"groups": 2, "weighted": True}, ()),
    "experts_merged, three": ("moe", {"groups": 3}, ()),
    "moe_to_dense, one": ("moe", {"method": "one"}, ("method", "experts", "weights")),
    "moe_to_dense, mean": (
        "moe", {"method": "mean", "weights": [0.4, 0.3, 0.2, 0.1]}, ("method", "experts", "weights")
    ),
    "moe_to_dense, joined": ("moe", {"method": "concatenation"}, ("method", "experts", "weights")),
    "depth_upscaling": ("llama", {}, ("ranges",)),
    "depth_drop": ("llama", {"count": 1}, ("layers", "count")),
    "layer_insertion": ("llama", {"count": 1}, ("at", "count", "zero_output", "copy")),
    "layer_insertion, copies": ("llama", {"count": 1, "copy": True}, ("at", "count", "zero_output", "copy")),
    "layer_shuffle": ("llama", {"order": [2, 0, 3, 1]}, ("order",)),
    "decoy_stack": ("llama", {"depth": 1.5}, ("names", "depth")),
    "ffn_pruning": ("qwen2", {"keep": 0.5}, ("keep",)),
    "ffn_widening, zero": ("llama", {"factor": 1.5, "new": "zero"}, ("factor", "new")),
    "ffn_widening, copied": ("llama", {"factor": 1.5, "new": "copied"}, ("factor", "new")),
    "ffn_widening, random": ("llama", {"factor": 1.5, "new": "random"}, ("factor", "new")),
    "hidden_pruning": ("llama", {"keep": 0.75}, ("keep", "kept_channels")),
    "hidden_widening": ("llama", {"factor": 1.25, "new": "zero"}, ("factor", "new", "channels")),
    "head_pruning": ("llama", {"keep": 0.5}, ("keep", "kept_kv_heads")),
    "heads_to_gqa": ("llama", {"kv_heads": 2}, ("kv_heads",)),
    "attention_replaced, latent": ("llama", {}, ("kept",)),
    "attention_replaced, converted": ("llama", {"kept": ["o", "q"]}, ("kept",)),
    "attention_replaced, heads": ("llama", {"form": "heads"}, ("kept",)),
    "head_permutation": ("llama", {"share": 1.0}, ("query_heads", "kv_heads")),
    "per_head_maps": ("llama", {}, ()),
    "unit_permutation": ("gpt2", {"share": 1.0}, ("share",)),
    "channel_permutation": ("llama", {"share": 1.0}, ("channels", "share")),
    "sign_flips": ("llama", {"share": 0.5}, ("channels", "units", "channel_signs", "share")),
    "rotation": ("llama", {}, ("gain_spread",)),
    "scale_folding": ("llama", {}, ("norms", "units")),
    "vocabulary_swap": ("llama", {"factor": 1.5}, ("size", "factor")),
    "vocabulary_extension, mean": ("llama", {"factor": 1.5, "new": "mean"}, ("size", "factor", "new")),
    "vocabulary_extension, random": ("llama", {"factor": 1.5, "new": "random"}, ("size", "factor", "new")),
    "vocabulary_pruning": ("llama", {"keep": 0.5}, ("keep",)),
    "vocabulary_permutation": ("llama", {}, ()),
    "embedding_replaced": ("llama", {"head": False}, ("head",)),
    "directional_ablation": ("llama", {"strength": 1.0}, ("strength",)),
    "directional_ablation, weaker": ("gpt2", {"strength": 0.5}, ("strength",)),
    "directional_ablation, rescaled": ("qwen2", {"strength": 0.8, "rescaled": "rows"}, ("strength",)),
    "low_rank_factorised": ("llama", {"keep": 0.25}, ("ranks",)),
    "low_rank_factorised, half": ("qwen2", {"keep": 0.5}, ("ranks",)),
    "low_rank_factorised, weighted": ("gpt2", {"keep": 0.75, "weighted": 1.0}, ("ranks",)),
    "orthogonal_multipliers": ("llama", {"block": 8, "angle": 0.1}, ("block", "side", "angle")),
    "orthogonal_multipliers, outputs": ("gpt2", {"block": 16, "side": "outputs"}, ("block", "side", "angle")),
    "drop_biases": ("qwen2", {}, ()),
    "layernorm_to_rmsnorm": ("gpt2", {}, ()),
    "learned_positions_to_rope": ("gpt2", {}, ()),
}  # fmt: skip

#: Names that other files read off the same pairs: how tensors are called and encoded.
ENCODED = {"rename", "re_dtype", "quantise", "transpose"}


def parent(form: str) -> model_folder.ZooModel:
    """Random weights large enough for the tests to see a unit, a head and a channel."""
    rng = np.random.default_rng([len(form), 21])

    def x(*shape: int) -> Any:
        return (rng.standard_t(5, shape) * shape[-1] ** -0.5).astype(np.float32)

    def gain() -> Any:
        return rng.normal(1, 0.1, D).astype(np.float32)

    out: dict[str, Any] = {}
    if form == "gpt2":
        out |= {"wte.weight": x(VOCABULARY, D), "wpe.weight": x(64, D)}
        for i in range(LAYERS):
            for part, shape in (
                ("attn.c_attn", (D, 3 * D)), ("attn.c_proj", (D, D)), ("mlp.c_fc", (D, H)), ("mlp.c_proj", (H, D)),
            ):  # fmt: skip
                out |= {f"h.{i}.{part}.weight": x(*shape), f"h.{i}.{part}.bias": x(shape[1])}
            for norm in ("ln_1", "ln_2"):
                out |= {f"h.{i}.{norm}.weight": gain(), f"h.{i}.{norm}.bias": x(D)}
        out |= {"ln_f.weight": gain(), "ln_f.bias": x(D)}
        config: dict[str, Any] = {
            "model_type": "gpt2", "n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_inner": H,
            "vocab_size": VOCABULARY,
        }  # fmt: skip
        return model_folder.ZooModel(out, config, model_folder.Truth("p", "root", form, ("p",)))
    size = D // HEADS
    out["model.embed_tokens.weight"] = x(VOCABULARY, D)
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        out[f"{at}.input_layernorm.weight"] = gain()
        for part, n in (("q", HEADS), ("k", KV), ("v", KV)):
            out[f"{at}.self_attn.{part}_proj.weight"] = x(n * size, D)
            if form == "qwen2":
                out[f"{at}.self_attn.{part}_proj.bias"] = x(n * size)
        out[f"{at}.self_attn.o_proj.weight"] = x(D, D)
        out[f"{at}.post_attention_layernorm.weight"] = gain()
        if form == "moe":
            out[f"{at}.mlp.gate.weight"] = x(4, D)
        for mlp in [f"{at}.mlp.experts.{e}" for e in range(4)] if form == "moe" else [f"{at}.mlp"]:
            out |= {f"{mlp}.gate_proj.weight": x(H, D), f"{mlp}.up_proj.weight": x(H, D)}
            out[f"{mlp}.down_proj.weight"] = x(D, H)
    out |= {"model.norm.weight": gain(), "lm_head.weight": x(VOCABULARY, D)}
    config = {
        "model_type": {"moe": "deepseek"}.get(form, form), "hidden_size": D, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV, "intermediate_size": H, "vocab_size": VOCABULARY,
        "tie_word_embeddings": False, "rope_theta": 10000.0,
    }  # fmt: skip
    if form == "moe":
        config |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": H}
    return model_folder.ZooModel(out, config, model_folder.Truth("p", "root", form, ("p",)))
