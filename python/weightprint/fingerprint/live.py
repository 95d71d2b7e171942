"""A checkpoint as the tests see it: canonical tensors by name, with a reader for slices of them.

What a weight holds decides its form here. A plain weight that is one canonical tensor as stored (or has no place) goes
by its stored name and is read as it lies. A fused, transposed or expert-stacked one gives a tensor per role, called
``weight[role]`` or ``weight[role, expert]``; a quantised one is decoded. Every stored tensor is in here, mapped or not;
one whose place was inferred without much confidence counts as not mapped, and the components of a quantised weight
that does not hold together are there as they are stored.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Literal

import numpy as np

from weightprint import _core
from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.place import SURE, Assignment
from weightprint.checkpoint.info import TensorInfo
from weightprint.fingerprint.model import ModelView, Runs, Tensor
from weightprint.quant.names import ACTIVATION
from weightprint.quant.weights import Weight
from weightprint.util import parallel
from weightprint.util.arrays import F32

#: Integers that, as a matrix, are packed codes or indices of some scheme that nobody knows: no values to compare.
WORDS = ("U8", "I16", "U16", "I32", "U32", "I64", "U64")
_MOST_COLUMNS = 8  # of tables of integers that are what they say: ids, routes


#: Beyond this no weight has a meaning, and sums of products over it leave float32.
_HUGE = np.float32(1e15)


class Reads:
    """Flat runs of canonical tensors as float32; counts the bytes it had read."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.nbytes = 0
        self._adding = threading.Lock()
        self.parts: dict[str, Assignment | None] = {}
        self.stored: dict[str, TensorInfo] = {}  # components of what can't be decoded, by their own names

    @property
    def cuts(self) -> bool:
        """Some tensor is cut out of a stored one, transposed or decoded."""
        weights = self.anatomy.weights
        return (
            bool(weights.quantised)
            or any(part is not None and not part.view.whole for part in self.parts.values())
            or len(self.anatomy.checkpoints) > 1
        )

    def as_stored(self, name: str) -> TensorInfo | None:
        """The stored tensor that a canonical one is as it lies; None where it is cut out, transposed or decoded."""
        part = self.parts.get(name)
        if part is not None and not part.view.whole:
            return None
        return self.stored.get(name) or self.anatomy.weights.stored(name)

    def components(self, name: str) -> tuple[str, ...]:
        """The stored tensors that a canonical one is made of."""
        if (info := self.as_stored(name)) is not None:
            return (info.name,)
        part = self.parts.get(name)
        return self.anatomy.weights[name if part is None else part.view.weight].components

    def __call__(self, name: str, start: int, stop: int) -> F32:
        """Elements [start, stop) of a canonical tensor."""
        part = self.parts.get(name)
        if (info := self.as_stored(name)) is not None:
            self.count(info.nbytes * (stop - start) / max(info.numel * info.components, 1))
            file = self.anatomy.checkpoint.core_file(info.file)
            return np.frombuffer(file.read_f32(info.index, start, stop), np.float32)
        weight = self.anatomy.weights[name if part is None else part.view.weight]
        self.count(weight.nbytes * (stop - start) / max(weight.numel, 1))
        shape = weight.shape if part is None else part.view.shape
        width = math.prod(shape[1:])
        rows = slice(start // max(width, 1), -(-stop // max(width, 1)))
        found = (
            self.anatomy.weights.read(weight.name, rows) if part is None else self.anatomy.read(part.view, rows)
        ).reshape(-1)
        first = rows.start * width
        return found[start - first : stop - first]

    def sample(self, name: str, rows: Runs, columns: Runs | None) -> F32 | None:
        """Runs of rows and columns of a matrix; None where it isn't one that is stored as it is read."""
        info = self.as_stored(name)
        if info is None or info.components != 1:
            return None
        width = math.prod(info.shape[-1:]) if columns is None else sum(n for _, n in columns)
        out = np.empty((sum(n for _, n in rows), width), np.float32)
        file = self.anatomy.checkpoint.core_file(info.file)
        nbytes = _core.read_sample(file, info.index, out, rows, columns, threads=0 if parallel.sharing() == 1 else 1)
        self.count(nbytes)
        return out

    def count(self, nbytes: float) -> None:
        """So many more bytes were read."""
        with self._adding:
            self.nbytes += math.ceil(nbytes)

    def gain(self, tensor: Tensor) -> F32 | None:
        """Gain of the norm in front of a canonical matrix, as it acts (a family's offset added), float32."""
        norm = None if tensor.place is None else self.anatomy.norm_before(tensor.place)
        if norm is None:
            return None
        return self.anatomy.tensor(norm.block, norm.role, stack=norm.stack, fold_norms=True)


def finite_view(side: ModelView) -> ModelView:
    """The side with NaN, infinities and values beyond all reason read as 0, for what sums products of values.

    One such value would make every sum over its row NaN, and say nothing of the others. Equality is asked of the side
    as it is: there a NaN is not a 0.
    """

    def sample(name: str, rows: Runs, columns: Runs | None) -> F32 | None:
        found = side.sample(name, rows, columns)
        return None if found is None else _bounded(found)

    def gain(tensor: Tensor) -> F32 | None:
        found = side.gains(tensor)
        return None if found is None else _bounded(found)

    def reader(name: str, start: int, stop: int) -> F32:
        return _bounded(side.reader(name, start, stop))

    return replace(side, reader=reader, sample=sample, gains=gain)


def _bounded(values: F32) -> F32:
    """The values themselves where all are within bounds, as nearly always; no copy is made then."""
    if not values.size or (values.max() < _HUGE and values.min() > -_HUGE):  # false for NaN
        return values
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) < _HUGE, values, np.float32(0))


