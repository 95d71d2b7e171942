"""MLX: codes of 2 to 8 bits in one stream of bits per row, in 32-bit words, under a scale and a bias per group.

    w[r, c] = code[r, c] · scales[r, c // g] + biases[r, c // g]

The stream runs on over the words, lowest bits first, so codes of 3, 5 and 6 bits lie across two of them. Without biases
the codes are small floats: FP4 under a power of two per 32 (``mxfp4``), FP8 likewise (``mxfp8``), or FP4 under an
F8_E4M3 scale per 16 (``nvfp4``), the scales as U8.

Shapes say bits times group. Which of several pairs it is, the config's ``quantization`` says, of the layer itself or
of all; a product that has one pair needs none.

Sources: mlx ``ops.cpp`` (quantize, dequantize); mlx-lm's ``config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, raw, values, wrong_shape
from weightprint.quant.grid import exponents
from weightprint.quant.integers import stream_codes
from weightprint.quant.schemes.fp4 import E2M1
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

_BITS, _GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128, 16)
#: Small floats: bits times group → (scheme, bits, group).
_FLOATS = {128: ("mlx_mxfp4", 4, 32), 256: ("mlx_mxfp8", 8, 32), 64: ("mlx_nvfp4", 4, 16)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlx(Quantised):
    """Codes in words along the rows. Attributes name the tensors; ``bias`` is None for small floats."""

    scale: str
    bias: str | None
    bits: int
    group: int

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        first, stop = rect.first_column // self.group, -(-rect.stop_column // self.group)
        of_column = np.arange(rect.first_column, rect.stop_column) // self.group - first
        part = Rect(rect.first_row, rect.n_rows, first, stop - first, rect.index)
        codes = self._codes(checkpoint, rect)
        scales = values(checkpoint, self.scale, part)
        if self.bias is not None:
            biases = values(checkpoint, self.bias, part)
            with np.errstate(all="ignore"):  # infinite scales are the file's
                return np.ascontiguousarray(codes.astype(np.float32) * scales[:, of_column] + biases[:, of_column])
        table = E2M1 if self.bits == 4 else _E4M3
        scales = _E4M3[scales.astype(np.uint8)] if self.group == 16 else exponents(scales)
        return np.ascontiguousarray(table[codes] * scales[:, of_column])

    def _codes(self, checkpoint: Checkpoint, rect: Rect) -> npt.NDArray[np.uint64]:
        """Codes of the rectangle, unsigned."""
        first, stop = rect.first_column * self.bits // 32, -(-rect.stop_column * self.bits // 32)
        stored = raw(checkpoint, self.codes, Rect(rect.first_row, rect.n_rows, first, stop - first, rect.index))
        words = np.frombuffer(stored, "<u4").reshape(rect.n_rows, stop - first)
        return stream_codes(words, self.bits, rect.first_column, rect.n_columns)


def _e4m3() -> F32:
    """Values of F8_E4M3 by code."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    size = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * np.exp2(exponent - 10.0))
    size[(code & 127) == 127] = np.nan
    return np.where(code < 128, size, -size).astype(np.float32)


_E4M3 = _e4m3()


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    scale, prefix = unclaimed.get(name), name.removesuffix(end)
    codes, bias = unclaimed.get(f"{prefix}.weight"), unclaimed.get(f"{prefix}.biases")
    if scale is None or codes is None or codes.dtype != "U32" or len(codes.shape) not in (2, 3):
        return None
    components = tuple(info.name for info in (codes, scale, bias) if info is not None)

    def broken(about: TensorInfo, problem: str) -> Quantised:
        return unclaimed.unreadable(codes, "mlx", components, about, problem, codes.name)

    if scale.shape[:-1] != codes.shape[:-1] or 0 in codes.shape + scale.shape:
        return broken(scale, wrong_shape(scale, f"{list(codes.shape[:-1])} and groups, beside {escape(codes.name)}"))
    if bias is not None and bias.shape != scale.shape:
        return broken(bias, wrong_shape(bias, f"{list(scale.shape)}, as {escape(scale.name)} has"))
    product, rest = divmod(32 * codes.shape[-1], scale.shape[-1])
    product = 0 if rest else product
    if bias is None:
        scheme, bits, group = _FLOATS.get(product, ("", 0, 0)) if scale.dtype == "U8" else ("", 0, 0)
        dtype = "F4" if bits == 4 else "F8_E4M3"
    else:
        bits, group = _affine(_said(unclaimed, prefix), product)
        scheme, dtype = "mlx", f"U{bits}"
    if not scheme or (bias is None and not bits):
        return broken(codes, f"{prefix}.biases is missing beside {escape(codes.name)}")
    if not bits:
        said = (
            "several; the config's quantization doesn't say which" if _pairs(product) else "no width of code and group"
        )
        found = f"{escape(scale.name)} of shape {list(scale.shape)} beside {list(codes.shape)}"
        return broken(scale, f"{found}: fits {said}")
    return Mlx(
        name=codes.name,
        shape=(*codes.shape[:-1], scale.shape[-1] * group),
        dtype=dtype,
        scheme=scheme,
        components=components,
        parameters={"bits": bits, "group_size": group, "symmetric": bias is None, "scale_dtype": scale.dtype},
        scale=scale.name,
        bias=None if bias is None else bias.name,
        bits=bits,
        group=group,
    )


def _pairs(product: int) -> list[tuple[int, int]]:
    return [(bits, group) for bits in _BITS for group in _GROUPS if bits * group == product]


def _affine(said: tuple[object, object], product: int) -> tuple[int, int]:
    """(bits, group): the config's pair where shapes agree with it, else the only one; zeros where there are several."""
    pairs = _pairs(product)
    chosen = [pair for pair in pairs if pair == said] or pairs
    return chosen[0] if len(chosen) == 1 else (0, 0)


def _said(unclaimed: UnclaimedTensors, prefix: str) -> tuple[object, object]:
    """Bits and group size that the config names for a module, else for all."""
    config: Mapping[str, Any] = getattr(unclaimed.checkpoint, "config", {})
    found = config.get("quantization") or config.get("quantization_config")
    if not isinstance(found, Mapping):
        return None, None
    own = found.get(prefix)
    here = own if isinstance(own, Mapping) else found
    return here.get("bits"), here.get("group_size")


MLX = Scheme("MLX words under scales and biases", (".scales",), _group)
