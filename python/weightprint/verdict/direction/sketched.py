"""Where two models parted, from their linear sketches: what :mod:`weightprint.verdict.direction.parting` reads of rows,
of whole matrices.

The norms |A| and |B| of a matrix are known exactly, and the sketches give that of D = B - A, so

    <A, D> = (|B|² - |A|² - |D|²) / 2        with a variance of |D|⁴ / 2k for a sketch of k numbers

which is far less than that of the sketches' own product, |A|² |D|² / k. Even and odd buckets are two sketches with
noise of their own: a matrix stands where a row does there, and a half of the buckets where a half of the channels does.
The deviation that the sketch has in t is added to the spread over blocks, though that has seen it already.

Signs of a sketch are fixed by place, so only matrices in one place are compared. What loses values (rounding, zeros,
low rank) leaves traces that no sketch shows, and what a projection took looks like what training added; so much less is
claimed than from values (:mod:`weightprint.verdict.direction.direction`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from weightprint.anatomy.place import Place
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.fingerprint.model import Tensor
from weightprint.util.arrays import F64, Bools
from weightprint.verdict.direction.parting import Sums, summed
from weightprint.verdict.values import Parting

_FEWEST = 12  # matrices
_EQUAL = 1e-9  # of |A|²: less than this is no difference
_ALIKE, _OFF, _FIFTH, _PART = 0.2, 10.0, 20, 0.3  # as of rows


def in_one_place(a: Fingerprint, b: Fingerprint) -> Iterator[tuple[Place, Tensor, Tensor]]:
    """Matrices of both that have one place and shape, so that their sketches have the same signs."""
    ours = {t.place: t for t in a.tensors.values() if t.place is not None and t.sketched}
    for other in b.tensors.values():
        found = ours.get(other.place) if other.place is not None and other.sketched else None
        if found is not None and other.place is not None and found.shape == other.shape:
            yield other.place, found, other


def sketched_parting(a: Fingerprint, b: Fingerprint) -> Parting | None:
    """Where the two parted, of the blocks' matrices that differ; None where too few do."""
    there = [
        (place, ours, theirs)
        for place, ours, theirs in in_one_place(a, b)
        if place.block is not None and ours.digest != theirs.digest and not (ours.constant or theirs.constant)
    ]
    if len(there) < _FEWEST:
        return None
    names = [(ours.name, theirs.name) for _, ours, theirs in there]
    x, y = np.stack([a.sketch(one) for one, _ in names]), np.stack([b.sketch(other) for _, other in names])
    xx = np.array([a.statistics("l2")[one] ** 2 for one, _ in names])
    yy = np.array([b.statistics("l2")[other] ** 2 for _, other in names])
    dd = np.stack([2 * np.square((y - x)[:, half::2]).sum(axis=1) for half in (0, 1)], axis=1)
    kept = _corresponding(xx, yy, dd.mean(axis=1))
    if np.count_nonzero(kept) < _FEWEST:
        return None
    sums = [_sums(*there[k], float(xx[k]), float(yy[k]), dd[k]) for k in np.nonzero(kept)[0]]
    found = summed(sums)
    if found is None:
        return None
    size = dd[kept].mean(axis=1)
    deviation = math.sqrt(2 / x.shape[1] * float(size @ size)) / float(size.sum())  # of |D|², relative
    own = abs(found.t - 0.5) * deviation
    return replace(
        found,
        low=found.low - 2 * own,
        high=found.high + 2 * own,
        sd_of_a=math.hypot(found.sd_of_a, own),
        sd_of_b=math.hypot(found.sd_of_b, own),
        coded=any(t.coded for f in (a, b) for t in f.tensors.values()),
        same_parts=_parts(a) == _parts(b),
        sd_of_plain=max(abs(found.plain - 0.5), 0.5) * deviation,
    )


def _parts(of: Fingerprint) -> set[tuple[object, ...]]:
    return {(t.place or t.name, t.shape, t.dtype, t.coded) for t in of.tensors.values()}


def _corresponding(xx: F64, yy: F64, dd: F64) -> Bools:
    """Matrices that are counterparts, told as rows are there."""
    there: Bools = (np.minimum(xx, yy) > 0) & (dd > _EQUAL * xx)
    if not there.any():
        return there
    off = 1 - (xx + yy - dd) / (2 * np.sqrt(np.maximum(xx * yy, 1e-300)))
    if 1 - np.median(off[there]) < _ALIKE:
        return np.zeros_like(there)
    best = np.percentile(off[there], _FIFTH)
    kept: Bools = there & (off <= _OFF * best + 1e-7) & (1 - off >= _PART * (1 - best))
    return kept


def _sums(place: Place, ours: Tensor, theirs: Tensor, xx: float, yy: float, dd: F64) -> Sums:
    lines = []
    for own, other in ((xx, yy), (yy, xx)):
        gap, kept = dd / own, (other - own - dd) / (2 * own)  # |D|² and <A, B> - |own|², over |own|²
        lines.append([1, gap.mean(), kept.mean(), gap[0] * gap[1], (gap[0] * kept[1] + gap[1] * kept[0]) / 2])
    zeros = [(t.zeros or 0) / t.numel for t in (ours, theirs)]
    kind = f"{place.role}" if place.expert is None else f"{place.role} of experts"
    squares = np.array([xx, (xx + yy - dd.mean()) / 2, yy])
    at = place.stack, place.block
    return Sums(at, kind, "rows", np.array(lines), squares, abs(zeros[0] - zeros[1]), ours.numel, None)
