"""Shared by all schemes of quantised storage: a quantised weight, the tensors not claimed yet, reading rectangles.

A quantised weight is several stored tensors that decode to one: codes (small integers or floats, often packed) and the
scales, zero points, permutations and tables that turn codes into numbers. A scheme recognises such a set by the names,
dtypes and shapes of siblings, and makes a :class:`Quantised`, which decodes the rectangle that is asked for and reads
little more than that. Arithmetic is float32 in the order that the publishing library uses; the loops over elements are
in `_core`.

What looks like a scheme but does not hold together (a scale of the wrong shape, a layout that nobody documented)
becomes :class:`Unreadable`: it has its place in the list, and reading it says what was expected. Nothing is decoded on
a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import FormatError, UsageError
from weightprint.quant.hints import Hints
from weightprint.quant.names import ACTIVATION
from weightprint.results.finding import Finding
from weightprint.util.arrays import F32
from weightprint.util.escape import escape


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle of matrix number `index` of a weight, in elements of the decoded weight."""

    first_row: int
    n_rows: int
    first_column: int
    n_columns: int
    index: int = 0

    @property
    def stop_row(self) -> int:
        """The row after the last."""
        return self.first_row + self.n_rows

    @property
    def stop_column(self) -> int:
        """The column after the last."""
        return self.first_column + self.n_columns


class Levels(NamedTuple):
    """Which values a quantised weight can have.

    Attributes:
        run: how many neighbouring inputs of an output share a scale.
        even: whether what the scale multiplies are integers, and not small floats or the numbers of a table.
    """

    run: int
    even: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """One weight that is stored as several tensors.

    Attributes:
        name: what the unquantised parameter would be called.
        shape: what the unquantised module would hold: (out, in); a leading axis for experts in one tensor.
        dtype: of the codes: ``"F8_E4M3"``, ``"I8"``, ``"I4"``, ``"F4"``, ``"NF4"``, …
        scheme: how it is quantised: ``"fp8_block"``, ``"gptq"``, …
        components: all stored tensors that it is made of, codes first; scales of activations are among them, though
            they do not enter the weight.
        parameters: of the scheme: ``bits``, ``group_size``, ``block``, ``symmetric``, ``act_order``, …
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scheme: str
    components: tuple[str, ...]
    parameters: Mapping[str, Any]

    @property
    def codes(self) -> str:
        """The stored tensor that holds the codes."""
        return self.components[0]

    @property
    def levels(self) -> Levels | None:
        """None where inputs with one scale don't lie side by side, or several are coded together."""
        has = self.parameters
        if not self.shape or has.get("act_order") or has.get("orientation") == "in, out":
            return None
        run = has.get("group_size") or (has["block"][1] if "block" in has else self.shape[-1])
        return Levels(int(run), even=self.dtype.startswith(("I", "U")))

    def read(self, checkpoint: Checkpoint, rows: slice, columns: slice, index: int | None = None) -> F32:
        """Decode a rectangle.

        Args:
            checkpoint: the one that it was found in.
            rows: rows of the matrix; elements of a vector; with three axes and no `index`, numbers along the first.
            columns: columns of the matrix; has no meaning where `rows` already picks whole matrices or elements.
            index: which matrix of a weight with three axes.

        Returns:
            float32 (rows, columns); (elements,) of a vector; (numbers, out, in) where `rows` picks matrices.

        Raises:
            FormatError: the stored components contradict each other.
            UsageError: an index for a weight without experts, or out of range; a slice with a step.
        """
        if rows.step not in (None, 1) or columns.step not in (None, 1):
            raise UsageError("rows and columns are read in runs: a slice with a step is not supported", code="bad_step")
        if len(self.shape) == 3 and index is None:
            numbers = range(self.shape[0])[rows]
            out = np.empty((len(numbers), *self.shape[1:]), np.float32)
            for k, number in enumerate(numbers):
                out[k] = self.read(checkpoint, slice(None), slice(None), number)
            return out
        if index is not None and not (len(self.shape) == 3 and 0 <= index < self.shape[0]):
            raise UsageError(
                f"{escape(self.name)} has shape {list(self.shape)}: no matrix number {index}",
                tensor=self.name,
                code="bad_index",
            )
        vector = len(self.shape) == 1
        height, width = (1, self.shape[0]) if vector else self.shape[-2:]
        r, c = (range(1), range(width)[rows]) if vector else (range(height)[rows], range(width)[columns])
        if len(r) == 0 or len(c) == 0:
            return np.empty(len(c) if vector else (len(r), len(c)), np.float32)
        out = self._decode(checkpoint, Rect(r.start, len(r), c.start, len(c), index or 0))
        return out.reshape(-1) if vector else out

    def block_scales(self, checkpoint: Checkpoint) -> F32:
        """All scales as float32 (blocks,), where they are quantised themselves; else none: they are as stored."""
        return np.empty(0, np.float32)

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        """The rectangle, never empty and within the matrix, as (n_rows, n_columns)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable(Quantised):
    """Tensors that look like a scheme and do not hold together. Has the codes' stored shape; reading it raises.

    Attributes:
        problem: one sentence: what was expected and what was found.
        about: the stored tensor that it is about.
        path: its file.
    """

    problem: str
    about: str
    path: str

    def read(self, checkpoint: Checkpoint, rows: slice, columns: slice, index: int | None = None) -> F32:
        """Raise FormatError with the problem."""
        raise FormatError(self.problem, path=self.path, tensor=self.about, code="quantisation")


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to store quantised weights.

    Attributes:
        name: for people who read the list of schemes.
        anchors: ends of tensor names that give it away; `group` is called once for every tensor that has one.
        group: (the unclaimed tensors, the name that matched, the end that matched) → the weight, or None where the
            tensor is something else after all. Must not look at anything but the siblings.
        stated: the weights of this scheme that the container itself names.
        dtypes: dtypes that give it away; `group` is called once for every tensor of one, with an empty end.
    """

    name: str
    anchors: tuple[str, ...] = ()
    group: Callable[[UnclaimedTensors, str, str], Quantised | None] = lambda unclaimed, name, end: None
    stated: Callable[[Checkpoint], Iterable[Quantised]] = lambda checkpoint: ()
    dtypes: tuple[str, ...] = ()


