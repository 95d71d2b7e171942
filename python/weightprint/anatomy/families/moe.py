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

from weightprint.anatomy.families.decoders import ATTENTION, GATED, MLA, POST_NORMS, PRE_NORMS, QK_NORMS, decoder
from weightprint.anatomy.family import (
    Family,
    Stack,
    Table,
    alternating,
    experts,
    grouped,
    shared,
    stacked,
    table,
    transposed,
)

__all__ = ["FAMILIES"]

FUSED: Table = {"mlp.experts.gate_up_proj": experts(stacked("gate", "up")), "mlp.experts.down_proj": experts("down")}
ROUTED: Table = table(
    "mlp.gate=router mlp.experts.{e}.gate_proj=gate mlp.experts.{e}.up_proj=up mlp.experts.{e}.down_proj=down", FUSED
)
CORRECTION = table("mlp.gate.e_score_correction_bias=router_correction")
SANDWICH_NORMS = table(
    "input_layernorm=attn_norm post_attention_layernorm=attn_post_norm pre_mlp_layernorm=ffn_norm "
    "post_mlp_layernorm=ffn_post_norm"
)
NEXT = table(
    "enorm=mtp_embedding_norm hnorm=mtp_hidden_norm eh_proj=mtp_projection embed_tokens=embedding "
    "shared_head.norm=final_norm shared_head.head=head"
)


def _one(module: str) -> Table:
    """The expert that sees every token."""
    return {f"{module}.{name}_proj": shared(name) for name in ("gate", "up", "down")}


def _with_next(inside: Table) -> tuple[Stack, ...]:
    """A decoder, and layers for multi-token prediction behind its last layer."""
    return (*decoder(inside), Stack("mtp", "layers.{b}.", {**inside, **NEXT}, tied_head=False))


_QWEN3_NEXT: Table = table(
    PRE_NORMS,
    {"self_attn.q_proj": grouped("q", "attn_gate")},
    "self_attn.k_proj=k self_attn.v_proj=v self_attn.o_proj=o",
    QK_NORMS,
    ROUTED,
    _one("mlp.shared_expert"),
    {"mlp.shared_expert_gate": "shared_gate"},
    GATED,
)

