"""Miniatures of encoder-decoders: T5, BART, mBART, Whisper under three names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from miniature import Array, Maker, Miniature, layer_norm, linear

V, D, F, POSITIONS = 40, 24, 56, 16
HEADS, HD = 4, 6
BLOCKS = 2


def _t5_attention(m: Maker, at: str, b: int, stack: str, prefix: str = "", inner: int = 20) -> None:
    for role in "qkv":
        m.put(f"{at}.{role}.weight", prefix + role, inner, D, block=b, stack=stack)
    m.put(f"{at}.o.weight", prefix + "o", D, inner, block=b, stack=stack)


def t5(gated: bool) -> Callable[[], Miniature]:
    """Heads narrower than the hidden state. v1.1: a gated FFN and a head of its own."""

    def make() -> Miniature:
        config = {"model_type": "t5", "d_model": D, "num_heads": HEADS, "d_kv": 5, "d_ff": F, "num_layers": BLOCKS}
        m = Maker("t5", {**config, "tie_word_embeddings": not gated}, label="t5-v1.1" if gated else "t5")
        m.put("shared.weight", "embedding", V, D)
        for stack in ("encoder", "decoder"):
            for b in range(BLOCKS):
                at = f"{stack}.block.{b}."
                _t5_attention(m, at + "layer.0.SelfAttention", b, stack)
                if b == 0:
                    bias = at + "layer.0.SelfAttention.relative_attention_bias.weight"
                    m.put(bias, "relative_bias", 32, HEADS, block=b, stack=stack)
                m.put(at + "layer.0.layer_norm.weight", "attn_norm", D, block=b, stack=stack)
                last = 1
                if stack == "decoder":
                    _t5_attention(m, at + "layer.1.EncDecAttention", b, stack, "cross_")
                    m.put(at + "layer.1.layer_norm.weight", "cross_norm", D, block=b, stack=stack)
                    last = 2
                ffn = f"{at}layer.{last}.DenseReluDense."
                if gated:
                    m.put(ffn + "wi_0.weight", "gate", F, D, block=b, stack=stack)
                m.put(ffn + ("wi_1" if gated else "wi") + ".weight", "up", F, D, block=b, stack=stack)
                m.put(ffn + "wo.weight", "down", D, F, block=b, stack=stack)
                m.put(f"{at}layer.{last}.layer_norm.weight", "ffn_norm", D, block=b, stack=stack)
            m.put(f"{stack}.final_layer_norm.weight", "final_norm", D, stack=stack)
        if gated:
            m.put("lm_head.weight", "head", V, D)
        return m.done()

    return make


def t5_encoder() -> Miniature:
    config = {"model_type": "t5", "d_model": D, "num_heads": HEADS, "d_kv": 5, "d_ff": F, "num_layers": BLOCKS}
    m = Maker("t5_encoder", config, stack="encoder")
    m.put("shared.weight", "embedding", V, D)
    m.put("encoder.embed_tokens.weight", "embedding_copy", V, D)
    for b in range(BLOCKS):
        at = f"encoder.block.{b}."
        _t5_attention(m, at + "layer.0.SelfAttention", b, "encoder")
        if b == 0:
            m.put(at + "layer.0.SelfAttention.relative_attention_bias.weight", "relative_bias", 32, HEADS, block=b)
        m.put(at + "layer.0.layer_norm.weight", "attn_norm", D, block=b)
        m.put(at + "layer.1.DenseReluDense.wi_0.weight", "gate", F, D, block=b)
        m.put(at + "layer.1.DenseReluDense.wi_1.weight", "up", F, D, block=b)
        m.put(at + "layer.1.DenseReluDense.wo.weight", "down", D, F, block=b)
        m.put(at + "layer.1.layer_norm.weight", "ffn_norm", D, block=b)
    m.put("encoder.final_layer_norm.weight", "final_norm", D)
    return m.done()


def _fairseq_attention(m: Maker, at: str, b: int, stack: str, prefix: str = "", key_bias: bool = True) -> None:
    for role, name in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True):
        m.put(f"{at}.{name}.weight", prefix + role, D, D, block=b, stack=stack)
        if role != "k" or key_bias:
            m.put(f"{at}.{name}.bias", f"{prefix}{role}_bias", D, block=b, stack=stack)


def _fairseq_stack(
    m: Maker, stack: str, root: str, blocks: int, post: str, *, cross: bool, key_bias: bool = True
) -> None:
    """Blocks of BART, mBART and Whisper; `post` is "_post" where norms stand behind."""
    for b in range(blocks):
        at = f"{root}layers.{b}."
        _fairseq_attention(m, at + "self_attn", b, stack, key_bias=key_bias)
        layer_norm(m, at + "self_attn_layer_norm", f"attn{post}_norm", b, stack=stack)
        if cross:
            _fairseq_attention(m, at + "encoder_attn", b, stack, "cross_", key_bias)
            layer_norm(m, at + "encoder_attn_layer_norm", f"cross{post}_norm", b, stack=stack)
        linear(m, at + "fc1", "up", F, D, b, stack)
        linear(m, at + "fc2", "down", D, F, b, stack)
        layer_norm(m, at + "final_layer_norm", f"ffn{post}_norm", b, stack=stack)


def bart() -> Miniature:
    config = {"model_type": "bart", "d_model": D, "encoder_layers": BLOCKS, "decoder_layers": 3}
    m = Maker("bart", {**config, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS})
    m.put("model.shared.weight", "embedding", V, D)
    m.put("final_logits_bias", "head_bias", 1, V)
    for stack in ("encoder", "decoder"):
        root = f"model.{stack}."
        m.put(root + "embed_positions.weight", "position", POSITIONS + 2, D, stack=stack)
        layer_norm(m, root + "layernorm_embedding", "embedding_norm", stack=stack)
        _fairseq_stack(m, stack, root, 2 + (stack == "decoder"), "_post", cross=stack == "decoder")
    return m.done()


def mbart() -> Miniature:
    """BART's names with norms in front; here with every copy of the embedding stored."""
    config = {"model_type": "mbart", "d_model": D, "encoder_layers": BLOCKS, "decoder_layers": BLOCKS}
    m = Maker("mbart", {**config, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS})
    m.put("model.shared.weight", "embedding", V, D)
    m.put("model.encoder.embed_tokens.weight", "embedding", V, D, stack="encoder")
    m.put("model.decoder.embed_tokens.weight", "embedding_copy", V, D)
    m.put("final_logits_bias", "head_bias", 1, V)
    for stack in ("encoder", "decoder"):
        root = f"model.{stack}."
        m.put(root + "embed_positions.weight", "position", POSITIONS + 2, D, stack=stack)
        layer_norm(m, root + "layernorm_embedding", "embedding_norm", stack=stack)
        _fairseq_stack(m, stack, root, BLOCKS, "", cross=stack == "decoder")
        layer_norm(m, root + "layer_norm", "final_norm", stack=stack)
    m.put("lm_head.weight", "head", V, D)
    return m.done()


