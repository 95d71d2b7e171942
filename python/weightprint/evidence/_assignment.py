"""Linear assignment: which row goes with which column at the smallest total cost, in numpy alone.

*Exact*, for up to :data:`EXACT` rows: shortest augmenting paths with potentials (Jonker and Volgenant 1987; Crouse 2016
for the rectangular form). Potentials u, v with u_i + v_j <= c_ij are kept, and tight edges are those where the two are
equal. Rows that find a free tight column take it; every other row sends a Dijkstra search through the reduced costs
c - u - v to the nearest free column, whose inner loops run over whole rows of the matrix. O(n^3): half a second at
n = 1024.

*Greedy*, beyond that: a row and a column that are each other's best are paired, and the same again among what is left.
That is the matching that takes the smallest entry first, found in a few rounds. Where a true correspondence stands out
the two agree; where nothing does they differ, and nothing is to be found. `Assignment.exact` says which one it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    c = np.asarray(cost, np.float64)
    if not np.isfinite(c).all():
        raise ValueError("an assignment needs finite costs")
    exact = max(c.shape) <= EXACT if exact is None else exact
    solve = _shortest_paths if exact else _greedy
    if c.shape[0] <= c.shape[1]:
        return Assignment(solve(c), exact)
    columns = np.full(c.shape[0], -1, np.int64)
    rows = solve(np.ascontiguousarray(c.T))
    columns[rows] = np.arange(rows.size)
    return Assignment(columns, exact)


def _shortest_paths(c: F64) -> Indices:
    """The optimum for a matrix with at least as many columns as rows."""
    n, m = c.shape
    # Any v makes a start where all columns are used in the end; else columns left over must keep v = 0.
    v = c.min(axis=0) if n == m and n else np.zeros(m)
    u = (c - v).min(axis=1) if m else np.zeros(n)
    row_of = np.full(m, -1, np.int64)
    column_of = np.full(n, -1, np.int64)
    for i in range(n):
        tight = np.nonzero((c[i] - u[i] - v <= 0) & (row_of < 0))[0]
        if tight.size:
            column_of[i], row_of[tight[0]] = tight[0], i
    for start in np.nonzero(column_of < 0)[0]:
        _augment(c, u, v, row_of, column_of, int(start))
    return column_of


def _augment(c: F64, u: F64, v: F64, row_of: Indices, column_of: Indices, start: int) -> None:
    """Give row `start` a column by the shortest path of swaps; keeps the potentials feasible."""
    distance = c[start] - u[start] - v
    before = np.full(distance.size, start, np.int64)
    reach = distance.copy()  # infinite where the search has been
    seen: list[int] = []
    while True:
        j = int(reach.argmin())
        low = float(reach[j])
        if row_of[j] < 0:
            break
        seen.append(j)
        reach[j] = np.inf
        i = int(row_of[j])
        further = low + (c[i] - u[i] - v)
        better = further < reach
        better[seen] = False
        distance[better] = reach[better] = further[better]
        before[better] = i
    passed = np.array(seen, np.int64)
    gain = low - distance[passed]
    u[row_of[passed]] += gain
    v[passed] -= gain
    u[start] += low
    while True:
        i = int(before[j])
        row_of[j] = i
        column_of[i], j = j, int(column_of[i])
        if i == start:
            return


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