#: Bytes of a tensor that `UnclaimedTensors.read_small` reads with others, and of all that it keeps.
_SMALL_BYTES, _SMALL_TOTAL = 1024, 1 << 26


class UnclaimedTensors:
    """The stored tensors that no scheme has claimed yet, by name; and what was noticed on the way.

    Attributes:
        checkpoint: whose tensors they are.
        infos: all stored tensors by name, claimed or not, in file order; ``names`` are its keys.
        hints: what the config says of them.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.infos = {info.name: info for info in checkpoint.tensors}
        self.names = list(self.infos)
        self.hints = Hints.of(checkpoint)
        self.memo: dict[str, Any] = {}  # what a scheme looked up once for the whole checkpoint
        self.claimed: set[str] = set()
        self._small: dict[str, dict[str, bytes]] = {}
        self._companions: dict[str, list[str]] = {}
        for name in self.names:
            for word in ACTIVATION if name.endswith(ACTIVATION) else ():
                if name.endswith(word):
                    self._companions.setdefault(name.removesuffix(word), []).append(name)
        self._noticed: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.infos and name not in self.claimed

    def get(self, name: str | None) -> TensorInfo | None:
        """The tensor of that name; None where there is none, or a weight has it already."""
        return None if name is None or name in self.claimed else self.infos.get(name)

    def read_small(self, info: TensorInfo, end: str) -> bytes:
        """The bytes of a small tensor whose name ends in `end`; the first call reads all others like it, too."""
        if end not in self._small:
            self._small[end] = self._small_ones(end)
        kept = self._small[end].get(info.name)
        return self.checkpoint.core_file(info.file).read_bytes(info.index) if kept is None else kept

    def _small_ones(self, end: str) -> dict[str, bytes]:
        per_file: dict[int, list[TensorInfo]] = {}
        total = 0
        for name in self.names:
            info = self.get(name) if name.endswith(end) else None
            if info is not None and info.nbytes <= _SMALL_BYTES and total + info.nbytes <= _SMALL_TOTAL:
                total += info.nbytes
                per_file.setdefault(info.file, []).append(info)
        kept: dict[str, bytes] = {}
        for file, infos in per_file.items():
            read = self.checkpoint.core_file(file).read_small([info.index for info in infos])
            kept |= {info.name: data for info, data in zip(infos, read, strict=True)}
        return kept

    def claim(self, weight: Quantised) -> None:
        """Take a weight's components off the unclaimed tensors."""
        self.claimed.update(weight.components)

    def companions(self, prefix: str) -> tuple[str, ...]:
        """Scales of activations on the unclaimed tensors whose names are `prefix` and one of ACTIVATION."""
        return tuple(name for name in self._companions.get(prefix, ()) if name in self)

    def unreadable(
        self,
        codes: TensorInfo,
        scheme: str,
        components: tuple[str, ...],
        about: TensorInfo,
        problem: str,
        name: str,
        code: str = "unreadable_quantisation",
    ) -> Unreadable:
        """The weight `name` that can't be decoded, and a finding that says so; ``not_decoded``: nothing is broken."""
        self.notice(code, scheme, name, problem)
        return Unreadable(
            name=name,
            shape=codes.shape,
            dtype=codes.dtype,
            scheme=scheme,
            components=components,
            parameters={"problem": problem},
            problem=problem,
            about=about.name,
            path=self.checkpoint.files[about.file].path,
        )

    def notice(self, code: str, kind: str, tensor: str, message: str) -> None:
        """Keep what a person should know; findings of one code and kind become one."""
        self._noticed.setdefault((code, kind), []).append((tensor, message))

    def findings(self) -> list[Finding]:
        """One finding per code and kind, with the first message and how many there are."""
        found = []
        for (code, _), noticed in self._noticed.items():
            tensor, message = noticed[0]
            more = f" (and {len(noticed) - 1:,} more like it)" if len(noticed) > 1 else ""
            found.append(Finding(code, "warning", message + more, None, tensor))
        return found