def whisper() -> Miniature:
    config: dict[str, Any] = {"model_type": "whisper", "d_model": D, "encoder_layers": BLOCKS, "decoder_layers": BLOCKS}
    m = Maker("whisper", {**config, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS})
    m.put("model.encoder.conv1.weight", "conv1", D, 8, 3, stack="audio")
    m.put("model.encoder.conv1.bias", "conv1_bias", D, stack="audio")
    m.put("model.encoder.conv2.weight", "conv2", D, D, 3, stack="audio")
    m.put("model.encoder.conv2.bias", "conv2_bias", D, stack="audio")
    m.put("model.encoder.embed_positions.weight", "position", 30, D, stack="audio")
    _fairseq_stack(m, "audio", "model.encoder.", BLOCKS, "", cross=False, key_bias=False)
    layer_norm(m, "model.encoder.layer_norm", "final_norm", stack="audio")
    m.put("model.decoder.embed_tokens.weight", "embedding", V, D)
    m.put("model.decoder.embed_positions.weight", "position", POSITIONS, D)
    _fairseq_stack(m, "decoder", "model.decoder.", BLOCKS, "", cross=True, key_bias=False)
    layer_norm(m, "model.decoder.layer_norm", "final_norm")
    m.put("proj_out.weight", "head", V, D)
    return m.done()


def whisper_encoder() -> Miniature:
    """Qwen2-Audio's tower, without the language model."""
    config = {"model_type": "qwen2_audio", "audio_config": {"d_model": D, "encoder_attention_heads": HEADS}}
    m = Maker("whisper_encoder", config, stack="audio")
    for name, role, columns in (("conv1", "conv1", 8), ("conv2", "conv2", D)):
        m.put(f"audio_tower.{name}.weight", role, D, columns, 3)
        m.put(f"audio_tower.{name}.bias", role + "_bias", D)
    m.put("audio_tower.embed_positions.weight", "position", 30, D)
    _fairseq_stack(m, "audio", "audio_tower.", BLOCKS, "", cross=False, key_bias=False)
    layer_norm(m, "audio_tower.layer_norm", "final_norm")
    linear(m, "multi_modal_projector.linear", "projector", 20, D)
    return m.done()


