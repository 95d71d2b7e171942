"""The assignment solver against all permutations, against scipy, and on matrices made to be hard."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from weightprint.util.assignment import EXACT, assign


def total(cost: np.ndarray, columns: np.ndarray) -> float:
    rows = np.nonzero(columns >= 0)[0]
    return float(cost[rows, columns[rows]].sum())


def one_to_one(columns: np.ndarray, shape: tuple[int, ...]) -> bool:
    used = columns[columns >= 0]
    return used.size == min(shape) == np.unique(used).size


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3), (5, 5), (3, 6), (6, 3), (6, 6)])
@pytest.mark.parametrize("seed", range(12))
def test_brute_force(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng([seed, *shape])
    # Small whole numbers make many ties; normal numbers make none.
    cost = rng.integers(-3, 4, shape).astype(float) if seed % 2 else rng.standard_normal(shape)
    wide = cost if shape[0] <= shape[1] else cost.T
    best = min(sum(wide[i, j] for i, j in enumerate(p)) for p in permutations(range(wide.shape[1]), wide.shape[0]))
    found = assign(cost)
    assert found.exact
    assert one_to_one(found.columns, shape)
    assert total(cost, found.columns) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("shape", [(40, 40), (120, 120), (64, 200), (200, 64)])
@pytest.mark.parametrize("kind", ["uniform", "product", "cosine", "ties"])
def test_against_scipy(shape: tuple[int, int], kind: str) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(shape)
    rows, columns = shape
    cost = {
        "uniform": rng.random(shape),
        "product": np.outer(np.arange(rows) + 1.0, np.arange(columns) + 1.0),  # the classic worst case
        "cosine": -np.abs(rng.standard_normal((rows, 8)) @ rng.standard_normal((8, columns))),
        "ties": rng.integers(0, 3, shape).astype(float),
    }[kind]
    r, c = optimize.linear_sum_assignment(cost)
    found = assign(cost)
    assert one_to_one(found.columns, shape)
    assert total(cost, found.columns) == pytest.approx(float(cost[r, c].sum()), rel=1e-12, abs=1e-9)


def test_a_hidden_permutation_is_found_exactly_and_greedily() -> None:
    rng = np.random.default_rng(3)
    n = EXACT + 40
    x = rng.standard_normal((n, 24))
    order = rng.permutation(n)
    y = x[order] + 0.05 * rng.standard_normal((n, 24))
    cost = ((x[:, None] - y[None]) ** 2).sum(axis=2)
    greedy = assign(cost)
    assert not greedy.exact
    assert "greedy" in greedy.note
    truth = np.argsort(order)
    assert (greedy.columns == truth).mean() > 0.99
    small = assign(cost[:300], exact=True)
    assert small.exact
    assert (small.columns == truth[:300]).mean() > 0.99


def test_greedy_takes_the_smallest_entry_first() -> None:
    rng = np.random.default_rng(4)
    cost = rng.random((30, 45))
    left, expected = cost.copy(), np.full(30, -1)
    for _ in range(30):
        i, j = np.unravel_index(left.argmin(), left.shape)
        expected[i] = j
        left[i], left[:, j] = np.inf, np.inf
    assert (assign(cost, exact=False).columns == expected).all()


def test_a_cost_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        assign(np.array([[0.0, np.inf], [np.nan, 1.0]]))


def test_no_rows() -> None:
    assert assign(np.empty((0, 5))).columns.size == 0
    assert (assign(np.empty((5, 0))).columns == -1).all()