def canonical_name(part: Assignment) -> str:
    """What a canonical tensor is called: the weight's name, and the role and expert where it holds several."""
    place = part.place
    return f"{part.view.weight}[{place.role}{'' if place.expert is None else f', {place.expert}'}]"


def outline(anatomy: Anatomy, label: Literal["a", "b"]) -> tuple[ModelView, Reads]:
    """All canonical tensors of a checkpoint, with what the headers say of them; reads no values."""
    reads = Reads(anatomy)
    tensors: dict[str, Tensor] = {}
    for weight in anatomy.weights.values():
        if not weight.readable:
            for name in weight.components:
                info = reads.stored[name] = anatomy.checkpoint.find(name)
                tensors[name] = Tensor(name, info.dtype, info.shape, info.numel, info.nbytes, undecoded=True)
            continue
        for name in weight.components if weight.scheme is not None else ():
            if name.endswith(ACTIVATION):  # no part of the weight's values, and the model computes with it
                info = reads.stored[name] = anatomy.checkpoint.find(name)
                tensors[name] = Tensor(name, info.dtype, info.shape, info.numel, info.nbytes)
        parts = [part for part in anatomy.of(weight.name) if not part.tied]
        if any(part.confidence < SURE for part in parts):
            parts = []
        if len(parts) <= 1 and all(part.view.whole for part in parts):
            part = parts[0] if parts else None
            reads.parts[weight.name] = part
            tensors[weight.name] = _tensor(anatomy, weight, part)
            continue
        for part in parts:
            name = canonical_name(part)
            reads.parts[name] = part
            numel = math.prod(part.view.shape)
            nbytes = weight.nbytes * numel // max(weight.numel, 1)
            levels = weight.levels if part.view.shape[-1:] == weight.shape[-1:] and not part.view.transposed else None
            tensors[name] = Tensor(
                name, _dtype(weight), part.view.shape, numel, nbytes, place=part.place, levels=levels,
                stored_turned=part.view.transposed,
            )  # fmt: skip
    return ModelView(label, tensors, reads, reads.gain, anatomy.geometry, reads.sample), reads


def _tensor(anatomy: Anatomy, weight: Weight, part: Assignment | None) -> Tensor:
    info = anatomy.weights.stored(weight.name)
    components = (info.components,) if info is not None and info.components > 1 else ()
    words = info is not None and _packed(info) and not (part is not None and part.place.part == "fixed")
    part = None if words else part
    return Tensor(
        name=weight.name,
        dtype=_dtype(weight),
        shape=(*weight.shape, *components),
        numel=weight.numel * math.prod(components),
        nbytes=weight.nbytes,
        place=None if part is None else part.place,
        levels=weight.levels,
        offset=0.0 if part is None else anatomy.offset(part.place),
        undecoded=words,
    )


def _packed(info: TensorInfo) -> bool:
    return info.dtype in WORDS and len(info.shape) > 1 and min(info.shape[-2:]) > _MOST_COLUMNS


def _dtype(weight: Weight) -> str:
    """The stored element type; a quantised weight's scheme goes with it, since its values are products."""
    return weight.dtype if weight.scheme is None else f"{weight.dtype} {weight.scheme}"
