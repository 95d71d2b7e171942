"""Same values in another precision, orientation or quantisation: a strict test, element by element.

First the plain casts: rounded to nearest even (or cut off), element for element, or (bfloat16 and float16) both rounded
from one original: no element further apart than both roundings. Then the scaled ones. Every coarse format is a set of
levels, and rounding sends each level's *cell* to it: for int8 the cell of code q is [q - 1/2, q + 1/2], for a float
format it reaches half-way to the two neighbours. B is a re-encoding of A when one scale u > 0 per group puts u * a into
the cell of b for **every** element:

    lo(b_i) <= u * a_i <= hi(b_i)      for all i of a group.

For each group that is an intersection of intervals for u, exact and in one pass. Tried at once: one u per tensor, per
row, per column; for 8-bit integers also a zero point z per tensor (|z| <= 255) with u per tensor. A hypothesis dies
at its first contradicted element, and a tensor is given up when all are dead: strangers cost one slice. The tolerance
is 1e-3 of a cell, for scales that were themselves rounded.

The quantiser's own scale tensor is then looked for: a tensor of B with one value per group, all of them inside the
intervals found, is that scale, and is counted as explained by A ("parameter").

A tensor that is stored in codes of a scheme of quantisation (GGUF, NF4, FP8 in blocks, …) is read decoded, and its
scales are known: there the cells come from the levels of each group (:mod:`._block_codes`).

It can't be passed by chance: a scale serves at least 32 values. A tensor is evidence only with 64 distinct values on
the finer side and 16 on the coarser; simpler ones are counted as agreeing, not as showing anything.

Rounding loses bits, so where values were really rounded the coarser side is the later one. Where the finer side holds
only values of the coarser format (an upcast) nothing was lost and the direction stays open.

Blind to: copies that were also trained; scales per block where the values are stored decoded; quantisers that don't
round to nearest (GPTQ), scale channels first (AWQ) or rotate, and codes for several values at once (IQ2). Where the
difference is of the size that the codes make, that is said (``rounded``), and nothing is called the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from weightprint import parallel
from weightprint._looks import ulp
from weightprint.evidence._base import (
    F32,
    SLICE_VALUES,
    Evidence,
    Models,
    Pair,
    Shared,
    Side,
    Tensor,
    not_applied,
    timed,
)
from weightprint.evidence._block_codes import Coded, coded
from weightprint.evidence._scaled_cells import F64, FORMATS, Fit, fits

__all__ = ["same_values"]

_MIN_LEVELS = 16  # distinct stored values for a tensor to be evidence
_MIN_GROUP = 32  # elements that share one scale; fewer could be fitted
_MAX_TURNED = 1 << 26  # values; a transposed tensor is held whole
_SLACK = 1e-3
#: Plain casts: what is said of them, the one that explains most first.
_CASTS = ("nothing lost", "a cast", "a cast, cut off rather than rounded", "both cast from one original")

_QUESTION = Evidence(
    test="same_values",
    asked="Is B what A becomes when it is stored in another precision, orientation or quantisation?",
    applied=True,
    null="none: every element is checked against the cell that rounding allows",
    assumes="tensors were brought together by name, digest or a corner of their values; the check itself does not "
    "depend on how",
    blind_to="quantisers that don't round to nearest, rotation or scaling before quantisation, and copies that were "
    "also trained",
    statistic_of="tensors of B that are a re-encoding of A's, element by element",
    effect_of="their share of B's parameters",
)


@timed
def same_values(models: Models) -> Evidence:
    """Test every pair whose bytes differ but whose values may be the same."""
    a, b = models.a, models.b
    if models.effort == "quick":
        return not_applied(_QUESTION, "quick effort reads samples, and this test reads every value")
    todo = [p for p in models.pairs if _candidate(p)]
    if not todo:
        return not_applied(_QUESTION, "no pair of tensors differs in dtype or orientation only")
    found: list[Shared] = []
    how: dict[str, str] = {}
    scales: list[tuple[str, F64, F64]] = []
    near: list[Shared] = []
    differ: list[str] = []
    skipped: list[str] = []
    coarser = {"a": 0, "b": 0}
    in_codes: list[Coded] = []
    other_codes: list[Coded] = []
    one_by_one = threading.Lock()  # what is turned is held whole

    def check(pair: Pair) -> _Outcome | None:
        with one_by_one if pair.transposed else nullcontext():
            return _check(a, b, pair)

    outcomes = parallel.each(check, todo, ahead=len(todo))
    for pair, outcome in zip(todo, outcomes, strict=True):
        if outcome is None:
            skipped.append(pair.b.name)
            continue
        if outcome.coded is not None:
            (in_codes if outcome.coded.near else other_codes).append(outcome.coded)
        if outcome.how is None:
            differ.append(pair.b.name)
            if outcome.coded is not None and outcome.coded.near:
                near.append(Shared(pair.b.name, pair.a.name, "rounded", pair.b.numel))
        elif not outcome.how:
            found.append(Shared(pair.b.name, pair.a.name, "trivial", pair.b.numel))
        else:
            found.append(Shared(pair.b.name, pair.a.name, "re_encoded", pair.b.numel))
            how[pair.b.name] = outcome.how
            bits_a, bits_b = _bits(pair.a), _bits(pair.b)
            if bits_a != bits_b and not any(words in outcome.how for words in (_CASTS[0], _CASTS[3])):
                coarser["b" if bits_b < bits_a else "a"] += 1
            if outcome.scales is not None:
                scales.append((pair.b.name, *outcome.scales))
    paired = {p.b.name for p in models.pairs if p.by != "values"} | {f.b for f in found}
    found.extend(_scale_tensors(b, scales, paired))
    shared = sum(f.numel for f in found)
    n = sum(f.kind == "re_encoded" for f in found)
    kinds = sorted(set(how.values()))
    simple = sum(f.kind == "trivial" for f in found)
    says = f"{n} of {len(todo)} pairs that differ in bytes hold the same values re-encoded"
    says += f" ({'; '.join(kinds[:4])}{'; …' if len(kinds) > 4 else ''})" if n else ""
    says += f"; {simple} more do, but have too few distinct values to show anything" if simple else ""
    says += f"; {len(near)} differ by as much as their codes make them differ" if near else ""
    later = "b" if coarser["b"] and not coarser["a"] else "a" if coarser["a"] and not coarser["b"] else None
    return replace(
        _QUESTION,
        says=says,
        statistic=float(n),
        effect=shared / max(b.numel, 1),
        n=len(todo),
        found=(*found, *near),
        details={
            "n_same": n,
            "n_simple": simple,
            "n_differ": len(differ),
            "n_rounded": len(near),
            "n_skipped": len(skipped),
            "how": dict(list(how.items())[:200]),
            "differ": differ[:200],
            "skipped": skipped[:200],
            "scales": {f.b: f.a for f in found if f.kind == "parameter"},
            "codes": _codes(in_codes),
            "other_codes": _codes(other_codes),
            "later": later,
        },
    )


@dataclass(frozen=True)
class _Outcome:
    """``how`` is None when the values differ, empty when they are too simple to tell. Then the intervals of the scales
    that were found, and what comparing with codes showed."""

    how: str | None = None
    scales: tuple[F64, F64] | None = None
    coded: Coded | None = None


def _bits(tensor: Tensor) -> int:
    """Of precision; codes of a scheme are the coarsest."""
    return 0 if tensor.coded else FORMATS[tensor.dtype]


def _codes(found: list[Coded]) -> dict[str, float | int | None]:
    """Over several tensors in codes: how many, the inputs that share a scale in most of them, the relative difference,
    and its mean square over that of rounding to nearest (None where the levels are not known)."""
    if not found:
        return {}
    runs = sorted(c.run or 0 for c in found)
    difference, size, rounding = (sum(getattr(c, of) for c in found) for of in ("difference", "size", "rounding"))
    return {
        "tensors": len(found),
        "run": runs[len(runs) // 2] or None,
        "error": math.sqrt(difference / size) if size > 0 else 0.0,
        "of_rounding": difference / rounding if rounding > 0 else None,
    }


def _candidate(pair: Pair) -> bool:
    """Both formats known, and not simply equal bytes or different bytes of one dtype and orientation."""
    if pair.a.coded or pair.b.coded:
        plain = pair.b if pair.a.coded else pair.a
        return plain.dtype in FORMATS and not pair.transposed
    if pair.a.dtype not in FORMATS or pair.b.dtype not in FORMATS:
        return False
    # Digests may be of values (compare), so equal ones in two dtypes are a cast that lost nothing.
    stored_otherwise = pair.a.dtype != pair.b.dtype or pair.a.offset != pair.b.offset
    return stored_otherwise or (pair.transposed and pair.a.digest != pair.b.digest)


def _check(a: Side, b: Side, pair: Pair) -> _Outcome | None:
    """What the values say; None where they are too many to be turned."""
    if pair.transposed and pair.a.numel > _MAX_TURNED:
        return None
    forward = _bits(pair.b) <= _bits(pair.a)
    fine, coarse = (pair.a, pair.b) if forward else (pair.b, pair.a)
    fine_side, coarse_side = (a, b) if forward else (b, a)
    whole = fine_side.rows(fine).T if pair.transposed else None
    offset = np.float32(fine.offset - coarse.offset)

    def both(at_once: int) -> Iterator[tuple[F32, F32]]:
        for start, stored in coarse_side.slices(coarse, at_once):
            stop = start + stored.shape[0]
            values: F32 = whole[start:stop] if whole is not None else fine_side.rows(fine, start, stop)
            yield np.add(values, offset) if offset else values, stored

    how = _decoded(both(SLICE_VALUES // 4), fine) if coarse.coded else _cast(both(SLICE_VALUES // 4), fine, coarse)
    scales, in_codes = None, None
    if how is None and coarse.coded:
        in_codes = coded(both(SLICE_VALUES // 4), coarse, FORMATS[fine.dtype])
        how = f"one scale per {in_codes.run} inputs" if in_codes.same else None
    elif how is None and fine.dtype != coarse.dtype and (outcome := _scaled(both(SLICE_VALUES // 64), coarse)):
        how, scales = outcome
    if how is None:
        return _Outcome(coded=in_codes)
    distinct: npt.NDArray[np.float32] = np.empty(0, np.float32)
    for _, stored in coarse_side.slices(coarse, SLICE_VALUES // 4):
        distinct = np.union1d(distinct, stored)
        if distinct.size >= _MIN_LEVELS:
            break
    if distinct.size < _MIN_LEVELS or fine_side.is_trivial(fine):
        return _Outcome("", coded=in_codes)
    turned = ", transposed" if pair.transposed else ""
    turned += f", {abs(offset):g} apart, as their architectures store gains" if offset else ""
    return _Outcome(f"{fine.dtype} to {coarse.dtype}, {how}{turned}", scales if forward else None, in_codes)


def rounded(x: F32, dtype: str) -> tuple[F32, F32] | None:
    """``x`` rounded to BF16, F16 or F32 as float32: to nearest even, and towards zero. None for other formats."""
    if dtype == "BF16":
        bits = x.view(np.uint32)
        nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return nearest.view(np.float32), (bits & np.uint32(0xFFFF0000)).view(np.float32)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            half = x.astype(np.float16)
        cut = np.where(np.abs(half.astype(np.float32)) > np.abs(x), np.nextafter(half, np.float16(0)), half)
        return half.astype(np.float32), cut.astype(np.float32)
    return (x, x) if dtype in ("F32", "F64") else None  # a float64 tensor was rounded to float32 when it was read


def _cast(pieces: Iterator[tuple[F32, F32]], fine: Tensor, coarse: Tensor) -> str | None:
    """How the coarse side is a plain cast of the fine one: the first of :data:`_CASTS` that holds for every element,
    None where none does."""
    left = [True] * len(_CASTS)
    for values, stored in pieces:
        values = np.ascontiguousarray(values)
        ways = rounded(values, coarse.dtype)
        left[0] = left[0] and _equal(values, stored)
        left[1] = left[1] and ways is not None and _equal(ways[0], stored)
        left[2] = left[2] and ways is not None and _equal(ways[1], stored)
        left[3] = left[3] and _of_one(values, stored, fine.dtype, coarse.dtype)
        if not any(left):
            return None
    return _CASTS[left.index(True)]


def _of_one(x: F32, y: F32, dtype_x: str, dtype_y: str) -> bool:
    """Bfloat16 and float16 values that may come from one original: no further apart than both roundings together."""
    if {dtype_x, dtype_y} != {"BF16", "F16"}:
        return False
    wide, other = x.astype(np.float64), y.astype(np.float64)
    known = np.isfinite(wide) & np.isfinite(other)
    if not _equal(x[~known], y[~known]):
        return False
    wide, other = wide[known], other[known]
    return bool(np.all(np.abs(wide - other) <= (0.5 + _SLACK) * (ulp(wide, dtype_x) + ulp(other, dtype_y))))


def _decoded(pieces: Iterator[tuple[F32, F32]], fine: Tensor) -> str | None:
    """Whether the plain side is the other one's decoded values in its own type: then the codes hold all of it."""
    for values, stored in pieces:
        ways = rounded(np.ascontiguousarray(stored), fine.dtype)
        if ways is None or not any(_equal(way, values) for way in ways):
            return None
    return _CASTS[0]


