"""GGUF metadata as the keys that a Hugging Face config.json has, so that one geometry reads both.

A row per key: what the config calls it, and what GGUF calls it behind the architecture's name
(``llama.attention.head_count``). Where GGUF keeps a number per layer, equal numbers become one and others stay a list.

``model_type`` is `general.architecture` as it stands: it is one for several of Hugging Face's (``llama`` is Mistral and
Mixtral too), and says what the converter did to the rows of q and k, which theirs does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEYS: tuple[tuple[str, str], ...] = (
    ("hidden_size", "embedding_length"), ("num_hidden_layers", "block_count"),
    ("intermediate_size", "feed_forward_length"), ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"), ("head_dim", "attention.key_length"),
    ("vocab_size", "vocab_size"), ("max_position_embeddings", "context_length"),
    ("sliding_window", "attention.sliding_window"), ("rope_theta", "rope.freq_base"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"), ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("num_local_experts", "expert_count"), ("num_experts_per_tok", "expert_used_count"),
    ("n_shared_experts", "expert_shared_count"), ("moe_intermediate_size", "expert_feed_forward_length"),
    ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ("first_k_dense_replace", "leading_dense_block_count"), ("num_nextn_predict_layers", "nextn_predict_layers"),
    ("q_lora_rank", "attention.q_lora_rank"), ("kv_lora_rank", "attention.kv_lora_rank"),
    ("conv_kernel", "ssm.conv_kernel"), ("state_size", "ssm.state_size"), ("time_step_rank", "ssm.time_step_rank"),
    ("num_decoder_layers", "decoder_block_count"), ("image_size", "image_size"), ("patch_size", "patch_size"),
    ("projection_dim", "projection_dim"), ("num_mel_bins", "num_mel_bins"),
)  # fmt: skip

#: Stacks that lie in a file of their own, or beside the text model, with a section of the config.
_TOWERS = {"vision_config": "clip.vision", "audio_config": "clip.audio"}


def hugging_face(values: Mapping[str, Any], lengths: Mapping[str, int]) -> dict[str, Any]:
    """The config.json that the metadata amounts to; keys that GGUF does not say are absent."""
    architecture = values.get("general.architecture")
    config: dict[str, Any] = {}
    if isinstance(architecture, str) and architecture:
        config["model_type"] = architecture
        config |= _section(values, architecture)
        if f"{architecture}.attention.key_length_mla" in values or "kv_lora_rank" in config:
            config |= _latent_attention(values, architecture)
    for section, prefix in _TOWERS.items():
        if found := _section(values, prefix):
            config[section] = found
    if "vocab_size" not in config and (n := lengths.get("tokenizer.ggml.tokens")):
        config["vocab_size"] = n
    if isinstance(name := values.get("general.name"), str):
        config["_name_or_path"] = name
    return config


def _section(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = {key: _one(values[f"{prefix}.{suffix}"]) for key, suffix in _KEYS if f"{prefix}.{suffix}" in values}
    return {key: value for key, value in found.items() if value is not None}


def _one(value: Any) -> Any:
    """A list of equal numbers as that number; an empty one as None."""
    if isinstance(value, list):
        return None if not value else value[0] if all(x == value[0] for x in value) else value
    return value


def _latent_attention(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """MLA's head sizes: the key's length is a part without and a part with rotation; there is no common head_dim.

    Newer files keep the length of the compressed key under ``key_length`` and that of a head under ``key_length_mla``.
    """
    sizes = {
        what: values.get(f"{prefix}.attention.{what}_length_mla", values.get(f"{prefix}.attention.{what}_length"))
        for what in ("key", "value")
    }
    rope = values.get(f"{prefix}.rope.dimension_count")
    found: dict[str, Any] = {"num_key_value_heads": _one(values.get(f"{prefix}.attention.head_count"))}
    if isinstance(rope, int) and isinstance(sizes["key"], int) and sizes["key"] > rope:
        found |= {"qk_rope_head_dim": rope, "qk_nope_head_dim": sizes["key"] - rope, "head_dim": sizes["key"]}
    if isinstance(sizes["value"], int):
        found["v_head_dim"] = sizes["value"]
    return {key: value for key, value in found.items() if value is not None}
