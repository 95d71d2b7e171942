"""Turned parts: is one FFN, one attention or one embedding of B a part of A, moved to another basis of the stream?

A search for a common basis (:mod:`weightprint.evidence.alignment.search`) takes its bearings from the whole model. A
part of A inside a stranger, the whole then turned and its units renumbered, gives it nothing. So every part is asked on
its own. The units of a part are vectors in the stream: (gate,) up and down of an FFN; row i of v with column i of o,
and row i of q with row i of k, of attention; a token's row in the embedding or in the head.

A unit's *signature* is its products with the second moments of its own part (of a table, of quarters of its rows)
(:func:`weightprint.evidence.alignment.unit_signatures.signatures`): no rotation or order changes it. Units of B whose
nearest signature in a part of A is mutual and nearer than the second are seeds; the part of A with the most is the
counterpart. One half of B's units, taken at random, gives the rotation (Procrustes, then rounds of matching); of a
table without seeds the rows of equal numbers do. The other half, which it has not seen, is tested: paired by strong
parts, compared in the weak ones (:mod:`weightprint.evidence.lookup.weak_parts`). So the null is that of
:mod:`weightprint.evidence.convergence`; each part of B pays for how many there are, and its counterpart is chosen by
the half that is not tested. Rows of tokens may be alike by meaning in strangers that learned from the same data, so a
table counts only where the weak cosine is :data:`_TABLE`. Heads that share keys and values are summed, so that no
vector stands on both sides of the split. Where gate and up are one stored tensor, halves and every other row are both
tried: nothing in the file says which it is.

*What any fit gives.* Units of one part resemble each other, in the weak directions too, and a rotation fitted on half
of them carries some of that over to the other half: between real encoders twice as many hits as chance, with cosines of
.03. So where hits stand out, the same is done with parts of A from other blocks, which correspond to nothing: the
median of their hits is what a fit gives, and the p-value is the larger of the bound and of a Poisson tail (Chernoff)
over that rate.

*Power.* A part of A of each kind, turned at random, renumbered, with 5 % of noise (and signs flipped, where a gate
leaves them free), is put in B's place and looked for in the same way. Only kinds that are found so may be said not to
be there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from weightprint.anatomy.place import Expert
from weightprint.evidence.alignment.refine import Matched, refine
from weightprint.evidence.alignment.solve import Cross, unit_rows
from weightprint.evidence.alignment.unit_signatures import signed
from weightprint.evidence.evidence import Details, Evidence, UnitMatch, not_applied
from weightprint.evidence.lookup.part_vectors import (
    TABLES,
    Kind,
    Part,
    Source,
    moments_of_table,
    not_read,
    read_part,
    sources_of_both,
    width,
)
from weightprint.evidence.lookup.weak_parts import WeakParts, along, common, directions, paired, weak_parts
from weightprint.evidence.nulls.ranked import rank_p
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.evidence.thresholds import FITTED_EFFECT, LOG10_P
from weightprint.util.arrays import F32, Indices
from weightprint.util.linear_algebra import product, qr

_RATIO = 0.8  # of the distance to the second nearest signature that the nearest must stay under
_FEWEST = 8  # seeds
_HELD = 1 << 27  # values of A's parts that stay in memory; more are read again
_UNITS = 1024  # of B's part that are looked for, or twice the stream's width: half give the rotation
_NOISE = 0.05
_TABLE = (
    0.3  # strangers of the same text and tokenizer, and students with their teachers, reach .03; copies .5 and more
)
_CALM = -2.0  # log10 p above which nothing stands out
_OTHERS = 3
_COST = 0.1  # of the multiplications that the effort allows

_QUESTION = Evidence(
    test="turned_parts",
    asked="Is any {} of B one of A's in another basis of the stream, whatever is around it?",
    null="among units of a part of B that are alike in the strong directions, the weak parts of those that the "
    "rotation was not fitted on are equally likely in any order",
    assumes="what makes a unit's weak part is not what makes its strong one. A common random initialisation breaks the "
    "null as shared training does",
    blind_to="parts that were turned and also trained far away or pruned, attention with maps or signs inside heads",
    statistic_of="hits: tested units whose weak parts find each other among units alike, in the part that says most",
    effect_of="mean cosine of the weak parts of matched units there, minus that of others alike",
    basis="rotation",
)


@dataclass(frozen=True)
class _Found:
    """A part of B, the part of A whose units it holds, and what the tested half says."""

    b: Part
    a: tuple[str, int, Expert]
    tested: int
    weak: WeakParts
    rate: float = 0.0  # hits of fits to other parts of A, as far as asked

    @property
    def log10_p(self) -> float:
        hits = int(self.weak.hits[0])
        if hits <= self.rate:
            return 0.0
        fitted = (hits - self.rate - hits * math.log(hits / self.rate)) / math.log(10) if self.rate else -math.inf
        return max(self.weak.log10_p(), fitted)


def looked_for(test: str, models: ModelPair, what: str, kinds: tuple[Kind, ...]) -> Evidence:
    """The answer of a test: every part of B of these kinds, looked for in A by itself. ``what`` names one of them."""
    question = replace(_QUESTION, test=test, asked=_QUESTION.asked.format(what))
    if not models.budget.whole:
        return not_applied(question, "it reads whole matrices, too much for this effort")
    ours, theirs = ([s for s in sources if s.kind in kinds] for sources in sources_of_both(models))
    if not ours or not theirs:
        return not_applied(question, f"no {what} of a form that it reads was recognised on both sides")
    if len({width(s) for s in (*ours, *theirs)}) != 1:
        return not_applied(question, "the models' streams differ in width")
    if _cost(ours, theirs) > _COST * models.budget.multiplications:
        return not_applied(
            question, "looking at every one would cost more than this effort allows; effort full allows more"
        )
    found: list[_Found] = []
    asked: dict[str, tuple[Kind, tuple[str, int, Expert]]] = {}
    seen: dict[Kind, bool] = {}
    for kind in kinds:
        known, asking = ([s for s in sources if s.kind == kind] for sources in (ours, theirs))
        if not asking or not known:
            continue
        pool = _Pool(models, known)
        seen[kind] = pool.sees()
        for source in asking:
            part = read_part(models, models.b, source)
            asked[part.name] = (kind, part.at)
            if (one := pool.find(part)) is not None:
                found.append(one)
    return _answer(question, found, asked, seen, not_read(models.b, kinds[0], theirs))


def _cost(ours: Sequence[Source], theirs: Sequence[Source]) -> float:
    """Multiplications, about: signatures of all units, and the nearest among them for B's of each kind."""
    d = width(ours[0])
    span = min(d, 512)
    signatures = sum(s.units for s in (*ours, *theirs)) * 3.0 * (d * span + 4 * span * span)
    nearest = sum(
        float(a.units) * min(b.units, max(_UNITS, 2 * d)) * 40 for a in ours for b in theirs if a.kind == b.kind
    )
    return signatures + nearest + 10.0 * len(theirs) * d**3


