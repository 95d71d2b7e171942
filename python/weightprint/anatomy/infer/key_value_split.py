"""Key and value projections of one shape, told apart by what each is multiplied with.

A value's unit is multiplied with a unit of o, a key's with a unit of q, and gradient descent keeps the difference of
their squared norms (:mod:`.value_probes`, "paired norms"). Rotary positions (Su et al. 2021, RoFormer) mix the two rows
of a plane, (i, i + h/2) in a head of h or (2i, 2i + 1), so for keys it is planes that pair. And planes differ in
frequency: how large each grows is much the same for all queries and keys, a profile over a head's planes that values
don't have.

===============  ================================================================  ========
cue              score of a candidate                                              tells
===============  ================================================================  ========
paired norms     r of its units' log norms with those of o's columns, by block     values
second moments   r of its channels' second moments with q's, by block              keys
paired planes    r of its planes' log norms with q's, by block                     keys
profile          r of its mean log norms per plane with those of all queries       keys
===============  ================================================================  ========

Head size and layout are those under which the heads of q agree most. How far a cue tells differs from model to model:
it counts (mean of pairs - mean of others) / mean of both variances, by the pairs of the assignment so far, and the
assignment is made again until it stays (:func:`split`; it serves gates and fused q|k|v too).

*Measured*, wrong pairs of k and v: in eleven tiny Llamas, two with experts (82 blocks, the fit side) 0, and with noise
of .3 and .6 of each tensor's spread, three draws, 2 and 10 of 246; with the first two cues alone, unweighed, 0, 3 and
19. In seven others (60 blocks, the test side) 0, 3 and 15 of 180, against 0, 6 and 19. In SmolLM2, real, 30 blocks, on
which the profile was found (it alone splits all 30): 0, and 0 with noise of .3, against 2 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.infer.pairing import assign, contrast, scaled
from weightprint.anatomy.infer.value_probes import fold, head_sizes, logistic
from weightprint.util.arrays import F64

_ROUNDS = 6  # of learning weights; most settle in two
#: Log odds of k or v at no margin over the other, and per unit of margin; at most _MOST is stated.
_EVEN, _STEEP, _MOST = 0.5, 0.5, 0.95


def paired(columns: F64, rows: F64) -> F64:
    """r of every o's column norms, folded to key heads, with every candidate's row norms; head size of the best."""
    units = rows.shape[1]
    tables = []
    for head in head_sizes(columns.shape[1], units)[:8]:
        folded = [fold(c, units, head) for c in columns]
        if all(f is not None and f.size == units for f in folded):
            tables.append(scaled(np.array(folded)) @ scaled(rows).T)
    if not tables:
        return np.zeros((len(columns), len(rows)))
    return np.asarray(max(tables, key=lambda t: float(np.sort(t.max(1)).mean())))


@dataclass(frozen=True)
class Rotation:
    """Which rows of a head turn together: ``plane[i]`` is row i's."""

    head: int
    plane: npt.NDArray[np.intp]

    @classmethod
    def of(cls, queries: F64, key_units: int) -> Rotation | None:
        """The head size and layout under which the heads of all `queries` (log norms of units) have one profile."""
        best: tuple[float, Rotation] | None = None
        for head in head_sizes(queries.shape[1], key_units)[:8]:
            if head % 2:
                continue
            for plane in (np.arange(head) % (head // 2), np.arange(head) // 2):
                found = cls(head, plane)
                profiles = scaled(found.planes(queries).reshape(-1, head // 2))
                agreed = float((profiles.sum(0) ** 2).sum() - len(profiles)) / max(
                    1, len(profiles) * (len(profiles) - 1)
                )
                if best is None or agreed > best[0]:
                    best = agreed, found
        return best and best[1]

    def planes(self, units: F64) -> F64:
        """(tensors x heads x planes): mean log norm of a plane's rows, without the head's mean."""
        heads = units.reshape(len(units), -1, self.head)
        heads = heads - heads.mean(2, keepdims=True)
        order = np.argsort(self.plane, kind="stable")
        return np.asarray(heads[:, :, order].reshape(*heads.shape[:2], -1, 2).mean(3))

    def profile(self, queries: F64, candidates: F64) -> F64:
        """r of every candidate's mean over heads with that of all queries."""
        mean = self.planes(queries).mean((0, 1))[None]
        return np.asarray(scaled(self.planes(candidates).mean(1)) @ scaled(mean)[0])

    def pairs(self, queries: F64, candidates: F64) -> F64:
        """r of every query's planes, averaged over the query heads that share a key head, with every candidate's."""
        keys = self.planes(candidates)
        asked = self.planes(queries).reshape(len(queries), keys.shape[1], -1, keys.shape[2]).mean(2)
        return np.asarray(scaled(asked.reshape(len(asked), -1)) @ scaled(keys.reshape(len(keys), -1)).T)


def split(first: F64, second: Sequence[F64], profile: F64 | None = None) -> tuple[npt.NDArray[np.intp], F64]:
    """Which of 2n candidates are of the first of two kinds, and how surely each is of the kind it is given.

    Args:
        first: (n x 2n) how each goes with every partner of the first kind.
        second: (n x 2n) each, how it goes with every partner of the second kind. The first of them makes, with `first`,
            the assignment to start from; without any, the profile does.
        profile: (2n) how much each is like the second kind, whatever its partner.
    """
    n = len(first)
    rows = np.arange(n)
    if second:
        picked = assign(np.concatenate([first, second[0]]))
    else:
        order = np.argsort(np.zeros(2 * n) if profile is None else profile, kind="stable")
        picked = np.concatenate([order[:n][assign(first[:, order[:n]])], order[n:]])
    table = np.zeros((2 * n, 2 * n))
    for _ in range(_ROUNDS):
        a, b = picked[:n], picked[n:]
        table[:n] = _weight(first, rows, a) * first
        table[n:] = sum(_weight(t, rows, b) * t for t in second)
        if profile is not None:
            table[n:] += contrast(profile[b], profile[a]) * profile
        again = assign(table)
        if bool((again == picked).all()):
            break
        picked = again
    a, b = picked[:n], picked[n:]
    lead = table[:n].max(0) - table[n:].max(0)
    margin = lead - (np.median(lead[a]) + np.median(lead[b])) / 2
    margin[b] *= -1
    return a, np.clip([logistic(_EVEN + _STEEP * m) for m in margin], 0.5, _MOST)


def _weight(table: F64, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> float:
    others = np.ones(table.shape, bool)
    others[rows, columns] = False
    return contrast(table[rows, columns], table[others])
