"""Unit agreement: which hidden units of A are found in B, wherever they went (docs/methods.md, 4.2).

For sampled units of every FFN and expert of B the nearest unit of every FFN and expert of A is looked up twice: by
input weights (gate and up) and by output weights (down). *Agreement* is that both look-ups name the same unit. Units
of strangers agree about once per block; units that share an origin go on agreeing after long training, in any order,
at any depth, with their scales and signs changed, in a wider or narrower FFN, as an expert or no longer as one.

*p-value.* Null: given A, every order of B's residual channels is equally likely. So the counts with B's channels
permuted (inputs and outputs alike) tell what chance does, with all hubs and correlations inside either model intact;
:mod:`weightprint.evidence._counts` makes a p-value of it. Three looks, Bonferroni over them:

* the best pair of FFNs, times the number of pairs;
* FFNs of the same place, pooled: nothing was chosen;
* the best FFN of A for each FFN of B, pooled over the k best: pays for every map that could have been chosen,
  C(n_b, k) n_a^k, and for k.

The basis that brought the two streams together pays for its candidates, and what it was fitted on stays out of p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from weightprint.evidence._base import Evidence, Models, UnitMatch, not_applied, timed
from weightprint.evidence._counts import Chance, chance, dispersion
from weightprint.evidence._match import count, probes
from weightprint.evidence._sample import pick
from weightprint.evidence._units import Ffn, ffns, width_in_a

__all__ = ["unit_agreement"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

#: Multiply-adds x 2 that one comparison may cost; units, channels and permutations follow from it.
_FLOPS = {"standard": 1.2e13, "full": 4e14}
#: The same per parameter of A and B, so that small models take seconds, and what even the smallest may cost.
_FLOPS_EACH = {"standard": 5e3, "full": 2e5}
_FLOPS_LEAST = 5e10
#: (units per FFN of B, residual channels, permutations), richest first: the first that fits is taken, else the last.
_PLANS = (
    (1024, 4096, 64),
    (256, 4096, 32),
    (128, 4096, 32),
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
_LOG10_P = -6.0

_QUESTION = Evidence(
    test="unit_agreement",
    asked="Which hidden units of A are found in B, by what they read and independently by what they write?",
    applied=True,
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


@dataclass(frozen=True)
class _Table:
    """All FFNs of B against all of A.

    ``agreed``: int64 (1 + R, n_b, n_a), arrangement 0 as it is; ``tested``: units per FFN of B; ``named``: per (b, a)
    the units that agree, int64 (n, 2) as (unit of B, unit of A).
    """

    b: tuple[Ffn, ...]
    a: tuple[Ffn, ...]
    agreed: I64
    tested: I64
    eligible: npt.NDArray[np.bool_]
    named: dict[tuple[int, int], I64]
    seconds: float
    plan: tuple[int, int, int]


@timed
def unit_agreement(models: Models) -> Evidence:
    """Units of B's FFNs and experts found in A's, and how likely that is by chance. ``matches`` has one entry for each
    FFN of B (its best FFN of A), ``others`` the runners-up, best first."""
    if models.effort not in _FLOPS:
        return not_applied(_QUESTION, "it reads down-projections whole, too much for this effort: aligned_units looks")
    every = ffns(models.b)
    ours = [f for f in ffns(models.a) if f.down is not None]
    theirs = [f for f in every if f.down is not None]
    if not ours or not theirs:
        return not_applied(_QUESTION, "no FFN with an up- and a down-projection was recognised on both sides")
    table = _compare(models, ours, theirs)
    if table is None:
        return not_applied(_QUESTION, "no FFNs of the same residual width on both sides")
    return _answer(models, table, every)


def _compare(models: Models, ours: Sequence[Ffn], theirs: Sequence[Ffn]) -> _Table | None:
    """Every FFN of A is read once, and all of B's sampled units are looked up in it."""
    widths = [width_in_a(models.basis, f) for f in theirs]
    eligible = np.array([[w == f.width for f in ours] for w in widths])
    if not eligible.any():
        return None
    plan = _plan(models, ours, widths)
    units, size, permutations = plan
    agreed = np.zeros((1 + permutations, len(theirs), len(ours)), np.int64)
    tested = np.zeros(len(theirs), np.int64)
    named: dict[tuple[int, int], I64] = {}
    seconds = 0.0
    for width in sorted({f.width for j, f in enumerate(ours) if eligible[:, j].any()}):
        channels = _channels(models, width, size)
        rng = np.random.default_rng([models.seed, width])
        orders = [rng.permutation(channels.size) for _ in range(permutations)]
        for gated in (False, True):
            group = [
                (i, f, pick(f.units, units, models.seed, f"units {f.units}"))
                for i, f in enumerate(theirs)
                if widths[i] == width and (f.gate is not None) == gated
            ]
            if not group:
                continue
            found = probes(models.b, group, models.basis, channels)
            tested += np.bincount(found.of, minlength=len(theirs))
            for j, ffn in enumerate(ours):
                if ffn.width != width:
                    continue
                counts = count(models.a, ffn, found, len(theirs), channels, orders)
                agreed[:, :, j] += counts.agreed
                seconds += counts.seconds
                hit = counts.named >= 0
                for i in np.unique(found.of[hit]):
                    mine = hit & (found.of == i)
                    named[int(i), j] = np.stack([found.units[mine], counts.named[mine]], axis=1)
    return _Table(tuple(theirs), tuple(ours), agreed, tested, eligible, named, seconds, plan)


