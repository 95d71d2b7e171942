"""The scales of quantised weights: could they be scales, are they like their siblings', do the codes fill their range?

Siblings are the scales of one role in the other blocks and experts. Trained models from 4 to 48 blocks were looked at:
the largest value and the root mean square of a role's matrices stay within a factor 5 of the median block's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from weightprint.check.context import CheckContext, listed, pattern_of
from weightprint.quant.names import ACTIVATION
from weightprint.quant.weights import Weight
from weightprint.results.finding import Finding

_ENDS = (
    "_scale", "_scales", ".scale", ".scales", "._scale", "_scale_inv", ".scale_weight", ".qscale_weight", ".SCB",
    ".absmax", ".nested_absmax", "_scale_2", "_global_scale", ".weight_scales",
)  # fmt: skip
#: Largest number of a scale's type; of U8 and F8_E8M0, which hold exponents, the largest that is a number.
_TOP = {"F16": 65504.0, "BF16": 2.0**128 * (1 - 2.0**-8), "F32": 2.0**128 * (1 - 2.0**-24), "F8_E4M3": 448.0}
_TOP |= {"U8": 254.0, "F8_E8M0": 2.0**127}
_SIBLINGS, _TIMES = 4, 50.0
#: FP8 holds plain weights, too; ternary layers may have their scale elsewhere.
_MAY_BE_ONE = ("fp8", "mxfp8", "bitnet", "torchao")
#: Block scales in F8_E4M3 stand under a scale of the whole that brings the largest of them to the top.
_AT_TOP = 0.25
#: Dtype of codes → its largest; by a scale that fits, one code of a row or block is there.
_LARGEST_CODE = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0, "F8_E4M3FNUZ": 240.0, "F8_E5M2FNUZ": 57344.0, "I8": 127.0}
_CLIPPED, _ROWS, _LEVELS, _SAMPLED = 0.05, 16, 4, 64


class _Scale(NamedTuple):
    """One tensor of scales: the weight it belongs to, its row of the scan's table, and its size."""

    name: str
    weight: Weight
    row: dict[str, Any]
    size: float


def _scales(context: CheckContext) -> Iterator[_Scale]:
    for weight in context.anatomy.weights.values():
        if weight.scheme is None or not weight.readable:
            continue
        for name in weight.components[1:]:
            if not name.endswith(_ENDS) or name.endswith(ACTIVATION) or name not in context.row_of:
                continue
            row = context.scan.table.row(context.row_of[name])
            exponents = row["dtype"] == "U8"
            if not row["n_finite"] or row["dtype"] not in _TOP or (exponents and "mx" not in weight.scheme):
                continue  # bitsandbytes' U8 are codes of scales
            size = float(np.exp2(np.clip(row["mean"] - 127, -127, 127))) if exponents else float(row["rms"])
            yield _Scale(name, weight, row, size)


def impossible(context: CheckContext) -> Iterator[Finding]:
    """Scales that are all zero or all negative, or that ran into the largest number of their type."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, weight, row, _ in _scales(context):
        top, exponents = _TOP[row["dtype"]], row["dtype"] == "U8"
        if not exponents and row["n_zero"] == row["n"]:
            found["are all zero, and so is what they scale"].append(name)
        elif not exponents and row["max"] < 0 and weight.scheme != "mlx":  # whose groups may run downwards
            found["are all negative: every weight has the wrong sign"].append(name)
        elif row["abs_max"] >= top and (row["dtype"] != "F8_E4M3" or _at_top(context, name, top) > _AT_TOP):
            found[f"are at the largest number of their type ({row['dtype']}): they were cut off there"].append(name)
    for what, names in found.items():
        message = f"{len(names):,} tensor{'s' * (len(names) > 1)} of scales {what}: {listed(names)}"
        yield Finding("scale_values", "error", message, tensor=names[0])


def _at_top(context: CheckContext, name: str, top: float) -> float:
    """The share of a tensor's values that are at the top; of a single one none, since it is its own largest."""
    values = context.checkpoint.read(name)
    return float(np.mean(values == top)) if values.size > 1 else 0.0


