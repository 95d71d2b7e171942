"""Sums over pairs give back the permutation or the rotation that made them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from weightprint.evidence.alignment.solve import Cross, cosines
from weightprint.util.assignment import strongest_first


def greedy(score: np.ndarray) -> list[int]:
    """Oracle: all entries from the largest down."""
    out = [-1] * score.shape[0]
    for i, j in sorted(itertools.product(*map(range, score.shape)), key=lambda at: -score[at]):
        if out[i] == -1 and j not in out:
            out[i] = j
    return out


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 3), (40, 40)])
def test_assignment_takes_the_strongest_pairs_first(shape: tuple[int, int]) -> None:
    score = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert strongest_first(score).tolist() == greedy(score)


def test_assignment_ends_on_ties_and_on_values_that_are_no_numbers() -> None:
    found = strongest_first(np.zeros((5, 5), np.float32))
    assert sorted(found.tolist()) == list(range(5))
    assert sorted(strongest_first(np.full((3, 3), np.nan, np.float32)).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(("d_a", "d_b"), [(12, 12), (12, 9), (9, 12)])
def test_a_signed_permutation_comes_back(d_a: int, d_b: int) -> None:
    rng = np.random.default_rng(1)
    width = max(d_a, d_b)
    x = rng.standard_normal((300, width)).astype(np.float32)
    order, signs = rng.permutation(width), rng.choice([-1.0, 1.0], width).astype(np.float32)
    y = np.empty_like(x)
    y[:, order] = x * signs  # A's channel j is B's channel order[j]
    kept = np.sort(rng.permutation(width)[:d_b]) if d_b < d_a else np.arange(width)
    new = {int(k): i for i, k in enumerate(kept)}
    cross = Cross(d_a, d_b)
    for part in np.array_split(np.arange(300), 3):
        cross.add(x[part, :d_a], y[part][:, kept][:, :d_b] + 0.1 * rng.standard_normal((part.size, d_b)))
    channels, found = cross.signed_permutation()
    for j in range(d_a):
        true = new.get(int(order[j]))
        if true is not None and true < d_b:
            assert channels[j] == true
            assert found[j] == signs[j]
    assert np.count_nonzero(channels >= 0) == min(d_a, d_b)


@pytest.mark.parametrize(("d_a", "d_b"), [(10, 10), (10, 7), (7, 10)])
def test_a_rotation_comes_back(d_a: int, d_b: int) -> None:
    rng = np.random.default_rng(2)
    width = max(d_a, d_b)
    true = np.linalg.qr(rng.standard_normal((width, width)))[0][:d_b, :d_a]  # rows or columns orthonormal
    y = rng.standard_normal((400, d_b))
    x = y @ true
    cross = Cross(d_a, d_b)
    cross.add(x.astype(np.float32), y.astype(np.float32))
    matrix = cross.rotation()
    # Where A is narrower, the part of B that it lacks blurs the polar factor a little.
    assert np.vdot(matrix, true) / min(d_a, d_b) > (0.999 if d_a >= d_b else 0.98)
    small = matrix @ matrix.T if d_b <= d_a else matrix.T @ matrix
    assert np.allclose(small, np.eye(min(d_a, d_b)), atol=1e-5)


def test_correlations_are_numpys() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((50, 4)), rng.standard_normal((50, 3)) + 5
    cross = Cross(4, 3)
    cross.add(x.astype(np.float32), y.astype(np.float32))
    assert np.allclose(cross.correlations(), np.corrcoef(x.T, y.T)[:4, 4:], atol=1e-5)


def test_cosines_are_of_centred_rows() -> None:
    x = np.array([[1, 1], [1, 3]], np.float32)
    assert np.allclose(cosines(x, x), [[1, -1], [-1, 1]])
