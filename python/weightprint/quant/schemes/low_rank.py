"""A linear layer stored as two factors: W = U V, U (out, r) and V (r, in), in place of one matrix.

How the two are called differs, and no other tensor has the product's name:

    X.ALinear.weight, X.BLinear.weight        U and V of ASVD, X being the layer
    X.1.weight, X.0.weight                    two layers in a row (torch.nn.Sequential), V is the first
    X_u_proj.weight, X_v_proj.weight          SVD-LLM, of the layer X_proj

Two matrices are taken for factors only if their shapes multiply and they hold no more values than the product. Values
are float32 products of the factors as they are read; the factors' own dtype is the weight's.

Sources: ASVD4LLM ``modules/svd_linear.py`` (SVDLinear), SVD-LLM ``component/svd_llama.py``; arXiv 2312.05821 and
2403.07378.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, values
from weightprint.util.arrays import F32
from weightprint.util.linear_algebra import product

_FLOATS = ("F64", "F32", "F16", "BF16")

#: End of U's name → the end of V's, and the one of the product.
_ENDS = {
    ".ALinear.weight": (".BLinear.weight", ".weight"),
    ".1.weight": (".0.weight", ".weight"),
    "_u_proj.weight": ("_v_proj.weight", "_proj.weight"),
}
#: What the name of a layer ends in, where two matrices in a row could also be two layers with something between them.
_LINEAR = ("_proj", "_lin", ".dense", ".query", ".key", ".value", ".fc1", ".fc2", ".w1", ".w2", ".w3")


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank(Quantised):
    """The names of both factors, (out, r) and (r, in)."""

    outputs: str
    inputs: str
    rank: int

    @property
    def levels(self) -> None:
        """Any value may come out."""
        return None

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        u = values(checkpoint, self.outputs, Rect(rect.first_row, rect.n_rows, 0, self.rank))
        v = values(checkpoint, self.inputs, Rect(0, self.rank, rect.first_column, rect.n_columns))
        with np.errstate(all="ignore"):  # NaN and Inf are the file's
            return np.ascontiguousarray(product(u, v), np.float32)


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    other, whole = _ENDS[end]
    layer = name.removesuffix(end)
    u, v = unclaimed.get(name), unclaimed.get(layer + other)
    named = end != ".1.weight" or layer.endswith(_LINEAR)
    if u is None or v is None or not named or layer + whole in unclaimed.infos or not _factors(u, v):
        return None
    (outputs, rank), inputs = u.shape, v.shape[1]
    return LowRank(
        name=layer + whole,
        shape=(outputs, inputs),
        dtype=u.dtype,
        scheme="low_rank",
        components=(u.name, v.name),
        parameters={"rank": rank},
        outputs=u.name,
        inputs=v.name,
        rank=rank,
    )


def _factors(u: TensorInfo, v: TensorInfo) -> bool:
    if u.dtype not in _FLOATS or u.dtype != v.dtype or len(u.shape) != 2 or len(v.shape) != 2:
        return False
    (outputs, rank), (inner, inputs) = u.shape, v.shape
    return 0 < rank == inner and rank * (outputs + inputs) <= outputs * inputs


LOW_RANK = Scheme("two factors in place of a matrix", tuple(_ENDS), _group)
