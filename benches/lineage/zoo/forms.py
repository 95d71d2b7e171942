"""Five forms of decoder under one roof: what they share is the order of a block, what differs is a row of a table.

    llama   RMSNorm · gain,        silu-gated FFN,       rotary positions, separate head
    qwen2   llama with biases on q, k and v
    gemma   RMSNorm · (1 + gain),  gelu-gated FFN,       rotary positions, embedding scaled by √d, head tied to it
    gpt2    LayerNorm with offset, plain FFN with gelu,  learned positions, biases everywhere, head tied
    moe     llama with the FFN written once per expert and a router (DeepSeek-MoE's tensor names)

A model on disk is a flat dict under the hub's names (`ZooModel.tensors`). For training it is *stacked*: one array per
role, the blocks along the first axis, (in every matrix) out × in, so that one compiled block serves all of them:

    stack(tensors, shape) → {"embedding": (V, d), …, "block.q": (L, d, d), …, "block.gate": (L, E, h, d) for experts}
    flatten(stacked, shape) → the hub's names again

The form of a model that an operation has edited (biases dropped, norms exchanged) is read off its tensors: `shape_of`.
Sources: Llama 2302.13971, Qwen2 2407.10671, Gemma 2403.08295, GPT-2 (Radford 2019), DeepSeekMoE 2401.06066.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model_folder import Tensors

Stacked = dict[str, NDArray[np.float32]]

FORMS = ("llama", "qwen2", "gemma", "gpt2", "moe")


@dataclass(frozen=True)
class Shape:
    """Everything that the forward pass needs beside the weights; hashable.

    Attributes:
        norm: ``rms``, ``rms1`` (the gain is stored without its 1) or ``layer`` (LayerNorm).
        act: ``silu`` or ``gelu`` (the tanh form).
        rotary: rotary positions; otherwise a learned table.
        scaled: the embedding is multiplied by √hidden.
        experts: 0 for a dense FFN.
        names: the hub's tensor names, ``llama`` or ``gpt2``.
    """

    form: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int = 256
    head: int = 0
    experts: int = 0
    experts_used: int = 2
    norm: str = "rms"
    act: str = "silu"
    gated: bool = True
    rotary: bool = True
    tied: bool = False
    scaled: bool = False
    names: str = "llama"
    positions: int = 128
    theta: float = 10_000.0
    eps: float = 1e-5


_FORMS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "gemma": {"norm": "rms1", "act": "gelu", "tied": True, "scaled": True},
    "gpt2": {"norm": "layer", "act": "gelu", "gated": False, "rotary": False, "tied": True, "names": "gpt2"},
    "moe": {"experts": 4},
}


def shape(form: str, hidden: int, layers: int, ffn: int, heads: int = 4, kv_heads: int = 2, **more: Any) -> Shape:
    """The shape of a new model of `form`; gpt2 has no grouped heads."""
    kv = heads if form == "gpt2" else kv_heads
    return Shape(form, hidden, layers, heads, kv, ffn, **{"head": hidden // heads, **_FORMS[form], **more})


# Role → the hub's name. The gpt2 form fuses q, k and v and stores (in × out): see `stack`.
_OUTSIDE = {
    "llama": {
        "embedding": "model.embed_tokens.weight",
        "final_norm": "model.norm.weight",
        "final_norm_bias": "model.norm.bias",
        "head": "lm_head.weight",
    },
    "gpt2": {
        "embedding": "wte.weight",
        "position": "wpe.weight",
        "final_norm": "ln_f.weight",
        "final_norm_bias": "ln_f.bias",
    },
}
_BLOCK = {
    "llama": {
        "attn_norm": "input_layernorm.weight",
        "attn_norm_bias": "input_layernorm.bias",
        **{role: f"self_attn.{role}_proj.weight" for role in "qkvo"},
        **{f"{role}_bias": f"self_attn.{role}_proj.bias" for role in "qkvo"},
        "ffn_norm": "post_attention_layernorm.weight",
        "ffn_norm_bias": "post_attention_layernorm.bias",
        "router": "mlp.gate.weight",
        **{role: f"mlp.{role}_proj.weight" for role in ("gate", "up", "down")},
        **{f"{role}_bias": f"mlp.{role}_proj.bias" for role in ("gate", "up", "down")},
    },
    "gpt2": {
        "attn_norm": "ln_1.weight",
        "attn_norm_bias": "ln_1.bias",
        "qkv": "attn.c_attn.weight",
        "qkv_bias": "attn.c_attn.bias",
        "o": "attn.c_proj.weight",
        "o_bias": "attn.c_proj.bias",
        "ffn_norm": "ln_2.weight",
        "ffn_norm_bias": "ln_2.bias",
        "up": "mlp.c_fc.weight",
        "up_bias": "mlp.c_fc.bias",
        "down": "mlp.c_proj.weight",
        "down_bias": "mlp.c_proj.bias",
    },
}
_PREFIX = {"llama": "model.layers.", "gpt2": "h."}
_EXPERT_ROLES = ("gate", "up", "down")
_TURNED = ("qkv", "o", "up", "down")  # gpt2 stores these (in x out)


def roles(s: Shape) -> dict[str, tuple[int, ...]]:
    """Stacked role → shape, of a new model of this form."""
    d, h, L = s.hidden, s.ffn, s.layers
    q, kv = s.heads * s.head, s.kv_heads * s.head
    e = (s.experts,) if s.experts else ()
    out: dict[str, tuple[int, ...]] = {"embedding": (s.vocabulary, d)}
    if not s.rotary:
        out["position"] = (s.positions, d)
    block: dict[str, tuple[int, ...]] = {
        "attn_norm": (d,), "q": (q, d), "k": (kv, d), "v": (kv, d), "o": (d, q), "ffn_norm": (d,),
    }  # fmt: skip
    if s.experts:
        block["router"] = (s.experts, d)
    block |= {"gate": (*e, h, d)} if s.gated else {}
    block |= {"up": (*e, h, d), "down": (*e, d, h)}
    if s.form == "qwen2":
        block |= {"q_bias": (q,), "k_bias": (kv,), "v_bias": (kv,)}
    if s.form == "gpt2":
        block |= {f"{role}_bias": (size,) for role, size in (("q", d), ("k", d), ("v", d), ("o", d))}
        block |= {"up_bias": (h,), "down_bias": (d,), "attn_norm_bias": (d,), "ffn_norm_bias": (d,)}
    out |= {f"block.{role}": (L, *size) for role, size in block.items()}
    out["final_norm"] = (d,)
    if s.norm == "layer":
        out["final_norm_bias"] = (d,)
    if not s.tied:
        out["head"] = (s.vocabulary, d)
    return out


def init(s: Shape, seed: int) -> Stacked:
    """New weights: matrices normal with sd 1/√in, those that write to the stream scaled by 1/√(2·layers) as well.

    Gains act as one, offsets and biases are zero. The embedding has sd .02 (d^-1/2 where it is scaled by √d; .1 where a
    table of positions is added to it, which would drown it).
    """
    rng = np.random.default_rng([seed, FORMS.index(s.form)])
    out: Stacked = {}
    for role, size in roles(s).items():
        name = role.removeprefix("block.")
        if name.endswith("_bias"):
            x = np.zeros(size)
        elif name.endswith("norm"):
            x = np.zeros(size) if s.norm == "rms1" else np.ones(size)
        else:
            sd = size[-1] ** -0.5
            if name in ("embedding", "position", "router"):
                sd = s.hidden**-0.5 if s.scaled else 0.02
            if name == "embedding" and not s.rotary:
                sd = 0.1
            if name in ("o", "down"):
                sd *= (2 * s.layers) ** -0.5
            x = sd * rng.standard_normal(size)
        out[role] = x.astype(np.float32)
    return out


def stack(tensors: Mapping[str, NDArray[Any]], s: Shape) -> Stacked:
    """The hub's flat dict → one float32 array per role. Raises KeyError where blocks differ in what they have."""
    out: Stacked = {}
    for role, name in _OUTSIDE[s.names].items():
        if name in tensors:
            out[role] = np.asarray(tensors[name], np.float32)
    prefix = _PREFIX[s.names]
    for role, name in _BLOCK[s.names].items():
        names = [_expert_names(f"{prefix}{layer}.{name}", role, s) for layer in range(s.layers)]
        if names[0][0] not in tensors:
            continue
        x = np.stack([np.stack([np.asarray(tensors[n], np.float32) for n in group]) for group in names])
        x = x if s.experts and role in _EXPERT_ROLES else x[:, 0]
        out[f"block.{role}"] = x.swapaxes(-1, -2) if s.names == "gpt2" and role in _TURNED else x
    for role in ("qkv", "qkv_bias"):
        if f"block.{role}" in out:
            fused = out.pop(f"block.{role}")
            for part, x in zip("qkv", np.split(fused, 3, axis=1), strict=True):
                out[f"block.{role.replace('qkv', part)}"] = x
    return {role: np.ascontiguousarray(x) for role, x in out.items()}