def whisper_openai() -> Miniature:
    m = Maker("whisper_openai", {})
    for name, role, columns in (("conv1", "conv1", 8), ("conv2", "conv2", D)):
        m.put(f"encoder.{name}.weight", role, D, columns, 3, stack="audio")
        m.put(f"encoder.{name}.bias", role + "_bias", D, stack="audio")
    m.put("encoder.positional_embedding", "position", 30, D, stack="audio")
    m.put("decoder.token_embedding.weight", "embedding", V, D)
    m.put("decoder.positional_embedding", "position", POSITIONS, D)
    m.fixed("decoder.mask", POSITIONS, POSITIONS)
    for stack, root in (("audio", "encoder"), ("decoder", "decoder")):
        for b in range(BLOCKS):
            at = f"{root}.blocks.{b}."
            for module, prefix in (("attn", ""), ("cross_attn", "cross_"))[: 1 + (stack == "decoder")]:
                for role, name in zip("qkvo", ("query", "key", "value", "out"), strict=True):
                    m.put(f"{at}{module}.{name}.weight", prefix + role, D, D, block=b, stack=stack)
                    if role != "k":
                        m.put(f"{at}{module}.{name}.bias", f"{prefix}{role}_bias", D, block=b, stack=stack)
                layer_norm(m, f"{at}{module}_ln", "cross_norm" if prefix else "attn_norm", b, stack=stack)
            linear(m, at + "mlp.0", "up", F, D, b, stack)
            linear(m, at + "mlp.2", "down", D, F, b, stack)
            layer_norm(m, at + "mlp_ln", "ffn_norm", b, stack=stack)
    layer_norm(m, "encoder.ln_post", "final_norm", stack="audio")
    layer_norm(m, "decoder.ln", "final_norm")
    return m.done()


def whisper_ctranslate2() -> Miniature:
    """q, k, v fused, cross-attention's k and v too; dots for CTranslate2's slashes."""
    m = Maker("whisper_ctranslate2", {})

    def fused(name: str, roles: tuple[str, ...], b: int, stack: str) -> None:
        parts: list[Array] = [m.draw(role, D, D, block=b, stack=stack) for role in roles]
        m[name + ".weight"] = np.concatenate(parts)
        m[name + ".bias"] = np.hstack([m.draw(role + "_bias", D, block=b, stack=stack) for role in roles])

    def gamma(name: str, role: str, b: int | None, stack: str) -> None:
        m.put(name + ".gamma", role, D, block=b, stack=stack)
        m.put(name + ".beta", role + "_bias", D, block=b, stack=stack)

    for name, role, columns in (("conv1", "conv1", 8), ("conv2", "conv2", D)):
        m.put(f"encoder.{name}.weight", role, D, columns, 3, stack="audio")
        m.put(f"encoder.{name}.bias", role + "_bias", D, stack="audio")
    m.put("encoder.position_encodings.encodings", "position", 30, D, stack="audio")
    m.put("decoder.embeddings.weight", "embedding", V, D)
    m.put("decoder.position_encodings.encodings", "position", POSITIONS, D)
    for name in ("encoder.num_heads", "decoder.num_heads", "decoder.pre_norm", "decoder.alignment_layer"):
        m.fixed(name)
    for stack, root in (("audio", "encoder"), ("decoder", "decoder")):
        for b in range(BLOCKS):
            at = f"{root}.layer.{b}."
            fused(at + "self_attention.linear_0", ("q", "k", "v"), b, stack)
            linear(m, at + "self_attention.linear_1", "o", D, D, b, stack)
            gamma(at + "self_attention.layer_norm", "attn_norm", b, stack)
            if stack == "decoder":
                linear(m, at + "attention.linear_0", "cross_q", D, D, b, stack)
                fused(at + "attention.linear_1", ("cross_k", "cross_v"), b, stack)
                linear(m, at + "attention.linear_2", "cross_o", D, D, b, stack)
                gamma(at + "attention.layer_norm", "cross_norm", b, stack)
            linear(m, at + "ffn.linear_0", "up", F, D, b, stack)
            linear(m, at + "ffn.linear_1", "down", D, F, b, stack)
            gamma(at + "ffn.layer_norm", "ffn_norm", b, stack)
        gamma(f"{root}.layer_norm", "final_norm", None, stack)
    return m.done()


MINIATURES = [
    t5(gated=False),
    t5(gated=True),
    t5_encoder,
    bart,
    mbart,
    whisper,
    whisper_encoder,
    whisper_openai,
    whisper_ctranslate2,
]