def _equal(x: F32, y: F32) -> bool:
    return bool(np.array_equal(x, y, equal_nan=True))


def _scaled(pieces: Iterator[tuple[F32, F32]], coarse: Tensor) -> tuple[str, tuple[F64, F64] | None] | None:
    """Which scaling explains every element, simplest first, or None."""
    rows, columns = coarse.matrix
    fit = Fit(
        rows=[] if columns >= _MIN_GROUP else None,
        columns=(np.zeros(columns), np.full(columns, np.inf)) if rows >= _MIN_GROUP else None,
        codes=(np.full(384, np.inf), np.full(384, -np.inf)) if coarse.dtype in ("I8", "U8") else None,
    )
    for values, stored in pieces:
        fit = fits(values, stored, coarse.dtype, fit)
        if not fit.alive:
            return None
    return fit.verdict(coarse.dtype)


def _scale_tensors(b: Side, scales: list[tuple[str, F64, F64]], paired: set[str]) -> list[Shared]:
    """Tensors of B whose every value lies in the interval that a quantised tensor leaves for its scale."""
    by_size: dict[int, list[Tensor]] = {}
    for tensor in b.tensors.values():
        if tensor.name not in paired and tensor.dtype in FORMATS:
            by_size.setdefault(tensor.numel, []).append(tensor)
    used: set[str] = set()
    found: list[Shared] = []
    for name, low, high in scales:
        for tensor in by_size.get(low.size, []):
            if tensor.name in used or (low.size == 1 and tensor.name.rsplit("_", 1)[0] not in name):
                continue
            values = b.reader(tensor.name, 0, tensor.numel).astype(np.float64)
            if np.all((values >= low * (1 - 1e-6)) & (values <= high * (1 + 1e-6))):
                used.add(tensor.name)
                found.append(Shared(tensor.name, name, "parameter", tensor.numel))
                break
    return found
