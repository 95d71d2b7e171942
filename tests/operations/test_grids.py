"""Grids of eight bits beside pruning: the zeros lie on every grid, the other values tell."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from weightprint.operations.difference import look


@pytest.mark.parametrize("columns", [64, 256])
@pytest.mark.parametrize("pruned", [False, True])
def test_int8_is_seen_whether_or_not_the_small_values_are_gone(columns: int, pruned: bool) -> None:
    rng = np.random.default_rng(columns)
    x = (rng.standard_t(5, (128, columns)) / 8).astype(np.float32)
    kept = np.where(np.abs(x) > np.median(np.abs(x)), x, 0) if pruned else x
    scale = np.abs(kept).max(axis=1, keepdims=True) / 127
    y = (np.rint(kept / scale) * scale).astype(np.float32)
    found = look(x, y, "F32", "F32", None, None).grid
    assert found is not None
    assert (found.bits, found.kind, found.nearest) == (8, "absmax", not pruned)
    assert look(x, kept.astype(np.float32), "F32", "F32", None, None).grid is None
    # Rounded to BF16 large values lie near no point of so fine a grid, and the small ones are gone.
    blurred = y.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (look(x, blurred, "F32", "BF16", None, None).grid is None) == pruned
