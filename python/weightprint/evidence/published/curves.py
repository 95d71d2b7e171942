"""Curves over depth: one number per layer and part, correlated between two models.

What the sigma curve of Q, K, V and O, the bias curves and the norm curves have in common. Per part the curve is
correlated (Pearson) with the other model's, the shorter one interpolated linearly; parts are averaged. The detrended
form correlates what is left after a straight line over depth, where a ramp that all models share no longer counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F64

MIN_LAYERS = 4


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
    tiny = 1e-12 * max(1e-300, float(np.abs(a).max() * np.abs(b).max()))
    return float(x @ y) / scale if scale > tiny else float("nan")


def _spread(models: ModelPair, side: ModelView, tensor: Tensor) -> float:
    """Standard deviation of a tensor: as scanned, else of sampled rows."""
    if np.isfinite(tensor.std):
        return tensor.std
    n_rows, columns = tensor.matrix
    want = max(4, models.budget.published.values // max(columns, 1))
    rows = pick(n_rows, want, models.seed, f"{tensor.stack} {tensor.layer} {tensor.place and tensor.place.role}", run=4)
    return float(finite(sampled_rows(side, tensor, rows)).std(dtype=np.float64))


def curves(models: ModelPair, side: ModelView, parts: Collection[str], *, vectors: bool = False) -> Mapping[str, F64]:
    """Standard deviation over depth per part, of the stack with the most layers. A part that misses one is left out."""
    stacks: dict[str, dict[str, dict[int, Tensor]]] = {}
    for tensor in side.tensors.values():
        place = tensor.place
        if place is None or place.block is None or place.role not in parts or place.expert is not None:
            continue
        if (tensor.rank2 or (vectors and len(tensor.shape) == 1)) and tensor.dtype not in ("I8", "U8", "I32"):
            stacks.setdefault(place.stack, {}).setdefault(place.role, {})[place.block] = tensor
    if not stacks:
        return {}
    stack = max(stacks.values(), key=lambda found: sum(map(len, found.values())))
    depth = max(len(curve) for curve in stack.values())
    if depth < MIN_LAYERS:
        return {}
    return {p: np.array([_spread(models, side, c[i]) for i in sorted(c)]) for p, c in stack.items() if len(c) == depth}


def listed(curves: Mapping[str, F64]) -> dict[str, list[float]]:
    """Curves ready for JSON."""
    return {part: [*map(float, curve)] for part, curve in curves.items()}


@dataclass(frozen=True)
class Correlated:
    """Correlations per part, raw and detrended, and their means over the parts where the curve varies; and the curves
    of these parts, of ``"a"`` and of ``"b"``."""

    raw: Mapping[str, float]
    detrended: Mapping[str, float]
    layers: tuple[int, int]
    curves: Mapping[str, Mapping[str, F64]]

    @property
    def score(self) -> float:
        """Mean of the plain correlations."""
        return float(np.mean(list(self.raw.values())))

    @property
    def level(self) -> float:
        """Mean of the correlations without their linear trend."""
        return float(np.mean(list(self.detrended.values())))

    def details(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        curves = {side: listed(found) for side, found in self.curves.items()}
        return {"raw": dict(self.raw), "detrended": dict(self.detrended), "layers": [*self.layers], "curves": curves}


def correlate(a: Mapping[str, F64], b: Mapping[str, F64]) -> Correlated | None:
    """Correlations of the parts that both have; None where no curve varies on both sides."""
    raw = {p: r for p in a if p in b and np.isfinite(r := curve_correlation(a[p], b[p]))}
    flat = {p: curve_correlation(a[p], b[p], straight=False) for p in raw}
    flat = {p: r for p, r in flat.items() if np.isfinite(r)}
    if not raw or not flat:
        return None
    depth = tuple(max(c.size for c in side.values()) for side in (a, b))
    shown = {label: {part: side[part] for part in raw} for label, side in (("a", a), ("b", b))}
    return Correlated(raw, flat, (depth[0], depth[1]), shown)


def told(question: Evidence, models: ModelPair, parts: Collection[str], what: str, needs: str) -> Evidence:
    """The correlation of the curves of these vectors, `what` they are called, or that it needs more: `needs`."""
    found = correlate(*(curves(models, side, parts, vectors=True) for side in (models.a, models.b)))
    if found is None:
        return not_applied(question, f"it needs at least {MIN_LAYERS} layers with {needs} that vary, on both sides")
    return replace(
        question,
        says=f"{what} curves correlate {found.score:.3f} (detrended {found.level:.3f}) over {len(found.raw)} kinds",
        statistic=found.score,
        effect=found.level,
        n=max(found.layers),
        details=found.details(),
    )
