"""Miniatures of the decoders beside the Llama-like ones: fused, transposed, grouped, parallel.

Each fused form is made as the modeling code takes it apart, by reshape and concatenate of the drawn parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from miniature import Array, Maker, Miniature

V, D, F, POSITIONS = 40, 24, 80, 16
HEADS, HD = 4, 6
BLOCKS = 2


def per_head(q: Array, k: Array, v: Array, kv_heads: int, size: int = HD) -> Array:
    """(kv_heads, queries per key + 2, size, …) flattened: Megatron's order. Works for matrices and biases."""
    rest = q.shape[1:]
    parts = [x.reshape(kv_heads, -1, size, *rest) for x in (q, k, v)]
    return np.concatenate(parts, axis=1).reshape(-1, *rest)


def stacked(*parts: Array) -> Array:
    return np.concatenate(parts)


def norm(m: Maker, name: str, role: str, b: int | None = None, *, bias: bool = True, n: int = D) -> None:
    m.put(f"{name}.weight", role, n, block=b)
    if bias:
        m.put(f"{name}.bias", f"{role}_bias", n, block=b)


def linear(
    m: Maker,
    name: str,
    role: str,
    rows: int,
    columns: int,
    b: int | None = None,
    *,
    bias: bool = True,
    transposed: bool = False,
) -> None:
    m.put(f"{name}.weight", role, rows, columns, block=b, transposed=transposed)
    if bias:
        m.put(f"{name}.bias", f"{role}_bias", rows, block=b)


def blocks(m: Maker, embedding: str, front: str, last: str) -> Iterator[tuple[str, int]]:
    """The embedding; prefix and number of each block; the last norm."""
    m.put(f"{embedding}.weight", "embedding", V, D)
    yield from ((f"{front}{b}.", b) for b in range(BLOCKS))
    norm(m, last, "final_norm")


def qkv(m: Maker, b: int, kv: int = D, *, bias: bool = False) -> tuple[Array, Array, Array]:
    end = "_bias" if bias else ""
    wide = () if bias else (D,)
    q, k, v = (m.draw(role + end, rows, *wide, block=b) for role, rows in (("q", D), ("k", kv), ("v", kv)))
    return q, k, v


def gpt2() -> Miniature:
    m = Maker("gpt2", {"model_type": "gpt2", "n_embd": D, "n_head": HEADS, "n_layer": BLOCKS, "n_positions": POSITIONS})
    m.put("transformer.wpe.weight", "position", POSITIONS, D)
    for at, b in blocks(m, "transformer.wte", "transformer.h.", "transformer.ln_f"):
        norm(m, at + "ln_1", "attn_norm", b)
        m.fixed(at + "attn.bias", 1, 1, POSITIONS, POSITIONS)
        m.fixed(at + "attn.masked_bias")
        m[at + "attn.c_attn.weight"] = stacked(*qkv(m, b)).T
        m[at + "attn.c_attn.bias"] = stacked(*qkv(m, b, bias=True))
        linear(m, at + "attn.c_proj", "o", D, D, b, transposed=True)
        norm(m, at + "ln_2", "ffn_norm", b)
        linear(m, at + "mlp.c_fc", "up", F, D, b, transposed=True)
        linear(m, at + "mlp.c_proj", "down", D, F, b, transposed=True)
    return m.done()


def openai_gpt() -> Miniature:
    m = Maker("openai_gpt", {"model_type": "openai-gpt", "n_embd": D, "n_head": HEADS, "n_layer": BLOCKS})
    m.put("tokens_embed.weight", "embedding", V, D)
    m.put("positions_embed.weight", "position", POSITIONS, D)
    for b in range(BLOCKS):
        at = f"h.{b}."
        m.fixed(at + "attn.bias", 1, 1, POSITIONS, POSITIONS)
        m[at + "attn.c_attn.weight"] = stacked(*qkv(m, b)).T
        m[at + "attn.c_attn.bias"] = stacked(*qkv(m, b, bias=True))
        linear(m, at + "attn.c_proj", "o", D, D, b, transposed=True)
        norm(m, at + "ln_1", "attn_post_norm", b)
        linear(m, at + "mlp.c_fc", "up", F, D, b, transposed=True)
        linear(m, at + "mlp.c_proj", "down", D, F, b, transposed=True)
        norm(m, at + "ln_2", "ffn_post_norm", b)
    return m.done()


