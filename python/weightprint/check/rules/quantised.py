"""Quantised storage: does it decode, and does it say what the config says?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from weightprint.check.context import CheckContext, listed
from weightprint.quant.hints import Hints
from weightprint.quant.weights import Weight
from weightprint.results.finding import Finding
from weightprint.util.escape import escape

_WORDS = frozenset({"U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0"})
_TABLES = ("position_ids", "token_type_ids", "index", "mask", "indices", "g_idx", "ids", "perm", "num_batches_tracked")
_MANY = 256  # words of one tensor: fewer are a setting, not a matrix


def undecodable(context: CheckContext) -> Iterator[Finding]:
    """Weights whose components don't hold together, and components without a weight."""
    weights = context.anatomy.weights
    broken = [weight.name for weight in weights.quantised if not weight.readable]
    for finding in weights.findings:
        if finding.code == "not_decoded":  # all is there: it is we who can't
            yield replace(finding, severity="note")
            continue
        unreadable = finding.code == "unreadable_quantisation"
        others = [name for name in broken if name != finding.tensor] if unreadable else []
        more = f"; can't be decoded either: {listed(others)}" if others else ""
        message = finding.message.partition(" (and ")[0] + more if others else finding.message
        yield Finding(finding.code, "error" if unreadable else "warning", message, finding.path, finding.tensor)
        if unreadable:
            broken = []  # the first one names them all


def is_packed(weight: Weight) -> bool:
    """Whether this is a matrix of integers, or of codes that need scales, that no known scheme decodes."""
    plain = weight.dtype in _WORDS and weight.scheme is None and len(weight.shape) >= 2
    return plain and weight.numel >= _MANY and not weight.name.endswith(_TABLES)


def words(context: CheckContext) -> Iterator[Finding]:
    """Words that no known scheme decodes, by type."""
    found: dict[str, list[str]] = defaultdict(list)
    for weight in context.anatomy.weights.values():
        if is_packed(weight) and "fixed" not in context.parts(weight.name):
            found[weight.dtype].append(weight.name)
    for dtype, names in found.items():
        message = f"{len(names):,} matrices of {dtype} words that no known scheme decodes; nothing is known of their "
        yield Finding("undecoded_words", "warning", f"{message}values: {listed(names)}", tensor=names[0])


def gptq_zero_points(context: CheckContext) -> Iterator[Finding]:
    """Symmetric GPTQ has all zero points in the middle; stored one higher, they are of the other convention."""
    hints = Hints.of(context.checkpoint)
    if hints.symmetric is not True:
        return
    wrong: dict[tuple[int, int], list[str]] = defaultdict(list)
    for weight in context.anatomy.weights.quantised:
        bits = weight.parameters.get("bits")
        name = next((name for name in weight.components if name.endswith(".qzeros")), None)
        if weight.scheme != "gptq" or name not in context.row_of or not isinstance(bits, int) or 32 % bits:
            continue
        row = context.scan.table.row(context.row_of[name])
        if row["min"] is None or row["min"] != row["max"]:
            continue
        stored = int(np.uint32(int(row["min"]) & 0xFFFFFFFF)) & ((1 << bits) - 1)
        labelled = 0 if hints.checkpoint_format == "gptq_v2" else 1
        if stored + labelled != 1 << (bits - 1):
            wrong[bits, stored + labelled].append(name)
    for (bits, value), names in wrong.items():
        middle = 1 << (bits - 1)
        other = "gptq" if hints.checkpoint_format == "gptq_v2" else "gptq_v2"
        message = (
            f"{len(names):,} tensors of zero points are {value}, and config.json says symmetric, which is {middle}"
        )
        if abs(value - middle) == 1:
            message += f": every weight is off by one step; the zero points are written as {other} has them, "
            message += f"so checkpoint_format should say {other}"
        yield Finding("zero_points", "error", f"{message}: {escape(names[0])} …", tensor=names[0])
