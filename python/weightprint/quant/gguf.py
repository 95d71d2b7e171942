"""GGUF's tensors in blocks (Q8_0 … Q6_K, IQ*, TQ*, MXFP4): decoded by the `gguf` package's own numpy code.

A row is a run of blocks, each of `block` numbers in `nbytes` bytes with its own scale, so any rectangle lies in the
blocks that its columns touch: those are read and decoded, and what sticks out is cut off. Decoding goes run by run of
rows, so the package's temporary arrays stay small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint.checkpoint import Checkpoint
from weightprint.errors import UnsupportedFormatError
from weightprint.gguf import GgmlType

__all__ = ["GgufBlocks", "find"]

F32 = npt.NDArray[np.float32]

_RUN = 1 << 20  # numbers decoded at a time


@dataclass(frozen=True, slots=True)
class GgufBlocks:
    """One tensor in blocks.

    Attributes:
        name: as stored.
        shape: in numbers, slowest axis first.
        type: ggml's type.
    """

    name: str
    shape: tuple[int, ...]
    type: GgmlType

    @property
    def dtype(self) -> str:
        """ggml's name of the type, such as ``"Q4_K"``."""
        return self.type.name

    @property
    def scheme(self) -> str:
        """``"gguf"``."""
        return "gguf"

    @property
    def components(self) -> tuple[str, ...]:
        """The one stored tensor."""
        return (self.name,)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Numbers and bytes per block, and bits per number on average."""
        return {
            "type": self.type.name,
            "block": self.type.block,
            "block_bytes": self.type.nbytes,
            "bits": 8 * self.type.nbytes / self.type.block,
        }

    def read(self, checkpoint: Checkpoint, rows: slice, columns: slice, index: int | None) -> F32:
        """A rectangle of the matrix, or of matrix `index` of a stack; elements of a vector; whole items of a stack."""
        shape = self.shape if index is None else self.shape[1:]
        first_item = 0 if index is None else index * prod(shape[:-1])
        if len(shape) == 2:
            return self._rectangle(checkpoint, first_item + rows.start, rows.stop - rows.start, columns)
        if len(shape) == 1:
            return self._rectangle(checkpoint, first_item, 1, rows)[0]
        inner = prod(shape[1:-1])
        values = self._rectangle(
            checkpoint, first_item + rows.start * inner, (rows.stop - rows.start) * inner, slice(0, shape[-1])
        )
        return values.reshape(-1, *shape[1:])

    def _rectangle(self, checkpoint: Checkpoint, first: int, n_rows: int, columns: slice) -> F32:
        """Rows of the stored matrix (leading axes flattened), `columns` in numbers."""
        width = columns.stop - columns.start
        out = np.empty((n_rows, width), np.float32)
        if not out.size:
            return out
        info = checkpoint.find(self.name)
        file = checkpoint.core_file(info.file)
        row_bytes = info.shape[-1]
        left = columns.start // self.type.block
        span = slice(left * self.type.nbytes, -(-columns.stop // self.type.block) * self.type.nbytes)
        cut = slice(columns.start - left * self.type.block, columns.stop - left * self.type.block)
        step = max(1, _RUN // self.shape[-1])
        for at in range(0, n_rows, step):
            n = min(step, n_rows - at)
            start = (first + at) * row_bytes
            data = file.read_bytes(info.index, start, start + n * row_bytes)
            blocks = np.frombuffer(data, np.uint8).reshape(n, row_bytes)[:, span]
            out[at : at + n] = self._decode(blocks)[:, cut]
        return out

    def _decode(self, blocks: npt.NDArray[np.uint8]) -> F32:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        try:
            # A scale may be NaN or infinite: that is data, and comes out as such.
            with np.errstate(all="ignore"):
                values = dequantize(np.ascontiguousarray(blocks), GGMLQuantizationType(self.type.number))
        except NotImplementedError as error:
            message = f"the installed gguf package can't decode {self.type.name}; try a newer one"
            raise UnsupportedFormatError(message, tensor=self.name, code="gguf_undecodable") from error
        return np.asarray(values, np.float32)


def find(checkpoint: Checkpoint) -> list[GgufBlocks]:
    """All tensors in blocks, in file order of their first file."""
    return [GgufBlocks(name, tensor.shape, tensor.type) for name, tensor in checkpoint.ggml_types.items()]
