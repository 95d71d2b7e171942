"""Linear assignment: which row goes with which column at the smallest total cost.

*Exact*, for up to :data:`EXACT` rows: shortest augmenting paths (Jonker and Volgenant 1987), in
`rust/core/src/pair/assign.rs`.

*Greedy*, beyond that: a row and a column that are each other's best are paired, and the same again among what is left.
That is the matching that takes the smallest entry first, found in a few rounds. Where a true correspondence stands out
the two agree; where nothing does they differ, and nothing is to be found. `Assignment.exact` says which one it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weightprint import _core

__all__ = ["EXACT", "Assignment", "assign"]

#: The largest number of rows and columns that is solved exactly.
EXACT = 1024

F64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Assignment:
    """For row i the column that it goes with, -1 where there are more rows than columns; int64 (rows,)."""

    columns: Indices
    exact: bool

    @property
    def note(self) -> str:
        """How it was found, in words."""
        return "optimal assignment" if self.exact else f"greedy assignment (more than {EXACT} rows or columns)"


def assign(cost: npt.NDArray[np.floating], exact: bool | None = None) -> Assignment:
    """One-to-one assignment that makes the sum of the chosen costs small.

    Args:
        cost: (rows, columns), finite.
        exact: True: the optimum at any size; False: greedy; None: exact up to `EXACT` rows and columns.

    Raises:
        ValueError: a cost that is not finite.
    """
    c = np.ascontiguousarray(cost, np.float64)
    if not np.isfinite(c).all():
        raise ValueError("an assignment needs finite costs")
    exact = max(c.shape) <= EXACT if exact is None else exact
    solve = _core.assign if exact else _greedy
    if c.shape[0] <= c.shape[1]:
        return Assignment(solve(c), exact)
    columns = np.full(c.shape[0], -1, np.int64)
    rows = solve(np.ascontiguousarray(c.T))
    columns[rows] = np.arange(rows.size)
    return Assignment(columns, exact)


def _greedy(c: F64) -> Indices:
    """Smallest entries first, for a matrix with at least as many columns as rows."""
    columns = np.full(c.shape[0], -1, np.int64)
    rows, free = np.arange(c.shape[0]), np.arange(c.shape[1])
    while rows.size:
        left = c[np.ix_(rows, free)]
        best = left.argmin(axis=1)
        mutual = left.argmin(axis=0)[best] == np.arange(rows.size)
        columns[rows[mutual]] = free[best[mutual]]
        rows, free = rows[~mutual], np.delete(free, best[mutual])
    return columns
