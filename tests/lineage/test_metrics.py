"""AUC, thresholds, the bootstrap over roots, and calibration, against definitions written out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benches.lineage.score.metrics import Bootstrap, Ranking, separation
from benches.lineage.score.p_value_levels import calibration, ks_one_sided, log10_binomial_tail, with_silent

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]), min_size=1, max_size=12)


def auc_by_hand(kin: list[float], strangers: list[float]) -> float:
    """P(s > t) + P(s = t)/2 over all pairs of pairs; NaN is below everything."""
    clean = [[-math.inf if math.isnan(x) else x for x in side] for side in (kin, strangers)]
    won = [(s > t) + 0.5 * (s == t) for s, t in itertools.product(*clean)]
    return sum(won) / len(won)


def tpr_by_hand(kin: list[float], strangers: list[float], alpha: float) -> float:
    """Try every threshold that is a score."""
    best = 0.0
    for c in {x for x in (*kin, *strangers) if not math.isnan(x)}:
        if sum(t >= c for t in strangers) / len(strangers) <= alpha:
            best = max(best, sum(s >= c for s in kin) / len(kin))
    return best


@settings(deadline=None)
@given(SCORES, SCORES, st.sampled_from([0.0, 0.1, 0.34, 0.5, 1.0]))
def test_auc_and_tpr_are_what_they_say(kin: list[float], strangers: list[float], alpha: float) -> None:
    ranking = Ranking.of(np.array(kin + strangers), np.arange(len(kin) + len(strangers)) < len(kin))
    ones = np.ones(len(kin) + len(strangers))
    assert ranking.auc(ones) == pytest.approx(auc_by_hand(kin, strangers))
    assert ranking.tpr(ones, alpha) == pytest.approx(tpr_by_hand(kin, strangers, alpha))


@settings(deadline=None)
@given(SCORES, SCORES, st.integers(0, 5))
def test_weights_are_copies(kin: list[float], strangers: list[float], seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 3, len(kin) + len(strangers))
    counts[0], counts[-1] = 1, 1
    scores, related = np.array(kin + strangers), np.arange(counts.size) < len(kin)
    weighted = Ranking.of(scores, related)
    copied = Ranking.of(np.repeat(scores, counts), np.repeat(related, counts))
    ones = np.ones(counts.sum())
    assert weighted.auc(counts.astype(float)) == pytest.approx(copied.auc(ones))
    assert weighted.tpr(counts.astype(float), 0.4) == pytest.approx(copied.tpr(ones, 0.4))


@pytest.mark.parametrize("kind", [True, False])
def test_pairs_of_one_kind_have_no_curve(kind: bool) -> None:
    ranking = Ranking.of(np.array([0.1, 0.2]), np.array([kind, kind]))
    assert math.isnan(ranking.auc(np.ones(2)))
    assert math.isnan(ranking.tpr(np.ones(2), 0.1))


def test_threshold_keeps_its_promise() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(2, 1, 300), rng.normal(0, 1, 2000)])
    ranking = Ranking.of(scores, np.arange(2300) < 300)
    c = ranking.threshold(np.ones(2300), 0.01)
    assert np.mean(scores[300:] >= c) <= 0.01
    assert np.mean(scores[:300] >= c) == ranking.tpr(np.ones(2300), 0.01)


def test_a_bootstrap_weight_is_the_product_of_its_roots_counts() -> None:
    boot = Bootstrap([("a",), ("b",), ("a", "b"), ("c", "a", "b"), ("c",)], resamples=200, seed=3)
    w = boot.weights
    assert np.array_equal(w[:, 2], w[:, 0] * w[:, 1])
    assert np.array_equal(w[:, 3], w[:, 0] * w[:, 1] * w[:, 4])
    assert np.all(w[:, 0] + w[:, 1] + w[:, 4] == 3)  # as many roots as there are
    assert boot.roots() == 3
    assert boot.roots(np.array([True, False, False, False, False])) == 1


def test_intervals_cover_when_roots_differ() -> None:
    """Each root has its own rate; the interval must hold the mean rate of roots, which one over pairs would not."""
    rng = np.random.default_rng(1)
    covered = narrow = 0
    trials = 120
    for trial in range(trials):
        rates = rng.beta(2, 2, 25)
        clusters, hits = [], []
        for i, p in enumerate(rates):
            clusters += [(str(i),)] * 30
            hits += list(rng.random(30) < p)
        found = Bootstrap(clusters, 200, trial).share(np.array(hits), np.ones(750, bool))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 <= found.high
        narrow += abs(np.mean(hits) - 0.5) < 1.96 * math.sqrt(0.25 / 750)
    assert covered >= 0.85 * trials
    assert narrow < 0.7 * trials  # pairs taken for independent would claim too much


def test_none_of_n_roots_has_an_interval() -> None:
    boot = Bootstrap([(str(i % 10),) for i in range(500)], 100)
    found = boot.share(np.zeros(500, bool), np.ones(500, bool))
    assert found.value == 0.0
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 10))
    assert found.roots == 10


def test_separation_counts_only_its_pairs() -> None:
    scores = np.array([3.0, 2.0, 0.0, 1.0, 9.0])
    related = np.array([True, True, False, False, False])
    boot = Bootstrap([("a",), ("b",), ("a", "b"), ("a", "c"), ("b", "c")], 50)
    found = separation(scores, related, boot, np.array([True, True, True, True, False]))
    assert found.auc.value == 1.0
    assert found.auc.pairs == 4
    assert found.thresholds["0.01"] == 2.0


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 12), st.floats(0.01, 0.9))
def test_binomial_tail(hits: int, n: int, p: float) -> None:
    hits = min(hits, n)
    exact = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))
    assert 10 ** log10_binomial_tail(hits, n, p) == pytest.approx(exact, rel=1e-9)


def test_ks_by_brute_force() -> None:
    rng = np.random.default_rng(2)
    p = np.round(rng.random(80), 2)  # with ties
    p[p == 0] = 0.01
    d, _ = ks_one_sided(np.log10(p))
    assert d == pytest.approx(max(0.0, *(np.mean(p <= x) - x for x in p)))


def test_uniform_p_values_pass_and_small_ones_do_not() -> None:
    rng = np.random.default_rng(4)
    below = [calibration(np.log10(rng.random(400))).ks_p < 0.05 for _ in range(300)]
    assert 0.01 < np.mean(below) < 0.1
    liberal = calibration(np.log10(rng.random(2000) ** 1.3))
    assert liberal.ks_p < 1e-6
    assert next(level for level in liberal.levels if level.alpha == 0.01).log10_tail < -3
    conservative = calibration(np.log10(rng.random(2000) ** 0.5))
    assert conservative.ks_p > 0.5


def test_levels_count() -> None:
    found = calibration([-7.0, -3.0, -1.0, 0.0])
    assert [level.hits for level in found.levels] == [3, 2, 2, 2, 1, 1, 1]
    assert found.smallest == -7.0
    assert found.at_one == 0.25


def test_pairs_without_an_alignment_count_as_silent() -> None:
    found = with_silent({"t": [-1.0, -2.0, 0.0], "t@rotation": [-4.0], "u@rotation": [-1.0]})
    assert found == {"t": [-1.0, -2.0, 0.0], "t@rotation": [-4.0, 0.0, 0.0], "u@rotation": [-1.0, 0.0, 0.0]}
