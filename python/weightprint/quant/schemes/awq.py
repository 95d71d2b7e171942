"""AWQ (GEMM): 4-bit integers in 32-bit words along the outputs, interleaved for the kernel that unpacks them.

    w[r, c] = (code[c, r] - zero[j, r]) · scale[j, r],   j = c // group_size

    X.qweight  I32 (in, out / 8): in each word outputs 0 2 4 6 1 3 5 7 from the low bits up
    X.qzeros   I32 (in / group_size, out / 8): likewise
    X.scales   (in / group_size, out)

Told from GPTQ by its shape: the words run along the outputs, so qweight is an eighth as wide as the scales. The older
GEMV arrangement, (out, in / 8), is recognised and refused.

Source: AutoAWQ ``modules/linear/gemm.py`` and ``utils/packing_utils.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, array, raw, values, wrong_shape
from weightprint.quant.integers import column_groups, words_over, zero_codes
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

_PER_WORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq(Quantised):
    """AWQ's three tensors by name."""

    scales: str
    zeros: str
    group_size: int
    n_groups: int

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        groups, first, n = column_groups(checkpoint, None, self.group_size, self.n_groups, rect)
        left, width = words_over(rect.first_row, rect.stop_row, _PER_WORD)
        part = Rect(first, n, rect.first_row, rect.n_rows)
        decoded = _core.decode_packed(
            raw(checkpoint, self.codes, Rect(rect.first_column, rect.n_columns, left, width)),
            "awq",
            (rect.n_columns, width),
            4,
            rect.n_rows,
            rect.n_columns,
            values(checkpoint, self.scales, part).tobytes(),
            n,
            groups.tobytes(),
            first=rect.first_row % _PER_WORD,
            zeros=zero_codes(checkpoint, self.zeros, part, 4, "awq").astype(np.float32).tobytes(),
        )
        return array(decoded, rect)


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    codes, base = unclaimed.get(name), name.removesuffix("qweight")
    scales, zeros = unclaimed.get(base + "scales"), unclaimed.get(base + "qzeros")
    if codes is None or scales is None or codes.dtype != "I32" or len(codes.shape) != 2 or len(scales.shape) != 2:
        return None
    if 0 in codes.shape + scales.shape or codes.shape[1] == scales.shape[1]:
        return None
    components = tuple(info.name for info in (codes, scales, zeros) if info is not None)

    def broken(about: TensorInfo, problem: str, code: str = "unreadable_quantisation") -> Quantised:
        return unclaimed.unreadable(codes, "awq", components, about, problem, base + "weight", code)

    inputs, (n_groups, out) = codes.shape[0], scales.shape
    if codes.shape[1] * _PER_WORD != out:
        if scales.shape[0] != codes.shape[0]:
            return None
        return broken(
            codes, f"{escape(name)} is in AWQ's GEMV arrangement (out, in / 8), which is not decoded", "not_decoded"
        )
    if zeros is None:
        return broken(codes, f"{escape(base)}qzeros is missing beside {escape(name)}")
    if zeros.shape != (n_groups, codes.shape[1]) or zeros.dtype != "I32":
        return broken(zeros, wrong_shape(zeros, f"[{n_groups}, {codes.shape[1]}]"))
    if inputs % n_groups:
        return broken(scales, f"{escape(scales.name)} has {n_groups} groups, which do not divide {inputs} inputs")
    return Awq(
        name=base + "weight",
        shape=(out, inputs),
        dtype="I4",
        scheme="awq",
        components=components,
        parameters={
            "bits": 4,
            "group_size": inputs // n_groups,
            "symmetric": False,
            "act_order": False,
            "scale_dtype": scales.dtype,
        },
        scales=scales.name,
        zeros=zeros.name,
        group_size=inputs // n_groups,
        n_groups=n_groups,
    )


AWQ = Scheme("AWQ (GEMM)", (".qweight",), _group)