def gpt_bigcode(multi_query: bool) -> Callable[[], Miniature]:
    def make() -> Miniature:
        config = {
            "model_type": "gpt_bigcode",
            "n_embd": D,
            "n_head": HEADS,
            "n_layer": BLOCKS,
            "multi_query": multi_query,
        }
        m = Maker("gpt_bigcode", config, label="gpt_bigcode-mqa" if multi_query else "gpt_bigcode-mha")
        m.put("transformer.wpe.weight", "position", POSITIONS, D)
        kv = HD if multi_query else D
        for at, b in blocks(m, "transformer.wte", "transformer.h.", "transformer.ln_f"):
            norm(m, at + "ln_1", "attn_norm", b)
            for end, parts in ((".weight", qkv(m, b, kv)), (".bias", qkv(m, b, kv, bias=True))):
                m[at + "attn.c_attn" + end] = stacked(*parts) if multi_query else per_head(*parts, HEADS)
            linear(m, at + "attn.c_proj", "o", D, D, b)
            norm(m, at + "ln_2", "ffn_norm", b)
            linear(m, at + "mlp.c_fc", "up", F, D, b)
            linear(m, at + "mlp.c_proj", "down", D, F, b)
        m.put("lm_head.weight", "head", V, D)
        return m.done()

    return make


def gpt_neo() -> Miniature:
    m = Maker("gpt_neo", {"model_type": "gpt_neo", "hidden_size": D, "num_heads": HEADS, "num_layers": BLOCKS})
    m.put("transformer.wpe.weight", "position", POSITIONS, D)
    for at, b in blocks(m, "transformer.wte", "transformer.h.", "transformer.ln_f"):
        norm(m, at + "ln_1", "attn_norm", b)
        m.fixed(at + "attn.attention.bias", 1, 1, POSITIONS, POSITIONS)
        m.fixed(at + "attn.attention.masked_bias")
        for role, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj")):
            linear(m, at + "attn.attention." + name, role, D, D, b, bias=False)
        linear(m, at + "attn.attention.out_proj", "o", D, D, b)
        norm(m, at + "ln_2", "ffn_norm", b)
        linear(m, at + "mlp.c_fc", "up", F, D, b)
        linear(m, at + "mlp.c_proj", "down", D, F, b)
    return m.done()


def gptj() -> Miniature:
    m = Maker("gptj", {"model_type": "gptj", "n_embd": D, "n_head": HEADS, "n_layer": BLOCKS, "rotary_dim": 4})
    for at, b in blocks(m, "transformer.wte", "transformer.h.", "transformer.ln_f"):
        norm(m, at + "ln_1", "attn_norm", b)
        m.fixed(at + "attn.bias", 1, 1, POSITIONS, POSITIONS)
        m.fixed(at + "attn.masked_bias")
        for role, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
            linear(m, at + "attn." + name, role, D, D, b, bias=False)
        linear(m, at + "mlp.fc_in", "up", F, D, b)
        linear(m, at + "mlp.fc_out", "down", D, F, b)
    linear(m, "lm_head", "head", V, D)
    return m.done()


