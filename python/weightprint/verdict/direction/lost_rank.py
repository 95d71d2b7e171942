"""The sign of a projection: singular values that one side has and the other lacks, where the two agree in all else.

B = P A with P a projection (matrices cut to a low rank, a direction taken out) has fewer singular values above rounding
than A, and what it lost stands at right angles to what it kept: <A - B, B> = 0. The way back would put something into
just the directions that were empty, in matrix after matrix.
"""

from __future__ import annotations

import numpy as np

from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F64
from weightprint.util.linear_algebra import gram_singular_values
from weightprint.util.ranges import evenly
from weightprint.verdict.direction.samples import Seen, names
from weightprint.verdict.values import Cue, Label

_MATRICES, _ROWS = 8, 512
_RIGHT = 0.02  # of |A - B|^2, that <A - B, B> may be
_EMPTY = 0.1  # of the same singular value of the other side, at most: rounding leaves that of an empty direction
_FALL = 0.05  # of the last that is there


def lost_rank(seen: Seen) -> Cue | None:
    """One side lacks directions that the other has, in every matrix looked at that differs."""
    lost: list[Label | None] = []
    differing = [p for p, x, y in seen.samples if p.a.dtype == p.b.dtype or not np.array_equal(x, y)]
    for pair in evenly([p for p in differing if p.a.digest != p.b.digest], _MATRICES):
        rows = pick(pair.a.shape[0], _ROWS, seen.models.seed, "lost rank")
        x = sampled_rows(seen.models.a, pair.a, rows).astype(np.float64)
        y = sampled_rows(seen.models.b, pair.b, rows).astype(np.float64)
        if np.linalg.norm(y - x) > 0.01 * np.linalg.norm(x):
            lost.append("b" if _projected(x, y) else "a" if _projected(y, x) else None)
            if lost[-1] is None:
                return None
    if len(lost) < 2 or len(set(lost)) > 1:
        return None
    later = lost[0]
    assert later is not None
    this, other = names(later)
    because = f"{this} lacks directions that {other} has, in each of {len(lost)} matrices looked at that differ"
    return Cue(later, 0.95, because)


def _projected(x: F64, y: F64) -> bool:
    """y is x without some directions."""
    d = x - y
    if not np.isfinite(d).all() or abs(float(np.vdot(d, y))) > _RIGHT * float(np.vdot(d, d)):
        return False
    ours, theirs = (gram_singular_values(z) for z in (x, y))
    empty = theirs < np.minimum(_EMPTY * ours, _FALL * theirs[0])
    rank = int(np.argmax(empty))
    return bool(empty[-1] and empty[rank:].all() and (rank == 0 or theirs[rank] < _FALL * theirs[rank - 1]))
