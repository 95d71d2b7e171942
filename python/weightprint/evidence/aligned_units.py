"""Aligned hidden units: do an FFN's units stand in the same order? The identity form of phi_U [Independence Tests
2502.12292], looked for in every pair of blocks.

A hidden unit is a row of the up-projection (and of the gate). For an FFN of A and one of B with as many units take the
same sampled unit numbers on both sides and find for each the unit of the other side with the largest cosine. A *hit*
is the unit of the same number. Training treats the units of a layer alike, so if B's initialisation is independent of A
the units of each block are exchangeable, independently from block to block, and over L blocks P(hits >= k) <= L^k/k!
exactly (:mod:`weightprint.evidence.nulls.exchange`). Three looks, Bonferroni over them:

* blocks of the same place, pooled: nothing was chosen;
* the best pair of blocks, times the number of pairs: layers in another order, repeated or inserted hide nothing;
* the best block of A for each of B, pooled over the k best, which pays C(n_b, k) n_a^k and for k.

Whoever sorts a stranger's units by how well they suit A's beats chance at any p. So a pair of FFNs counts only where
its units are more alike than the best order among other numbers makes them (:mod:`weightprint.evidence.nulls.fitted`);
what is below that stands in the details.

This does not lean on the residual channels being exchangeable, so neither fixed sinusoidal positions nor an alignment
of the stream through shared meaning can fool it: what was learned can't tell which number a unit has. It reads a few
rows of every block and no column, so it also runs at the quickest effort.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from weightprint.evidence.budget import hidden_size
from weightprint.evidence.evidence import Evidence, Region, UnitMatch, not_applied
from weightprint.evidence.lookup.nearest_units import standardised
from weightprint.evidence.lookup.settled import asked
from weightprint.evidence.lookup.stem_pairs import paired_rows
from weightprint.evidence.lookup.units import unit_inputs, width_in_a
from weightprint.evidence.nulls.exchange import choices, hits, log10_p_hits
from weightprint.evidence.nulls.fitted import FITTED, against_order, stands
from weightprint.evidence.nulls.ranked import COPIES, RANKED_PAIRS, hits_of_copies, joint_orders, rank_p
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.streamed import done, with_cost
from weightprint.evidence.test import Test
from weightprint.evidence.thresholds import LOG10_P
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import Read, pick
from weightprint.fingerprint.steps import Collector, Round, Step
from weightprint.util.arrays import F32, I64, Bools, Indices, equal_pairs
from weightprint.util.linear_algebra import product

#: Multiply-adds x 2 that all pairs of blocks may cost: per parameter of A and B, and always.
_FLOPS_EACH, _FLOPS_ALWAYS = 1e3, 5e10
_FEWEST = 16
_FEW_HITS = 3  # too few to ask whether an order was fitted
_HELD = 1 << 26  # values of B's rows in memory
_VALUES = 1 << 18  # that may always be read

_QUESTION = Evidence(
    test="aligned_units",
    asked="Do the FFN hidden units of a block of A find themselves again in a block of B, under the same numbers?",
    null="B was trained from an initialisation independent of A, so in every block any order of B's hidden units is "
    "equally likely",
    assumes="hidden units of a layer are treated alike by initialisation and training: no nested (MatFormer) "
    "widths. A common random initialisation breaks the null as shared training does",
    blind_to="copies whose hidden units were permuted or pruned, a permuted or rotated residual stream that the basis "
    "did not undo",
    statistic_of="hits: hidden units whose best match has the same number, in the look that gave the p-value",
    effect_of="hits as a share of the units tested in blocks of the same place (or, if more, in the best map), above "
    "chance",
)


@dataclass(frozen=True)
class _Looked:
    """Hits of every pair (FFN of B, FFN of A) that was compared, -1 where not, 0 where a fitted order would give as
    much; ``comparable``: the pairs that could be, for which p-values pay; ``own`` the same-place pairs; ``fitted``:
    those in which a fitted order would, with hits, likeness and floor."""

    b: tuple[Ffn, ...]
    a: tuple[Ffn, ...]
    hits: I64
    comparable: Bools
    tested: I64
    own: dict[int, int]
    regions: dict[int, Region]
    numbers: dict[tuple[int, int], I64]
    fitted: dict[tuple[int, int], tuple[int, float, float]]
    scope: str
    copies: I64 | None = None  # hits of permuted copies of B, (copies, n_b, n_a); None where they would be too many
    salt: str = ""


def unit_rows(models: ModelPair) -> Rows | None:
    """What this test does while the models stream by; needs their headers only. None where no pair of FFNs fits."""
    theirs, ours = ffns(models.b), ffns(models.a)
    in_a = [width_in_a(models.basis, b) for b in theirs]
    fits = equal_pairs(
        [None if w is None else (w, b.units) for w, b in zip(in_a, theirs, strict=True)],
        [(a.width, a.units) for a in ours],
    )
    if not fits.any():
        return None
    places = {a.key: j for j, a in enumerate(ours)}
    own = {i: j for i, b in enumerate(theirs) if (j := places.get(b.key, -1)) >= 0 and fits[i, j]}
    same = np.zeros_like(fits)
    same[list(own), list(own.values())] = True
    number = equal_pairs([b.expert for b in theirs], [a.expert for a in ours])
    scopes = {"all pairs": fits, "equal expert numbers": fits & number, "same place": same}
    wants = {scope: _affordable(models, chosen, ours) for scope, chosen in scopes.items()}
    scope = next((scope for scope, want in wants.items() if want and scopes[scope].any()), None)
    return None if scope is None else Rows(models, tuple(ours), tuple(theirs), scopes[scope], own, wants[scope], scope)


@partial(
    Test,
    decides="stored basis",
    exchanges=True,
    of_order=True,
    collector=unit_rows,
    cost="long",
    in_place_first=True,
    kept="rows",
)
def aligned_units(models: ModelPair) -> Evidence:
    """Identity hits of hidden units over all pairs of blocks."""
    wanted = unit_rows(models)
    if wanted is None and not (ffns(models.b) and ffns(models.a)):
        return _by_pairs(models)
    if wanted is None:
        why = "no pair of up-projections with equally many units on a residual stream of equal width was recognised"
        return not_applied(_QUESTION, why)
    collector, streamed = done(models, wanted)
    answer = _answer(models, collector.looked())
    return with_cost(answer, collector) if streamed else answer


# All pairs of blocks


@dataclass(frozen=True, slots=True)
class _Column:
    """One FFN of A: its sampled units; the FFNs of B that it was held against, with the unit that each of A's names,
    hits of B as it is and of every permuted copy, what the report says of the pair, and where there are hits how alike
    units in place are and the best order elsewhere would make them."""

    units: I64
    seen: list[tuple[int, I64, I64, Region | None, tuple[float, float] | None]]


@dataclass(eq=False)
class Rows(Collector):
    """Sampled units of B's FFNs, held against those of the same numbers in A's. ``chosen``: the pairs (FFN of B, FFN of
    A) that may be compared, and are paid for; ``own``: those of the same place; ``want``: units per FFN."""

    models: ModelPair = field(repr=False)
    ours: tuple[Ffn, ...]
    theirs: tuple[Ffn, ...]
    chosen: Bools
    own: dict[int, int]
    want: int
    scope: str

    def __post_init__(self) -> None:
        super().__init__()
        self._held: dict[int, tuple[F32, F32 | None]] = {}
        self._columns: dict[int, _Column] = {}
        self._asked = self._asked_of(self.models)
        # One order for all of B's FFNs: copies of one FFN (upcycled experts) stay copies.
        self._copies = COPIES if self.chosen.size <= RANKED_PAIRS else 0

    @property
    def what(self) -> Hashable:
        """FFNs, number of rows, seed and basis."""
        names = tuple(
            tuple((f.key, f.up.name, f.gate and f.gate.name) for f in side) for side in (self.ours, self.theirs)
        )
        basis = self.models.basis
        return *names, self.scope, self.want, self.models.seed, basis.kind, basis.found_by

    def _asked_of(self, models: ModelPair) -> Bools:
        return self.chosen & asked(models, *([(f.stack, f.block) for f in side] for side in (self.theirs, self.ours)))

    def rounds(self) -> list[Round]:
        """One round: rows from B, then FFNs of A are compared with them."""
        theirs = [self._step(self.theirs[int(i)], partial(self._hold, int(i))) for i in _any(self.chosen, axis=1)]
        return [(theirs, self._comparing(self._asked))]

    def more(self, models: ModelPair) -> list[Round]:
        """The pairs that were not asked for at first."""
        wanted = self._asked_of(models)
        left = wanted & ~self._asked
        self._asked = wanted | self._asked
        return [((), self._comparing(left))]

    def _comparing(self, pairs: Bools) -> list[Step]:
        return [self._step(self.ours[int(j)], partial(self._compare, int(j), pairs[:, j])) for j in _any(pairs, axis=0)]

    def _step(self, ffn: Ffn, take: Callable[[ModelView], None]) -> Step:
        units, channels = self._units(ffn), _channels(self.models, ffn)
        reads = tuple(Read(tensor, units, channels) for tensor in (ffn.up, ffn.gate) if tensor is not None)
        return Step((ffn.stack, ffn.block), take, reads)

    def _units(self, ffn: Ffn) -> Indices:
        return pick(ffn.units, self.want, self.models.seed, f"units {ffn.units}")

    def _hold(self, i: int, side: ModelView) -> None:
        ffn = self.theirs[i]
        self._held[i] = _rows(self.models, side, ffn, self._units(ffn))

    def _compare(self, j: int, rows: Bools, side: ModelView) -> None:
        units = self._units(self.ours[j])
        x = _rows(self.models, side, self.ours[j], units)
        seen = [] if j not in self._columns else self._columns[j].seen
        for i in (int(i) for i in np.nonzero(rows)[0]):
            similarity = _similarity(x, self._held[i])
            named = choices(similarity)
            counts = hits_of_copies(named, joint_orders(units.size, self.models.seed, self._copies))
            alike = None
            if counts[0] > _FEW_HITS:
                alike = against_order(similarity, self.ours[j].units)
            k = int(counts[0]) if alike is None or stands(*alike) else 0
            b = self.theirs[i]
            region = _region(b.name, b.block, b.width, similarity, k) if self.own.get(i) == j else None
            seen.append((i, named, counts, region, alike))
        self._columns[j] = _Column(units, seen)

    def looked(self) -> _Looked:
        """What all steps found."""
        shape = self.chosen.shape
        found, tested = np.full(shape, -1, np.int64), np.zeros(len(self.theirs), np.int64)
        regions: dict[int, Region] = {}
        numbers: dict[tuple[int, int], I64] = {}
        fitted: dict[tuple[int, int], tuple[int, float, float]] = {}
        copies = np.full((self._copies, *shape), -1, np.int64) if self._copies else None
        salt = hashlib.blake2b()
        for j, column in sorted(self._columns.items()):
            units = column.units
            for i, named, counts, region, alike in sorted(column.seen, key=lambda seen: seen[0]):
                found[i, j], tested[i] = counts[0], units.size
                if alike is not None and not stands(*alike):
                    found[i, j], fitted[i, j] = 0, (int(counts[0]), *alike)
                salt.update(named.tobytes())
                if copies is not None:
                    copies[:, i, j] = counts[1:]
                if region is not None:
                    regions[i] = region
                if found[i, j] > _FEW_HITS:
                    mine = units[named == np.arange(units.size)]
                    numbers[i, j] = np.stack([mine, mine], axis=1)
        own = {i: j for i, j in self.own.items() if found[i, j] >= 0}
        return _Looked(
            self.theirs,
            self.ours,
            found,
            self.chosen,
            tested,
            own,
            regions,
            numbers,
            fitted,
            self.scope,
            copies,
            salt.hexdigest(),
        )


def _any(chosen: Bools, axis: int) -> Indices:
    return np.nonzero(chosen.any(axis=axis))[0]


def _affordable(models: ModelPair, chosen: Bools, ours: Sequence[Ffn]) -> int:
    """Units per block that the budget allows for these pairs; 0 where it does not allow a few."""
    budget, width = models.budget.order, max((a.width for a in ours), default=1)
    flops = min(budget.flops, max(_FLOPS_ALWAYS, _FLOPS_EACH * (models.a.numel + models.b.numel)))
    by_cost = math.sqrt(flops / (4 * width * max(int(chosen.sum()), 1)))
    values = 2 * width * max(int(chosen.any(axis=1).sum()), 1)
    want = min(budget.units, int(by_cost), _HELD // values)
    want = min(want, max(_FEWEST, int(max(_VALUES, budget.share * models.b.numel)) // values))
    return want if want >= _FEWEST else 0


def _rows(models: ModelPair, side: ModelView, ffn: Ffn, units: Indices) -> tuple[F32, F32 | None]:
    """Standardised rows of up and gate of these units in A's channels."""
    gated = ffn.gate is not None
    up, gate = unit_inputs(side, ffn, units, _channels(models, ffn), fold=True)
    if side.label == "b":
        up, gate = models.basis.to_a(up), None if gate is None else models.basis.to_a(gate)
    return standardised(up, signed=not gated), None if gate is None else standardised(gate, signed=True)


