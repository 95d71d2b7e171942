"""GGUF's tensors in blocks (Q8_0 … Q6_K, IQ*, TQ*, MXFP4): decoded by the `gguf` package's own numpy code.

A row is a run of blocks, each of `block` numbers in `nbytes` bytes with its own scale, so any rectangle lies in the
blocks that its columns touch: those are read and decoded, and what sticks out is cut off. It goes run by run of rows,
so that the package's temporary arrays stay small. One file holds the codes and the scales: the only component of the
weight is itself, and no names or shapes have to be told apart, since GGUF says the type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.gguf.header import GgmlType
from weightprint.errors import UnsupportedFormatError
from weightprint.quant.base import Levels, Quantised, Rect, Scheme, raw
from weightprint.util.arrays import F32

_RUN = 1 << 20  # numbers decoded at a time
#: Types whose blocks are cut further: numbers under one scale.
_INSIDE = {"Q2_K": 16, "Q3_K": 16, "Q4_K": 32, "Q5_K": 32, "Q6_K": 16, "IQ4_XS": 32}
_TOGETHER = ("IQ1", "IQ2", "IQ3")  # several numbers share a code, a point of a lattice


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufBlocks(Quantised):
    """One tensor in blocks of a ggml type."""

    type: GgmlType

    @property
    def levels(self) -> Levels | None:
        """See the base. Of the types in blocks only the Q and TQ ones space their levels evenly."""
        name = self.type.name
        if name.startswith(_TOGETHER):
            return None
        return Levels(_INSIDE.get(name, self.type.block), even=name.startswith(("Q", "TQ")))

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        kind = self.type
        left = rect.first_column // kind.block
        span = -(-rect.stop_column // kind.block) - left
        cut = slice(rect.first_column - left * kind.block, rect.stop_column - left * kind.block)
        # In an experts' stack the stored matrices follow each other as they do in the weight.
        out = np.empty((rect.n_rows, rect.n_columns), np.float32)
        step = max(1, _RUN // (span * kind.block))
        for at in range(0, rect.n_rows, step):
            n = min(step, rect.n_rows - at)
            stored = Rect(rect.first_row + at, n, left * kind.nbytes, span * kind.nbytes, rect.index)
            codes = np.frombuffer(raw(checkpoint, self.name, stored), np.uint8).reshape(n, span * kind.nbytes)
            out[at : at + n] = self._numbers(codes)[:, cut]
        return out

    def _numbers(self, codes: npt.NDArray[np.uint8]) -> F32:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        try:
            # A scale may be NaN or infinite: that is data, and comes out as such.
            with np.errstate(all="ignore"):
                return np.asarray(dequantize(codes, GGMLQuantizationType(self.type.number)), np.float32)
        except NotImplementedError as error:
            message = f"the installed gguf package can't decode {self.type.name}; try a newer one"
            raise UnsupportedFormatError(message, tensor=self.name, code="gguf_undecodable") from error


def _blocks(checkpoint: Checkpoint) -> list[Quantised]:
    """All tensors in blocks; none unless the files are GGUF."""
    return [
        GgufBlocks(
            name=name,
            shape=tensor.shape,
            dtype=tensor.type.name,
            scheme="gguf",
            components=(name,),
            parameters={
                "type": tensor.type.name,
                "block": tensor.type.block,
                "bits": 8 * tensor.type.nbytes / tensor.type.block,
            },
            type=tensor.type,
        )
        for name, tensor in checkpoint.ggml_types.items()
    ]


GGUF = Scheme("gguf", stated=_blocks)