def wrong_shape(info: TensorInfo, expected: str) -> str:
    """The sentence for a component whose shape does not fit."""
    return f"{escape(info.name)} has shape {list(info.shape)}; expected {expected}"


def split(info: TensorInfo) -> tuple[int, int, int]:
    """(matrices, rows, columns): the last two axes are the matrix; a vector is one row."""
    if len(info.shape) < 2:
        return 1, 1, prod(info.shape)
    return prod(info.shape[:-2]), info.shape[-2], info.shape[-1]


def _rectangle(checkpoint: Checkpoint, name: str, rect: Rect) -> tuple[TensorInfo, int]:
    info = checkpoint.find(name)
    return info, rect.index * split(info)[1] + rect.first_row


#: Dtypes of scales, zero points and tables, and of codes that are numbers by themselves.
_VALUES = ("F32", "BF16", "F16", "F64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "F4")


def values(checkpoint: Checkpoint, name: str, rect: Rect) -> F32:
    """A rectangle of scales, zero points or numbers (of matrix ``rect.index`` of that tensor) as float32.

    Raises FormatError for a tensor of a dtype that neither of them has.
    """
    info, row = _rectangle(checkpoint, name, rect)
    file = checkpoint.core_file(info.file)
    if info.dtype not in _VALUES:
        problem = f"{escape(name)} is {info.dtype}; scales and zero points are one of {', '.join(_VALUES)}"
        raise FormatError(problem, path=checkpoint.files[info.file].path, tensor=name, code="quantisation")
    data = _core.read_rect(file, info.index, row, rect.n_rows, rect.first_column, rect.n_columns)
    return np.frombuffer(data, np.float32).reshape(rect.n_rows, rect.n_columns)


def raw(checkpoint: Checkpoint, name: str, rect: Rect) -> bytes:
    """The stored bytes of a rectangle of a tensor (of its matrix ``rect.index``)."""
    info, row = _rectangle(checkpoint, name, rect)
    file = checkpoint.core_file(info.file)
    return _core.read_rect(file, info.index, row, rect.n_rows, rect.first_column, rect.n_columns, raw=True)


def array(data: bytes, rect: Rect) -> F32:
    """What a decoder returned, as (n_rows, n_columns)."""
    return np.frombuffer(data, np.float32).reshape(rect.n_rows, rect.n_columns)


_INTEGERS = {"I64": np.int64, "I32": np.int32, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U32": np.uint32}


def small(checkpoint: Checkpoint, info: TensorInfo) -> npt.NDArray[np.int64]:
    """All values of a small tensor of integers; raises FormatError for one that is not of integers."""
    if info.dtype not in _INTEGERS:
        problem = f"{escape(info.name)} is {info.dtype}; expected integers"
        raise FormatError(problem, path=checkpoint.files[info.file].path, tensor=info.name, code="quantisation")
    stored = checkpoint.core_file(info.file).read_bytes(info.index)
    return integers(info, stored)


def integers(info: TensorInfo, stored: bytes) -> npt.NDArray[np.int64]:
    """The values of a tensor of integers from its bytes."""
    return np.frombuffer(stored, np.dtype(_INTEGERS[info.dtype]).newbyteorder("<")).astype(np.int64)