def _channels(models: ModelPair, ffn: Ffn) -> Indices | None:
    """That units are compared on; None for all."""
    stored = models.basis.matrix is None and models.basis.channels is None
    most = models.budget.order.channels if stored else None
    return None if most is None else pick(ffn.width, most, models.seed, "channels of units")


def _similarity(x: tuple[F32, F32 | None], y: tuple[F32, F32 | None]) -> F32:
    """Cosines (units of A, units of B): of the gates plus, by size, of the ups; of plain FFNs as they are."""
    up: F32 = product(x[0], y[0].T)
    if x[1] is None and y[1] is None:
        return up
    up = np.abs(up)
    return up + product(x[1], y[1].T) if x[1] is not None and y[1] is not None else up


def _region(name: str, layer: int | None, width: int, similarity: F32, k: int) -> Region:
    n = similarity.shape[0]
    own = float(np.mean(np.diagonal(similarity)))
    other = float((similarity.sum() - np.trace(similarity)) / max(n * n - n, 1))
    spread = float(similarity.std() / math.sqrt(n))
    return Region(name, layer, n * width, own, other, spread, k, n)


# From hits to an answer


def _answer(models: ModelPair, looked: _Looked) -> Evidence:
    fitted = models.basis.fitted
    free = {} if fitted & {"up", "gate"} else {i: f for i, f in enumerate(looked.b) if not models.basis.saw(f.name)}
    best = {i: int(looked.hits[i].argmax()) for i in range(len(looked.b)) if (looked.hits[i] >= 0).any()}
    statistics = _statistics(looked, {i: j for i, j in best.items() if i in free})
    pairs = int(looked.comparable.sum())
    ranked = _ranked(looked) if statistics and models.basis.kind == "identity" else None
    look = min(statistics, key=lambda name: statistics[name][0]) if statistics else None
    p, statistic = None, None
    if look is not None:
        p = min(0.0, statistics[look][0] + math.log10(len(statistics)) + math.log10(max(models.basis.candidates, 1)))
        statistic = float(statistics[look][1])
    same_hits = sum(int(looked.hits[i, j]) for i, j in looked.own.items())
    same_tested = sum(int(looked.tested[i]) for i in looked.own)
    map_hits = sum(int(looked.hits[i, j]) for i, j in best.items() if _sure(looked, i, j, pairs))
    tested = int(looked.tested.sum())
    effect = max(
        (same_hits - len(looked.own)) / max(same_tested, 1),
        (map_hits - len(best)) / max(tested, 1) if map_hits else 0.0,
    )
    chance = len(looked.own)
    where = f"in {chance} blocks of the same place find themselves again (chance: about {chance})"
    elsewhere = sum(_sure(looked, i, j, pairs) and looked.own.get(i) != j for i, j in best.items())
    below = {
        f"{looked.b[i].name} in {looked.a[j].name}": {"hits": k, "likeness": reached, "fitted_order": floor}
        for (i, j), (k, reached, floor) in looked.fitted.items()
        if log10_p_hits(k) + math.log10(pairs) <= LOG10_P
    }
    return replace(
        _QUESTION,
        says=f"{same_hits} of {same_tested} hidden units {where}"
        + (f"; {elsewhere} blocks find theirs elsewhere" if elsewhere else ""),
        statistic=statistic,
        effect=max(0.0, effect),
        n=tested,
        log10_p=p,
        rank_p=ranked,
        regions=tuple(looked.regions[i] for i in sorted(looked.regions)),
        matches=tuple(_match(looked, i, j) for i, j in best.items()),
        details={
            "blocks": len(best),
            "pairs_tried": pairs,
            "scope": looked.scope,
            "look": look,
            "looks": {name: {"log10_p": value, "hits": n} for name, (value, n) in statistics.items()},
            "expected_by_chance": float(chance),
            "hits": {r.name: [r.hits, r.channels] for r in looked.regions.values()},
            "basis": models.basis.found_by,
            "left_out_of_p": sorted(fitted),
            "as_a_fitted_order": below,
            "withheld": f"units stand in A's order in {len(below)} pairs of FFNs, but {FITTED}" if below else None,
        },
    )