def _plan(models: Models, ours: Sequence[Ffn], widths: Sequence[int | None]) -> tuple[int, int, int]:
    """The richest plan that the budget allows, in units of B, channels and permutations."""
    allowed = min(_FLOPS[models.effort], _FLOPS_EACH[models.effort] * (models.a.numel + models.b.numel))
    for units, size, permutations in _PLANS:
        flops = 0.0
        for ffn in ours:
            looked_for = units * sum(w == ffn.width for w in widths)
            flops += 6.0 * looked_for * ffn.units * min(size, ffn.width) * (1 + permutations)
        if flops <= max(allowed, _FLOPS_LEAST):
            break
    return units, size, permutations


def _channels(models: Models, width: int, size: int) -> I64:
    """The channels of A that are compared: those that B has, a seeded choice where they are many."""
    channels = models.basis.channels
    known = np.arange(width) if channels is None or channels.size != width else np.nonzero(channels >= 0)[0]
    return known[pick(known.size, size, models.seed, f"channels {width}")]


# From counts to an answer


def _answer(models: Models, table: _Table, every: Sequence[Ffn]) -> Evidence:
    k = table.agreed[0]
    sizes = table.eligible * (table.tested[:, None] / np.array([[f.units for f in table.a]]))
    by_chance = chance(table.agreed[1:], sizes)
    log10_p = np.zeros(k.shape)
    for i, j in zip(*np.nonzero(k), strict=True):
        log10_p[i, j] = by_chance.log10_p(int(k[i, j]), (i, j))
    matches, others = _matches(table, log10_p, by_chance)
    looks = _looks(models, table, log10_p, by_chance)
    best = min(looks, key=lambda name: looks[name][0]) if looks else None
    total = sum(f.numel for f in every)
    shares = {m.b: m.share for m in matches if m.log10_p + math.log10(table.eligible.sum()) <= _LOG10_P}
    sizes = {f.key: f.numel for f in every}
    effect = sum(share * sizes[b] for b, share in shares.items()) / total
    units, channels, permutations = table.plan
    tested = int(table.tested.sum())
    if best is None:
        p, statistic = None, None
    else:
        price = math.log10(len(looks)) + math.log10(max(models.basis.candidates, 1))
        p, statistic = min(0.0, looks[best][0] + price), float(looks[best][1])
    top = max(matches, key=lambda m: (-m.log10_p, m.agreed))
    return replace(
        _QUESTION,
        says=f"{len(shares)} of {len(matches)} FFNs of B find their units in A; best: {top.agreed} of {top.tested} "
        f"units of {_label(top.b)} in {_label(top.a)} (chance: {top.expected:.1f})",
        statistic=statistic,
        effect=effect,
        n=tested,
        log10_p=p,
        detectable=_detectable(table, by_chance),
        matches=matches,
        others=others,
        details={
            "look": best,
            "looks": {name: {"log10_p": value, "agreed": n} for name, (value, n) in looks.items()},
            "over_dispersion": by_chance.phi,
            "spread_of_rates": 1 / by_chance.alpha,
            "pairs_tried": int(table.eligible.sum()),
            "units_per_ffn": units,
            "channels": channels,
            "permutations": permutations,
            "agreed_when_permuted": float(by_chance.permuted[table.eligible].mean() / permutations),
            "found": len(shares),
            "gemm_seconds": table.seconds,
            "basis": models.basis.found_by,
            "left_out_of_p": sorted(models.basis.fitted),
        },
    )