def apart(context: CheckContext) -> Iterator[Finding]:
    """Scales 50 times larger or smaller than their siblings', exactly 1 where those aren't, or of another shape."""
    patterns: dict[str, list[_Scale]] = defaultdict(list)
    for scale in _scales(context):
        if scale.size > 0 and np.isfinite(scale.size) and scale.row["abs_max"] != _TOP[scale.row["dtype"]]:
            patterns[pattern_of(scale.name)].append(scale)
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for scales in patterns.values():
        if len(scales) < _SIBLINGS:
            continue
        middle = float(np.median([scale.size for scale in scales]))
        ones = [scale for scale in scales if _is_one(scale)]
        common = Counter((scale.weight.shape, scale.row["shape"]) for scale in scales)
        shapes = {shape: Counter[Any]() for shape, _ in common}
        for (shape, mine), n in common.items():
            shapes[shape][mine] += n
        for scale in scales:
            times = scale.size / middle
            usual, n = shapes[scale.weight.shape].most_common(1)[0]
            if not 1 / _TIMES < times < _TIMES:
                found["times"].append((times, scale.name))
            elif _is_one(scale) and 2 * len(ones) < len(scales):
                found["ones"].append((1.0, scale.name))
            elif scale.row["shape"] != usual and 2 * n > len(scales):
                found["shape"].append((1.0, scale.name))
        if 2 * len(ones) > len(scales) and not str(scales[0].weight.scheme).startswith(_MAY_BE_ONE):
            found["codes"] += [(1.0, scale.name) for scale in ones]
    for kind, scales_found in found.items():
        names = [name for _, name in scales_found]
        factors = ", ".join(f"{times:.3g}" for times in sorted({times for times, _ in scales_found})[:3])
        what = {
            "times": f"{factors} times those of their role in the other blocks: inverted, lost or another tensor's",
            "ones": "exactly 1, which those of their role in the other blocks are not: never set",
            "shape": "of another shape than those of their role in the other blocks",
            "codes": "all exactly 1, so the weights are what the codes are: never set",
        }[kind]
        yield Finding("scale_apart", "warning", f"scales are {what}: {listed(names)}", tensor=names[0])


def _is_one(scale: _Scale) -> bool:
    """Whether every scale is exactly 1."""
    one = 127 if scale.row["dtype"] == "U8" else 1
    return bool(scale.row["min"] == one == scale.row["max"])


def saturated(context: CheckContext) -> Iterator[Finding]:
    """Codes of 8 bits of which many are the largest there is: the scale was too small for the values."""
    found: list[tuple[float, str]] = []
    seen: Counter[str] = Counter()
    for weight in context.anatomy.weights.values():
        top = _LARGEST_CODE.get(weight.dtype)
        pattern = pattern_of(weight.name)
        if weight.scheme is None or not weight.readable or top is None or len(weight.shape) != 2:
            continue
        seen[pattern] += 1
        if seen[pattern] <= _SAMPLED:
            codes = np.abs(context.checkpoint.read(weight.components[0], 0, _ROWS))
            clipped = float(np.mean(codes >= top))
            if clipped > _CLIPPED and np.unique(codes).size > _LEVELS:  # ternary weights are all there
                found.append((clipped, weight.name))
    if found:
        share = max(clipped for clipped, _ in found)
        names = [name for _, name in found]
        message = (
            f"up to {share:.0%} of the codes are the largest of their type: a scale was too small, and values were "
        )
        yield Finding("saturated_codes", "warning", f"{message}cut off: {listed(names)}", tensor=names[0])


def group_tables(context: CheckContext) -> Iterator[Finding]:
    """Tables that say each input's group: groups that don't exist, or with more inputs than a group has."""
    for weight in context.anatomy.weights.values():
        name = next((name for name in weight.components if name.endswith("g_idx")), None)
        size = weight.parameters.get("group_size")
        if name is None or not weight.readable or not isinstance(size, int) or size <= 0 or not weight.shape:
            continue
        table = context.checkpoint.read(name).reshape(-1)
        if not table.size or (table == -1).all():
            continue
        groups = -(-weight.shape[-1] // size)
        outside = int(np.sum((table < 0) | (table >= groups)))
        if outside:
            what = f"{outside:,} of {table.size:,} inputs name groups outside 0 … {groups - 1}"
        else:
            largest = int(np.bincount(table.astype(np.int64)).max())
            if largest <= size:
                continue
            what = f"a group has {largest:,} inputs, and one of {size:,} can have no more than that"
        yield Finding("group_index", "error", f"{listed([name])}: {what}", tensor=name)
