"""A checkpoint's tensors as its modules would hold them: every weight plain, however it is stored.

A stored tensor is either a weight by itself or a component of a quantised one (its codes, scales, zero points, …), and
belongs to exactly one weight: nothing is dropped. What is quantised is decoded when it is read, and only the blocks
that the asked rectangle touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import TensorNotFoundError, UsageError
from weightprint.quant.base import Levels, Quantised, UnclaimedTensors, Unreadable
from weightprint.quant.survey import survey
from weightprint.results.finding import Finding
from weightprint.util.arrays import F32
from weightprint.util.escape import escape


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight.

    Attributes:
        name: what the module's parameter is called; a quantised weight's is that of its unquantised form.
        shape: what the unquantised module would hold: (out, in) for a linear layer, a leading axis for experts in one
            tensor.
        dtype: as stored; of a quantised weight, that of its codes (``"F8_E4M3"``, ``"I4"``, ``"NF4"``, ``"Q4_K"``).
        scheme: None when stored plainly, else how it is quantised (``"fp8_block"``, ``"gptq"``, …).
        components: all stored tensors that it is made of.
        nbytes: bytes of all components.
        parameters: of the scheme, such as bits and group size.
        readable: False for components that look like a scheme and do not hold together: reading raises FormatError.
        levels: which values a quantised weight can have, as far as its scheme says.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scheme: str | None
    components: tuple[str, ...]
    nbytes: int
    parameters: Mapping[str, Any]
    readable: bool = True
    levels: Levels | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


class Weights(Mapping[str, Weight]):
    """All weights of a checkpoint by name, in the file order of their first components. Holds no values.

    Attributes:
        checkpoint: whose weights they are.
        findings: quantised storage that does not hold together.
    """

    checkpoint: Checkpoint
    findings: list[Finding]

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        tensors = UnclaimedTensors(checkpoint)
        found, self.findings = survey(tensors)
        self._quantised: dict[str, Quantised] = {q.name: q for q in found}
        self._owner = {component: q.name for q in self._quantised.values() for component in q.components}
        # A plain weight is its tensor's TensorInfo until it is asked for: of a million, nearly none are.
        self._weights: Mapping[str, Weight | TensorInfo] = tensors.infos
        if not found:
            return
        weights: dict[str, Weight | TensorInfo] = {}
        for name, info in tensors.infos.items():
            q = self._quantised.get(self._owner[name]) if name in self._owner else None
            if q is None:
                weights[name] = info
            elif q.name not in weights:
                nbytes = sum(tensors.infos[component].nbytes for component in q.components)
                readable = not isinstance(q, Unreadable)
                levels = q.levels if readable else None
                weights[q.name] = Weight(
                    q.name, q.shape, q.dtype, q.scheme, q.components, nbytes, q.parameters, readable, levels
                )
        self._weights = weights

    def __getitem__(self, name: str) -> Weight:
        found = self._weights[name]
        if isinstance(found, Weight):
            return found
        return Weight(name, found.shape, found.dtype, None, (name,), found.nbytes, {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __repr__(self) -> str:
        return f"<{len(self):,} weights of {escape(self.checkpoint.source)}, {len(self._quantised):,} quantised>"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape, in order."""
        return {name: weight.shape for name, weight in self._weights.items()}

    @property
    def n_parameters(self) -> int:
        """Elements over all weights."""
        return sum(prod(weight.shape) for weight in self._weights.values())

    @property
    def quantised(self) -> list[Weight]:
        """Those that are not stored plainly, in order: of most models none."""
        return [weight for weight in self._weights.values() if isinstance(weight, Weight) and weight.scheme is not None]

    def stored_as(self, name: str) -> tuple[str, int]:
        """What one weight is stored as, ``"BF16"`` or ``"I4 gptq"``, and the bytes of all its components."""
        weight = self._weights[name]
        scheme = weight.scheme if isinstance(weight, Weight) else None
        return weight.dtype if scheme is None else f"{weight.dtype} {scheme}", weight.nbytes

    def owner(self, tensor: str) -> str:
        """The name of the weight that a stored tensor belongs to; its own, unless it is a component."""
        return self._owner.get(tensor, tensor)

    def stored(self, name: str) -> TensorInfo | None:
        """The one tensor that a plain weight is; None for a quantised weight."""
        found = self._weights.get(name)
        return found if isinstance(found, TensorInfo) else None

    def block_scales(self, name: str) -> F32:
        """Decoded scales (blocks,) of a weight whose scales are quantised themselves; empty of any other."""
        found = self._quantised.get(name)
        return np.empty(0, np.float32) if found is None else found.block_scales(self.checkpoint)

    def read(self, name: str, rows: slice | None = None, columns: slice | None = None, index: int | None = None) -> F32:
        """A rectangle of one weight, decoded to float32; reads no more than it needs.

        Args:
            name: the weight.
            rows: rows (elements of a vector; first axis of anything else); None: all. Steps of 1 only.
            columns: columns of a matrix; None: all.
            index: number along the leading axis; the rectangle is then of ``weight[index]``.

        Returns:
            (rows, columns) of a matrix, (elements,) of a vector, (rows, *rest) of a tensor of higher rank.

        Raises:
            TensorNotFoundError: no such weight.
            UsageError: columns of something that is not a matrix, a step, or complex values.
        """
        if name not in self._weights:
            raise TensorNotFoundError(
                f"no weight {escape(name)} in {escape(self.checkpoint.source)}", tensor=name, code="tensor_not_found"
            )
        weight = self._weights[name]
        shape = _sub_shape(weight, index)
        if columns is not None and len(shape) != 2:
            raise UsageError(
                f"{escape(name)} has shape {list(shape)}: only a matrix has columns", tensor=name, code="no_columns"
            )
        r = _range(rows, shape[0] if shape else 1)
        c = _range(columns, shape[1] if len(shape) == 2 else 1)
        info = self.stored(name)
        if info is None:
            return self._quantised[name].read(self.checkpoint, slice(r.start, r.stop), slice(c.start, c.stop), index)
        if info.components != 1:
            raise UsageError(f"{escape(name)} is complex: read it from the checkpoint", tensor=name, code="complex")
        file = self.checkpoint.core_file(info.file)
        first, n_rows, left, n_columns = _stored_rectangle(shape, index, r, c)
        values = np.frombuffer(_core.read_rect(file, info.index, first, n_rows, left, n_columns), np.float32)
        kept = (len(r), len(c)) if len(shape) == 2 else (len(r), *shape[1:]) if shape else ()
        return values.reshape(kept)