FAMILIES: tuple[Family, ...] = (
    Family(
        "mixtral",
        decoder(
            table(
                PRE_NORMS,
                ATTENTION,
                "block_sparse_moe.gate=router block_sparse_moe.experts.{e}.w1=gate "
                "block_sparse_moe.experts.{e}.w3=up block_sparse_moe.experts.{e}.w2=down mlp.gate=router "
                "mlp.router=router",
                FUSED,
            )
        ),
        ("mixtral", "phimoe"),
    ),
    Family("qwen3_moe", decoder({**PRE_NORMS, **ATTENTION, **QK_NORMS, **ROUTED, **GATED}), ("qwen3_moe", "olmoe")),
    Family("flex_olmo", decoder({**POST_NORMS, **ATTENTION, **QK_NORMS, **ROUTED}), ("flex_olmo",)),
    Family(
        "qwen2_moe",
        decoder(
            {
                **PRE_NORMS,
                **ATTENTION,
                **ROUTED,
                **_one("mlp.shared_expert"),
                "mlp.shared_expert_gate": "shared_gate",
                **GATED,
            }
        ),
        ("qwen2_moe",),
    ),
    Family(
        "qwen3_vl_moe",
        decoder(
            {
                **PRE_NORMS,
                **ATTENTION,
                **QK_NORMS,
                "mlp.gate": "router",
                "mlp.experts.gate_up_proj": experts(transposed(stacked("gate", "up"))),
                "mlp.experts.down_proj": experts(transposed("down")),
                **GATED,
            }
        ),
        ("qwen3_vl_moe", "qwen3_vl_moe_text"),
    ),
    Family(
        "pangu_pro_moe",
        decoder(
            {
                **PRE_NORMS,
                **ATTENTION,
                **ROUTED,
                "mlp.router_scale": "router_scale",
                **_one("mlp.shared_expert"),
                **GATED,
            }
        ),
        ("PanguProMoE", "pangu_pro_moe"),
    ),
    Family(
        "deepseek_moe",
        decoder({**PRE_NORMS, **ATTENTION, **ROUTED, **_one("mlp.shared_experts"), **GATED}),
        ("deepseek",),
    ),
    Family(
        "deepseek",
        _with_next(
            {**PRE_NORMS, "self_attn.q_proj": "q", **MLA, **ROUTED, **CORRECTION, **_one("mlp.shared_experts"), **GATED}
        ),
        ("deepseek_v2", "deepseek_v3", "kimi_k2"),
    ),
    Family(
        "pangu_ultra_moe",
        _with_next(
            {
                **SANDWICH_NORMS,
                **MLA,
                **ROUTED,
                **CORRECTION,
                "mlp.e_score_correction_bias": "router_correction",
                **_one("mlp.shared_experts"),
                **GATED,
            }
        ),
        ("pangu_ultra_moe",),
    ),
    Family(
        "glm4_moe",
        _with_next(
            {**PRE_NORMS, **ATTENTION, **QK_NORMS, **ROUTED, **CORRECTION, **_one("mlp.shared_experts"), **GATED}
        ),
        ("glm4_moe", "dots1"),
    ),
    Family(
        "ernie4_5_moe",
        decoder(
            table(
                PRE_NORMS,
                ATTENTION,
                ROUTED,
                "mlp.moe_statics.e_score_correction_bias=router_correction "
                "mlp.gate.moe_statics.e_score_correction_bias=router_correction",
                _one("mlp.shared_experts"),
                GATED,
            )
        ),
        ("ernie4_5_moe",),
    ),
    Family(
        "hunyuan_moe",
        decoder(
            table(
                PRE_NORMS,
                ATTENTION,
                "self_attn.query_layernorm=q_norm self_attn.key_layernorm=k_norm",
                {key: cell for key, cell in ROUTED.items() if key != "mlp.gate"},
                {"mlp.gate.wg": "router"},
                _one("mlp.shared_mlp"),
                GATED,
            )
        ),
        ("hunyuan_v1_moe",),
    ),
    Family(
        "gpt_oss",
        decoder(
            table(
                PRE_NORMS,
                ATTENTION,
                "self_attn.sinks=sinks mlp.router=router",
                {
                    "mlp.experts.gate_up_proj": experts(transposed(alternating("gate", "up"))),
                    "mlp.experts.gate_up_proj_bias": experts(alternating("gate_bias", "up_bias")),
                    "mlp.experts.down_proj": experts(transposed("down")),
                    "mlp.experts.down_proj_bias": experts("down_bias"),
                },
            )
        ),
        ("gpt_oss",),
    ),
    Family(
        "llama4",
        decoder(
            table(
                PRE_NORMS,
                ATTENTION,
                {
                    "feed_forward.router": "router",
                    "feed_forward.experts.gate_up_proj": experts(transposed(stacked("gate", "up"))),
                    "feed_forward.experts.down_proj": experts(transposed("down")),
                },
                _one("feed_forward.shared_expert"),
                "feed_forward.gate_proj=gate feed_forward.up_proj=up feed_forward.down_proj=down",
            )
        ),
        ("llama4", "llama4_text"),
    ),
    Family(
        "granite_moe",
        decoder(
            {
                **PRE_NORMS,
                **ATTENTION,
                "block_sparse_moe.router.layer": "router",
                "block_sparse_moe.input_linear": experts(stacked("gate", "up")),
                "block_sparse_moe.output_linear": experts("down"),
                "block_sparse_moe.router": "router",
                "block_sparse_moe.experts.gate_up_proj": experts(stacked("gate", "up")),
                "block_sparse_moe.experts.down_proj": experts("down"),
                "shared_mlp.input_linear": shared(stacked("gate", "up")),
                "shared_mlp.output_linear": shared("down"),
            }
        ),
        ("granitemoe", "granitemoeshared"),
    ),
    Family(
        "dbrx",
        decoder(
            table(
                "norm_attn_norm.norm_1=attn_norm norm_attn_norm.attn.Wqkv=q|k|v norm_attn_norm.attn.out_proj=o "
                "norm_attn_norm.norm_2=ffn_norm ffn.router.layer=router",
                {
                    "ffn.experts.mlp.w1": experts("gate", "rows"),
                    "ffn.experts.mlp.v1": experts("up", "rows"),
                    "ffn.experts.mlp.w2": experts(transposed("down"), "rows"),
                },
            ),
            table("wte=embedding norm_f=final_norm lm_head=head"),
            "blocks.{b}.",
        ),
        ("dbrx",),
    ),
    Family(
        "qwen3_next",
        (
            *decoder(
                {
                    **_QWEN3_NEXT,
                    # Per key head: its q, k, the values and gates of the value heads that share it.
                    **table(
                        "linear_attn.in_proj_qkvz=ssm_in linear_attn.in_proj_ba=ssm_x linear_attn.conv1d=ssm_conv "
                        "linear_attn.dt_bias=ssm_dt_bias linear_attn.A_log=ssm_a linear_attn.norm=ssm_inner_norm "
                        "linear_attn.out_proj=ssm_out"
                    ),
                }
            ),
            Stack(
                "mtp",
                "mtp.layers.{b}.",
                _QWEN3_NEXT,
                table(
                    "mtp.fc=mtp_projection mtp.pre_fc_norm_embedding=mtp_embedding_norm "
                    "mtp.pre_fc_norm_hidden=mtp_hidden_norm mtp.norm=final_norm"
                ),
                tied_head=False,
            ),
        ),
        ("qwen3_next",),
        norm_offset=1.0,
        plain_norms=("ssm_inner_norm",),
    ),
)
