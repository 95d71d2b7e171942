"""The same weights written differently: other names, other types, quantised. Always the last step of a chain."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np

from ..model_folder import DTYPES, Tensors
from . import spelling as _spelling
from .work import ALL, GATED, Array, Work, operation

_GGUF = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
}  # fmt: skip


@operation(forms=ALL, preserves=True, strengths=({"style": "prefixed"}, {"style": "blocks"}))
def rename(work: Work, style: str = "prefixed") -> None:
    """Other names: `prefixed` (language_model.…), `blocks` (GGUF's words, HF's layout), `llama` (GPT-2 respelled)."""
    if style == "llama":
        names = {name: name for name in work.tensors}
    elif style == "prefixed":
        names = {name: f"language_model.{name}" for name in work.tensors}
    elif style == "blocks":
        names = {name: _gguf(name) for name in work.tensors}
    else:
        raise ValueError(f"no style {style!r}")
    work.note(names={new: old for old, new in names.items()})
    work.closed = {names[name]: x for name, x in work.tensors.items()}


def _gguf(name: str) -> str:
    inside, _, kind = name.rpartition(".")
    found = re.match(r"model\.layers\.(\d+)\.(.*)", inside)
    if not found:
        return f"{_GGUF.get(inside, inside)}.{kind}"
    module = re.sub(r"^mlp\.experts\.\d+\.", "mlp.", found[2])
    expert = re.match(r"mlp\.experts\.(\d+)", found[2])
    return f"blk.{found[1]}.{_GGUF[module]}{'.' + expert[1] if expert else ''}.{kind}"


@operation(forms=ALL, preserves=True, strengths=({}, {"shuffled": True, "config": False}))
def random_names(work: Work, shuffled: bool = False, config: bool = True) -> None:
    """Names that say nothing, in the old order or in a random one, with or without the config."""
    old = list(work.tensors)
    order = work.rng.permutation(len(old)) if shuffled else np.arange(len(old))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    new = ["".join(work.rng.choice(letters, 12)) for _ in old]
    work.note(names={new[i]: old[i] for i in order})
    work.closed = {new[i]: work.tensors[old[i]] for i in order}
    if not config:
        work.config = {}


@operation(forms=ALL, preserves=True, strengths=({"dtype": "BF16"}, {"dtype": "F16"}, {"dtype": "F32"}))
def re_dtype(work: Work, dtype: str = "BF16") -> None:
    """Every tensor rounded to another float."""
    if dtype not in ("F32", "F16", "BF16", "F64"):
        raise ValueError(f"{dtype} is not a plain float")
    work.closed = {name: x.astype(DTYPES[dtype]) for name, x in work.tensors.items()}
    work.config["torch_dtype"] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}[dtype]


@operation(forms=GATED, strengths=({"method": "int8"}, {"method": "fp8"}, {"method": "int4"}))
def quantise(work: Work, method: str = "int8", group: int = 32, block: int = 128, dtype: str = "F32") -> None:
    """Matrices of the blocks quantised; embedding, head and vectors stay.

    `int8`: one scale per row, absmax/127, stored as the dequantised lattice in `dtype`. `int4`: scale and zero point
    per `group` inputs, dequantised, in bfloat16. `fp8`: stored as F8_E4M3 with `weight_scale_inv` (F32) per block of
    `block` x `block`, as DeepSeek-V3 is published.
    """
    out: Tensors = {}
    for name, x in work.tensors.items():
        if x.ndim != 2 or _spelling.layer_of(name) is None or _spelling.module_of(name) == "mlp.gate":
            out[name] = x.astype(ml_dtypes.bfloat16) if method in ("fp8", "int4") else x
        elif method == "int8":
            out[name] = int8_rows(x).astype(DTYPES[dtype])
        elif method == "int4":
            out[name] = int4_groups(x, group).astype(ml_dtypes.bfloat16)
        elif method == "fp8":
            out[name], out[f"{name}_scale_inv"] = fp8_blocks(x, block)
        else:
            raise ValueError(f"method is int8, int4 or fp8, not {method!r}")
    if method == "fp8":
        work.config["quantization_config"] = {
            "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [block, block],
        }  # fmt: skip
    work.closed = out


def int8_rows(x: Array) -> Array:
    """Each row on the lattice absmax/127 · {-127 … 127}."""
    scale = np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-30) / 127
    return np.asarray(np.rint(x / scale) * scale)


def int4_groups(x: Array, group: int) -> Array:
    """Each `group` inputs of a row on 16 points from their minimum to their maximum."""
    out = np.empty_like(x)
    for start in range(0, x.shape[1], group):
        part = x[:, start : start + group]
        low = part.min(axis=1, keepdims=True)
        step = np.maximum(part.max(axis=1, keepdims=True) - low, 1e-30) / 15
        out[:, start : start + group] = np.rint((part - low) / step) * step + low
    return out


def fp8_blocks(x: Array, block: int) -> tuple[Array, Array]:
    """(F8_E4M3 values, F32 scales): value · scale is the weight; the largest of a block is stored as 448."""
    rows, columns = (-(-n // block) for n in x.shape)
    scale = np.ones((rows, columns), np.float32)
    out = np.empty(x.shape, ml_dtypes.float8_e4m3fn)
    for i in range(rows):
        for j in range(columns):
            at = np.s_[i * block : (i + 1) * block, j * block : (j + 1) * block]
            largest = float(np.abs(x[at]).max())
            scale[i, j] = largest / 448 if largest else 1
            out[at] = (x[at] / scale[i, j]).astype(ml_dtypes.float8_e4m3fn)
    return out, scale
