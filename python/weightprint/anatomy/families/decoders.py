"""Decoder-only models with dense FFNs."""

from __future__ import annotations

from weightprint.anatomy.family import Family, Stack

__all__ = ["FAMILIES"]

ATTENTION = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "self_attn.q_norm": "q_norm",
    "self_attn.k_norm": "k_norm",
}
GATED = {"mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down"}
OUTSIDE = {"embed_tokens": "embedding", "norm": "final_norm", "lm_head": "head"}
PRE_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}

FAMILIES: tuple[Family, ...] = (
    Family(
        "llama",
        (Stack("decoder", "layers.{b}.", {**PRE_NORMS, **ATTENTION, **GATED}, OUTSIDE),),
        ("llama", "mistral", "qwen2", "qwen3", "minicpm"),
    ),
)
