"""FP4 codes and torchao's tensor subclasses, as libraries publish them: see `stored`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from stored_layout import BF16, E2M1, E8M0, F8, Array, Rng, Stored, f32, fp8, int8, scales, spread, up, words


def fp4_codes(rng: Rng, *shape: int) -> tuple[Array, Array]:
    """(codes, what they mean)."""
    codes = rng.integers(0, 16, shape).astype(np.uint8)
    return codes, codes.view(E2M1).astype(np.float32)


def gpt_oss(rng: Rng, experts: int = 3, out: int = 10, groups: int = 2, original: bool = False) -> Stored:
    codes, meaning = fp4_codes(rng, experts, out, groups, 32)
    exponents = rng.integers(110, 140, (experts, out, groups)).astype(np.uint8)
    values = meaning * np.exp2(exponents.astype(np.float32) - 127)[..., None]
    values = values.reshape(experts, out, groups * 32)
    base, dot = ("block.0.mlp.mlp1_weight", ".") if original else ("m.experts.down_proj", "_")
    return Stored(
        base,
        "mxfp4",
        "F4",
        values if original else np.ascontiguousarray(values.swapaxes(1, 2)),
        {f"{base}{dot}blocks": words(codes, 4, np.uint8), f"{base}{dot}scales": exponents},
        {"bits": 4, "group_size": 32, "orientation": "out, in" if original else "in, out"},
    )


def mxfp4(rng: Rng, rows: int = 12, groups: int = 3, form: str = "packed") -> Stored:
    """compressed-tensors (``packed``: U8 exponents), Quark (``weight``: U8) and DeepSeek-V4 (``int8``: F8_E8M0); and
    the dtype F4 (``typed``)."""
    codes, meaning = fp4_codes(rng, rows, groups * 32)
    exponents = rng.integers(110, 140, (rows, groups)).astype(np.uint8)
    power = np.exp2(exponents.astype(np.float32) - 127)
    bytes_ = words(codes, 4, np.uint8)
    tensors = {
        "packed": {"m.up.weight_packed": bytes_, "m.up.weight_scale": exponents},
        "weight": {"m.up.weight": bytes_, "m.up.weight_scale": exponents},
        "int8": {"m.up.weight": bytes_.view(np.int8), "m.up.scale": power.astype(E8M0)},
        "typed": {"m.up.weight": codes.view(E2M1), "m.up.weight_scale": power.astype(E8M0)},
    }[form]
    values = meaning * spread(power, (1, 32), meaning.shape)
    return Stored("m.up.weight", "mxfp4", "F4", values, tensors, {"group_size": 32})


def nvfp4_experts(rng: Rng, experts: int = 3, rows: int = 10, groups: int = 3) -> Stored:
    codes, meaning = fp4_codes(rng, experts, rows, groups * 16)
    grid, whole = rng.uniform(0.5, 400, (experts, rows, groups)).astype(F8), scales(rng, experts)
    values = meaning * spread(f32(grid) * whole[:, None, None], (1, 16), meaning.shape)
    tensors = {"m.experts.up": words(codes, 4, np.uint8), "m.experts.up_scale": grid, "m.experts.up_scale_2": whole}
    return Stored("m.experts.up", "nvfp4", "F4", values, tensors, {"group_size": 16})


def nvfp4(rng: Rng, rows: int = 12, groups: int = 5, form: str = "packed") -> Stored:
    """compressed-tensors divides by its global scale, ModelOpt multiplies by its second one."""
    codes, meaning = fp4_codes(rng, rows, groups * 16)
    grid, whole = rng.uniform(0.5, 400, (rows, groups)).astype(F8), np.array([rng.uniform(10, 20)], np.float32)
    bytes_ = words(codes, 4, np.uint8)
    if form == "packed":
        tensors = {"m.up.weight_packed": bytes_, "m.up.weight_global_scale": whole, "m.up.input_global_scale": whole}
        scale = f32(grid) / whole
    else:
        whole = whole.reshape(())
        bytes_ = codes.view(E2M1) if form == "typed" else bytes_
        tensors = {"m.up.weight": bytes_, "m.up.weight_scale_2": whole, "m.up.input_scale": whole}
        scale = f32(grid) * whole
    tensors["m.up.weight_scale"] = grid
    values = meaning * spread(scale, (1, 16), meaning.shape)
    return Stored("m.up.weight", "nvfp4", "F4", values, tensors, {"group_size": 16})


def _torchao(kind: str, data: Mapping[str, Any], parts: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    said = {"_type": kind, "_data": dict(data), "_tensor_data_names": list(parts)}
    tensors = {f"m.up._weight_{word}": array for word, array in parts.items()}
    return tensors, {"m.up.weight": json.dumps(said), "tensor_names": json.dumps(["m.up.weight"])}


def torchao_float8(rng: Rng, rows: int = 12, columns: int = 40) -> Stored:
    codes, grid = fp8(rng, rows, columns), scales(rng, rows, 1)
    tensors, metadata = _torchao("Float8Tensor", {"block_size": [1, columns]}, {"qdata": codes, "scale": grid})
    return Stored("m.up.weight", "torchao_fp8", "F8_E4M3", f32(codes) * grid, tensors, {"bits": 8}, metadata=metadata)


def torchao_int8(rng: Rng, rows: int = 12, columns: int = 40) -> Stored:
    codes, grid = int8(rng, rows, columns), scales(rng, rows, 1)
    zero = rng.integers(-9, 9, (rows, 1)).astype(np.int8)
    parts = {"qdata": codes, "scale": grid, "zero_point": zero, "act_pre_scale": scales(rng, 1)}
    tensors, metadata = _torchao("Int8Tensor", {"block_size": [1, columns]}, parts)
    values = (f32(codes) - f32(zero)) * grid
    return Stored("m.up.weight", "torchao_int8", "I8", values, tensors, {"symmetric": False}, metadata=metadata)


def torchao_intx(rng: Rng, rows: int = 12, groups: int = 3, size: int = 40) -> Stored:
    codes = rng.integers(-8, 8, (rows, groups * size)).astype(np.int8)
    grid, zero = scales(rng, rows, groups, kind=BF16), rng.integers(-3, 3, (rows, groups)).astype(np.int8)
    data = {"block_size": [1, size], "target_dtype": {"_type": "torch.dtype", "_data": "int4"}}
    tensors, metadata = _torchao("IntxUnpackedToInt8Tensor", data, {"qdata": codes, "scale": grid, "zero_point": zero})
    values = (f32(codes) - spread(f32(zero), (1, size), codes.shape)) * spread(f32(grid), (1, size), codes.shape)
    return Stored(
        "m.up.weight", "torchao_int4", "I8", values, tensors, {"bits": 4, "group_size": size}, metadata=metadata
    )


def torchao_int4(rng: Rng, rows: int = 12, groups: int = 3, size: int = 32) -> Stored:
    """Scales and zeros lie (in / group, out); the zero is a value, added after scaling."""
    columns = groups * size
    codes = rng.integers(-8, 8, (rows, columns))
    grid, zero = scales(rng, groups, rows, kind=BF16), (rng.standard_normal((groups, rows)) / 9).astype(BF16)
    parts = {"qdata": words(codes & 15, 4, np.uint8), "scale": grid, "zero_point": zero}
    tensors, metadata = _torchao("Int4Tensor", {"block_size": [1, size], "shape": [rows, columns]}, parts)
    group = np.arange(columns) // size
    values = f32(codes) * f32(grid).T[:, group] + f32(zero).T[:, group]
    return Stored("m.up.weight", "torchao_int4", "I4", values, tensors, {"group_size": size}, metadata=metadata)


def torchao_int4_experts(rng: Rng, experts: int = 2, rows: int = 6, groups: int = 2, size: int = 16) -> Stored:
    columns = groups * size
    codes = rng.integers(-8, 8, (experts, rows, columns))
    grid, zero = scales(rng, experts, groups, rows), scales(rng, experts, groups, rows)
    parts = {"qdata": words(codes & 15, 4, np.uint8), "scale": grid, "zero_point": zero}
    tensors, metadata = _torchao("Int4Tensor", {"block_size": [1, 1, size], "shape": list(codes.shape)}, parts)
    group = np.arange(columns) // size
    values = f32(codes) * grid.swapaxes(1, 2)[..., group] + zero.swapaxes(1, 2)[..., group]
    return Stored("m.up.weight", "torchao_int4", "I4", values, tensors, {"group_size": size}, metadata=metadata)


def tiles(grid: Array) -> Array:
    """Scales (H, W) in tiles of 128 x 4, each stored as 32 rows of 16: one element at a time."""
    down, across = up(grid.shape[0], 128), up(grid.shape[1], 4)
    flat = np.zeros(down * across * 512, grid.dtype)
    for r in range(grid.shape[0]):
        for c in range(grid.shape[1]):
            tile = (r // 128) * across + c // 4
            flat[tile * 512 + (r % 32) * 16 + (r % 128) // 32 * 4 + c % 4] = grid[r, c]
    return flat.reshape(down * 32, across * 16)


def torchao_nvfp4(rng: Rng, rows: int = 150, groups: int = 6, swizzled: bool = True) -> Stored:
    codes, meaning = fp4_codes(rng, rows, groups * 16)
    grid, whole = rng.uniform(0.5, 400, (rows, groups)).astype(F8), np.array(rng.uniform(0.1, 0.2), np.float32)
    parts = {"qdata": words(codes, 4, np.uint8), "scale": tiles(grid) if swizzled else grid, "per_tensor_scale": whole}
    tensors, metadata = _torchao("NVFP4Tensor", {"block_size": 16, "is_swizzled_scales": swizzled}, parts)
    values = meaning * spread(whole * f32(grid), (1, 16), meaning.shape)
    return Stored("m.up.weight", "torchao_nvfp4", "F4", values, tensors, {"group_size": 16}, metadata=metadata)


def torchao_mxfp8(rng: Rng, rows: int = 10, groups: int = 3) -> Stored:
    codes = fp8(rng, rows, groups * 32)
    grid = np.exp2(rng.integers(-9, 3, (rows, groups))).astype(E8M0)
    tensors, metadata = _torchao(
        "MXTensor", {"block_size": 32, "is_swizzled_scales": False}, {"qdata": codes, "scale": grid}
    )
    values = f32(codes) * spread(f32(grid), (1, 32), codes.shape)
    return Stored("m.up.weight", "torchao_mxfp8", "F8_E4M3", values, tensors, {"group_size": 32}, metadata=metadata)


def mlx_floats(rng: Rng, kind: str = "mxfp4", rows: int = 8, groups: int = 5) -> Stored:
    size, bits = (16 if kind == "nvfp4" else 32), (8 if kind == "mxfp8" else 4)
    if bits == 4:
        codes, meaning = fp4_codes(rng, rows, groups * size)
    else:
        codes = rng.integers(0, 127, (rows, groups * size)).astype(np.uint8)
        meaning = f32(codes.view(F8))
    grid = (rng.integers(1, 120, (rows, groups)) if kind == "nvfp4" else rng.integers(110, 140, (rows, groups))).astype(
        np.uint8
    )
    scale = f32(grid.view(F8)) if kind == "nvfp4" else np.exp2(grid.astype(np.float32) - 127)
    tensors = {"m.up.weight": words(codes, bits, np.uint32), "m.up.scales": grid}
    dtype = "F4" if bits == 4 else "F8_E4M3"
    return Stored(
        "m.up.weight", f"mlx_{kind}", dtype, meaning * np.repeat(scale, size, -1), tensors, {"group_size": size}
    )
