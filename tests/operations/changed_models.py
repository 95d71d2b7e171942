"""Parents and children in memory, and one call from a pair to the operations that are read off it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from synthetic import Arrays, decoder, models
from weightprint.operations.base import Operation
from weightprint.operations.changes import measured
from weightprint.operations.encoded import encoded
from weightprint.operations.low_rank import low_rank
from weightprint.operations.noise import noise
from weightprint.operations.pruning import pruning
from weightprint.operations.training import training
from weightprint.verdict.facts import Facts

DTYPES: dict[str, npt.DTypeLike] = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}


def parent(seed: int = 0) -> Arrays:
    """Four blocks of 96 channels and 256 units, values that are exact in bfloat16."""
    return {n: x.astype(ml_dtypes.bfloat16).astype(np.float32) for n, x in decoder(seed, d=96, h=256).items()}


def stored(arrays: Mapping[str, Any], dtype: str) -> Arrays:
    """Rounded to a type."""
    return {name: x.astype(DTYPES[dtype]) for name, x in arrays.items()}


def matrices(arrays: Mapping[str, Any]) -> list[str]:
    """Names of the matrices of the blocks."""
    return [name for name, x in arrays.items() if x.ndim == 2 and ".layers." in name]


def named(a: Mapping[str, Any], b: Mapping[str, Any], dtype: str = "F32") -> dict[str, Operation]:
    """Name → operation, of a pair stored in one type, as the readers of values tell them."""
    facts = Facts(models(stored(a, dtype), stored(b, dtype)), ())
    changes = measured(facts)
    rows = (
        *encoded(facts, changes),
        *pruning(facts, changes),
        *low_rank(facts, changes),
        *noise(facts, changes),
        *training(facts, changes),
    )
    return {row.name: row for row in rows}
