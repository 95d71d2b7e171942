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

from functools import partial

from weightprint.anatomy.families.decoders import NORMS, decoder
from weightprint.anatomy.family import Family, grouped, table

_HEADS = table("lm_head=head score=classifier")
_GPT_OUTSIDE = table("wte=embedding wpe=position ln_f=final_norm", _HEADS)
_GPT_NORMS = table("{ln_1,ln_2}={attn,ffn}_norm")
_GPT2_LAYER = table("attn.c_attn=q|k|v.T attn.c_proj=o.T mlp.c_fc=up.T mlp.c_proj=down.T")
_MLP_CONV = table("mlp.c_fc=up mlp.c_proj=down")
_MEGATRON_FFN = table("mlp.dense_{h_to_4h,4h_to_h}={up,down}")
_BY_HEADS = table("self_attention.query_key_value=q/k/v self_attention.dense=o", _MEGATRON_FFN)
_MASKS = "*.attn.bias *.attn.masked_bias"
_FREQUENCIES = "*.rotary_emb.inv_freq"
_GPT2_CROSS = table(
    "crossattention.q_attn=cross_q.T crossattention.c_attn=cross_k|cross_v.T crossattention.c_proj=cross_o.T "
    "ln_cross_attn=cross_norm"
)
_PHI_OUTSIDE = table("embed_tokens=embedding final_layernorm=final_norm", _HEADS)

#: Blocks of OPT, XGLM, BART and their kin, with norms in front …
FAIRSEQ_PRE = table(
    "self_attn.{q,k,v,out}_proj={q,k,v,o} self_attn_layer_norm=attn_norm fc1=up fc2=down final_layer_norm=ffn_norm"
)
#: … and behind.
FAIRSEQ_POST = table(FAIRSEQ_PRE, "self_attn_layer_norm=attn_post_norm final_layer_norm=ffn_post_norm")
_OPT_OUTSIDE = table("decoder.embed_{tokens,positions}={embedding,position}", _HEADS)

#: GPT-2's names outside the blocks, and of the blocks.
_gpt = partial(decoder, outside=_GPT_OUTSIDE, block="h.{b}.")

FAMILIES: tuple[Family, ...] = (
    _gpt(
        "gpt2",
        _GPT_NORMS,
        _GPT2_LAYER,
        _GPT2_CROSS,
        fixed=f"{_MASKS} *.crossattention.bias *.crossattention.masked_bias",
    ),
    decoder(
        "openai_gpt",  # the first GPT: norms behind
        _GPT2_LAYER,
        "{ln_1,ln_2}={attn,ffn}_post_norm",
        outside=table("{tokens,positions}_embed={embedding,position}", _HEADS),
        block="h.{b}.",
        types="openai-gpt",
        pre_norm=False,
        fixed="*.attn.bias *position_ids",
    ),
    _gpt("gpt_bigcode", _GPT_NORMS, "attn.c_attn=q/k/v attn.c_proj=o", _MLP_CONV, fixed=_MASKS),
    _gpt(
        "gpt_neo",
        _GPT_NORMS,
        "attn.attention.{q,k,v,out}_proj={q,k,v,o}",
        _MLP_CONV,
        fixed="*.attn.attention.bias *.attn.attention.masked_bias",
    ),
    _gpt(
        "gptj",
        "ln_1=attn_norm attn.{q,k,v,out}_proj={q,k,v,o} mlp.fc_{in,out}={up,down}",
        fixed=f"{_MASKS} *.attn.embed_positions *.attn.scale_attn",
    ),
    _gpt(
        "codegen",
        "ln_1=attn_norm",
        {"attn.qkv_proj": grouped("q/v/k", 4)},
        "attn.out_proj=o mlp.fc_{in,out}={up,down}",
        fixed=f"*.attn.causal_mask {_MASKS}",
    ),
    decoder(
        "gpt_neox",
        NORMS,
        "attention.query_key_value=q/k/v attention.dense=o",
        _MEGATRON_FFN,
        outside=table("embed_in=embedding final_layer_norm=final_norm embed_out=head", _HEADS),
        fixed=f"*.attention.bias *.attention.masked_bias {_FREQUENCIES}",
    ),
    decoder(
        "bloom",
        NORMS,
        _BY_HEADS,
        outside=table("word_embeddings{,_layernorm}=embedding{,_norm} ln_f=final_norm", _HEADS),
        block="h.{b}.",
    ),
    decoder(
        "falcon",
        NORMS,
        "ln_{attn,mlp}={attn,ffn}_norm",
        _BY_HEADS,
        outside=table("word_embeddings=embedding ln_f=final_norm", _HEADS),
        block="h.{b}.",
        types="falcon RefinedWeb RefinedWebModel",
        fixed=f"{_FREQUENCIES} *.maybe_rotary.inv_freq *.rotary.inv_freq",
    ),
    decoder(
        "mpt",
        "norm_{1,2}={attn,ffn}_norm attn.Wqkv=q|k|v attn.{q,k}_ln={q,k}_norm attn.out_proj=o "
        "ffn.{up,down}_proj={up,down}",
        outside=table("wte=embedding wpe=position norm_f=final_norm", _HEADS),
        block="blocks.{b}.",
    ),
    decoder("starcoder2", NORMS, "self_attn.{q,k,v,o}_proj={q,k,v,o}", _MLP_CONV, fixed=_FREQUENCIES),
    decoder(
        "phi",
        "input_layernorm=attn_norm self_attn.{q_proj,k_proj,v_proj,dense}={q,k,v,o} "
        "self_attn.{q,k}_layernorm={q,k}_norm mlp.{fc1,fc2}={up,down}",
        outside=_PHI_OUTSIDE,
        fixed=_FREQUENCIES,
    ),
    decoder(
        "phi_msft",  # phi-2 as first published
        "ln=attn_norm mixer.Wqkv=q|k|v mixer.out_proj=o mlp.{fc1,fc2}={up,down}",
        outside="embd.wte=embedding lm_head.{ln,linear}={final_norm,head}",
        block="h.{b}.",
        types="phi-msft phi2 mixformer-sequential",
        fixed=_FREQUENCIES,
    ),
    decoder(
        "persimmon",
        NORMS,
        "self_attn.query_key_value=q/k/v self_attn.dense=o self_attn.{q,k}_layernorm={q,k}_norm",
        _MEGATRON_FFN,
        outside=_PHI_OUTSIDE,
        fixed=_FREQUENCIES,
    ),
    decoder(
        "opt",
        FAIRSEQ_PRE,
        outside=table(_OPT_OUTSIDE, "decoder.final_layer_norm=final_norm"),
        block="decoder.layers.{b}.",
    ),
    decoder(
        "opt_post_norm",  # opt-350m: the one with norms behind and a narrower embedding
        FAIRSEQ_POST,
        outside=table(_OPT_OUTSIDE, "decoder.project_{in,out}=embedding_{in,out}"),
        block="decoder.layers.{b}.",
        types="",
        pre_norm=False,
    ),
    decoder(
        "xglm",
        FAIRSEQ_PRE,
        outside=table("embed_tokens=embedding layer_norm=final_norm", _HEADS),
        fixed="*embed_positions.weights",
    ),
)
