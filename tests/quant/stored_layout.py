"""What one stored layer is, and the arithmetic of bits, blocks and random codes that all writers of `stored` share."""

from __future__ import annotations

from collections.abc import Mapping
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
