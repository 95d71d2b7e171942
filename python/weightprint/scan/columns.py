"""Columns of measurements: what the core returns, completed and joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weightprint import _core
from weightprint.scan.request import Progress

# Columns that the core leaves out where no tensor was counted, as arrays of "none" for one tensor.
_UNCOUNTED = {
    "abs_q9999": np.full(1, np.nan),
    "quantile_error": np.full(1, np.nan),
    "entropy": np.full(1, np.nan),
    "n_distinct": np.full(1, -1, np.int64),
    "quantiles": np.full(9, np.nan),
}


def measure(
    files: Sequence[_core.SafetensorsFile],
    tensors: Sequence[tuple[int, int]],
    asked: dict[str, Any],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What `_core.scan` returns, with the same columns whatever the dtypes are."""
    return complete(_core.scan(files, tensors, progress=progress, **asked), len(tensors))


def complete(measured: dict[str, Any], n: int) -> dict[str, Any]:
    """The core's columns of `n` tensors and those that it left out, since no tensor was counted."""
    missing = {key: one.tobytes() * n for key, one in _UNCOUNTED.items() if key not in measured}
    return {**measured, **missing}


def join(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Columns of several measurements, one after the other."""
    # Every value is bytes or a list.
    return {key: _join([part[key] for part in parts]) for key in parts[0]}


def _join(parts: list[Any]) -> Any:
    return b"".join(parts) if isinstance(parts[0], bytes) else [value for part in parts for value in part]
