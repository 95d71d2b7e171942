"""8-bit codes under a grid of scales: FP8 and INT8 of DeepSeek-V3, transformers, vLLM, compressed-tensors, ModelOpt.

    w[r, c] = (code[r, c] - zero[i, j]) · scale[i, j],   (i, j) = (r // b, c // d), or j = g_idx[c]

The codes keep the weight's own shape, (out, in) or (experts, out, in) or whatever the module holds, so shapes say all:
one scale in all, per expert, per row, per group within a row, or per block (:mod:`._grid`). ``weight_scale_inv`` of
DeepSeek-V3 is *multiplied* like any other scale: it is the inverse of what the quantiser multiplied by. Scales in
F8_E8M0, or in U8 as MXFP8 stores them, are powers of two. Zero points have the scales' shape.

Codes of 8 bits may also be two FP4 values each: those are :mod:`.fp4`'s, which looks first.

Sources: transformers ``integrations/finegrained_fp8.py``, ``fbgemm_fp8.py``; compressed-tensors ``naive_quantized`` and
``mxfp8``; DeepSeek-V3 ``inference/kernel.py``; Quanto's ``qbytes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, array, raw, wrong_shape
from weightprint.quant.grid import SCALE_DTYPES, Grid, fit
from weightprint.quant.integers import column_groups
from weightprint.quant.names import SCALE_ENDS, Siblings, siblings
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

#: Dtype of the codes → what the scheme is called.
CODE_DTYPES: Mapping[str, str] = {
    "F8_E4M3": "fp8",
    "F8_E5M2": "fp8",
    "F8_E4M3FNUZ": "fp8",
    "F8_E5M2FNUZ": "fp8",
    "I8": "int8",
}

#: Ends that only scales of weights have; without codes beside them something is missing.
_UNMISTAKABLE = ("weight_scale", "weight_scale_inv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled(Quantised):
    """8-bit codes, a grid of scales, perhaps zero points, perhaps a column → group table.

    Attributes:
        scale, zero, g_idx: the tensors beside the codes, the latter two where there are any.
        grid: how the scales lie.
        factor: a constant that multiplies last.
    """

    scale: str
    grid: Grid
    zero: str | None = None
    g_idx: str | None = None
    factor: float = 1.0

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        part, (row, column), groups = self.grid.over(rect), self.grid.offset(rect), None
        if self.g_idx is not None:
            size, n_groups = self.grid.block_columns, self.grid.columns
            table, first, n = column_groups(checkpoint, self.g_idx, size, n_groups, rect)
            part, column, groups = replace(part, first_column=first, n_columns=n), 0, table.tobytes()
        scales = self.grid.load(checkpoint, self.scale, part)
        zeros = None if self.zero is None else self.grid.load(checkpoint, self.zero, part)
        decoded = _core.decode_scaled(
            raw(checkpoint, self.codes, rect),
            checkpoint.find(self.codes).dtype,
            rect.n_rows,
            rect.n_columns,
            scales.tobytes(),
            part.n_rows,
            part.n_columns,
            block=(self.grid.block_rows, self.grid.block_columns),
            offset=(row, column),
            groups=groups,
            zeros=None if zeros is None else zeros.tobytes(),
            factor=self.factor,
        )
        return array(decoded, rect)


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    scale = unclaimed.get(name)
    if scale is None:
        return None
    names = siblings(name, end)
    codes = unclaimed.get(names.codes)
    if codes is None or codes.dtype not in (*CODE_DTYPES, "U8"):
        if names.codes in unclaimed.claimed:
            unclaimed.notice(
                "second_scale", "", name, f"{escape(names.codes)} has scales, and {escape(name)} beside them"
            )
        elif name.endswith(_UNMISTAKABLE):
            state = "is missing" if codes is None else f"is {codes.dtype}, which needs none"
            unclaimed.notice(
                "scale_without_codes", state, name, f"{escape(name)} scales {escape(names.codes)}, which {state}"
            )
        return None
    if codes.dtype == "U8" and not name.endswith(_UNMISTAKABLE):
        return None  # bytes beside something called a scale: too little to say that they are codes
    return scaled(unclaimed, names, codes, scale)


def scaled(unclaimed: UnclaimedTensors, names: Siblings, codes: TensorInfo, scale: TensorInfo) -> Quantised:
    """The weight that codes and their scale make, with whatever companions are on the unclaimed tensors."""
    zero, g_idx = (unclaimed.get(n) for n in names.of_weight("zero_point", "g_idx"))
    beside = tuple(info.name for info in (scale, zero, g_idx) if info is not None)
    components = (codes.name, *beside, *unclaimed.companions(names.prefix))
    kind = CODE_DTYPES.get(codes.dtype, "bytes")
    grid = fit(codes.shape, scale, unclaimed.hints)
    problem, about, code = None, scale, "unreadable_quantisation"
    if codes.dtype not in CODE_DTYPES:
        shapes = f"{list(codes.shape)} under scales of {list(scale.shape)}"
        problem = f"{escape(codes.name)} is U8 {shapes}: no known layout"
    elif scale.name.endswith(".weight_scales"):
        problem, code = f"{escape(codes.name)} is arranged for EETQ's kernel, which is not decoded", "not_decoded"
    elif scale.dtype not in SCALE_DTYPES:
        problem = f"{escape(scale.name)} is {scale.dtype}; a scale is one of {', '.join(SCALE_DTYPES)}"
    elif grid is None:
        shapes = "one value, one per row, or a grid of blocks over"
        problem = wrong_shape(scale, f"{shapes} {list(codes.shape)}, the shape of {escape(codes.name)}")
    elif kind == "int8" and scale.dtype in ("U8", "F8_E8M0"):
        problem = f"{escape(codes.name)} is I8 under power-of-two scales in no known layout"
    elif kind == "int8" and zero is None and unclaimed.hints.symmetric is False:
        problem = f"{escape(names.weight)}_zero_point is missing, though the config says that codes are asymmetric"
        about = codes
    elif zero is not None and zero.shape != scale.shape:
        problem, about = wrong_shape(zero, f"{list(scale.shape)}, as {escape(scale.name)} has"), zero
    elif g_idx is not None and g_idx.shape != codes.shape[-1:]:
        problem, about = wrong_shape(g_idx, f"[{codes.shape[-1]}], one group per column"), g_idx
    if problem is not None or grid is None:
        return unclaimed.unreadable(codes, kind, components, about, problem or "", names.weight, code)
    mx = scale.dtype in ("U8", "F8_E8M0") and (grid.block_rows, grid.block_columns) == (1, 32)
    return Scaled(
        name=names.weight,
        shape=codes.shape,
        dtype=codes.dtype,
        scheme="mxfp8" if mx else f"{kind}_{grid.granularity}",
        components=components,
        parameters=grid_parameters(8, grid, scale, zero is None) | ({"act_order": True} if g_idx is not None else {}),
        scale=scale.name,
        grid=grid,
        zero=None if zero is None else zero.name,
        g_idx=None if g_idx is None else g_idx.name,
    )


def grid_parameters(bits: int, grid: Grid, scale: TensorInfo, symmetric: bool) -> dict[str, Any]:
    """What a person wants to know of a grid of scales."""
    found: dict[str, Any] = {"bits": bits, "granularity": grid.granularity, "symmetric": symmetric}
    if grid.granularity == "group":
        found["group_size"] = grid.block_columns
    if grid.granularity == "block":
        found["block"] = [grid.block_rows, grid.block_columns]
    return found | {"scale_dtype": scale.dtype}


SCALED = Scheme("8-bit codes under a grid of scales", SCALE_ENDS, _group)
