"""Decoder-only Mixture-of-Experts models.

Experts are published one by one (``mlp.experts.5.up_proj``) or all in one tensor; transformers 5 writes
``mlp.experts.gate_up_proj`` as (experts x out x in), gate rows before up rows, for models whose checkpoints hold them
one by one. Facts that shapes can't tell, from the published modeling code:

* Mixtral's and Phi-3.5-MoE's w1 is the gate, w3 up, w2 down. DBRX stacks its experts in rows: w1 gate, v1 up, and w2
  stored (in x out).
* gpt-oss holds (experts x in x out) with gate and up channels in turn; Llama 4 and Qwen3-VL-MoE the same axes, but
  gate channels before up channels.
* DeepSeek-V3 and GLM-4.5 hold the layer for multi-token prediction as one more layer, Qwen3-Next under ``mtp.``.
"""

from __future__ import annotations

from weightprint.anatomy.families.decoders import ATTENTION, GATED, MLA, NORMS, POST_NORMS, QK_NORMS, blocks, decoder
from weightprint.anatomy.family import Family, Part, Stack, alternating, in_rows, row, stack, table

FUSED = table("mlp.experts.gate_up_proj=[e]gate|up mlp.experts.down_proj=[e]down")
ROUTED = table("mlp.gate=router mlp.experts.{e}.{gate,up,down}_proj={gate,up,down}", FUSED)
CORRECTION = table("mlp.gate.e_score_correction_bias=router_correction")
SANDWICH_NORMS = table(
    "{input,post_attention,pre_mlp,post_mlp}_layernorm={attn_norm,attn_post_norm,ffn_norm,ffn_post_norm}"
)
#: The expert that sees every token.
SHARED_EXPERT = table("mlp.shared_expert.{gate,up,down}_proj=shared:{gate,up,down}")
SHARED_EXPERTS = table("mlp.shared_experts.{gate,up,down}_proj=shared:{gate,up,down}")
NEXT = table(
    "enorm=mtp_embedding_norm hnorm=mtp_hidden_norm eh_proj=mtp_projection embed_tokens=embedding "
    "shared_head.{norm,head}={final_norm,head}"
)


def _with_next(*inside: Part) -> tuple[Stack, Stack]:
    """A decoder, and layers for multi-token prediction behind its last layer."""
    return blocks(*inside), stack("mtp", "layers.{b}.", *inside, NEXT, tied_head=False)


_QWEN3_NEXT = table(
    NORMS,
    "self_attn.q_proj=q/attn_gate self_attn.{k,v,o}_proj={k,v,o}",
    QK_NORMS,
    ROUTED,
    SHARED_EXPERT,
    "mlp.shared_expert_gate=shared_gate",
    GATED,
)

