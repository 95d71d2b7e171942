"""What the published measures read: the blocks of one stack on each side, whole matrices or samples of them, and the
embedding rows of tokens that both models share.

The papers compare one decoder with another, layer i with layer i, so each side's largest stack stands for the model
(the decoder, where there is one). Layers are sampled evenly over the depth and channels in seeded runs, the same on
both sides, so that an 8B model costs a bounded number of multiplications; ``full`` takes all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32

#: Block number → role → tensor.
Blocks = dict[int, dict[str, Tensor]]

_MIN_TOKENS = 64
_INTEGERS = ("I8", "U8", "I16", "I32", "I64", "U16", "U32", "U64", "BOOL")


def readable(tensor: Tensor | None) -> TypeGuard[Tensor]:
    """A real matrix of numbers that mean what they say: not constant, not bare integers."""
    return tensor is not None and tensor.rank2 and not tensor.constant and tensor.dtype not in _INTEGERS


def main_stack(side: ModelView) -> str | None:
    """The decoder if the model has one, else the stack with the most parameters in blocks; None without blocks."""
    sizes: Counter[str] = Counter()
    for tensor in side.tensors.values():
        if tensor.layer is not None:
            sizes[tensor.stack] += tensor.numel
    if not sizes:
        return None
    return "decoder" if "decoder" in sizes else sizes.most_common(1)[0][0]


def blocks(side: ModelView, roles: Iterable[str]) -> Blocks:
    """Blocks of the main stack in which all of these roles are readable matrices (experts left out), by number."""
    stack, wanted = main_stack(side), tuple(roles)
    found: Blocks = {}
    for tensor in side.tensors.values():
        place = tensor.place
        if place is None or place.block is None or place.stack != stack or place.expert is not None:
            continue
        if place.role in wanted and readable(tensor):
            found.setdefault(place.block, {}).setdefault(place.role, tensor)
    return {i: found[i] for i in sorted(found) if len(found[i]) == len(wanted)}


def common_width(a: Blocks, b: Blocks, role: str) -> int | None:
    """The length of the last axis of a role, if it is the same in every block of both sides."""
    widths = {block[role].shape[1] for found in (a, b) for block in found.values() if role in block}
    return widths.pop() if len(widths) == 1 else None


def too_large(models: ModelPair, found: Iterable[dict[str, Tensor]]) -> bool:
    """True where this effort does not allow reading these matrices whole."""
    streamed = models.budget.streamed
    return any(tensor.numel > streamed for block in found for tensor in block.values())


def grouped(models: ModelPair, side: ModelView, stack: str, queries: int, rows: int) -> int | None:
    """Rows of one head of k (or v) that `queries` rows of q (or columns of o) share; None where that is not known.

    Where every query head has its own key head nothing has to be known, and the answer is all rows. A side that
    doesn't know its heads (no config.json) borrows the other's number.
    """
    if queries == rows:
        return rows
    own = side.geometry.get(stack)
    for known in (own, *models.a.geometry.values(), *models.b.geometry.values()):
        heads = known.kv_heads if known is not None else None
        if heads and rows % heads == 0 and queries % rows == 0:
            return rows // heads
    return None


def expanded(x: F32, rows: int, size: int) -> F32:
    """Rows of k (or v) repeated so that every query head meets its own: (kv_heads * size, d) → (rows, d)."""
    if x.shape[0] == rows:
        return x
    heads = x.reshape(-1, size, x.shape[1])
    return np.repeat(heads, rows // x.shape[0], axis=0).reshape(rows, -1)


def embeddings(side: ModelView) -> Tensor | None:
    """The token embedding, (vocabulary x width); the output head where only that is learned.

    A table of few distinct values (one-hot codes, substitution scores) was not learned, and equal ones show nothing.
    """
    stack = main_stack(side)
    found = [
        t
        for role in ("embedding", "head")
        for t in side.tensors.values()
        if t.place is not None and t.place.role == role and readable(t)
    ]
    found.sort(key=lambda t: t.stack != stack)
    return next((t for t in found if not side.is_trivial(t)), None)


def shared_tokens(models: ModelPair, want: int) -> tuple[F32, F32] | str:
    """Embedding rows of the same tokens on both sides, (tokens, width) each; else the reason why there are none.

    The papers match tokens by their strings. A test is given weights, so a token's number stands for its string, up to
    the length of the shorter table. That is right for one tokenizer and for an extended one; with another tokenizer
    the rows don't belong together, and every score built on them is one of strangers.
    """
    a, b = embeddings(models.a), embeddings(models.b)
    if a is None or b is None:
        return "no token embedding was recognised in both models"
    shared = min(a.shape[0], b.shape[0])
    if shared < _MIN_TOKENS:
        return f"fewer than {_MIN_TOKENS} shared tokens"
    rows = pick(shared, want, models.seed, "tokens", run=8)
    return finite(sampled_rows(models.a, a, rows)), finite(sampled_rows(models.b, b, rows))


def named_pairs(models: ModelPair) -> list[Pair]:
    """Tensors that met without a look at their values and have one shape: what papers call same-named parameters."""
    return [
        p for p in models.pairs if p.by_name and not p.transposed and p.a.shape == p.b.shape and p.a.shape and p.a.numel
    ]


def sampled_pair(models: ModelPair, pair: Pair) -> tuple[F32, F32]:
    """The same sampled rows of both, about as many values as the effort allows."""
    n_rows, columns = pair.a.matrix
    rows = pick(n_rows, max(4, models.budget.published.values // max(columns, 1)), models.seed, pair.b.name, run=4)
    return finite(sampled_rows(models.a, pair.a, rows)), finite(sampled_rows(models.b, pair.b, rows))


def cosine(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> float:
    """Cosine of two arrays seen as vectors; nan where one is zero."""
    a, b = np.ravel(x).astype(np.float64), np.ravel(y).astype(np.float64)
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else float("nan")