def codegen() -> Miniature:
    """Four cores, each with its share of the queries, then values, then keys."""
    m = Maker("codegen", {"model_type": "codegen", "n_embd": D, "n_head": HEADS, "n_layer": BLOCKS, "rotary_dim": 4})
    for at, b in blocks(m, "transformer.wte", "transformer.h.", "transformer.ln_f"):
        norm(m, at + "ln_1", "attn_norm", b)
        m.fixed(at + "attn.causal_mask", 1, 1, POSITIONS, POSITIONS)
        q, k, v = qkv(m, b)
        cores = zip(np.split(q, 4), np.split(v, 4), np.split(k, 4), strict=True)
        m[at + "attn.qkv_proj.weight"] = np.concatenate([part for core in cores for part in core])
        linear(m, at + "attn.out_proj", "o", D, D, b, bias=False)
        linear(m, at + "mlp.fc_in", "up", F, D, b)
        linear(m, at + "mlp.fc_out", "down", D, F, b)
    linear(m, "lm_head", "head", V, D)
    return m.done()


def _megatron(m: Maker, at: str, b: int, attention: str) -> None:
    """What GPT-NeoX, Bloom and Persimmon share."""
    norm(m, at + "input_layernorm", "attn_norm", b)
    m[f"{at}{attention}.query_key_value.weight"] = per_head(*qkv(m, b), HEADS)
    m[f"{at}{attention}.query_key_value.bias"] = per_head(*qkv(m, b, bias=True), HEADS)
    linear(m, f"{at}{attention}.dense", "o", D, D, b)
    norm(m, at + "post_attention_layernorm", "ffn_norm", b)
    linear(m, at + "mlp.dense_h_to_4h", "up", F, D, b)
    linear(m, at + "mlp.dense_4h_to_h", "down", D, F, b)


