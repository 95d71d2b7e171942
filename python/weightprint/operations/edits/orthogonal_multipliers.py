"""Matrices turned by block-diagonal orthogonal matrices of their own: W R or R W (OFT, arXiv 2306.07280).

A turn keeps lengths, |B| = |A|, where a change drawn at random adds its own: few matrices are read any further. It
keeps those of every row's part in every block, and so in every union of blocks: what the widest blocks don't keep is no
turn in narrower ones either, and of most matrices no more than some rows of these is read. Then,
from the smallest block size that divides the inputs (or the outputs) upwards: in a few blocks the orthogonal R nearest
to taking A's columns to B's (Schoenemann 1966, from the singular vectors of X'Y). The first size that leaves rounding
is it. R has b(b - 1)/2 numbers of its own for n b values, so of a change that is no turn it explains (b - 1)/2n: half
of it at most, where only sizes up to n are tried.

Not told as this: factors and signs (block size 1), reordered columns, and turns that other matrices undo (one R in all
that read the stream, or inside heads). A turn of everything at once leaves another basis and is a rotation. Butterflies
(BOFT, arXiv 2311.06243) of more than one factor show as one block as wide as they reach.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Change, Changes
from weightprint.operations.structure import common, number
from weightprint.util import parallel
from weightprint.util.arrays import F64, I64
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.linear_algebra import product, svd
from weightprint.util.ranges import evenly
from weightprint.verdict.facts import Facts

__all__ = ["orthogonal_multipliers"]

_MATRICES = 16  # that are read
_LONGER = 0.3  # of |B - A|^2, that |B|^2 may differ from |A|^2 over the rows of a glance
_BLOCKS, _LARGEST = 4, 512  # blocks of a matrix that are looked at, and the largest size
_ACROSS = 1024  # rows (or columns) that a block is read over
_FEW = 128  # of these, that tell whether lengths are kept
_KEPT = 0.3  # of what an independent change adds to squares: what must be undercut, rounding aside
_LEFT = 0.02  # of the change's mean square that turning A may leave, beside rounding
_MOST = 0.8  # of the matrices of a role that were read
_ORDER = 0.999  # mean of the largest entries of R's rows: of an order, flipped or not, 1
_SAME = 0.2  # |R - S| / |R - 1| of two matrices that were turned by the same
_KINDS = ("other", "noise", "head map")

_Pair = tuple[tuple[ModelView, Tensor], tuple[ModelView, Tensor]]


@dataclass(frozen=True, slots=True)
class _Turn:
    change: Change
    side: str
    block: int
    angle: float
    first: F64


def orthogonal_multipliers(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"block", "side", "angle", "roles", "matrices", "of"}``: angle: root mean square of those that blocks turn by,
    radians; ``"angles"``: by role where they differ."""
    if not facts.models.budget.whole:
        return
    by_role: dict[str, list[Change]] = defaultdict(list)
    for change in changes.matrices:
        if change.layer is not None and _keeps_lengths(change):
            by_role[change.role].append(change)
    each = max(1, _MATRICES // max(1, len(by_role)))
    read = {role: evenly(same, each) for role, same in by_role.items()}
    found: dict[str, list[_Turn]] = defaultdict(list)
    for turn in parallel.each(lambda c: _turn(facts.models, c), (c for same in read.values() for c in same)):
        if turn is not None:
            found[turn.change.role].append(turn)
    roles = [role for role, turns in found.items() if len(turns) >= _MOST * len(read[role])]
    turns = [turn for role in roles for turn in found[role]]
    if len(turns) < 2 or _undone(turns):
        return
    side, block = common([(t.side, t.block) for t in turns])
    angles = {role: number(_rms([t.angle for t in found[role]])) for role in roles}
    parameters: Row = {
        "block": block,
        "side": side,
        "angle": number(_rms([t.angle for t in turns])),
        "roles": roles,
        "matrices": len(turns),
        "of": sum(len(read[role]) for role in roles),
    }
    if max(angles.values()) > 1.1 * min(angles.values()):
        parameters["angles"] = angles
    unseen = {c.b.name for role in roles for c in read[role]} - {t.change.b.name for t in turns}
    explained = {c.b.name for role in roles for c in by_role[role]} - unseen
    where = f"{len(turns)} matrices of {', '.join(roles)}: {side} turned in blocks of {block}, each by its own"
    yield Operation("orthogonal_multipliers", parameters, where, 0.95, frozenset(explained))


def _keeps_lengths(change: Change) -> bool:
    stored = change.a.dtype in MANTISSA and change.b.dtype in MANTISSA
    kind = change.kind in _KINDS or not change.kind
    return stored and kind and abs(change.yy - change.xx) <= _LONGER * change.dd


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _undone(turns: Sequence[_Turn]) -> bool:
    """What one matrix is turned by others are too (in a stream, or in what heads carry from v to o)."""
    pairs = [(x.first, y.first) for i, x in enumerate(turns) for y in turns[:i] if x.block == y.block]
    return any(np.linalg.norm(x - y) < _SAME * np.linalg.norm(x - np.eye(len(x))) for x, y in pairs)


def _turn(models: ModelPair, change: Change) -> _Turn | None:
    n, m = change.b.shape
    rows = pick(n, _ACROSS, models.seed, f"rows of {change.b.name}")
    found = _smallest(models, change, "inputs", m, rows)
    if found is not None:
        return found
    return _smallest(models, change, "outputs", n, pick(m, _ACROSS, models.seed, f"inputs of {change.b.name}"))


def _smallest(models: ModelPair, change: Change, side: str, width: int, across: I64) -> _Turn | None:
    """The turn in the smallest blocks that explains what was read; None if none does, or it is an order or signs."""
    pair = (models.a, change.a), (models.b, change.b)
    sizes = [b for b in range(2, min(_LARGEST, across.size) + 1) if width % b == 0]
    widest = [b for b in sizes if not any(c > b and c % b == 0 for c in sizes)]
    kept = [b for b in widest if _keeps_parts(pair, side, width, b, across[:: -(-across.size // _FEW)])]
    for block in (b for b in sizes if any(c % b == 0 for c in kept)):
        seen = [_nearest(*_block(pair, side, i * block, block, across)) for i in evenly(range(width // block), _BLOCKS)]
        left, changed, rounding = np.sum([sums for _, sums in seen], axis=0)
        if not left <= 2 * rounding + _LEFT * changed or changed < 4 * rounding:
            continue
        turns = [turn for turn, _ in seen]
        if np.mean([np.abs(r).max(axis=1) for r in turns]) > _ORDER and not all(
            (np.diag(r) > 0.5).all() for r in turns
        ):
            return None
        angles = np.angle(np.concatenate([np.linalg.eigvals(r) for r in turns]))
        return _Turn(change, side, block, _rms(angles.tolist()), turns[0])
    return None


def _keeps_parts(pair: _Pair, side: str, width: int, block: int, across: I64) -> bool:
    """Whether parts of rows inside a block are as long in B as in A, up to rounding. By an independent change d a
    square grows by 2<x, d>, whose own square is about 4|x|^2|d|^2 / block."""
    grown = allowed = 0.0
    for i in evenly(range(width // block), 2):
        x, y, _ = _block(pair, side, i * block, block, across)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return False
        xx, yy, dd = (np.einsum("ij,ij->i", z, z) for z in (x, y, y - x))
        grown += float(np.square(yy - xx).sum())
        steps = ulp(x, pair[0][1].dtype) ** 2 + ulp(y, pair[1][1].dtype) ** 2
        allowed += _KEPT * 4 * float(xx @ dd) / block + 2 * 4 * float(np.vdot(np.square(x), steps)) / 12
    return grown <= allowed


def _nearest(x: F64, y: F64, rounding: float) -> tuple[F64, tuple[float, float, float]]:
    """The orthogonal matrix that takes x nearest to y; sums of squares of what is left, the change, rounding."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.eye(x.shape[1]), (np.inf, 0.0, 0.0)
    u, _, v = svd(product(x.T, y))
    turn = product(u, v)
    return turn, (float(np.square(y - product(x, turn)).sum()), float(np.square(y - x).sum()), rounding)


def _block(pair: _Pair, side: str, start: int, block: int, across: I64) -> tuple[F64, F64, float]:
    """Columns of both on these inputs, or rows of these outputs, transposed; sum of squares of their rounding."""
    at = np.arange(start, start + block)
    if side == "inputs":
        x, y = (sampled_rows(model, tensor, across, at).astype(np.float64) for model, tensor in pair)
    else:
        x, y = (sampled_rows(model, tensor, at, across).T.astype(np.float64) for model, tensor in pair)
    return x, y, float((ulp(x, pair[0][1].dtype) ** 2 + ulp(y, pair[1][1].dtype) ** 2).sum()) / 12
