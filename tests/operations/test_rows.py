"""Rows that stand elsewhere are told from rows that were trained."""

from __future__ import annotations

import numpy as np
import pytest
from weightprint.operations.changes import _mixed


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 40))


def test_a_few_rows_in_each_others_place(x: np.ndarray) -> None:
    y = x.copy()
    y[:20] = x[np.roll(np.arange(20), 1)]
    assert _mixed(x, y)
    assert not _mixed(x, x)
    y = x.copy()
    y[[0, 1]] = x[[1, 0]]  # one in a hundred is no sign
    assert not _mixed(x, y)


def test_trained_and_zeroed_rows_did_not_move(x: np.ndarray) -> None:
    assert not _mixed(x, x + 0.05 * np.random.default_rng(1).standard_normal(x.shape))
    x[:50] = 0  # zeros are everywhere
    y = x.copy()
    y[50:100] = 0
    assert not _mixed(x[:, :8], y[:, :8])


def test_rows_that_are_others_beside_rows_that_stayed(x: np.ndarray) -> None:
    y = x + 0.01
    y[:30] = np.random.default_rng(2).standard_normal((30, 40))
    assert _mixed(x, y)
