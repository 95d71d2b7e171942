"""What a tensor can do in a model: the closed list of roles, and what follows from each.

A role is one word of the field (``up``, ``kv_a``, ``final_norm``). A bias is its matrix' role with ``_bias``; the gain
and the offset of a norm are ``attn_norm`` and ``attn_norm_bias``. A plain FFN's two matrices are ``up`` and ``down``
without a ``gate``, so that a dense model and the Mixture-of-Experts made from it speak of the same things. An
adapter's matrices carry the role that they change: ``q.lora_a``.

Canonical form of every matrix is (out x in), as ``torch.nn.Linear`` stores it; an embedding and a head are
(vocabulary x hidden). ``reads`` and ``writes`` say which axis runs over the channels of the residual stream: a matrix
that reads it has them on its last axis, one that writes it on its first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Part = Literal[
    "embedding", "attention", "ffn", "router", "norm", "head", "ssm", "projector", "adapter", "fixed", "other"
]
Axis = Literal["reads", "writes", "channels", None]

#: The expert of a Mixture-of-Experts block that sees every token.
SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Role:
    """One row of the table.

    Attributes:
        name: the role.
        part: the part of the model that it is counted under.
        axis: ``"reads"``: (… x hidden); ``"writes"``: (hidden x …); ``"channels"``: a vector over the residual stream;
            None: neither, or not always.
        norms: norms that may feed it inside a pre-norm block, first one that the block has; ``fold_norms`` folds that.
        words: what a person reads.
    """

    name: str
    part: Part
    axis: Axis
    norms: tuple[str, ...]
    words: str


#: The table, in the order in which a stack is drawn, as data flows: what stands before the blocks, …
_BEFORE = (
    Role("patch", "embedding", None, (), "patch or frame projection"),
    Role("conv1", "embedding", None, (), "first input convolution"),
    Role("conv1_norm", "norm", None, (), "norm behind the first convolution"),
    Role("conv2", "embedding", None, (), "second input convolution"),
    Role("class_token", "embedding", "channels", (), "class token"),
    Role("distillation_token", "embedding", "channels", (), "distillation token"),
    Role("register_tokens", "embedding", "reads", (), "register tokens"),
    Role("mask_token", "embedding", "channels", (), "mask token"),
    Role("special_tokens", "embedding", "reads", (), "embedding of special tokens"),
    Role("image_newline", "embedding", "channels", (), "end of an image row"),
    Role("embedding", "embedding", "reads", (), "token embedding"),
    Role("embedding_copy", "embedding", "reads", (), "second stored copy of the token embedding"),
    Role("embedding_in", "embedding", "writes", (), "embedding width to hidden width"),
    Role("position", "embedding", "reads", (), "learned positions"),
    Role("position_gain", "embedding", None, (), "gain of a weight-normalised position convolution"),
    Role("position_norm", "norm", "channels", (), "norm of relative positions"),
    Role("token_type", "embedding", "reads", (), "segment embedding"),
    Role("embedding_norm", "norm", "channels", (), "norm behind the embedding"),
    Role("pre_norm", "norm", "channels", (), "norm before the first block"),
)
#: … inside them, in groups that stand together, …
_GROUPS = (
    (  # multi-token prediction: what joins two streams
        Role("mtp_embedding_norm", "norm", "channels", (), "multi-token prediction: norm of the embedding"),
        Role("mtp_hidden_norm", "norm", "channels", (), "multi-token prediction: norm of the hidden state"),
        Role("mtp_projection", "other", None, (), "multi-token prediction: joins embedding and hidden state"),
    ),
    (  # attention
        Role("attn_norm", "norm", "channels", (), "norm before attention"),
        Role("q_a", "attention", "reads", ("attn_norm",), "MLA: hidden to query latent"),
        Role("q_a_norm", "norm", None, (), "MLA: norm of the query latent"),
        Role("q_b", "attention", None, ("q_a_norm",), "MLA: query latent to heads"),
        Role("q", "attention", "reads", ("attn_norm",), "query projection"),
        Role("kv_a", "attention", "reads", ("attn_norm",), "MLA: hidden to key-value latent and shared rotary key"),
        Role("kv_a_norm", "norm", None, (), "MLA: norm of the key-value latent"),
        Role("kv_b", "attention", None, ("kv_a_norm",), "MLA: key-value latent to heads, keys then values in each"),
        Role("k_b", "attention", None, (), "MLA: keys of kv_b, absorbed form (heads x latent x nope)"),
        Role("v_b", "attention", None, (), "MLA: values of kv_b, per head"),
        Role("k", "attention", "reads", ("attn_norm",), "key projection"),
        Role("v", "attention", "reads", ("attn_norm",), "value projection"),
        Role("q_norm", "norm", None, (), "query norm"),
        Role("k_norm", "norm", None, (), "key norm"),
        Role("position_q", "attention", None, (), "query of relative positions"),
        Role("position_k", "attention", None, (), "key of relative positions"),
        Role("relative_bias", "attention", None, (), "relative position bias, per head"),
        Role("sinks", "attention", None, (), "attention sinks, one per head"),
        Role("attn_gate", "attention", "reads", ("attn_norm",), "gate of the attention output"),
        Role("attn_inner_norm", "norm", None, (), "norm before the output projection"),
        Role("o", "attention", "writes", ("attn_inner_norm",), "output projection"),
        Role("attn_post_norm", "norm", "channels", (), "norm behind attention"),
        Role("attn_scale", "other", "channels", (), "layer scale of attention"),
    ),
    (  # cross-attention
        Role("cross_norm", "norm", "channels", (), "norm before cross-attention"),
        Role("cross_q", "attention", "reads", ("cross_norm",), "cross-attention: query"),
        Role("cross_k", "attention", "reads", (), "cross-attention: key"),
        Role("cross_v", "attention", "reads", (), "cross-attention: value"),
        Role("cross_relative_bias", "attention", None, (), "relative position bias of cross-attention"),
        Role("cross_o", "attention", "writes", (), "cross-attention: output"),
        Role("cross_post_norm", "norm", "channels", (), "norm behind cross-attention"),
    ),
    (  # state-space mixer
        Role("ssm_norm", "norm", "channels", (), "norm before the mixer"),
        Role("ssm_in", "ssm", "reads", ("ssm_norm", "attn_norm"), "mixer: input projection"),
        Role("ssm_conv", "ssm", None, (), "mixer: convolution"),
        Role("ssm_x", "ssm", None, (), "mixer: dt, B and C from the state"),
        Role("ssm_dt_norm", "norm", None, (), "mixer: norm of dt"),
        Role("ssm_b_norm", "norm", None, (), "mixer: norm of B"),
        Role("ssm_c_norm", "norm", None, (), "mixer: norm of C"),
        Role("ssm_dt", "ssm", None, (), "mixer: step projection"),
        Role("ssm_a", "ssm", None, (), "mixer: A (logarithm)"),
        Role("ssm_d", "ssm", None, (), "mixer: D"),
        Role("ssm_inner_norm", "norm", None, (), "mixer: norm before the output projection"),
        Role("ssm_out", "ssm", "writes", ("ssm_inner_norm",), "mixer: output projection"),
    ),
    (  # feed-forward
        Role("ffn_norm", "norm", "channels", (), "norm before the FFN"),
        Role("router", "router", "reads", ("ffn_norm", "attn_norm"), "router"),
        Role("router_scale", "router", None, (), "learned scale of the router's weights, per expert"),
        Role("router_correction", "router", None, (), "load-balancing bias of the router"),
        Role("shared_gate", "router", "reads", ("ffn_norm", "attn_norm"), "gate of the shared expert"),
        Role("gate", "ffn", "reads", ("ffn_norm", "attn_norm"), "gate projection"),
        Role("up", "ffn", "reads", ("ffn_norm", "attn_norm"), "up projection"),
        Role("ffn_inner_norm", "norm", None, (), "norm before the down projection"),
        Role("down", "ffn", "writes", ("ffn_inner_norm",), "down projection"),
        Role("ffn_post_norm", "norm", "channels", (), "norm behind the FFN"),
        Role("ffn_scale", "other", "channels", (), "layer scale of the FFN"),
    ),
)
#: … and behind.
_AFTER = (
    Role("final_norm", "norm", "channels", (), "norm behind the last block"),
    Role("embedding_out", "embedding", "reads", (), "hidden width to embedding width"),
    Role("head_dense", "head", "reads", (), "dense layer before the head"),
    Role("head_norm", "norm", None, (), "norm before the head"),
    Role("head", "head", "reads", ("final_norm",), "output head"),
    Role("head_copy", "head", "reads", ("final_norm",), "second stored copy of the output head"),
    Role("pooler", "head", "reads", (), "pooler"),
    Role("classifier_dense", "head", None, (), "dense layer before the classifier"),
    Role("classifier_norm", "norm", None, (), "norm before the classifier"),
    Role("classifier", "head", None, (), "classifier"),
    Role("next_sentence", "head", "reads", (), "next-sentence classifier"),
    Role("contact_head", "head", None, (), "contacts from attention maps"),
    Role("projector_norm", "norm", None, (), "norm of that projection"),
    Role("patch_merger", "projector", None, (), "patches joined before that projection"),
    Role("projector", "projector", None, (), "projection between towers"),
    Role("projector_out", "projector", None, (), "second matrix of that projection"),
    Role("codebook_in", "other", None, (), "hidden state to code logits"),
    Role("codebook", "embedding", None, (), "code book of a quantiser"),
    Role("codebook_out", "other", None, (), "code to contrastive space"),
    Role("logit_scale", "other", None, (), "temperature"),
    Role("fixed", "fixed", None, (), "set by the architecture: positions, masks, frequencies"),
    Role("statistics", "fixed", None, (), "running statistics"),
)

#: The names of these.
BEFORE = tuple(role.name for role in _BEFORE)
GROUPS = tuple(tuple(role.name for role in group) for group in _GROUPS)

#: Every role without its bias, by name.
ROLES: dict[str, Role] = {role.name: role for role in (*_BEFORE, *(r for group in _GROUPS for r in group), *_AFTER)}

#: Roles whose values are set by the architecture; equal ones show nothing.
FIXED = frozenset({"fixed", "statistics"})


def bias_of(role: str) -> str:
    """The role of the bias (or a norm's offset) that goes with `role`."""
    return role + "_bias"


@lru_cache(maxsize=4096)
def matrix_of(role: str) -> str:
    """The role without ``_bias`` and without an adapter's suffix: ``"q"`` for ``"q_bias"`` and ``"q.lora_a"``."""
    plain = role.split(".")[0]
    return plain[:-5] if plain not in ROLES and plain.endswith("_bias") else plain


@lru_cache(maxsize=4096)
def role_of(role: str) -> Role:
    """The table's row for a role, its bias or its adapter. Raises KeyError for a word that is not a role."""
    found = ROLES[matrix_of(role)]
    if "." in role:
        return Role(role, "adapter", None, (), f"{role.split('.')[1]} of the {found.words}")
    return found if role == found.name else Role(role, found.part, None, found.norms, f"bias of the {found.words}")


#: Roles of tables that may be one, stored once or several times.
TOKEN_TABLES = frozenset({"embedding", "embedding_copy", "head"})
