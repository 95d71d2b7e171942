"""Do scales vary from block to block as their codes say they must?

A scale brings the largest value of its block to the end of the codes. Where that value is an outlier, the other codes
of the block are small: over blocks, log scale falls with log (typical code / largest code), by 1 for 1, since how large
a block is and how far its largest value stands out have little to do with each other (of normal draws nothing: Basu).
A scale raised to the power p has p times that slope: 2 where it was applied twice, -1 where it is inverted, 0 where it
is another block's. The slope is read off the decoded values: their largest is the scale times a constant.

Of sound copies in nine forms at 4 bits, whole and pruned, of 190 matrices of eight real models, p was 0.4 to 1.8 (but
in tables of sinusoids), its median over a model 0.7 to 1.3. Rows and columns of blocks are centred first, so that
the model's own structure (large rows, large channels) says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weightprint.check.context import CheckContext, listed, pattern_of
from weightprint.errors import WeightprintError
from weightprint.quant.weights import Weight
from weightprint.results.finding import Finding

Floats = npt.NDArray[np.float64]

_BLOCKS, _LEAST_BLOCKS, _VALUES = 2048, 48, 1 << 19  # blocks of one weight that are looked at; values
_LEAST_BITS = 3  # of fewer the largest code is everywhere
_EVEN = 2.1  # kurtosis in a block; of codes drawn evenly 1.8: no block's largest stands out
_ZEROS = 0.25  # share of pruned values above which a range says little
_TABLES = frozenset({"embedding", "fixed"})  # sinusoids among them: their sizes and shapes go together
_SIGMAS = 3.0
_INVERTED, _NONE, _TWICE, _TIMES = -0.3, 0.4, 1.6, 1.5
_ALL_TWICE, _ALL = 1.4, 8  # of so many weights the median stays closer to 1
_LEVEL = 3.0  # a single weight is off its siblings in size, too
_MANY = 4
_STEP = 0.4  # of the codes
_WITH_ZEROS = ("gptq", "awq", "pack_quantized", "hqq")
_FLAT = ("bnb_nf4", "bnb_fp4", "hqq")  # blocks run on over the ends of rows
_WHOLE = 1 << 24  # values of a weight whose blocks run down its columns
_ONE_SIDED = ("Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K")  # GGUF's types that have a least value beside the scale

_WORDS = {
    "inverted": "larger where their codes say smaller: they are inverted",
    "twice": "{:.1f} times as far apart, as logarithms, as their codes say: squared, or applied twice",
    "none": "not what their codes say: another tensor's, in another order, or all the same where they were not",
}


class _Power(NamedTuple):
    """One weight: the exponent p of its scales, its standard error, log of the values' root mean square, and how many
    steps of the codes its blocks' means are from 0."""

    name: str
    p: float
    error: float
    level: float
    shift: float


def fit(context: CheckContext) -> Iterator[Finding]:
    """Scales that don't belong to their codes as they stand."""
    weights = [w for w in context.anatomy.weights.quantised if not context.parts(w.name) & _TABLES]
    powers = [power for weight in weights for power in _powers(context, weight)]
    by_pattern: dict[str, list[_Power]] = defaultdict(list)
    for power in powers:
        by_pattern[pattern_of(power.name)].append(power)
    found: dict[str, list[_Power]] = defaultdict(list)
    for power in _alien(powers, by_pattern):
        found["inverted" if power.p + power.error < _INVERTED else "none"].append(power)
    yield from _off_by_one(context, powers)
    named = {power.name for members in found.values() for power in members}
    found["twice"] = _twice([power for power in powers if power.name not in named])
    for kind, members in found.items():
        if members:
            names = list(dict.fromkeys(power.name for power in members))
            what = _WORDS[kind].format(float(np.median([power.p for power in members])))
            message = f"scales of {len(names):,} weight{'s' * (len(names) > 1)} are {what}: {listed(names)}"
            yield Finding("scale_fit", "warning", message, tensor=names[0])


def _off_by_one(context: CheckContext, powers: list[_Power]) -> Iterator[Finding]:
    """Zero points that are one too high or low everywhere, by the weights' means, which of trained ones are near 0."""
    by_scheme: dict[str, list[_Power]] = defaultdict(list)
    for power in powers:
        by_scheme[str(context.anatomy.weights[power.name].scheme)].append(power)
    for scheme, members in by_scheme.items():
        shifts = np.array([power.shift for power in members])
        middle = float(np.median(shifts))
        agree = np.mean(np.abs(shifts - middle) < _STEP)
        if scheme in _WITH_ZEROS and len(members) >= _MANY and abs(abs(middle) - 1) < _STEP and agree > 0.9:
            names = [power.name for power in members]
            which = "low" if middle > 0 else "high"
            message = f"zero points of {len(names):,} {scheme} weights are one too {which}: every weight is off by one "
            message += f"step, and their means are, where those of trained ones are near 0: {listed(names)}"
            yield Finding("zero_points", "error", message, tensor=names[0])


