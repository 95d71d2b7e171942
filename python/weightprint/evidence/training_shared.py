"""Common training or only a common initialisation? Where blocks agree in place, what is it that they agree in?

Two models of one random seed, trained apart (A = I + X, B = I + Y), keep so much of I that their matrices still agree
with cosines of .2 to .8, channel by channel and unit by unit: every test of this package sees them as kin, and so they
are, but neither learned from the other. Descent is B = A + D. Two looks tell the cases apart.

*Where the agreement lies.* I is isotropic noise; training writes a few strong directions. With A = sum s_i u_i v_i' the
slope of B along A's i-th direction is u_i'B v_i / s_i: how much of it B still has. Let R_A be the slope along the
leading twelfth of the directions over the slope along the weaker half (each weighted by s_i^2), median over the
matrices that read the stream (q, k, v, gate, up; the norm's gain folded in), and R_B the same with A and B exchanged.

* common initialisation only: what A wrote strongly B doesn't have, what neither touched both do: R_A < 1 and R_B < 1;
* descent: whatever A holds B has inherited, strong directions at least as well: R_A >= 1. B's own are new: R_B < R_A.

So max(R_A, R_B) tells descent, and which of the two is larger hints at the older one (or the one nearer to a common
ancestor). Matrices that write the stream start small and are soon all training, so both cases look alike there.

*Any order, any basis.* Where an FFN's rows don't agree in place its units are put in A's order first: a row of A is
met by the row of B that is most like it, if it stands out from what chance gives the best of so many. So a copy whose
units were permuted can be asked, and in a basis that was found (no gains under a rotation) a turned one.

*What starts constant.* Norm gains start at one and their offsets at zero, so whatever they share they learned: mean
Spearman correlation over norms.

Measured (see :data:`MEASURED`): descent has R >= .98 and gains >= .7 even after three times the parent's own training,
common initialisation R <= .90 and gains <= .55, other data, same data in other order and three times the training
included. Between the limits, or where the two looks disagree, the answer is "either": with ever more training on the
same data convergence pushes the gains of one initialisation together (.33 to .54 as the training grew sixteenfold)
and R towards one, and long washing takes descent apart. No p-value: under "only the initialisation is common" gains
aren't independent, since what is learned depends on where it started.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from weightprint.evidence.budget import hidden_size
from weightprint.evidence.evidence import Details, Evidence, not_applied
from weightprint.evidence.norm_gains import channel_vectors, ranks
from weightprint.evidence.nulls.exchange import double_centre
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.test import Test
from weightprint.evidence.thresholds import EFFECT
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32, F64, Indices
from weightprint.util.linear_algebra import eigh, product, unit_rows
from weightprint.util.ranges import evenly

Reading = Literal["descent", "shared_initialisation", "either"]
_ROLES = ("q", "k", "v", "gate", "up")
_UNITS = ("gate", "up")
_ROWS, _COLUMNS = 256, 768
_CLEAR = 1.25  # times the best cosine that chance finds: a row of B that is a row of A
_FEWEST = 24  # rows

#: Limits of R and of the gains' correlation: at or above the first it reads as descent, at or below the second as
#: shared initialisation. Chosen on models of the fit side only.
DESCENT_R, SHARED_R = 0.975, 0.92
DESCENT_GAINS, SHARED_GAINS = 0.65, 0.58

#: What the limits did on pairs that they were not chosen on: pairs, read right, read as "either", read wrong. They are
#: pairs of the lineage benchmark's test side (docs/lineage.md), of 20 roots and few shared initialisations.
MEASURED: dict[Reading, tuple[int, int, int, int]] = {
    "descent": (263, 239, 24, 0),
    "shared_initialisation": (27, 21, 6, 0),
}

_QUESTION = Evidence(
    test="training_shared",
    asked="Is what the two models share in place training, or only a common random initialisation?",
    null="none: descriptive",
    assumes="norms start constant; matrices start as noise without strong directions",
    blind_to="models whose blocks don't agree in place; siblings of one trained parent read as descent; hardly trained "
    "models, where there is nothing but the initialisation to share",
    statistic_of="R: agreement along the leading singular directions over that along the weak ones, the larger of both "
    "sides",
    effect_of="mean Spearman correlation of norm gains and offsets",
)


@dataclass(frozen=True, slots=True)
class _Matrix:
    name: str
    region: str
    cosine: float
    of_a: float
    of_b: float


@dataclass(frozen=True)
class TrainingShared(Details):
    """What it reads as and how surely; R of either side; correlation of the gains; cosine of the median matrix.

    ``measured``: what the limits did elsewhere; ``matrices``: cosine and R of each.
    """

    reads_as: Reading
    confidence: float | None
    r_a: float
    r_b: float
    gains: float | None
    cosine: float
    measured: Mapping[str, Mapping[str, int]]
    matrices: Mapping[str, Sequence[float]]


def _mirrored(told: TrainingShared, names: Mapping[str, str], models: ModelPair) -> TrainingShared:
    return replace(told, r_a=told.r_b, r_b=told.r_a)


@partial(Test, details=TrainingShared, bases=("stored", "found"), mirrored=_mirrored, cost="long", kept="rows")
def training_shared(models: ModelPair) -> Evidence:
    """Slopes along singular directions and correlation of gains, read as descent, shared initialisation or either."""
    if not models.budget.whole:
        return not_applied(_QUESTION, "quick effort reads too few rows for singular directions")
    width = hidden_size(models.a, models.b)
    if width is None:
        return not_applied(_QUESTION, "no hidden size common to both models was found")
    chosen = _chosen(models)
    matrices = [m for pair in chosen if (m := _look(models, pair)) is not None]
    agreeing = [m for m in matrices if m.cosine >= EFFECT]
    if len(agreeing) < 3 or 2 * len(agreeing) < len(matrices):
        matrices = _rearranged(models, [p for p in chosen if p.known.place and p.known.place.role in _UNITS])
        agreeing = [m for m in matrices if m.cosine >= EFFECT]
    if len(agreeing) < 3 or 2 * len(agreeing) < len(matrices):
        return not_applied(_QUESTION, "blocks agree neither in place nor with their units in A's order")
    of_a, of_b = (float(np.median([getattr(m, side) for m in agreeing])) for side in ("of_a", "of_b"))
    gains = _gains(models, width, {m.region for m in agreeing})
    reading, confidence, why = read(max(of_a, of_b), gains)
    return replace(
        _QUESTION,
        says=f"reads as {_WORDS[reading]}: {why}",
        statistic=max(of_a, of_b),
        effect=gains,
        n=len(agreeing),
        details=TrainingShared(
            reads_as=reading,
            confidence=confidence,
            r_a=of_a,
            r_b=of_b,
            gains=gains,
            cosine=float(np.median([m.cosine for m in agreeing])),
            measured={name: dict(zip(_COUNTS, n, strict=True)) for name, n in MEASURED.items()},
            matrices={m.name: [round(m.cosine, 3), round(m.of_a, 3), round(m.of_b, 3)] for m in agreeing},
        ),
    )


_WORDS: dict[Reading, str] = {
    "descent": "common training: descent, or a common trained ancestor",
    "shared_initialisation": "a common random initialisation, trained apart",
    "either": "common training or only a common initialisation",
}
_COUNTS = ("pairs", "right", "either", "wrong")


def read(r: float, gains: float | None) -> tuple[Reading, float | None, str]:
    """The reading, its confidence (None for "either"), and why. ``gains`` is None where no norm was trained."""
    looks = f"B has {r:.0%} as much of A's strong directions as of its weak ones"
    looks += ", and no gains could be compared" if gains is None else f", gains correlate {gains:+.2f}"
    reading: Reading = "either"
    if r >= DESCENT_R and (gains is None or gains >= DESCENT_GAINS):
        reading = "descent"
    elif r <= SHARED_R and (gains is None or gains <= SHARED_GAINS):
        reading = "shared_initialisation"
    if reading == "either":
        return reading, None, looks
    # Laplace's rule of succession on how often a pair of the *other* kind was read so; one look alone counts for less.
    other: Reading = "shared_initialisation" if reading == "descent" else "descent"
    pairs, _, _, wrong = MEASURED.get(other, (0, 0, 0, 0))
    confidence = 1 - (wrong + 1) / (pairs + 2)
    return reading, confidence if gains is not None else min(confidence, 0.7), looks


def _chosen(models: ModelPair) -> list[Pair]:
    """Matrices that read the stream, in the same place and of the same shape, of at most so many blocks."""
    pairs = [
        p
        for p in models.pairs
        if p.by_name
        and p.known.place is not None
        and p.known.place.role in _ROLES
        and p.known.layer is not None
        and p.a.rank2
        and p.a.shape == p.b.shape
        and not p.transposed
        and not (p.a.constant or p.b.constant)
        and min(p.a.shape) >= 24
    ]
    blocks = list(dict.fromkeys(p.known.region for p in pairs))
    kept = set(evenly(blocks, models.budget.training_blocks))
    return [p for p in pairs if p.known.region in kept]


def _look(models: ModelPair, pair: Pair) -> _Matrix | None:
    """The matrix with its norm's gain folded in or as it is stored: the way in which the two agree better.

    (A gain that was moved into the matrix agrees folded; one that was replaced agrees as stored.)
    """
    looks = []
    gains = models.a.gain(pair.a), models.b.gain(pair.b)
    for fold in (True, False) if gains[0] is not None or gains[1] is not None else (False,):
        x, y = (_taken(models, pair, i, gains[i] if fold else None) for i in (0, 1))
        norms = float(np.linalg.norm(x)), float(np.linalg.norm(y))
        if min(norms) > 0 and math.isfinite(max(norms)):
            looks.append((float(np.vdot(x, y)) / (norms[0] * norms[1]), x, y))
    if not looks:
        return None
    cosine, x, y = max(looks, key=lambda look: look[0])
    if cosine < EFFECT:  # nothing to ask, and decompositions are dear
        return _Matrix(pair.b.name, pair.known.region, cosine, math.nan, math.nan)
    return _Matrix(pair.b.name, pair.known.region, cosine, strong_over_weak(x, y), strong_over_weak(y, x))


def _taken(models: ModelPair, pair: Pair, which: int, gain: F32 | None, rows: Indices | None = None) -> F64:
    """Sampled rows (or these) and channels of one side, centred, over A's channels; float64."""
    return double_centre(_rows(models, pair, which, gain, rows)).astype(np.float64)


