"""Decoders beside the Llama-like ones: GPT-2's kin, with q, k and v in one tensor or plain two-matrix FFNs.

How q, k and v share a tensor differs by who trained the model, not by name. GPT-2 and MPT put all queries first, then
all keys, then all values. Megatron's kin (GPT-NeoX, Bloom, Falcon, Persimmon, GPT-BigCode with full heads) go head by
head; Falcon's newer kind and multi-query attention are the same with several queries for each key. CodeGen was cut for
four TPU cores: each core's queries, values, keys. GPT-2 alone stores matrices (in x out); GPT-BigCode has its names
with ordinary linears, so shapes tell the two apart.

Order of rows: GPT-BigCode's multi-query form holds all queries, one key, one value, which is "grouped" with one
key-value head. Two norms in parallel blocks (GPT-NeoX, Falcon 40B) feed attention and FFN; one norm (GPT-J, Phi,
Falcon 7B) feeds both, and is ``attn_norm``.

Sources: the modeling files of Hugging Face transformers for gpt2, gpt_bigcode, gpt_neox, gptj, gpt_neo, codegen, opt,
bloom, falcon, mpt, starcoder2, phi, persimmon, xglm.
"""

from __future__ import annotations

from weightprint.anatomy.family import Family, Table, grouped, single, stacked, table, transposed

__all__ = ["FAMILIES"]

_HEADS = table("lm_head=head score=classifier")
_GPT_OUTSIDE: Table = {"wte": "embedding", "wpe": "position", "ln_f": "final_norm", **_HEADS}
_GPT_NORMS = table("ln_1=attn_norm ln_2=ffn_norm")
_LLAMA_OUTSIDE: Table = {"embed_tokens": "embedding", "norm": "final_norm", **_HEADS}
_FOUR = table("dense_h_to_4h=up dense_4h_to_h=down")
_MEGATRON_FFN: Table = {f"mlp.{name}": role for name, role in _FOUR.items()}
_MASKS = ("*.attn.bias", "*.attn.masked_bias")
_ATTENTION_MASKS = ("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq")
_GPT2_CROSS: Table = {
    "crossattention.q_attn": transposed("cross_q"),
    "crossattention.c_attn": transposed(stacked("cross_k", "cross_v")),
    "crossattention.c_proj": transposed("cross_o"),
    "ln_cross_attn": "cross_norm",
}

#: The attention of OPT, XGLM, BART and their kin.
OUT_PROJ = table("self_attn.q_proj=q self_attn.k_proj=k self_attn.v_proj=v self_attn.out_proj=o")
#: Their blocks with norms in front …
FAIRSEQ_PRE: Table = table(OUT_PROJ, "self_attn_layer_norm=attn_norm fc1=up fc2=down final_layer_norm=ffn_norm")
#: … and behind.
FAIRSEQ_POST: Table = table(FAIRSEQ_PRE, "self_attn_layer_norm=attn_post_norm final_layer_norm=ffn_post_norm")
_OPT_OUTSIDE: Table = table("decoder.embed_tokens=embedding decoder.embed_positions=position", _HEADS)

