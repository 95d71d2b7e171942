"""Packed integers, as compressed-tensors, GPTQ, AWQ, bitsandbytes, MLX and BitNet publish them: see `stored`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from stored_layout import BF16, Rng, Stored, f32, int8, scales, up, words


def packed(
    rng: Rng, bits: int = 4, rows: int = 24, groups: int = 3, size: int = 32, zero: bool = True, order: bool = False
) -> Stored:
    """compressed-tensors pack-quantized."""
    columns, top = groups * size, 1 << (bits - 1)
    codes = rng.integers(0, 2 * top, (rows, columns))
    zeros = rng.integers(0, 2 * top, (rows, groups)) if zero else np.full((rows, groups), top)
    grid = scales(rng, rows, groups, kind=BF16)
    group = rng.permutation(np.arange(columns) // size) if order else np.arange(columns) // size
    tensors = {
        "m.up.weight_packed": words(codes, bits),
        "m.up.weight_scale": grid,
        "m.up.weight_shape": np.array([rows, columns], np.int64),
    }
    if zero:
        tensors["m.up.weight_zero_point"] = np.ascontiguousarray(words(zeros.T, bits).T)
    if order:
        tensors["m.up.weight_g_idx"] = group.astype(np.int32)
    values = (f32(codes) - f32(zeros)[:, group]) * f32(grid)[:, group]
    parameters = {"bits": bits, "group_size": size, "symmetric": not zero, "act_order": order}
    config = {"quantization_config": {"config_groups": {"group_0": {"weights": {"num_bits": bits}}}}}
    return Stored("m.up.weight", "pack_quantized", f"I{bits}", values, tensors, parameters, config)


def packed_channel(rng: Rng, rows: int = 20, columns: int = 37) -> Stored:
    """One scale per row, and a width that does not fill its last word."""
    codes, grid = rng.integers(0, 256, (rows, columns)), scales(rng, rows, 1)
    tensors = {
        "m.up.weight_packed": words(codes, 8),
        "m.up.weight_scale": grid,
        "m.up.weight_shape": np.array([rows, columns], np.int64),
        "m.up.weight_g_idx": np.full(columns, -1, np.int32),
        "m.up.input_scale": scales(rng, 1),
    }
    values = (f32(codes) - np.float32(128)) * grid
    return Stored("m.up.weight", "pack_quantized", "I8", values, tensors, {"bits": 8, "granularity": "channel"})


def packed_experts(rng: Rng, experts: int = 3, rows: int = 16, groups: int = 2, size: int = 24) -> Stored:
    columns = groups * size
    codes, zeros = rng.integers(0, 16, (experts, rows, columns)), rng.integers(0, 16, (experts, rows, groups))
    grid, group = scales(rng, experts, rows, groups), np.arange(columns) // size
    tensors = {
        "m.experts.weight_packed": words(codes, 4),
        "m.experts.weight_scale": grid,
        "m.experts.weight_zero_point": np.ascontiguousarray(words(zeros.swapaxes(1, 2), 4).swapaxes(1, 2)),
        "m.experts.weight_shape": np.array([experts, rows, columns], np.int64),
    }
    values = (f32(codes) - f32(zeros)[..., group]) * grid[..., group]
    return Stored("m.experts.weight", "pack_quantized", "I4", values, tensors, {"bits": 4, "group_size": size})


def gptq(
    rng: Rng, bits: int = 4, out: int = 64, groups: int = 4, size: int = 32, order: bool = False, version: int = 1
) -> Stored:
    inputs, mask = groups * size, (1 << bits) - 1
    codes = rng.integers(0, mask + 1, (inputs, out))
    zeros = rng.integers(0, mask + 1, (groups, out))
    grid = scales(rng, groups, out, kind=np.float16)
    group = rng.permutation(np.arange(inputs) // size) if order else np.arange(inputs) // size
    stored_zeros = (zeros - 1) % (mask + 1) if version == 1 else zeros
    tensors = {
        "m.up.qweight": np.ascontiguousarray(words(codes.T, bits).T),
        "m.up.qzeros": words(stored_zeros, bits),
        "m.up.scales": grid,
        "m.up.g_idx": group.astype(np.int32),
        "m.up.bias": grid[0],
    }
    said = {"quant_method": "gptq", "bits": bits, "group_size": size, "desc_act": order, "sym": False}
    if version == 2:
        said["checkpoint_format"] = "gptq_v2"
    values = ((f32(codes) - f32(zeros)[group]) * f32(grid)[group]).T
    parameters = {"bits": bits, "group_size": size, "act_order": order, "symmetric": False}
    return Stored("m.up.weight", "gptq", f"I{bits}", values, tensors, parameters, {"quantization_config": said})


#: Which output each place of an AWQ word holds, from the low bits up.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def awq(rng: Rng, out: int = 64, groups: int = 3, size: int = 32) -> Stored:
    inputs = groups * size
    codes, zeros = rng.integers(0, 16, (inputs, out)), rng.integers(0, 16, (groups, out))
    grid = scales(rng, groups, out, kind=np.float16)
    places = np.arange(out).reshape(-1, 8)[:, AWQ_ORDER].ravel()
    group = np.arange(inputs) // size
    return Stored(
        "m.up.weight",
        "awq",
        "I4",
        ((f32(codes) - f32(zeros)[group]) * f32(grid)[group]).T,
        {"m.up.qweight": words(codes[:, places], 4), "m.up.qzeros": words(zeros[:, places], 4), "m.up.scales": grid},
        {"bits": 4, "group_size": size},
        {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm"}},
    )


# bitsandbytes


def bnb_int8(rng: Rng, rows: int = 14, columns: int = 30) -> Stored:
    codes, scb = int8(rng, rows, columns), rng.uniform(0.1, 4, rows).astype(np.float32)
    tensors = {"m.up.weight": codes, "m.up.SCB": scb, "m.up.weight_format": np.array(0, np.uint8)}
    values = (f32(codes) * scb[:, None]) * np.float32(1 / 127)
    return Stored("m.up.weight", "bnb_int8", "I8", values, tensors, {"bits": 8})


def bnb_4bit(
    rng: Rng, kind: str = "nf4", rows: int = 10, columns: int = 130, block: int = 64, double: bool = True
) -> Stored:
    """High half of a byte first, blocks over the flattened weight; `double`: the scales are quantised themselves."""
    n = rows * columns
    codes, table = rng.integers(0, 16, n), np.sort(rng.uniform(-1, 1, 16)).astype(np.float32)
    halves = np.concatenate([codes, np.zeros(n % 2, codes.dtype)]).reshape(-1, 2)[:, ::-1]
    blocks = up(n, block)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [rows, columns]}
    tensors = {"m.up.weight": words(halves, 4, np.uint8).reshape(-1, 1)}
    if double:
        inner, outer = rng.integers(0, 256, blocks).astype(np.uint8), scales(rng, up(blocks, 256))
        map256, offset = np.sort(rng.uniform(-1, 1, 256)).astype(np.float32), np.float32(0.71)
        absmax = map256[inner] * outer[np.arange(blocks) // 256] + offset
        tensors |= {
            "m.up.weight.absmax": inner,
            "m.up.weight.nested_absmax": outer,
            "m.up.weight.nested_quant_map": map256,
        }
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)}
    else:
        absmax = scales(rng, blocks)
        tensors["m.up.weight.absmax"] = absmax
    tensors["m.up.weight.quant_map"] = table
    text = np.frombuffer(json.dumps(state).encode(), np.uint8).copy()
    tensors[f"m.up.weight.quant_state.bitsandbytes__{kind}"] = text
    values = (table[codes] * absmax[np.arange(n) // block]).reshape(rows, columns)
    return Stored(
        "m.up.weight", f"bnb_{kind}", kind.upper(), values, tensors, {"group_size": block, "double_quantised": double}
    )


def mlx(
    rng: Rng, bits: int = 4, size: int = 64, groups: int = 3, experts: tuple[int, ...] = (), own: bool = False
) -> Stored:
    """Affine groups; the config says the pair of the layer itself (``own``) or of all."""
    shape = (*experts, 10, groups * size)
    codes = rng.integers(0, 1 << bits, shape)
    grid, low = scales(rng, *shape[:-1], groups, kind=np.float16), scales(rng, *shape[:-1], groups, kind=np.float16)
    here = {"group_size": size, "bits": bits}
    said = {"group_size": 64, "bits": 4, "m.up": here} if own else here
    return Stored(
        "m.up.weight",
        "mlx",
        f"U{bits}",
        f32(codes) * np.repeat(f32(grid), size, -1) + np.repeat(f32(low), size, -1),
        {"m.up.weight": words(codes, bits, np.uint32), "m.up.scales": grid, "m.up.biases": low},
        {"bits": bits, "group_size": size},
        {"quantization": said},
    )


def bitnet(rng: Rng, linear: str = "autobitlinear", rows: int = 12, columns: int = 40) -> Stored:
    codes = rng.integers(0, 3, (rows, columns)).astype(np.uint8)
    quarters = codes.reshape(4, rows // 4, columns)
    packed_bytes = (quarters << (2 * np.arange(4, dtype=np.uint8))[:, None, None]).sum(0).astype(np.uint8)
    scale = scales(rng, 1, kind=BF16)
    ternary = f32(codes) - 1
    return Stored(
        "m.up.weight",
        "bitnet",
        "U2",
        ternary * f32(scale) if linear == "autobitlinear" else ternary / f32(scale),
        {"m.up.weight": packed_bytes, "m.up.weight_scale": scale},
        {"bits": 2},
        {"quantization_config": {"quant_method": "bitnet", "linear_class": linear}},
    )


def gptq_mislabelled(rng: Rng) -> Stored:
    """Symmetric codes whose zero points are stored as gptq_v2 does, under the label of gptq."""
    form = gptq(rng, version=2)
    grid, codes = f32(form.tensors["m.up.scales"]), form.tensors["m.up.qweight"]
    unpacked = (codes.view(np.uint32)[:, None] >> (4 * np.arange(8, dtype=np.uint32))[:, None] & 15).reshape(-1, 64)
    zeros = words(np.full(grid.shape, 8), 4)
    said = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "checkpoint_format": "gptq"}
    return Stored(
        form.name,
        form.scheme,
        form.dtype,
        ((f32(unpacked) - 8) * np.repeat(grid, 32, 0)).T,
        {**form.tensors, "m.up.qzeros": zeros},
        {"checkpoint_format": "gptq_v2", "symmetric": True},
        {"quantization_config": said},
    )


def hqq(rng: Rng, bits: int = 4, axis: int = 1, rows: int = 24, columns: int = 40, group: int = 16) -> Stored:
    """hqq's own files; groups run over the weight as one line, slices of their rows lie above each other in a word."""
    n = rows * columns // group
    shape, per = (n, group) if axis == 1 else (group, n), 10 if bits == 3 else 8 // bits
    codes = rng.integers(0, 1 << bits, shape)
    one = (n, 1) if axis == 1 else (1, n)
    grid, zero = scales(rng, *one, kind=np.float16), rng.uniform(0, 1 << bits, one).astype(np.float16)
    step = up(shape[0], per)
    filled = np.concatenate([codes, np.zeros((step * per - shape[0], shape[1]), codes.dtype)])
    kind = np.int32 if bits == 3 else np.uint8
    slices = [(part << bits * (per - 1 - k)) for k, part in enumerate(filled.reshape(per, step, shape[1]))]
    tensors = {
        "m.up.W_q": np.sum(slices, 0).astype(kind),
        "m.up.scale": grid,
        "m.up.zero": zero,
        "m.up.shape": np.array([rows, columns], np.int64),
        "m.up.nbits": np.array(bits, np.int64),
        "m.up.axis": np.array(axis, np.int64),
    }
    values = ((f32(codes) - f32(zero)) * f32(grid)).reshape(rows, columns)
    return Stored("m.up.weight", "hqq", f"U{bits}", values, tensors, {"bits": bits, "group_size": group, "axis": axis})