FAMILIES: tuple[Family, ...] = (
    decoder(
        "mixtral",
        NORMS,
        ATTENTION,
        "block_sparse_moe.gate=router block_sparse_moe.experts.{e}.{w1,w3,w2}={gate,up,down} mlp.{gate,router}=router",
        FUSED,
        types="mixtral phimoe",
    ),
    decoder("qwen3_moe", NORMS, ATTENTION, QK_NORMS, ROUTED, GATED, types="qwen3_moe olmoe"),
    decoder("flex_olmo", POST_NORMS, ATTENTION, QK_NORMS, ROUTED),
    decoder("qwen2_moe", NORMS, ATTENTION, ROUTED, SHARED_EXPERT, "mlp.shared_expert_gate=shared_gate", GATED),
    decoder(
        "qwen3_vl_moe",
        NORMS,
        ATTENTION,
        QK_NORMS,
        "mlp.gate=router mlp.experts.gate_up_proj=[e]gate|up.T mlp.experts.down_proj=[e]down.T",
        GATED,
        types="qwen3_vl_moe qwen3_vl_moe_text",
    ),
    decoder(
        "pangu_pro_moe",
        NORMS,
        ATTENTION,
        ROUTED,
        "mlp.router_scale=router_scale",
        SHARED_EXPERT,
        GATED,
        types="PanguProMoE pangu_pro_moe",
    ),
    decoder("deepseek_moe", NORMS, ATTENTION, ROUTED, SHARED_EXPERTS, GATED, types="deepseek"),
    row(
        "deepseek",
        *_with_next(NORMS, "self_attn.q_proj=q", MLA, ROUTED, CORRECTION, SHARED_EXPERTS, GATED),
        types="deepseek_v2 deepseek_v3 kimi_k2",
    ),
    row(
        "pangu_ultra_moe",
        *_with_next(
            SANDWICH_NORMS,
            MLA,
            ROUTED,
            CORRECTION,
            "mlp.e_score_correction_bias=router_correction",
            SHARED_EXPERTS,
            GATED,
        ),
    ),
    row(
        "glm4_moe",
        *_with_next(NORMS, ATTENTION, QK_NORMS, ROUTED, CORRECTION, SHARED_EXPERTS, GATED),
        types="glm4_moe dots1",
    ),
    decoder(
        "ernie4_5_moe",
        NORMS,
        ATTENTION,
        ROUTED,
        "mlp.{moe_statics,gate.moe_statics}.e_score_correction_bias=router_correction",
        SHARED_EXPERTS,
        GATED,
    ),
    decoder(
        "hunyuan_moe",
        NORMS,
        ATTENTION,
        "self_attn.{query,key}_layernorm={q,k}_norm mlp.experts.{e}.{gate,up,down}_proj={gate,up,down}",
        FUSED,
        "mlp.gate.wg=router mlp.shared_mlp.{gate,up,down}_proj=shared:{gate,up,down}",
        GATED,
        types="hunyuan_v1_moe",
    ),
    decoder(
        "gpt_oss",
        NORMS,
        ATTENTION,
        "self_attn.sinks=sinks mlp.router=router",
        {
            "mlp.experts.gate_up_proj": alternating("[e]gate|up.T"),
            "mlp.experts.gate_up_proj_bias": alternating("[e]gate_bias|up_bias"),
        },
        "mlp.experts.down_proj=[e]down.T mlp.experts.down_proj_bias=[e]down_bias",
    ),
    decoder(
        "llama4",
        NORMS,
        ATTENTION,
        "feed_forward.router=router feed_forward.experts.gate_up_proj=[e]gate|up.T "
        "feed_forward.experts.down_proj=[e]down.T "
        "feed_forward.shared_expert.{gate,up,down}_proj=shared:{gate,up,down} "
        "feed_forward.{gate,up,down}_proj={gate,up,down}",
        types="llama4 llama4_text",
    ),
    decoder(
        "granite_moe",
        NORMS,
        ATTENTION,
        "block_sparse_moe.router.layer=router block_sparse_moe.{input,output}_linear=[e]{gate|up,down} "
        "block_sparse_moe.router=router block_sparse_moe.experts.{gate_up,down}_proj=[e]{gate|up,down} "
        "shared_mlp.{input,output}_linear=shared:{gate|up,down}",
        types="granitemoe granitemoeshared",
    ),
    decoder(
        "dbrx",
        "norm_attn_norm.norm_1=attn_norm norm_attn_norm.attn.Wqkv=q|k|v norm_attn_norm.attn.out_proj=o "
        "norm_attn_norm.norm_2=ffn_norm ffn.router.layer=router",
        {
            "ffn.experts.mlp.w1": in_rows("gate"),
            "ffn.experts.mlp.v1": in_rows("up"),
            "ffn.experts.mlp.w2": in_rows("down.T"),
        },
        outside="wte=embedding norm_f=final_norm lm_head=head",
        block="blocks.{b}.",
    ),
    row(
        "qwen3_next",
        blocks(
            _QWEN3_NEXT,
            # Per key head: its q, k, the values and gates of the value heads that share it.
            "linear_attn.{in_proj_qkvz,in_proj_ba,conv1d,dt_bias,A_log}=ssm_{in,x,conv,dt_bias,a} "
            "linear_attn.{norm,out_proj}=ssm_{inner_norm,out}",
        ),
        stack(
            "mtp",
            "mtp.layers.{b}.",
            _QWEN3_NEXT,
            outside="mtp.{fc,pre_fc_norm_embedding,pre_fc_norm_hidden}="
            "mtp_{projection,embedding_norm,hidden_norm} mtp.norm=final_norm",
            tied_head=False,
        ),
        norm_offset=1.0,
        plain_norms=("ssm_inner_norm",),
    ),
)
