"""HQQ: codes of 1 to 8 bits, the rows of groups in slices that share words, under scales and zero points.

    w = ((code - zero) · scale) reshaped to the weight's own shape, (out, in)

Codes are a matrix of groups: along axis 1 (n, g), a group in each row with ``scale`` and ``zero`` of (n, 1); along axis
0 (g, n), a group in each column with (1, n). ``W_q`` holds it cut by rows into as many slices as codes fit into a word,
the first slice in the highest bits: U8 for 8, 4, 2 and 1 bits; I32 with ten codes of 3 bits, the last slice filled up.

    X.W_q, X.scale, X.zero;  X.shape (2,), X.nbits, X.group_size, X.axis, X.packing, … as small tensors

The stored ``shape`` says the weight's, the shapes of W_q and scale the rest; where they leave two widths open, nbits
does. Scales that are quantised themselves (older files: ``scale_q``) are recognised and not decoded.

Source: hqq ``core/bitpack.py`` and ``core/quantize.py`` (Quantizer.dequantize, HQQLinear.state_dict).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, integers, raw, values, wrong_shape
from weightprint.quant.schemes.named import beside
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

#: Dtype of the words → bits → codes in each.
_PER_WORD = {"U8": {8: 1, 4: 2, 2: 4, 1: 8}, "I32": {3: 10}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hqq(Quantised):
    """Attributes: the tensors' names, bits of a code, codes in a word, a group's elements, the axis it runs along."""

    scale: str
    zero: str
    bits: int
    per: int
    group: int
    axis: int

    @property
    def levels(self) -> None:
        """Groups run over the weight as one line, and zero points are no integers."""
        return None

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        # Whole rows are decoded: a row is a run of elements of the matrix of groups.
        columns = self.shape[1]
        first, stop = rect.first_row * columns, rect.stop_row * columns
        width = self.group if self.axis == 1 else prod(self.shape) // self.group
        top, bottom = first // width, -(-stop // width)
        codes = self._codes(checkpoint, top, bottom, width)
        where = Rect(top, bottom - top, 0, 1) if self.axis == 1 else Rect(0, 1, 0, width)
        scale, zero = (values(checkpoint, name, where) for name in (self.scale, self.zero))
        with np.errstate(all="ignore"):
            every = ((codes - zero) * scale).reshape(-1)
        decoded = every[first - top * width : stop - top * width]
        kept = decoded.reshape(rect.n_rows, columns)[:, rect.first_column : rect.stop_column]
        return np.ascontiguousarray(kept, np.float32)

    def _codes(self, checkpoint: Checkpoint, top: int, bottom: int, width: int) -> F32:
        """Rows of the matrix of groups, out of the slices that hold them."""
        out = np.empty((bottom - top, width), np.float32)
        info = checkpoint.find(self.codes)
        step, kind = info.shape[0], np.dtype("u1" if info.dtype == "U8" else "<u4")
        row = top
        while row < bottom:
            part, first = divmod(row, step)
            n = min(bottom - row, step - first)
            stored = np.frombuffer(raw(checkpoint, self.codes, Rect(first, n, 0, width)), kind).reshape(n, width)
            shift, mask = np.uint32(self.bits * (self.per - 1 - part)), np.uint32((1 << self.bits) - 1)
            out[row - top :][:n] = stored.astype(np.uint32) >> shift & mask
            row += n
        return out


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    codes, prefix = unclaimed.get(name), name.removesuffix("W_q")
    scale, zero, shape = (unclaimed.get(prefix + word) for word in ("scale", "zero", "shape"))
    if codes is None:
        return None
    others = [other for other in beside(unclaimed, prefix[:-1]) if other != name and other in unclaimed]
    components = (name, *others)
    if scale is None and zero is None and not others:
        return None

    def broken(about: TensorInfo, problem: str, **more: Any) -> Quantised:
        return unclaimed.unreadable(codes, "hqq", components, about, problem, prefix + "weight", **more)

    if scale is None or zero is None:
        if prefix + "scale_q" in unclaimed or prefix + "zero_q" in unclaimed:
            problem = f"{escape(name)} holds codes of HQQ whose scales are quantised too, which are not decoded"
            return broken(codes, problem, code="not_decoded")
        return broken(codes, f"{escape(prefix)}{'zero' if scale else 'scale'} is missing beside {escape(name)}")
    if shape is None or shape.numel != 2 or shape.dtype not in ("I64", "I32"):
        problem = f"{escape(name)} holds codes of HQQ, and nothing says the weight's shape: not decoded"
        return broken(codes, problem, code="not_decoded")
    logical = tuple(int(n) for n in integers(shape, unclaimed.read_small(shape, ".shape")))
    n_groups, n = scale.numel, prod(logical)
    axis = next((k for k in (1, 0) if scale.shape == ((n_groups, 1), (1, n_groups))[1 - k]), None)
    if axis is None or zero.shape != scale.shape or n_groups <= 0 or n <= 0 or n % n_groups:
        return broken(
            scale, wrong_shape(scale, f"one per group of {list(logical)}, in a row or column, as the zero points")
        )
    group = n // n_groups
    rows, width = (n_groups, group) if axis == 1 else (group, n_groups)
    fits = [
        (bits, per) for bits, per in _PER_WORD.get(codes.dtype, {}).items() if codes.shape == (-(-rows // per), width)
    ]
    if len(fits) != 1:
        return broken(codes, wrong_shape(codes, f"{rows} rows of {width} codes, in words of U8, or I32 of ten"))
    bits, per = fits[0]
    return Hqq(
        name=prefix + "weight",
        shape=logical,
        dtype=f"U{bits}",
        scheme="hqq",
        components=components,
        parameters={"bits": bits, "group_size": group, "axis": axis, "symmetric": False, "scale_dtype": scale.dtype},
        scale=scale.name,
        zero=zero.name,
        bits=bits,
        per=per,
        group=group,
        axis=axis,
    )


HQQ = Scheme("HQQ", (".W_q",), _group)