def gpt_neox() -> Miniature:
    config = {"model_type": "gpt_neox", "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": BLOCKS}
    m = Maker("gpt_neox", {**config, "intermediate_size": F})
    for at, b in blocks(m, "gpt_neox.embed_in", "gpt_neox.layers.", "gpt_neox.final_layer_norm"):
        _megatron(m, at, b, "attention")
        m.fixed(at + "attention.bias", 1, 1, POSITIONS, POSITIONS)
        m.fixed(at + "attention.masked_bias")
        m.fixed(at + "attention.rotary_emb.inv_freq", HD // 2)
    m.put("embed_out.weight", "head", V, D)
    return m.done()


def bloom() -> Miniature:
    m = Maker("bloom", {"model_type": "bloom", "n_embed": D, "n_head": HEADS, "n_layer": BLOCKS})
    m.put("word_embeddings.weight", "embedding", V, D)
    norm(m, "word_embeddings_layernorm", "embedding_norm")
    for b in range(BLOCKS):
        _megatron(m, f"h.{b}.", b, "self_attention")
    norm(m, "ln_f", "final_norm")
    return m.done()


def persimmon() -> Miniature:
    config = {"model_type": "persimmon", "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": BLOCKS}
    m = Maker("persimmon", config)
    for at, b in blocks(m, "model.embed_tokens", "model.layers.", "model.final_layernorm"):
        _megatron(m, at, b, "self_attn")
        norm(m, at + "self_attn.q_layernorm", "q_norm", b, n=HD)
        norm(m, at + "self_attn.k_layernorm", "k_norm", b, n=HD)
    m.put("lm_head.weight", "head", V, D)
    return m.done()


def falcon(label: str, kv_heads: int, config: dict[str, Any]) -> Callable[[], Miniature]:
    """7B: one key-value head, one norm. 40B: grouped, two norms in parallel. RW: per head, biases, two norms."""

    def make() -> Miniature:
        shared = {"model_type": "falcon", "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": BLOCKS}
        m = Maker("falcon", {**shared, **config}, label=label)
        sequential, new = not config["parallel_attn"], config["new_decoder_architecture"]
        bias = config["bias"]
        for at, b in blocks(m, "transformer.word_embeddings", "transformer.h.", "transformer.ln_f"):
            norm(m, at + ("ln_attn" if new else "input_layernorm"), "attn_norm", b)
            if new:
                norm(m, at + "ln_mlp", "ffn_norm", b)
            if sequential:
                norm(m, at + "post_attention_layernorm", "ffn_norm", b)
            fused = at + "self_attention.query_key_value"
            m[fused + ".weight"] = per_head(*qkv(m, b, kv_heads * HD), kv_heads)
            if bias:
                m[fused + ".bias"] = per_head(*qkv(m, b, kv_heads * HD, bias=True), kv_heads)
            linear(m, at + "self_attention.dense", "o", D, D, b, bias=bias)
            linear(m, at + "mlp.dense_h_to_4h", "up", F, D, b, bias=bias)
            linear(m, at + "mlp.dense_4h_to_h", "down", D, F, b, bias=bias)
        m.put("lm_head.weight", "head", V, D)
        return m.done()

    return make


def mpt(grouped_query: bool) -> Callable[[], Miniature]:
    def make() -> Miniature:
        attention: dict[str, Any] = {"attn_type": "grouped_query_attention", "kv_n_heads": 2} if grouped_query else {}
        config = {"model_type": "mpt", "d_model": D, "n_heads": HEADS, "n_layers": BLOCKS, "attn_config": attention}
        m = Maker("mpt", config, label="mpt-gqa" if grouped_query else "mpt")
        kv = 2 * HD if grouped_query else D
        m.put("transformer.wte.weight", "embedding", V, D)
        for b in range(BLOCKS):
            at = f"transformer.blocks.{b}."
            norm(m, at + "norm_1", "attn_norm", b, bias=False)
            m[at + "attn.Wqkv.weight"] = stacked(*qkv(m, b, kv))
            norm(m, at + "attn.q_ln", "q_norm", b, bias=False)
            norm(m, at + "attn.k_ln", "k_norm", b, bias=False, n=kv)
            linear(m, at + "attn.out_proj", "o", D, D, b, bias=False)
            norm(m, at + "norm_2", "ffn_norm", b, bias=False)
            linear(m, at + "ffn.up_proj", "up", F, D, b, bias=False)
            linear(m, at + "ffn.down_proj", "down", D, F, b, bias=False)
        norm(m, "transformer.norm_f", "final_norm", bias=False)
        return m.done()

    return make


def starcoder2() -> Miniature:
    config = {"model_type": "starcoder2", "hidden_size": D, "num_attention_heads": HEADS, "num_key_value_heads": 2}
    m = Maker("starcoder2", {**config, "num_hidden_layers": BLOCKS, "intermediate_size": F})
    for at, b in blocks(m, "model.embed_tokens", "model.layers.", "model.norm"):
        norm(m, at + "input_layernorm", "attn_norm", b)
        for role, rows in (("q", D), ("k", 2 * HD), ("v", 2 * HD), ("o", D)):
            linear(m, f"{at}self_attn.{role}_proj", role, rows, D, b)
        norm(m, at + "post_attention_layernorm", "ffn_norm", b)
        linear(m, at + "mlp.c_fc", "up", F, D, b)
        linear(m, at + "mlp.c_proj", "down", D, F, b)
    return m.done()


def phi() -> Miniature:
    config = {"model_type": "phi", "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": BLOCKS}
    m = Maker("phi", {**config, "intermediate_size": F, "qk_layernorm": True})
    for at, b in blocks(m, "model.embed_tokens", "model.layers.", "model.final_layernorm"):
        norm(m, at + "input_layernorm", "attn_norm", b)
        for role, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "dense")):
            linear(m, at + "self_attn." + name, role, D, D, b)
        norm(m, at + "self_attn.q_layernorm", "q_norm", b, n=HD)
        norm(m, at + "self_attn.k_layernorm", "k_norm", b, n=HD)
        linear(m, at + "mlp.fc1", "up", F, D, b)
        linear(m, at + "mlp.fc2", "down", D, F, b)
    linear(m, "lm_head", "head", V, D)
    return m.done()


