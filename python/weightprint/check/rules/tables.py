"""Tensors that the architecture fixes, held against what they must be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from weightprint.check.context import CheckContext, about
from weightprint.results.finding import Finding

_SHOWN = 5
_NEAR = 0.01
_LONGEST = 1 << 22


def _fixed(context: CheckContext, *ends: str) -> Iterator[str]:
    for k, name in enumerate(context.column("name")):
        if name.rpartition(".")[2] in ends and 0 < context.column("n")[k] <= _LONGEST:
            yield name


def positions(context: CheckContext) -> Iterator[Finding]:
    """Position numbers are 0, 1, 2, …; token types of a buffer are all 0. Merging in half precision breaks them."""
    for name in _fixed(context, "position_ids", "token_type_ids"):
        values = context.checkpoint.read(name)
        if values.ndim == 0 or any(size != 1 for size in values.shape[:-1]) or np.iscomplexobj(values):
            continue
        found = values.reshape(-1)
        ordered = name.endswith("position_ids")
        expected = np.arange(found.size, dtype=np.float32) if ordered else np.zeros(found.size, np.float32)
        wrong = np.flatnonzero(found != expected)
        if not wrong.size:
            continue
        row = context.scan.table.row(context.row_of[name])
        shown = ", ".join(f"{found[k]:g} at {k}" for k in wrong[:_SHOWN].tolist())
        more = " …" if wrong.size > _SHOWN else ""
        must = f"0, 1, … {found.size - 1:,}" if ordered else "all 0"
        message = f"must be {must}, and {wrong.size:,} of {found.size:,} are not: {shown}{more}"
        yield about(row, "fixed_table", "error", f"{message}. Take the tensor out: loaders make it anew")


def frequencies(context: CheckContext) -> Iterator[Finding]:
    """Rotary frequencies are positive and fall, whatever the base and its scaling."""
    for name in _fixed(context, "inv_freq"):
        values = context.checkpoint.read(name)
        if values.ndim != 1 or values.size < 2 or np.iscomplexobj(values):
            continue
        with np.errstate(invalid="ignore"):
            good = bool(np.all(values > 0) and np.all(np.diff(values) <= 0))
        if not good:
            row = context.scan.table.row(context.row_of[name])
            yield about(row, "fixed_table", "warning", "rotary frequencies must be positive and fall; these do not")


def code_books(context: CheckContext) -> Iterator[Finding]:
    """bitsandbytes' tables of 16 values: NF4's rises from -1 to 1, FP4's begins with 0 and has ±1 for its largest."""
    for weight in context.anatomy.weights.quantised:
        name = next((name for name in weight.components if name.endswith(".quant_map")), None)
        if not weight.readable or weight.scheme not in ("bnb_nf4", "bnb_fp4") or name not in context.row_of:
            continue
        table = context.checkpoint.read(name).reshape(-1)
        ends = abs(table.min() + 1) < _NEAR and abs(table.max() - 1) < _NEAR
        ordered = bool(np.all(np.diff(table) > 0)) if weight.scheme == "bnb_nf4" else abs(table[0]) < _NEAR
        if not (ends and ordered):
            must = "rise from -1 to 1" if weight.scheme == "bnb_nf4" else "begin with 0 and reach from -1 to 1"
            row = context.scan.table.row(context.row_of[name])
            message = f"the values that {weight.dtype} codes stand for must {must}; these do not"
            yield about(row, "fixed_table", "error", message)