def _rows(models: ModelPair, pair: Pair, which: int, gain: F32 | None, rows: Indices | None = None) -> F32:
    """The same as they are."""
    side, tensor = ((models.a, pair.a), (models.b, pair.b))[which]
    if rows is None:
        rows = pick(tensor.shape[0], min(_ROWS, models.budget.rows), models.seed, str(pair.known.key))
    columns = pick(pair.a.shape[1], _COLUMNS, models.seed, "columns")
    turned = bool(which) and models.basis.kind != "identity"
    x = sampled_rows(side, tensor, rows, None if turned else columns)
    if gain is not None:
        x *= gain if turned else gain[columns]
    return models.basis.to_a(x)[:, columns] if turned else x


def _rearranged(models: ModelPair, pairs: Sequence[Pair]) -> list[_Matrix]:
    """FFN matrices with B's rows in A's order; nothing where the first two can't be brought into it."""
    out: list[_Matrix] = []
    for i, pair in enumerate(pairs):
        if i == 2 and not out:
            return []
        gains = models.a.gain(pair.a), models.b.gain(pair.b)
        x = _rows(models, pair, 0, gains[0])
        y = _rows(models, pair, 1, gains[1], np.arange(pair.b.shape[0]))
        alike = product(_directions(x), _directions(y).T)
        best, size = np.abs(alike).argmax(axis=1), np.abs(alike).max(axis=1)
        clear = np.nonzero(size >= _CLEAR * math.sqrt(2 * math.log(max(len(y), 2)) / x.shape[1]))[0]
        if clear.size < max(_FEWEST, len(x) / 2):
            continue
        signs = np.sign(alike[clear, best[clear]])[:, None]
        a, b = (double_centre(z).astype(np.float64) for z in (x[clear], signs * y[best[clear]]))
        cosine = float(np.vdot(a, b)) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30)
        out.append(_Matrix(pair.b.name, pair.known.region, cosine, strong_over_weak(a, b), strong_over_weak(b, a)))
    return out


