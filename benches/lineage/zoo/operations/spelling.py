"""One spelling for all forms: the operations see Llama's names and (out, in) matrices, whatever the checkpoint says.

Llama, Qwen2, Gemma and the MoE form are spelled so already. GPT-2 is translated: its Conv1D matrices are turned, q|k|v
cut apart, `mlp.c_fc` called `up_proj`. `spell` and `unspell` are each other's inverse, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ..model_folder import Tensors

EMBEDDING, POSITIONS, NORM, HEAD = "model.embed_tokens", "model.embed_positions", "model.norm", "lm_head"

_GPT2 = {
    "ln_1": "input_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "ln_2": "post_attention_layernorm",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
_GPT2_OUTSIDE = {"wte": EMBEDDING, "wpe": POSITIONS, "ln_f": NORM, "lm_head": HEAD}
_GPT2_NAME = re.compile(r"(transformer\.)?h\.(\d+)\.(.+)\.(weight|bias)")

#: module inside a block → the axes of its weight; its bias has the first of them.
AXES: dict[str, tuple[str, ...]] = {
    "input_layernorm": ("channel",),
    "self_attn.q_proj": ("query", "channel"),
    "self_attn.k_proj": ("key", "channel"),
    "self_attn.v_proj": ("value", "channel"),
    "self_attn.o_proj": ("channel", "mixed"),
    "post_attention_layernorm": ("channel",),
    "mlp.gate": ("expert", "channel"),
    "gate_proj": ("unit", "channel"),
    "up_proj": ("unit", "channel"),
    "down_proj": ("channel", "unit"),
    EMBEDDING: ("token", "channel"),
    POSITIONS: ("position", "channel"),
    NORM: ("channel",),
    HEAD: ("token", "channel"),
}
_ORDER = {module: i for i, module in enumerate(AXES)}
_BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"mlp\.experts\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """The block that a tensor is in."""
    found = _BLOCK.match(name)
    return int(found[1]) if found else None


def ffn_of(name: str) -> str | None:
    """The FFN or expert that a tensor is in, by its prefix; None for anything else, the router included."""
    prefix, _, last = name.rsplit(".", 1)[0].rpartition(".")
    return prefix if last in ("gate_proj", "up_proj", "down_proj") else None


def module_of(name: str) -> str:
    """The key in `AXES`.

    Raises:
        ValueError: not a tensor that these operations know.
    """
    inside, _, kind = name.rpartition(".")
    found = _BLOCK.match(inside)
    module = inside if found is None else found[2]
    if ffn_of(name) is not None:
        module = module.rpartition(".")[2]
    if module not in AXES or kind not in ("weight", "bias"):
        raise ValueError(f"{name}: operations work on Llama's, Qwen2's, Gemma's, DeepSeek's and GPT-2's names")
    return module


def axes_of(name: str) -> tuple[str, ...]:
    """What each axis of a tensor runs over."""
    axes = AXES[module_of(name)]
    return axes[:1] if name.endswith(".bias") else axes


def ordered(tensors: Mapping[str, np.ndarray]) -> Tensors:
    """In the order of the computation: embedding, blocks, final norm, head; inside a block as Llama does it."""

    def key(name: str) -> tuple[int, int, int, int, bool]:
        module = module_of(name)
        layer, expert = layer_of(name), _EXPERT.search(name)
        place = -1 if module in (EMBEDDING, POSITIONS) else 10**6 if layer is None else layer
        in_block = _ORDER["mlp.gate"] + 1 if ffn_of(name) else _ORDER[module]
        return place, in_block, int(expert[1]) if expert else -1, _ORDER[module], name.endswith(".bias")

    return {name: tensors[name] for name in sorted(tensors, key=key)}


def is_gpt2(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are GPT-2's."""
    return any(_GPT2_NAME.fullmatch(name) for name in tensors)


def spell(tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Into Llama's spelling; floats of any width become float32, arrays that are float32 are not copied.

    Raises:
        ValueError: names that are not known, or weights that are stored as integers or 8-bit floats.
    """
    for name, x in tensors.items():
        if x.dtype.name not in ("float64", "float32", "float16", "bfloat16"):
            raise ValueError(f"{name} is {x.dtype}: operations need plain weights, encode them last")
    plain: Tensors = {name: np.asarray(x, np.float32) for name, x in tensors.items()}
    if is_gpt2(plain):
        plain = _from_gpt2(plain)
    return ordered(plain)


def unspell(tensors: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> Tensors:
    """Back into the spelling of the checkpoint that `like` is."""
    tensors = ordered(tensors)
    if not is_gpt2(like):
        return tensors
    return _to_gpt2(tensors, "transformer." if any(name.startswith("transformer.") for name in like) else "")


def _from_gpt2(tensors: Tensors) -> Tensors:
    out: Tensors = {}
    for name, x in tensors.items():
        found = _GPT2_NAME.fullmatch(name)
        if found is None:
            module, _, kind = name.removeprefix("transformer.").rpartition(".")
            out[f"{_GPT2_OUTSIDE.get(module, module)}.{kind}"] = x
            continue
        block, module, kind = f"model.layers.{found[2]}", found[3], found[4]
        if module == "attn.c_attn":
            for part, y in zip("qkv", np.split(x, 3, axis=-1), strict=True):
                out[f"{block}.self_attn.{part}_proj.{kind}"] = np.ascontiguousarray(y.T)
        elif module in _GPT2:
            turned = kind == "weight" and not module.startswith("ln")
            out[f"{block}.{_GPT2[module]}.{kind}"] = np.ascontiguousarray(x.T) if turned else x
        else:
            raise ValueError(f"{name}: not one of GPT-2's")
    return out


def _to_gpt2(tensors: Tensors, prefix: str) -> Tensors:
    back = {llama: gpt2 for gpt2, llama in _GPT2.items()}
    outside = {llama: gpt2 for gpt2, llama in _GPT2_OUTSIDE.items()}
    out: Tensors = {}
    for name, x in tensors.items():
        layer = layer_of(name)
        inside, _, kind = name.rpartition(".")
        if layer is None:
            out[f"{'' if inside == HEAD else prefix}{outside[inside]}.{kind}"] = x
            continue
        block, module = f"{prefix}h.{layer}", inside.split(".", 3)[3]
        if module == "self_attn.q_proj":
            parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            out[f"{block}.attn.c_attn.{kind}"] = np.ascontiguousarray(np.concatenate(parts).T)
        elif module in back:
            turned = x.ndim == 2
            out[f"{block}.{back[module]}.{kind}"] = np.ascontiguousarray(x.T) if turned else x
    return out
