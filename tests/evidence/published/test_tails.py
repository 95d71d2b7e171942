"""Claimed tails against scipy and by hand; alignments against all possibilities."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from weightprint.evidence.published.ghostspec import align
from weightprint.evidence.published.mdir import log10_haar_tail
from weightprint.evidence.published.mother import excess_kurtosis
from weightprint.evidence.published.tails import log10_fisher, log10_spearman, spearman


@pytest.mark.parametrize("n", [8, 30, 512])
@pytest.mark.parametrize("rho", [0.0, 0.02, -0.3, 0.6, -0.9])
def test_the_rank_correlation_tail_is_that_of_scipy(n: int, rho: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    t = abs(rho) * math.sqrt((n - 2) / (1 - rho**2))
    expected = (math.log(2) + stats.t.logsf(t, n - 2)) / math.log(10)
    floor = -math.lgamma(n + 1) / math.log(10)
    assert log10_spearman(rho, n) == pytest.approx(max(expected, floor), rel=1e-6, abs=1e-9)


def test_a_perfect_order_costs_one_over_all_orders() -> None:
    assert log10_spearman(1.0, 6) == pytest.approx(-math.log10(720))
    assert log10_spearman(-1.0, 6) == pytest.approx(-math.log10(720))
    assert log10_spearman(math.nan, 6) == 0.0


def test_spearman_by_hand() -> None:
    assert spearman(np.array([3, 1, 2]), np.array([30, 10, 20])) == pytest.approx(1)
    # 1 - 6 sum d^2 / (n (n^2 - 1)) with d = (1, 1, 0, 0): 1 - 12/60
    assert spearman(np.array([0, 1, 2, 3]), np.array([1, 0, 2, 3])) == pytest.approx(0.8)


def test_fisher_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    p = np.random.default_rng(0).random(7) ** 3
    assert log10_fisher(np.log10(p)) == pytest.approx(math.log10(stats.combine_pvalues(p).pvalue), rel=1e-9)
    assert log10_fisher([-700.0, -900.0]) < -1500  # far below what a float can hold
    assert log10_fisher([]) == 0.0


def test_the_haar_tail_bounds_what_random_rotations_do() -> None:
    rng = np.random.default_rng(1)
    d, draws = 12, 20_000
    q, r = np.linalg.qr(rng.standard_normal((draws, d, d)))
    traces = np.einsum("nii->n", q * np.sign(np.einsum("nii->ni", r))[:, None, :])
    assert traces.mean() == pytest.approx(0, abs=0.03)
    assert traces.std() == pytest.approx(1, abs=0.03)
    for t in (0.05, 0.1, 0.2, 0.3):
        seen = float(np.mean(traces >= t * d))
        assert seen <= 10 ** log10_haar_tail(t, d)
        assert seen >= 10 ** (3 * log10_haar_tail(t, d) - 1.5)  # and it is no empty bound


def test_the_haar_rate_is_smooth_at_one_half_and_grows_to_the_end() -> None:
    below, at, above = (log10_haar_tail(t, 100) for t in (0.4999, 0.5, 0.5001))
    assert at - above == pytest.approx(below - at, rel=0.01)
    tails = [log10_haar_tail(t, 100) for t in np.linspace(0.01, 1, 50)]
    assert all(x > y for x, y in pairwise(tails))
    assert log10_haar_tail(-0.2, 100) == 0.0


def test_kurtosis_of_known_laws() -> None:
    rng = np.random.default_rng(4)
    assert excess_kurtosis(rng.standard_normal(400_000)) == pytest.approx(0, abs=0.05)
    assert excess_kurtosis(rng.random(400_000)) == pytest.approx(-1.2, abs=0.02)
    assert math.isnan(excess_kurtosis(np.ones(10)))


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (4, 4), (5, 3), (3, 7)])
@pytest.mark.parametrize("seed", range(5))
def test_the_monotone_alignment_is_the_best_one(shape: tuple[int, int], seed: int) -> None:
    cost = np.random.default_rng([seed, *shape]).random(shape)
    kept = align(cost)
    wide = cost if shape[0] <= shape[1] else cost.T
    n, m = wide.shape
    best = min(sum(wide[i, j] for i, j in enumerate(chosen)) for chosen in combinations(range(m), n))
    assert sum(cost[i, j] for i, j in kept) == pytest.approx(best)
    assert all(i < k and j < q for (i, j), (k, q) in pairwise(kept))
