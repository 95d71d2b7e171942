"""Miniatures of the dense decoder-only families.

Sizes differ wherever the architecture allows it (hidden, heads x head size, FFN, vocabulary), so that an axis or a
split that is wrong can't fit by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from miniature import Array, Maker, Miniature

V, D, H = 50, 20, 36
HEADS, KV, HD = 4, 2, 6
N, BLOCKS = HEADS * HD, 2
CONFIG: dict[str, Any] = {
    "hidden_size": D,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": HD,
    "intermediate_size": H,
    "num_hidden_layers": BLOCKS,
    "vocab_size": V,
}


def config(model_type: str, **changes: Any) -> dict[str, Any]:
    made = {"model_type": model_type, **CONFIG, **changes}
    return {key: value for key, value in made.items() if value is not None}


def attention(m: Maker, at: str, b: int, d: int = D, n: int = N, kv: int = KV * HD, **where: Any) -> None:
    """Separate q, k, v and o."""
    m.put(f"{at}q_proj.weight", "q", n, d, block=b, **where)
    m.put(f"{at}k_proj.weight", "k", kv, d, block=b, **where)
    m.put(f"{at}v_proj.weight", "v", kv, d, block=b, **where)
    m.put(f"{at}o_proj.weight", "o", d, n, block=b, **where)


def qkv(m: Maker, b: int, d: int = D, n: int = N, kv: int = KV * HD) -> list[Array]:
    """Canonical q, k and v, not yet stored."""
    return [m.draw(role, rows, d, block=b) for role, rows in (("q", n), ("k", kv), ("v", kv))]


def qkv_bias(m: Maker, b: int, n: int = N, kv: int = KV * HD) -> list[Array]:
    return [m.draw(f"{role}_bias", rows, block=b) for role, rows in (("q", n), ("k", kv), ("v", kv))]


def gated(m: Maker, at: str, b: int, d: int = D, h: int = H, **where: Any) -> None:
    m.put(f"{at}gate_proj.weight", "gate", h, d, block=b, **where)
    m.put(f"{at}up_proj.weight", "up", h, d, block=b, **where)
    m.put(f"{at}down_proj.weight", "down", d, h, block=b, **where)


def outside(m: Maker, prefix: str = "model.", d: int = D, head: bool = True, **where: Any) -> None:
    m.put(f"{prefix}embed_tokens.weight", "embedding", V, d, **where)
    m.put(f"{prefix}norm.weight", "final_norm", d, **where)
    if head:
        m.put("lm_head.weight", "head", V, d, **where)


def plain(
    family: str,
    model_type: str,
    *,
    norms: dict[str, str],
    label: str = "",
    prefix: str = "model.",
    qk_norm: tuple[int, ...] | None = None,
    biases: tuple[str, ...] = (),
    head: bool = True,
    gate: bool = True,
    **changes: Any,
) -> Callable[[], Miniature]:
    """A model with separate q, k, v, gate and up: families differ in norms, biases and prefix."""

    def make() -> Miniature:
        m = Maker(family, config(model_type, **changes), label=label)
        outside(m, prefix, head=head)
        for b in range(BLOCKS):
            at = f"{prefix}layers.{b}."
            for name, role in norms.items():
                m.put(f"{at}{name}.weight", role, D, block=b)
            attention(m, f"{at}self_attn.", b)
            if qk_norm is not None:
                m.put(f"{at}self_attn.q_norm.weight", "q_norm", *(n if n != -1 else N for n in qk_norm), block=b)
                kv_shape = (KV, HD) if len(qk_norm) == 2 else (KV * HD if qk_norm == (-1,) else qk_norm[0],)
                m.put(f"{at}self_attn.k_norm.weight", "k_norm", *kv_shape, block=b)
            for role in biases:
                n = {"q": N, "k": KV * HD, "v": KV * HD}.get(role, D)
                m.put(f"{at}self_attn.{role}_proj.bias", f"{role}_bias", n, block=b)
            if gate:
                gated(m, f"{at}mlp.", b)
            else:
                m.put(f"{at}mlp.up_proj.weight", "up", H, D, block=b)
                m.put(f"{at}mlp.down_proj.weight", "down", D, H, block=b)
        return m.done()

    return make


LLAMA = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
GEMMA2 = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "attn_post_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "ffn_post_norm",
}
OLMO2 = {"post_attention_layernorm": "attn_post_norm", "post_feedforward_layernorm": "ffn_post_norm"}


def llama_with_buffers() -> Miniature:
    """Older exports keep the rotary frequencies."""
    mini = plain("llama", "llama", norms=LLAMA, label="llama_buffers")()
    for b in range(BLOCKS):
        name = f"model.layers.{b}.self_attn.rotary_emb.inv_freq"
        mini.tensors[name] = np.arange(HD // 2, dtype=np.float32)
        mini.fixed |= {name}
    return mini


def gemma3_multimodal() -> Miniature:
    """The language part of a multimodal checkpoint, with its config nested and its head tied."""
    text = config("gemma3_text")
    m = Maker("gemma3", {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}})
    made = plain("gemma3", "gemma3", norms=GEMMA2, prefix="language_model.model.", qk_norm=(HD,), head=False)()
    mini = m.done()
    mini.tensors, mini.canonical, mini.label = made.tensors, made.canonical, "gemma3_multimodal"
    return mini


def llama_meta() -> Miniature:
    """Meta's own names; rows of q and k alternate between the halves of a head."""
    m = Maker("llama_meta", {"dim": N, "n_heads": HEADS, "n_kv_heads": KV})
    m.put("tok_embeddings.weight", "embedding", V, N)
    m.put("norm.weight", "final_norm", N)
    m.put("output.weight", "head", V, N)
    m.fixed("rope.freqs", HD // 2)
    for b in range(BLOCKS):
        at = f"layers.{b}."
        m.put(f"{at}attention_norm.weight", "attn_norm", N, block=b)
        q, k, v = qkv(m, b, d=N)
        for name, array, heads in (("wq", q, HEADS), ("wk", k, KV)):
            halves = array.reshape(heads, 2, HD // 2, N)
            m[f"{at}attention.{name}.weight"] = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(-1, N)
        m[f"{at}attention.wv.weight"] = v
        m.put(f"{at}attention.wo.weight", "o", N, N, block=b)
        m.put(f"{at}ffn_norm.weight", "ffn_norm", N, block=b)
        m.put(f"{at}feed_forward.w1.weight", "gate", H, N, block=b)
        m.put(f"{at}feed_forward.w2.weight", "down", N, H, block=b)
        m.put(f"{at}feed_forward.w3.weight", "up", H, N, block=b)
    return m.done()


def phi3() -> Miniature:
    m = Maker("phi3", config("phi3", head_dim=None, hidden_size=N))
    outside(m, d=N)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        m.put(f"{at}input_layernorm.weight", "attn_norm", N, block=b)
        m.put(f"{at}post_attention_layernorm.weight", "ffn_norm", N, block=b)
        m[f"{at}self_attn.qkv_proj.weight"] = np.concatenate(qkv(m, b, d=N))
        m.put(f"{at}self_attn.o_proj.weight", "o", N, N, block=b)
        gate, up = (m.draw(role, H, N, block=b) for role in ("gate", "up"))
        m[f"{at}mlp.gate_up_proj.weight"] = np.concatenate([gate, up])
        m.put(f"{at}mlp.down_proj.weight", "down", N, H, block=b)
    return m.done()


def glm(family: str) -> Callable[[], Miniature]:
    def make() -> Miniature:
        m = Maker(family, config(family))
        outside(m)
        norms = dict(LLAMA)
        if family == "glm4":
            norms |= {"post_self_attn_layernorm": "attn_post_norm", "post_mlp_layernorm": "ffn_post_norm"}
        for b in range(BLOCKS):
            at = f"model.layers.{b}."
            for name, role in norms.items():
                m.put(f"{at}{name}.weight", role, D, block=b)
            attention(m, f"{at}self_attn.", b)
            for role, n in (("q", N), ("k", KV * HD), ("v", KV * HD)):
                m.put(f"{at}self_attn.{role}_proj.bias", f"{role}_bias", n, block=b)
            gate, up = (m.draw(role, H, D, block=b) for role in ("gate", "up"))
            m[f"{at}mlp.gate_up_proj.weight"] = np.concatenate([gate, up])
            m.put(f"{at}mlp.down_proj.weight", "down", D, H, block=b)
        return m.done()

    return make


def chatglm2() -> Miniature:
    """ChatGLM 2 and 3, GLM-4-9b: all queries, then the keys and the values of the groups."""
    sizes = {
        "hidden_size": D,
        "num_attention_heads": HEADS,
        "kv_channels": HD,
        "multi_query_attention": True,
        "multi_query_group_num": KV,
        "ffn_hidden_size": H,
        "num_layers": BLOCKS,
        "padded_vocab_size": V,
    }
    m = Maker("chatglm2", {"model_type": "chatglm", **sizes})
    m.put("transformer.embedding.word_embeddings.weight", "embedding", V, D)
    m.fixed("transformer.rotary_pos_emb.inv_freq", HD // 4)
    for b in range(BLOCKS):
        at = f"transformer.encoder.layers.{b}."
        m.put(f"{at}input_layernorm.weight", "attn_norm", D, block=b)
        m[f"{at}self_attention.query_key_value.weight"] = np.concatenate(qkv(m, b))
        m[f"{at}self_attention.query_key_value.bias"] = np.concatenate(qkv_bias(m, b))
        m.put(f"{at}self_attention.dense.weight", "o", D, N, block=b)
        m.put(f"{at}post_attention_layernorm.weight", "ffn_norm", D, block=b)
        gate, up = (m.draw(role, H, D, block=b) for role in ("gate", "up"))
        m[f"{at}mlp.dense_h_to_4h.weight"] = np.concatenate([gate, up])
        m.put(f"{at}mlp.dense_4h_to_h.weight", "down", D, H, block=b)
    m.put("transformer.encoder.final_layernorm.weight", "final_norm", D)
    m.put("transformer.output_layer.weight", "head", V, D)
    return m.done()


def chatglm() -> Miniature:
    """The first ChatGLM: q, k and v head by head, a plain FFN, biases everywhere."""
    m = Maker(
        "chatglm", {"model_type": "chatglm", "hidden_size": N, "num_attention_heads": HEADS, "num_layers": BLOCKS}
    )
    m.put("transformer.word_embeddings.weight", "embedding", V, N)
    for b in range(BLOCKS):
        at = f"transformer.layers.{b}."
        for name, role in (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")):
            m.put(f"{at}{name}.weight", role, N, block=b)
            m.put(f"{at}{name}.bias", f"{role}_bias", N, block=b)
        m.fixed(f"{at}attention.rotary_emb.inv_freq", HD // 4)
        by_head = np.stack([a.reshape(HEADS, HD, N) for a in qkv(m, b, d=N, kv=N)], axis=1)
        m[f"{at}attention.query_key_value.weight"] = by_head.reshape(3 * N, N)
        by_head = np.stack([a.reshape(HEADS, HD) for a in qkv_bias(m, b, kv=N)], axis=1)
        m[f"{at}attention.query_key_value.bias"] = by_head.reshape(3 * N)
        m.put(f"{at}attention.dense.weight", "o", N, N, block=b)
        m.put(f"{at}attention.dense.bias", "o_bias", N, block=b)
        m.put(f"{at}mlp.dense_h_to_4h.weight", "up", H, N, block=b)
        m.put(f"{at}mlp.dense_h_to_4h.bias", "up_bias", H, block=b)
        m.put(f"{at}mlp.dense_4h_to_h.weight", "down", N, H, block=b)
        m.put(f"{at}mlp.dense_4h_to_h.bias", "down_bias", N, block=b)
    m.put("transformer.final_layernorm.weight", "final_norm", N)
    m.put("transformer.final_layernorm.bias", "final_norm_bias", N)
    m.put("lm_head.weight", "head", V, N)
    return m.done()


def qwen() -> Miniature:
    """Qwen's first model: w2 goes through the activation, so it is the gate."""
    sizes = {"hidden_size": N, "num_attention_heads": HEADS, "kv_channels": HD, "intermediate_size": 2 * H}
    m = Maker("qwen", {"model_type": "qwen", **sizes, "num_hidden_layers": BLOCKS})
    m.put("transformer.wte.weight", "embedding", V, N)
    for b in range(BLOCKS):
        at = f"transformer.h.{b}."
        m.put(f"{at}ln_1.weight", "attn_norm", N, block=b)
        m[f"{at}attn.c_attn.weight"] = np.vstack(qkv(m, b, d=N, kv=N))
        m[f"{at}attn.c_attn.bias"] = np.hstack(qkv_bias(m, b, kv=N))
        m.put(f"{at}attn.c_proj.weight", "o", N, N, block=b)
        m.put(f"{at}ln_2.weight", "ffn_norm", N, block=b)
        m.put(f"{at}mlp.w1.weight", "up", H, N, block=b)
        m.put(f"{at}mlp.w2.weight", "gate", H, N, block=b)
        m.put(f"{at}mlp.c_proj.weight", "down", N, H, block=b)
    m.put("transformer.ln_f.weight", "final_norm", N)
    m.put("lm_head.weight", "head", V, N)
    return m.done()


def internlm2() -> Miniature:
    """For each key-value head: the queries that read it, its key, its value."""
    m = Maker("internlm2", config("internlm2", head_dim=None, hidden_size=N))
    m.put("model.tok_embeddings.weight", "embedding", V, N)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        m.put(f"{at}attention_norm.weight", "attn_norm", N, block=b)
        q, k, v = qkv(m, b, d=N)
        groups = [q.reshape(KV, HEADS // KV, HD, N), k.reshape(KV, 1, HD, N), v.reshape(KV, 1, HD, N)]
        m[f"{at}attention.wqkv.weight"] = np.concatenate(groups, axis=1).reshape(-1, N)
        m.put(f"{at}attention.wo.weight", "o", N, N, block=b)
        m.put(f"{at}ffn_norm.weight", "ffn_norm", N, block=b)
        m.put(f"{at}feed_forward.w1.weight", "gate", H, N, block=b)
        m.put(f"{at}feed_forward.w3.weight", "up", H, N, block=b)
        m.put(f"{at}feed_forward.w2.weight", "down", N, H, block=b)
    m.put("model.norm.weight", "final_norm", N)
    m.put("output.weight", "head", V, N)
    return m.done()


def baichuan() -> Miniature:
    m = Maker("baichuan", config("baichuan", head_dim=None, num_key_value_heads=None, hidden_size=N))
    outside(m, d=N)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        m.put(f"{at}input_layernorm.weight", "attn_norm", N, block=b)
        m.put(f"{at}post_attention_layernorm.weight", "ffn_norm", N, block=b)
        m[f"{at}self_attn.W_pack.weight"] = np.stack(qkv(m, b, d=N, kv=N)).reshape(3 * N, N)
        m.put(f"{at}self_attn.o_proj.weight", "o", N, N, block=b)
        gated(m, f"{at}mlp.", b, d=N)
    return m.done()


def olmo(llama_blocks: bool = False) -> Callable[[], Miniature]:
    """Allen AI's own names: ff_proj holds up, then gate; norms have no weights."""

    def make() -> Miniature:
        sizes = {"d_model": N, "n_heads": HEADS, "n_layers": BLOCKS, "mlp_hidden_size": 2 * H}
        m = Maker("olmo", {"model_type": "hf_olmo", **sizes}, label="olmo_llama_blocks" if llama_blocks else "")
        m.put("model.transformer.wte.weight", "embedding", V, N)
        for b in range(BLOCKS):
            at = f"model.transformer.blocks.{b}."
            if llama_blocks:
                for role in "qkv":
                    m.put(f"{at}{role}_proj.weight", role, N, N, block=b)
            else:
                m[f"{at}att_proj.weight"] = np.concatenate(qkv(m, b, d=N, kv=N))
            m.put(f"{at}attn_out.weight", "o", N, N, block=b)
            gate, up = (m.draw(role, H, N, block=b) for role in ("gate", "up"))
            m[f"{at}ff_proj.weight"] = np.concatenate([up, gate])
            m.put(f"{at}ff_out.weight", "down", N, H, block=b)
        m.put("model.transformer.ff_out.weight", "head", V, N)
        return m.done()

    return make


def olmo_hf() -> Miniature:
    m = Maker("olmo_hf", config("olmo", hidden_size=N, head_dim=None))
    m.put("model.embed_tokens.weight", "embedding", V, N)
    m.put("lm_head.weight", "head", V, N)
    for b in range(BLOCKS):
        attention(m, f"model.layers.{b}.self_attn.", b, d=N)
        gated(m, f"model.layers.{b}.mlp.", b, d=N)
    return m.done()


def hunyuan() -> Miniature:
    m = Maker("hunyuan", config("hunyuan_v1_dense"))
    outside(m, head=False)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        for name, role in LLAMA.items():
            m.put(f"{at}{name}.weight", role, D, block=b)
        attention(m, f"{at}self_attn.", b)
        m.put(f"{at}self_attn.query_layernorm.weight", "q_norm", HD, block=b)
        m.put(f"{at}self_attn.key_layernorm.weight", "k_norm", HD, block=b)
        gated(m, f"{at}mlp.", b)
    return m.done()


def stablelm() -> Miniature:
    """StableLM 2 12B: one norm, with a feed-forward in parallel, and a norm for each head of q and k."""
    m = Maker("stablelm", config("stablelm", hidden_size=N, head_dim=None))
    outside(m, d=N)
    m.put("model.norm.bias", "final_norm_bias", N)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        m.put(f"{at}input_layernorm.weight", "attn_norm", N, block=b)
        m.put(f"{at}input_layernorm.bias", "attn_norm_bias", N, block=b)
        attention(m, f"{at}self_attn.", b, d=N)
        for head in range(HEADS):
            m.put(f"{at}self_attn.q_layernorm.norms.{head}.weight", "q_norm", HD, block=b, expert=head)
        for head in range(KV):
            m.put(f"{at}self_attn.k_layernorm.norms.{head}.weight", "k_norm", HD, block=b, expert=head)
        gated(m, f"{at}mlp.", b, d=N)
    return m.done()


def mla(m: Maker, at: str, b: int, d: int = D, q_rank: int | None = 10, **where: Any) -> None:
    """DeepSeek's attention: latents of q, and of keys and values with a rotary key beside."""
    heads, nope, rope, value, rank = 4, 5, 2, 3, 7
    if q_rank is None:
        m.put(f"{at}q_proj.weight", "q", heads * (nope + rope), d, block=b, **where)
    else:
        m.put(f"{at}q_a_proj.weight", "q_a", q_rank, d, block=b, **where)
        m.put(f"{at}q_a_layernorm.weight", "q_a_norm", q_rank, block=b, **where)
        m.put(f"{at}q_b_proj.weight", "q_b", heads * (nope + rope), q_rank, block=b, **where)
    m.put(f"{at}kv_a_proj_with_mqa.weight", "kv_a", rank + rope, d, block=b, **where)
    m.put(f"{at}kv_a_layernorm.weight", "kv_a_norm", rank, block=b, **where)
    m.put(f"{at}kv_b_proj.weight", "kv_b", heads * (nope + value), rank, block=b, **where)
    m.put(f"{at}o_proj.weight", "o", d, heads * value, block=b, **where)


def minicpm3() -> Miniature:
    m = Maker("minicpm3", config("minicpm3", head_dim=None, qk_nope_head_dim=5, qk_rope_head_dim=2, v_head_dim=3))
    outside(m, head=False)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        for name, role in LLAMA.items():
            m.put(f"{at}{name}.weight", role, D, block=b)
        mla(m, f"{at}self_attn.", b)
        gated(m, f"{at}mlp.", b)
    return m.done()


MINIATURES = [
    plain("llama", "llama", norms=LLAMA),
    plain("llama", "llama", norms=LLAMA, head=False, label="llama_tied"),
    plain("llama", "llama", norms=LLAMA, prefix="", head=False, label="llama_without_prefix"),
    plain("llama", "llama", norms=LLAMA, prefix="base_model.model.model.", head=False, label="llama_wrapped"),
    llama_with_buffers,
    plain("llama", "mistral", norms=LLAMA, label="mistral"),
    plain("llama", "qwen2", norms=LLAMA, biases=("q", "k", "v"), label="qwen2"),
    plain("llama", "minicpm", norms=LLAMA, head=False, label="minicpm"),
    plain("llama", "granite", norms=LLAMA, head=False, label="granite"),
    plain("llama", "smollm3", norms=LLAMA, head=False, label="smollm3"),
    plain("llama", "PanguEmbedded", norms=LLAMA, biases=("q", "k", "v", "o"), label="pangu_embedded"),
    plain("qwen3", "qwen3", norms=LLAMA, qk_norm=(HD,)),
    plain("gemma", "gemma", norms=LLAMA, head=False),
    plain("gemma2", "gemma2", norms=GEMMA2, head=False),
    plain("gemma3", "gemma3_text", norms=GEMMA2, qk_norm=(HD,), head=False),
    gemma3_multimodal,
    plain("olmo2", "olmo2", norms=OLMO2, qk_norm=(-1,)),
    plain("cohere", "cohere", norms={"input_layernorm": "attn_norm"}, head=False),
    plain("cohere_qk_norm", "cohere", norms={"input_layernorm": "attn_norm"}, qk_norm=(HEADS, HD), head=False),
    plain("stablelm", "stablelm", norms=LLAMA, label="stablelm_without_qk_norm"),
    plain("arcee", "arcee", norms=LLAMA, gate=False),
    plain("nemotron", "nemotron", norms=LLAMA, gate=False),
    stablelm,
    olmo(),
    olmo(llama_blocks=True),
    olmo_hf,
    hunyuan,
    minicpm3,
    phi3,
    baichuan,
    glm("glm"),
    glm("glm4"),
    chatglm,
    chatglm2,
    qwen,
    internlm2,
    llama_meta,
]
