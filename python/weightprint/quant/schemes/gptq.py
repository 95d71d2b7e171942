"""GPTQ: 2-, 3-, 4- and 8-bit integers in 32-bit words along the inputs, as AutoGPTQ, GPTQModel and AutoRound save them.

    w[r, c] = (code[c, r] - zero[j, r]) · scale[j, r],   j = g_idx[c], or c // group_size

    X.qweight  I32 (in · bits / 32, out), low bits first: the transpose of a linear layer's (out, in)
    X.scales   (groups, out)
    X.qzeros   I32 (groups, out · bits / 32), low bits first
    X.g_idx    I32 (in,): the group of every input. Without act-order it is c // group_size.

Format v1 (``checkpoint_format: gptq``, and every file without one) stores each zero point minus one, and readers add it
back within the bits: a stored 15 is 0 in 4 bits. Format v2 (``gptq_v2``) stores it as it is, and AutoRound has both
under ``packing_format``. Shapes can't tell them apart. Where no config does, symmetric checkpoints do: the middle,
2^(bits-1), is 7 in every place in v1 and 8 in v2.

Codes of 3 bits are one stream that runs on over the words. Bits follow from qzeros and scales, inputs from qweight.
:mod:`.awq` reads the arrangement with words along the outputs.

Sources: AutoGPTQ ``qlinear_cuda_old.py``; GPTQModel ``utils/model.py`` (v1 → v2); transformers ``GPTQConfig``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, array, raw, values, wrong_shape
from weightprint.quant.integers import column_groups, stream_codes, words_over, zero_codes
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

#: What the config calls the format → what readers add to a stored zero point. The latter three are AutoRound's.
_ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0, "auto_round:auto_gptq": 1, "auto_round": 0, "auto_round:gptqmodel": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq(Quantised):
    """GPTQ's four tensors by name; `zero_offset` is what v1 subtracted from zero points."""

    scales: str
    zeros: str
    g_idx: str | None
    bits: int
    group_size: int
    n_groups: int
    zero_offset: int

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        groups, first, n = column_groups(checkpoint, self.g_idx, self.group_size, self.n_groups, rect)
        if 32 % self.bits:
            return self._decode_stream(checkpoint, rect, groups + first)
        per = 32 // self.bits
        top, height = words_over(rect.first_column, rect.stop_column, per)
        part = Rect(first, n, rect.first_row, rect.n_rows)
        zeros = zero_codes(checkpoint, self.zeros, part, self.bits).astype(np.int32) + self.zero_offset
        decoded = _core.decode_packed(
            raw(checkpoint, self.codes, Rect(top, height, rect.first_row, rect.n_rows)),
            "gptq",
            (height, rect.n_rows),
            self.bits,
            rect.n_rows,
            rect.n_columns,
            values(checkpoint, self.scales, part).tobytes(),
            n,
            groups.tobytes(),
            first=rect.first_column % per,
            zeros=(zeros & ((1 << self.bits) - 1)).astype(np.float32).tobytes(),
        )
        return array(decoded, rect)

    def _decode_stream(self, checkpoint: Checkpoint, rect: Rect, groups: npt.NDArray[np.int32]) -> F32:
        """Codes of 3 bits, which lie across words: inputs run down the rows of qweight, zero points along qzeros."""
        every = checkpoint.find(self.zeros).shape[1]
        stored = raw(checkpoint, self.zeros, Rect(0, self.n_groups, 0, every))
        words = np.frombuffer(stored, "<u4").reshape(self.n_groups, every)
        out = words.shape[1] * 32 // self.bits
        zeros = stream_codes(words, self.bits, 0, out)[:, rect.first_row : rect.stop_row].astype(np.int64)
        zeros = zeros + self.zero_offset & (1 << self.bits) - 1
        scales = values(checkpoint, self.scales, Rect(0, self.n_groups, rect.first_row, rect.n_rows))
        top, bottom = rect.first_column * self.bits // 32, -(-rect.stop_column * self.bits // 32)
        stored = raw(checkpoint, self.codes, Rect(top, bottom - top, rect.first_row, rect.n_rows))
        turned = np.frombuffer(stored, "<u4").reshape(bottom - top, rect.n_rows).T
        codes = stream_codes(turned, self.bits, rect.first_column, rect.n_columns).astype(np.float32)
        with np.errstate(all="ignore"):
            return np.ascontiguousarray((codes - zeros.astype(np.float32)[groups].T) * scales[groups].T)


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    codes, base = unclaimed.get(name), name.removesuffix("qweight")
    if codes is None:
        return None
    scales, zeros, g_idx = (unclaimed.get(base + word) for word in ("scales", "qzeros", "g_idx"))
    components = tuple(info.name for info in (codes, scales, zeros, g_idx) if info is not None)

    def broken(about: TensorInfo, problem: str) -> Quantised:
        return unclaimed.unreadable(codes, "gptq", components, about, problem, base + "weight")

    if scales is None or zeros is None:
        return broken(codes, f"{escape(base)}{'qzeros' if scales else 'scales'} is missing beside {escape(name)}")
    if codes.dtype != "I32" or len(codes.shape) != 2 or len(scales.shape) != 2 or 0 in codes.shape + scales.shape:
        found = f"{codes.dtype} {list(codes.shape)} under scales of {list(scales.shape)}"
        return broken(codes, f"{escape(name)} is {found}: not GPTQ's layout, nor AWQ's")
    n_groups, out = scales.shape
    if codes.shape[1] != out:
        return broken(
            scales, wrong_shape(scales, f"[groups, {codes.shape[1]}] beside {escape(name)} {list(codes.shape)}")
        )
    if g_idx is not None and g_idx.numel == 0:
        g_idx = None  # kernels that need no table leave it empty
    bits = next((b for b in (4, 8, 2, 3) if zeros.shape == (n_groups, -(-out * b // 32))), 0)
    if not bits or zeros.dtype != "I32":
        return broken(zeros, wrong_shape(zeros, f"I32 [{n_groups}, {out} · bits / 32]"))
    inputs = codes.shape[0] * 32 // bits
    if g_idx is not None and (g_idx.shape != (inputs,) or g_idx.dtype not in ("I32", "I64")):
        return broken(g_idx, wrong_shape(g_idx, f"[{inputs}], one group per input"))
    size = next((g for g in unclaimed.hints.group_sizes if -(-inputs // g) == n_groups), 0)
    size = size or (inputs // n_groups if inputs % n_groups == 0 else 0)
    if not size and g_idx is None:
        return broken(scales, f"{escape(scales.name)} has {n_groups} groups, which do not divide {inputs} inputs")
    offset, known = _zero_offset(unclaimed, zeros, bits)
    return Gptq(
        name=base + "weight",
        shape=(out, inputs),
        dtype=f"I{bits}",
        scheme="gptq",
        components=components,
        parameters={
            "bits": bits,
            "group_size": size or None,
            "symmetric": unclaimed.hints.symmetric,
            "act_order": unclaimed.hints.act_order if g_idx is not None else False,
            "checkpoint_format": "gptq" if offset else "gptq_v2",
            "scale_dtype": scales.dtype,
        }
        | ({} if known else {"assumed": "checkpoint_format"}),
        scales=scales.name,
        zeros=zeros.name,
        g_idx=None if g_idx is None else g_idx.name,
        bits=bits,
        group_size=size or inputs,
        n_groups=n_groups,
        zero_offset=offset,
    )


def _zero_offset(unclaimed: UnclaimedTensors, zeros: TensorInfo, bits: int) -> tuple[int, bool]:
    """(what to add to stored zero points, whether that is known): config, else the values of a symmetric tensor."""
    said = _ZERO_OFFSETS.get(unclaimed.hints.checkpoint_format or "")
    if said is not None and not unclaimed.hints.symmetric:
        return said, True
    if "zero_offset" not in unclaimed.memo:  # one format per checkpoint: the first tensor's values speak for all
        unclaimed.memo["zero_offset"] = _offset_of_values(unclaimed, zeros, bits)
    offset: int | None = unclaimed.memo["zero_offset"]
    if said is not None and offset in (None, said):
        return said, True
    if said is not None and offset is not None:
        middle, read = 1 << (bits - 1), (1 << (bits - 1)) - offset + said
        unclaimed.notice(
            "mislabelled_zero_points",
            "gptq",
            zeros.name,
            f"{escape(zeros.name)}: the config says that codes are symmetric, so the zero point is {middle}; as its "
            f"checkpoint_format reads what is stored, it would be {read}. Decoded with {middle}",
        )
        return offset, True
    return (1 if offset is None else offset), offset is not None or unclaimed.hints.method == "gptq"


def _offset_of_values(unclaimed: UnclaimedTensors, zeros: TensorInfo, bits: int) -> int | None:
    """0 or 1 where the stored zero points are all in the middle of the range, or all one below it; else None."""
    if 32 % bits:
        return None
    stored = unclaimed.checkpoint.core_file(zeros.file).read_bytes(zeros.index, 0, min(zeros.nbytes, 4096))
    middle = 1 << (bits - 1)
    repeated = {word: sum(word << (bits * k) for k in range(32 // bits)) for word in (middle - 1, middle)}
    words = set(np.frombuffer(stored, "<u4").tolist())
    return {repeated[middle]: 0, repeated[middle - 1]: 1}.get(words.pop()) if len(words) == 1 else None


GPTQ = Scheme("GPTQ", (".qweight",), _group)
