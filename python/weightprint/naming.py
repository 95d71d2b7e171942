"""What a tensor's name says: which block it sits in, what it does there, and which axis is the residual stream.

A name such as ``model.layers.7.mlp.up_proj.weight`` is split into *stack* (``model.layers``), *layer* (7) and the
rest, and the rest is looked up in :data:`ROLES`, first match wins. A family of models is a row or a word in that
table, never an ``if``. Names are context, not evidence: a wrong guess may cost power, and every test that reads a
role says so.

Weights are stored (out x in), so a matrix that *reads* the residual stream (q, k, v, gate, up, router, head) has it
on its last axis, one that *writes* it (o, down) on its first. GPT-2's ``Conv1D`` is stored (in x out); where the
shape alone can't tell the two apart (a square ``c_proj``) the axis is left unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["FIXED", "ROLES", "Name", "natural_key", "parse", "residual_axis"]

#: role -> pattern searched in the dotted path behind the layer number (or in the whole name when there is none).
ROLES: tuple[tuple[str, str], ...] = (
    (
        "fixed",
        r"position_ids|inv_freq|freqs|alibi|rotary|rope_freqs|relative_position_index|attn_mask|\.masked_bias|mel_filters|filterbank|blosum",
    ),
    (
        "position",
        r"pos(ition(al)?)?_?emb|(^|[._])wpe\b|embed_positions|position_embd|relative_attention_bias|position_bias|position_encod",
    ),
    ("norm", r"norm|(^|[._])ln(_?\w+)?(\.|$)|layer_?norm"),
    ("router", r"router|(mlp|moe|feed_forward|block_sparse_moe)\.gate(\.|$)|ffn_gate_inp"),
    ("qkv", r"in_proj|c_attn|qkv|query_key_value|w_?pack"),
    ("q", r"q_proj|(^|[._])query|attn_q\b|(^|\.)(wq|q|q_lin|to_q)(\.|$)"),
    ("k", r"k_proj|(^|[._])key|attn_k\b|(^|\.)(wk|k|k_lin|to_k)(\.|$)"),
    ("v", r"v_proj|(^|[._])value|attn_v\b|(^|\.)(wv|v|v_lin|to_v)(\.|$)"),
    ("gate_up", r"gate_up_proj|ffn_gate_up"),
    ("gate", r"gate_proj|ffn_gate|(feed_forward|experts\.\d+|mlp)\.w1(\.|$)|(^|\.)wi_0"),
    (
        "up",
        r"up_proj|ffn_up|intermediate\.dense|linear1|lin1|fc1|fc_in|c_fc|dense_h_to_4h|(^|\.)wi(_1)?(\.|$)|(^|\.)w3(\.|$)",
    ),
    ("down", r"down_proj|ffn_down|linear2|lin2|fc2|fc_out|mlp\.c_proj|dense_4h_to_h|densereludense\.wo|(^|\.)w2(\.|$)"),
    (
        "o",
        r"o_proj|out_proj|attn_output|attention\.output\.dense|attn\.c_proj|(^|\.)(wo|o|out_lin)(\.|$)|to_out|attn\.proj|attention\.dense",
    ),
    ("down", r"output\.dense"),
    (
        "embedding",
        r"embed_tokens|word_embed|wte\b|token_emb|tok_emb|embed_in|(^|\.)shared(\.|$)|(^|\.)embed(ding)?s?(\.|$)|token_type",
    ),
    (
        "head",
        r"lm_head|embed_out|predictions\.decoder|prediction_projector|classifier|(^|\.)score(\.|$)|^output\.weight|(^|\.)head(\.|$)",
    ),
)

#: Roles whose values may be set by the architecture rather than learned; equal ones show nothing.
FIXED = frozenset({"fixed", "position"})

_READS_RESIDUAL = frozenset({"q", "k", "v", "qkv", "gate", "up", "gate_up", "router", "head", "embedding"})
_WRITES_RESIDUAL = frozenset({"o", "down"})

_LAYER = re.compile(
    r"^(?P<stack>(?:[^.]+\.)*?(?:h|blk|\w*layers?|\w*blocks?|resblocks|block))\.(?P<layer>\d+)\.(?P<rest>.+)$", re.I
)
_EXPERT = re.compile(r"experts?\.(\d+)\.", re.I)
_COMPILED = tuple((role, re.compile(pattern, re.I)) for role, pattern in ROLES)
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Name:
    """One tensor's name, taken apart. ``layer``, ``expert`` and ``role`` are None where the name does not say."""

    name: str
    stack: str
    layer: int | None
    expert: int | None
    role: str | None
    kind: str  # "weight", "bias" or the last word of the name
    rest: str  # what follows the layer number

    @property
    def region(self) -> str:
        """The part of the model that it belongs to: ``"model.layers.7"``, or its role when it is outside the blocks."""
        return f"{self.stack}.{self.layer}" if self.layer is not None else (self.role or "other")


@lru_cache(maxsize=65536)
def parse(name: str) -> Name:
    """Take a name apart. Never fails: an unknown name has no layer and no role."""
    found = _LAYER.match(name)
    stack, rest = (found["stack"], found["rest"]) if found else ("", name)
    expert = _EXPERT.search(rest)
    role = next((role for role, pattern in _COMPILED if pattern.search(rest)), None)
    last = re.split(r"[._]", name)[-1].lower()
    return Name(
        name=name,
        stack=stack,
        layer=int(found["layer"]) if found else None,
        expert=int(expert[1]) if expert else None,
        role=role,
        kind=last,
        rest=rest,
    )


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts layer 10 behind layer 9."""
    return tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in _DIGITS.split(name) if word)


def residual_axis(name: Name, shape: Iterable[int], width: int) -> int | None:
    """The axis (0 = first, 1 = last) of a matrix that runs over residual channels, or None where that isn't sure.

    ``shape`` is (rows, columns), ``width`` the model's hidden size. Exactly one axis of that length settles it,
    whatever the name; for a square matrix the role has to.
    """
    rows, columns = shape
    if (rows == width) != (columns == width):
        return 0 if rows == width else 1
    if rows != width or re.search(r"c_proj|c_attn|c_fc", name.rest):
        return None
    if name.role in _READS_RESIDUAL:
        return 1
    return 0 if name.role in _WRITES_RESIDUAL else None