FAMILIES: tuple[Family, ...] = (
    single(
        "gpt2",
        "decoder",
        "h.{b}.",
        {
            **_GPT_NORMS,
            "attn.c_attn": transposed(stacked("q", "k", "v")),
            "attn.c_proj": transposed("o"),
            "mlp.c_fc": transposed("up"),
            "mlp.c_proj": transposed("down"),
            **_GPT2_CROSS,
        },
        _GPT_OUTSIDE,
        ("gpt2",),
        fixed=(*_MASKS, "*.crossattention.bias", "*.crossattention.masked_bias"),
    ),
    single(
        "openai_gpt",  # the first GPT: norms behind
        "decoder",
        "h.{b}.",
        {
            "attn.c_attn": transposed(stacked("q", "k", "v")),
            "attn.c_proj": transposed("o"),
            "ln_1": "attn_post_norm",
            "mlp.c_fc": transposed("up"),
            "mlp.c_proj": transposed("down"),
            "ln_2": "ffn_post_norm",
        },
        {"tokens_embed": "embedding", "positions_embed": "position", **_HEADS},
        ("openai-gpt",),
        pre_norm=False,
        fixed=("*.attn.bias", "*position_ids"),
    ),
    single(
        "gpt_bigcode",
        "decoder",
        "h.{b}.",
        table(_GPT_NORMS, {"attn.c_attn": grouped("q", "k", "v")}, "attn.c_proj=o mlp.c_fc=up mlp.c_proj=down"),
        _GPT_OUTSIDE,
        ("gpt_bigcode",),
        fixed=_MASKS,
    ),
    single(
        "gpt_neo",
        "decoder",
        "h.{b}.",
        table(
            _GPT_NORMS,
            "attn.attention.q_proj=q attn.attention.k_proj=k attn.attention.v_proj=v "
            "attn.attention.out_proj=o mlp.c_fc=up mlp.c_proj=down",
        ),
        _GPT_OUTSIDE,
        ("gpt_neo",),
        fixed=("*.attn.attention.bias", "*.attn.attention.masked_bias"),
    ),
    single(
        "gptj",
        "decoder",
        "h.{b}.",
        table("ln_1=attn_norm attn.q_proj=q attn.k_proj=k attn.v_proj=v attn.out_proj=o mlp.fc_in=up mlp.fc_out=down"),
        _GPT_OUTSIDE,
        ("gptj",),
        fixed=(*_MASKS, "*.attn.embed_positions", "*.attn.scale_attn"),
    ),
    single(
        "codegen",
        "decoder",
        "h.{b}.",
        table(
            {"ln_1": "attn_norm", "attn.qkv_proj": grouped("q", "v", "k", groups=4)},
            "attn.out_proj=o mlp.fc_in=up mlp.fc_out=down",
        ),
        _GPT_OUTSIDE,
        ("codegen",),
        fixed=("*.attn.causal_mask", *_MASKS),
    ),
    single(
        "gpt_neox",
        "decoder",
        "layers.{b}.",
        table(
            "input_layernorm=attn_norm post_attention_layernorm=ffn_norm",
            {"attention.query_key_value": grouped("q", "k", "v"), "attention.dense": "o"},
            _MEGATRON_FFN,
        ),
        {"embed_in": "embedding", "final_layer_norm": "final_norm", "embed_out": "head", **_HEADS},
        ("gpt_neox",),
        fixed=_ATTENTION_MASKS,
    ),
    single(
        "bloom",
        "decoder",
        "h.{b}.",
        table(
            "input_layernorm=attn_norm post_attention_layernorm=ffn_norm",
            {"self_attention.query_key_value": grouped("q", "k", "v"), "self_attention.dense": "o"},
            _MEGATRON_FFN,
        ),
        table("word_embeddings=embedding word_embeddings_layernorm=embedding_norm ln_f=final_norm", _HEADS),
        ("bloom",),
    ),
    single(
        "falcon",
        "decoder",
        "h.{b}.",
        table(
            "input_layernorm=attn_norm post_attention_layernorm=ffn_norm ln_attn=attn_norm ln_mlp=ffn_norm",
            {"self_attention.query_key_value": grouped("q", "k", "v"), "self_attention.dense": "o"},
            _MEGATRON_FFN,
        ),
        {"word_embeddings": "embedding", "ln_f": "final_norm", **_HEADS},
        ("falcon", "RefinedWeb", "RefinedWebModel"),
        fixed=("*.rotary_emb.inv_freq", "*.maybe_rotary.inv_freq", "*.rotary.inv_freq"),
    ),
    single(
        "mpt",
        "decoder",
        "blocks.{b}.",
        table(
            "norm_1=attn_norm norm_2=ffn_norm attn.Wqkv=q|k|v attn.q_ln=q_norm attn.k_ln=k_norm "
            "attn.out_proj=o ffn.up_proj=up ffn.down_proj=down"
        ),
        {"wte": "embedding", "wpe": "position", "norm_f": "final_norm", **_HEADS},
        ("mpt",),
    ),
    single(
        "starcoder2",
        "decoder",
        "layers.{b}.",
        table(
            "input_layernorm=attn_norm post_attention_layernorm=ffn_norm self_attn.q_proj=q self_attn.k_proj=k "
            "self_attn.v_proj=v self_attn.o_proj=o mlp.c_fc=up mlp.c_proj=down"
        ),
        _LLAMA_OUTSIDE,
        ("starcoder2",),
        fixed=("*.rotary_emb.inv_freq",),
    ),
    single(
        "phi",
        "decoder",
        "layers.{b}.",
        table(
            "input_layernorm=attn_norm self_attn.q_proj=q self_attn.k_proj=k self_attn.v_proj=v "
            "self_attn.dense=o self_attn.q_layernorm=q_norm self_attn.k_layernorm=k_norm mlp.fc1=up "
            "mlp.fc2=down"
        ),
        {"embed_tokens": "embedding", "final_layernorm": "final_norm", **_HEADS},
        ("phi",),
        fixed=("*.rotary_emb.inv_freq",),
    ),
    single(
        "phi_msft",  # phi-2 as first published
        "decoder",
        "h.{b}.",
        table("ln=attn_norm mixer.Wqkv=q|k|v mixer.out_proj=o mlp.fc1=up mlp.fc2=down"),
        table("embd.wte=embedding lm_head.ln=final_norm lm_head.linear=head"),
        ("phi-msft", "phi2", "mixformer-sequential"),
        fixed=("*.rotary_emb.inv_freq",),
    ),
    single(
        "persimmon",
        "decoder",
        "layers.{b}.",
        table(
            "input_layernorm=attn_norm post_attention_layernorm=ffn_norm",
            {"self_attn.query_key_value": grouped("q", "k", "v")},
            "self_attn.dense=o self_attn.q_layernorm=q_norm self_attn.k_layernorm=k_norm",
            _MEGATRON_FFN,
        ),
        {"embed_tokens": "embedding", "final_layernorm": "final_norm", **_HEADS},
        ("persimmon",),
        fixed=("*.rotary_emb.inv_freq",),
    ),
    single(
        "opt",
        "decoder",
        "decoder.layers.{b}.",
        FAIRSEQ_PRE,
        {**_OPT_OUTSIDE, "decoder.final_layer_norm": "final_norm"},
        ("opt",),
    ),
    single(
        "opt_post_norm",  # opt-350m: the one with norms behind and a narrower embedding
        "decoder",
        "decoder.layers.{b}.",
        FAIRSEQ_POST,
        {**_OPT_OUTSIDE, "decoder.project_in": "embedding_in", "decoder.project_out": "embedding_out"},
        pre_norm=False,
    ),
    single(
        "xglm",
        "decoder",
        "layers.{b}.",
        FAIRSEQ_PRE,
        {"embed_tokens": "embedding", "layer_norm": "final_norm", **_HEADS},
        ("xglm",),
        fixed=("*embed_positions.weights",),
    ),
)
