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

from weightprint.anatomy.family import Family, Stack, Table, grouped, paired, stacked, table

__all__ = ["ATTENTION", "FAMILIES", "GATED", "MLA", "OUTSIDE", "POST_NORMS", "PRE_NORMS", "QK_NORMS", "decoder"]

ATTENTION = table("self_attn.q_proj=q self_attn.k_proj=k self_attn.v_proj=v self_attn.o_proj=o")
QK_NORMS = table("self_attn.q_norm=q_norm self_attn.k_norm=k_norm")
MLA = table(
    "self_attn.q_a_proj=q_a self_attn.q_a_layernorm=q_a_norm self_attn.q_b_proj=q_b self_attn.kv_a_proj_with_mqa=kv_a "
    "self_attn.kv_a_layernorm=kv_a_norm self_attn.kv_b_proj=kv_b self_attn.o_proj=o"
)
GATED = table("mlp.gate_proj=gate mlp.up_proj=up mlp.down_proj=down")
FUSED_GATED: Table = {"mlp.gate_up_proj": stacked("gate", "up"), "mlp.down_proj": "down"}
PRE_NORMS = table("input_layernorm=attn_norm post_attention_layernorm=ffn_norm")
POST_NORMS = table("post_attention_layernorm=attn_post_norm post_feedforward_layernorm=ffn_post_norm")
GEMMA_NORMS: Table = {"input_layernorm": "attn_norm", "pre_feedforward_layernorm": "ffn_norm", **POST_NORMS}
OUTSIDE = table("embed_tokens=embedding norm=final_norm lm_head=head score=classifier")
META_OUTSIDE = table("tok_embeddings=embedding norm=final_norm output=head")
META_FFN = table("feed_forward.w1=gate feed_forward.w3=up feed_forward.w2=down")
META_NORMS = table("attention_norm=attn_norm ffn_norm=ffn_norm")

#: Many models are Llama to a tensor: names, biases and shapes differ by nothing that matters here.
LLAMA_TYPES = (
    "llama", "mistral", "ministral", "qwen2", "minicpm", "internlm", "internlm3", "aquila", "granite", "smollm3",
    "seed_oss", "ernie4_5", "pangu", "PanguEmbedded",
)  # fmt: skip


def decoder(inside: Table, outside: Table = OUTSIDE, block: str = "layers.{b}.") -> tuple[Stack, ...]:
    """One stack of decoder blocks."""
    return (Stack("decoder", block, inside, outside),)