def _middle(of: Iterable[_Power]) -> float:
    powers = [power.p for power in of]
    return float(np.median(powers)) if powers else 1.0


def _alien(powers: list[_Power], by_pattern: Mapping[str, list[_Power]]) -> list[_Power]:
    """Those whose exponent is about 0 or below: of a model, of a role, or single ones."""
    found = [power for power in powers if power.p + _SIGMAS * power.error < _NONE]
    for members in (powers, *by_pattern.values()):
        if len(members) >= _MANY:
            weight = np.array([1 / max(power.error, 0.01) ** 2 for power in members])
            p = float(weight @ [power.p for power in members] / weight.sum())
            if max(p, _middle(members)) + _SIGMAS / np.sqrt(weight.sum()) < _NONE:
                found += [power for power in members if power.p < _NONE and power not in found]
    return found


def _twice(powers: list[_Power]) -> list[_Power]:
    """Those whose exponent is about 2: of a model, of a role, or single ones."""
    if len(powers) >= _MANY and _middle(powers) > (_ALL_TWICE if len(powers) >= _ALL else _TWICE):
        return [power for power in powers if power.p > 1.2]
    by_pattern: dict[str, list[_Power]] = defaultdict(list)
    for power in powers:
        by_pattern[pattern_of(power.name)].append(power)
    found: list[_Power] = []
    for pattern, members in by_pattern.items():
        if len(members) < _MANY:
            continue
        p, others = _middle(members), _middle(o for other, of in by_pattern.items() if other != pattern for o in of)
        if p > max(_TWICE, _TIMES * others):
            found += members
            continue
        level = float(np.median([power.level for power in members]))
        for power in members:
            clear = power.p - _SIGMAS * power.error > 1 and power.p > max(_TWICE, _TIMES * p)
            if clear and abs(power.level - level) > np.log(_LEVEL):
                found.append(power)
    return found