def phi_msft() -> Miniature:
    m = Maker("phi_msft", {"model_type": "phi-msft", "n_embd": D, "n_head": HEADS, "n_layer": BLOCKS})
    for at, b in blocks(m, "transformer.embd.wte", "transformer.h.", "lm_head.ln"):
        norm(m, at + "ln", "attn_norm", b)
        m[at + "mixer.Wqkv.weight"] = stacked(*qkv(m, b))
        m[at + "mixer.Wqkv.bias"] = stacked(*qkv(m, b, bias=True))
        linear(m, at + "mixer.out_proj", "o", D, D, b)
        linear(m, at + "mlp.fc1", "up", F, D, b)
        linear(m, at + "mlp.fc2", "down", D, F, b)
    linear(m, "lm_head.linear", "head", V, D)
    return m.done()


def _fairseq(m: Maker, at: str, b: int) -> None:
    for role, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
        linear(m, at + "self_attn." + name, role, D, D, b)
    linear(m, at + "fc1", "up", F, D, b)
    linear(m, at + "fc2", "down", D, F, b)


def opt() -> Miniature:
    config = {"model_type": "opt", "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": BLOCKS}
    m = Maker("opt", {**config, "ffn_dim": F, "do_layer_norm_before": True})
    m.put("model.decoder.embed_positions.weight", "position", POSITIONS + 2, D)
    for at, b in blocks(m, "model.decoder.embed_tokens", "model.decoder.layers.", "model.decoder.final_layer_norm"):
        norm(m, at + "self_attn_layer_norm", "attn_norm", b)
        _fairseq(m, at, b)
        norm(m, at + "final_layer_norm", "ffn_norm", b)
    return m.done()


def opt_350m() -> Miniature:
    """Norms behind, and an embedding narrower than the hidden state."""
    config = {"model_type": "opt", "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": BLOCKS}
    m = Maker("opt_post_norm", {**config, "ffn_dim": F, "do_layer_norm_before": False, "word_embed_proj_dim": 14})
    m.put("decoder.embed_tokens.weight", "embedding", V, 14)
    m.put("decoder.embed_positions.weight", "position", POSITIONS + 2, D)
    m.put("decoder.project_in.weight", "embedding_in", D, 14)
    m.put("decoder.project_out.weight", "embedding_out", 14, D)
    for b in range(BLOCKS):
        at = f"decoder.layers.{b}."
        _fairseq(m, at, b)
        norm(m, at + "self_attn_layer_norm", "attn_post_norm", b)
        norm(m, at + "final_layer_norm", "ffn_post_norm", b)
    return m.done()


def xglm() -> Miniature:
    m = Maker(
        "xglm", {"model_type": "xglm", "d_model": D, "attention_heads": HEADS, "num_layers": BLOCKS, "ffn_dim": F}
    )
    m.fixed("model.embed_positions.weights", POSITIONS + 2, D)
    for at, b in blocks(m, "model.embed_tokens", "model.layers.", "model.layer_norm"):
        norm(m, at + "self_attn_layer_norm", "attn_norm", b)
        _fairseq(m, at, b)
        norm(m, at + "final_layer_norm", "ffn_norm", b)
    m.put("lm_head.weight", "head", V, D)
    return m.done()


MINIATURES = [
    gpt2,
    openai_gpt,
    gpt_bigcode(multi_query=True),
    gpt_bigcode(multi_query=False),
    gpt_neo,
    gptj,
    codegen,
    gpt_neox,
    bloom,
    persimmon,
    falcon(
        "falcon-7b",
        1,
        # The published config counts 71 key-value heads, which multi_query overrules.
        {
            "multi_query": True,
            "num_kv_heads": HEADS,
            "parallel_attn": True,
            "new_decoder_architecture": False,
            "bias": False,
        },
    ),
    falcon(
        "falcon-40b", 2, {"num_kv_heads": 2, "parallel_attn": True, "new_decoder_architecture": True, "bias": False}
    ),
    falcon(
        "falcon-rw",
        HEADS,
        {"multi_query": False, "alibi": True, "parallel_attn": False, "new_decoder_architecture": False, "bias": True},
    ),
    mpt(grouped_query=False),
    mpt(grouped_query=True),
    starcoder2,
    phi,
    phi_msft,
    opt,
    opt_350m,
    xglm,
]
