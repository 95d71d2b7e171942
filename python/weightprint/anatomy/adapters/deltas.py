"""The update of one module in numbers, rectangle by rectangle: one formula for each kind of adapter.

A convolution is seen as a matrix, (out x in·kernel). Formulas and papers stand in
:mod:`weightprint.anatomy.adapters.adapters`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.adapters.dialects import Update
from weightprint.errors import UnsupportedFormatError
from weightprint.quant.weights import Weights
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

Rows = npt.NDArray[np.intp]


def delta(update: Update, weights: Weights, rows: Rows, columns: slice) -> F32:
    """Rows and columns of what is added to a weight, (out x in), before the scale.

    Raises UnsupportedFormatError (code ``adapter_kind``): an update without a formula here.
    """
    formula = _FORMULAS.get(update.kind)
    if formula is None or not (update.shape or update.kind == "vera"):
        message = f"the update of {escape(update.module)} has a form that isn't merged"
        raise UnsupportedFormatError(message, tensor=update.first, code="adapter_kind")
    return formula(update, weights, rows, columns)


def expert_delta(update: Update, weights: Weights, number: int) -> F32:
    """What is added to one expert's matrix, (out x in), before the scale.

    mlx has a factor per expert. PEFT has one pair for all: A's rows expert by expert, B's columns rank by rank.
    """
    experts, (a, b) = update.shape[0], (update.parts["a"], update.parts["b"])
    if len(weights[a].shape) == 3:
        product: F32 = weights.read(b, index=number) @ weights.read(a, index=number)
        return product
    rank = weights[a].shape[0] // experts
    stacked: F32 = weights.read(b)[:, number::experts] @ weights.read(a, slice(number * rank, (number + 1) * rank))
    return stacked


def multiplier(update: Update, weights: Weights, rows: Rows, columns: slice) -> F32:
    """IA3's factors of rows (n x 1) or columns (1 x n) of a weight (out x in)."""
    name = update.parts.get("ia3_l") or update.parts["weight"]
    stored = weights[name].shape
    values = weights.read(name).reshape(-1)
    if "on_input" in update.parts:
        by_column = bool(weights.read(update.parts["on_input"]).reshape(-1)[0])
        values = values + np.float32(1)
    else:
        by_column = len(stored) == 2 and stored[0] == 1 and stored[1] > 1
    chosen: F32 = values[None, columns] if by_column else values[rows][:, None]
    return chosen


def factor(update: Update, part: str, weights: Weights, rows: Rows | None = None, columns: slice | None = None) -> F32:
    """A rectangle of a factor as its formula has it, whatever way it is stored; a convolution's as a matrix."""
    name = update.parts[part]
    if len(weights[name].shape) != 2:
        values = weights.read(name)
        values = values.reshape(len(values), -1)
        values = values if rows is None else values[rows]
        return values if columns is None else values[:, columns]
    run = None if rows is None else slice(int(rows.min()), int(rows.max()) + 1)
    turned = part in update.turned
    values = weights.read(name, columns, run).T if turned else weights.read(name, run, columns)
    return values if rows is None else values[rows - int(rows.min())]


def _tucker(weights: Weights, core: str, a: str, b: str) -> tuple[F32, F32]:
    """(out x r, r x in·kernel): (r x r x kernel) between factors (r x out) and (r x in)."""
    turned = np.einsum("ijkl,jn->inkl", weights.read(core), weights.read(b))
    return weights.read(a).T, turned.reshape(len(turned), -1)


def _lora(u: Update, weights: Weights, rows: Rows, columns: slice) -> F32:
    if "mid" in u.parts:
        core, down = weights.read(u.parts["mid"]), weights.read(u.parts["a"])
        turned = np.einsum("rskl,sn->rnkl", core, down.reshape(len(down), -1))
        through: F32 = factor(u, "b", weights, rows) @ turned.reshape(len(turned), -1)[:, columns]
        return through
    product: F32 = factor(u, "b", weights, rows) @ factor(u, "a", weights, None, columns)
    return product


def _loha(u: Update, weights: Weights, rows: Rows, columns: slice) -> F32:
    if "t1" in u.parts:
        pairs = [_tucker(weights, *(u.parts[word] for word in (f"t{k}", f"w{k}_a", f"w{k}_b"))) for k in (1, 2)]
        (a, b), (c, d) = pairs
        both: F32 = (a[rows] @ b[:, columns]) * (c[rows] @ d[:, columns])
        return both
    first, second = (factor(u, f"w{k}_a", weights, rows) @ factor(u, f"w{k}_b", weights, None, columns) for k in (1, 2))
    product: F32 = first * second
    return product


def _lokr(u: Update, weights: Weights, rows: Rows, columns: slice) -> F32:
    """(w1 ⊗ w2)[i, j] = w1[i // p, j // q] · w2[i mod p, j mod q]; of a convolution w2 has its kernel behind j."""
    made = []
    for word in ("kw1", "kw2"):
        if word in u.parts:
            made.append(weights.read(u.parts[word]))
        elif word == "kw2" and "kt2" in u.parts:
            a, b = _tucker(weights, *(u.parts[name] for name in ("kt2", "kw2_a", "kw2_b")))
            made.append((a @ b).reshape(u.shape[0] // made[0].shape[0], u.shape[1] // made[0].shape[1], *u.shape[2:]))
        else:
            b = weights.read(u.parts[word + "_b"])
            made.append(np.tensordot(weights.read(u.parts[word + "_a"]), b, axes=1))
    w1, w2 = made
    kernel = int(np.prod(w2.shape[2:]))
    width = w1.shape[1] * w2.shape[1] * kernel
    j, k = np.divmod(np.arange(*columns.indices(width)), kernel)
    p, q = w2.shape[:2]
    small: F32 = w1[(rows // p)[:, None], j // q] * w2.reshape(p, q, kernel)[(rows % p)[:, None], j % q, k]
    return small


def _diff(u: Update, weights: Weights, rows: Rows, columns: slice) -> F32:
    if len(u.shape) == 1:
        return weights.read(u.parts["diff"])[rows][:, None]
    return factor(u, "diff", weights, rows, columns)


def _vera(u: Update, weights: Weights, rows: Rows, columns: slice) -> F32:
    d, b = (weights.read(u.parts[word]).reshape(-1) for word in ("vera_lambda_d", "vera_lambda_b"))
    large = weights.read(u.parts["vera_B"])[rows]
    product: F32 = (b[rows][:, None] * large) @ (d[:, None] * weights.read(u.parts["vera_A"], None, columns))
    return product


_FORMULAS: dict[str, Callable[[Update, Weights, Rows, slice], F32]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "diff": _diff,
    "vera": _vera,
}