def flatten(stacked: Mapping[str, NDArray[Any]], s: Shape) -> Tensors:
    """One array per role → the hub's flat dict, in the order of the computation."""
    x = dict(stacked)
    if s.names == "gpt2":
        for role in ("qkv", "qkv_bias"):
            parts = [f"block.{role.replace('qkv', part)}" for part in "qkv"]
            if parts[0] in x:
                x[f"block.{role}"] = np.concatenate([x.pop(part) for part in parts], axis=1)
        x |= {f"block.{r}": x[f"block.{r}"].swapaxes(-1, -2) for r in _TURNED}
    outside = _OUTSIDE[s.names]
    last = ("final_norm", "final_norm_bias", "head")
    out: Tensors = {name: x[role] for role, name in outside.items() if role in x and role not in last}
    for layer in range(s.layers):
        for role, name in _BLOCK[s.names].items():
            if f"block.{role}" not in x:
                continue
            names = _expert_names(f"{_PREFIX[s.names]}{layer}.{name}", role, s)
            here = x[f"block.{role}"][layer]
            for n, value in zip(names, here if s.experts and role in _EXPERT_ROLES else here[None], strict=True):
                out[n] = np.ascontiguousarray(value)
    return out | {outside[role]: x[role] for role in last if role in x}


def _expert_names(name: str, role: str, s: Shape) -> list[str]:
    if not s.experts or role not in _EXPERT_ROLES:
        return [name]
    return [name.replace(".mlp.", f".mlp.experts.{e}.") for e in range(s.experts)]