class _Pool:
    """The parts of A of one kind, with their signatures, among which parts of B are looked for."""

    def __init__(self, models: ModelPair, sources: Sequence[Source]) -> None:
        self.models, self.sources = models, sources
        few = sum(s.units * len(s.tensors) for s in sources) * width(sources[0]) <= _HELD
        self.part = lru_cache(maxsize=None if few else 1)(self._part)
        self.signatures = [_signature(self.part(i)) for i in range(len(sources))]

    def _part(self, i: int) -> Part:
        return read_part(self.models, self.models.a, self.sources[i])

    def find(self, part: Part) -> _Found | None:
        """The part of A that this one's units are from, as far as half of them tell, and what the other half says."""
        d = part.written.shape[1]
        rng = np.random.default_rng([self.models.seed, part.units, 33])
        units = rng.permutation(part.units)[: max(_UNITS, 2 * d)]
        fit, tested = np.sort(units[: units.size // 2]), np.sort(units[units.size // 2 :])
        asked = _signature(part)[fit]
        none: tuple[Indices, Indices] = (np.empty(0, np.int64),) * 2
        seeds = [_seeds(known, asked) if known.shape[1] == asked.shape[1] else none for known in self.signatures]
        if part.kind in TABLES and seeds[0][0].size < _FEWEST:
            there = fit < self.sources[0].units
            seeds[0] = fit[there], np.nonzero(there)[0]
        order = sorted(range(len(seeds)), key=lambda i: -seeds[i][0].size)
        best = order[0]
        if (weak := self._fitted(part, best, fit, tested, seeds[best])) is None:
            return None
        found = _Found(part, self.sources[best].at, tested.size, weak)
        if found.log10_p > _CALM:
            return found
        others = [i for i in order if self.sources[i].at[:2] != found.a[:2]][:_OTHERS]
        fits = [self._fitted(part, i, fit, tested, seeds[i]) for i in others]
        hits = [int(one.hits[0]) * weak.b.size / one.b.size for one in fits if one is not None]
        groups = len(weak.groups)
        return replace(found, rate=max(float(np.median(hits)) if hits else 2.0 * groups, groups))

    def _fitted(
        self, part: Part, i: int, fit: Indices, tested: Indices, seeds: tuple[Indices, Indices]
    ) -> WeakParts | None:
        """The rotation from B's fit half to one part of A, and what the tested half says; None for too few seeds."""
        if seeds[0].size < _FEWEST:
            return None
        a, d = self.part(i), part.written.shape[1]
        first = Cross(d, d)
        for x, y in zip(a.vectors, part.vectors, strict=True):
            if x is a.read[0] or len(a.read) == 1:  # in a gated FFN only the gate's sign is sure
                first.add(unit_rows(x[seeds[0]]), unit_rows(y[fit][seeds[1]]))
        at = Matched(part.name, a.read, [y[fit] for y in part.read], a.written, part.written[fit], *seeds)
        basis, *_ = refine([at], first, "", frozenset(), "rotation", ("rotation",))
        return self._test(a, part, tested, basis)

    def _test(self, a: Part, part: Part, tested: Indices, basis: Basis) -> WeakParts | None:
        turned = [basis.to_a(y) for y in part.vectors]
        sets = [*a.vectors, *turned]
        writes = [False] * len(a.read) + [True]
        to = directions(zip(sets, writes * 2, strict=True), common(basis, part.written.shape[1]))
        x, y = along(a.vectors, to), along((v[tested] for v in turned), to)
        _, likeness = paired(x, y)
        return weak_parts(x, y, likeness, self.models.seed)

    def sees(self) -> bool:
        """Whether the middle part of A, turned, renumbered and noised, is found in its own place."""
        part = self.part(len(self.sources) // 2)
        rng = np.random.default_rng([self.models.seed, 34])
        d = part.written.shape[1]
        turn = qr(rng.standard_normal((d, d)))[0].astype(np.float32)
        order = rng.permutation(part.units)
        gated = len(part.read) == 2  # then the sign of up and down together is free
        one = np.ones((part.units, 1), np.float32)
        sign: F32 = np.where(rng.random((part.units, 1)) < 0.5, -one, one) if gated else one

        def moved(x: F32, signs: F32) -> F32:
            noise = _NOISE * float(x.std()) * rng.standard_normal(x.shape, dtype=np.float32)
            out: F32 = product((x + noise)[order], turn) * signs
            return out

        read = [moved(x, one if gated and i == 0 else sign) for i, x in enumerate(part.read)]
        written = moved(part.written, sign)
        moments = {name: product(product(turn.T, m), turn) for name, m in part.moments.items()}
        if part.kind in TABLES:
            moments = moments_of_table(written)
        found = self.find(Part(part.kind, part.at, read, written, moments))
        least = _TABLE if part.kind in TABLES else FITTED_EFFECT
        return found is not None and found.a == part.at and found.log10_p <= LOG10_P and found.weak.effect >= least


def _signature(part: Part) -> F32:
    return signed([part.up_gate_down], part.moments)


def _seeds(known: F32, asked: F32) -> tuple[Indices, Indices]:
    """Units whose nearest signature is mutual and much nearer than the second: numbers in A, numbers among B's."""
    squares = np.einsum("ij,ij->i", known, known)[None] + np.einsum("ij,ij->i", asked, asked)[:, None]
    distance = np.sqrt(np.maximum(squares - 2 * product(asked, known.T), 0))
    nearest = distance.argmin(axis=1)
    two = np.partition(distance, 1, axis=1)[:, :2]
    mutual = distance.argmin(axis=0)[nearest] == np.arange(len(asked))
    b = np.nonzero(mutual & (two[:, 0] <= _RATIO * two[:, 1]))[0]
    return nearest[b], b


@dataclass(frozen=True)
class TurnedParts(Details):
    """Parts of B by name.

    ``planted_part_found``: by kind; ``not_found``: kind, stack, block and expert of those that would have been;
    ``found``: A's stack, block and expert, weak parts that agree and that were tested, and their cosine; ``tables``:
    role of a token table that was found → share of its rows.
    """

    basis: str
    pairs_tried: int
    asked: Sequence[str]
    planted_part_found: Mapping[Kind, bool]
    not_found: Sequence[Sequence[Any]]
    not_looked_at: Sequence[str]
    found: Mapping[str, Sequence[Any]]
    tables: Mapping[str, float]


def _answer(
    question: Evidence,
    found: Sequence[_Found],
    asked: Mapping[str, tuple[Kind, tuple[str, int, Expert]]],
    seen: dict[Kind, bool],
    left: Sequence[str],
) -> Evidence:
    found = [f for f in found if f.b.kind not in TABLES or f.weak.effect >= _TABLE]
    multiplicity = math.log10(max(len(asked), 1))
    best = min(found, key=lambda f: (f.log10_p, -f.weak.effect), default=None)
    real = [f for f in found if f.log10_p + multiplicity <= LOG10_P]
    hints = {(f.b.kind, f.b.at) for f in found if f.log10_p <= _CALM}
    blind = [kind for kind, sees in seen.items() if not sees]
    says = f"{len(real)} of {len(asked)} parts of B are parts of A in another basis" + (
        f": {', '.join(f.b.name for f in real[:4])}" if real else ""
    )
    if blind:
        says += f"; of {' and '.join(blind)} even a planted part was not found"
    elif seen:
        says += f"; a planted one, turned and with {_NOISE:.0%} of noise, was found"
    if left:
        says += f"; {len(left)} blocks have matrices of a form that was not looked at"
    return replace(
        question,
        says=says,
        statistic=float(best.weak.hits[0]) if best is not None else 0.0,
        effect=min(1.0, best.weak.effect) if best is not None else 0.0,
        n=len(asked),
        log10_p=min(0.0, best.log10_p + multiplicity) if best is not None else 0.0,
        rank_p=_rank_p(found),
        detectable=1.0 if blind or left or not seen else FITTED_EFFECT,
        matches=tuple(_match(f) for f in found if f.b.kind not in TABLES),
        details=TurnedParts(
            basis=f"each part by itself: {question.test}",
            pairs_tried=len(asked),
            asked=list(asked),
            planted_part_found=dict(seen),
            not_found=[[kind, *at] for kind, at in asked.values() if seen[kind] and (kind, at) not in hints],
            not_looked_at=list(left),
            found={f.b.name: [list(f.a), int(f.weak.hits[0]), f.weak.b.size, f.weak.effect] for f in real},
            tables={f.b.kind: _match(f).share for f in real if f.b.kind in TABLES},
        ),
    )


def _match(found: _Found) -> UnitMatch:
    weak = found.weak
    return UnitMatch(
        b=found.b.at,
        a=found.a,
        tested=found.tested,
        agreed=int(weak.hits[0]),
        expected=float(len(weak.groups)),
        log10_p=found.log10_p,
        units=np.empty((0, 2), np.int64),
    )


def _rank_p(found: Iterable[_Found]) -> float | None:
    """B among copies whose weak parts were dealt out anew; None where nothing was near enough to be tested."""
    held = list(found)
    if not held:
        return None
    copies = range(held[0].weak.hits.size)
    told = [-min(f.weak.log10_p(copy) for f in held) for copy in copies]
    hits = np.sum([f.weak.hits for f in held], axis=0)
    return rank_p(told, hits, salt=[f.weak.similarity.ravel()[:64].tolist() for f in held])


def not_found_of_a(told: TurnedParts, names: Mapping[str, str], models: ModelPair) -> TurnedParts:
    """What B asked of A says nothing of what A has besides."""
    return replace(told, not_found=[])
