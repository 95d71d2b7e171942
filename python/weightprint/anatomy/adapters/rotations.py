"""OFT, BOFT and HRA: weights (out x in) whose inputs are turned by orthogonal matrices, block by block.

    OFT   W' = W·Rᵀ            R block-diagonal; a block is (I - Q)(I + Q)⁻¹ of a skew Q, whose upper triangle is
                               stored row by row (oft_R); with use_cayley_neumann the first terms of a series of
                               (I + Q)(I - Q)⁻¹. PEFT before 0.16 stores M as BOFT does, and s (oft_r, oft_s)
    BOFT  W' = diag(s)·W·Rᵀ    R = Rₙ ⋯ R₁, Rᵢ = Pᵢ·Dᵢ·Pᵢᵀ, blocks of Dᵢ (I - Q)(I + Q)⁻¹ with Q = (M - Mᵀ) / 2 of
                               what is stored; Pᵢ puts the even halves of blocks before the odd ones, in larger runs
    HRA   W' = W·H₁ ⋯ Hᵣ       Hᵢ = I - 2uuᵀ of the unit columns u of what is stored (apply_GS: made orthogonal first)

Papers: 2306.07280, 2311.06243, 2405.17484. A convolution is a matrix (out x in·kernel).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.adapters.dialects import Update
from weightprint.errors import FormatError
from weightprint.quant.weights import Weights
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

KINDS = frozenset({"oft", "boft", "hra"})

_TERMS, _MOST_TERMS = 5, 100  # of PEFT's series, unless the config says another number


@dataclass(frozen=True, slots=True)
class Rotation:
    """R as factors that follow each other: blocks (n, b, b), and the order that its inputs have in them.

    Attributes:
        factors: (blocks, order); order None: as they are.
        scales: of outputs, or None.
    """

    factors: tuple[tuple[F32, npt.NDArray[np.intp] | None], ...]
    scales: F32 | None

    def apply(self, weight: F32, rows: npt.NDArray[np.intp]) -> F32:
        """Rows of W, whole, as they come out; `rows` are their numbers."""
        for blocks, order in self.factors:
            x = weight if order is None else weight[:, np.argsort(order)]
            n, size = blocks.shape[:2]
            x = np.einsum("mnk,nck->mnc", x.reshape(-1, n, size), blocks).reshape(x.shape)
            weight = x if order is None else x[:, order]
        scaled: F32 = weight if self.scales is None else weight * self.scales[rows][:, None]
        return np.ascontiguousarray(scaled, np.float32)


def rotation(update: Update, weights: Weights, width: int) -> Rotation:
    """The rotation of one module with `width` inputs.

    Raises FormatError: blocks that don't cover the inputs.
    """
    config = weights.checkpoint.config
    if update.kind == "hra":
        return _reflections(update, weights, width)
    if update.kind == "boft":
        return _butterfly(update, weights, width, "boft_R", "boft_s")
    if "oft_r" in update.parts:
        return _butterfly(update, weights, width, "oft_r", "oft_s")
    stored = weights.read(update.parts["oft_R"]).astype(np.float64)
    size = (1 + isqrt(1 + 8 * stored.shape[1])) // 2
    repeats = width // size if len(stored) == 1 or config.get("block_share") is True else len(stored)
    if size * (size - 1) // 2 != stored.shape[1] or repeats * size != width or len(stored) not in (1, repeats):
        raise _misfit(update, weights, "oft_R", width)
    skew = np.zeros((len(stored), size, size))
    upper = np.triu_indices(size, 1)
    skew[:, upper[0], upper[1]] = stored
    skew -= skew.swapaxes(1, 2)
    if config.get("coft") is True:
        bound = _number(config.get("eps"), 6e-5) / np.sqrt(len(stored))
        norm = np.linalg.norm(skew, axis=(1, 2), keepdims=True)
        skew = np.where(norm <= bound, skew, bound * skew / np.where(norm > 0, norm, 1))
    series = config.get("use_cayley_neumann", "num_cayley_neumann_terms" in config)
    terms = int(min(_number(config.get("num_cayley_neumann_terms"), _TERMS), _MOST_TERMS))
    blocks = _series(skew, terms) if series else _cayley(skew)
    if len(blocks) != repeats:
        blocks = np.broadcast_to(blocks, (repeats, size, size))
    return Rotation(((blocks.astype(np.float32), None),), None)


def _number(said: Any, default: float) -> float:
    return said if isinstance(said, int | float) and not isinstance(said, bool) and said > 0 else default


def _reflections(update: Update, weights: Weights, width: int) -> Rotation:
    u = weights.read(update.parts["hra_u"]).astype(np.float64) if "hra_u" in update.parts else np.zeros((0, 0))
    if u.ndim != 2 or len(u) != width or not u.shape[1]:
        raise _misfit(update, weights, next(iter(update.parts)), width)
    made = np.eye(width)
    with np.errstate(all="ignore"):
        if weights.checkpoint.config.get("apply_GS") is True:
            u = np.linalg.qr(u)[0] if np.isfinite(u).all() else u
        for column in (u / np.linalg.norm(u, axis=0)).T:
            made -= 2 * np.outer(made @ column, column)
    return Rotation(((made.T[None].astype(np.float32), None),), None)


def _cayley(skew: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    one = np.eye(skew.shape[-1])
    return np.asarray((one - skew) @ np.linalg.inv(one + skew), np.float64)


def _series(skew: npt.NDArray[Any], terms: int) -> npt.NDArray[np.float64]:
    """I + 2Q + 2Q² + … + Qⁿ, n = terms - 1: the last counts once. PEFT makes four of three, and of two I + 2Q."""
    terms = 4 if terms == 3 else terms
    made = np.broadcast_to(np.eye(skew.shape[-1]), skew.shape).copy()
    power = skew
    for k in range(1, terms):
        made += (1 if k == terms - 1 and k > 2 else 2) * power
        power = power @ skew
    return made


def _butterfly(update: Update, weights: Weights, width: int, part: str, outputs: str) -> Rotation:
    stored = weights.read(update.parts[part]).astype(np.float64)
    stored = stored[None] if stored.ndim == 3 else stored
    n, count, size = stored.shape[:3]
    if count == 1 and n == 1 and size and width % size == 0:  # block_share
        count, stored = width // size, np.broadcast_to(stored, (1, width // size, size, size))
    halves = n == 1 or (size % 2 == 0 and count % (1 << (n - 1)) == 0)
    if count * size != width or not halves:
        raise _misfit(update, weights, part, width)
    blocks = _cayley((stored - stored.swapaxes(2, 3)) / 2).astype(np.float32)
    orders = [None] if n == 1 else [_order(width, count >> k, size // 2) for k in range(n)]
    scales = weights.read(update.parts[outputs]).reshape(-1) if outputs in update.parts else None
    return Rotation(tuple(zip(blocks, orders, strict=True)), scales)


def _order(width: int, count: int, half: int) -> npt.NDArray[np.intp]:
    """Within each of `count` blocks: runs of `half`, those of even number first."""
    runs = np.arange(width, dtype=np.intp).reshape(max(count, 1), -1, half)
    return np.concatenate([runs[:, ::2], runs[:, 1::2]], axis=1).reshape(-1)


def _misfit(update: Update, weights: Weights, part: str, width: int) -> FormatError:
    name = update.parts[part]
    message = f"{escape(name)} has shape {list(weights[name].shape)}: its blocks don't cover {width} inputs"
    return FormatError(message, path=weights.checkpoint.files[0].path, tensor=name, code="adapter_base")