def _directions(x: F32) -> F32:
    """Rows of length one, centred."""
    return unit_rows(double_centre(x))


def strong_over_weak(x: F64, y: F64) -> float:
    """Slope of y along x's leading twelfth of singular directions over that along the weaker half.

    Slopes that are not clearly above 0 along the weak half make it infinite or negative: clipped to 0..4.
    """
    # Singular directions of the shorter side: with x = u s v', u'y v s is the diagonal of u'(y x')u.
    if len(x) > x.shape[1]:
        x, y = x.T, y.T
    squares, u = eigh(product(x, x.T))
    squares, u = np.maximum(squares[::-1], 0), u[:, ::-1]
    along = np.einsum("ij,ij->j", u, product(product(y, x.T), u))
    top, half = max(1, squares.size // 12), squares.size // 2
    strong = float(along[:top].sum() / squares[:top].sum())
    weak = float(along[half:].sum() / max(float(squares[half:].sum()), 1e-30))
    return float(np.clip(strong / weak, 0, 4)) if weak > 0 else 4.0


def _gains(models: ModelPair, width: int, regions: set[str]) -> float | None:
    """Mean Spearman correlation of norm gains and offsets of these blocks; None where none was trained in both."""
    norms = [p for p in models.pairs if p.known.role is not None and p.known.role.part == "norm" and p.by_name]
    pairs = [p for p in norms if p.known.region in regions]
    a, b, _ = channel_vectors(models, pairs, width)
    if not len(a):
        return None
    return float(np.mean(np.einsum("ij,ij->i", ranks(a), ranks(b))))
