"""FP4 (E2M1) codes, two to a byte, under one scale per 16 or 32 of a row: MXFP4, NVFP4.

    w[r, c] = e2m1[code[r, c]] · (scale[r, c // g] ∘ global),   low half of a byte first

MXFP4 (g = 32) has powers of two for scales, in F8_E8M0 or as U8. NVFP4 (g = 16) has F8_E4M3 scales and one float32
for the whole tensor: ModelOpt's ``weight_scale_2`` multiplies the scale, compressed-tensors' ``weight_global_scale``
divides it; both before the scale meets the code. FP4 is told from 8-bit codes by scales that cover twice the stored
width.

The codes are ``X.weight_packed`` (compressed-tensors) or ``X.weight`` itself, U8 or I8 (ModelOpt, Quark, DeepSeek-V4),
or of the dtype F4, whose shape counts codes and not bytes.
:mod:`.mxfp4_blocks` reads gpt-oss' own arrangement.

Sources: OCP Microscaling Formats v1.0; compressed-tensors ``nvfp4`` and ``mxfp4``; ModelOpt ``nvfp4_tensor``;
transformers ``finegrained_fp8.py`` (packed FP4 experts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, array, raw, values, wrong_shape
from weightprint.quant.grid import exponents
from weightprint.quant.names import SCALE_ENDS, Siblings, around, siblings
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

#: The sixteen values of E2M1 in code order: sign, two bits of exponent, one of mantissa.
E2M1: F32 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)

#: Dtype of the codes → how many lie in one element of the stored shape.
_CODES = {"U8": 2, "I8": 2, "F4": 1}

#: Dtype of the scales → how many codes are under each.
_GROUP_SIZES = {"F8_E4M3": 16, "U8": 32, "F8_E8M0": 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp4(Quantised):
    """FP4 codes packed along the rows, and a scale per group.

    Attributes:
        scale: the tensor of scales, (…, out, in / group); codes are (…, out, in / 2) bytes, or (…, out, in) of F4
        group: elements of a row under one scale.
        whole: the tensor with the scale of the whole, if any.
        meets: whether `whole` multiplies the scale or divides it.
        swizzled: scales lie in tiles of 128 × 4, as matrix units read them.
    """

    scale: str
    group: int
    whole: str | None = None
    meets: Literal["multiplies", "divides"] = "multiplies"
    swizzled: bool = False

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        group, typed = self.group, checkpoint.find(self.codes).dtype == "F4"
        first, stop = rect.first_column // group, -(-rect.stop_column // group)  # whole groups
        scales = self._scales(checkpoint, Rect(rect.first_row, rect.n_rows, first, stop - first, rect.index))
        if typed:
            left = rect.first_column - first * group
            each = np.repeat(scales, group, axis=1)[:, left : left + rect.n_columns]
            return np.ascontiguousarray(values(checkpoint, self.codes, rect) * each)
        wide = Rect(rect.first_row, rect.n_rows, first * group // 2, (stop - first) * group // 2, rect.index)
        decoded = _core.decode_codebook(
            raw(checkpoint, self.codes, wide),
            rect.n_rows,
            rect.n_columns,
            E2M1.tobytes(),
            scales.tobytes(),
            block=group,
            stride=(stop - first) * group,
            first=rect.first_column - first * group,
            low_first=True,
        )
        return array(decoded, rect)

    def _scales(self, checkpoint: Checkpoint, part: Rect) -> F32:
        stored = checkpoint.find(self.scale)
        if self.swizzled:
            top, bottom = part.first_row // 128 * 32, -(-part.stop_row // 128) * 32
            found = unswizzle(values(checkpoint, self.scale, Rect(top, bottom - top, 0, stored.shape[-1])))
            found = found[part.first_row % 128 :][: part.n_rows, part.first_column : part.stop_column]
        else:
            found = values(checkpoint, self.scale, part)
        if stored.dtype == "U8":
            found = exponents(found)
        if self.whole is not None:
            height, width = checkpoint.find(self.whole).matrix_shape
            everything = values(checkpoint, self.whole, Rect(0, height, 0, width)).reshape(-1)
            one = everything[part.index if everything.size > 1 else 0]
            with np.errstate(all="ignore"):  # a global scale of zero is the file's, not ours to complain of here
                found = found * one if self.meets == "multiplies" else found / one
        return np.ascontiguousarray(found, np.float32)


def unswizzle(tiles: F32) -> F32:
    """Scales (32·m, 16·n) in tiles as cuBLAS reads them, back to (128·m, 4·n) in rows.

    A tile holds 128 × 4 scales as 32 × (4 × 4): row r of the tile lies at [r % 32, r // 32]. Tiles follow each other
    in rows of tiles; the stored shape is only that sequence, folded.
    """
    down, across = tiles.shape[0] // 32, tiles.shape[1] // 16
    folded = tiles.reshape(down, across, 32, 4, 4)
    return np.ascontiguousarray(folded.transpose(0, 3, 2, 1, 4).reshape(down * 128, across * 4))


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    anchor = unclaimed.get(name)
    if end == ".weight_packed":
        if anchor is None or anchor.dtype not in ("U8", "F4"):
            return None
        names = around(name.removesuffix("_packed"), name)
        scale = unclaimed.get(names.weight + "_scale")
        return None if scale is None else _assemble(unclaimed, names, anchor, scale, _group_size(anchor, scale))
    if anchor is None or anchor.dtype not in _GROUP_SIZES:
        return None
    names, scale = siblings(name, end), anchor
    codes = unclaimed.get(names.codes)
    if codes is None or codes.dtype not in _CODES:
        return None
    group = _group_size(codes, scale)
    # F4 under a scale is nothing else; bytes may be 8-bit codes.
    return _assemble(unclaimed, names, codes, scale, group) if group or codes.dtype == "F4" else None


def _group_size(codes: TensorInfo, scale: TensorInfo) -> int:
    """16 or 32 where the scales cover the packed codes so, by the kind of scale; else 0."""
    size = _GROUP_SIZES.get(scale.dtype, 0)
    if not codes.numel or len(codes.shape) not in (2, 3) or len(scale.shape) != len(codes.shape):
        return 0
    return size if (*scale.shape[:-1], scale.shape[-1] * size // _CODES[codes.dtype]) == codes.shape else 0


def _assemble(
    unclaimed: UnclaimedTensors, names: Siblings, codes: TensorInfo, scale: TensorInfo, group: int
) -> Quantised:
    multiplier, divisor = unclaimed.get(names.weight + "_scale_2"), unclaimed.get(names.weight + "_global_scale")
    whole = multiplier or divisor
    beside = tuple(info.name for info in (scale, multiplier, divisor) if info is not None)
    components = (codes.name, *beside, *unclaimed.companions(names.prefix))
    scheme = "nvfp4" if scale.dtype == "F8_E4M3" else "mxfp4"
    experts = codes.shape[0] if len(codes.shape) == 3 else 1
    if not group:
        where = "of" if codes.dtype == "F4" else "two in each byte of"
        expected = f"one per 16 (F8_E4M3) or 32 (U8, F8_E8M0) codes, {where} {list(codes.shape)}"
        return unclaimed.unreadable(codes, scheme, components, scale, wrong_shape(scale, expected), names.weight)
    if whole is not None and whole.numel not in (1, experts):
        return unclaimed.unreadable(codes, scheme, components, whole, wrong_shape(whole, "one value"), names.weight)
    if scheme == "nvfp4" and whole is None:
        problem = f"{escape(codes.name)} has F8_E4M3 scales and no weight_scale_2 or weight_global_scale beside them"
        return unclaimed.unreadable(codes, scheme, components, codes, problem, names.weight)
    return Fp4(
        name=names.weight,
        shape=(*codes.shape[:-1], codes.shape[-1] * _CODES[codes.dtype]),
        dtype="F4",
        scheme=scheme,
        components=components,
        parameters={"bits": 4, "group_size": group, "symmetric": True, "scale_dtype": scale.dtype},
        scale=scale.name,
        group=group,
        whole=None if whole is None else whole.name,
        meets="multiplies" if multiplier is not None else "divides",
    )


FP4 = Scheme("FP4 codes, two to a byte", (".weight_packed", *SCALE_ENDS), _group)
