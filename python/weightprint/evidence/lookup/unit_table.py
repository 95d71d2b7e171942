"""Who is looked for in whom, at what cost: tables of agreement between B's FFNs and A's.

*Cost.* A table takes 6 u h c (1 + R f) multiply-adds x 2 per pair of FFNs: u units of B looked for among h of A, c
channels, R permutations of a share f of the units, three matrices. Channels are sampled: 512 of 4096 leave chance
cosines of deviation .03 where a copy has its rho. Permutations are few, since chance rates are borrowed over pairs
(:mod:`weightprint.evidence.nulls.counts`). A comparison takes the richest `Plan` that costs seconds; where even
`ENOUGH` (which sees a tenth of a block's units) costs more, that; and where that is beyond the limit, what is within
it.

*Experts.* Hundreds of experts in every layer make millions of pairs. Where all of them can't be afforded, a row of the
first table is a block of B: some units of some of its experts. That finds the layers; the second table looks for every
expert in the experts of the layers found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.place import Expert
from weightprint.evidence.lookup.nearest_units import (
    Piece,
    Probes,
    count,
    count_reads,
    probe,
    probe_reads,
    probes,
)
from weightprint.evidence.lookup.settled import ALIKE, asked
from weightprint.evidence.lookup.units import width_in_a
from weightprint.evidence.pair import Block, ModelPair
from weightprint.fingerprint.ffns import Ffn
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import pick
from weightprint.fingerprint.steps import Collector, Round, Step
from weightprint.util.arrays import F32, F64, I64, Bools, Indices
from weightprint.util.ranges import evenly

Key = tuple[str, int, Expert]

#: Multiply-adds x 2 that a comparison may always cost, and from which it is dear.
_ALWAYS = 5e10
_DEAR = 4e12
_PAIRS = 1 << 18  # of FFNs, each of which is looked at by itself however small it is

_HELD = 1 << 27  # values of B's units in memory, all three matrices
_EXPERTS = 16  # of a block, in a row that stands for the block
_RUN = 8  # units read in one go, short so that every part of an FFN is represented
_TIE = np.float32(1e-4)


@dataclass(frozen=True, slots=True)
class Plan:
    """Units looked for per row, residual channels, permutations, and of how many units each (every one, every 4th)."""

    units: int
    channels: int
    permutations: int
    every: int = 1

    @property
    def looked_for(self) -> float:
        """Units that are looked for per row, those permuted again included."""
        return self.units * (1 + self.permutations / self.every)


#: Richest first.
PLANS = tuple(
    Plan(*sizes)
    for sizes in (
        (1024, 4096, 8),
        (256, 4096, 8),
        (256, 4096, 8, 2),
        (128, 4096, 8, 2),
        (128, 2048, 4, 2),
        (128, 1024, 4, 4),
        (128, 512, 2, 4),
        (64, 512, 2, 4),
        (64, 256, 2, 4),
        (32, 256, 2, 2),
        (16, 256, 2, 2),
        (8, 256, 2, 1),
    )
)
#: Sees a tenth of an FFN's units; experts that it can't be afforded for are looked for by way of their blocks.
ENOUGH = PLANS[6]


@dataclass(frozen=True, slots=True)
class Row:
    """Units of B that count together: an FFN's, or some of every expert of a block."""

    key: Key
    parts: tuple[Ffn, ...]
    width: int | None

    def units(self, want: int, seed: int) -> list[tuple[Ffn, Indices]]:
        """About `want` unit numbers in all."""
        chosen = evenly(self.parts, _EXPERTS, rounded=False)
        each = max(1, want // len(chosen))
        return [(f, pick(f.units, each, seed, f"units {f.units}", _RUN)) for f in chosen]


@dataclass(frozen=True)
class Table:
    """Rows of B against FFNs (or blocks) of A.

    Attributes:
        b, a: where they are.
        agreed: units of A named twice; int64 (1 + R, n_b, n_a), arrangement 0 as it is.
        tested: units per row; int64 (n_b,).
        part: of the units that were looked for again in every permutation, 0..1.
        sizes: tested units over units of A, the chance rate without hubs; 0 where not compared; float64 (n_b, n_a).
        comparable: pairs that could be compared, and that a p-value pays for; bool (n_b, n_a).
        named: per (b, a) the units that agree, int64 (n, 2) as (unit of B, unit of A).
        nearest: those of them that resemble no unit of another column more; int64 (n_b, n_a).
    """

    b: tuple[Key, ...]
    a: tuple[Key, ...]
    agreed: I64
    tested: I64
    part: float
    sizes: F64
    comparable: Bools
    named: Mapping[tuple[int, int], I64]
    nearest: I64

    @property
    def compared(self) -> Bools:
        """Pairs that were looked at."""
        return self.sizes > 0


def rows_of(models: ModelPair, theirs: Sequence[Ffn], *, pooled: bool = False) -> list[Row]:
    """A row for each FFN of B, or for each block."""
    groups: dict[Key, list[Ffn]] = defaultdict(list)
    for ffn in theirs:
        groups[(ffn.stack, ffn.block, None) if pooled else ffn.key].append(ffn)
    return [Row(key, tuple(parts), width_in_a(models.basis, parts[0])) for key, parts in groups.items()]


def plan_for(models: ModelPair, rows: Sequence[Row], ours: Sequence[Ffn], part: float = 1.0) -> Plan | None:
    """What this part of the budget is spent on; None where the smallest plan is beyond it."""
    budget, numel = models.budget.lookup, models.a.numel + models.b.numel
    limit = max(_ALWAYS, budget.limit) * part
    easy = min(limit, max(_ALWAYS, min(budget.easy, budget.each * numel)) * part)
    widest = max((f.width for f in ours), default=1)
    for plan in PLANS[budget.richest :]:
        allowed = easy if plan.units > ENOUGH.units or plan.channels > ENOUGH.channels else limit
        if _cost(plan, rows, ours) <= allowed and 3 * len(rows) * plan.units * min(plan.channels, widest) <= _HELD:
            return plan
    return None


def is_dear(plan: Plan | None, rows: Sequence[Row], ours: Sequence[Ffn], richest: int = 0) -> bool:
    """All pairs cost so much, or so much had to be saved, that experts are better looked for by way of their blocks.
    ``richest``: of the plans, the first that might have been taken."""
    if plan is None or PLANS.index(plan) > max(PLANS.index(ENOUGH), richest):
        return True
    return len(rows) * len(ours) > _PAIRS or _cost(plan, rows, ours) > _DEAR


def _cost(plan: Plan, rows: Sequence[Row], ours: Sequence[Ffn]) -> float:
    """Multiply-adds x 2 of a table."""
    of_width = Counter(row.width for row in rows)
    pairs = sum(f.units * min(plan.channels, width) * of_width[width] for f in ours if (width := f.width) in of_width)
    return 6.0 * pairs * plan.looked_for


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows and FFNs of one width, all gated or all plain: units of B that are looked for, numbers of A's FFNs, what
    channels they are compared on, and the orders that these are permuted into."""

    chosen: list[tuple[int, Ffn, Indices]]
    there: list[int]
    channels: I64
    orders: list[I64]


@dataclass(frozen=True, slots=True)
class _Counted:
    """One FFN of A against some probes: how many of them each row has, int64 (rows,), what they say by arrangement (as
    :class:`~.nearest_units.Counts`), and those that name a unit: their numbers among all probes, int32, the units,
    int64, and the cosines, float32. There may be tens of thousands of these."""

    asked: I64
    agreed: I64
    probes: npt.NDArray[np.int32]
    named: I64
    likeness: F32


class Lookup(Collector):
    """The rows' units, looked up in every FFN of A of equal width: in place first, where nothing is known yet."""

    def __init__(self, models: ModelPair, rows: Sequence[Row], ours: Sequence[Ffn], plan: Plan) -> None:
        super().__init__()
        self.basis, self.rows, self.ours, self.plan = models.basis, tuple(rows), tuple(ours), plan
        self.seed = models.seed
        self._groups = self._grouped(models)
        self._pieces: dict[tuple[int, int], Piece] = {}
        self._found: list[Probes] = []
        self._counts: dict[tuple[int, int], list[_Counted]] = defaultdict(list)
        self._asked = self._asked_of(models)

    def _grouped(self, models: ModelPair) -> list[_Group]:
        out = []
        for width in sorted({f.width for f in self.ours}):
            channels = _channels(models, width, self.plan.channels)
            rng = np.random.default_rng([models.seed, width])
            orders = [rng.permutation(channels.size) for _ in range(self.plan.permutations)]
            there = [j for j, ffn in enumerate(self.ours) if ffn.width == width]
            chosen = [
                (i, ffn, units)
                for i, row in enumerate(self.rows)
                if row.width == width
                for ffn, units in row.units(self.plan.units, models.seed)
            ]
            for gated in (False, True):
                if group := [(i, f, units) for i, f, units in chosen if (f.gate is not None) == gated]:
                    out.append(_Group(group, there, channels, orders))
        return out

    @property
    def what(self) -> Hashable:
        """FFNs, plan, seed and basis."""
        rows = tuple((row.key, row.width, tuple(_names(f) for f in row.parts)) for row in self.rows)
        return rows, tuple(map(_names, self.ours)), self.plan, self.seed, self.basis.kind, self.basis.found_by

    def _asked_of(self, models: ModelPair) -> Bools:
        return asked(models, [row.key[:2] for row in self.rows], [(f.stack, f.block) for f in self.ours])

    def rounds(self) -> list[Round]:
        """One round: probes from B, then FFNs of A are counted against those that ask for them."""
        theirs = [
            Step((ffn.stack, ffn.block), partial(self._probe, g, k), probe_reads(ffn, units, group.channels))
            for g, group in enumerate(self._groups)
            for k, (_, ffn, units) in enumerate(group.chosen)
        ]
        return [(theirs, self._counting(self._asked))]

    def more(self, models: ModelPair) -> list[Round]:
        """The pairs that were not asked for at first."""
        wanted = self._asked_of(models)
        left = wanted & ~self._asked
        self._asked = wanted | self._asked
        return [((), self._counting(left))]

    def _counting(self, pairs: Bools) -> list[Step]:
        out = []
        for g, group in enumerate(self._groups):
            rows = sorted({i for i, _, _ in group.chosen})
            for j in group.there:
                if pairs[rows, j].any():
                    ffn = self.ours[j]
                    reads = count_reads(ffn, group.channels)
                    out.append(Step((ffn.stack, ffn.block), partial(self._count, g, j, pairs[:, j]), reads))
        return out

    def _probe(self, g: int, k: int, side: ModelView) -> None:
        group = self._groups[g]
        _, ffn, units = group.chosen[k]
        self._pieces[g, k] = probe(side, ffn, units, self.basis, group.channels)

    def turn(self) -> None:
        """Join B's pieces into one table of probes per group."""
        for g, group in enumerate(self._groups):
            self._found.append(probes(group.chosen, [self._pieces.pop((g, k)) for k in range(len(group.chosen))]))

    def _count(self, g: int, j: int, rows: Bools, side: ModelView) -> None:
        group, n, every = self._groups[g], len(self.rows), self.plan.every
        some = np.nonzero(rows[self._found[g].of])[0]
        found = self._found[g].some(some)
        counts = count(side, self.ours[j], found, n, group.channels, group.orders, every)
        asked = np.bincount(found.of, minlength=n)
        hit = np.nonzero(counts.named >= 0)[0]
        kept = _Counted(asked, counts.agreed, some[hit].astype(np.int32), counts.named[hit], counts.likeness[hit])
        with self._adding:
            self._counts[g, j].append(kept)

    def table(self) -> Table:
        """What all steps found."""
        shape = len(self.rows), len(self.ours)
        agreed = np.zeros((1 + self.plan.permutations, *shape), np.int64)
        tested, sizes, comparable = np.zeros(len(self.rows), np.int64), np.zeros(shape), np.zeros(shape, bool)
        named: dict[tuple[int, int], I64] = {}
        likeness: dict[tuple[int, int], F32] = {}
        for g, (group, found) in enumerate(zip(self._groups, self._found, strict=True)):
            counted = np.bincount(found.of, minlength=len(self.rows))
            tested += counted
            comparable[np.ix_(np.nonzero(counted)[0], np.array(group.there, np.int64))] = True
            for j in group.there:
                for counts in self._counts[g, j]:
                    of, units = found.of[counts.probes], found.units[counts.probes]
                    agreed[:, :, j] += counts.agreed
                    sizes[:, j] += counts.asked / self.ours[j].units
                    for i in np.unique(of):
                        mine = of == i
                        named[int(i), j] = np.stack([units[mine], counts.named[mine]], axis=1)
                        likeness[int(i), j] = counts.likeness[mine]
        nearest = _nearest(shape, named, likeness)
        keys = tuple(row.key for row in self.rows), tuple(f.key for f in self.ours)
        return Table(*keys, agreed, tested, 1 / self.plan.every, sizes, comparable, named, nearest)

    def in_place(self) -> dict[Block, float]:
        """Block → the least share, over its rows, of units that are found in A's block of the same place with a cosine
        beyond `settled.ALIKE`."""
        shares: dict[Block, float] = {}
        clear: dict[int, set[int]] = defaultdict(set)
        tested: dict[int, int] = defaultdict(int)
        for g, found in enumerate(self._found):
            for i, n in enumerate(np.bincount(found.of, minlength=len(self.rows))):
                tested[i] += int(n)
            for j in self._groups[g].there:
                there = self.ours[j].stack, self.ours[j].block
                for counts in self._counts[g, j]:
                    for k in counts.probes[counts.likeness > ALIKE]:
                        if self.rows[found.of[k]].key[:2] == there:
                            clear[int(found.of[k])].add(int(k))
        for i, row in enumerate(self.rows):
            share = len(clear[i]) / tested[i] if tested[i] else 0.0
            shares[row.key[:2]] = min(share, shares.get(row.key[:2], 1.0))
        return shares


def _names(ffn: Ffn) -> tuple[Hashable, ...]:
    return ffn.key, *(None if tensor is None else tensor.name for tensor in (ffn.up, ffn.gate, ffn.down))


def by_block(table: Table) -> Table:
    """The same with A's FFNs of one block as one column."""
    blocks = list(dict.fromkeys((stack, block, None) for stack, block, _ in table.a))
    column = np.array([blocks.index((stack, block, None)) for stack, block, _ in table.a])

    def summed(x: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return np.stack([x[..., column == j].sum(axis=-1) for j in range(len(blocks))], axis=-1)

    return replace(
        table,
        a=tuple(blocks),
        agreed=summed(table.agreed).astype(np.int64),
        sizes=summed(table.sizes).astype(np.float64),
        comparable=summed(table.comparable).astype(bool),
        nearest=summed(table.nearest).astype(np.int64),
        named={},
    )


def _nearest(
    shape: tuple[int, ...], named: Mapping[tuple[int, int], I64], likeness: Mapping[tuple[int, int], F32]
) -> I64:
    """For every pair the units of B that agree there and resemble no unit of another FFN of A more; a tie is both's."""
    most: dict[tuple[int, int], float] = defaultdict(float)
    for (i, j), units in named.items():
        for unit, like in zip(units[:, 0].tolist(), likeness[i, j].tolist(), strict=True):
            most[i, unit] = max(most[i, unit], like)
    out = np.zeros(shape, np.int64)
    for (i, j), units in named.items():
        top = np.array([most[i, unit] for unit in units[:, 0].tolist()], np.float32)
        out[i, j] = np.count_nonzero(likeness[i, j] >= top - _TIE)
    return out


def _channels(models: ModelPair, width: int, size: int) -> I64:
    """The channels of A that are compared: those that B has, a seeded choice where they are many."""
    channels = models.basis.channels
    known = np.arange(width) if channels is None or channels.size != width else np.nonzero(channels >= 0)[0]
    return known[pick(known.size, size, models.seed, f"channels {width}")]
