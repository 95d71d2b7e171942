"""Decoder-only models with dense FFNs.

Facts are from the published modeling code, where order can't be told from shapes:

* ``gate_up_proj`` of Phi-3 and GLM is gate, then up; ``dense_h_to_4h`` of ChatGLM2 and 3 likewise; ``ff_proj`` of OLMo
  is up, then gate; Qwen's first model computes ``w1(x) * silu(w2(x))``, so w1 is up.
* ``wqkv`` of InternLM2 and ``query_key_value`` of ChatGLM lie head by head, those of ChatGLM2 and 3, ``qkv_proj``,
  ``W_pack``, ``c_attn`` and ``att_proj`` one after the other.
* Which norm ``post_attention_layernorm`` is depends on its neighbours: with ``pre_feedforward_layernorm`` or without
  ``input_layernorm`` it stands behind attention, else before the FFN.
* Meta's original checkpoints hold the rows of q and k as rotary pairs, the hub's as halves.
"""

from __future__ import annotations

from typing import Any

from weightprint.anatomy.family import Family, Part, Stack, paired, row, stack, table

ATTENTION = table("self_attn.{q,k,v,o}_proj={q,k,v,o}")
QK_NORMS = table("self_attn.{q,k}_norm={q,k}_norm")
MLA = table(
    "self_attn.q_a_proj=q_a self_attn.q_a_layernorm=q_a_norm self_attn.q_b_proj=q_b self_attn.kv_a_proj_with_mqa=kv_a "
    "self_attn.kv_a_layernorm=kv_a_norm self_attn.kv_b_proj=kv_b self_attn.o_proj=o"
)
GATED = table("mlp.{gate,up,down}_proj={gate,up,down}")
FUSED_GATED = table("mlp.gate_up_proj=gate|up mlp.down_proj=down")
UP_DOWN = table("mlp.{up,down}_proj={up,down}")
NORMS = table("{input,post_attention}_layernorm={attn,ffn}_norm")
POST_NORMS = table("post_{attention,feedforward}_layernorm={attn,ffn}_post_norm")
GEMMA_NORMS = table("{input,pre_feedforward}_layernorm={attn,ffn}_norm", POST_NORMS)
OUTSIDE = table("embed_tokens=embedding norm=final_norm lm_head=head score=classifier")
META_OUTSIDE = table("tok_embeddings=embedding norm=final_norm output=head")
META_FFN = table("feed_forward.{w1,w3,w2}={gate,up,down}")
META_NORMS = table("{attention,ffn}_norm={attn,ffn}_norm")

#: Many models are Llama to a tensor: names, biases and shapes differ by nothing that matters here.
LLAMA_TYPES = (
    "llama mistral ministral qwen2 minicpm internlm internlm3 aquila granite smollm3 seed_oss ernie4_5 pangu "
    "PanguEmbedded"
)


def blocks(*inside: Part, outside: Part = OUTSIDE, block: str = "layers.{b}.") -> Stack:
    """A stack of decoder blocks."""
    return stack("decoder", block, *inside, outside=outside)


def decoder(name: str, *inside: Part, outside: Part = OUTSIDE, block: str = "layers.{b}.", **traits: Any) -> Family:
    """A family of one such stack; `traits` as `row` takes them."""
    return row(name, blocks(*inside, outside=outside, block=block), **traits)


FAMILIES: tuple[Family, ...] = (
    decoder("llama", NORMS, ATTENTION, GATED, types=LLAMA_TYPES),
    decoder("qwen3", NORMS, ATTENTION, QK_NORMS, GATED),
    decoder("gemma", NORMS, ATTENTION, GATED, norm_offset=1.0),
    decoder("olmo2", POST_NORMS, ATTENTION, QK_NORMS, GATED, types="olmo2 olmo3 exaone4"),
    decoder("gemma2", GEMMA_NORMS, ATTENTION, GATED, norm_offset=1.0),
    decoder("gemma3", GEMMA_NORMS, ATTENTION, QK_NORMS, GATED, types="gemma3 gemma3_text", norm_offset=1.0),
    decoder("cohere", "input_layernorm=attn_norm", ATTENTION, GATED, types="cohere cohere2"),
    decoder("cohere_qk_norm", "input_layernorm=attn_norm", ATTENTION, QK_NORMS, GATED, types="cohere"),
    decoder("olmo_hf", ATTENTION, GATED, types="olmo"),
    decoder("hunyuan", NORMS, ATTENTION, "self_attn.{query,key}_layernorm={q,k}_norm", GATED, types="hunyuan_v1_dense"),
    # A norm for each head: the number is the head's.
    decoder("stablelm", NORMS, ATTENTION, "self_attn.{q,k}_layernorm.norms.{e}={q,k}_norm", GATED),
    decoder("arcee", NORMS, ATTENTION, UP_DOWN),
    decoder("nemotron", NORMS, ATTENTION, UP_DOWN, norm_offset=1.0),
    decoder("minicpm3", NORMS, MLA, GATED),
    decoder("phi3", NORMS, "self_attn.qkv_proj=q|k|v self_attn.o_proj=o", FUSED_GATED),
    decoder("baichuan", NORMS, "self_attn.W_pack=q|k|v self_attn.o_proj=o", GATED),
    decoder("glm", NORMS, ATTENTION, FUSED_GATED),
    decoder("glm4", NORMS, "post_{self_attn,mlp}_layernorm={attn,ffn}_post_norm", ATTENTION, FUSED_GATED),
    decoder(
        "chatglm2",
        NORMS,
        "self_attention.query_key_value=q|k|v self_attention.dense=o mlp.dense_h_to_4h=gate|up mlp.dense_4h_to_h=down",
        outside="embedding.word_embeddings=embedding encoder.final_layernorm=final_norm output_layer=head",
        block="encoder.layers.{b}.",
        types="chatglm",
    ),
    decoder(
        "chatglm",
        NORMS,
        "attention.query_key_value=q/k/v attention.dense=o mlp.dense_{h_to_4h,4h_to_h}={up,down}",
        outside="word_embeddings=embedding final_layernorm=final_norm lm_head=head",
    ),
    decoder(
        "qwen",
        "ln_1=attn_norm attn.c_attn=q|k|v attn.c_proj=o ln_2=ffn_norm mlp.{w1,w2,c_proj}={up,gate,down}",
        outside="wte=embedding ln_f=final_norm lm_head=head",
        block="h.{b}.",
    ),
    decoder("internlm2", META_NORMS, "attention.wqkv=q/k/v attention.wo=o", META_FFN, outside=META_OUTSIDE),
    decoder(
        "llama_meta",
        META_NORMS,
        {"attention.wq": paired("q"), "attention.wk": paired("k")},
        "attention.{wv,wo}={v,o}",
        META_FFN,
        outside=META_OUTSIDE,
        types="",
    ),
    decoder(
        "olmo",
        "attn_norm=attn_norm att_proj=q|k|v {q,k,v}_proj={q,k,v} {q,k}_norm={q,k}_norm attn_out=o "
        "ff_norm=ffn_norm ff_proj=up|gate ff_out=down",
        outside="wte=embedding wpe=position ln_f=final_norm ff_out=head",
        block="blocks.{b}.",
        types="hf_olmo olmo",
    ),
)