def _powers(context: CheckContext, weight: Weight) -> Iterator[_Power]:
    """One for a matrix, one for each of the first experts; none where it can't be told."""
    form = _form(context, weight)
    if form is None:
        return
    run, tall, layout = form
    height, width = weight.shape[-2:]
    by_name = isinstance(layout, str)
    across = width / run if by_name and layout == "flat" else width // run
    rows = int(min(height, _BLOCKS * tall / max(across, 1) + 1, max(_VALUES // width, tall * 2)))
    rows = height if by_name and layout == "columns" else rows - rows % tall
    if across * (rows // tall) < _LEAST_BLOCKS or rows * width > _WHOLE:
        return
    for index in range(min(2, weight.shape[0])) if len(weight.shape) == 3 else (None,):
        try:
            values = context.anatomy.weights.read(weight.name, slice(0, rows), None, index).astype(np.float64)
        except WeightprintError:
            return
        if isinstance(layout, np.ndarray):
            values = values[:, layout]
            columns = flat = False
        else:
            columns, flat = layout == "columns", layout == "flat" and width % run > 0
        if columns:
            blocks = values.reshape(1, run, -1).swapaxes(1, 2)
        elif flat:
            blocks = values.reshape(-1)[: values.size // run * run].reshape(1, -1, run)
        else:
            cut = values[:, : width // run * run].reshape(rows // tall, tall, -1, run)
            blocks = cut.transpose(0, 2, 1, 3).reshape(rows // tall, -1, tall * run)
        found = _power(blocks, _symmetric(context, weight))
        if found is not None:
            with np.errstate(all="ignore"):
                level = float(np.log(np.sqrt(np.mean(np.square(blocks[np.isfinite(blocks)])))))
            yield _Power(weight.name, *found, level, _shift(blocks))


def _form(context: CheckContext, weight: Weight) -> tuple[int, int, str | npt.NDArray[np.intp]] | None:
    """(columns, rows under one scale, how blocks lie: by row, over the flattened weight, or the columns' order)."""
    has = weight.parameters
    bits, block, size = has.get("bits"), has.get("block"), has.get("group_size")
    if not weight.readable or not isinstance(bits, int | float) or bits < _LEAST_BITS:
        return None
    if len(weight.shape) not in (2, 3) or 0 in weight.shape:
        return None
    run, tall, order = 0, 1, "rows"  # type: int, int, str | npt.NDArray[np.intp]
    if weight.scheme in _FLAT and isinstance(size, int):
        run, order = size, "flat" if has.get("axis", 1) == 1 else "columns"
    elif has.get("act_order") and isinstance(size, int):
        table = next((name for name in weight.components if name.endswith("g_idx")), None)
        if table is None or len(weight.shape) != 2:
            return None
        groups = context.checkpoint.read(table).reshape(-1)
        if np.any(np.bincount(np.maximum(groups, 0).astype(np.int64)) != size):
            return None
        run, order = size, np.argsort(groups, kind="stable")
    elif weight.levels is not None:
        run, tall = weight.levels.run, block[0] if isinstance(block, list) else 1
    return (run, tall, order) if run >= 8 and weight.shape[-1] * weight.shape[-2] >= run * tall else None


def _symmetric(context: CheckContext, weight: Weight) -> bool:
    """Whether a block's largest absolute value is at the end of the codes, and not its range."""
    if weight.scheme == "gguf":
        return weight.dtype not in _ONE_SIDED
    zeros = next((name for name in weight.components if name.endswith(".qzeros")), None)
    if zeros in context.row_of:
        row = context.scan.table.row(context.row_of[zeros])
        return bool(row["min"] == row["max"])
    return weight.parameters.get("symmetric") is True


def _power(blocks: Floats, symmetric: bool) -> tuple[float, float] | None:
    """(p, its standard error) from decoded blocks (rows, columns, values of one scale)."""
    with np.errstate(all="ignore"):
        top = np.abs(blocks).max(-1) if symmetric else np.ptp(blocks, axis=-1)
        codes = blocks / top[..., None]
        zero = codes == 0
        # What was pruned says nothing of how large the others are.
        kept = np.abs(codes).sum(-1) / np.maximum((~zero).sum(-1), 1)
        typical = kept if symmetric else np.abs(codes - codes.mean(-1, keepdims=True)).mean(-1)
        log_top, log_typical = np.log(top), np.log(typical)
        good = np.isfinite(log_top) & np.isfinite(log_typical)
        if good.sum() < _LEAST_BLOCKS or (not symmetric and zero[good].mean() > _ZEROS):
            return None
        centred = codes[good] - codes[good].mean(-1, keepdims=True)
        if np.mean(np.mean(centred**4, axis=-1) / np.mean(centred**2, axis=-1) ** 2) < _EVEN:
            return None
    x, y = (_centred(np.where(good, values, 0.0), good) for values in (log_typical, log_top))
    spread = float(x @ x)
    if spread < 1e-6 * x.size:
        return None
    if float(y @ y) < 1e-6 * y.size:
        return 0.0, 0.0  # every block has the same largest value, to which every one was stretched
    slope = float(x @ y) / spread
    rest = y - slope * x
    lost = sum(n for n, of in zip(good.shape, good.shape[::-1], strict=True) if of > 1)
    if x.size - lost < _LEAST_BLOCKS // 2:
        return None
    error = np.sqrt(float(np.square(rest * x).sum())) / spread * np.sqrt(x.size / (x.size - lost))
    return -slope, float(error)


def _shift(blocks: Floats) -> float:
    """The median block's mean, in steps: the least difference of two of its values."""
    with np.errstate(all="ignore"):
        gaps = np.diff(np.sort(blocks, axis=-1), axis=-1)
        gaps[~(gaps > 1e-3 * np.ptp(blocks, axis=-1)[..., None])] = np.inf
        shifts = (blocks.mean(-1) / gaps.min(-1)).ravel()
    shifts = shifts[np.isfinite(shifts)]
    return float(np.median(shifts)) if shifts.size else 0.0


def _centred(values: Floats, good: npt.NDArray[np.bool_]) -> Floats:
    """The good ones, less the means of their rows and columns."""
    values = values - values[good].mean()
    for _ in range(2):
        for axis in (0, 1):
            if values.shape[axis] > 1:
                n = np.maximum(good.sum(axis, keepdims=True), 1)
                values = values - (values * good).sum(axis, keepdims=True) / n
    return np.asarray(values[good] - values[good].mean(), np.float64)


def block_scales(context: CheckContext) -> Iterator[Finding]:
    """Scales that are quantised themselves: a largest absolute value below zero is none."""
    found: list[str] = []
    for weight in context.anatomy.weights.quantised:
        if not weight.readable or not weight.parameters.get("double_quantised"):
            continue
        try:
            scales = context.anatomy.weights.block_scales(weight.name)
        except WeightprintError:
            continue
        finite = scales[np.isfinite(scales)].astype(np.float64)
        size = np.sqrt(np.mean(finite**2)) if finite.size else 0.0
        if np.sum(finite < -0.1 * size) > 0.01 * finite.size:  # rounding may take a 0 a little below it
            found.append(weight.name)
    if found:
        message = (
            f"scales of {len(found):,} weight{'s' * (len(found) > 1)}, which are quantised themselves, decode to "
            f"numbers below zero: their nested scale or offset is another's, or inverted: {listed(found)}"
        )
        yield Finding("scale_values", "error", message, tensor=found[0])
