"""Miniatures of the state-space models."""

from __future__ import annotations

from collections.abc import Callable

from miniature import Maker, Miniature

V, D, INNER, STATE, RANK, KERNEL = 40, 20, 40, 6, 3, 4
BLOCKS = 2


def mamba(family_type: str, prefix_embedding: str) -> Callable[[], Miniature]:
    def make() -> Miniature:
        config = {"model_type": family_type, "hidden_size": D, "num_hidden_layers": BLOCKS, "state_size": STATE}
        m = Maker("mamba", config, label=family_type + "-" + prefix_embedding)
        m.put(f"backbone.{prefix_embedding}.weight", "embedding", V, D)
        for b in range(BLOCKS):
            at = f"backbone.layers.{b}."
            m.put(at + "norm.weight", "ssm_norm", D, block=b)
            m.put(at + "mixer.A_log", "ssm_a", INNER, STATE, block=b)
            m.put(at + "mixer.D", "ssm_d", INNER, block=b)
            m.put(at + "mixer.in_proj.weight", "ssm_in", 2 * INNER, D, block=b)
            m.put(at + "mixer.conv1d.weight", "ssm_conv", INNER, 1, KERNEL, block=b)
            m.put(at + "mixer.conv1d.bias", "ssm_conv_bias", INNER, block=b)
            m.put(at + "mixer.x_proj.weight", "ssm_x", RANK + 2 * STATE, INNER, block=b)
            m.put(at + "mixer.dt_proj.weight", "ssm_dt", INNER, RANK, block=b)
            m.put(at + "mixer.dt_proj.bias", "ssm_dt_bias", INNER, block=b)
            m.put(at + "mixer.out_proj.weight", "ssm_out", D, INNER, block=b)
        m.put("backbone.norm_f.weight", "final_norm", D)
        if family_type == "falcon_mamba":
            m.put("lm_head.weight", "head", V, D)
        return m.done()

    return make


def mamba2() -> Miniature:
    heads, groups = 5, 1
    config = {"model_type": "mamba2", "hidden_size": D, "num_hidden_layers": BLOCKS, "num_heads": heads, "head_dim": 8}
    m = Maker("mamba", config, label="mamba2")
    m.put("backbone.embeddings.weight", "embedding", V, D)
    wide = INNER + 2 * groups * STATE
    for b in range(BLOCKS):
        at = f"backbone.layers.{b}."
        m.put(at + "norm.weight", "ssm_norm", D, block=b)
        m.put(at + "mixer.A_log", "ssm_a", heads, block=b)
        m.put(at + "mixer.D", "ssm_d", heads, block=b)
        m.put(at + "mixer.dt_bias", "ssm_dt_bias", heads, block=b)
        m.put(at + "mixer.in_proj.weight", "ssm_in", INNER + wide + heads, D, block=b)
        m.put(at + "mixer.conv1d.weight", "ssm_conv", wide, 1, KERNEL, block=b)
        m.put(at + "mixer.conv1d.bias", "ssm_conv_bias", wide, block=b)
        m.put(at + "mixer.norm.weight", "ssm_inner_norm", INNER, block=b)
        m.put(at + "mixer.out_proj.weight", "ssm_out", D, INNER, block=b)
    m.put("backbone.norm_f.weight", "final_norm", D)
    m.put("lm_head.weight", "head", V, D)
    return m.done()


def jamba() -> Miniature:
    """Block 0: Mamba and a dense FFN. Block 1: attention and experts."""
    config = {"model_type": "jamba", "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 5}
    m = Maker("jamba", {**config, "num_key_value_heads": 1, "num_experts": 3, "intermediate_size": 28})
    m.put("model.embed_tokens.weight", "embedding", V, D)
    for b in range(2):
        m.put(f"model.layers.{b}.input_layernorm.weight", "attn_norm", D, block=b)
        m.put(f"model.layers.{b}.pre_ff_layernorm.weight", "ffn_norm", D, block=b)
    at = "model.layers.0.mamba."
    m.put(at + "A_log", "ssm_a", INNER, STATE, block=0)
    m.put(at + "D", "ssm_d", INNER, block=0)
    m.put(at + "in_proj.weight", "ssm_in", 2 * INNER, D, block=0)
    m.put(at + "conv1d.weight", "ssm_conv", INNER, 1, KERNEL, block=0)
    m.put(at + "conv1d.bias", "ssm_conv_bias", INNER, block=0)
    m.put(at + "x_proj.weight", "ssm_x", RANK + 2 * STATE, INNER, block=0)
    m.put(at + "dt_proj.weight", "ssm_dt", INNER, RANK, block=0)
    m.put(at + "dt_proj.bias", "ssm_dt_bias", INNER, block=0)
    m.put(at + "dt_layernorm.weight", "ssm_dt_norm", RANK, block=0)
    m.put(at + "b_layernorm.weight", "ssm_b_norm", STATE, block=0)
    m.put(at + "c_layernorm.weight", "ssm_c_norm", STATE, block=0)
    m.put(at + "out_proj.weight", "ssm_out", D, INNER, block=0)
    for role, rows, columns in (("gate", 28, D), ("up", 28, D), ("down", D, 28)):
        m.put(f"model.layers.0.feed_forward.{role}_proj.weight", role, rows, columns, block=0)
        for e in range(3):
            m.put(f"model.layers.1.feed_forward.experts.{e}.{role}_proj.weight", role, rows, columns, block=1, expert=e)
    m.put("model.layers.1.feed_forward.router.weight", "router", 3, D, block=1)
    for role, rows in (("q", D), ("k", 4), ("v", 4), ("o", D)):
        m.put(f"model.layers.1.self_attn.{role}_proj.weight", role, rows, D, block=1)
    m.put("model.final_layernorm.weight", "final_norm", D)
    m.put("lm_head.weight", "head", V, D)
    return m.done()


MINIATURES = [
    mamba("mamba", "embeddings"),
    mamba("mamba", "embedding"),
    mamba("falcon_mamba", "embeddings"),
    mamba2,
    jamba,
]
