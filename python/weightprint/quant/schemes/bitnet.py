"""BitNet: ternary weights, four rows to a byte, under one scale.

    w[k · n + r, c] = ((byte[r, c] >> 2k & 3) - 1) ∘ scale,   n rows of bytes, k = 0 … 3

The bytes are ``X.weight`` (U8, (out / 4, in)), the scale ``X.weight_scale`` with one value. It multiplies in layers of
the config's ``linear_class`` "autobitlinear" and divides in those of "bitlinear", which is what no class means. Bytes
under one scale are taken for this only where the config says "bitnet".

Sources: transformers ``integrations/bitnet.py`` (pack_weights, unpack_weights, BitLinear, AutoBitLinear).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, raw, values
from weightprint.util.arrays import F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitnet(Quantised):
    """Ternary codes, a quarter of the rows in each pair of bits. Attributes name the tensors."""

    scale: str
    quarter: int
    divides: bool

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        scale = values(checkpoint, self.scale, Rect(0, 1, 0, 1)).reshape(())
        out = np.empty((rect.n_rows, rect.n_columns), np.float32)
        row = rect.first_row
        while row < rect.stop_row:  # at most four runs, one in each quarter
            part, first = divmod(row, self.quarter)
            n = min(rect.stop_row - row, self.quarter - first)
            stored = raw(checkpoint, self.codes, Rect(first, n, rect.first_column, rect.n_columns))
            codes = np.frombuffer(stored, np.uint8).reshape(n, rect.n_columns) >> np.uint8(2 * part) & np.uint8(3)
            ternary = codes.astype(np.float32) - 1
            with np.errstate(all="ignore"):  # a scale of zero is the file's
                out[row - rect.first_row :][:n] = ternary / scale if self.divides else ternary * scale
            row += n
        return out


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    scale, codes = unclaimed.get(name), unclaimed.get(name.removesuffix("_scale"))
    if scale is None or codes is None or codes.dtype != "U8" or len(codes.shape) != 2 or scale.numel != 1:
        return None
    if scale.dtype not in ("BF16", "F16", "F32") or unclaimed.hints.method != "bitnet":
        return None  # bytes under one value may be anything else
    quarter, width = codes.shape
    components = (codes.name, scale.name, *unclaimed.companions(codes.name.removesuffix("weight")))
    return Bitnet(
        name=codes.name,
        shape=(4 * quarter, width),
        dtype="U2",
        scheme="bitnet",
        components=components,
        parameters={"bits": 2, "granularity": "tensor", "symmetric": True, "scale_dtype": scale.dtype},
        scale=scale.name,
        quarter=quarter,
        divides=unclaimed.hints.linear_class != "autobitlinear",
    )


BITNET = Scheme("BitNet's ternary codes, four rows to a byte", (".weight_scale",), _group)
