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

from weightprint.anatomy.family import Family, Part, Stack, paired, row, stack, table

#: general.architecture (with _ for -) of models whose q and k rows the converter reorders.
_PAIRED = (
    "llama llama_embed llada deci baichuan xverse internlm2 minicpm olmo arctic deepseek granite granitemoe "
    "granitehybrid bailingmoe chameleon smollm3 arcee mistral3 nanbeige"
)

_OUTSIDE = table(
    "token_embd=embedding position_embd=position token_types=token_type token_embd_norm=embedding_norm "
    "output_norm=final_norm output=head {cls,cls.output,cls.norm}={classifier_dense,classifier,classifier_norm} "
    "dense_{2,3}={projector,projector_out}"
)
_NORMS = table(
    "attn_norm=attn_norm attn_norm_2=ffn_norm attn_{q,k}_norm={q,k}_norm {attn,ffn}_sub_norm={attn,ffn}_inner_norm "
    "post_attention_norm=attn_post_norm attn_output_norm=attn_post_norm ffn_norm=ffn_norm post_ffw_norm=ffn_post_norm "
    "layer_output_norm=ffn_post_norm"
)
_ATTENTION = table(
    "attn_{q,k,v,output}={q,k,v,o} attn_qkv=q|k|v attn_gate=attn_gate attn_sinks=sinks "
    "attn_{q_a,q_a_norm,q_b,kv_a_mqa,kv_a_norm,kv_b,k_b,v_b}={q_a,q_a_norm,q_b,kv_a,kv_a_norm,kv_b,k_b,v_b}"
)
_FFN = table("ffn_{gate,up,down}={gate,up,down}")
_EXPERTS = table(
    "ffn_gate_inp=router {exp_probs_b,exp_probs_b.bias}=router_correction ffn_{gate,up,down}_exps=[e]{gate,up,down} "
    "ffn_gate_up_exps=[e]gate|up ffn_{gate,up,down}.{e}={gate,up,down} ffn_gate_inp_shexp=shared_gate "
    "ffn_{gate,up,down}_shexp=shared:{gate,up,down}"
)
_SSM = table(
    "ssm_in=ssm_in ssm_conv1d=ssm_conv ssm_{x,dt,dt_norm,b_norm,c_norm,a,d}=ssm_{x,dt,dt_norm,b_norm,c_norm,a,d} "
    "ssm_norm=ssm_inner_norm ssm_out=ssm_out"
)
_BLOCK = table(_NORMS, _ATTENTION, _FFN, _EXPERTS, _SSM)
#: What BERT's kin has: a short table, so that it wins where both explain all.
_BERT = table(
    "attn_{q,k,v}={q,k,v} attn_qkv=q|k|v attn_output=o attn_{q,k}_norm={q,k}_norm "
    "{attn,layer}_output_norm={attn,ffn}_post_norm",
    _FFN,
)
_FIXED = "rope_freqs.weight rope_factors_*.weight blk.*.attn_rot_embd*"


def _blocks(*inside: Part, name: str = "decoder") -> Stack:
    return stack(name, "blk.{b}.", *inside, outside=_OUTSIDE)


_T5_SELF = table("attn_norm=attn_norm attn_{q,k,v,o,rel_b}={q,k,v,o,relative_bias} ffn_norm=ffn_norm", _FFN)

FAMILIES: tuple[Family, ...] = (
    row(
        "gguf",
        _blocks(_BLOCK),
        types="",
        fixed=_FIXED,
        unsure="rows of q and k are taken as stored, and norms as llama.cpp mostly names them: no architecture is said",
    ),
    row("gguf_paired", _blocks(_BLOCK, {"attn_q": paired("q"), "attn_k": paired("k")}), types=_PAIRED, fixed=_FIXED),
    row("gguf_gate_up", _blocks(_BLOCK, "ffn_up=gate|up"), types="phi3 glm4 chatglm", fixed=_FIXED),
    row("gguf_dbrx", _blocks(_BLOCK, "attn_output_norm=ffn_norm"), types="dbrx", fixed=_FIXED),
    row(
        "gguf_bert",
        _blocks(_BERT, name="encoder"),
        types="bert nomic_bert nomic_bert_moe jina_bert_v2 jina_bert_v3",
        pre_norm=False,
        fixed=_FIXED,
    ),
    row(
        "gguf_t5",
        stack("encoder", "enc.blk.{b}.", _T5_SELF, outside="enc.output_norm=final_norm"),
        stack(
            "decoder",
            "dec.blk.{b}.",
            _T5_SELF,
            "cross_attn_{norm,q,k,v,o,rel_b}=cross_{norm,q,k,v,o,relative_bias}",
            outside="token_embd=embedding dec.output_norm=final_norm output=head",
        ),
        types="t5 t5encoder",
    ),
    row(
        "gguf_vision",
        stack(
            "vision",
            "v.blk.{b}.",
            "{ln1,ln2}={attn,ffn}_norm attn_{q,k,v}={q,k,v} attn_qkv=q|k|v attn_{q,k}_norm={q,k}_norm attn_out=o "
            "attn_out_norm=attn_inner_norm {attn,ffn}_post_norm={attn,ffn}_post_norm {ls1,ls2}={attn,ffn}_scale",
            _FFN,
            outside="v.{patch_embd,position_embd,class_embd,pre_ln,post_ln}="
            "{patch,position,class_token,pre_norm,final_norm} mm.{0,2,input_projection,soft_emb_norm,model.fc}="
            "{projector,projector_out,projector,projector_norm,projector}",
        ),
        types="clip",
    ),
)