def _label(place: tuple[str, int, int | str | None]) -> str:
    stack, block, expert = place
    return f"{stack}.{block}" + ("" if expert is None else f".expert.{expert}")


def _matches(table: _Table, log10_p: F64, by_chance: Chance) -> tuple[tuple[UnitMatch, ...], tuple[UnitMatch, ...]]:
    """The best FFN of A for each of B; and the runner-up with all further ones that chance does not explain."""
    first: list[UnitMatch] = []
    others: list[UnitMatch] = []
    price = math.log10(table.eligible.sum())
    for i, b in enumerate(table.b):
        candidates = [int(j) for j in np.nonzero(table.eligible[i])[0]]
        candidates.sort(key=lambda j: (log10_p[i, j], -table.agreed[0, i, j]))
        for rank, j in enumerate(candidates):
            if rank > 1 and log10_p[i, j] + price > _LOG10_P:
                break
            match = UnitMatch(
                b=b.key,
                a=table.a[j].key,
                tested=int(table.tested[i]),
                agreed=int(table.agreed[0, i, j]),
                expected=(int(by_chance.permuted[i, j]) + 1) / (by_chance.permutations + 1 / by_chance.rates[i, j]),
                log10_p=float(log10_p[i, j]),
                units=table.named.get((i, j), np.empty((0, 2), np.int64)),
            )
            (others if rank else first).append(match)
    return tuple(first), tuple(others)


def _looks(models: Models, table: _Table, log10_p: F64, by_chance: Chance) -> dict[str, tuple[float, int]]:
    """Name of each look → (its log10 p, the units it counts), the FFNs that the basis was fitted on left out."""
    fitted = models.basis.fitted
    if fitted & {"up", "gate", "down"}:
        return {}
    rows = [i for i, f in enumerate(table.b) if f.name not in fitted and table.eligible[i].any()]
    if not rows:
        return {}
    k = table.agreed[0]
    best = {i: int(np.lexsort((-k[i], np.where(table.eligible[i], log10_p[i], 1.0)))[0]) for i in rows}
    order = sorted(rows, key=lambda i: log10_p[i, best[i]])
    first = order[0]
    pairs = int(table.eligible[rows].sum())
    looks = {"best pair": (log10_p[first, best[first]] + math.log10(pairs), int(k[first, best[first]]))}

    places = {f.key: j for j, f in enumerate(table.a)}
    same = [(i, places[table.b[i].key]) for i in rows if table.b[i].key in places]
    same = [(i, j) for i, j in same if table.eligible[i, j]]
    if same:
        at = tuple(np.array(same).T)
        together = dispersion(table.agreed[1:, at[0], at[1]].sum(axis=1, keepdims=True))
        looks["same place"] = (by_chance.log10_p(int(k[at].sum()), at, together), int(k[at].sum()))

    agreed, price = 0, 0.0
    pooled = (0.0, 0)
    for n, i in enumerate(order, start=1):
        agreed += int(k[i, best[i]])
        price += math.log10(int(table.eligible[i].sum()))
        ways = (math.lgamma(len(rows) + 1) - math.lgamma(n + 1) - math.lgamma(len(rows) - n + 1)) / math.log(10)
        at = np.array(order[:n]), np.array([best[i] for i in order[:n]])
        pooled = min(pooled, (by_chance.log10_p(agreed, at) + price + ways + math.log10(len(rows)), agreed))
    looks["best map"] = pooled
    return {name: (min(0.0, float(value)), n) for name, (value, n) in looks.items()}


def _detectable(table: _Table, by_chance: Chance) -> float | None:
    """The smallest share of one FFN's units that a single pair would have shown, at the level that decides."""
    price = math.log10(3 * table.eligible.sum())
    pairs = np.argwhere(table.eligible)
    i, j = pairs[np.argsort(by_chance.permuted[table.eligible], kind="stable")[len(pairs) // 2]]
    tested = int(table.tested[i])
    for k in range(1, tested + 1):
        if by_chance.log10_p(k, (i, j)) + price <= _LOG10_P:
            return k / tested
    return None
