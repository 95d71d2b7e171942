"""What the words in a tensor's name hint at: its role, its stack. A hint, never evidence.

Families in the table have exact names. This is for names nobody has listed: each row is a pattern of words that
authors have used for a role, tried in order on the *normalised name* behind the block number, first match
wins. The normalised name is the name in lower case with camel humps and dashes opened up: ``SelfAttention.qProj``
becomes ``self_attention.q_proj``. ``(?<![a-z])`` and ``(?![a-z])`` keep ``q`` from matching inside ``seq``.

Two hints are of more than one role: ``qkv`` (also ``kv``) and ``gate_up`` for fused projections, and ``norm`` for a
norm whose words don't say which. A word that contradicts the shapes loses (:mod:`weightprint.anatomy.infer.shapes`).
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

_B, _E = r"(?<![a-z])", r"(?![a-z])"

#: Hints that stand for several roles side by side in one tensor.
FUSED: dict[str, tuple[str, ...]] = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate_up": ("gate", "up")}

#: hint -> pattern searched in the normalised name behind the block number (outside blocks in the whole name).
WORDS: tuple[tuple[str, str], ...] = (
    ("fixed", r"position_ids|inv_freq|freqs|alibi|rotary|rope_freqs|relative_position_index|attn_mask|masked_bias|"),
    ("fixed", r"mel_filters|filterbank|causal_mask|token_type_ids"),
    ("statistics", r"running_(mean|var)|num_batches_tracked"),
    ("relative_bias", r"relative_attention_bias|relative_position_bias|rel_pos|position_bias"),
    ("sinks", rf"{_B}sinks?{_E}"),
    # norms before projections: "q_norm" and "attention.output.layer_norm" hold a projection's words too
    ("q_a_norm", r"q_a_(layer_?)?norm|wq_a_norm"),
    ("kv_a_norm", r"kv_a_(layer_?)?norm|wkv_a_norm"),
    ("q_norm", rf"{_B}(q|query)_(layer_?)?norm|{_B}(norm_q|q_ln){_E}|attn_q_norm"),
    ("k_norm", rf"{_B}(k|key)_(layer_?)?norm|{_B}(norm_k|k_ln){_E}|attn_k_norm"),
    ("attn_inner_norm", r"inner_attn_ln|attn_sub_norm|attention_sub_norm"),
    ("ffn_inner_norm", r"ffn_sub_norm|ffn_layer_?norm_inner|mlp_inner_norm"),
    ("cross_norm", r"(cross|encoder|enc_dec|encdec)_?(attn|attention)_(layer_?)?norm|cross_norm|norm_cross"),
    ("ffn_norm", r"pre_?(ffn|mlp|feed_?forward)_?(layer_?)?norm"),
    ("attn_norm", r"pre_?(attn|attention|self_attn)_?(layer_?)?norm"),
    ("ffn_post_norm", r"post_?(ffn|mlp|feed_?forward)_?(layer_?)?norm|ffn_post_norm|norm_post_(ffn|mlp)"),
    ("ffn_norm", r"post_attention_(layer_?)?norm|ffn_(layer_?)?norm|mlp_(layer_?)?norm|feed_?forward_(layer_?)?norm"),
    ("ffn_norm", rf"(ff|ffn|mlp|feed_?forward)\.(layer_?)?(norm|ln){_E}|norm_(ff|ffn|mlp){_E}"),
    ("attn_post_norm", r"(attn|attention)\.output\.layer_?norm|attn_post_norm|sa_layer_?norm|post_attn_norm"),
    ("attn_norm", r"input_(layer_?)?norm|(attn|attention)_(layer_?)?norm|norm_(sa|attn|attention)(?![a-z])"),
    ("attn_norm", rf"{_B}ln_?(1|attn|a){_E}|{_B}(layer_?)?norm_?1{_E}|(attn|attention)\.(layer_?)?(norm|ln){_E}"),
    ("ffn_norm", rf"{_B}ln_?(2|ffn|mlp|f2){_E}|{_B}(layer_?)?norm_?2{_E}"),
    ("ffn_post_norm", r"output\.layer_?norm|output_layer_norm"),
    ("embedding_norm", r"(embed\w*|emb)(\.|_)(layer_?)?norm|norm_emb|ln_emb|embeddings?\.(ln|layer_?norm)"),
    ("final_norm", rf"final_?(layer_?)?norm|{_B}ln_?f{_E}|norm_?f{_E}|output_norm|(^|\.)(final_)?norm\.|ln_?post"),
    ("norm", rf"norm|{_B}ln(_?\w+)?(\.|$)"),
    # mixture of experts
    ("router_correction", r"e_score_correction|expert_bias|router_correction"),
    ("shared_gate", r"shared_experts?_gate"),
    ("router", r"router|ffn_gate_inp|(moe|sparse\w*)\.gate(\.|$)|gate\.(wg|weight_gate)|(^|\.)wg(\.|$)|gating_network"),
    # multi-head latent attention
    ("q_a", r"q_a_proj|wq_a|q_down_proj"),
    ("q_b", r"q_b_proj|wq_b|q_up_proj"),
    ("kv_a", r"kv_a_proj|wkv_a|kv_down_proj"),
    ("kv_b", r"kv_b_proj|wkv_b|kv_up_proj"),
    # attention
    ("qkv", r"in_proj|c_attn|qkv|query_key_value|w_?pack|attn_qkv|to_qkv"),
    ("kv", rf"{_B}(to_|w|c_)?kv{_E}|kv_proj|key_value"),
    ("q", rf"q_proj|{_B}quer(y|ies){_E}|attn_q{_E}|{_B}(w_?|to_|lin_|c_)?q(_lin|_w|_weight|_linear)?{_E}"),
    ("k", rf"k_proj|{_B}keys?{_E}|attn_k{_E}|{_B}(w_?|to_|lin_|c_)?k(_lin|_w|_weight|_linear)?{_E}"),
    ("v", rf"v_proj|{_B}values?{_E}|attn_v{_E}|{_B}(w_?|to_|lin_|c_)?v(_lin|_w|_weight|_linear)?{_E}"),
    ("o", r"(attn|attention|att|sa)\w*\.(\w+\.)*(c_proj|out_proj|proj|dense|output|out|wo|o)(\.|$|_weight|_bias)"),
    ("o", rf"o_proj|out_proj|attn_out(put)?|to_out|out_lin|{_B}(w_?)?o(_lin)?{_E}|attention\.output\.dense"),
    # feed-forward
    ("gate_up", r"gate_?up|up_?gate|wi_fused|w12|gate_and_up|dense_h_to_4h_swiglu"),
    (
        "gate",
        rf"gate_proj|ffn_gate|{_B}w_?1{_E}|wi_0|(mlp|ffn|ff|feed_?forward|experts?(\.\d+)?)\.gate{_E}|w_gate|gate_w",
    ),
    ("up", rf"up_proj|ffn_up|intermediate\.dense|linear_?1{_E}|lin_?1{_E}|fc_?1{_E}|fc_?in|c_fc|dense_h_to_4h|w_up"),
    ("up", rf"{_B}wi(_1)?{_E}|{_B}w_?3{_E}|(mlp|ffn|ff|feed_?forward|experts?(\.\d+)?)\.up{_E}|{_B}w_?in{_E}|expand"),
    ("down", rf"down_proj|ffn_down|linear_?2{_E}|lin_?2{_E}|fc_?2{_E}|fc_?out|dense_4h_to_h|w_down|{_B}w_?out{_E}"),
    (
        "down",
        rf"(mlp|ffn|ff|feed_?forward|experts?(\.\d+)?)\.(c_proj|down|wo|proj_out|output){_E}|{_B}w_?2{_E}|contract",
    ),
    ("down", r"output\.dense|densereludense\.wo|dense_relu_dense\.wo"),
    ("gate", rf"{_B}gate{_E}"),
    # outside
    ("token_type", r"token_type|segment_emb"),
    ("position", rf"pos(ition(al)?)?_?(emb|enc)|{_B}wpe{_E}|embed_positions|position_embd|{_B}pos{_E}"),
    ("head", rf"lm_head|embed_out|predictions\.decoder|unembed|output_embed|(^|\.)output\.weight|{_B}(lm_)?head{_E}"),
    ("embedding", rf"embed|{_B}wte{_E}|token_emb|tok_emb|(^|\.)shared(\.|$)|{_B}emb{_E}|vocab|lookup"),
    ("classifier", rf"classifier|{_B}score{_E}"),
    ("pooler", r"pooler"),
)

_COMPILED = tuple((word, re.compile(pattern.rstrip("|"))) for word, pattern in WORDS)
_CROSS = re.compile(r"cross|enc_?dec_?att|encoder_att|multihead_attn|src_att")
_BIAS = re.compile(r"(^|[._])(bias|beta|b|offset)$")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LONG_NUMBER = re.compile(r"(?<=\d\d)\d+")
_EXPERT = re.compile(r"expert|moe(?![a-z])")
_STACKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("vision", re.compile(r"vision|visual|image|vit(?![a-z])|pixel")),
    ("audio", re.compile(r"audio|speech|acoustic|wave")),
    ("text", re.compile(r"text_(model|encoder)|language_encoder")),
    ("mtp", re.compile(r"(?<![a-z])mtp|nextn")),
    ("decoder", re.compile(r"decod|(?<![a-z])dec(?![a-z])")),
    ("encoder", re.compile(r"encod|(?<![a-z])enc(?![a-z])")),
)


def normalised(name: str) -> str:
    """The name in lower case, with camel humps and dashes written as underscores."""
    return _HUMP.sub("_", name).lower().replace("-", "_").replace("/", ".")


def hint(rest: str) -> str | None:
    """The role (or fused roles, or ``"norm"``) that a name's words speak of, with ``_bias`` where they say bias."""
    # No word has a number of three digits in it: names that differ in those alone are looked at once.
    return _hint(_LONG_NUMBER.sub("0", rest))


