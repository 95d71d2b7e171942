"""torchao's tensor subclasses, flattened into safetensors.

A parameter ``M.weight`` that is a subclass is saved as one tensor per attribute, ``M._weight_qdata``,
``M._weight_scale``, …, and the file's ``__metadata__`` has under ``M.weight`` a JSON object with the class (``_type``)
and its other attributes (``_data``): block_size, shape, dtype.

=========================  ==========================================================================================
class                      decoded as
=========================  ==========================================================================================
Float8Tensor               :class:`.scaled.Scaled`: code · scale; per tensor, row or block
Int8Tensor                 :class:`.scaled.Scaled`: (code - zero_point) · scale
IntxUnpackedToInt8Tensor   :class:`.scaled.Scaled`: likewise; codes of 1 to 8 bits, one per byte
MXTensor                   :class:`.scaled.Scaled` (FP8) or :class:`.fp4.Fp4`, scales in F8_E8M0
NVFP4Tensor                :class:`.fp4.Fp4`: code · (per_tensor_scale · scale); scales perhaps in tiles
Int4Tensor                 :class:`Int4`: signed code · scale + zero; scales (in / group, out), low half of a byte first
=========================  ==========================================================================================

Int4TilePackedTo4dTensor and Int4PlainInt32Tensor are arranged for one device's kernel and are refused.
Without metadata the class can't be told, except FP8 codes with a plain grid of scales.

Sources: torchao ``prototype/safetensors``, ``quantization/quantize_/workflows``, ``prototype/mx_formats``; MSLK's
``int4_row_quantize_zp`` (zero is the value of code 0).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, array, raw, values, wrong_shape
from weightprint.quant.grid import fit
from weightprint.quant.hints import Hints
from weightprint.quant.integers import column_groups
from weightprint.quant.schemes.fp4 import Fp4
from weightprint.quant.schemes.scaled import CODE_DTYPES, Scaled, grid_parameters
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

#: Attributes that enter the weight, and others that are stored beside it.
_PARTS = ("qdata", "scale", "zero_point", "per_tensor_scale", "scale_and_zero")
_BESIDE = ("act_pre_scale", "act_quant_scale", "act_quant_zero_point", "act_per_tensor_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Int4(Quantised):
    """Signed 4-bit codes, two to a byte, with a scale and an offset per group of a row."""

    scale: str
    zero: str
    group: int
    n_groups: int

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        groups, first, n = column_groups(checkpoint, None, self.group, self.n_groups, rect)
        part = Rect(first, n, rect.first_row, rect.n_rows, rect.index)
        left, right = rect.first_column // 2, -(-rect.stop_column // 2)
        decoded = _core.decode_packed(
            raw(checkpoint, self.codes, Rect(rect.first_row, rect.n_rows, left, right - left, rect.index)),
            "bytes",
            (rect.n_rows, right - left),
            4,
            rect.n_rows,
            rect.n_columns,
            np.ascontiguousarray(values(checkpoint, self.scale, part).T).tobytes(),
            n,
            groups.tobytes(),
            first=rect.first_column % 2,
            signed=True,
        )
        offsets, scaled = values(checkpoint, self.zero, part).T, array(decoded, rect)
        if rect.first_column % self.group == 0 and rect.n_columns % self.group == 0:  # whole groups: nothing to gather
            out: F32 = (scaled.reshape(rect.n_rows, n, self.group) + offsets[:, :, None]).reshape(scaled.shape)
            return out
        gathered: F32 = scaled + offsets[:, groups]
        return gathered


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    module, _, last = name.removesuffix(end).rpartition(".")
    if not last.startswith("_") or len(last) < 2:
        return None
    weight = f"{module}.{last[1:]}" if module else last[1:]
    prefix = name.removesuffix("qdata")
    parts = {word: info for word in _PARTS if (info := unclaimed.get(prefix + word)) is not None}
    codes = parts.get("qdata")
    if codes is None:
        return None
    beside = tuple(prefix + word for word in _BESIDE if prefix + word in unclaimed)
    components = (*(info.name for info in parts.values()), *beside)
    kind, data = _metadata(unclaimed.checkpoint, weight)
    if kind is None and codes.dtype.startswith("F8") and codes.dtype in CODE_DTYPES:
        kind = "Float8Tensor"
    make = _CLASSES.get(kind or "")
    made: Quantised | tuple[TensorInfo, str]
    if make is None:
        what = f"a {escape(kind)}" if kind else "of a class that no metadata names"
        made = codes, f"{escape(name)} is {what}, which is not decoded"
    elif "scale" not in parts:
        made = codes, f"{escape(prefix)}scale is missing beside {escape(name)}"
    else:
        made = make(weight, parts, data, components)
    if isinstance(made, Quantised):
        return made
    return unclaimed.unreadable(codes, "torchao", components, *made, weight)


Parts = Mapping[str, TensorInfo]
Made = Quantised | tuple[TensorInfo, str]


def _grid(weight: str, parts: Parts, data: Mapping[str, Any], components: tuple[str, ...]) -> Made:
    """Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, and MXTensor of FP8."""
    codes, scale, zero = parts["qdata"], parts["scale"], parts.get("zero_point")
    if codes.dtype not in CODE_DTYPES:
        return codes, f"{escape(codes.name)} is {codes.dtype}; expected one of {', '.join(CODE_DTYPES)}"
    size = _block_size(data)
    hints = Hints(blocks=((size[-2], size[-1]),) if len(size) >= 2 else (), group_sizes=tuple(size[-1:]))
    grid = fit(codes.shape, scale, hints)
    if grid is None:
        return scale, wrong_shape(scale, f"a grid of blocks over {list(codes.shape)}")
    if zero is not None and zero.shape != scale.shape:
        return zero, wrong_shape(zero, f"{list(scale.shape)}, as {escape(scale.name)} has")
    target = data.get("target_dtype")
    named = str(target.get("_data", "")) if isinstance(target, dict) else ""
    bits = int(named[3:]) if named.startswith("int") and named[3:].isdigit() else 8
    return Scaled(
        name=weight,
        shape=codes.shape,
        dtype=codes.dtype,
        scheme=f"torchao_{CODE_DTYPES[codes.dtype] if bits == 8 else f'int{bits}'}",
        components=components,
        parameters=grid_parameters(bits, grid, scale, zero is None),
        scale=scale.name,
        grid=grid,
        zero=None if zero is None else zero.name,
    )


def _mx(weight: str, parts: Parts, data: Mapping[str, Any], components: tuple[str, ...]) -> Made:
    codes, scale, block = parts["qdata"], parts["scale"], data.get("block_size")
    if codes.dtype.startswith("F8"):
        if data.get("is_swizzled_scales"):
            return scale, f"{escape(scale.name)} lies in tiles over FP8 codes, which is not decoded"
        made = _grid(weight, parts, {**data, "block_size": [1, block]}, components)
        return replace(made, scheme="torchao_mxfp8") if isinstance(made, Quantised) else made
    return _fp4(weight, parts, data, components, "torchao_mxfp4", ("F8_E8M0", "U8"))


def _fp4(
    weight: str,
    parts: Parts,
    data: Mapping[str, Any],
    components: tuple[str, ...],
    scheme: str,
    scale_dtypes: tuple[str, ...],
) -> Made:
    codes, scale, whole = parts["qdata"], parts["scale"], parts.get("per_tensor_scale")
    block, swizzled = data.get("block_size"), bool(data.get("is_swizzled_scales"))
    if codes.dtype != "U8" or len(codes.shape) != 2 or scale.dtype not in scale_dtypes or not codes.numel:
        found = f"{codes.dtype} {list(codes.shape)} under {scale.dtype} scales"
        return codes, f"{escape(codes.name)} is {found}; expected U8 (out, in / 2) under {' or '.join(scale_dtypes)}"
    height, width = codes.shape[0], codes.shape[1] * 2
    if not isinstance(block, int) or block <= 0 or block % 2 or width % block:
        return codes, f"the metadata of {escape(weight)} gives block_size {block!r}, which does not divide {width}"
    groups = width // block
    expected = (-(-height // 128) * 32, -(-groups // 4) * 16) if swizzled else (height, groups)
    if scale.shape != expected:
        return scale, wrong_shape(scale, str(list(expected)))
    if whole is not None and whole.numel != 1:
        return whole, wrong_shape(whole, "one value")
    return Fp4(
        name=weight,
        shape=(height, width),
        dtype="F4",
        scheme=scheme,
        components=components,
        parameters={"bits": 4, "group_size": block, "symmetric": True, "scale_dtype": scale.dtype},
        scale=scale.name,
        group=block,
        whole=None if whole is None else whole.name,
        swizzled=swizzled,
    )


def _int4(weight: str, parts: Parts, data: Mapping[str, Any], components: tuple[str, ...]) -> Made:
    codes, scale, zero = parts["qdata"], parts["scale"], parts.get("zero_point")
    if codes.dtype not in ("U8", "I8") or len(codes.shape) not in (2, 3) or not codes.numel:
        return codes, f"{escape(codes.name)} is {codes.dtype} {list(codes.shape)}; expected bytes (out, in / 2)"
    if zero is None or zero.shape != scale.shape:
        return scale, f"{escape(scale.name)} has no zero_point of its shape beside it"
    shape = (*codes.shape[:-1], codes.shape[-1] * 2)
    groups = scale.shape[-2] if len(scale.shape) == len(shape) else 0
    if scale.shape != (*shape[:-2], groups, shape[-2]) or groups == 0 or shape[-1] % groups:
        return scale, wrong_shape(scale, f"[in / group, {shape[-2]}] over {list(shape)}")
    return Int4(
        name=weight,
        shape=shape,
        dtype="I4",
        scheme="torchao_int4",
        components=components,
        parameters={"bits": 4, "group_size": shape[-1] // groups, "symmetric": False, "scale_dtype": scale.dtype},
        scale=scale.name,
        zero=zero.name,
        group=shape[-1] // groups,
        n_groups=groups,
    )


_CLASSES: dict[str, Callable[[str, Parts, Mapping[str, Any], tuple[str, ...]], Made]] = {
    "Float8Tensor": _grid,
    "Int8Tensor": _grid,
    "IntxUnpackedToInt8Tensor": _grid,
    "MXTensor": _mx,
    "NVFP4Tensor": partial(_fp4, scheme="torchao_nvfp4", scale_dtypes=("F8_E4M3",)),
    "Int4Tensor": _int4,
}


def _metadata(checkpoint: Checkpoint, weight: str) -> tuple[str | None, Mapping[str, Any]]:
    """(class, attributes) of a weight from the files' ``__metadata__``."""
    said = checkpoint.metadata.get(weight)
    if said is None:
        return None, {}
    try:
        parsed: Any = json.loads(said)
    except (ValueError, RecursionError):
        return None, {}
    kind = parsed.get("_type") if isinstance(parsed, dict) else None
    data = parsed.get("_data") if isinstance(parsed, dict) else None
    return (kind if isinstance(kind, str) else None), (data if isinstance(data, dict) else {})


def _block_size(data: Mapping[str, Any]) -> list[int]:
    said = data.get("block_size")
    fits = isinstance(said, list) and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in said)
    return list(said) if fits and said is not None else []


TORCHAO = Scheme("torchao tensor subclasses", ("_qdata",), _group)