def _ranked(looked: _Looked) -> float | None:
    """B among its permuted copies, each looked at as B is, whatever a fitted order would give; hits in the same places
    settle ties."""
    if looked.copies is None:
        return None
    raw = looked.hits.copy()
    for at, (k, _, _) in looked.fitted.items():
        raw[at] = k
    found = []
    for copy in (raw, *looked.copies):
        best = {i: int(copy[i].argmax()) for i in range(len(looked.b)) if (looked.hits[i] >= 0).any()}
        found.append(_statistics(replace(looked, hits=np.where(looked.hits >= 0, copy, -1)), best))
    same = [each.get("same place", (0.0, 0))[1] for each in found]
    return rank_p([-min(p for p, _ in each.values()) for each in found], same, salt=looked.salt)


def _sure(looked: _Looked, i: int, j: int, pairs: int) -> bool:
    """One pair alone is beyond chance at one in a million, corrected for all pairs."""
    return log10_p_hits(int(looked.hits[i, j])) + math.log10(pairs) <= LOG10_P


def _match(looked: _Looked, i: int, j: int) -> UnitMatch:
    k = int(looked.hits[i, j])
    units = looked.numbers.get((i, j), np.empty((0, 2), np.int64))
    return UnitMatch(looked.b[i].key, looked.a[j].key, int(looked.tested[i]), k, 1.0, log10_p_hits(k), units, k)


