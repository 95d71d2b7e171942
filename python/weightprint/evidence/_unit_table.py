"""Who is looked for in whom, at what cost: tables of agreement between B's FFNs and A's.

*Cost.* A table takes 6 u h c (1 + R) multiply-adds x 2 per pair of FFNs: u units of B looked for among h of A, c
channels, R permutations, three matrices. A `Plan` is the richest (u, c, R) that a budget allows. Channels are sampled:
512 of 4096 leave chance cosines of deviation .03 where a copy has its rho. Permutations are few, since chance rates are
borrowed over pairs (:mod:`weightprint.evidence._counts`).

*Experts.* Hundreds of experts in every layer make millions of pairs. Where all of them can't be afforded, a row of the
first table is a block of B: some units of some of its experts. That finds the layers; the second table looks for every
expert in the experts of the layers found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from weightprint.evidence._base import F32, Expert, Models
from weightprint.evidence._match import count, probes
from weightprint.evidence._sample import Indices, pick
from weightprint.evidence._units import Ffn, width_in_a

__all__ = ["LEAST", "PLANS", "Plan", "Row", "Table", "budget", "by_block", "compare", "plan_for", "rows_of"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Key = tuple[str, int, Expert]

#: Multiply-adds x 2 that one comparison may cost, the same per parameter of A and B (so that small models take
#: seconds), and what even the smallest may cost.
_MOST = {"standard": 5e12, "full": 4e14}
_EACH = {"standard": 5e3, "full": 2e5}
_ALWAYS = 5e10

_HELD = 1 << 27  # values of B's units in memory, all three matrices
_EXPERTS = 16  # of a block, in a row that stands for the block
_TIE = np.float32(1e-4)


@dataclass(frozen=True, slots=True)
class Plan:
    """Units looked for per row, residual channels, permutations."""

    units: int
    channels: int
    permutations: int


#: Richest first.
PLANS = tuple(
    Plan(*sizes)
    for sizes in (
        (1024, 4096, 24),
        (256, 4096, 24),
        (128, 4096, 24),
        (128, 2048, 16),
        (128, 1024, 8),
        (128, 1024, 4),
        (128, 512, 4),
        (128, 512, 2),
        (64, 512, 2),
        (32, 512, 2),
        (32, 256, 2),
        (16, 256, 2),
        (8, 256, 2),
    )
)

#: Fewer units than this say too little of one FFN.
LEAST = 32


@dataclass(frozen=True, slots=True)
class Row:
    """Units of B that count together: an FFN's, or some of every expert of a block."""

    key: Key
    parts: tuple[Ffn, ...]
    width: int | None

    def units(self, want: int, seed: int) -> list[tuple[Ffn, Indices]]:
        """About `want` unit numbers in all."""
        n = len(self.parts)
        chosen = self.parts if n <= _EXPERTS else [self.parts[int(i)] for i in np.linspace(0, n - 1, _EXPERTS)]
        each = max(1, want // len(chosen))
        return [(f, pick(f.units, each, seed, f"units {f.units}")) for f in chosen]


@dataclass(frozen=True)
class Table:
    """Rows of B against FFNs (or blocks) of A.

    Attributes:
        b, a: where they are.
        agreed: units of A named twice; int64 (1 + R, n_b, n_a), arrangement 0 as it is.
        tested: units per row; int64 (n_b,).
        sizes: tested units over units of A, the chance rate without hubs; 0 where not compared; float64 (n_b, n_a).
        named: per (b, a) the units that agree, int64 (n, 2) as (unit of B, unit of A).
        nearest: those of them that resemble no unit of another column more; int64 (n_b, n_a).
        seconds: spent multiplying.
    """

    b: tuple[Key, ...]
    a: tuple[Key, ...]
    agreed: I64
    tested: I64
    sizes: F64
    named: Mapping[tuple[int, int], I64]
    nearest: I64
    seconds: float

    @property
    def compared(self) -> npt.NDArray[np.bool_]:
        """Pairs that were looked at."""
        return self.sizes > 0


def budget(models: Models) -> float:
    """Multiply-adds x 2 that this comparison may cost."""
    return max(_ALWAYS, min(_MOST[models.effort], _EACH[models.effort] * (models.a.numel + models.b.numel)))


def rows_of(models: Models, theirs: Sequence[Ffn], *, pooled: bool = False) -> list[Row]:
    """A row for each FFN of B, or for each block."""
    groups: dict[Key, list[Ffn]] = defaultdict(list)
    for ffn in theirs:
        groups[(ffn.stack, ffn.block, None) if pooled else ffn.key].append(ffn)
    return [Row(key, tuple(parts), width_in_a(models.basis, parts[0])) for key, parts in groups.items()]


def plan_for(allowed: float, rows: Sequence[Row], ours: Sequence[Ffn]) -> Plan | None:
    """The richest plan that costs no more, or None."""
    pairs = sum(float(f.units) * f.width * sum(row.width == f.width for row in rows) for f in ours)
    widest = max((f.width for f in ours), default=1)
    for plan in PLANS:
        each = 6.0 * plan.units * (1 + plan.permutations) * min(1.0, plan.channels / widest)
        held = 3 * len(rows) * plan.units * min(plan.channels, widest)
        if each * pairs <= allowed and held <= _HELD:
            return plan
    return None


def compare(models: Models, rows: Sequence[Row], ours: Sequence[Ffn], plan: Plan) -> Table:
    """Every FFN of A is read once, and the rows' units of equal width are looked up in it."""
    agreed = np.zeros((1 + plan.permutations, len(rows), len(ours)), np.int64)
    tested, sizes = np.zeros(len(rows), np.int64), np.zeros((len(rows), len(ours)))
    named: dict[tuple[int, int], I64] = {}
    likeness: dict[tuple[int, int], F32] = {}
    seconds = 0.0
    for width in sorted({f.width for f in ours}):
        channels = _channels(models, width, plan.channels)
        rng = np.random.default_rng([models.seed, width])
        orders = [rng.permutation(channels.size) for _ in range(plan.permutations)]
        chosen = [
            (i, ffn, units)
            for i, row in enumerate(rows)
            if row.width == width
            for ffn, units in row.units(plan.units, models.seed)
        ]
        for gated in (False, True):
            group = [(i, f, units) for i, f, units in chosen if (f.gate is not None) == gated]
            if not group:
                continue
            found = probes(models.b, group, models.basis, channels)
            counted = np.bincount(found.of, minlength=len(rows))
            tested += counted
            for j, ffn in enumerate(ours):
                if ffn.width != width:
                    continue
                counts = count(models.a, ffn, found, len(rows), channels, orders)
                agreed[:, :, j] += counts.agreed
                sizes[:, j] += counted / ffn.units
                seconds += counts.seconds
                hit = counts.named >= 0
                for i in np.unique(found.of[hit]):
                    mine = hit & (found.of == i)
                    named[int(i), j] = np.stack([found.units[mine], counts.named[mine]], axis=1)
                    likeness[int(i), j] = counts.likeness[mine]
    nearest = _nearest(agreed[0].shape, named, likeness)
    keys = tuple(row.key for row in rows), tuple(f.key for f in ours)
    return Table(*keys, agreed, tested, sizes, named, nearest, seconds)


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


def _channels(models: Models, width: int, size: int) -> I64:
    """The channels of A that are compared: those that B has, a seeded choice where they are many."""
    channels = models.basis.channels
    known = np.arange(width) if channels is None or channels.size != width else np.nonzero(channels >= 0)[0]
    return known[pick(known.size, size, models.seed, f"channels {width}")]
