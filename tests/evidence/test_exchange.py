"""The bounds against full enumeration: every permutation of a small matrix."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from weightprint.evidence.nulls.exchange import double_centre, finite, hits, in_range, log10_p_hits, peak, trace_sd

MATRICES = {
    "normal": lambda rng, d: rng.standard_normal((d, d)),
    "hub": lambda rng, d: rng.standard_normal((d, d)) + 5 * (np.arange(d) == 2),
    "identity": lambda rng, d: np.eye(d) + 0.01 * rng.standard_normal((d, d)),
    "ties": lambda rng, d: np.round(rng.standard_normal((d, d))),
    "cauchy": lambda rng, d: rng.standard_cauchy((d, d)),
}


@pytest.mark.parametrize("kind", MATRICES)
def test_hits_never_exceed_the_bound(kind: str) -> None:
    d = 6
    c = MATRICES[kind](np.random.default_rng(3), d).astype(np.float32)
    counts = np.array([hits(c[:, list(p)]) for p in itertools.permutations(range(d))])
    for k in range(1, d + 1):
        assert np.mean(counts >= k) <= 10 ** log10_p_hits(k) + 1e-12


def test_the_bound_for_groups_holds() -> None:
    d, groups = 4, 3
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(groups):
        c = (np.eye(d) + 0.1 * rng.standard_normal((d, d))).astype(np.float32)  # injective: the worst case
        counts.append([hits(c[:, list(p)]) for p in itertools.permutations(range(d))])
    totals = np.array([sum(t) for t in itertools.product(*counts)])
    for k in range(1, groups * d + 1):
        assert np.mean(totals >= k) <= 10 ** log10_p_hits(k, groups) + 1e-12


def test_trace_moments_are_hoeffdings() -> None:
    d = 6
    c = np.random.default_rng(1).standard_normal((d, d)).astype(np.float32)
    traces = [sum(c[i, p[i]] for i in range(d)) for p in itertools.permutations(range(d))]
    assert np.mean(traces) == pytest.approx(c.sum() / d, abs=1e-5)
    assert np.std(traces) == pytest.approx(trace_sd(c), rel=1e-5)


def test_log_p_is_minus_log_factorial() -> None:
    assert log10_p_hits(0) == log10_p_hits(1) == 0
    assert log10_p_hits(10) == pytest.approx(-math.log10(math.factorial(10)))
    # Markov's inequality on the r-th factorial moment of a Poisson(3) variable, at the best r.
    bounds = [3**r * math.factorial(20 - r) / math.factorial(20) for r in range(21)]
    assert log10_p_hits(20, 3) == pytest.approx(math.log10(min(bounds)))
    assert log10_p_hits(4096) == pytest.approx(-math.fsum(math.log10(i) for i in range(1, 4097)))


def test_ties_and_dead_channels_are_misses() -> None:
    assert hits(np.zeros((5, 5), np.float32)) == 0
    assert hits(np.full((5, 5), -np.inf, np.float32)) == 0
    assert hits(np.eye(5, dtype=np.float32)) == 5


def test_double_centring_removes_both_means() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4) ** 2
    y = double_centre(x)
    assert np.abs(y.mean(axis=0)).max() < 1e-5
    assert np.abs(y.mean(axis=1)).max() < 1e-5
    assert np.isfinite(double_centre(np.array([[np.nan, 1], [np.inf, 2]], np.float32))).all()


@pytest.mark.parametrize("form", ["rows", "columns", "strided", "read-only"])
def test_double_centring_against_float64_however_values_lie(form: str) -> None:
    x = (np.random.default_rng(1).standard_normal((70, 130)) * 3 + 50).astype(np.float32)
    given = {
        "rows": x,
        "columns": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "read-only": np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
    }[form]
    wide = x.astype(np.float64)
    want = wide - wide.mean(axis=1, keepdims=True) - wide.mean(axis=0) + wide.mean()
    assert double_centre(given) == pytest.approx(want, abs=1e-4)
    assert np.array_equal(given, x)  # untouched


def test_the_peak_and_what_is_not_finite() -> None:
    x = np.array([[1, -4], [2, 3]], np.float32)
    assert peak(x) == 4 == peak(x[:, 1:]) == peak(x.T)
    assert finite(x) is x is in_range(x)
    bad = x.copy()
    bad[0] = np.nan, -np.inf
    assert not math.isfinite(peak(bad))
    assert np.array_equal(finite(bad), [[0, 0], [2, 3]])
    assert np.array_equal(in_range(bad * np.float32(1e20)), np.array([[0, 0], [2, 3]], np.float32) / np.float32(3))
    assert peak(np.empty((0, 3), np.float32)) == 0