def _sub_shape(weight: Weight | TensorInfo, index: int | None) -> tuple[int, ...]:
    if index is None:
        return weight.shape
    if not weight.shape or not 0 <= index < weight.shape[0]:
        raise UsageError(
            f"{escape(weight.name)} has shape {list(weight.shape)}: no number {index} along its first axis",
            tensor=weight.name,
            code="bad_index",
        )
    return weight.shape[1:]


def _range(part: slice | None, n: int) -> range:
    """A slice as a range within n, like Python's own clipping."""
    start, stop, step = (part or slice(None)).indices(n)
    if step != 1:
        raise UsageError("rows and columns are read in runs: a slice with a step is not supported", code="bad_step")
    return range(start, max(start, stop))


def _stored_rectangle(
    shape: Sequence[int], index: int | None, rows: range, columns: range
) -> tuple[int, int, int, int]:
    """(first row, rows, first column, columns) in the stored tensor's matrix form: leading axes flattened into rows."""
    number = index or 0
    if len(shape) <= 1:  # one stored row per index
        return number, 1, rows.start, len(rows)
    if len(shape) == 2:
        return number * shape[0] + rows.start, len(rows), columns.start, len(columns)
    inner = prod(shape[1:-1])
    return (number * shape[0] + rows.start) * inner, len(rows) * inner, 0, shape[-1]
