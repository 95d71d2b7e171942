"""The sigma curve [2507.03014]: the standard deviation of Q, K, V and O over depth, correlated between two models.

For each of the four, sigma(layer) is z-scored over layers and correlated (Pearson); the four are averaged; curves of
unequal depth are interpolated linearly to the longer one. Descriptive only, and never part of a verdict: models share
a trend over depth. On 137 public models (618 pairs of one family, 8,698 of different ones) docs/methods.md lists how
many *unrelated* pairs pass each threshold; the row printed is that of the largest threshold that the score reaches.
The curve is shown detrended as well (residuals of a straight line over depth), where a ramp common to both
models no longer counts; no table of errors exists for that one.

Known false positives: any two decoders whose spread grows with depth (Llama-3.1-8B and Mistral-7B-v0.2 score .90).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.curves import correlate, curves, listed
from weightprint.evidence.test import Test

#: (score above, share of related pairs, share of unrelated pairs, share of unrelated language-model decoders):
#: docs/methods.md section 1.
FALSE_POSITIVES: tuple[tuple[float, float, float, float], ...] = (
    (0.6, 0.909, 0.380, 0.460),
    (0.7, 0.909, 0.296, 0.354),
    (0.8, 0.909, 0.170, 0.192),
    (0.9, 0.896, 0.023, 0.027),
    (0.95, 0.887, 0.0, 0.0),
)
#: Related and unrelated pairs that the shares are of.
PAIRS = (618, 8698)
_PARTS = ("q", "k", "v", "o")
_NORMS = ("attn_norm", "ffn_norm", "attn_post_norm", "ffn_post_norm")

_QUESTION = Evidence(
    test="sigma_curve",
    asked="Do the standard deviations of Q, K, V and O run alike over depth?",
    null="none: descriptive. Unrelated models share depth trends, and no null is known for this score",
    assumes="nothing: it decides nothing",
    blind_to="everything but one number per matrix",
    statistic_of="mean over Q, K, V, O of the Pearson correlation of sigma over layers",
    effect_of="the same after a straight line over depth is removed",
)


@partial(Test, published=True, quoted=True, kept="identity")
def sigma_curve(models: ModelPair) -> Evidence:
    """Raw and detrended correlation of the four curves, with the share of unrelated public pairs that score as high."""
    a, b = curves(models, models.a, _PARTS), curves(models, models.b, _PARTS)
    found = correlate(a, b)
    if found is None or set(found.raw) != set(_PARTS):
        return not_applied(
            _QUESTION,
            "it needs at least 4 layers with Q, K, V and O told apart by name, in floating point, on both sides",
        )
    score, level = found.score, found.level
    norms = {side.label: listed(curves(models, side, _NORMS, vectors=True)) for side in (models.a, models.b)}
    row = max((row for row in FALSE_POSITIVES if score >= row[0]), default=None)
    if row is None:
        says = (
            f"curves correlate {score:.3f} (detrended {level:.3f}); more than 38 % of unrelated public pairs "
            f"score this high or higher"
        )
    else:
        says = f"curves correlate {score:.3f} (detrended {level:.3f}); of {PAIRS[1]:,} unrelated public pairs " + (
            f"{row[2]:.1%} pass {row[0]:g} ({row[3]:.1%} of decoders)" if row[2] else f"none passes {row[0]:g}"
        )
    return replace(
        _QUESTION,
        says=says,
        statistic=score,
        effect=level,
        n=max(found.layers),
        details={
            **found.details(),
            "norm_curves": norms,
            "unrelated_pairs_above": None if row is None else row[2],
            "unrelated_decoders_above": None if row is None else row[3],
            "threshold": None if row is None else row[0],
            "error_table": [list(row) for row in FALSE_POSITIVES],
            "error_table_pairs": list(PAIRS),
        },
    )
