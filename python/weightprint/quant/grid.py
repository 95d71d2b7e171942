"""A grid of scales over a matrix: which scale belongs to which element, told from the two shapes.

A weight of (R, C), or (E, R, C) for E experts, may have one scale in all, one per expert, one per row, one per column,
or one per block of b × c elements, where the last block of a row or column of blocks may be cut short: the grid is
then (⌈R/b⌉, ⌈C/c⌉). Several b can give the same ⌈R/b⌉. A block is the config's, if that covers the matrix with as many
scales as there are; or a group within a row that divides it, as libraries demand of groups; or the square of a power
of two that covers it so, of which there is at most one unless a single block covers all. All else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Rect, values
from weightprint.quant.hints import Hints
from weightprint.util.arrays import F32

Kind = Literal["scalar", "experts", "vector", "matrix"]

_SQUARES = (128, 64, 32, 256, 16, 512, 8, 1024, 4, 2)

#: Dtypes that a scale may have; U8 holds the exponent of a power of two, biased by 127, as F8_E8M0 does.
SCALE_DTYPES = ("F32", "BF16", "F16", "F64", "F8_E8M0", "U8", "F8_E4M3")


@dataclass(frozen=True, slots=True)
class Grid:
    """How scales lie over a matrix.

    Attributes:
        kind: ``"scalar"``: one; ``"experts"``: one per matrix; ``"vector"``: stored without the axis of size 1, one
            per row; ``"matrix"``: stored as (rows, columns) of the grid.
        rows: of the grid over one matrix.
        columns: likewise.
        block_rows: rows of the matrix under one scale.
        block_columns: likewise.
    """

    kind: Kind
    rows: int
    columns: int
    block_rows: int
    block_columns: int

    @property
    def granularity(self) -> str:
        """``tensor``, ``channel`` (per row), ``column``, ``group`` (within a row) or ``block``."""
        if self.rows == 1 and self.columns == 1:
            return "tensor"
        if self.columns == 1 and self.block_rows == 1:
            return "channel"
        if self.rows == 1 and self.block_columns == 1:
            return "column"
        return "group" if self.block_rows == 1 else "block"

    def over(self, rect: Rect) -> Rect:
        """The part of the grid that lies over a rectangle of the matrix."""
        top, bottom = rect.first_row // self.block_rows, -(-rect.stop_row // self.block_rows)
        left, right = rect.first_column // self.block_columns, -(-rect.stop_column // self.block_columns)
        return Rect(top, bottom - top, left, right - left, rect.index)

    def offset(self, rect: Rect) -> tuple[int, int]:
        """Where the rectangle begins within the first block of `over`."""
        return rect.first_row % self.block_rows, rect.first_column % self.block_columns

    def load(self, checkpoint: Checkpoint, name: str, part: Rect) -> F32:
        """A part of the grid as float32 (rows, columns), contiguous."""
        info = checkpoint.find(name)
        if self.kind in ("scalar", "experts"):
            height, width = info.matrix_shape
            everything = _floats(checkpoint, info, Rect(0, height, 0, width)).reshape(-1)
            chosen = part.index if self.kind == "experts" else 0
            return np.ascontiguousarray(everything[chosen : chosen + 1]).reshape(1, 1)
        if self.kind == "vector":  # row `index` of (experts, rows), or the only row of (rows,)
            here = Rect(part.index, 1, part.first_row, part.n_rows)
            return _floats(checkpoint, info, here).reshape(-1, 1)
        here = Rect(part.index * self.rows + part.first_row, part.n_rows, part.first_column, part.n_columns)
        return _floats(checkpoint, info, here)


def _floats(checkpoint: Checkpoint, info: TensorInfo, rect: Rect) -> F32:
    found = values(checkpoint, info.name, Rect(rect.first_row, rect.n_rows, rect.first_column, rect.n_columns))
    return exponents(found) if info.dtype == "U8" else found


def exponents(codes: F32) -> F32:
    """Powers of two from biased exponents (E8M0 stored as U8): 2^(code - 127), and 255 is NaN."""
    powers: F32 = np.ldexp(np.float32(1), codes.astype(np.int32) - 127).astype(np.float32)
    powers[codes == 255] = np.nan
    return powers


def fit(shape: tuple[int, ...], scale: TensorInfo, hints: Hints) -> Grid | None:
    """The grid that a scale tensor forms over a weight of `shape`; None where the shapes do not fit."""
    if not 1 <= len(shape) <= 3 or 0 in shape or scale.numel == 0:
        return None
    experts = shape[0] if len(shape) == 3 else 1
    height, width = (1, *shape)[-2:] if len(shape) < 3 else shape[1:]
    stored = scale.shape
    if scale.numel == 1:
        return Grid("scalar", 1, 1, height, width)
    if len(shape) == 3:
        if stored == (experts,) or (scale.numel == experts and stored[0] == experts):
            return Grid("experts", 1, 1, height, width)
        if len(stored) == 2 and stored == (experts, height):
            return Grid("vector", height, 1, 1, width)
        if len(stored) != 3 or stored[0] != experts:
            return None
        stored = stored[1:]
    if len(shape) == 1:
        return None
    if len(stored) == 1:
        return Grid("vector", height, 1, 1, width) if stored[0] == height else None
    if len(stored) != 2:
        return None
    block = _block(height, width, *stored, hints)
    return None if block is None else Grid("matrix", *stored, *block)


def _block(height: int, width: int, down: int, across: int, hints: Hints) -> tuple[int, int] | None:
    """(rows, columns) of a block where `down` × `across` of them cover the matrix; None where none is known to."""

    def covers(rows: int, columns: int) -> bool:
        return -(-height // rows) == down and -(-width // columns) == across

    if across == 1 and down == height:
        return 1, width
    if down == 1 and across == width:
        return height, 1
    said = next((block for block in hints.blocks if covers(*block)), None)
    if said is not None:
        return said
    if down == height:
        size = next((size for size in hints.group_sizes if covers(1, size)), 0)
        if size or (across > 0 and width % across == 0):
            return 1, size or width // across
    return next(((size, size) for size in _SQUARES if covers(size, size)), None)
