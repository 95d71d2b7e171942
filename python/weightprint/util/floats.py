"""Rounding of floating-point types: mantissa bits and the distance between neighbouring values."""

from __future__ import annotations

import numpy as np

from weightprint.util.arrays import F64

#: Bits of the mantissa, and the smallest normal exponent, of the types that values are rounded to.
MANTISSA = {"F64": (52, -1022), "F32": (23, -126), "BF16": (7, -126), "F16": (10, -14)}


def ulp(x: F64, dtype: str) -> F64:
    """Distance between neighbouring values of the type at x."""
    bits, least = MANTISSA[dtype]
    _, exponent = np.frexp(x)
    spacing: F64 = np.ldexp(1.0, np.maximum(exponent - 1, least) - bits)
    return spacing