_TYPES = {
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "gemma": ("GemmaForCausalLM", "gemma"),
    "gpt2": ("GPT2LMHeadModel", "gpt2"),
    "moe": ("DeepseekForCausalLM", "deepseek"),
}


def to_hf(s: Shape) -> dict[str, Any]:
    """The config.json that a loader would expect beside these tensors."""
    architecture, kind = _TYPES[s.form]
    common: dict[str, Any] = {"architectures": [architecture], "model_type": kind, "torch_dtype": "bfloat16"}
    common |= {"vocab_size": s.vocabulary, "tie_word_embeddings": s.tied}
    if s.names == "gpt2":
        return common | {
            "n_embd": s.hidden, "n_layer": s.layers, "n_head": s.heads, "n_inner": s.ffn, "n_positions": s.positions,
            "n_ctx": s.positions, "activation_function": "gelu_new", "layer_norm_epsilon": s.eps,
        }  # fmt: skip
    common |= {
        "hidden_size": s.hidden, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head, "intermediate_size": s.ffn, "rms_norm_eps": s.eps,
        "rope_theta": s.theta, "max_position_embeddings": 2048,
        "hidden_act": "gelu_pytorch_tanh" if s.act == "gelu" else "silu",
    }  # fmt: skip
    if s.form in ("llama", "moe"):
        common["attention_bias"] = False
    if s.experts:
        common |= {
            "moe_intermediate_size": s.ffn, "n_routed_experts": s.experts, "num_experts_per_tok": s.experts_used,
            "n_shared_experts": None, "norm_topk_prob": True, "scoring_func": "softmax", "first_k_dense_replace": 0,
            "moe_layer_freq": 1,
        }  # fmt: skip
    return common


def shape_of(tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Shape:
    """The shape of a model in memory, from its tensors where they tell and from config.json where they don't."""
    kind = config["model_type"]
    form = next(form for form, (_, name) in _TYPES.items() if name == kind)
    base = Shape(form, 0, 0, 0, 0, 0, **{**_FORMS[form], "experts": 0})
    get = config.get
    names = base.names
    prefix = re.escape(_PREFIX[names])
    layers = 1 + max(int(m[1]) for name in tensors if (m := re.match(rf"{prefix}(\d+)\.", name)))
    vocabulary, hidden = tensors[_OUTSIDE[names]["embedding"]].shape
    heads = int(get("n_head", get("num_attention_heads")))
    experts = {int(m[1]) for name in tensors if (m := re.search(r"\.0\.mlp\.experts\.(\d+)\.", name))}
    s = replace(base, hidden=hidden, layers=layers, vocabulary=vocabulary, heads=heads, experts=len(experts))
    up = tensors[_expert_names(f"{_PREFIX[names]}0.{_BLOCK[names]['up']}", "up", s)[0]]
    head = int(get("head_dim") or hidden // heads)
    block = f"{_PREFIX[names]}0."
    has_norm_bias = block + _BLOCK[names]["attn_norm_bias"] in tensors
    return replace(
        s,
        head=head,
        kv_heads=int(get("num_key_value_heads", heads)),
        ffn=up.shape[1 if names == "gpt2" else 0],
        experts_used=int(get("num_experts_per_tok") or 2),
        norm="layer" if has_norm_bias else ("rms1" if base.norm == "rms1" else "rms"),
        rotary=_OUTSIDE["gpt2"]["position"] not in tensors,
        positions=tensors["wpe.weight"].shape[0] if "wpe.weight" in tensors else base.positions,
        tied="lm_head.weight" not in tensors,
        theta=float(get("rope_theta") or base.theta),
        eps=float(get("rms_norm_eps") or get("layer_norm_epsilon") or base.eps),
    )
