"""Strangers' p-values are at least as large as uniform ones, and no stranger is called
kin.

The bounds 1/k! and L^k/k! are on the safe side, so the claim is P(p <= alpha) <= alpha, up to binomial error at 4
sigma.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from synthetic import decoder, models
from weightprint.compare.compare import judge
from weightprint.evidence.tests import AS_STORED

N = 20


@pytest.fixture(scope="module")
def strangers() -> list[tuple[str, dict[str, float | None]]]:
    """(verdict, log10 p by test) of all pairs among 20 models of one architecture: 190 pairs."""
    zoo = [decoder(100 + s, layers=4) for s in range(N)]
    out = []
    for a, b in itertools.combinations(zoo, 2):
        m = models(a, b)
        evidence = [test(m) for test in AS_STORED if not test.published]
        out.append((judge(m, evidence).verdict.name, {e.test: e.log10_p for e in evidence}))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("test", ["aligned_weights", "aligned_units", "unit_agreement", "unit_geometry", "norm_gains"])
def test_p_values_are_not_too_small(strangers: list[tuple[str, dict[str, float]]], test: str) -> None:
    p = np.array([values[test] for _, values in strangers])
    for alpha in (0.5, 0.2, 0.1, 0.05, 0.01, 0.001):
        expected, error = alpha * p.size, 4 * np.sqrt(p.size * alpha * (1 - alpha))
        assert np.count_nonzero(p <= np.log10(alpha)) <= expected + error


@pytest.mark.slow
def test_no_stranger_is_called_kin(strangers: list[tuple[str, dict[str, float]]]) -> None:
    assert {name for name, _ in strangers} <= {"no_evidence", "inconclusive"}
