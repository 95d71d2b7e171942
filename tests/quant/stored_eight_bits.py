"""8-bit codes under a grid of scales, as libraries publish them: see `stored`."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from stored_layout import BF16, E8M0, Rng, Stored, f32, fp8, int8, scales, spread, up


def fp8_block(rng: Rng, rows: int = 300, columns: int = 200, kind: Any = np.float32) -> Stored:
    codes = fp8(rng, rows, columns)
    if kind is E8M0:
        grid = np.exp2(rng.integers(-9, 2, (up(rows, 128), up(columns, 128)))).astype(E8M0)
    else:
        grid = scales(rng, up(rows, 128), up(columns, 128), kind=kind)
    tensors = {"m.q_proj.weight": codes, "m.q_proj.weight_scale_inv": grid, "m.q_proj.bias": f32(np.zeros(rows))}
    granularity = "tensor" if grid.size == 1 else "block"
    return Stored(
        "m.q_proj.weight",
        f"fp8_{granularity}",
        "F8_E4M3",
        f32(codes) * spread(f32(grid), (128, 128), (rows, columns)),
        tensors,
        {"bits": 8, "symmetric": True, "granularity": granularity},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    )


def fp8_experts(rng: Rng, experts: int = 3, rows: int = 130, columns: int = 257) -> Stored:
    codes = fp8(rng, experts, rows, columns)
    grid = scales(rng, experts, up(rows, 128), up(columns, 128))
    return Stored(
        "m.experts.gate_up_proj",
        "fp8_block",
        "F8_E4M3",
        f32(codes) * spread(grid, (128, 128), codes.shape),
        {
            "m.experts.gate_up_proj": codes,
            "m.experts.gate_up_proj_scale_inv": grid,
            "m.experts.gate_up_proj_activation_scale": scales(rng, experts),
        },
        {"bits": 8, "block": [128, 128]},
    )


def fp8_per_row(rng: Rng, rows: int = 33, columns: int = 65) -> Stored:
    codes, grid = fp8(rng, rows, columns), scales(rng, rows, 1)
    return Stored(
        "m.up_proj.weight",
        "fp8_channel",
        "F8_E4M3",
        f32(codes) * grid,
        {"m.up_proj.weight": codes, "m.up_proj.weight_scale": grid, "m.up_proj.input_scale_ub": scales(rng, 1)},
        {"granularity": "channel"},
    )


def fp8_per_row_vector(rng: Rng, rows: int = 33, columns: int = 65) -> Stored:
    codes, grid = fp8(rng, rows, columns, kind=ml_dtypes.float8_e5m2), scales(rng, rows, kind=BF16)
    return Stored(
        "m.up_proj.weight",
        "fp8_channel",
        "F8_E5M2",
        f32(codes) * f32(grid)[:, None],
        {"m.up_proj.weight": codes, "m.up_proj.weight_scale": grid},
        {"scale_dtype": "BF16"},
    )


def fp8_per_tensor(rng: Rng, rows: int = 17, columns: int = 40) -> Stored:
    codes, scale = fp8(rng, rows, columns), scales(rng)
    return Stored(
        "m.k_proj.weight",
        "fp8_tensor",
        "F8_E4M3",
        f32(codes) * scale,
        {
            "m.k_proj.weight": codes,
            "m.k_proj.weight_scale": scale,
            "m.k_proj.input_scale": scales(rng),
            "m.k_scale": scales(rng),
            "m.v_proj.weight": f32(np.ones((4, 4))),
        },
        {"granularity": "tensor"},
    )


def fp8_dotted_scale(rng: Rng, rows: int = 129, columns: int = 140) -> Stored:
    """DeepSeek's own files: ``X.scale``, powers of two."""
    made = fp8_block(rng, rows, columns, E8M0)
    tensors = {"m.wq.weight": made.tensors["m.q_proj.weight"], "m.wq.scale": made.tensors["m.q_proj.weight_scale_inv"]}
    return Stored("m.wq.weight", made.scheme, made.dtype, made.values, tensors, {"scale_dtype": "F8_E8M0"})


def llama4_experts(rng: Rng, experts: int = 2, inputs: int = 24, outputs: int = 40) -> Stored:
    """FBGEMM's Llama 4: (experts, in, out), one scale per output, which is a column here."""
    codes, grid = fp8(rng, experts, inputs, outputs), scales(rng, experts, 1, outputs)
    return Stored(
        "m.experts.down_proj",
        "fp8_column",
        "F8_E4M3",
        f32(codes) * grid,
        {"m.experts.down_proj": codes, "m.experts.down_proj_scale": grid},
        {},
    )


def fp8_scale_per_expert(rng: Rng, shape: tuple[int, ...] = (3,)) -> Stored:
    codes, grid = fp8(rng, 3, 10, 20), scales(rng, *shape)
    values = f32(codes) * grid.reshape(3, *(1,) * 2 if grid.size == 3 else (10, 1))
    tensors = {"m.experts.up_proj": codes, f"m.experts.up_proj_{'weight_' * (len(shape) == 1)}scale": grid}
    return Stored(
        "m.experts.up_proj", "fp8_tensor" if grid.size == 3 else "fp8_channel", "F8_E4M3", values, tensors, {}
    )


def mxfp8(rng: Rng, rows: int = 9, columns: int = 96) -> Stored:
    codes = fp8(rng, rows, columns)
    exponents = rng.integers(110, 140, (rows, columns // 32)).astype(np.uint8)
    grid = np.float32(2.0) ** (exponents.astype(np.float32) - 127)
    return Stored(
        "m.up_proj.weight",
        "mxfp8" if columns > 32 and rows > 1 else "fp8",
        "F8_E4M3",
        f32(codes) * spread(grid, (1, 32), codes.shape),
        {"m.up_proj.weight": codes, "m.up_proj.weight_scale": exponents},
        {"group_size": 32},
    )


def int8_channel(rng: Rng, rows: int = 21, columns: int = 35) -> Stored:
    codes, grid = int8(rng, rows, columns), scales(rng, rows, 1, kind=BF16)
    return Stored(
        "m.o_proj.weight",
        "int8_channel",
        "I8",
        f32(codes) * f32(grid),
        {"m.o_proj.weight": codes, "m.o_proj.weight_scale": grid},
        {"symmetric": True},
    )


def int8_group(rng: Rng, rows: int = 12, groups: int = 3, size: int = 48, order: bool = True) -> Stored:
    """Groups of columns, zero points and, with `order`, a table that says which column is in which group."""
    columns = groups * size
    codes, grid = int8(rng, rows, columns), scales(rng, rows, groups, kind=np.float16)
    zero = rng.integers(-20, 20, (rows, groups)).astype(np.int8)
    table = rng.permutation(np.arange(columns) // size).astype(np.int32)
    group = table if order else np.arange(columns) // size
    tensors = {"m.up.weight": codes, "m.up.weight_scale": grid, "m.up.weight_zero_point": zero}
    if order:
        tensors["m.up.weight_g_idx"] = table
    return Stored(
        "m.up.weight",
        "int8_group",
        "I8",
        (f32(codes) - f32(zero)[:, group]) * f32(grid)[:, group],
        tensors,
        {"group_size": size, "symmetric": False},
    )


def quanto(rng: Rng, rows: int = 10, columns: int = 30) -> Stored:
    codes, grid = int8(rng, rows, columns), scales(rng, rows, 1)
    tensors = {"m.up.weight._data": codes, "m.up.weight._scale": grid, "m.up.input_scale": scales(rng)}
    return Stored("m.up.weight", "int8_channel", "I8", f32(codes) * grid, tensors, {})
