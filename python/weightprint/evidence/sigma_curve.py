"""The sigma curve [2507.03014]: the standard deviation of Q, K, V and O over depth, correlated between two models.

For each of the four, sigma(layer) is z-scored over layers and correlated (Pearson); the four are averaged; curves of
unequal depth are interpolated linearly to the longer one. Descriptive only, and never part of a verdict: models share
a trend over depth. On 137 public models (618 pairs of one family, 8,698 of different ones) docs/methods.md lists how
many *unrelated* pairs pass each threshold; the row printed is that of the largest threshold that the score reaches.
The curve is shown detrended as well (residuals of a straight line over depth), where a ramp common to both
models no longer counts; no table of errors exists for that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from weightprint.evidence._base import Evidence, Models, Side, not_applied, timed

__all__ = ["FALSE_POSITIVES", "curve_correlation", "detrend", "sigma_curve"]

F64 = npt.NDArray[np.float64]

#: (score above, share of related pairs, share of unrelated pairs, share of unrelated language-model decoders):
#: docs/methods.md section 1.
FALSE_POSITIVES: tuple[tuple[float, float, float, float], ...] = (
    (0.6, 0.909, 0.380, 0.460),
    (0.7, 0.909, 0.296, 0.354),
    (0.8, 0.909, 0.170, 0.192),
    (0.9, 0.896, 0.023, 0.027),
    (0.95, 0.887, 0.0, 0.0),
)
_PARTS = ("q", "k", "v", "o")
_MIN_LAYERS = 4

_QUESTION = Evidence(
    test="sigma_curve",
    asked="Do the standard deviations of Q, K, V and O run alike over depth?",
    applied=True,
    null="none: descriptive. Unrelated models share depth trends, and no null is known for this score",
    assumes="nothing: it decides nothing",
    blind_to="everything but one number per matrix",
    statistic_of="mean over Q, K, V, O of the Pearson correlation of sigma over layers",
    effect_of="the same after a straight line over depth is removed",
)


def detrend(curve: F64) -> F64:
    """Residuals of the least-squares line over depth."""
    x = np.arange(curve.size) - (curve.size - 1) / 2
    centred = curve - curve.mean()
    return np.asarray(centred - x * float(x @ centred) / float(x @ x))


def curve_correlation(a: F64, b: F64, *, straight: bool = True) -> float:
    """Pearson correlation of two depth curves, the shorter interpolated; ``straight=False`` detrends both first."""
    n = max(a.size, b.size)
    x, y = (np.interp(np.linspace(0, 1, n), np.linspace(0, 1, c.size), c) for c in (a, b))
    if not straight:
        x, y = detrend(x), detrend(y)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return (
        float(x @ y) / scale if scale > 1e-12 * max(1e-300, float(np.abs(a).max() * np.abs(b).max())) else float("nan")
    )


def _curves(side: Side) -> Mapping[str, F64]:
    """Curve per part, of the stack with the most layers. Parts that miss a layer are left out."""
    stacks: dict[str, dict[str, dict[int, float]]] = {}
    for tensor in side.tensors.values():
        place = tensor.place
        if place is None or place.block is None or not tensor.rank2 or tensor.dtype in ("I8", "U8", "I32"):
            continue
        if place.role in _PARTS:
            stacks.setdefault(place.stack, {}).setdefault(place.role, {})[place.block] = tensor.std
    if not stacks:
        return {}
    stack = max(stacks.values(), key=lambda parts: sum(map(len, parts.values())))
    depth = max(len(curve) for curve in stack.values()) if stack else 0
    return {p: np.array([c[i] for i in sorted(c)]) for p, c in stack.items() if len(c) == depth >= _MIN_LAYERS}


@timed
def sigma_curve(models: Models) -> Evidence:
    """Raw and detrended correlation of the four curves, with the share of unrelated public pairs that score as high."""
    a, b = _curves(models.a), _curves(models.b)
    if any(part not in curves for curves in (a, b) for part in _PARTS):
        return not_applied(
            _QUESTION,
            "it needs at least 4 layers with Q, K, V and O told apart by name, in floating point, on both sides",
        )
    raw = {p: curve_correlation(a[p], b[p]) for p in _PARTS}
    flat = {p: curve_correlation(a[p], b[p], straight=False) for p in _PARTS}
    score, level = float(np.mean(list(raw.values()))), float(np.mean(list(flat.values())))
    row = max((row for row in FALSE_POSITIVES if score >= row[0]), default=None)
    if row is None:
        says = (
            f"curves correlate {score:.3f} (detrended {level:.3f}); more than 38 % of unrelated public pairs "
            f"score this high or higher"
        )
    else:
        says = f"curves correlate {score:.3f} (detrended {level:.3f}); of 8,698 unrelated public pairs " + (
            f"{row[2]:.1%} pass {row[0]:g} ({row[3]:.1%} of decoders)" if row[2] else f"none passes {row[0]:g}"
        )
    return replace(
        _QUESTION,
        says=says,
        statistic=score,
        effect=level,
        n=max(c.size for c in (*a.values(), *b.values())),
        details={
            "raw": raw,
            "detrended": flat,
            "unrelated_pairs_above": None if row is None else row[2],
            "unrelated_decoders_above": None if row is None else row[3],
            "threshold": None if row is None else row[0],
            "layers": [int(a["q"].size), int(b["q"].size)],
        },
    )
