"""GGUF's names, as llama.cpp's converter writes them for every architecture.

The names are the same for all; what the rows hold is not. Where a model's rotary embedding pairs neighbours
(llama.cpp's "NORM" kind) and the hub's copy pairs halves, the converter reorders the rows of q and k, head by head:
(0, hd/2, 1, hd/2 + 1, …). The architectures that this is done for are listed in ``_PAIRED`` and chosen by
``general.architecture``, which stands in the config as ``model_type``; a file that doesn't say is read as stored.

The converter splits what is grouped per head (Bloom, Falcon, GPT-NeoX, InternLM2), so ``attn_qkv`` is q, k, v stacked;
turns GPT-2's matrices; has added 1 to Gemma's norms; keeps Phi-3's and GLM-4's gate and up in ``ffn_up``; and stores
A = -exp(A_log) for state-space models, so ``ssm_a`` compares with no other container's. BERT-like encoders have norms
behind (``attn_output_norm``, ``layer_output_norm``). So have OLMo-2's blocks (``post_*_norm``), with none in front.

Sources: llama.cpp's conversion/*.py and gguf-py/gguf/{constants,tensor_mapping}.py.
"""

from __future__ import annotations

from weightprint.anatomy.family import Family, Stack, Table, experts, paired, shared, single, stacked, table

__all__ = ["FAMILIES"]

#: general.architecture (with _ for -) of models whose q and k rows the converter reorders.
_PAIRED = (
    "llama", "llama_embed", "llada", "deci", "baichuan", "xverse", "internlm2", "minicpm", "olmo", "arctic",
    "deepseek", "granite", "granitemoe", "granitehybrid", "bailingmoe", "chameleon", "smollm3", "arcee", "mistral3",
    "nanbeige",
)  # fmt: skip

_OUTSIDE = table(
    "token_embd=embedding position_embd=position token_types=token_type token_embd_norm=embedding_norm "
    "output_norm=final_norm output=head cls=classifier_dense cls.output=classifier cls.norm=classifier_norm "
    "dense_2=projector dense_3=projector_out"
)
_NORMS = table(
    "attn_norm=attn_norm attn_norm_2=ffn_norm attn_q_norm=q_norm attn_k_norm=k_norm attn_sub_norm=attn_inner_norm "
    "ffn_sub_norm=ffn_inner_norm post_attention_norm=attn_post_norm attn_output_norm=attn_post_norm ffn_norm=ffn_norm "
    "post_ffw_norm=ffn_post_norm layer_output_norm=ffn_post_norm"
)
_ATTENTION = table(
    "attn_q=q attn_k=k attn_v=v attn_output=o attn_qkv=q|k|v attn_gate=attn_gate attn_sinks=sinks attn_q_a=q_a "
    "attn_q_a_norm=q_a_norm attn_q_b=q_b attn_kv_a_mqa=kv_a attn_kv_a_norm=kv_a_norm attn_kv_b=kv_b attn_k_b=k_b "
    "attn_v_b=v_b"
)
_EXPERTS: Table = table(
    "ffn_gate_inp=router exp_probs_b=router_correction exp_probs_b.bias=router_correction",
    {
        "ffn_gate_exps": experts("gate"),
        "ffn_up_exps": experts("up"),
        "ffn_down_exps": experts("down"),
        "ffn_gate_up_exps": experts(stacked("gate", "up")),
    },
    "ffn_gate.{e}=gate ffn_up.{e}=up ffn_down.{e}=down ffn_gate_inp_shexp=shared_gate",
    {"ffn_gate_shexp": shared("gate"), "ffn_up_shexp": shared("up"), "ffn_down_shexp": shared("down")},
)
_FFN = table("ffn_gate=gate ffn_up=up ffn_down=down")
_SSM = table(
    "ssm_in=ssm_in ssm_conv1d=ssm_conv ssm_x=ssm_x ssm_dt=ssm_dt ssm_dt_norm=ssm_dt_norm ssm_b_norm=ssm_b_norm "
    "ssm_c_norm=ssm_c_norm ssm_a=ssm_a ssm_d=ssm_d ssm_norm=ssm_inner_norm ssm_out=ssm_out"
)
_BLOCK: Table = {**_NORMS, **_ATTENTION, **_FFN, **_EXPERTS, **_SSM}
#: What BERT's kin has: a short table, so that it wins where both explain all.
_BERT: Table = {
    **{name: _ATTENTION[name] for name in ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output")},
    **{name: _NORMS[name] for name in ("attn_q_norm", "attn_k_norm", "attn_output_norm", "layer_output_norm")},
    **_FFN,
}
_FIXED = ("rope_freqs.weight", "rope_factors_*.weight", "blk.*.attn_rot_embd*")


def _decoder(inside: Table) -> tuple[Stack, ...]:
    return (Stack("decoder", "blk.{b}.", inside, _OUTSIDE),)


_T5_SELF: Table = table(
    "attn_norm=attn_norm attn_q=q attn_k=k attn_v=v attn_o=o attn_rel_b=relative_bias ffn_norm=ffn_norm", _FFN
)

FAMILIES: tuple[Family, ...] = (
    Family(
        "gguf",
        _decoder(_BLOCK),
        fixed=_FIXED,
        unsure="rows of q and k are taken as stored, and norms as llama.cpp mostly names them: no architecture is said",
    ),
    Family("gguf_paired", _decoder({**_BLOCK, "attn_q": paired("q"), "attn_k": paired("k")}), _PAIRED, fixed=_FIXED),
    Family(
        "gguf_gate_up", _decoder({**_BLOCK, "ffn_up": stacked("gate", "up")}), ("phi3", "glm4", "chatglm"), fixed=_FIXED
    ),
    Family("gguf_dbrx", _decoder({**_BLOCK, "attn_output_norm": "ffn_norm"}), ("dbrx",), fixed=_FIXED),
    single(
        "gguf_bert",
        "encoder",
        "blk.{b}.",
        _BERT,
        _OUTSIDE,
        ("bert", "nomic_bert", "nomic_bert_moe", "jina_bert_v2", "jina_bert_v3"),
        pre_norm=False,
        fixed=_FIXED,
    ),
    Family(
        "gguf_t5",
        (
            Stack("encoder", "enc.blk.{b}.", _T5_SELF, table("enc.output_norm=final_norm")),
            Stack(
                "decoder",
                "dec.blk.{b}.",
                table(
                    _T5_SELF,
                    "cross_attn_norm=cross_norm cross_attn_q=cross_q cross_attn_k=cross_k cross_attn_v=cross_v "
                    "cross_attn_o=cross_o cross_attn_rel_b=cross_relative_bias",
                ),
                table("token_embd=embedding dec.output_norm=final_norm output=head"),
            ),
        ),
        ("t5", "t5encoder"),
    ),
    single(
        "gguf_vision",
        "vision",
        "v.blk.{b}.",
        table(
            "ln1=attn_norm ln2=ffn_norm attn_q=q attn_k=k attn_v=v attn_qkv=q|k|v attn_q_norm=q_norm "
            "attn_k_norm=k_norm attn_out=o attn_out_norm=attn_inner_norm attn_post_norm=attn_post_norm "
            "ffn_post_norm=ffn_post_norm ls1=attn_scale ls2=ffn_scale",
            _FFN,
        ),
        table(
            "v.patch_embd=patch v.position_embd=position v.class_embd=class_token v.pre_ln=pre_norm "
            "v.post_ln=final_norm mm.0=projector mm.2=projector_out mm.input_projection=projector "
            "mm.soft_emb_norm=projector_norm mm.model.fc=projector"
        ),
        ("clip",),
    ),
)
