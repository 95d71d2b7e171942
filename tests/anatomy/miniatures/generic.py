"""Miniatures of PyTorch's own transformer modules, SCEPTR and a single dense layer."""

from __future__ import annotations

import numpy as np
from miniature import Maker, Miniature

V, D, F, BLOCKS = 23, 16, 64, 2


def _attention(m: Maker, at: str, b: int, stack: str | None = None, prefix: str = "") -> None:
    m[at + ".in_proj_weight"] = np.vstack([m.draw(prefix + role, D, D, block=b, stack=stack) for role in "qkv"])
    m[at + ".in_proj_bias"] = np.hstack([m.draw(f"{prefix}{role}_bias", D, block=b, stack=stack) for role in "qkv"])
    m.put(at + ".out_proj.weight", prefix + "o", D, D, block=b, stack=stack)
    m.put(at + ".out_proj.bias", prefix + "o_bias", D, block=b, stack=stack)


def _layer(m: Maker, at: str, b: int, stack: str, *, cross: bool = False) -> None:
    _attention(m, at + "self_attn", b, stack)
    if cross:
        _attention(m, at + "multihead_attn", b, stack, "cross_")
    for name, role, rows, columns in (("linear1", "up", F, D), ("linear2", "down", D, F)):
        m.put(f"{at}{name}.weight", role, rows, columns, block=b, stack=stack)
        m.put(f"{at}{name}.bias", role + "_bias", rows, block=b, stack=stack)
    roles = ["attn_post_norm", "cross_post_norm", "ffn_post_norm"] if cross else ["attn_post_norm", "ffn_post_norm"]
    for k, role in enumerate(roles, 1):
        m.put(f"{at}norm{k}.weight", role, D, block=b, stack=stack)
        m.put(f"{at}norm{k}.bias", role + "_bias", D, block=b, stack=stack)


def sceptr() -> Miniature:
    m = Maker("sceptr", {}, stack="encoder")
    m.put("_token_embedder._token_embedding._token_embeddings", "embedding", V, V - 1)
    m.put("_token_embedder._compartment_embedding._token_embeddings", "token_type", 7, 6)
    m.put("_self_attention_stack._initial_projector.weight", "embedding_in", D, V + 5)
    for b in range(BLOCKS):
        _layer(m, f"_self_attention_stack._standard_stack._self_attention_stack.layers.{b}.", b, "encoder")
    m.put("_mlm_token_prediction_projector.projector.weight", "head", 20, D)
    m.put("_mlm_token_prediction_projector.projector.bias", "head_bias", 20)
    return m.done()


def torch_encoder() -> Miniature:
    """nn.TransformerEncoder inside a model of somebody's own."""
    m = Maker("torch_encoder", {}, stack="encoder")
    m.put("embedding.weight", "embedding", V, D)
    for b in range(BLOCKS):
        _layer(m, f"net.layers.{b}.", b, "encoder")
    m.put("net.norm.weight", "final_norm", D)
    m.put("net.norm.bias", "final_norm_bias", D)
    return m.done()


def torch_decoder() -> Miniature:
    m = Maker("torch_decoder", {})
    for b in range(BLOCKS):
        _layer(m, f"layers.{b}.", b, "decoder", cross=True)
    m.put("norm.weight", "final_norm", D)
    m.put("norm.bias", "final_norm_bias", D)
    return m.done()


def torch_transformer() -> Miniature:
    m = Maker("torch_transformer", {})
    for stack in ("encoder", "decoder"):
        for b in range(BLOCKS):
            _layer(m, f"transformer.{stack}.layers.{b}.", b, stack, cross=stack == "decoder")
        m.put(f"transformer.{stack}.norm.weight", "final_norm", D, stack=stack)
        m.put(f"transformer.{stack}.norm.bias", "final_norm_bias", D, stack=stack)
    return m.done()


def sentence_dense() -> Miniature:
    """The 2_Dense folder of a sentence-transformers model."""
    m = Maker("sentence_dense", {"in_features": D, "out_features": 12, "bias": True}, stack="text")
    m.put("linear.weight", "projector", 12, D)
    m.put("linear.bias", "projector_bias", 12)
    return m.done()


MINIATURES = [sceptr, torch_encoder, torch_decoder, torch_transformer, sentence_dense]
