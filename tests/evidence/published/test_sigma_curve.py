"""Curves of strangers, and the table of false positives."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import decoder, models
from weightprint.evidence.published.curves import curve_correlation
from weightprint.evidence.published.sigma_curve import FALSE_POSITIVES, sigma_curve


def test_a_common_ramp_makes_strangers_correlate_and_detrending_repairs_it() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 32)
    scores, flat = [], []
    for _ in range(400):
        # "Ramp plus 15 % noise": noise of .15 of the ramp's height on each of four curves.
        curves = [[ramp + 0.15 * rng.standard_normal(32) for _ in range(4)] for _ in range(2)]
        pairs = list(zip(*curves, strict=True))
        scores.append(np.mean([curve_correlation(x, y) for x, y in pairs]))
        flat.append(np.mean([curve_correlation(x, y, straight=False) for x, y in pairs]))
    assert np.mean(scores) == pytest.approx(0.81, abs=0.03)
    assert np.mean(flat) == pytest.approx(0, abs=0.02)


def test_unequal_depths_are_interpolated() -> None:
    curve = np.sin(np.linspace(0, 3, 24))
    assert curve_correlation(curve, np.sin(np.linspace(0, 3, 32))) > 0.999


def test_the_row_is_that_of_the_largest_threshold_reached() -> None:
    evidence = sigma_curve(models(decoder(0, layers=12), decoder(1, layers=12)))
    score = evidence.statistic or 0.0
    reached = [row for row in FALSE_POSITIVES if score >= row[0]]
    assert evidence.details["threshold"] == (reached[-1][0] if reached else None)
    assert evidence.log10_p is None


def test_strangers_with_a_common_trend_score_high() -> None:
    evidence = sigma_curve(models(decoder(0, layers=24), decoder(1, layers=24)))
    assert (evidence.statistic or 0) > 0.8
    assert abs(evidence.effect or 0) < 0.4


def test_too_few_layers_are_said() -> None:
    evidence = sigma_curve(models(decoder(0, layers=3), decoder(1, layers=3)))
    assert not evidence.applied
    assert "4 layers" in (evidence.why_not or "")


def test_it_keeps_the_curves_that_it_correlated_and_its_table() -> None:
    a, b = decoder(0, layers=6), decoder(1, layers=6)
    told = sigma_curve(models(a, b)).details
    for side, tensors in (("a", a), ("b", b)):
        for part in "qkvo":
            stored = [tensors[f"model.layers.{i}.self_attn.{part}_proj.weight"].std() for i in range(6)]
            assert told["curves"][side][part] == pytest.approx(stored, rel=1e-3)
        gains = [tensors[f"model.layers.{i}.input_layernorm.weight"].std() for i in range(6)]
        assert told["norm_curves"][side]["attn_norm"] == pytest.approx(gains, rel=1e-3)
    assert [row[0] for row in told["error_table"]] == [0.6, 0.7, 0.8, 0.9, 0.95]
