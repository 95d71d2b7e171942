"""The raw cosine of norm gains is a false alarm, centring repairs it."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import child, decoder, models
from weightprint.evidence.norm_gains import norm_gains
from weightprint.verdict import decide

D = 4096


def gains(seed: int, layers: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, 6])
    return {f"model.layers.{i}.input_layernorm.weight": rng.normal(1, 0.1, D).astype(np.float32) for i in range(layers)}


def test_strangers_have_raw_cosine_99_and_pearson_0() -> None:
    pearson, cosines = [], []
    for seed in range(20):
        m = models(gains(2 * seed), gains(2 * seed + 1))
        evidence = norm_gains(m)
        pearson.append(evidence.details["pearson_matched"])
        cosines.append(evidence.details["raw_cosine_not_evidence"])
        assert decide(m, [evidence]).name == "inconclusive"
    assert np.mean(cosines) == pytest.approx(0.9901, abs=0.0002)
    assert np.std(pearson) == pytest.approx(0.0157, rel=0.5)
    assert np.max(np.abs(pearson)) < 4 * 0.0157


def test_p_values_of_strangers_are_not_too_small() -> None:
    p = np.array([norm_gains(models(decoder(s), decoder(s + 500))).log10_p for s in range(60)], float)
    for alpha in (0.2, 0.1, 0.05):
        assert np.mean(p <= np.log10(alpha)) <= alpha + 3 * np.sqrt(alpha / 60)


def test_a_child_is_seen() -> None:
    a = decoder(0)
    evidence = norm_gains(models(a, child(a, 0.8)))
    assert (evidence.effect or 0) > 0.2
    assert (evidence.log10_p or 0) <= np.log10(2 / 1000)


def test_outlier_channels_do_not_carry_it() -> None:
    """Two gains that share one huge channel and nothing else."""
    a, b = gains(0, 4), gains(1, 4)
    for model in (a, b):
        for x in model.values():
            x[7] = 50
    evidence = norm_gains(models(a, b))
    assert evidence.details["pearson_matched"] > 0.5
    assert abs(evidence.details["spearman_matched"]) < 0.05


def test_constant_gains_are_said() -> None:
    ones = {n: np.ones_like(x) for n, x in gains(0, 3).items()}
    assert not norm_gains(models(ones, ones)).applied


def test_no_gains_alone_make_a_verdict() -> None:
    a = gains(0, 8)
    m = models(a, child(a, 0.9))
    evidence = norm_gains(m)
    assert (evidence.log10_p or 0) < -6
    assert decide(m, [evidence]).name == "inconclusive"
