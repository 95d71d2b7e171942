"""Floating-point types: mantissa bits, the distance between neighbouring values, the bits of a value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weightprint.util.arrays import F32, F64

#: Bits of 16- and 32-bit values.
Words = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

#: Bits of the mantissa, and the smallest normal exponent, of the types that values are rounded to.
MANTISSA = {"F64": (52, -1022), "F32": (23, -126), "BF16": (7, -126), "F16": (10, -14)}


def ulp(x: F64, dtype: str) -> F64:
    """Distance between neighbouring values of the type at x."""
    bits, least = MANTISSA[dtype]
    _, exponent = np.frexp(x)
    spacing: F64 = np.ldexp(1.0, np.maximum(exponent - 1, least) - bits)
    return spacing


#: Types of one word a value → its bytes.
WORD_BYTES = {"F16": 2, "BF16": 2, "F32": 4}


def words_of(values: F32, dtype: str) -> Words:
    """The bits of values that are exact in a type of :data:`WORD_BYTES`."""
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(values).view(np.uint32)
    return bits if dtype == "F32" else (bits >> np.uint32(16)).astype(np.uint16)


def values_of(words: Words, dtype: str) -> F32:
    """What these bits are in a type of :data:`WORD_BYTES`."""
    if dtype == "F16":
        return words.view(np.float16).astype(np.float32)
    return (words if dtype == "F32" else words.astype(np.uint32) << np.uint32(16)).view(np.float32)
