"""Quantised weights as libraries publish them, written in plain numpy: the oracle of these tests.

Each function draws codes and scales at random, lays them out as the format's own documentation says, and computes what
they mean element by element in float32. Packing goes through single bits (`np.packbits`), not through shifts by groups,
so that it shares no idea with the decoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

F8 = ml_dtypes.float8_e4m3fn
BF16 = ml_dtypes.bfloat16
E8M0 = ml_dtypes.float8_e8m0fnu
E2M1 = ml_dtypes.float4_e2m1fn


@dataclass
class Stored:
    """What one layer looks like in a file, and what it must decode to."""

    name: str
    scheme: str
    dtype: str
    values: Array
    tensors: dict[str, Array]
    parameters: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


def up(n: int, size: int) -> int:
    """How many pieces of `size` cover n."""
    return (n + size - 1) // size


def bits_of(codes: Array, bits: int) -> Array:
    """(…, n) small unsigned integers → (…, n * bits) single bits, lowest first."""
    return ((codes.astype(np.uint8)[..., None] >> np.arange(bits)) & 1).reshape(*codes.shape[:-1], -1).astype(np.uint8)


def words(codes: Array, bits: int, kind: Any = np.int32) -> Array:
    """Codes along the last axis as one stream of bits, cut into words of `kind`; the last one is filled with zeros."""
    stream = bits_of(codes, bits)
    width = 8 * np.dtype(kind).itemsize
    stream = np.concatenate([stream, np.zeros((*stream.shape[:-1], -stream.shape[-1] % width), np.uint8)], -1)
    return np.ascontiguousarray(np.packbits(stream, axis=-1, bitorder="little")).view(kind)


def spread(grid: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """A grid (…, i, j) repeated over blocks and cut to the matrix."""
    tall = np.repeat(np.repeat(np.asarray(grid, np.float32), block[0], -2), block[1], -1)
    return tall[..., : shape[-2], : shape[-1]]


def scales(rng: Rng, *shape: int, kind: Any = np.float32) -> Array:
    return rng.uniform(0.001, 0.1, shape).astype(kind)


def fp8(rng: Rng, *shape: int, kind: Any = F8) -> Array:
    return (rng.standard_normal(shape) * 40).astype(kind)


def int8(rng: Rng, *shape: int) -> Array:
    return rng.integers(-128, 128, shape).astype(np.int8)


def f32(array: Array) -> Array:
    return np.asarray(array).astype(np.float32)


# 8-bit codes under a grid


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


# packed integers


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


# FP4


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


# torchao


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


# MLX, BitNet


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


#: Every form that is decoded, by a name for the test's report.
FORMS: dict[str, Callable[[Rng], Stored]] = {
    "fp8 blocks": fp8_block,
    "fp8 blocks under ue8m0": lambda rng: fp8_block(rng, kind=E8M0),
    "fp8 blocks under bf16": lambda rng: fp8_block(rng, 576, 130, kind=BF16),
    "fp8 experts": fp8_experts,
    "fp8 per row": fp8_per_row,
    "fp8 per row, vector": fp8_per_row_vector,
    "fp8 per tensor": fp8_per_tensor,
    "fp8 under .scale": fp8_dotted_scale,
    "fp8 llama 4 experts": llama4_experts,
    "fp8 experts, one scale each": fp8_scale_per_expert,
    "fp8 experts, (n, 1, 1)": lambda rng: fp8_scale_per_expert(rng, (3, 1, 1)),
    "fp8 experts, rows": lambda rng: fp8_scale_per_expert(rng, (3, 10)),
    "fp8 experts, (n, rows, 1)": lambda rng: fp8_scale_per_expert(rng, (3, 10, 1)),
    "mxfp8": mxfp8,
    "int8 per row": int8_channel,
    "int8 groups": lambda rng: int8_group(rng, order=False),
    "int8 groups, act-order": int8_group,
    "quanto": quanto,
    "packed 4": packed,
    "packed 4 symmetric": lambda rng: packed(rng, zero=False),
    "packed 4 act-order": lambda rng: packed(rng, order=True),
    "packed 8": lambda rng: packed(rng, bits=8),
    "packed 2": lambda rng: packed(rng, bits=2),
    "packed per row": packed_channel,
    "packed experts": packed_experts,
    "gptq 4": gptq,
    "gptq 4 act-order": lambda rng: gptq(rng, order=True),
    "gptq 4 v2": lambda rng: gptq(rng, version=2),
    "gptq 8": lambda rng: gptq(rng, bits=8),
    "gptq 8 act-order v2": lambda rng: gptq(rng, bits=8, order=True, version=2),
    "gptq 2": lambda rng: gptq(rng, bits=2),
    "gptq v2 under another label": gptq_mislabelled,
    "awq": awq,
    **{f"mlx {bits}": (lambda rng, bits=bits: mlx(rng, bits)) for bits in (2, 3, 4, 5, 6, 8)},
    "mlx 4, groups of 32": lambda rng: mlx(rng, 4, 32),
    "mlx 6 beside 4": lambda rng: mlx(rng, 6, 128, own=True),
    "mlx experts": lambda rng: mlx(rng, 8, experts=(3,)),
    **{f"mlx {kind}": (lambda rng, kind=kind: mlx_floats(rng, kind)) for kind in ("mxfp4", "mxfp8", "nvfp4")},
    "bitnet": bitnet,
    "bitnet, divided": lambda rng: bitnet(rng, "bitlinear"),
    "bnb int8": bnb_int8,
    "bnb nf4 double": bnb_4bit,
    "bnb nf4": lambda rng: bnb_4bit(rng, double=False),
    "bnb fp4, odd": lambda rng: bnb_4bit(rng, "fp4", 7, 33, 64),
    "bnb nf4, many blocks": lambda rng: bnb_4bit(rng, "nf4", 300, 129, 64),
    "gpt-oss": gpt_oss,
    "gpt-oss original": lambda rng: gpt_oss(rng, original=True),
    "mxfp4 packed": mxfp4,
    "mxfp4 weight": lambda rng: mxfp4(rng, form="weight"),
    "mxfp4 int8": lambda rng: mxfp4(rng, form="int8"),
    "mxfp4 of dtype F4": lambda rng: mxfp4(rng, form="typed"),
    "nvfp4 packed": nvfp4,
    "nvfp4 of dtype F4": lambda rng: nvfp4(rng, form="typed"),
    "nvfp4 modelopt": lambda rng: nvfp4(rng, form="modelopt"),
    "nvfp4 experts": nvfp4_experts,
    "torchao float8": torchao_float8,
    "torchao int8": torchao_int8,
    "torchao intx": torchao_intx,
    "torchao int4": torchao_int4,
    "torchao int4 experts": torchao_int4_experts,
    "torchao nvfp4 in tiles": torchao_nvfp4,
    "torchao nvfp4": lambda rng: torchao_nvfp4(rng, swizzled=False),
    "torchao mxfp8": torchao_mxfp8,
}
