"""bitsandbytes NF4 and FP4: 4-bit codes into a table, one scale per block of the flattened weight.

    w[n] = table[code[n]] · absmax[n // blocksize],   n in row-major order, high half of a byte first

    X                                    U8 (⌈numel / 2⌉, 1), or the same bytes under a wider dtype (`quant_storage`)
    X.absmax                             F32 (blocks,); U8 when it is quantised itself ("double quantisation")
    X.quant_map                          F32 (16,): the table
    X.nested_absmax, X.nested_quant_map  F32: absmax[i] = map[code[i]] · nested_absmax[i // 256] + offset
    X.quant_state.bitsandbytes__nf4      U8: JSON with shape, blocksize, nested_blocksize, nested_offset

The shape stands only in that JSON, so it is read when the weight is found (a few hundred bytes each).

Source: bitsandbytes ``functional.py`` (``QuantState``) and ``backends/default/ops.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Levels, Quantised, Rect, Scheme, UnclaimedTensors, array, raw, values, wrong_shape
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

_ENDS = {".quant_state.bitsandbytes__nf4": "nf4", ".quant_state.bitsandbytes__fp4": "fp4"}
_MAX_STATE_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Bnb4bit(Quantised):
    """Tensors by name; blocks in elements; `offset` is added to a decoded absmax."""

    absmax: str
    table: str
    block: int
    nested_absmax: str | None = None
    nested_table: str | None = None
    nested_block: int = 256
    offset: float = 0.0

    @property
    def levels(self) -> Levels | None:
        """See the base. Blocks run on over the ends of rows, so only of rows that are whole blocks."""
        return Levels(self.block, even=False) if self.shape[-1] % self.block == 0 else None

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        height, width = self.shape[-2:]
        row = rect.index * height + rect.first_row
        first, stop = row * width, (row + rect.n_rows) * width  # whole rows: neighbours share bytes and blocks
        info = checkpoint.find(self.codes)
        begin = first // 2
        codes = checkpoint.core_file(info.file).read_bytes(info.index, begin, -(-stop // 2))
        left, right = 2 * begin // self.block, -(-stop // self.block)
        decoded = _core.decode_codebook(
            codes,
            rect.n_rows,
            rect.n_columns,
            values(checkpoint, self.table, Rect(0, 1, 0, 16)).tobytes(),
            self._absmax(checkpoint, left, right),
            block=self.block,
            stride=width,
            first=first - 2 * begin + rect.first_column,
            block_offset=2 * begin - left * self.block,
        )
        return array(decoded, rect)

    def block_scales(self, checkpoint: Checkpoint) -> F32:
        """See the base; in order."""
        if self.nested_absmax is None:
            return Quantised.block_scales(self, checkpoint)
        return np.frombuffer(self._absmax(checkpoint, 0, -(-prod(self.shape) // self.block)), np.float32)

    def _absmax(self, checkpoint: Checkpoint, left: int, right: int) -> bytes:
        """Scales of blocks `left` … `right` - 1 as float32."""
        part = Rect(0, 1, left, right - left)
        if self.nested_absmax is None or self.nested_table is None:
            return values(checkpoint, self.absmax, part).tobytes()
        low, high = left // self.nested_block, -(-right // self.nested_block)
        return _core.decode_lookup(
            raw(checkpoint, self.absmax, part),
            values(checkpoint, self.nested_table, Rect(0, 1, 0, 256)).tobytes(),
            values(checkpoint, self.nested_absmax, Rect(0, 1, low, high - low)).tobytes(),
            block=self.nested_block,
            offset=left - low * self.nested_block,
            add=self.offset,
        )


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    base, kind = name.removesuffix(end), _ENDS[end]
    codes, state = unclaimed.get(base), unclaimed.get(name)
    if state is None:
        return None
    if codes is None:
        unclaimed.notice("scale_without_codes", end, name, f"{escape(name)} has no {escape(base)} beside it")
        return None
    words = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
    absmax, table, nested, nested_table = (unclaimed.get(f"{base}.{word}") for word in words)
    found = (codes, absmax, table, nested, nested_table, state)
    components = tuple(info.name for info in found if info is not None)

    def broken(about: TensorInfo, problem: str) -> Quantised:
        return unclaimed.unreadable(codes, f"bnb_{kind}", components, about, problem, base)

    said = _state(unclaimed, state, end)
    if said is None:
        return broken(state, f"{escape(name)} is not the JSON object with shape and blocksize that bitsandbytes writes")
    shape, block, nested_block, offset = said
    numel = prod(shape)
    blocks = -(-numel // block)
    unit = codes.nbytes // codes.numel if codes.numel else 1  # bytes of the dtype that they are stored under
    if codes.nbytes != -(-numel // (2 * unit)) * unit:
        return broken(codes, wrong_shape(codes, f"{-(-numel // 2)} bytes, half of the elements of {list(shape)}"))
    if absmax is None or table is None:
        return broken(codes, f"{escape(base)}.{'absmax' if absmax is None else 'quant_map'} is missing")
    if absmax.shape != (blocks,):
        return broken(absmax, wrong_shape(absmax, f"[{blocks}], one per {block} elements"))
    if table.shape != (16,) or table.dtype != "F32":
        return broken(table, wrong_shape(table, "F32 [16]"))
    double = absmax.dtype == "U8"
    if not double and absmax.dtype != "F32":
        return broken(absmax, f"{escape(absmax.name)} is {absmax.dtype}; expected F32, or U8 when quantised itself")
    if double:
        if nested is None or nested_table is None:
            missing = "nested_absmax" if nested is None else "nested_quant_map"
            return broken(absmax, f"{escape(absmax.name)} is quantised itself, but {escape(base)}.{missing} is missing")
        if nested.shape != (-(-blocks // nested_block),) or nested.dtype != "F32":
            return broken(nested, wrong_shape(nested, f"F32 [{-(-blocks // nested_block)}]"))
        if nested_table.shape != (256,) or nested_table.dtype != "F32":
            return broken(nested_table, wrong_shape(nested_table, "F32 [256]"))
    return Bnb4bit(
        name=base,
        shape=shape,
        dtype=kind.upper(),
        scheme=f"bnb_{kind}",
        components=components,
        parameters={"bits": 4, "group_size": block, "double_quantised": double, "symmetric": True},
        absmax=absmax.name,
        table=table.name,
        block=block,
        nested_absmax=nested.name if double and nested is not None else None,
        nested_table=nested_table.name if double and nested_table is not None else None,
        nested_block=nested_block,
        offset=offset,
    )


def _state(unclaimed: UnclaimedTensors, info: TensorInfo, end: str) -> tuple[tuple[int, ...], int, int, float] | None:
    """(shape, blocksize, nested blocksize, nested offset) from the JSON; None where it can't be that."""
    if info.dtype != "U8" or info.nbytes > _MAX_STATE_BYTES:
        return None
    try:
        said: Any = json.loads(unclaimed.read_small(info, end))
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    shape, offset = said.get("shape"), said.get("nested_offset", 0.0)
    if not isinstance(shape, list) or not 2 <= len(shape) <= 3:
        return None
    whole: list[int] = [n for n in (*shape, said.get("blocksize"), said.get("nested_blocksize", 256)) if _is_size(n)]
    if len(whole) != len(shape) + 2 or isinstance(offset, bool) or not isinstance(offset, (int, float)):
        return None
    *axes, block, nested = whole
    return tuple(axes), block, nested, float(np.float32(offset))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 48


BNB_4BIT = Scheme("bitsandbytes NF4 and FP4", tuple(_ENDS), _group)
