"""Where two models parted: what is new in each is orthogonal to what it was made from.

Training, noise and adapters add something that knows nothing of the values that it is added to. So with P the point
where A and B parted, A = P + X and B = P + Y, where X and Y are orthogonal to P and to each other, row by row and
channel by channel, and the share of their difference that is A's own is

    t = |X|² / |B - A|² = (|A|² - <A, B>) / |B - A|²        0: A is where they parted, 1: B is, between: siblings

*Decay* bends it: training with weight decay, or any other loss of what was there, makes B = c A + Y, and 1 - c weighs
as much as |Y|² (of real fine-tunes plain t reads .3 to 1.7, where 0 is true). But c is common to all rows, and how much
was learned differs from row to row. For rows r of all matrices

    <A_r, B_r> / |A_r|²  =  c - t c |B_r - A_r|² / |A_r|²   (t = 0: the left side is c, however much a row learned)

So t is the slope of the left side on |B_r - A_r|²/|A_r|², from A's side, and 1 - t is that with A and B exchanged: each
is exact where its own model is the ancestor, so they must not be far apart. Both variables are of the same sums; so
that their noise is not taken for a slope, one is of even channels and the other of odd ones (an instrument, Wald 1940).
The same over channels in place of rows. Rows of all kinds have one intercept, since decay has one rate; and with an
intercept for each kind of matrix the slope is told too, which shows whether t hangs on that.

*Decay itself has a direction.* c_A = <A, B>/|A|² at no difference, and c_B with the sides exchanged. B that was trained
on from A has c_A < 1 < c_B; a mean of relatives, which lies nearer to the origin than they do and so looks like their
ancestor, has c = 1 both ways: ``pull`` = (c_B - c_A) |A| |B| / 2 |B - A|², the decay in units of the difference.

Values that are zero on either side are left out (pruned ones are no part of what was learned), and so are channels and
rows that are no counterparts (units drawn anew, heads put elsewhere): where 1 - cosine is more than ten times that of
the best fifth, or the cosine less than three tenths of theirs.
Intervals: jackknife over blocks, or over matrices where there are fewer than four blocks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from weightprint.evidence.pair import ModelPair
from weightprint.util.arrays import F64, Bools
from weightprint.util.linear_algebra import svdvals
from weightprint.util.ranges import evenly
from weightprint.verdict.direction.counterparts import Counterpart, counterparts
from weightprint.verdict.maps import Maps
from weightprint.verdict.values import Parting

_FEWEST = 12  # rows of a matrix
_EQUAL = 1e-9  # of |A|²: less than this is no difference
_ALIKE = 0.2  # median cosine of rows that correspond
_OFF, _FIFTH, _PART = 10.0, 20, 0.3  # times 1 - cosine of the best fifth of rows; of the best fifth's cosine
_BLOCKS = 4
_LOOKED_AT = 4  # matrices whose difference is taken apart


def parting(models: ModelPair, maps: Maps | None) -> Parting | None:
    """Where the two parted, as far as their blocks tell; None where nothing differs or nothing could be compared."""
    found = measured(counterparts(models, maps))
    coded = any(t.coded and t.rank2 for side in (models.a, models.b) for t in side.tensors.values())
    return found and replace(found, coded=coded)


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one matrix, or of its sketch.

    ``lines``: for A's side and B's, over rows or channels: their number, sums of x, y, x x' and x y' (x': of the other
    half of the values); float64 (2, 5). ``squares``: |A|², <A, B>, |B|². ``zeroed``: as in `Parting`.
    ``values``: how many they are of. ``difference``: B - A, None where only the sums are known.
    """

    block: Hashable
    kind: str
    across: str
    lines: F64
    squares: F64
    zeroed: float
    values: int
    difference: F64 | None


def measured(pairs: Iterable[Counterpart]) -> Parting | None:
    """The same of matrices that were brought together."""
    return summed([found for pair in pairs for found in _sums(pair)])


