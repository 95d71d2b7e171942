"""State-space models: Mamba, Mamba-2, Falcon-Mamba, and Jamba, which mixes them with attention and experts.

A Mamba block is one norm and one mixer. ``in_proj`` holds x and the gate z (Mamba-2: z, x, B, C and dt as well) and
stays whole: what its rows are depends on sizes that no other family compares with. ``A_log`` and ``D`` are parameters
of the mixer itself, and Mamba-2's step bias stands where Mamba has a projection's.

Sources: state-spaces/mamba; the modeling files of Hugging Face transformers for mamba, mamba2, falcon_mamba, jamba,
bamba.
"""

from __future__ import annotations

from weightprint.anatomy.family import Family, Table, single, table

__all__ = ["FAMILIES"]


def _mixer(at: str) -> Table:
    """The parameters of a Mamba or Mamba-2 mixer under the module `at`."""
    return {
        f"{at}.in_proj": "ssm_in",
        f"{at}.conv1d": "ssm_conv",
        f"{at}.x_proj": "ssm_x",
        f"{at}.dt_proj": "ssm_dt",
        f"{at}.dt_bias": "ssm_dt_bias",
        f"{at}.A_log": "ssm_a",
        f"{at}.D": "ssm_d",
        f"{at}.norm": "ssm_inner_norm",
        f"{at}.out_proj": "ssm_out",
    }


_ATTENTION = table("self_attn.q_proj=q self_attn.k_proj=k self_attn.v_proj=v self_attn.o_proj=o")

FAMILIES: tuple[Family, ...] = (
    single(
        "mamba",
        "decoder",
        "layers.{b}.",
        {"norm": "ssm_norm", **_mixer("mixer")},
        table("embeddings=embedding embedding=embedding norm_f=final_norm lm_head=head"),
        ("mamba", "mamba2", "falcon_mamba"),
    ),
    single(
        "jamba",
        "decoder",
        "layers.{b}.",
        table(
            "input_layernorm=attn_norm pre_ff_layernorm=ffn_norm",
            _mixer("mamba"),
            "mamba.dt_layernorm=ssm_dt_norm mamba.b_layernorm=ssm_b_norm mamba.c_layernorm=ssm_c_norm",
            _ATTENTION,
            "feed_forward.gate_proj=gate feed_forward.up_proj=up feed_forward.down_proj=down "
            "feed_forward.router=router feed_forward.experts.{e}.gate_proj=gate "
            "feed_forward.experts.{e}.up_proj=up feed_forward.experts.{e}.down_proj=down",
        ),
        table("embed_tokens=embedding final_layernorm=final_norm lm_head=head"),
        ("jamba", "bamba"),
    ),
)
