"""The sign of rounding in a model that was written in another basis or at another scale.

A turned stream and folded scales lose nothing, so either order explains them, but for rounding: B = round(A M) lies
within half a step of A M in each of its own entries, while A is off B M⁻¹ by a mixture of such errors, which knows
nothing of A's steps. So whoever keeps within half a step of what the other predicts was written last. If both were
rounded from a third, neither does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.sampling import pick, sampled_columns, sampled_rows
from weightprint.util.arrays import F64
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.linear_algebra import product, svd
from weightprint.util.ranges import evenly
from weightprint.verdict.direction.counterparts import ffn_pairs
from weightprint.verdict.direction.samples import Seen, comparable, names
from weightprint.verdict.values import Cue, Label

_BITS = 10  # of a mantissa, at most: the maps are fitted more exactly than that
_RESIDUE = 0.5  # of the coarsest relative step, that what is left may be
_MOVED = 5e-3  # spread of scales that were folded
_BEYOND = 0.55  # of a step
_FEW, _TIMES = (
    0.15,
    2.0,
)  # share beyond it on the side that was written last, at most; the other's share by that, at least
_SEEN = 0.03  # the other's share, at least: a permuted stream was not rounded at all
_ENTRIES = 5000
_MATRICES, _ROWS, _COLUMNS, _WIDEST = 24, 256, 512, 2048

Predicted = tuple[F64, F64, F64, F64]  # A's values, what B predicts for them, B's values, what A predicts


def last_rounded(seen: Seen) -> Cue | None:
    """Scales or a basis that differ, and whose entries were rounded after that."""
    dtypes = {t.dtype for side in (seen.models.a, seen.models.b) for t in side.tensors.values() if t.rank2}
    if len(dtypes) > 1 or (dtype := next(iter(dtypes), "")) not in MANTISSA or MANTISSA[dtype][0] > _BITS:
        return None
    for how, found in (("scales", _scaled(seen.models, dtype)), ("basis", _turned(seen, dtype))):
        beyond = np.zeros(3)
        for x, x_told, y, y_told in found:
            beyond += [_beyond(x, x_told, dtype), _beyond(y, y_told, dtype), x.size]
        if beyond[2] < _ENTRIES:
            continue
        a, b = beyond[:2] / beyond[2]
        if min(a, b) > _FEW or max(a, b) < max(_SEEN, _TIMES * min(a, b)):
            continue
        later: Label = "a" if a < b else "b"
        this, other = names(later)
        told = f"{this} is {other} in another basis" if how == "basis" else f"{this} is {other} with scales folded"
        because = f"{told}: {1 - min(a, b):.0%} of its values are rounded to what {other} predicts, against"
        return Cue(later, 0.95, f"{because} {1 - max(a, b):.0%} the other way")
    return None


def _beyond(x: F64, told: F64, dtype: str) -> int:
    """Entries that are more than half a step of theirs off what is told."""
    return int(np.count_nonzero(np.abs(x - told) > _BEYOND * ulp(x, dtype)))


def _close(x: F64, told: F64, dtype: str) -> bool:
    step = 2.0 ** -MANTISSA[dtype][0]
    return float(np.linalg.norm(x - told)) <= _RESIDUE * step * float(np.linalg.norm(x))


def _scaled(models: ModelPair, dtype: str) -> Iterator[Predicted]:
    """Matrices in place whose rows, or columns, are the other's times a factor each."""
    usable = [p for p in models.pairs if comparable(p) and p.known.layer is not None and p.a.digest != p.b.digest]
    for pair in evenly(usable, _MATRICES):
        rows = pick(pair.a.shape[0], _ROWS, models.seed, "scales")
        columns = pick(pair.a.shape[1], _COLUMNS, models.seed, "scale columns")
        sides = ((models.a, pair.a), (models.b, pair.b))
        x, y = (sampled_rows(side, t, rows, columns).astype(np.float64) for side, t in sides)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            continue
        for axis in (0, 1):
            told, told_back = x * _factor(y, x, axis), y * _factor(x, y, axis)
            if _close(y, told, dtype) and _close(x, told_back, dtype) and _factor(y, x, axis).std() > _MOVED:
                yield x, told_back, y, told


def _factor(y: F64, x: F64, axis: int) -> F64:
    """Mean ratio: every entry was rounded by as much, whatever its size."""
    there = (x != 0) & (y != 0)
    ratio = np.divide(y, x, where=there, out=np.zeros_like(x))
    out: F64 = ratio.sum(axis=axis, keepdims=True) / np.maximum(there.sum(axis=axis, keepdims=True), 1)
    return out


def _turned(seen: Seen, dtype: str) -> Iterator[Predicted]:
    """What corresponding units write, where one orthogonal map takes A's channels to B's."""
    both = []
    for pair in ffn_pairs(seen.models, seen.maps):
        if pair.a.width != pair.b.width or pair.a.width > _WIDEST or pair.a.down is None or pair.b.down is None:
            continue
        x = sampled_columns(seen.models.a, pair.a.down, pair.of_a).astype(np.float64)
        y = sampled_columns(seen.models.b, pair.b.down, pair.of_b).astype(np.float64)
        if np.isfinite(x).all() and np.isfinite(y).all():
            both.append((x, y))
    if not both or sum(len(x) for x, _ in both) < 2 * both[0][0].shape[1]:
        return
    x, y = (np.concatenate(v) for v in zip(*both, strict=True))
    u, _, v = svd(product(x.T, y))
    turn = product(u, v)
    told = product(x, turn)
    if not _close(x, y, dtype) and _close(y, told, dtype):
        yield x, product(y, turn.T), y, told
