"""MXFP4 as gpt-oss stores it: blocks of 32 codes beside their exponents, all experts of a layer in one tensor.

    w[e, r, 32·g + k] = e2m1[code k of block (e, r, g)] · 2^(scale[e, r, g] - 127),   low half of a byte first

    X_blocks  U8 (experts, out, groups, 16)       X_scales  U8 (experts, out, groups)

Orientation. What is stored is (experts, out, in), and OpenAI's own module holds it so (``mlp1_weight.blocks``):
returned as (experts, out, in). transformers' module holds ``gate_up_proj`` and ``down_proj`` as (experts, in, out) and
transposes after decoding; under its names (``gate_up_proj_blocks``) the weight is therefore returned as
(experts, in, out), like an unquantised gpt-oss of transformers. ``down_proj`` is square there: no shape would tell.
`parameters["orientation"]` says which it is. In both, gate and up alternate along the outputs.

Sources: openai/gpt-oss ``torch/weights.py``; transformers ``integrations/mxfp4.py`` (``convert_moe_packed_tensors``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, array, raw, wrong_shape
from weightprint.quant.schemes.fp4 import E2M1
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

_BLOCK, _BYTES = 32, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Mxfp4Blocks(Quantised):
    """Blocks and exponents by name; `transposed`: the weight is the transpose of what is stored."""

    scale: str
    transposed: bool

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        if self.transposed:
            stored = Rect(rect.first_column, rect.n_columns, rect.first_row, rect.n_rows, rect.index)
            return np.ascontiguousarray(self._stored(checkpoint, stored).T)
        return self._stored(checkpoint, rect)

    def _stored(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        """The rectangle in stored orientation (out, in)."""
        outputs, groups = checkpoint.find(self.scale).shape[-2:]
        first, stop = rect.first_column // _BLOCK, -(-rect.stop_column // _BLOCK)
        # the codes as a matrix have one block per row: those of an output follow each other
        top = (rect.index * outputs + rect.first_row) * groups
        if rect.n_rows == 1:
            codes = self._blocks(checkpoint, top + first, stop - first)
        else:
            rows = np.frombuffer(self._blocks(checkpoint, top, rect.n_rows * groups), np.uint8)
            codes = rows.reshape(rect.n_rows, groups, _BYTES)[:, first:stop].tobytes()
        decoded = _core.decode_codebook(
            codes,
            rect.n_rows,
            rect.n_columns,
            E2M1.tobytes(),
            raw(checkpoint, self.scale, Rect(rect.first_row, rect.n_rows, first, stop - first, rect.index)),
            block=_BLOCK,
            stride=(stop - first) * _BLOCK,
            first=rect.first_column - first * _BLOCK,
            scale_dtype="F8_E8M0",
            low_first=True,
        )
        return array(decoded, rect)

    def _blocks(self, checkpoint: Checkpoint, first: int, n: int) -> bytes:
        info = checkpoint.find(self.codes)
        return checkpoint.core_file(info.file).read_bytes(info.index, first * _BYTES, (first + n) * _BYTES)


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    base = name.removesuffix(end)
    codes, scale = unclaimed.get(name), unclaimed.get(base + end.replace("blocks", "scales"))
    if codes is None or codes.dtype != "U8" or len(codes.shape) not in (3, 4) or codes.shape[-1] != _BYTES:
        return None  # other things are called blocks, too
    if scale is None:
        problem = f"{escape(base)}{end.replace('blocks', 'scales')} is missing beside {escape(name)}"
        return unclaimed.unreadable(codes, "mxfp4", (name,), codes, problem, base)
    components = (name, scale.name)
    if scale.shape != codes.shape[:-1] or scale.dtype not in ("U8", "F8_E8M0") or not codes.numel:
        problem = wrong_shape(scale, f"U8 {list(codes.shape[:-1])}, one exponent per block")
        return unclaimed.unreadable(codes, "mxfp4", components, scale, problem, base)
    transposed = end == "_blocks"
    shape = (*codes.shape[:-2], codes.shape[-2] * _BLOCK)
    shape = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
    return Mxfp4Blocks(
        name=base,
        shape=shape,
        dtype="F4",
        scheme="mxfp4",
        components=components,
        parameters={
            "bits": 4,
            "group_size": _BLOCK,
            "symmetric": True,
            "scale_dtype": scale.dtype,
            "orientation": "in, out" if transposed else "out, in",
        },
        scale=scale.name,
        transposed=transposed,
    )


MXFP4_BLOCKS = Scheme("MXFP4 blocks of gpt-oss", ("_blocks", ".blocks"), _group)
