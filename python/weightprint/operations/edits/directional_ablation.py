"""One direction r of the residual stream taken out of what writes to it: W' = (I - s r r')W (arXiv 2406.11717).

The difference is -s r (r'W): of rank 1 like a small LoRA's, but its right vector is what A's own W says, where that of
an adapter is anybody's; a cosine of .9 in 32 or more dimensions is no chance. Rows may be scaled after that, to keep
their norms: W' = diag(c)(I - s r r')W; or rows are made of length one before, and get their length back behind it:
W' = diag(c)(I - s r r')diag(1/|row|)W. Then y_i = c_i x_i + e_i v' with one v for all rows: alternating least squares.

What was trained afterwards hides it: the rest must be no more than rounding. A direction whose part grew (s < 0) is the
same seen from the child, and gets no name; of s = 1 nothing is left that a child could be read from.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.model import Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Change, Changes
from weightprint.operations.structure import common, number
from weightprint.util import parallel
from weightprint.util.arrays import F32, F64
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.linear_algebra import eigh, product
from weightprint.util.ranges import evenly
from weightprint.verdict.facts import Facts

__all__ = ["directional_ablation"]

_WRITES = ("o", "down", "embedding")
_MATRICES = 24  # that are read
_INPUTS = 512  # of each, over all channels
_GLANCE = 64  # of three of them, before any other is read
_FEWEST = 32  # inputs and channels at least
_PREDICTED = 0.9  # cosine of the right vector with r'W
_MOST = 0.8  # of the matrices that were read
_SHARED = 0.9  # cosine of a matrix's direction with the common one
_LEFT = 1e-3  # of the change's mean square that may remain beside rounding
_ROUNDS = 30
_TRIED = 2  # rounds after which a fit must explain half of the change; a true one lacks some thousandths by then
_SETTLED = 1e-14  # of the right vector's cosine with the one before
_ALIKE = 0.05  # strengths of layers that differ by no more are one


@dataclass(frozen=True, slots=True)
class _Fit:
    change: Change
    direction: F64  # (channels,), of length one
    strength: float
    scaled: bool


def directional_ablation(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"strength", "roles", "layers", "matrices", "of", "sharing", "rescaled"}``: matrices that show it, of those
    read, how many have the commonest direction; ``"strengths"``: [[layer, strength], …] where they differ."""
    if not facts.models.budget.whole:
        return
    writing = [c for c in changes.matrices if c.role in _WRITES and all(_stepped(t) for t in (c.a, c.b))]
    width = common([_channels(c) for c in writing])
    by_role = {role: [c for c in writing if c.role == role and _channels(c) == width] for role in _WRITES}
    coded = any(_coded(c) for c in writing)  # how large their steps are is known of those that were looked at
    known = {role: [c for c in same if not coded or c.seen is not None] for role, same in by_role.items()}
    read = [c for same in known.values() if same for c in evenly(same, _MATRICES // sum(map(bool, known.values())))]
    if len(read) < 2 or not any(_fit(facts.models, c, _GLANCE) for c in evenly(read, 3)):
        return
    found = [fit for fit in parallel.each(lambda c: _fit(facts.models, c), read) if fit is not None]
    if len(found) < 2 or len(found) < _MOST * len(read):
        return
    yield _told(found, read, by_role)


def _told(found: Sequence[_Fit], read: Sequence[Change], by_role: dict[str, list[Change]]) -> Operation:
    roles = [role for role in _WRITES if any(f.change.role == role for f in found)]
    unseen = {c.b.name for c in read} - {f.change.b.name for f in found}
    explained = [c for role in roles for c in by_role[role] if c.b.name not in unseen]
    directions = np.array([f.direction for f in found])
    shared = np.abs(product(directions, directions.T)) >= _SHARED
    sharing = int(shared.sum(axis=1).max())
    by_layer: dict[int, list[float]] = defaultdict(list)
    for f in found:
        if f.change.layer is not None:
            by_layer[f.change.layer].append(f.strength)
    strengths = [[layer, number(float(np.mean(by_layer[layer])))] for layer in sorted(by_layer)]
    parameters: Row = {
        "strength": number(float(np.median([f.strength for f in found]))),
        "roles": roles,
        "layers": sorted({c.layer for c in explained if c.layer is not None}),
        "matrices": len(found),
        "of": len(read),
        "sharing": sharing,
        "rescaled": 2 * sum(f.scaled for f in found) > len(found),
    }
    if strengths and np.ptp([s for _, s in strengths]) > _ALIKE:
        parameters["strengths"] = strengths
    where = f"{sharing} of {len(read)} matrices that write to the stream lost the same direction"
    if parameters["rescaled"]:
        where += ", and their rows were scaled"
    return Operation(
        "directional_ablation",
        parameters,
        where,
        0.97 if sharing > len(found) / 2 else 0.9,
        frozenset(c.b.name for c in explained),
    )


def _stepped(tensor: Tensor) -> bool:
    """How far apart its values lie is known."""
    return tensor.dtype in MANTISSA or (tensor.coded and tensor.levels is not None)


def _coded(change: Change) -> bool:
    """Either side was quantised, in steps that are known."""
    return change.seen is not None and change.seen.rounding > 0


def _channels(change: Change) -> int:
    return change.b.shape[1 if change.role == "embedding" else 0]


def _fit(models: ModelPair, change: Change, inputs: int = _INPUTS) -> _Fit | None:
    """The direction that explains the whole change of one matrix, or None."""
    x, y = (z.astype(np.float64) for z in _read(models, change, inputs))
    if min(x.shape) < _FEWEST or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    variance = np.full(x.shape, change.seen.rounding if change.seen is not None else 0.0)
    for z, dtype in ((x, change.a.dtype), (y, change.b.dtype)):
        variance += ulp(z, dtype) ** 2 / 12 if dtype in MANTISSA else 0.0
    return _plain(change, x, y, variance) or _rescaled(change, x, y, variance)


def _read(models: ModelPair, change: Change, inputs: int) -> tuple[F32, F32]:
    """Channels by inputs of both; the inputs of an embedding are its tokens."""
    if change.role == "embedding":
        rows = pick(change.b.shape[0], inputs, models.seed, f"tokens of {change.b.name}")
        return sampled_rows(models.a, change.a, rows).T, sampled_rows(models.b, change.b, rows).T
    columns = pick(change.b.shape[1], inputs, models.seed, f"inputs of {change.b.name}")
    every = np.arange(change.b.shape[0])
    return sampled_rows(models.a, change.a, every, columns), sampled_rows(models.b, change.b, every, columns)


def _plain(change: Change, x: F64, y: F64, variance: F64) -> _Fit | None:
    d = y - x
    v = _right(d)
    along = d @ v
    r = along / max(float(np.linalg.norm(along)), 1e-300)
    if not _explained(d - np.outer(along, v), d, variance):
        return None
    return _of_its_own(change, x, r, v, float(np.linalg.norm(along)), scaled=False)


def _rescaled(change: Change, x: F64, y: F64, variance: F64) -> _Fit | None:
    squares, xy = np.maximum(np.einsum("ij,ij->i", x, x), 1e-300), np.einsum("ij,ij->i", x, y)
    c = xy / squares
    v = _right(y - c[:, None] * x)
    for turn in range(_ROUNDS):
        xv, yv = x @ v, y @ v
        determinant = np.maximum(squares - xv * xv, 1e-12 * squares)
        c, e = (xy - yv * xv) / determinant, (yv * squares - xv * xy) / determinant
        before, v = v, e @ y - (e * c) @ x
        v /= max(float(np.linalg.norm(v)), 1e-300)
        if turn == _TRIED and not _mostly(y - c[:, None] * x - np.outer(e, v), y - x):
            return None
        if 1 - abs(float(v @ before)) < _SETTLED:
            break
    if not _explained(y - c[:, None] * x - np.outer(e, v), y - x, variance) or np.min(np.abs(c)) < 0.1:
        return None
    lengths = np.sqrt(squares)
    for unit in (np.ones(len(x)), lengths):  # of rows before r was taken out of them
        g = e / (c * unit)
        size = float(np.linalg.norm(g))
        if size > 0 and (fit := _of_its_own(change, x / unit[:, None], g / size, v, size, scaled=True)) is not None:
            return fit
    return None


def _right(d: F64) -> F64:
    """First right singular vector."""
    vector: F64 = eigh(product(d.T, d))[1][:, -1]
    return vector


def _mostly(left: F64, d: F64) -> bool:
    """Half of the change is explained."""
    return 2 * float(np.vdot(left, left)) <= float(np.vdot(d, d))


def _explained(left: F64, d: F64, variance: F64) -> bool:
    """What is left is rounding, and the change is more than that."""
    rounding, whole = float(variance.sum()), float(np.vdot(d, d))
    edge = math.sqrt(float(variance.sum(axis=1).max())) + math.sqrt(float(variance.sum(axis=0).max()))
    return whole > (2 * edge) ** 2 and float(np.vdot(left, left)) <= 2 * rounding + _LEFT * whole


def _of_its_own(change: Change, x: F64, r: F64, v: F64, size: float, *, scaled: bool) -> _Fit | None:
    """``size * r v'`` as -s r (r'x), s > 0, if v is what x says."""
    own = r @ x
    length = float(np.linalg.norm(own))
    if length == 0 or float(v @ own) / length > -_PREDICTED:
        return None
    return _Fit(change, r, -size * float(v @ own) / length**2, scaled)