def summed(sums: list[Sums]) -> Parting | None:
    """The same of sums."""
    if not sums:
        return None
    blocks = {s.block for s in sums}
    cluster: Callable[[Sums], Hashable] = (
        (lambda s: s.block) if len(blocks) >= _BLOCKS else (lambda s: (s.block, s.kind))
    )
    together = _told(sums, _across)
    spread = _jackknife(sums, cluster)
    if not np.isfinite(together).all() or not np.isfinite(spread).all():
        return None
    by_kind = _told(sums, lambda s: (s.across, s.kind))
    kinds: dict[str, tuple[float, float, float]] = {}
    for kind in dict.fromkeys(s.kind for s in sums):
        own = [s for s in sums if s.kind == kind]
        t, sd = _told(own, _across)[:2], _jackknife(own, cluster)[:2]
        if np.isfinite(t).all() and np.isfinite(sd).all():
            kinds[kind] = _interval(t, sd)
    rows = [s for s in sums if s.across == "rows"] or sums
    differences = [s.difference for s in rows if s.difference is not None]
    xx, xy, yy = sum((s.squares for s in sums), np.zeros(3))
    size = math.sqrt(xx * yy)
    relative = float((xx + yy - 2 * xy) / size)
    low, middle, high = _interval(together[:2], spread[:2])
    return Parting(
        t=middle,
        low=low,
        high=high,
        of_a=float(together[0]),
        of_b=float(together[1]),
        sd_of_a=float(spread[0]),
        sd_of_b=float(spread[1]),
        within_kinds=float(by_kind[:2].mean()),
        kept=(float(together[2]), float(together[3])),
        pull=float((together[3] - together[2]) / (2 * relative)),
        plain=float((xx - xy) / (xx + yy - 2 * xy)),
        relative=math.sqrt(relative),
        zeroed=float(np.mean([s.zeroed for s in sums])),
        edge=float(np.median([_edge(d) for d in evenly(differences, _LOOKED_AT)])) if differences else None,
        values=sum(s.values for s in rows),
        blocks=len(blocks),
        matrices=len({(s.block, s.kind) for s in sums}),
        kinds=kinds,
    )


def _interval(t: F64, sd: F64) -> tuple[float, float, float]:
    """Low, middle and high: both sides' mean, and two standard deviations around the side further out."""
    return float((t - 2 * sd).min()), float(t.mean()), float((t + 2 * sd).max())


# From values to sums


def _sums(pair: Counterpart) -> Iterable[Sums]:
    x, y = pair.x.astype(np.float64), pair.y.astype(np.float64)
    # A row or channel of zeros alone is one that the other side has no counterpart of.
    here = np.ix_(*(np.flatnonzero(x.any(axis=1 - k) & y.any(axis=1 - k)) for k in (0, 1)))
    zeroed = float(np.mean((x[here] == 0) != (y[here] == 0))) if here[0].size and here[1].size else 0.0
    gone = (x == 0) | (y == 0) | ~np.isfinite(x) | ~np.isfinite(y)
    x[gone] = y[gone] = 0.0
    for axis in (1, 0):
        kept = _corresponding(x, y, axis)
        if kept is None:
            return
        x, y = (v[kept] if axis == 1 else v[:, kept] for v in (x, y))
    squares = np.array([np.vdot(x, x), np.vdot(x, y), np.vdot(y, y)])
    if squares[0] + squares[2] - 2 * squares[1] <= _EQUAL * squares[0]:
        return
    for across, (a, b) in {"rows": (x, y), "channels": (x.T, y.T)}.items():
        if len(a) >= _FEWEST and a.shape[1] >= 2:
            yield Sums(pair.block, pair.kind, across, _lines(a, b), squares / 2, zeroed, x.size, y - x)


