"""Miniatures in GGUF's names, made the way llama.cpp's converter makes them from the hub's tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from miniature import Array, Maker, Miniature

V, D, F = 40, 24, 56
HEADS, KV, HD = 4, 2, 6
BLOCKS = 2


def config(architecture: str, **more: int) -> dict[str, int | str]:
    return {
        "model_type": architecture,
        "hidden_size": D,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "head_dim": HD,
        "intermediate_size": F,
        "num_hidden_layers": BLOCKS,
        **more,
    }


def to_pairs(x: Array, heads: int) -> Array:
    """The converter's reordering, row by row: row i and row i + hd/2 of a head become neighbours."""
    out = np.empty_like(x)
    size = len(x) // heads
    for head in range(heads):
        for i in range(size // 2):
            out[head * size + 2 * i] = x[head * size + i]
            out[head * size + 2 * i + 1] = x[head * size + size // 2 + i]
    return out


def _attention(m: Maker, at: str, b: int, *, pairs: bool, bias: bool = False) -> None:
    for role, heads in (("q", HEADS), ("k", KV), ("v", KV)):
        for end, shape in ((".weight", (heads * HD, D)), (".bias", (heads * HD,)))[: 1 + bias]:
            x = m.draw(role + "_bias" * (end == ".bias"), *shape, block=b)
            m[f"{at}attn_{role}{end}"] = to_pairs(x, heads) if pairs and role != "v" else x
    m.put(at + "attn_output.weight", "o", D, HEADS * HD, block=b)


def blocks(m: Maker, *, head: bool = True) -> Iterator[tuple[str, int]]:
    """The embedding; prefix and number of each block, begun with its first norm; the last norm and the head."""
    m.put("token_embd.weight", "embedding", V, D)
    for b in range(BLOCKS):
        m.put(f"blk.{b}.attn_norm.weight", "attn_norm", D, block=b)
        yield f"blk.{b}.", b
    m.put("output_norm.weight", "final_norm", D)
    if head:
        m.put("output.weight", "head", V, D)


def _experts(m: Maker, name: str, role: str, n: int, rows: int, columns: int, b: int) -> None:
    m[name] = np.stack([m.draw(role, rows, columns, block=b, expert=e) for e in range(n)])


def _dense_ffn(m: Maker, at: str, b: int) -> None:
    m.put(at + "ffn_gate.weight", "gate", F, D, block=b)
    m.put(at + "ffn_up.weight", "up", F, D, block=b)
    m.put(at + "ffn_down.weight", "down", D, F, block=b)


def llama() -> Miniature:
    """The head is the embedding, as in SmolLM2."""
    m = Maker("gguf_paired", config("llama"), label="gguf-llama")
    m.fixed("rope_freqs.weight", HD // 2)
    for at, b in blocks(m, head=False):
        _attention(m, at, b, pairs=True, bias=True)
        m.put(at + "ffn_norm.weight", "ffn_norm", D, block=b)
        _dense_ffn(m, at, b)
    return m.done()


def mixtral() -> Miniature:
    """Experts in one tensor, still architecture llama."""
    m = Maker("gguf_paired", config("llama", num_local_experts=3), label="gguf-mixtral")
    for at, b in blocks(m):
        _attention(m, at, b, pairs=True)
        m.put(at + "ffn_norm.weight", "ffn_norm", D, block=b)
        m.put(at + "ffn_gate_inp.weight", "router", 3, D, block=b)
        _experts(m, at + "ffn_gate_exps.weight", "gate", 3, F, D, b)
        _experts(m, at + "ffn_up_exps.weight", "up", 3, F, D, b)
        _experts(m, at + "ffn_down_exps.weight", "down", 3, D, F, b)
    return m.done()


def qwen3() -> Miniature:
    """Rows as the hub has them, norms of queries and keys."""
    m = Maker("gguf", config("qwen3"), label="gguf-qwen3")
    for at, b in blocks(m):
        _attention(m, at, b, pairs=False)
        m.put(at + "attn_q_norm.weight", "q_norm", HD, block=b)
        m.put(at + "attn_k_norm.weight", "k_norm", HD, block=b)
        m.put(at + "ffn_norm.weight", "ffn_norm", D, block=b)
        _dense_ffn(m, at, b)
    return m.done()


def qwen2_moe() -> Miniature:
    """Experts, a shared one with a gate of its own."""
    m = Maker("gguf", config("qwen2moe", num_local_experts=3), label="gguf-qwen2moe")
    for at, b in blocks(m):
        _attention(m, at, b, pairs=False, bias=True)
        m.put(at + "ffn_norm.weight", "ffn_norm", D, block=b)
        m.put(at + "ffn_gate_inp.weight", "router", 3, D, block=b)
        m.put(at + "ffn_gate_inp_shexp.weight", "shared_gate", D, block=b)
        for role, rows, columns in (("gate", F, D), ("up", F, D), ("down", D, F)):
            _experts(m, f"{at}ffn_{role}_exps.weight", role, 3, rows, columns, b)
            m.put(f"{at}ffn_{role}_shexp.weight", role, rows, columns, block=b, expert="shared")
    return m.done()


def gemma2() -> Miniature:
    """Four norms per block; the converter has already added 1 to them."""
    m = Maker("gguf", config("gemma2"), label="gguf-gemma2")
    for at, b in blocks(m, head=False):
        _attention(m, at, b, pairs=False)
        m.put(at + "post_attention_norm.weight", "attn_post_norm", D, block=b)
        m.put(at + "ffn_norm.weight", "ffn_norm", D, block=b)
        _dense_ffn(m, at, b)
        m.put(at + "post_ffw_norm.weight", "ffn_post_norm", D, block=b)
    return m.done()


def phi3() -> Miniature:
    """q, k, v in one tensor, gate and up in another that is called up."""
    m = Maker("gguf_gate_up", config("phi3"), label="gguf-phi3")
    m.fixed("rope_factors_long.weight", HD // 2)
    m.fixed("rope_factors_short.weight", HD // 2)
    for at, b in blocks(m):
        parts = [m.draw(role, heads * HD, D, block=b) for role, heads in (("q", HEADS), ("k", KV), ("v", KV))]
        m[at + "attn_qkv.weight"] = np.concatenate(parts)
        m.put(at + "attn_output.weight", "o", D, D, block=b)
        m.put(at + "ffn_norm.weight", "ffn_norm", D, block=b)
        m[at + "ffn_up.weight"] = np.concatenate([m.draw(role, F, D, block=b) for role in ("gate", "up")])
        m.put(at + "ffn_down.weight", "down", D, F, block=b)
    return m.done()


def per_head_split(architecture: str) -> Callable[[], Miniature]:
    """GPT-2, Bloom, Falcon, GPT-NeoX: the converter leaves q, then k, then v; matrices are (out x in)."""

    def make() -> Miniature:
        kv = HEADS if architecture != "falcon" else KV
        m = Maker("gguf", config(architecture, num_key_value_heads=kv), label=f"gguf-{architecture}")
        m.put("token_embd.weight", "embedding", V, D)
        if architecture == "gpt2":
            m.put("position_embd.weight", "position", 16, D)
        if architecture == "bloom":
            m.put("token_embd_norm.weight", "embedding_norm", D)
            m.put("token_embd_norm.bias", "embedding_norm_bias", D)
        for b in range(BLOCKS):
            at = f"blk.{b}."
            second = "attn_norm_2" if architecture == "falcon" else "ffn_norm"
            for name, role in (("attn_norm", "attn_norm"), (second, "ffn_norm")):
                m.put(f"{at}{name}.weight", role, D, block=b)
                m.put(f"{at}{name}.bias", role + "_bias", D, block=b)
            rows = (("q", HEADS * HD), ("k", kv * HD), ("v", kv * HD))
            m[at + "attn_qkv.weight"] = np.concatenate([m.draw(role, n, D, block=b) for role, n in rows])
            m[at + "attn_qkv.bias"] = np.concatenate([m.draw(role + "_bias", n, block=b) for role, n in rows])
            for name, role, n, columns in (
                ("attn_output", "o", D, D),
                ("ffn_up", "up", F, D),
                ("ffn_down", "down", D, F),
            ):
                m.put(f"{at}{name}.weight", role, n, columns, block=b)
                m.put(f"{at}{name}.bias", role + "_bias", n, block=b)
        m.put("output_norm.weight", "final_norm", D)
        m.put("output_norm.bias", "final_norm_bias", D)
        m.put("output.weight", "head", V, D)
        return m.done()

    return make


def bert() -> Miniature:
    m = Maker("gguf_bert", config("bert", num_key_value_heads=HEADS), stack="encoder", label="gguf-bert")
    m.put("token_embd.weight", "embedding", V, D)
    m.put("position_embd.weight", "position", 16, D)
    m.put("token_types.weight", "token_type", 2, D)
    m.put("token_embd_norm.weight", "embedding_norm", D)
    m.put("token_embd_norm.bias", "embedding_norm_bias", D)
    for b in range(BLOCKS):
        at = f"blk.{b}."
        for name, role, n, columns in (
            ("attn_q", "q", D, D),
            ("attn_k", "k", D, D),
            ("attn_v", "v", D, D),
            ("attn_output", "o", D, D),
            ("ffn_up", "up", F, D),
            ("ffn_down", "down", D, F),
        ):
            m.put(f"{at}{name}.weight", role, n, columns, block=b)
            m.put(f"{at}{name}.bias", role + "_bias", n, block=b)
        for name, role in (("attn_output_norm", "attn_post_norm"), ("layer_output_norm", "ffn_post_norm")):
            m.put(f"{at}{name}.weight", role, D, block=b)
            m.put(f"{at}{name}.bias", role + "_bias", D, block=b)
    return m.done()


def dbrx() -> Miniature:
    """Its norm before the FFN goes by the name of one behind attention."""
    m = Maker("gguf_dbrx", config("dbrx", num_local_experts=3), label="gguf-dbrx")
    for at, b in blocks(m):
        parts = [m.draw(role, heads * HD, D, block=b) for role, heads in (("q", HEADS), ("k", KV), ("v", KV))]
        m[at + "attn_qkv.weight"] = np.concatenate(parts)
        m.put(at + "attn_output.weight", "o", D, D, block=b)
        m.put(at + "attn_output_norm.weight", "ffn_norm", D, block=b)
        m.put(at + "ffn_gate_inp.weight", "router", 3, D, block=b)
        for role, rows, columns in (("gate", F, D), ("up", F, D), ("down", D, F)):
            _experts(m, f"{at}ffn_{role}_exps.weight", role, 3, rows, columns, b)
    return m.done()


def deepseek2() -> Miniature:
    """Multi-head latent attention with its products split off, a dense block, then experts."""
    nope, rope, value, latent, q_latent = 4, 2, 5, 8, 10
    m = Maker("gguf", config("deepseek2", num_local_experts=3), label="gguf-deepseek2")
    for at, b in blocks(m):
        m.put(at + "attn_q_a.weight", "q_a", q_latent, D, block=b)
        m.put(at + "attn_q_a_norm.weight", "q_a_norm", q_latent, block=b)
        m.put(at + "attn_q_b.weight", "q_b", HEADS * (nope + rope), q_latent, block=b)
        m.put(at + "attn_kv_a_mqa.weight", "kv_a", latent + rope, D, block=b)
        m.put(at + "attn_kv_a_norm.weight", "kv_a_norm", latent, block=b)
        m.put(at + "attn_k_b.weight", "k_b", HEADS, latent, nope, block=b)
        m.put(at + "attn_v_b.weight", "v_b", HEADS, value, latent, block=b)
        m.put(at + "attn_output.weight", "o", D, HEADS * value, block=b)
        m.put(at + "ffn_norm.weight", "ffn_norm", D, block=b)
        if b == 0:
            _dense_ffn(m, at, b)
            continue
        m.put(at + "ffn_gate_inp.weight", "router", 3, D, block=b)
        m.put(at + "exp_probs_b.bias", "router_correction", 3, block=b)
        for role, rows, columns in (("gate", F, D), ("up", F, D), ("down", D, F)):
            _experts(m, f"{at}ffn_{role}_exps.weight", role, 3, rows, columns, b)
            m.put(f"{at}ffn_{role}_shexp.weight", role, rows, columns, block=b, expert="shared")
    return m.done()


def mamba() -> Miniature:
    inner, state, rank = 48, 6, 3
    m = Maker("gguf", {"model_type": "mamba", "hidden_size": D, "num_hidden_layers": BLOCKS}, label="gguf-mamba")
    for at, b in blocks(m, head=False):
        m.put(at + "ssm_in.weight", "ssm_in", 2 * inner, D, block=b)
        m.put(at + "ssm_conv1d.weight", "ssm_conv", inner, 4, block=b)
        m.put(at + "ssm_conv1d.bias", "ssm_conv_bias", inner, block=b)
        m.put(at + "ssm_x.weight", "ssm_x", rank + 2 * state, inner, block=b)
        m.put(at + "ssm_dt.weight", "ssm_dt", inner, rank, block=b)
        m.put(at + "ssm_dt.bias", "ssm_dt_bias", inner, block=b)
        m.put(at + "ssm_a", "ssm_a", inner, state, block=b)
        m.put(at + "ssm_d", "ssm_d", inner, block=b)
        m.put(at + "ssm_out.weight", "ssm_out", D, inner, block=b)
    return m.done()


def t5() -> Miniature:
    inner = 20
    m = Maker("gguf_t5", config("t5", head_dim=5), label="gguf-t5")
    m.put("token_embd.weight", "embedding", V, D)
    for stack, root in (("encoder", "enc"), ("decoder", "dec")):
        for b in range(BLOCKS):
            at = f"{root}.blk.{b}."
            for module, prefix in (("attn", ""), ("cross_attn", "cross_"))[: 1 + (stack == "decoder")]:
                m.put(f"{at}{module}_norm.weight", "cross_norm" if prefix else "attn_norm", D, block=b, stack=stack)
                for role in "qkv":
                    m.put(f"{at}{module}_{role}.weight", prefix + role, inner, D, block=b, stack=stack)
                m.put(f"{at}{module}_o.weight", prefix + "o", D, inner, block=b, stack=stack)
            m.put(at + "attn_rel_b.weight", "relative_bias", 32, HEADS, block=b, stack=stack)
            m.put(at + "ffn_norm.weight", "ffn_norm", D, block=b, stack=stack)
            for role, rows, columns in (("gate", F, D), ("up", F, D), ("down", D, F)):
                m.put(f"{at}ffn_{role}.weight", role, rows, columns, block=b, stack=stack)
        m.put(f"{root}.output_norm.weight", "final_norm", D, stack=stack)
    m.put("output.weight", "head", V, D)
    return m.done()


def vision() -> Miniature:
    """LLaVA's projector file."""
    m = Maker("gguf_vision", {"model_type": "clip"}, stack="vision", label="gguf-vision")
    m.put("v.patch_embd.weight", "patch", D, 3, 4, 4)
    m.put("v.position_embd.weight", "position", 17, D)
    m.put("v.class_embd", "class_token", D)
    for name, role in (("v.pre_ln", "pre_norm"), ("v.post_ln", "final_norm")):
        m.put(name + ".weight", role, D)
        m.put(name + ".bias", role + "_bias", D)
    for b in range(BLOCKS):
        at = f"v.blk.{b}."
        for name, role, rows, columns in (
            ("attn_q", "q", D, D),
            ("attn_k", "k", D, D),
            ("attn_v", "v", D, D),
            ("attn_out", "o", D, D),
            ("ffn_up", "up", F, D),
            ("ffn_down", "down", D, F),
        ):
            m.put(f"{at}{name}.weight", role, rows, columns, block=b)
            m.put(f"{at}{name}.bias", role + "_bias", rows, block=b)
        for name, role in (("ln1", "attn_norm"), ("ln2", "ffn_norm")):
            m.put(f"{at}{name}.weight", role, D, block=b)
            m.put(f"{at}{name}.bias", role + "_bias", D, block=b)
    for name, role, rows, columns in (("mm.0", "projector", 20, D), ("mm.2", "projector_out", 20, 20)):
        m.put(name + ".weight", role, rows, columns)
        m.put(name + ".bias", role + "_bias", rows)
    return m.done()


MINIATURES = [
    llama,
    mixtral,
    qwen3,
    qwen2_moe,
    gemma2,
    phi3,
    per_head_split("gpt2"),
    per_head_split("bloom"),
    per_head_split("falcon"),
    per_head_split("gptneox"),
    bert,
    dbrx,
    deepseek2,
    mamba,
    t5,
    vision,
]
