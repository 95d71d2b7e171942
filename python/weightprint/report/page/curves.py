"""Curves over depth, A and B, with the band of unrelated models behind each.

The bands come from the benchmark (``unrelated.json``, made by ``python -m benches.lineage bands``): the middle 90 %
of the curves of models that were initialised and trained on their own. A curve inside the band is what any model has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from weightprint.report.format import number
from weightprint.report.page.reference import unrelated
from weightprint.report.page.svg import Drawing, frame, joined, label, line, path
from weightprint.util.arrays import F64

if TYPE_CHECKING:
    from weightprint.compare.compare import Comparison

__all__ = ["Panel", "curve_drawing", "panels"]

_POINTS = 200
_HEIGHT, _TOP = 110.0, 22.0
_TITLES = {
    "q": "σ of Q", "k": "σ of K", "v": "σ of V", "o": "σ of O",
    "attn_norm": "σ of norm gains, attention", "ffn_norm": "σ of norm gains, FFN",
    "attn_post_norm": "σ of gains after attention", "ffn_post_norm": "σ of gains after the FFN",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One curve, or two, over depth; ``band``: lower and upper edge at equal steps of depth, and what it rests on."""

    name: str
    title: str
    curves: Mapping[str, F64]
    band: tuple[F64, F64] | None
    unit: str
    rests_on: str = ""


def panels(comparison: Comparison) -> list[Panel]:
    """Everything that was measured layer by layer: spreads, norm gains, agreement in place, relative change."""
    return [*_spreads(comparison), *_agreement(comparison), *_change(comparison)]


def _spreads(comparison: Comparison) -> Iterator[Panel]:
    sigma = next((e.details for e in comparison.evidence if e.test == "sigma_curve" and e.applied), {})
    for key in ("curves", "norm_curves"):
        a, b = (sigma.get(key, {}).get(side, {}) for side in ("a", "b"))
        for part in (part for part in _TITLES if part in a and part in b):
            both = {"a": _standardised(np.array(a[part])), "b": _standardised(np.array(b[part]))}
            yield Panel(part, _TITLES[part], both, _band(part), "standard deviations", _rests(part))


def _agreement(comparison: Comparison) -> Iterator[Panel]:
    """Cosines layer by layer, in the basis where they are largest."""
    looks = [e for e in comparison.evidence if e.test == "aligned_weights" and e.applied]
    best = max(looks, key=lambda e: e.effect or 0.0, default=None)
    regions = [r for r in best.regions if r.layer is not None] if best else []
    if len(regions) > 1 and len({r.stack for r in regions}) == 1:
        regions.sort(key=lambda r: r.layer or 0)
        sd = np.array([r.sd for r in regions])
        curve = {"b": np.array([r.effect for r in regions])}
        chance = "of the cosine, what permuted channels of this very pair give (±3 standard deviations)"
        yield Panel("cosine", "cosine of A and B in place", curve, (-3 * sd, 3 * sd), "cosine", chance)


def _change(comparison: Comparison) -> Iterator[Panel]:
    trained = (o for o in comparison.operations if o.name in ("fine_tune", "continued_pretraining"))
    layers = next((o.parameters.get("layers", ()) for o in trained), ())
    if len(layers) > 1:
        curve = {"b": np.array([change for _, change in layers], np.float64)}
        title = "relative change ‖B−A‖ / ‖A‖"
        yield Panel("relative", title, curve, _band("relative"), "", _rests("relative"))


def _band(part: str) -> tuple[F64, F64] | None:
    found = unrelated()["curves"].get(part)
    return None if found is None else (np.array(found["low"]), np.array(found["high"]))


def _rests(part: str) -> str:
    found = unrelated()["curves"].get(part)
    if found is None:
        return ""
    pairs = f"{found['pairs']:,} pairs of " if "pairs" in found else ""
    return f"the middle 90 % of {pairs}{found['roots']:,} independently trained models of the benchmark"


def _standardised(curve: F64) -> F64:
    """Deviations from the model's own mean in its own standard deviations, as the sigma curve is compared."""
    spread = float(curve.std())
    return (curve - curve.mean()) / spread if spread > 0 else curve * 0


def curve_drawing(panel: Panel) -> Drawing:
    """One panel: the band in grey, A drawn through, B dashed."""
    values = [*panel.curves.values(), *(panel.band or ())]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    low = min(low, 0.0) if panel.unit != "standard deviations" else low
    high = high if high > low else low + 1
    body = []
    if panel.band is not None:
        edges = [_points(edge, low, high) for edge in panel.band]
        body.append(path("M" + "L".join([*edges[0], *edges[1][::-1]]) + "Z", "band"))
    body += [path("M" + "L".join(_points(curve, low, high)), f"curve {side}") for side, curve in panel.curves.items()]
    left, wide = 14.0, 84.0
    at_zero = _TOP + _HEIGHT * high / (high - low)
    parts = [
        label(0, 13, panel.title, "strong"),
        line(left, at_zero, left + wide, at_zero, "tick") if low < 0 < high else Markup(""),
        frame(left, _TOP, wide, _HEIGHT, (100.0, 100.0), joined(body)),
        line(left, _TOP + _HEIGHT, left + wide, _TOP + _HEIGHT, "axis"),
        label(left, _TOP + 9, number(high, 2), "dim small", anchor="end", dx=-5),
        label(left, _TOP + _HEIGHT, number(low, 2), "dim small", anchor="end", dx=-5),
        label(left, _TOP + _HEIGHT + 15, "first layer", "dim small"),
        label(left + wide, _TOP + _HEIGHT + 15, "last layer", "dim small", anchor="end"),
    ]
    sides = " and ".join({"a": "A (drawn through)", "b": "B (dashed)"}[side] for side in panel.curves)
    title = f"{panel.title} over depth of {sides}" + ("; grey: " + panel.rests_on if panel.band is not None else "")
    return Drawing(f"curve-{panel.name}", title, _TOP + _HEIGHT + 20, joined(parts))


def _points(curve: Sequence[float] | F64, low: float, high: float) -> list[str]:
    """At most 200 points, in a box of 100 by 100."""
    y = np.asarray(curve, float)
    if y.size > _POINTS:
        y = np.interp(np.linspace(0, y.size - 1, _POINTS), np.arange(y.size), y)
    x = np.linspace(0, 100, y.size) if y.size > 1 else np.array([50.0])
    return [f"{u:.2f} {100 * (1 - (v - low) / (high - low)):.2f}" for u, v in zip(x, y, strict=True)]