def _corresponding(x: F64, y: F64, axis: int) -> Bools | None:
    """Rows (axis 1) or channels (0) that are counterparts; None where too few or none are."""
    xx, xy, yy = (np.einsum("ij,ij->i" if axis == 1 else "ij,ij->j", p, q) for p, q in ((x, x), (x, y), (y, y)))
    there = (xx > 1e-6 * xx.mean()) & (yy > 1e-6 * yy.mean())
    if np.count_nonzero(there) < _FEWEST:
        return None
    off = 1 - xy / np.sqrt(np.maximum(xx * yy, 1e-300))
    if 1 - np.median(off[there]) < _ALIKE:
        return None
    best, usual = 1 - np.percentile(off[there], _FIFTH), _OFF * np.percentile(off[there], _FIFTH)
    kept: Bools = there & (off <= usual + 1e-7) & (1 - off >= _PART * best)
    return kept if np.count_nonzero(kept) >= _FEWEST else None


def _lines(x: F64, y: F64) -> F64:
    """Of rows: what `Sums.lines` holds."""
    halves = [(x[:, i::2], y[:, i::2]) for i in (0, 1)]
    xx, xy, yy = ([np.einsum("ij,ij->i", p, q) for p, q in zip(*some, strict=True)] for some in _products(halves))
    usable = np.min([*xx, *yy], axis=0) > 0
    out = []
    for own in (xx, yy):
        gap = [((p + q - 2 * r) / o)[usable] for p, q, r, o in zip(xx, yy, xy, own, strict=True)]
        kept = [(r / o)[usable] - 1 for r, o in zip(xy, own, strict=True)]
        out.append(
            [
                np.count_nonzero(usable),
                (gap[0].sum() + gap[1].sum()) / 2,
                (kept[0].sum() + kept[1].sum()) / 2,
                gap[0] @ gap[1],
                (gap[0] @ kept[1] + gap[1] @ kept[0]) / 2,
            ]
        )
    return np.array(out)


def _products(halves: list[tuple[F64, F64]]) -> list[tuple[list[F64], list[F64]]]:
    x, y = [h[0] for h in halves], [h[1] for h in halves]
    return [(x, x), (x, y), (y, y)]


def _edge(d: F64) -> float:
    """Largest singular value of a difference over sd (sqrt(m) + sqrt(n)), where that of white noise is (Geman 1980)."""
    sd = math.sqrt(float(np.mean(np.square(d))))
    return float(svdvals(d)[0]) / (sd * sum(map(math.sqrt, d.shape))) if sd > 0 else math.inf


# From sums to t


def _across(s: Sums) -> Hashable:
    return s.across


def _told(sums: Iterable[Sums], intercept: Callable[[Sums], Hashable]) -> F64:
    """t from A's side and from B's, what is kept from A to B and from B to A where nothing differs; float64 (4,)."""
    groups: Mapping[Hashable, F64] = defaultdict(lambda: np.zeros((2, 5)))
    for s in sums:
        groups[intercept(s)][:] += s.lines
    over, under, total = np.zeros(2), np.zeros(2), np.zeros((2, 5))
    for lines in groups.values():
        n, x, y, xx, xy = lines.T
        over, under, total = over - (xy - x * y / n), under + (xx - x * x / n), total + lines
    with np.errstate(all="ignore"):
        slope = over / under
        kept = 1 + total[:, 2] / total[:, 0] + slope * total[:, 1] / total[:, 0]
    return np.array([slope[0], 1 - slope[1], *kept])


def _jackknife(sums: list[Sums], cluster: Callable[[Sums], Hashable]) -> F64:
    """Standard deviation of each number, from leaving out one cluster at a time; infinite where there is one."""
    clusters = list(dict.fromkeys(map(cluster, sums)))
    n = len(clusters)
    if n < 2:
        return np.full(4, np.inf)
    without = np.array([_told([s for s in sums if cluster(s) != one], _across) for one in clusters])
    with np.errstate(all="ignore"):
        out: F64 = np.sqrt((n - 1) / n * np.square(without - without.mean(axis=0)).sum(axis=0))
    return out