FAMILIES: tuple[Family, ...] = (
    Family("llama", decoder({**PRE_NORMS, **ATTENTION, **GATED}), LLAMA_TYPES),
    Family("qwen3", decoder({**PRE_NORMS, **ATTENTION, **QK_NORMS, **GATED}), ("qwen3",)),
    Family("gemma", decoder({**PRE_NORMS, **ATTENTION, **GATED}), ("gemma",), norm_offset=1.0),
    Family("olmo2", decoder({**POST_NORMS, **ATTENTION, **QK_NORMS, **GATED}), ("olmo2", "olmo3", "exaone4")),
    Family("gemma2", decoder({**GEMMA_NORMS, **ATTENTION, **GATED}), ("gemma2",), norm_offset=1.0),
    Family(
        "gemma3", decoder({**GEMMA_NORMS, **ATTENTION, **QK_NORMS, **GATED}), ("gemma3", "gemma3_text"), norm_offset=1.0
    ),
    Family("cohere", decoder({"input_layernorm": "attn_norm", **ATTENTION, **GATED}), ("cohere", "cohere2")),
    Family("cohere_qk_norm", decoder({"input_layernorm": "attn_norm", **ATTENTION, **QK_NORMS, **GATED}), ("cohere",)),
    Family("olmo_hf", decoder({**ATTENTION, **GATED}), ("olmo",)),
    Family(
        "hunyuan",
        decoder(table(PRE_NORMS, ATTENTION, "self_attn.query_layernorm=q_norm self_attn.key_layernorm=k_norm", GATED)),
        ("hunyuan_v1_dense",),
    ),
    Family(
        "stablelm",
        decoder(
            {
                **PRE_NORMS,
                **ATTENTION,
                # A norm for each head: the number is the head's.
                **table("self_attn.q_layernorm.norms.{e}=q_norm self_attn.k_layernorm.norms.{e}=k_norm"),
                **GATED,
            }
        ),
        ("stablelm",),
    ),
    Family("arcee", decoder({**PRE_NORMS, **ATTENTION, "mlp.up_proj": "up", "mlp.down_proj": "down"}), ("arcee",)),
    Family(
        "nemotron",
        decoder({**PRE_NORMS, **ATTENTION, "mlp.up_proj": "up", "mlp.down_proj": "down"}),
        ("nemotron",),
        norm_offset=1.0,
    ),
    Family("minicpm3", decoder({**PRE_NORMS, **MLA, **GATED}), ("minicpm3",)),
    Family("phi3", decoder(table(PRE_NORMS, "self_attn.qkv_proj=q|k|v self_attn.o_proj=o", FUSED_GATED)), ("phi3",)),
    Family(
        "baichuan",
        decoder({**PRE_NORMS, "self_attn.W_pack": stacked("q", "k", "v"), "self_attn.o_proj": "o", **GATED}),
        ("baichuan",),
    ),
    Family("glm", decoder({**PRE_NORMS, **ATTENTION, **FUSED_GATED}), ("glm",)),
    Family(
        "glm4",
        decoder(
            table(
                PRE_NORMS,
                "post_self_attn_layernorm=attn_post_norm post_mlp_layernorm=ffn_post_norm",
                ATTENTION,
                FUSED_GATED,
            )
        ),
        ("glm4",),
    ),
    Family(
        "chatglm2",
        decoder(
            table(
                PRE_NORMS,
                "self_attention.query_key_value=q|k|v self_attention.dense=o mlp.dense_h_to_4h=gate|up "
                "mlp.dense_4h_to_h=down",
            ),
            table("embedding.word_embeddings=embedding encoder.final_layernorm=final_norm output_layer=head"),
            "encoder.layers.{b}.",
        ),
        ("chatglm",),
    ),
    Family(
        "chatglm",
        decoder(
            table(
                PRE_NORMS,
                {"attention.query_key_value": grouped("q", "k", "v")},
                "attention.dense=o mlp.dense_h_to_4h=up mlp.dense_4h_to_h=down",
            ),
            table("word_embeddings=embedding final_layernorm=final_norm lm_head=head"),
        ),
        ("chatglm",),
    ),
    Family(
        "qwen",
        decoder(
            table("ln_1=attn_norm attn.c_attn=q|k|v attn.c_proj=o ln_2=ffn_norm mlp.w1=up mlp.w2=gate mlp.c_proj=down"),
            table("wte=embedding ln_f=final_norm lm_head=head"),
            "h.{b}.",
        ),
        ("qwen",),
    ),
    Family(
        "internlm2",
        decoder(
            {**META_NORMS, "attention.wqkv": grouped("q", "k", "v"), "attention.wo": "o", **META_FFN}, META_OUTSIDE
        ),
        ("internlm2",),
    ),
    Family(
        "llama_meta",
        decoder(
            table(
                META_NORMS,
                {"attention.wq": paired("q"), "attention.wk": paired("k")},
                "attention.wv=v attention.wo=o",
                META_FFN,
            ),
            META_OUTSIDE,
        ),
    ),
    Family(
        "olmo",
        decoder(
            table(
                "attn_norm=attn_norm att_proj=q|k|v q_proj=q k_proj=k v_proj=v q_norm=q_norm k_norm=k_norm attn_out=o "
                "ff_norm=ffn_norm ff_proj=up|gate ff_out=down"
            ),
            table("wte=embedding wpe=position ln_f=final_norm ff_out=head"),
            "blocks.{b}.",
        ),
        ("hf_olmo", "olmo"),
    ),
)
