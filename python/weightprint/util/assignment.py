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
from weightprint.util.arrays import Indices

#: The largest number of rows and columns that is solved exactly.
EXACT = 1024


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
    if not exact:
        return Assignment(strongest_first(-c), exact)
    if c.shape[0] <= c.shape[1]:
        return Assignment(_core.assign(c), exact)
    columns = np.full(c.shape[0], -1, np.int64)
    rows = _core.assign(np.ascontiguousarray(c.T))
    columns[rows] = np.arange(rows.size)
    return Assignment(columns, exact)


def strongest_first(score: npt.NDArray[np.floating]) -> Indices:
    """A column for each row, each at most once, the largest scores first; -1 for rows left over. int64 (rows,).

    Works in rounds: pairs that are each other's best among the unassigned are taken, which gives the same result as
    going through all entries from the largest down. Scores that are no numbers come last.
    """
    out = np.full(score.shape[0], -1, np.int64)
    rows, columns = np.arange(score.shape[0]), np.arange(score.shape[1])
    left = np.where(np.isnan(score), -np.inf, score) if np.isnan(score).any() else score
    while rows.size and columns.size:
        best = left.argmax(axis=1)
        top = left[np.arange(rows.size), best]
        mutual = top >= left.max(axis=0)[best]
        first = np.zeros(rows.size, bool)
        first[np.flatnonzero(mutual)[np.unique(best[mutual], return_index=True)[1]]] = True
        if not first.any():  # ties that chase each other in a circle
            first[int(top.argmax())] = True
        out[rows[first]] = columns[best[first]]
        keep = np.ones(columns.size, bool)
        keep[best[first]] = False
        left = left[~first][:, keep]
        rows, columns = rows[~first], columns[keep]
    return out