def _statistics(looked: _Looked, best: dict[int, int]) -> dict[str, tuple[float, int]]:
    """Name of each look → (its log10 p, its hits)."""
    if not best:
        return {}
    statistics: dict[str, tuple[float, int]] = {}
    if own := {i: j for i, j in looked.own.items() if i in best}:
        k = sum(int(looked.hits[i, j]) for i, j in own.items())
        statistics["same place"] = (log10_p_hits(k, len(own)), k)
    order = sorted(best, key=lambda i: -looked.hits[i, best[i]])
    counts = [int(looked.hits[i, best[i]]) for i in order]
    choices = [int(looked.comparable[i].sum()) for i in order]
    statistics["best pair"] = (log10_p_hits(counts[0]) + math.log10(sum(choices)), counts[0])
    total, multiplicity, n = 0, 0.0, len(order)
    pooled = (0.0, 0)
    for chosen, (k, ways) in enumerate(zip(counts, choices, strict=True), start=1):
        total, multiplicity = total + k, multiplicity + math.log10(ways)
        subsets = (math.lgamma(n + 1) - math.lgamma(chosen + 1) - math.lgamma(n - chosen + 1)) / math.log(10)
        pooled = min(pooled, (log10_p_hits(total, chosen) + multiplicity + subsets + math.log10(n), total))
    statistics["best map"] = pooled
    return {name: (min(0.0, value), k) for name, (value, k) in statistics.items()}