def hint_among(rest: str, words: frozenset[str]) -> str | None:
    """`hint` where that is one of these roles, or its bias, and None elsewhere: for most names at a glance."""
    return _hint_among(_LONG_NUMBER.sub("0", rest), words)


@lru_cache(maxsize=65536)
def _hint_among(rest: str, words: frozenset[str]) -> str | None:
    if not _any(words).search(normalised(rest)):
        return None
    word = _hint(rest)
    return word if word is not None and word.removesuffix("_bias") in words else None


@cache
def _any(words: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern.pattern})" for word, pattern in _COMPILED if word in words))


@lru_cache(maxsize=65536)
def _hint(rest: str) -> str | None:
    text = normalised(rest)
    word = next((word for word, pattern in _COMPILED if pattern.search(text)), None)
    if word is None:
        return None
    if word in ("q", "k", "v", "o", "kv", "qkv") and _CROSS.search(text):
        word = f"cross_{word}"
    return f"{word}_bias" if _BIAS.search(text) else word


def stack_word(prefix: str) -> str | None:
    """The stack that stands before a block number: ``"encoder"`` in ``"bert.encoder.layer."``; None: no word says."""
    text = normalised(prefix)
    return next((stack for stack, pattern in _STACKS if pattern.search(text)), None)


def expert_word(text: str) -> bool:
    """The words before a number speak of experts."""
    return _EXPERT.search(normalised(text)) is not None
