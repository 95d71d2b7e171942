"""The raw cosine of norm gains is a false alarm, centring repairs it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import child, decoder, models
from weightprint.compare.compare import judge
from weightprint.evidence.norm_gains import _in_place, norm_gains, outliers, ranks
from weightprint.evidence.pair import Basis

D = 4096


def gains(seed: int, layers: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, 6])
    return {f"model.layers.{i}.input_layernorm.weight": rng.normal(1, 0.1, D).astype(np.float32) for i in range(layers)}


@pytest.mark.slow
def test_strangers_have_raw_cosine_99_and_pearson_0() -> None:
    pearson, cosines = [], []
    for seed in range(20):
        m = models(gains(2 * seed), gains(2 * seed + 1))
        evidence = norm_gains(m)
        pearson.append(evidence.details["pearson_matched"])
        cosines.append(evidence.details["raw_cosine_not_evidence"])
        assert judge(m, [evidence]).verdict.name == "inconclusive"
    assert np.mean(cosines) == pytest.approx(0.9901, abs=0.0002)
    assert np.std(pearson) == pytest.approx(0.0157, rel=0.5)
    assert np.max(np.abs(pearson)) < 4 * 0.0157


@pytest.mark.slow
def test_p_values_of_strangers_are_not_too_small() -> None:
    p = np.array([norm_gains(models(decoder(s), decoder(s + 500))).log10_p for s in range(60)], float)
    for alpha in (0.2, 0.1, 0.05):
        assert np.mean(p <= np.log10(alpha)) <= alpha + 3 * np.sqrt(alpha / 60)


def test_a_child_is_seen() -> None:
    a = decoder(0)
    evidence = norm_gains(models(a, child(a, 0.8)))
    assert (evidence.effect or 0) > 0.2
    assert (evidence.log10_p or 0) <= np.log10(3 / 1000)


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
    assert judge(m, [evidence]).verdict.name == "inconclusive"


def test_outliers_are_named_and_taken_out() -> None:
    a, b = gains(0, 4), gains(1, 4)
    for model, channel in ((a, 7), (b, 9)):
        for x in model.values():
            x[channel] = 5
    details = norm_gains(models(a, b)).details
    assert (details["outliers_a"], details["outliers_b"]) == ([7], [9])
    assert outliers(np.ones((3, 8), np.float32)) == []


def test_layers_in_another_order_are_seen_and_mapped() -> None:
    a = gains(3, 6)
    order = [4, 0, 5, 1, 3, 2]
    kept = child(a, 0.9)
    name = "model.layers.{}.input_layernorm.weight"
    evidence = norm_gains(models(a, {name.format(i): kept[name.format(old)] for i, old in enumerate(order)}))
    assert evidence.details["layer_map"].keys() == {f"decoder.{i}" for i in range(6)}
    assert [row[0] for row in evidence.details["layer_map"].values()] == [f"decoder.{old}" for old in order]
    assert evidence.details["p_any_order"] == 0.001
    assert (evidence.effect or 0) < 0.1
    assert norm_gains(models(a, gains(4, 6))).details["p_any_order"] > 0.01


def test_neighbouring_layers_are_the_control() -> None:
    """Layers that share most of their gains: high correlations in place that don't tell the layers apart."""
    common, own = gains(5)["model.layers.0.input_layernorm.weight"], gains(6, 4)
    a = {n: (common + 0.3 * (x - 1)).astype(np.float32) for n, x in own.items()}
    evidence = norm_gains(models(a, child(a, 0.95)))
    assert (evidence.statistic or 0) > 0.9
    assert 0 < (evidence.effect or 0) < 0.15


def test_bases() -> None:
    a = {n: x[:64] for n, x in gains(7, 8).items()}
    a |= {n.replace("weight", "bias"): x - 1 for n, x in child(a, 0.0, 5).items()}
    rng = np.random.default_rng(7)
    order, signs = rng.permutation(64), rng.choice([-1, 1], 64).astype(np.float32)
    b = {n: (x if "weight" in n else x * signs)[order] for n, x in child(a, 0.95).items()}
    m = models(a, b)
    assert abs(norm_gains(m).statistic or 0) < 0.2
    back = np.argsort(order)
    found = norm_gains(replace(m, basis=Basis("signed_permutation", channels=back, signs=signs)))
    assert (found.statistic or 0) > 0.9
    turned = replace(m, basis=Basis("rotation", matrix=np.eye(64, dtype=np.float32)))
    assert "rotation" in (norm_gains(turned).why_not or "")


def test_ranks_are_spearman() -> None:
    x = ranks(np.array([[3, 1, 2, 2], [5, 5, 5, 5], [10, 0, 4, 7]], np.float32))
    assert np.linalg.norm(x[0]) == pytest.approx(1)
    assert not x[1].any()
    assert x[0].tolist() == pytest.approx((np.array([1.5, -1.5, 0, 0]) / np.sqrt(4.5)).tolist())


def test_sums_under_permutations_are_those_of_permuted_vectors() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((2, 7, 1300)).astype(np.float32)
    orders = np.stack([rng.permutation(1300) for _ in range(5)])
    want = [float((a.astype(np.float64) * b[:, order]).sum()) for order in orders]
    assert _in_place(a, b, orders) == pytest.approx(want, abs=1e-3)
