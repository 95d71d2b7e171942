"""Were scales dropped, inverted or put elsewhere? Sizes of values that no trained weight has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from weightprint.check.context import CheckContext, listed, pattern_of
from weightprint.errors import WeightprintError
from weightprint.results.finding import Finding

#: Largest value → the small format whose largest it is, and how many values that format can have.
_LARGEST = {
    448.0: ("FP8 E4M3", 256),
    240.0: ("FP8 E4M3FNUZ", 256),
    57344.0: ("FP8 E5M2", 256),
    127.0: ("INT8", 256),
    128.0: ("INT8", 256),
    6.0: ("FP4", 16),
    7.0: ("INT4", 16),
    8.0: ("INT4", 16),
}
_FLOATS = ("F32", "F16", "BF16", "F64")
_ENOUGH = 4096  # values of which so few are distinct only if they are codes
_LOOKED_AT = 1 << 16
_TIMES = 1000.0  # as large as the matrices of other roles: no trained matrix is
_TIMES_SIBLINGS = 100.0  # as large as those of the same role: trained ones stay below 5
_GAIN = 300.0  # length of a random unit input's output; trained matrices stay below 30
_SHORT = 0.003  # likewise of quantised weights; trained ones stay above 0.1
_SAMPLED, _ROWS = 4, 16  # weights of one pattern, and rows of each, that are decoded to see their size


def codes_without_scales(context: CheckContext) -> Iterator[Finding]:
    """Matrices of plain floats that hold nothing but the codes of a small format, up to its largest value."""
    largest, distinct = context.column("abs_max"), context.column("n_distinct")
    found: dict[tuple[str, float], list[str]] = defaultdict(list)
    for k, name in enumerate(context.column("name")):
        top, n = largest[k], int(context.column("n")[k])
        form = _LARGEST.get(float(top)) if top is not None else None
        if form is None or n < _ENOUGH or context.column("dtype")[k] not in _FLOATS:
            continue
        count = distinct[k] if distinct[k] is not None else _distinct(context, name)
        few = count <= form[1]
        matrix = len(context.column("shape")[k]) >= 2 and name not in context.components
        if few and matrix and "fixed" not in context.parts(name):
            found[pattern_of(name), float(top)].append(name)
    for (_, top), names in found.items():
        small, levels = _LARGEST[top]
        message = (
            f"{len(names):,} matrices hold at most {levels} values, the largest exactly {top:g}, which is {small}'s"
        )
        message += f": codes whose scales were dropped. Convert them again, with their scales: {listed(names)}"
        yield Finding("codes_without_scales", "error", message, tensor=names[0])


def _distinct(context: CheckContext, name: str) -> int:
    """Distinct values of wide floats, which the scan doesn't count: among the first ones, and zero has two signs."""
    rows = -(-_LOOKED_AT // max(1, context.checkpoint.find(name).matrix_shape[1]))
    return int(np.unique(context.checkpoint.read(name, 0, rows)).size)


def out_of_scale(context: CheckContext) -> Iterator[Finding]:
    """Matrices of one role in all blocks whose values are far larger than their siblings' or than any trained one's.

    Of quantised weights a few rows are decoded. The factor is against the median over the patterns of names.
    """
    sizes: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for weight in context.anatomy.weights.values():
        pattern = pattern_of(weight.name)
        if len(weight.shape) != 2 or min(weight.shape) < 8 or not weight.readable:
            continue
        if context.parts(weight.name) & {"embedding", "fixed", "norm"} or len(sizes[pattern]) >= 64:
            continue
        rms = _rms(context, weight.name, len(sizes[pattern]))
        if rms is not None:
            placed = bool(context.parts(weight.name) & {"attention", "ffn"})
            sizes[pattern].append((rms, rms * weight.shape[1] ** 0.5 if placed else 0.0, weight.name))
    typical = {pattern: float(np.median([rms for rms, _, _ in found])) for pattern, found in sizes.items() if found}
    middle = float(np.median(list(typical.values()))) if len(typical) >= 3 else 0.0
    larger: list[tuple[float, str]] = []
    longer: list[tuple[float, str]] = []
    shorter: list[tuple[float, str]] = []
    apart: list[tuple[float, str]] = []
    for pattern, rms in typical.items():
        gain = float(np.median([gain for _, gain, _ in sizes[pattern]]))
        names = [name for _, _, name in sizes[pattern]]
        if middle > 0 and rms > _TIMES * middle:
            larger += [(rms / middle, name) for name in names]
        elif gain > _GAIN:
            longer += [(gain, name) for name in names]
        elif 0 < gain < _SHORT and all(context.anatomy.weights[name].scheme for name in names):
            shorter += [(1 / gain, name) for name in names]
        elif rms > 0 and len(names) >= _SAMPLED:
            apart += [(own / rms, name) for own, _, name in sizes[pattern] if own > _TIMES_SIBLINGS * rms]
    for found, what in (
        (larger, "values {} times as large as those of the other matrices"),
        (longer, "an input of length 1 comes out {} times as long, which no trained matrix does"),
        (shorter, "an input comes out {} times shorter, which no trained matrix does"),
        (apart, "values {} times as large as those of the same role in the other blocks"),
    ):
        if found:
            times = what.format(f"{np.median([factor for factor, _ in found]):,.0f}")
            names = [name for _, name in found]
            message = f"{times}: a scale is missing, inverted or another tensor's: {listed(names)}"
            yield Finding("out_of_scale", "warning", message, tensor=names[0])


def _rms(context: CheckContext, name: str, number: int) -> float | None:
    """Root mean square of a weight's finite values; of the first quantised ones of a pattern a few rows are decoded."""
    weights = context.anatomy.weights
    if weights[name].scheme is None:
        k = context.row_of.get(name)
        value = None if k is None else context.column("rms")[k]
        return float(value) if value is not None and np.isfinite(value) else None
    if number >= _SAMPLED:
        return None
    try:
        values = weights.read(name, slice(0, _ROWS)).astype(np.float64)
    except WeightprintError:
        return None
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(finite**2))) if finite.size else None