# Where only one side's names tell what a tensor does: blocks as the pairing found them


def _by_pairs(models: ModelPair) -> Evidence:
    """Pairs of tensors that met by name, stem or value; those by value pay for the choice."""
    width = hidden_size(models.a, models.b)
    if width is None:
        return not_applied(_QUESTION, "no hidden size common to both models was found")
    blocks = paired_rows(models, width)
    regions: list[Region] = []
    fitted = 0
    for name, layer, x, y in blocks.found:
        similarity = product(standardised(x, signed=True), standardised(y, signed=True).T)
        k = hits(similarity)
        if k > _FEW_HITS and not stands(*against_order(similarity)):
            fitted, k = fitted + 1, 0
        regions.append(_region(name, layer, x.shape[1], similarity, k))
    if not regions:
        return not_applied(_QUESTION, "no pair of up- or gate-projections of equal shape was recognised by name")
    total, tested, chance = sum(r.hits for r in regions), sum(r.channels for r in regions), len(regions)
    return replace(
        _QUESTION,
        says=f"{total} of {tested} hidden units in {chance} blocks find themselves again (chance: about {chance})",
        statistic=float(total),
        effect=max(0.0, (total - chance) / tested),
        n=tested,
        log10_p=min(0.0, log10_p_hits(total, chance) + blocks.multiplicity),
        regions=tuple(regions),
        details={
            "blocks": chance,
            "scope": "pairs of tensors",
            "expected_by_chance": float(chance),
            "hits": {r.name: [r.hits, r.channels] for r in regions},
            "withheld": f"units stand in A's order in {fitted} pairs of tensors, but {FITTED}" if fitted else None,
        },
    )
