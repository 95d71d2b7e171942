"""The order in which roles and places are drawn and listed: as data flows through a block."""

from __future__ import annotations

from typing import Any

from weightprint.anatomy.place import Place
from weightprint.anatomy.roles import ROLES, matrix_of

__all__ = ["AFTER", "BEFORE", "GROUPS", "ORDER", "STACKS", "drawn_at", "role_place"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# The order in which a stack is drawn, as data flows; roles outside the blocks stand before or behind them.
BEFORE = _words(
    "patch conv1 conv1_norm conv2 class_token distillation_token register_tokens mask_token special_tokens "
    "image_newline embedding embedding_copy embedding_in position position_gain position_norm token_type "
    "embedding_norm pre_norm"
)

GROUPS = (
    _words("mtp_embedding_norm mtp_hidden_norm mtp_projection"),
    _words(
        "attn_norm q_a q_a_norm q_b q kv_a kv_a_norm kv_b k_b v_b k v q_norm k_norm position_q position_k "
        "relative_bias sinks attn_gate attn_inner_norm o attn_post_norm attn_scale"
    ),
    _words("cross_norm cross_q cross_k cross_v cross_relative_bias cross_o cross_post_norm"),
    _words(
        "ssm_norm ssm_in ssm_conv ssm_x ssm_dt_norm ssm_b_norm ssm_c_norm ssm_dt ssm_a ssm_d ssm_inner_norm ssm_out"
    ),
    _words(
        "ffn_norm router router_scale router_correction shared_gate gate up ffn_inner_norm down ffn_post_norm ffn_scale"
    ),
)

AFTER = _words(
    "final_norm embedding_out head_dense head_norm head head_copy pooler classifier_dense classifier_norm classifier "
    "next_sentence contact_head projector_norm patch_merger projector projector_out codebook_in codebook codebook_out "
    "logit_scale fixed statistics"
)

ORDER = {role: k for k, role in enumerate(dict.fromkeys([*BEFORE, *sum(GROUPS, ()), *AFTER, *ROLES]))}

STACKS = ("vision", "audio", "text", "encoder", "decoder", "mtp")


def drawn_at(place: Place) -> tuple[Any, ...]:
    """Sort key that puts places in the order of the drawing."""
    stack = STACKS.index(place.stack) if place.stack in STACKS else len(STACKS)
    late = matrix_of(place.role) not in BEFORE
    block = place.block if place.block is not None else 10**9 if late else -1
    expert = place.expert if isinstance(place.expert, int) else -1 if place.expert else -2
    return stack, place.stack, block, expert, role_place(place.role)


def role_place(role: str) -> tuple[int, str]:
    """Where a role is drawn: its matrix' place, then itself, its bias, its adapter."""
    return ORDER.get(matrix_of(role), len(ORDER)), role
