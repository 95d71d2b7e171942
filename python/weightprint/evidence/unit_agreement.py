"""Unit agreement: which hidden units of A are found in B, wherever they went (docs/methods.md, 4.2).

For sampled units of every FFN and expert of B the nearest unit of every FFN and expert of A is looked up twice: by
input weights (gate and up) and by output weights (down). *Agreement* is that both look-ups name the same unit. Units
of strangers agree about once per block; units that share an origin go on agreeing after long training, in any order,
at any depth, with their scales and signs changed, in a wider or narrower FFN, as an expert or no longer as one.

*p-value.* Null: given A, every order of B's residual channels is equally likely. So the counts with B's channels
permuted (inputs and outputs alike) tell what chance does, with all hubs and correlations inside either model intact;
:mod:`weightprint.evidence.nulls.counts` makes a p-value of it. Three looks, Bonferroni over them:

* the best pair of FFNs, times the number of pairs;
* FFNs of the same place, pooled: nothing was chosen;
* the best FFN of A for each FFN of B, pooled over the k best: pays for every map that could have been chosen,
  C(n_b, k) n_a^k, and for k.

Where blocks of B are A's blocks of the same place, only these pairs are looked at; all are paid for
(:mod:`weightprint.evidence.lookup.settled`). Where B has too many experts for all pairs, the p-value is of its blocks,
and the experts are looked for in the blocks found (:mod:`weightprint.evidence.lookup.unit_table`).

In a basis that was fitted there is no p-value: it lays the strong directions of any two models on each other, which
permuted channels do not do, and units load on those (:mod:`weightprint.evidence.convergence` asks what a fit can't
fake). Then this test says which FFN is which, once another has decided.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from weightprint.evidence.alignment.crossed import crossed
from weightprint.evidence.convergence import Convergence
from weightprint.evidence.evidence import Details, Evidence, UnitMatch, not_applied
from weightprint.evidence.lookup.settled import SHARE
from weightprint.evidence.lookup.unit_table import Key, Lookup, Plan, Row, Table, by_block, is_dear, plan_for, rows_of
from weightprint.evidence.nulls.counts import Chance, chance, dispersion
from weightprint.evidence.nulls.ranked import RANKED_PAIRS, rank_p
from weightprint.evidence.pair import Block, ModelPair
from weightprint.evidence.streamed import done, with_cost
from weightprint.evidence.test import Test
from weightprint.evidence.thresholds import BLOCK_LOG10_P, FITTED_EFFECT, LOG10_P
from weightprint.fingerprint.ffns import Ffn, ffn_name, ffns
from weightprint.util.arrays import F64

_QUESTION = Evidence(
    test="unit_agreement",
    asked="Which hidden units of A are found in B, by what they read and independently by what they write?",
    null="B was trained from an initialisation independent of A, so given A every order of B's residual channels is "
    "equally likely",
    assumes="initialisation and training treat the residual channels alike (no fixed sinusoidal positions), and the "
    "basis between the two streams was not found through shared meaning. A common random initialisation breaks the "
    "null as shared training does",
    blind_to="a residual stream turned or permuted in a way that the basis did not find, models whose FFNs were all "
    "replaced, weights shared outside FFNs",
    statistic_of="units of A found in B by the look that gave the p-value",
    effect_of="units of B found in A beyond chance, averaged over the parameters of B's FFNs",
)


def _every_ffn(models: ModelPair, units: Evidence, decided: Sequence[Evidence]) -> Evidence:
    """Once `convergence` has decided in a basis that was fitted: of the FFNs that it was fitted on, what one says that
    did not see them."""
    deciding = next((e for e in decided if e.test == "convergence"), None)
    fitted = {f.name for f in ffns(models.b) if models.basis.saw(f.name)}
    if not units.applied or not fitted or deciding is None:
        return units
    enough = {region.name for region in deciding.regions if region.effect >= FITTED_EFFECT}
    there = {b: a for b, (a, *_) in deciding.told(Convergence).matched.items() if b in enough}
    other = crossed(models, models.basis, there)
    if other is None:
        return units
    again = unit_agreement(replace(models, basis=other))
    unseen = set(again.left_out_of_p)

    def of_either(key: str) -> tuple[UnitMatch, ...]:
        first = (m for m in getattr(units, key) if m.name not in fitted)
        return (*first, *(m for m in getattr(again, key) if m.name in fitted - unseen))

    return replace(
        units.telling(left_out_of_p=sorted(fitted & unseen)),
        matches=of_either("matches"),
        others=of_either("others"),
        seconds=units.seconds + again.seconds,
    )


@dataclass(frozen=True)
class UnitAgreement(Details):
    """``look``: the one that gave the p-value; ``found``: FFNs of B; ``most``: share of the units of the narrower one
    of two FFNs; ``log10_p_of_permuted_channels``: the p-value of the streams as stored, fitted ones included."""

    look: str | None
    looks: Mapping[str, Mapping[str, float]]
    scope: str
    pairs_tried: int
    found: int
    units_per_row: int
    channels: int
    permutations: int
    agreed_when_permuted: float
    over_dispersion: float
    spread_of_rates: float
    basis: str
    left_out_of_p: Sequence[str]
    log10_p_of_permuted_channels: float | None
    most: float
    withheld: str | None = None


def unit_collector(models: ModelPair) -> Lookup | None:
    """What this test does while the models stream by; needs their headers only."""
    planned = _planned(models)
    return None if isinstance(planned, str) else Lookup(models, planned.rows, planned.ours, planned.plan)


@partial(
    Test,
    decides="any basis",
    bases=("stored", "found"),
    refined=_every_ffn,
    answers=("hidden units in any order and layer",),
    exchanges=True,
    details=UnitAgreement,
    collector=unit_collector,
    cost="alone",
    kept="units",
    in_place_first=True,
)
def unit_agreement(models: ModelPair) -> Evidence:
    """Units of B's FFNs and experts found in A's, and how likely that is by chance. ``matches`` has one entry for each
    FFN of B (its best FFN of A), ``others`` the runners-up, best first."""
    planned = _planned(models)
    if isinstance(planned, str):
        return not_applied(_QUESTION, planned)
    lookup, streamed = done(models, Lookup(models, planned.rows, planned.ours, planned.plan))
    answer = _by_way_of_blocks(models, planned, lookup) if planned.inside else _all_pairs(models, planned, lookup)
    return with_cost(answer, lookup) if streamed else answer


def found_in_place(models: ModelPair) -> frozenset[Block]:
    """Blocks of B whose units are those of A's block of the same place, none where units aren't looked up. What is
    looked at for it stands in ``models.collectors``, for the tests that go on from there."""
    planned = _planned(models)
    if isinstance(planned, str) or models.budget.exhaustive:
        return frozenset()
    first = replace(models, settled=None)
    lookup, streamed = done(first, Lookup(first, planned.rows, planned.ours, planned.plan))
    if not streamed:
        models.collectors.append(lookup)
    found = _Found(models, lookup.table())
    real = {key[:2] for i, key in enumerate(found.table.b) if any(found.real(i, j) for j in found.own(i))}
    return frozenset(block for block, share in lookup.in_place().items() if share >= SHARE and block in real)


@dataclass(frozen=True, slots=True)
class _Planned:
    """Rows that are looked up in A's FFNs. ``inside``: experts that are then looked for inside the blocks found, where
    the rows are blocks."""

    rows: Sequence[Row]
    ours: Sequence[Ffn]
    plan: Plan
    inside: Sequence[Row] = ()


def _planned(models: ModelPair) -> _Planned | str:
    """What is looked up, or why nothing is."""
    if not models.budget.whole:
        return "it reads down-projections whole, too much for this effort: aligned_units looks"
    ours, theirs = ([f for f in ffns(side) if f.down is not None] for side in (models.a, models.b))
    if not ours or not theirs:
        return "no FFN with an up- and a down-projection was recognised on both sides"
    rows = rows_of(models, theirs)
    if not {row.width for row in rows} & {f.width for f in ours}:
        return "no FFNs of the same residual width on both sides"
    plan = plan_for(models, rows, ours)
    blocks = rows_of(models, theirs, pooled=True)
    two_steps = is_dear(plan, rows, ours, models.budget.lookup.richest) and len(blocks) < len(rows)
    if two_steps:
        plan = plan_for(models, blocks, ours, 1 / 2)
    if plan is None:
        return "the smallest sample of units would cost more than this effort allows"
    return _Planned(blocks, ours, plan, rows) if two_steps else _Planned(rows, ours, plan)


def _all_pairs(models: ModelPair, planned: _Planned, lookup: Lookup) -> Evidence:
    found = _Found(models, lookup.table())
    scope = "pairs in place, and all pairs of what was not found there" if models.settled else "all pairs of FFNs"
    return _answer(models, found, *found.matches(), planned.plan, scope)


def _by_way_of_blocks(models: ModelPair, planned: _Planned, lookup: Lookup) -> Evidence:
    """B's blocks were looked up in A's: now its experts, in the FFNs and experts of the blocks found."""
    blocks, rows, ours = planned.rows, planned.inside, planned.ours
    layers = _Found(models, by_block(lookup.table()))
    near = {row.key: [layers.table.a[j] for j in layers.nearest(i)] for i, row in enumerate(blocks)}
    pairs = len(rows) * len(ours)
    first: list[UnitMatch] = []
    others: list[UnitMatch] = []
    for block, places in near.items():
        inside = [row for row in rows if (*row.key[:2], None) == block]
        there = [f for f in ours if (f.stack, f.block, None) in places]
        if (step := plan_for(models, inside, there, 1 / (2 * len(near)))) is None:
            continue
        experts = _Found(models, done(models, Lookup(models, inside, there, step))[0].table(), pairs)
        best, rest = experts.matches()
        first, others = [*first, *best], [*others, *rest]
    return _answer(models, layers, first, others, planned.plan, "blocks, then experts of the blocks found", pairs)


class _Found:
    """A table and what chance says of each of its pairs. ``pairs``: how many could have been compared; the table's own
    where None."""

    def __init__(self, models: ModelPair, table: Table, pairs: int | None = None) -> None:
        self.models, self.table = models, table
        self.chance: Chance = chance(table.agreed[1:], table.sizes, table.part)
        self.pairs = int(table.comparable.sum()) if pairs is None else pairs
        self.log10_p: F64 = self.chance.log10_each(table.agreed[0])

    def real(self, i: int, j: int) -> bool:
        """Chance does not explain this pair, all pairs counted."""
        return bool(self.log10_p[i, j] + math.log10(self.pairs) <= LOG10_P)

    def ranked(self, i: int) -> list[int]:
        """Columns for row i, best first: those that chance does not explain by the units that resemble nothing in A
        more, then the others by p."""
        columns = np.nonzero(self.table.compared[i])[0]
        nearest, agreed, p = (x[columns] for x in (self.table.nearest[i], self.table.agreed[0, i], self.log10_p[i]))
        order = np.lexsort((-agreed, p, -nearest * (p + math.log10(max(self.pairs, 1)) <= LOG10_P)))
        ranked: list[int] = columns[order].tolist()
        return ranked

    def own(self, i: int) -> list[int]:
        """Columns in the block of the same place as row i."""
        return [j for j, key in enumerate(self.table.a) if key[:2] == self.table.b[i][:2]]

    def nearest(self, i: int) -> list[int]:
        """The best column of row i, and the second if chance does not explain it."""
        first, *rest = [*self.ranked(i)[:2]] or [-1]
        return [j for j in (first, *(j for j in rest if self.real(i, j))) if j >= 0]

    def matches(self) -> tuple[list[UnitMatch], list[UnitMatch]]:
        """The best of each row; and the runner-up with all further ones that chance does not explain."""
        first: list[UnitMatch] = []
        others: list[UnitMatch] = []
        for i in range(len(self.table.b)):
            ranked = self.ranked(i)
            asked = ranked if self.table.b[i][2] is None else ranked[:2] + [j for j in ranked[2:] if self.real(i, j)]
            for rank, j in enumerate(asked):
                if rank < 2 or self.real(i, j) or self._mixed_in(i, j, ranked[0]):
                    (others if rank else first).append(self._match(i, j))
        return first, others

    def _mixed_in(self, i: int, j: int, best: int) -> bool:
        """Another expert of the block where a dense FFN was found: only that block's experts are still in question."""
        place = self.table.a[j]
        if self.table.b[i][2] is not None or place[2] is None or not self.real(i, best):
            return False
        inside = [key for key in self.table.a if key[:2] == self.table.a[best][:2]]
        return place in inside and bool(self.log10_p[i, j] + math.log10(len(inside)) <= BLOCK_LOG10_P)

    def _match(self, i: int, j: int) -> UnitMatch:
        rate = (int(self.chance.permuted[i, j]) + 1) / (self.chance.permutations + 1 / float(self.chance.rates[i, j]))
        return UnitMatch(
            b=self.table.b[i],
            a=self.table.a[j],
            tested=int(self.table.tested[i]),
            agreed=int(self.table.agreed[0, i, j]),
            expected=rate,
            log10_p=float(self.log10_p[i, j]),
            units=self.table.named.get((i, j), np.empty((0, 2), np.int64)),
            nearest=int(self.table.nearest[i, j]),
        )

    def statistics(self) -> dict[str, tuple[float, int]]:
        """Name of each look → (its log10 p, the units it counts), the FFNs that the basis was fitted on left out."""
        table, fitted = self.table, self.models.basis.fitted
        if fitted & {"up", "gate", "down"}:
            return {}
        out = {key[:2] for key in map(_place, fitted) if key}
        rows = [i for i, key in enumerate(table.b) if key[:2] not in out and table.compared[i].any()]
        if not rows:
            return {}
        k = table.agreed[0]
        masked = np.where(table.compared, self.log10_p, np.inf)
        best = {i: int(masked[i].argmin()) for i in rows}
        order = sorted(rows, key=lambda i: self.log10_p[i, best[i]])
        first = order[0]
        pairs = int(table.comparable[rows].sum())
        statistics = {"best pair": (self.log10_p[first, best[first]] + math.log10(pairs), int(k[first, best[first]]))}

        places = {key: j for j, key in enumerate(table.a)}
        same = [(i, j) for i in rows if (j := places.get(table.b[i], -1)) >= 0 and table.compared[i, j]]
        if same:
            at = tuple(np.array(same).T)
            together = dispersion(table.agreed[1:, at[0], at[1]].sum(axis=1, keepdims=True))
            statistics["same place"] = (self.chance.log10_p(int(k[at].sum()), at, together), int(k[at].sum()))

        agreed, multiplicity = 0, 0.0
        pooled = (0.0, 0)
        for n, i in enumerate(order, start=1):
            agreed += int(k[i, best[i]])
            multiplicity += math.log10(int(table.comparable[i].sum()))
            ways = (math.lgamma(len(rows) + 1) - math.lgamma(n + 1) - math.lgamma(len(rows) - n + 1)) / math.log(10)
            at = np.array(order[:n]), np.array([best[i] for i in order[:n]])
            pooled = min(
                pooled, (self.chance.log10_p(agreed, at) + multiplicity + ways + math.log10(len(rows)), agreed)
            )
        statistics["best map"] = pooled
        return {name: (min(0.0, float(value)), n) for name, (value, n) in statistics.items()}

    def rank_p(self) -> float | None:
        """B among its permuted copies, each held against all others as B is. Needs every unit looked for in each."""
        table = self.table
        if table.part < 1 or table.agreed[0].size > RANKED_PAIRS:
            return None
        told, agreed = [], []
        for i in range(len(table.agreed)):
            arranged = np.concatenate([table.agreed[i : i + 1], np.delete(table.agreed, i, axis=0)])
            statistics = _Found(self.models, replace(table, agreed=arranged), self.pairs).statistics()
            told.append(-min((p for p, _ in statistics.values()), default=0.0))
            agreed.append(int(table.agreed[i].sum()))
        salt = [units.tolist() for units in table.named.values()], table.agreed.tolist()
        return rank_p(told, agreed, salt=salt)

    def detectable(self) -> float | None:
        """The smallest share of one row's units that a single pair would have shown, at the level that decides."""
        multiplicity = math.log10(3 * self.pairs)
        compared = np.argwhere(self.table.compared)
        by_rate = np.argsort(self.chance.permuted[self.table.compared], kind="stable")
        i, j = (int(x) for x in compared[by_rate[len(compared) // 2]])
        tested = int(self.table.tested[i])
        for k in range(1, tested + 1):
            if self.chance.log10_p(k, (i, j)) + multiplicity <= LOG10_P:
                return k / tested
        return None


def _place(name: str) -> tuple[str, int] | None:
    """Stack and block of a region's name such as ``decoder.7`` or ``decoder.7.expert.3``."""
    stack, _, rest = name.partition(".")
    block = rest.split(".")[0]
    return (stack, int(block)) if block.isdigit() else None


def _answer(
    models: ModelPair,
    found: _Found,
    matches: Sequence[UnitMatch],
    others: Iterable[UnitMatch],
    plan: Plan,
    scope: str,
    pairs: int | None = None,
) -> Evidence:
    statistics = found.statistics()
    best = min(statistics, key=lambda name: statistics[name][0]) if statistics else None
    p, statistic = None, None
    if best is not None:
        multiplicity = math.log10(len(statistics)) + math.log10(max(models.basis.candidates, 1))
        p, statistic = min(0.0, statistics[best][0] + multiplicity), float(statistics[best][1])
    fitted = models.basis.kind != "identity"
    tried = found.pairs if pairs is None else pairs
    real: dict[Key, list[UnitMatch]] = defaultdict(list)
    for match in (*matches, *others):
        if match.log10_p + math.log10(tried) <= LOG10_P:
            real[match.b].append(match)
    shares = {b: found_share(found_there) for b, found_there in real.items()}
    numel = {f.key: f.numel for f in ffns(models.b)}
    wide, known = ({f.key: f.units for f in ffns(side)} for side in (models.b, models.a))
    top = max(matches, key=lambda m: (-m.log10_p, m.agreed), default=None)
    details = UnitAgreement(
        look=best,
        looks={name: {"log10_p": value, "agreed": n} for name, (value, n) in statistics.items()},
        scope=scope,
        pairs_tried=tried,
        found=len(shares),
        units_per_row=plan.units,
        channels=plan.channels,
        permutations=plan.permutations,
        agreed_when_permuted=float(found.chance.permuted[found.table.compared].mean() / found.chance.permutations),
        over_dispersion=found.chance.phi,
        spread_of_rates=1 / found.chance.alpha,
        basis=models.basis.found_by,
        left_out_of_p=sorted(models.basis.fitted),
        log10_p_of_permuted_channels=p,
        most=max((m.share * max(1.0, wide[m.b] / known[m.a]) for m in matches), default=0.0),
    )
    return replace(
        _QUESTION,
        says=f"{len(shares)} of {len(numel)} FFNs of B find their units in A"
        + (f"; best: {_agreement(top)}" if top is not None else ""),
        statistic=statistic,
        effect=sum(share * numel[b] for b, share in shares.items()) / sum(numel.values()),
        n=int(found.table.tested.sum()),
        log10_p=None if fitted else p,
        rank_p=None if fitted else found.rank_p(),
        detectable=found.detectable(),
        matches=tuple(matches),
        others=tuple(others),
        details=details,
    )


def found_share(matches: Sequence[UnitMatch]) -> float:
    """Of one FFN's units, those that were found in any of these FFNs of A, beyond chance; doubled ones count."""
    units = {unit for m in matches if m.units is not None for unit in m.units[:, 0].tolist()}
    expected = sum(m.expected for m in matches)
    return max(0.0, (len(units) - expected) / max(matches[0].tested - expected, 1.0))


def _agreement(match: UnitMatch) -> str:
    b, a = ffn_name(match.b), ffn_name(match.a)
    return f"{match.agreed} of {match.tested} units of {b} in {a} (chance: {match.expected:.1f})"
