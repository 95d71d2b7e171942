"""Types of numpy arrays by their dtype, as annotations name them, and which of some things are equal."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Indices = I64  # of rows, columns, units or channels


def equal_pairs(rows: Sequence[Hashable], columns: Sequence[Hashable]) -> Bools:
    """Which of the rows equals which of the columns: (rows, columns). Each is asked for its value only once."""
    codes: dict[Hashable, int] = {}
    of_rows, of_columns = (
        np.array([codes.setdefault(x, len(codes)) for x in side], np.int64) for side in (rows, columns)
    )
    out: Bools = np.equal.outer(of_rows, of_columns)
    return out
