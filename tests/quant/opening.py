"""Opening what `stored` writes, with a config beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import weightprint
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.quant.base import Quantised, UnclaimedTensors
from weightprint.quant.survey import survey
from weightprint.results.finding import Finding


def opened(path: Path, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """The checkpoint at `path`; `config` becomes the config.json beside it."""
    beside = path.parent / "config.json"
    if config:
        beside.write_text(json.dumps(config))
    else:
        beside.unlink(missing_ok=True)
    return weightprint.open(path)


def found(checkpoint: Checkpoint) -> tuple[list[Quantised], list[Finding]]:
    """Its quantised weights, and what was noticed."""
    return survey(UnclaimedTensors(checkpoint))


def find(checkpoint: Checkpoint) -> list[Quantised]:
    """Its quantised weights."""
    return found(checkpoint)[0]


def only(checkpoint: Checkpoint) -> Quantised:
    """The one quantised weight in it."""
    (weight,) = find(checkpoint)
    return weight


def same_bits(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Equal shapes and equal bits (so that NaN and -0.0 count)."""
    expected = np.ascontiguousarray(expected, np.float32)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_array_equal(np.ascontiguousarray(got).view(np.uint32), expected.view(np.uint32))
