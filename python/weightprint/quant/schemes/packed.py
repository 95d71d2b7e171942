"""compressed-tensors' ``pack-quantized``: 4- and 8-bit integers in 32-bit words.

    w[r, c] = (code[r, c] - zero[r, j]) · scale[r, j],   j = c // group_size, or g_idx[c]

Codes are stored unsigned: the signed integer plus 2^(bits-1), which is also the zero point where none is stored.

    X.weight_packed      I32 (out, ⌈in · bits / 32⌉), low bits first
    X.weight_scale       (out, groups), (out, 1) or one value
    X.weight_zero_point  I32 (⌈out · bits / 32⌉, groups): packed along the *rows*; asymmetric only
    X.weight_g_idx       I32 (in,): the group of every column; all -1 means in order
    X.weight_shape       I64 (2,): out and in. Its values are read when the weight is found: the bits follow from it.

Experts in one tensor have a leading axis everywhere. Widths that do not divide 32 straddle words and are not decoded.

Source: compressed-tensors ``pack_quantized``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, array, integers, raw, wrong_shape
from weightprint.quant.grid import Grid, fit
from weightprint.quant.integers import column_groups, words_over
from weightprint.quant.names import around
from weightprint.util.arrays import F32
from weightprint.util.escape import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed(Quantised):
    """Integers in 32-bit words along the rows. Attributes name the tensors; `grid` says how the scales lie."""

    scale: str
    grid: Grid
    bits: int
    zero: str | None = None
    g_idx: str | None = None

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        per = 32 // self.bits
        groups, first, n = column_groups(checkpoint, self.g_idx, self.grid.block_columns, self.grid.columns, rect)
        rows = (rect.first_row, rect.n_rows) if self.grid.rows > 1 else (0, 1)
        scales = self.grid.load(checkpoint, self.scale, Rect(*rows, first, n, rect.index))
        scales = np.repeat(scales, rect.n_rows // rows[1], axis=0)
        left, width = words_over(rect.first_column, rect.stop_column, per)
        words = Rect(rect.first_row, rect.n_rows, left, width, rect.index)
        zeros = None if self.zero is None else self._zeros(checkpoint, rect, first, n)
        decoded = _core.decode_packed(
            raw(checkpoint, self.codes, words),
            "words",
            (rect.n_rows, width),
            self.bits,
            rect.n_rows,
            rect.n_columns,
            scales.tobytes(),
            n,
            groups.tobytes(),
            first=rect.first_column % per,
            zeros=None if zeros is None else zeros.tobytes(),
            zero=float(1 << (self.bits - 1)),
        )
        return array(decoded, rect)

    def _zeros(self, checkpoint: Checkpoint, rect: Rect, first: int, n: int) -> F32:
        """Zero points (rows, groups) of the rectangle; words of them run down the rows."""
        assert self.zero is not None
        per = 32 // self.bits
        top, height = words_over(rect.first_row, rect.stop_row, per)
        stored = raw(checkpoint, self.zero, Rect(top, height, first, n, rect.index))
        codes = np.frombuffer(_core.unpack(stored, height, n, self.bits, axis="rows"), np.uint8)
        skip = rect.first_row - top * per
        return codes.reshape(height * per, n)[skip : skip + rect.n_rows].astype(np.float32)


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    codes = unclaimed.get(name)
    if codes is None:
        return None
    names = around(name.removesuffix("_packed"), name)
    scale, zero, g_idx, shape = (unclaimed.get(n) for n in names.of_weight("scale", "zero_point", "g_idx", "shape"))
    beside = tuple(info.name for info in (scale, zero, g_idx, shape) if info is not None)
    components = (codes.name, *beside, *unclaimed.companions(names.prefix))

    def broken(about: TensorInfo, problem: str) -> Quantised:
        return unclaimed.unreadable(codes, "pack_quantized", components, about, problem, names.weight)

    if codes.dtype != "I32" or len(codes.shape) not in (2, 3):
        return broken(codes, f"{escape(name)} is {codes.dtype} of shape {list(codes.shape)}: no known packing")
    if scale is None:
        return broken(codes, f"{escape(names.weight)}_scale is missing beside {escape(name)}")
    logical, bits = _logical(unclaimed, codes, shape)
    if logical is None:
        about = shape or codes
        problem = f"{escape(about.name)} does not fit {escape(name)} of shape {list(codes.shape)} at any width of code"
        return broken(about, problem)
    if bits not in (2, 4, 8):
        return broken(codes, f"{escape(name)} holds codes of {bits} bits; 2, 4 and 8 are decoded")
    height, width = logical[-2:]
    grid = fit(logical, scale, unclaimed.hints)
    if grid is None or grid.rows not in (1, height) or (grid.rows > 1 and grid.block_rows > 1) or scale.dtype == "U8":
        return broken(scale, wrong_shape(scale, f"(rows, groups) over {list(logical)}"))
    if zero is not None:
        expected = (*logical[:-2], -(-height * bits // 32), grid.columns)
        if zero.dtype != "I32" or zero.shape != expected:
            return broken(zero, wrong_shape(zero, f"I32 {list(expected)}") + f" and dtype {zero.dtype}")
    elif unclaimed.hints.symmetric is False:
        problem = f"{escape(names.weight)}_zero_point is missing, though the config says that codes are asymmetric"
        return broken(codes, problem)
    if g_idx is not None and g_idx.shape != (width,):
        return broken(g_idx, wrong_shape(g_idx, f"[{width}], one group per column"))
    return Packed(
        name=names.weight,
        shape=logical,
        dtype=f"I{bits}",
        scheme="pack_quantized",
        components=components,
        parameters={
            "bits": bits,
            "granularity": grid.granularity,
            "group_size": grid.block_columns,
            "symmetric": zero is None,
            "act_order": g_idx is not None,
            "scale_dtype": scale.dtype,
        },
        scale=scale.name,
        grid=grid,
        bits=bits,
        zero=None if zero is None else zero.name,
        g_idx=None if g_idx is None else g_idx.name,
    )


def _logical(
    unclaimed: UnclaimedTensors, codes: TensorInfo, shape: TensorInfo | None
) -> tuple[tuple[int, ...] | None, int]:
    """The decoded shape and the bits per code; without ``weight_shape`` only a config can say."""
    words, hinted = codes.shape[-1], unclaimed.hints.bits
    if shape is None:
        bits = hinted[0] if len(hinted) == 1 and 32 % hinted[0] == 0 else 0
        return ((*codes.shape[:-1], words * 32 // bits), bits) if bits else (None, 0)
    if shape.numel not in (2, 3) or shape.dtype not in ("I64", "I32"):
        return None, 0
    stored = tuple(int(n) for n in integers(shape, unclaimed.read_small(shape, ".weight_shape")))
    logical = stored if len(codes.shape) == 3 and len(stored) == 3 else (*codes.shape[:-2], *stored[-2:])
    if logical[:-1] != codes.shape[:-1] or logical[-1] <= 0:
        return None, 0
    fits = [bits for bits in (4, 8, 2, 1, 3, 5, 6, 7) if -(-logical[-1] * bits // 32) == words]
    chosen = [bits for bits in fits if bits in hinted] or fits  # fewer than 32 columns may fit several widths
    return (logical, chosen[0]) if len(chosen) == 1 else (None, 0)


PACKED = Scheme("compressed-tensors pack-quantized integers", (".weight_packed",), _group)
