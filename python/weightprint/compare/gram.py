"""Inner products of one canonical tensor in a child and its parents: all that linear mixes are told from.

With p_0 … p_(k-1) the parents' tensors and c the child's, the rows of X are p_0, c - p_0, p_1 - p_0, …, p_(k-1) - p_0,
and a `Gram` holds X·Xᵀ in float64. Differences are taken before products are, so a fine-tune that moved by a
thousandth of its weights loses no digits. Grams add up: over tensors, blocks, roles. Whoever has sketches instead of
weights makes the same Grams of them (:mod:`weightprint.compare.mixing` never asks where they are from).

``rounding`` is what storing costs each model: the sum of ulp²/12 over the elements (independent rounding), of the type
that the values really have: a float32 file of bfloat16 values is bfloat16. Where values lie on a grid of their own (a
scheme of quantisation), the step between neighbouring values stands for the ulp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.anatomy.place import Place
from weightprint.fingerprint.model import SLICE_VALUES, ModelView, Tensor
from weightprint.util.arrays import F32, F64
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.linear_algebra import product

__all__ = ["Gram", "Partners", "measured", "real_dtype", "spacing", "total"]

_LOOKED_AT = 4096  # values of a run whose spacing is looked at
_RUN, _REPEATED = 16, 4  # values of one scale; so many alike among them are many
_RUNS = 8  # of rows, where only a sample of a tensor is read


@dataclass(frozen=True)
class Partners:
    """A tensor of the child and what stands in its place in each parent, None where nothing of its shape does."""

    child: Tensor
    parents: tuple[Tensor | None, ...]

    @property
    def complete(self) -> bool:
        """Every parent has it."""
        return all(parent is not None for parent in self.parents)


@dataclass(frozen=True)
class Gram:
    """See the module.

    Attributes:
        name: the child's tensor.
        place: its place, None where that is not known.
        matrix: it has two axes, both longer than one.
        n: elements that were read.
        present: the parents that have it; rows of the others are those of a tensor of zeros.
        products: X·Xᵀ, float64 (k + 1, k + 1).
        rounding: of the child, then of each parent; float64 (k + 1,).
    """

    name: str
    place: Place | None
    matrix: bool
    n: int
    present: tuple[bool, ...]
    products: F64
    rounding: F64

    @property
    def block(self) -> tuple[str, int] | None:
        """(stack, number) of its block; None outside the blocks."""
        return None if self.place is None or self.place.block is None else (self.place.stack, self.place.block)


def total(grams: Sequence[Gram]) -> tuple[F64, F64]:
    """(products, rounding), summed."""
    return np.sum([g.products for g in grams], axis=0), np.sum([g.rounding for g in grams], axis=0)


def measured(
    child: ModelView,
    parents: Sequence[ModelView],
    rows: Sequence[Partners],
    most: int | None = None,
    tick: Callable[[int], object] = lambda _: None,
) -> list[Gram]:
    """One pass over the tensors of `rows`, a slice of all models at a time.

    Args:
        child: its model.
        parents: in the order of `Partners.parents`.
        rows: what is compared with what.
        most: elements of a tensor that are read, in runs of rows spread over it; None: all.
        tick: told the bytes of every slice.
    """
    return [_gram(child, parents, row, most, tick) for row in rows]


def _gram(
    child: ModelView, parents: Sequence[ModelView], row: Partners, most: int | None, tick: Callable[[int], object]
) -> Gram:
    k = len(parents)
    products, rounding, n = np.zeros((k + 1, k + 1)), np.zeros(k + 1), 0
    models = [(child, row.child), *zip(parents, row.parents, strict=True)]
    for start, stop in _runs(row.child, SLICE_VALUES // (k + 1), most):
        values = [None if t is None else side.rows(t, start, stop) for side, t in models]
        c = values[0]
        assert c is not None
        x = np.zeros((k + 1, c.size))
        for i, found in enumerate(values):
            if found is not None:
                x[i] = found.reshape(-1)
                tensor = models[i][1]
                assert tensor is not None
                rounding[i] += c.size * float(np.mean(np.square(spacing(found, tensor)))) / 12
                tick(int(tensor.nbytes * found.size / max(tensor.numel, 1)))
        x[[0, 1]] = x[[1, 0]]  # p_0, c, p_1 …
        x[1:] -= x[0]
        products += product(x, x.T)
        n += c.size
    present = tuple(parent is not None for parent in row.parents)
    return Gram(row.child.name, row.child.place, row.child.rank2, n, present, products, rounding)


def _runs(tensor: Tensor, values: int, most: int | None) -> Iterator[tuple[int, int]]:
    """Rows [start, stop) in pieces of about so many values; where `most` is less than all, of evenly spread runs."""
    n_rows, columns = tensor.matrix
    step = max(1, values // max(columns, 1))
    if most is None or tensor.numel <= most:
        yield from ((start, min(start + step, n_rows)) for start in range(0, n_rows, step))
        return
    length = max(1, most // (columns * _RUNS))
    for start in sorted({int(s) for s in np.linspace(0, n_rows - length, _RUNS)}):
        yield start, min(n_rows, start + min(length, step))


def spacing(values: F32, tensor: Tensor) -> F64:
    """Distance between neighbouring values that the tensor can have, at a sample of its `values`, float64."""
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // _LOOKED_AT)].astype(np.float64)
    if tensor.dtype in MANTISSA:
        return ulp(sample, real_dtype(sample, tensor.dtype))
    return _steps(flat[:_LOOKED_AT])


def _steps(values: F32) -> F64:
    """Steps of a grid that nobody describes, from values of a row in order.

    In a short run all values have one scale: where many of them repeat, neighbouring ones are a step apart mostly (the
    median), where few do, the nearest two are in many runs. Floats of few bits have finer steps near zero: there the
    steps between the values of a longer run are larger, and count.
    """
    gaps = [np.diff(np.unique(run)) for run in values[: values.size // _RUN * _RUN].reshape(-1, _RUN)]
    gaps = [g for g in gaps if g.size]
    few = 2 * sum(g.size < _RUN - _REPEATED for g in gaps) > len(gaps)
    if not gaps:
        return np.zeros(1)
    short = np.median([np.median(g) for g in gaps]) if few else np.quantile([g.min() for g in gaps], 0.25)
    levels, inverse = np.unique(values[:256], return_inverse=True)
    apart = np.diff(levels, prepend=-np.inf, append=np.inf)
    longer = np.sort(np.minimum(apart[:-1], apart[1:]).astype(np.float64)[inverse])
    longer = longer[: len(longer) - len(longer) // 32]  # the largest values may have no neighbours
    return longer if np.mean(longer * longer) > short * short else np.array([float(short)])


def real_dtype(sample: F64, dtype: str) -> str:
    """The narrowest type that holds all these values: a file may store them in a wider one."""
    if dtype == "F64":
        dtype = "F32" if (sample == sample.astype(np.float32)).all() else dtype
    if dtype == "F32":
        words = sample.astype(np.float32).view(np.uint32)
        if not (words & np.uint32(0xFFFF)).any():
            return "BF16"
        with np.errstate(over="ignore"):
            if (sample == sample.astype(np.float16)).all():
                return "F16"
    return dtype if math.isfinite(float(sample.sum())) else "F32"
