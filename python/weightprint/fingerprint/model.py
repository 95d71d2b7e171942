"""One model as the tests see it: canonical tensors, their places, and readers of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from weightprint.anatomy.place import Expert, Geometry, Place
from weightprint.anatomy.roles import Role, matrix_of, role_of
from weightprint.quant.base import Levels
from weightprint.util.arrays import F32, F64, Array

#: A tensor with fewer distinct values (or fewer elements) is trivial: two models can share it by accident.
MIN_DISTINCT = 64

_ROWS_CHECKED = 32  # of a table that may be made by a formula
_SMOOTH = 0.05  # of the variance, that the mean square of second differences of such a one is at most

#: Values per slice when a tensor is streamed: 4 MiB of float32.
SLICE_VALUES = 1 << 20


def scheme_of(dtype: str) -> str | None:
    """The scheme of a tensor's ``dtype``, as in ``"I4 gptq"``; None of an element type alone."""
    return dtype.partition(" ")[2] or None


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of one canonical tensor without reading it again.

    ``name`` is the stored name, or says what is cut out of which stored tensor. ``digest`` is BLAKE3 of its bytes, hex.
    ``constant``: it has no two finite values that differ.
    ``place`` is None where the anatomy found none; it says what a tensor does, never whether it is shared. ``zeros``
    counts values that are zero, None where they were not counted. ``levels``: which values a quantised tensor can have,
    None where that is not known; its ``dtype`` is that of the codes, a space, and the scheme. ``offset``: what its
    architecture adds to a norm's gain. ``undecoded``: stored bytes that nothing decodes, equal to others or not read.
    ``n_nan`` and ``n_infinite`` count such values, as far as all were read. ``simple`` and ``sinusoidal``: what
    :meth:`ModelView.is_trivial` and `is_computed` say, where values need not be asked again. ``stored_turned``: the
    file holds it (in x out), and it is read transposed.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    numel: int
    nbytes: int
    digest: str | None = None
    std: float = math.nan
    constant: bool = False
    place: Place | None = None
    zeros: int | None = None
    levels: Levels | None = None
    offset: float = 0.0
    undecoded: bool = False
    simple: bool | None = None
    sinusoidal: bool | None = None
    n_nan: int = 0
    n_infinite: int = 0
    stored_turned: bool = False

    @property
    def scheme(self) -> str | None:
        """The scheme of quantisation whose codes it is stored in; None where it is stored as it is read."""
        return scheme_of(self.dtype)

    @property
    def coded(self) -> bool:
        """True where it is stored as codes of a scheme of quantisation, and read decoded; factors are no codes."""
        return self.scheme not in (None, "low_rank")

    @property
    def matrix(self) -> tuple[int, int]:
        """Shape as (rows, columns): leading axes flattened, a vector is one row."""
        columns = self.shape[-1] if self.shape else 1
        return (self.numel // columns if columns else 0, columns)

    @property
    def rank2(self) -> bool:
        """True for a real matrix: two axes, both longer than one."""
        return len(self.shape) == 2 and min(self.shape) > 1

    @property
    def sketched(self) -> bool:
        """Whether a fingerprint keeps a linear sketch of it: a matrix that is read."""
        return self.rank2 and not self.undecoded

    @property
    def role(self) -> Role | None:
        """The row of the table of roles, or None."""
        return None if self.place is None else role_of(self.place.role)

    @property
    def layer(self) -> int | None:
        """Number of its block; None outside the blocks or where that is not known."""
        return None if self.place is None else self.place.block

    @property
    def stack(self) -> str:
        """The stack that it belongs to; empty where that is not known."""
        return "" if self.place is None else self.place.stack

    @property
    def region(self) -> str:
        """The part of the model that it belongs to: ``"decoder.7"``, or its role when it is outside the blocks."""
        if self.place is None:
            return "other"
        return matrix_of(self.place.role) if self.layer is None else f"{self.stack}.{self.layer}"

    @property
    def key(self) -> tuple[str, str, Expert]:
        """What it does, in any layer: stack, role and expert; its own name where that is not known."""
        return ("", self.name, None) if self.place is None else (self.stack, self.place.role, self.place.expert)


def _smooth(rows: F64) -> bool:
    """Second differences are small beside the spread: independent values have a ratio of 6."""
    with np.errstate(all="ignore"):
        return bool(np.mean(np.diff(rows, 2) ** 2) < _SMOOTH * np.var(rows))


class Reader(Protocol):
    """How a test gets values: flat elements [start, stop) of a tensor as float32."""

    def __call__(self, name: str, start: int, stop: int) -> F32:
        """Values ``start`` to ``stop`` of the tensor of this name, flat, float32."""


#: Runs (start, length) of consecutive indices; of rows in any order, of columns ascending.
Runs = Sequence[tuple[int, int]]


def no_sample(name: str, rows: Runs, columns: Runs | None) -> F32 | None:
    """For tensors that are not read from a file, or not as they are stored."""
    return None


def no_gain(tensor: Tensor) -> F32 | None:
    """For a model whose norms are not known."""
    return None


@dataclass(frozen=True)
class ModelView:
    """One of the two models: its tensors by name, and a way to read slices of them.

    ``geometry``: stack → its sizes (heads, head size), as far as shapes and config.json tell. ``sample``: runs of rows
    and columns (None: all) of a tensor in one go, float32 (rows, columns); None for one that isn't stored as it is
    read.
    """

    label: Literal["a", "b"]
    tensors: Mapping[str, Tensor]
    reader: Reader = field(repr=False)
    gains: Callable[[Tensor], F32 | None] = field(default=no_gain, repr=False)
    geometry: Mapping[str, Geometry] = field(default_factory=dict, repr=False)
    sample: Callable[[str, Runs, Runs | None], F32 | None] = field(default=no_sample, repr=False)
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # looked up once

    @property
    def numel(self) -> int:
        """Values in all tensors."""
        return sum(t.numel for t in self.tensors.values())

    def rows(self, tensor: Tensor, start: int = 0, stop: int | None = None) -> F32:
        """Rows [start, stop) of a tensor seen as a matrix, float32, shape (stop - start, columns)."""
        n_rows, columns = tensor.matrix
        stop = n_rows if stop is None else min(stop, n_rows)
        if stop > start and (found := self.sample(tensor.name, [(start, stop - start)], None)) is not None:
            return found
        return self.reader(tensor.name, start * columns, stop * columns).reshape(stop - start, columns)

    def slices(self, tensor: Tensor, values: int = SLICE_VALUES) -> Iterator[tuple[int, F32]]:
        """The tensor in runs of whole rows of about ``values`` elements: (first row, rows)."""
        n_rows, columns = tensor.matrix
        step = max(1, values // max(columns, 1))
        for start in range(0, n_rows, step):
            yield start, self.rows(tensor, start, start + step)

    def gain(self, tensor: Tensor) -> F32 | None:
        """Gain of the norm that feeds this matrix, as it acts, float32 (columns,); None where none does."""
        found = self.gains(tensor)
        return found if found is not None and found.shape == tensor.shape[-1:] else None

    def is_computed(self, tensor: Tensor) -> bool:
        """Made by a formula, by its name or as far as its first rows show: they have the length of d/2 sines and d/2
        cosines (tables of positions), or values run on smoothly along or down them (numbers 0, 1, 2, …, windows)."""
        if tensor.role is not None and tensor.role.part == "fixed":
            return True
        if tensor.sinusoidal is not None:
            return tensor.sinusoidal
        if tensor.numel < 3:
            return False
        columns = tensor.matrix[1]
        n = min(_ROWS_CHECKED, tensor.matrix[0], max(1, SLICE_VALUES // columns))
        rows = self.rows(tensor, 0, n).astype(np.float64)
        if tensor.rank2 and columns % 2 == 0:
            squares = np.sum(rows * rows, axis=1)
            if np.all(np.abs(squares - columns / 2) <= 1e-2 * columns / 2):
                return True
        return any(_smooth(x) for x in (rows, rows.T) if x.shape[1] >= _ROWS_CHECKED)

    def is_trivial(self, tensor: Tensor) -> bool:
        """Too simple to be evidence: constant, or fewer than 64 elements or distinct values. Stops reading early."""
        if tensor.simple is not None:
            return tensor.simple
        if tensor.constant or tensor.numel < MIN_DISTINCT:
            return True
        seen: Array = np.empty(0, np.float32)
        start, size = 0, 16 * MIN_DISTINCT  # most tensors show it at once
        while start < tensor.numel:
            piece = self.reader(tensor.name, start, min(start + size, tensor.numel))
            seen = np.union1d(seen, piece[np.isfinite(piece)])
            if seen.size >= MIN_DISTINCT:
                return False
            start, size = start + size, SLICE_VALUES // 16
        return True
