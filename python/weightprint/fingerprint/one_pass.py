"""One pass over a model: digest and spread of every tensor, and what the tests want to see of every block.

The pass goes block by block, two or more side by side: the bytes of a block are scanned, and the samples that tests
want of it are copied as they pass; what isn't stored as it is read is decoded and measured; then the tests take their
steps (:mod:`weightprint.evidence.streamed`) while the block is at hand. So a model larger than memory comes from the
disk once. A large tensor outside the blocks passes like a block; what is small there is scanned first by all threads,
and so is a whole model whose blocks are small.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.fingerprint.live import Reads, finite_view
from weightprint.fingerprint.model import ModelView, Runs, Tensor
from weightprint.fingerprint.sampling import Read
from weightprint.fingerprint.steps import Collector, Where, where
from weightprint.scan.columns import Columns, measure
from weightprint.scan.request import Request, Settings
from weightprint.scan.result import whole_digest
from weightprint.util import parallel
from weightprint.util.arrays import F32
from weightprint.util.progress import Meter

#: Types whose float32 values say everything about them.
_BY_VALUE = frozenset({"F32", "BF16", "F16", "F8_E4M3", "F8_E5M2"})
_SMALL = 32 << 20  # bytes of a block below which the model is scanned in one go
_HELD = 256 << 20  # bytes of samples that are copied of one block
_PACKED = frozenset({"F4", "F6_E2M3", "F6_E3M2"})  # elements that share bytes

#: What is known of a tensor after the pass: column of a scan → its value.
Measured = dict[str, Any]


@dataclass
class _Group:
    """Stored and canonical tensors that are measured together, and the places that are looked at then."""

    infos: list[TensorInfo] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    places: list[Where] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(info.nbytes for info in self.infos)

    @property
    def first(self) -> tuple[int, int]:
        """Where it begins in the files."""
        return min(((info.file, info.index) for info in self.infos), default=(-1, -1))

    def take_in(self, other: _Group) -> None:
        self.infos += other.infos
        self.tensors += other.tensors
        self.places += other.places


@dataclass(frozen=True, slots=True)
class Passed:
    """What one pass found: the side with every tensor measured, the digest of the whole, and what was measured of the
    stored tensors and of the canonical ones, by name."""

    side: ModelView
    digest: str
    stored: Mapping[str, Measured]
    canonical: Mapping[str, Measured]


def stream(
    checkpoint: Checkpoint,
    side: ModelView,
    reads: Reads,
    by_value: bool,
    collectors: Sequence[Collector],
    meter: Meter,
    *,
    sketches: Mapping[str, int] | None = None,
    settings: Settings | None = None,
) -> Passed:
    """One pass over every byte; every collector's steps of this side are taken.

    Args:
        by_value: digests are of float32 values, not of bytes, where these say everything.
        sketches: canonical tensors of which a linear sketch is made, and the keys of its signs.
        settings: threads and how files are read; no result depends on them.

    Raises:
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: what reading fails with.
    """
    rest, groups = _groups(checkpoint, side, reads)
    stored: dict[str, Measured] = {}
    decoded: dict[str, Measured] = {}
    sketches, settings = sketches or {}, settings or Settings()
    keys = {info.name: key for name, key in sketches.items() if (info := reads.as_stored(name)) is not None}

    def is_decoded(tensor: Tensor) -> bool:
        return reads.as_stored(tensor.name) is None or (by_value and tensor.dtype in _BY_VALUE)

    def work(group: _Group) -> None:
        steps = [(one, step) for one in collectors for place in group.places for step in one.of(side.label, place)]
        kept = _Kept(side, reads, group.infos, [read for _, step in steps for read in step.reads])
        stored.update(_scanned(checkpoint, group.infos, kept.keep, keys, replace(settings, progress=meter.part())))
        kept.keep.clear()  # who samples them holds them from here on
        there = finite_view(replace(side, sample=kept.sample))
        derived = [tensor for tensor in group.tensors if is_decoded(tensor)]
        found = parallel.each(lambda t: _of_values(side, t, sketches.get(t.name)), derived)
        decoded.update(zip([tensor.name for tensor in derived], found, strict=True))
        for _ in parallel.each(lambda taken: taken[0].take(taken[1], there), steps):
            pass

    work(rest)
    for _ in parallel.each(work, groups, ahead=len(groups), threads=settings.threads):
        pass
    canonical = {name: decoded[name] if is_decoded(tensor) else stored[name] for name, tensor in side.tensors.items()}
    tensors = {name: _known(tensor, canonical[name]) for name, tensor in side.tensors.items()}
    infos = list(checkpoint.tensors)
    digests = [stored[info.name]["digest"] for info in infos]
    whole = whole_digest([info.dtype for info in infos], [info.shape for info in infos], digests)
    return Passed(replace(side, tensors=tensors), whole, stored, canonical)


def _groups(checkpoint: Checkpoint, side: ModelView, reads: Reads) -> tuple[_Group, list[_Group]]:
    """What is scanned first, and the groups that pass one by one, in the order of the files. Every stored tensor and
    every canonical one is in one of them."""
    groups: dict[Where, _Group] = defaultdict(_Group)
    of: dict[str, Where] = {}
    for tensor in side.tensors.values():
        place = where(tensor)
        groups[place].tensors.append(tensor)
        for name in reads.components(tensor.name):
            of.setdefault(name, place)
    for info in checkpoint.tensors:
        groups[of.get(info.name, info.name)].infos.append(info)
    rest = _Group()
    inside: list[_Group] = []
    large: list[_Group] = []
    for place, group in groups.items():
        group.places.append(place)
        if not isinstance(place, str):
            inside.append(group)
        elif group.nbytes >= _SMALL:
            large.append(group)
        else:
            rest.take_in(group)
    one_by_one = sorted([*inside, *large], key=lambda group: group.first)
    if len(inside) < 4 or max(group.nbytes for group in inside) < _SMALL:
        for group in one_by_one:
            rest.take_in(group)
        return rest, []
    return rest, one_by_one


class _Kept:
    """Samples that steps need, copied while the block is in memory. Skipped: tensors that must be decoded, cut or
    transposed first, and what would be more than 256 MB."""

    def __init__(self, side: ModelView, reads: Reads, infos: Sequence[TensorInfo], wanted: Sequence[Read]) -> None:
        places = {info.name: place for place, info in enumerate(infos)}
        self.keep: list[tuple[int, F32, Runs, Runs | None]] = []
        self._held: dict[str, list[tuple[Runs, Runs | None, F32]]] = defaultdict(list)
        nbytes = 0
        for read in wanted:
            info = reads.as_stored(read.tensor.name)
            nbytes += 4 * math.prod(read.shape)
            if info is None or info.name not in places or info.components > 1:
                continue
            if info.dtype in _PACKED or nbytes > _HELD:
                continue
            out, (rows, columns) = np.empty(read.shape, np.float32), read.runs
            self.keep.append((places[info.name], out, rows, columns))
            self._held[read.tensor.name].append((rows, columns, out))
        self._sample = side.sample

    def sample(self, name: str, rows: Runs, columns: Runs | None) -> F32 | None:
        """As `ModelView.sample`; a copy is handed out once, since who asked may write into it."""
        held = self._held.get(name, [])
        for k, (of_rows, of_columns, _) in enumerate(held):
            if of_rows == rows and of_columns == columns:
                return held.pop(k)[2]
        return self._sample(name, rows, columns)


def _scanned(
    checkpoint: Checkpoint,
    infos: Sequence[TensorInfo],
    keep: Sequence[Any],
    keys: Mapping[str, int],
    settings: Settings,
) -> Iterator[tuple[str, Measured]]:
    """(name, what is known) of these tensors as they are stored."""
    settings = settings if parallel.sharing() == 1 else replace(settings, threads=1)
    found = measure(checkpoint, infos, Request(digest=True), settings, keep, [keys.get(info.name) for info in infos])
    return zip([info.name for info in infos], _measured(found), strict=True)


def _of_values(side: ModelView, tensor: Tensor, key: int | None) -> Measured:
    """Of the float32 values of a tensor that is cut or decoded, slice by slice."""
    state = _core.Measure(tensor.shape, digest=True, sketch=key)
    for _, values in side.slices(tensor):
        parallel.check()
        state.add(values.tobytes())
    return next(_measured(Columns.complete(state.finish(), 1)))


def _measured(found: Columns) -> Iterator[Measured]:
    names = list(found.arrays)
    return (dict(zip(names, row, strict=True)) for row in zip(*(found[name].tolist() for name in names), strict=True))


def _known(tensor: Tensor, measured: Measured) -> Tensor:
    # NaN and infinities are no values: of a tensor that is nothing else, or one value beside them, nothing can be told.
    constant = measured["min"] == measured["max"]
    return replace(
        tensor,
        digest=measured["digest"],
        std=measured["std"],
        constant=constant,
        zeros=measured["n_zero"],
        n_nan=measured["n_nan"],
        n_infinite=measured["n"] - measured["n_finite"] - measured["n_nan"],
    )
