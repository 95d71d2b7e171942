"""Block membership of unordered tensors: which of them stand in one block, and in which order the blocks stand.

The FFN's ``down`` is the hub (attention's ``o`` where there is none): every other role is joined to it, the FFN
directly, o by what both write and read, v by o, k and q by v (scores and how often they are right:
:mod:`weightprint.anatomy.infer.pairing`). A join is trusted as far as it was right when measured, and only in weights
whose FFN shows training: there its pairs stand out from a table of noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.infer.pairing import (
    assign,
    centred,
    correlations,
    double_centred,
    likeness,
    path,
    scaled,
    squared_cosines,
)
from weightprint.anatomy.infer.value_probes import Matrix, Probe, fold, head_sizes
from weightprint.util.arrays import F32, F64

Shape = tuple[int, ...]
_Joined = dict[str, tuple[npt.NDArray[np.intp], float]]

_WRITERS = frozenset({"o", "down"})


@dataclass
class Unordered:
    """Tensors by role, with the chance of the role of each, and the cue."""

    hidden: int
    blocks: int
    transposed: bool
    experts: int = 0
    blocks_known: bool = False  # values say which tensors stand in which block
    roles: dict[str, list[str]] = field(default_factory=dict)
    chance: dict[str, tuple[float, str]] = field(default_factory=dict)
    block: dict[str, tuple[int, float]] = field(default_factory=dict)

    def give(self, role: str, names: Sequence[str], chances: Sequence[float], cue: str) -> None:
        """Give a role to tensors, with the chance of each and the cue."""
        self.roles[role] = list(names)
        self.chance.update({name: (float(c), cue) for name, c in zip(names, chances, strict=True)})


def as_units(name: str, shape: Shape, role: str, transposed: bool) -> Matrix:
    """A stored matrix as (units x channels)."""
    a, b = shape
    columns = (role in _WRITERS) != transposed
    return Matrix(name, (b, a) if columns else (a, b), columns)


@dataclass
class BlockMembership:
    """Scores between the roles of unordered tensors, and the assignments that follow."""

    pool: Unordered
    shapes: Mapping[str, Shape]
    probe: Probe
    _kept: dict[tuple[str, str], F64 | None] = field(default_factory=dict)
    first: Sequence[str] = ()  # tables that block 0 reads: positions, an untied embedding
    trained: float = 0.0
    _all: _Joined | None = None

    def matrices(self, role: str) -> list[Matrix]:
        """A role's tensors as (units x channels)."""
        return [as_units(n, self.shapes[n], role.split("+")[0], self.pool.transposed) for n in self.pool.roles[role]]

    def moments(self, role: str) -> F64 | None:
        """Second moments over the residual channels, one row per tensor, centred over tensors."""
        return self._stack("moment", role, self._moment)

    def _moment(self, m: Matrix) -> F32 | None:
        return self.probe.moment(m, 1)

    def profiles(self, role: str) -> F64 | None:
        """Channel norms, one row per tensor, centred over tensors."""
        return self._stack("profile", role, lambda m: self.probe.norms(m, 1))

    def units(self, role: str) -> F64 | None:
        """Unit norms, one row per tensor."""
        return self._stack("units", role, lambda m: self.probe.norms(m, 0), plain=True)

    def _stack(
        self, what: str, role: str, measure: Callable[[Matrix], npt.NDArray[Any] | None], plain: bool = False
    ) -> F64 | None:
        if role not in self.pool.roles:
            return None
        if (what, role) not in self._kept:
            rows = [measure(m) for m in self.matrices(role)]
            whole = None if any(r is None for r in rows) else np.array(rows, np.float64)
            self._kept[what, role] = whole if whole is None or plain else centred(whole)
        return self._kept[what, role]

    def rows(self, hub: str) -> _Joined:
        """role -> (which tensor of the hub stands in its block, how far that join is to be trusted)."""
        if self._all is None:
            self._all = self._rows(hub)
        return self._all

    def _rows(self, hub: str) -> _Joined:
        own = np.arange(self.pool.blocks)
        out: _Joined = {hub: (own, 1.0)}
        if hub == "down":
            for role in ("up", "gate", "gate+up"):
                score = self._ffn(role)
                if score is not None:
                    self._see_training(score)
                    out[role] = self._assigned(score, own, 0.95)
            writes, reads = self.moments("down"), [self.moments(r) for r in ("up", "gate", "gate+up")]
            o = self.moments("o")
            if o is not None and writes is not None:
                score = 2.0 * likeness(o, writes)
                for role, moment in zip(("up", "gate", "gate+up"), reads, strict=True):
                    if moment is not None and role in out:
                        score += likeness(o, moment[np.argsort(out[role][0])])
                out["o"] = self._assigned(score, own, 0.75)
        if "o" not in out:
            return out
        where, trust = out["o"]
        v, columns = self.units("v"), self.units("o")
        if v is not None and columns is not None:
            best = max(
                (
                    scaled(v) @ scaled(np.array([fold(c, v.shape[1], h) for c in columns])).T
                    for h in head_sizes(columns.shape[1], v.shape[1])[:8]
                ),
                key=lambda t: float(t.max(1).mean()),
            )
            out["v"] = self._assigned(double_centred(best), where, 0.85 * trust)
        if "q+k+v" in self.pool.roles and columns is not None:
            fused = self.units("q+k+v")
            if fused is not None and fused.shape[1] == 3 * columns.shape[1]:
                score = correlations(fused[:, 2 * columns.shape[1] :], columns)
                out["q+k+v"] = self._assigned(score, where, 0.85 * trust)
        self._keys(out)
        n = self.pool.blocks
        return {
            r: (row, 1 / n + (trust - 1 / n) * self.trained if r == hub else trust) for r, (row, trust) in out.items()
        }

    def _ffn(self, role: str) -> F64 | None:
        if role not in self.pool.roles:
            return None
        ms, downs = self.matrices(role), self.matrices("down")
        if ms[0].shape[0] != downs[0].shape[0]:
            return None
        score = ffn_cosines(self.probe, ms, downs)
        if score is None:
            return None
        a, b = self.units(role), self.units("down")
        return score + correlations(a, b) if a is not None and b is not None and role == "up" else score

    def _keys(self, out: _Joined) -> None:
        """q and k go together by second moments; both go with v by k's, and by channel norms that oppose."""
        k, q, v = (self.moments(r) for r in ("k", "q", "v"))
        if k is None or v is None or "v" not in out:
            return
        where, trust = out["v"]
        score = 2.0 * correlations(k, v)
        pk, pv, pq = (self.profiles(r) for r in ("k", "v", "q"))
        if pk is not None and pv is not None:
            score -= correlations(pk, pv)
        pairs = None
        if q is not None:
            pairs = assign(correlations(k, q))  # for every k its q
            score += (correlations(q, v) / 2)[pairs]
            if pq is not None and pv is not None:
                score -= correlations(pq, pv)[pairs]
        out["k"] = self._assigned(score, where, 0.6 * trust)
        if pairs is not None:
            back = np.empty_like(pairs)
            back[pairs] = out["k"][0]
            out["q"] = (back, out["k"][1] * 0.95)

    def _assigned(self, score: F64, hub: npt.NDArray[np.intp], trust: float) -> tuple[npt.NDArray[np.intp], float]:
        """For every row the hub tensor behind the column that it is assigned, and how far that is to be trusted:
        as measured, in weights that show training in the FFN's join, else as chance."""
        n = len(score)
        return hub[assign(score)], float(1 / n + (trust - 1 / n) * self.trained)

    def _see_training(self, score: F64) -> None:
        """How far the FFN's pairs stand out: their mean score in sd of the table lies between that of noise (the same
        entries, shuffled) and the most that any n x n table has, sqrt(n - 1); half-way there is enough."""
        n = len(score)
        rng = np.random.default_rng(0)
        noise = float(np.mean([_strength(rng.permutation(score.ravel()).reshape(n, n)) for _ in range(5)]))
        found = float(np.clip(2 * (_strength(score) - noise) / max(0.1, np.sqrt(n - 1) - noise), 0, 1))
        self.trained = max(self.trained, found)

    def order(self) -> list[int]:
        """Hub tensors (of down, or o) from the first block to the last; empty where nothing says."""
        moments = [m for r in ("up", "gate", "gate+up") if (m := self._by_hub(r, self.moments(r))) is not None]
        if not moments:
            return []
        found = path(sum((likeness(m, m) for m in moments), np.zeros((self.pool.blocks,) * 2)))
        down = self.units("down")
        if down is None:
            return found
        growth = np.zeros(self.pool.blocks)
        for role in ("down", "v", "o", "q+k+v"):
            units = self._by_hub(role, self.units(role))
            if units is not None:
                growth += units.mean(1) - units.mean(1).mean()
        depth = np.arange(len(found))
        forward = float(np.corrcoef(growth[found], depth)[0, 1]) if growth.any() else 0.0
        plain = [self._by_hub(r, self._stack("plain", r, self._moment, plain=True)) for r in ("q", "k", "q+k+v")]
        reads = [m for m in plain if m is not None]
        for table in self.first:
            near = self.probe.moment(Matrix(table, (self.shapes[table][0], self.pool.hidden)), 1)
            if near is None:
                continue
            for moment in reads:
                r = (likeness(moment, near[None])[:, 0])[found]
                forward += 2.0 * float(r[0] - r[-1]) / len(reads)
        return found if forward >= 0 else found[::-1]

    def _by_hub(self, role: str, rows: F64 | None) -> F64 | None:
        """Rows of a role's tensors in the order of the hub's that stand in their blocks."""
        joined = self.rows("down" if "down" in self.pool.roles else "o").get(role)
        return None if rows is None or joined is None else rows[np.argsort(joined[0])]


def ffn_cosines(probe: Probe, readers: Sequence[Matrix], downs: Sequence[Matrix]) -> F64 | None:
    """(readers x downs): how far unit i of one and unit i of the other have related directions, double_centred."""
    units, channels = downs[0].shape
    k = min(channels, max(8, (1 << 19) // units), 256)
    left, right = ([probe.rectangle(m, units, k) for m in ms] for ms in (readers, downs))
    if any(x is None for x in [*left, *right]):
        return None
    return squared_cosines([x for x in left if x is not None], [x for x in right if x is not None])


def _strength(score: F64) -> float:
    """Mean score of the assigned pairs in sd of the table."""
    return float(double_centred(score)[np.arange(len(score)), assign(score)].mean())
