"""Unit geometry: do hidden units keep their number, whatever was done to the residual stream?

Split the h hidden units of an FFN at random, by number, into references R and tested units T (the same numbers in both
models). With X the rows of the gate (or up) projection of these units, gain of the feeding norm folded in, rows of
length one, a tested unit's *profile* is its row of the hat matrix

    H = X X' (X X' + lambda I)^-1         restricted to T x R

(how much each reference unit helps to predict it; lambda = .3 mean eigenvalues of X'X). A rotation, a permutation or
sign flips of the residual channels leave X X' and so H alone. With lambda -> 0 any invertible map of the stream would,
so gains that were not folded, outlier channels and shared directions do little harm, and so does the loss or gain of
channels: the two models need not be equally wide. Centre the profiles of A and B, and find for each tested unit of A
the unit of B whose profile is most like it. A *hit* is the unit of the same number.

If B's initialisation is independent of A, its tested units are exchangeable given its references, whatever both models
learned: P(hits >= k) <= 1/k! exactly for one pair of FFNs (:mod:`weightprint.evidence.nulls.exchange`). Training on the
same data makes units alike in meaning, never in order. Every FFN (or expert) of B is compared with every FFN of A of
the same h; its p-value pays for all of them and for two looks (gate and up; gate alone, for in a gated FFN the sign of
a unit's up and down together is free). FFNs of B are independent under the null unless one was copied from another
(upcycled experts, stacked layers), which shows inside B by the same hits: such copies form a *family*, pay for their
number and count once; Fisher's method joins families. A second look adds the hits of FFNs in the same place.

An order may have been fitted to A, which beats chance at any p: an FFN counts only where its profiles are more alike in
place than such a fit makes them (:mod:`weightprint.evidence.nulls.fitted`). Whoever fits must put references and tested
units in order at once: a search for that (fast approximate quadratic assignment of the Gram matrices, strangers of 256
to 384 units) reached .36 to .72 of what the best order of the tested units alone gives between other numbers.

Measured on trained decoders (5 blocks of 128 units, 64 tested): a fine-tune that was rotated 64 of 64 in every block,
upcycled experts 49-52 of the 48 + chance that were kept, strangers trained on the same data 0-3. Plain cosines in
place of H find fewer units once gains differ (181 against 766 of 768 with lognormal gains of sd .5 left in).

Only rows of up and gate are read, and only sampled ones: the cheapest test that survives a rotation.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from weightprint.anatomy.place import Expert
from weightprint.evidence.evidence import Evidence, Region, UnitMatch, not_applied
from weightprint.evidence.lookup.settled import NOT_NEEDED, all_settled
from weightprint.evidence.lookup.units import unit_inputs
from weightprint.evidence.nulls.exchange import choices, double_centre, finite, hits, log10_p_hits
from weightprint.evidence.nulls.fitted import FITTED, against_order, stands
from weightprint.evidence.nulls.ranked import COPIES, RANKED_PAIRS, hits_of_copies, joint_orders, rank_p
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.test import Test
from weightprint.evidence.thresholds import COPY_LOG10_P, LOG10_P
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import pick
from weightprint.util.arrays import F32, I64, Indices
from weightprint.util.linear_algebra import product, solve, unit_rows
from weightprint.util.ranges import evenly

_RIDGE = 0.3
_SIZES = (1024, 512, 256, 128, 64)  # units read per FFN, half of them tested
_SEARCHED = 0.55  # of the best order elsewhere: what an order of tested units and references at once reaches

_QUESTION = Evidence(
    test="unit_geometry",
    asked="Do the hidden units of B lie to each other as the units of the same numbers in A do?",
    null="B was trained from an initialisation independent of A, so in every FFN any order of B's hidden units is "
    "equally likely, whatever either model learned",
    assumes="hidden units of an FFN are treated alike by initialisation and training: no nested (MatFormer) widths, no "
    "sorting by importance. A common random initialisation breaks the null as shared training does",
    blind_to="copies whose hidden units were permuted, pruned or inserted; distillation",
    statistic_of="hits: tested units that find the same number in the FFN of A that suits best, summed over B's FFNs",
    effect_of="hits as a share of the units tested, above what the best of A's FFNs gives by chance",
)


@dataclass(frozen=True, slots=True)
class _Profiles:
    """Profiles of the tested units of one FFN: (tested, references) for gate and for up, rows of length one."""

    ffn: Ffn
    gate: F32 | None
    up: F32

    @property
    def place(self) -> tuple[str, int, Expert]:
        return (self.ffn.stack, self.ffn.block, self.ffn.expert)


@dataclass(frozen=True, slots=True)
class _Best:
    """An FFN of B and the FFN of A that suits best."""

    b: _Profiles
    a: _Profiles
    similarity: F32  # (A's tested units, B's)
    hits: int
    tested: Indices
    multiplicity: float  # log10 of A's FFNs times looks
    family: int  # FFNs of B with the same number are copies of each other
    copies: I64  # the most hits in any of A's FFNs: those that count, of B, of each permuted copy; int64 (2 + copies,)
    named: bytes  # what the tested units name in all of them
    fitted: int  # of A's FFNs, those in which a fitted order would give as much

    @property
    def log10_p(self) -> float:
        return min(0.0, log10_p_hits(self.hits) + self.multiplicity)

    @property
    def chance(self) -> int:
        """The most hits for which the bound, once it has paid, still says nothing."""
        return _needed(-self.multiplicity) - 1

    @property
    def region(self) -> Region:
        n = self.tested.size
        own = float(np.trace(self.similarity))
        other = float(self.similarity.sum()) - own
        return Region(
            name=self.b.ffn.name,
            layer=self.b.ffn.block,
            n=self.b.up.size,
            effect=own / n,
            control=other / max(n * n - n, 1),
            sd=float(self.similarity.std()) / math.sqrt(n),
            hits=self.hits,
            channels=n,
            tensors=tuple(t.name for t in (self.b.ffn.up, self.b.ffn.gate) if t is not None),
        )

    @property
    def match(self) -> UnitMatch:
        found = self.tested[np.diagonal(self.similarity) >= self.similarity.max(axis=1)]
        return UnitMatch(
            b=self.b.place,
            a=self.a.place,
            tested=self.tested.size,
            agreed=self.hits,
            expected=1.0,
            log10_p=log10_p_hits(self.hits),
            units=np.stack([found, found], axis=1),
        )


@partial(
    Test,
    decides="stored basis",
    basis_free=True,
    answers=("hidden units in a turned stream",),
    exchanges=True,
    of_order=True,
    cost="long",
    kept="angles",
    in_place_first=True,
)
def unit_geometry(models: ModelPair) -> Evidence:
    """Hits of hidden units by rotation-invariant profiles, over all pairs of FFNs with equally many units."""
    if all_settled(models):
        return not_applied(_QUESTION, NOT_NEEDED)
    sides = [_by_units(ffns(side, smallest=32), models.budget.geometry_ffns) for side in (models.a, models.b)]
    common = sorted(sides[0].keys() & sides[1].keys())
    if not common:
        return not_applied(_QUESTION, "no two feed-forward blocks with equally many hidden units were recognised")
    best: list[_Best] = []
    in_place: list[tuple[I64, I64]] = []
    families = 0
    for h in common:
        ours, theirs = sides[0][h], sides[1][h]
        units = pick(h, _size(models, h, ours, theirs), models.seed, f"unit geometry {h}")
        references, tested = _split(units, models.seed)
        known = _profiles(models.a, ours, references, tested)
        found, same = _compare(known, _profiles(models.b, theirs, references, tested), tested, families, models.seed)
        families = 1 + max(m.family for m in found)
        best += found
        in_place += same
    return _answer(best, in_place)


def _by_units(found: Sequence[Ffn], most: int) -> dict[int, list[Ffn]]:
    """FFNs by number of units; at most ``most``, spread evenly over the list."""
    out: dict[int, list[Ffn]] = defaultdict(list)
    for ffn in evenly(found, most):
        out[ffn.units].append(ffn)
    return dict(out)


def _size(models: ModelPair, h: int, ours: Sequence[Ffn], theirs: Sequence[Ffn]) -> int:
    """Units per FFN: the most that keeps products, and the bytes read, within bounds."""
    most = models.budget
    for size in (s for s in _SIZES if s <= most.geometry_units):
        n = min(size, h)
        products = len(ours) * len(theirs) * (n / 2) ** 3 * 2
        read = [sum(f.width * n * (1 + (f.gate is not None)) for f in side) for side in (ours, theirs)]
        cheap = all(
            values <= most.geometry_share * side.numel for values, side in zip(read, (models.a, models.b), strict=True)
        )
        if products <= most.multiplications / 400 and cheap:
            return size
    return _SIZES[-1]


def _split(units: Indices, seed: int) -> tuple[Indices, Indices]:
    """Half of the units as references, half to be tested: positions within ``units``."""
    order = np.random.default_rng([seed, 45]).permutation(units.size)
    half = units.size // 2
    return np.sort(units[order[:half]]), np.sort(units[order[half:]])


def _compare(
    ours: Sequence[_Profiles], theirs: Sequence[_Profiles], tested: Indices, first: int, seed: int
) -> tuple[list[_Best], list[tuple[I64, I64]]]:
    """The best FFN of A for each of B, and the hits (two looks) in the same place, of one FFN per family.

    ``first``: number of the first family.
    """
    families = _families(theirs)
    best: list[_Best] = []
    in_place: dict[int, tuple[I64, I64]] = {}
    # One order of the tested units for all of B's FFNs of this size: copies stay copies, families stay families.
    orders = joint_orders(tested.size, seed, COPIES if len(ours) * len(theirs) <= RANKED_PAIRS else 0)
    for b, family in zip(theirs, families, strict=True):
        looked = [(a, look) for a in ours for look in _looks(a, b)]
        named = choices(np.concatenate([look for _, look in looked])).reshape(len(looked), -1)
        counts = hits_of_copies(named, orders).T
        multiplicity = math.log10(len(looked))
        fitted = [
            j
            for j, (_, look) in enumerate(looked)
            if log10_p_hits(int(counts[j, 0])) + multiplicity <= COPY_LOG10_P and not _stands(look, b.ffn.units)
        ]
        stood = counts[:, 0].copy()
        stood[fitted] = 0
        i = max(range(len(looked)), key=lambda i: (stood[i], float(np.trace(looked[i][1]))))
        a, look = looked[i]
        most = np.r_[stood[i], counts.max(axis=0)]
        seen = named.tobytes()
        best.append(_Best(b, a, look, int(stood[i]), tested, multiplicity, first + family, most, seen, len(fitted)))
        same = [np.r_[k, found] for (a, _), k, found in zip(looked, stood, counts, strict=True) if a.place == b.place]
        if same:
            in_place.setdefault(family, (same[0], same[-1]))
    return best, list(in_place.values())


def _stands(look: F32, units: int) -> bool:
    """Whether profiles are more alike in place than an order fitted to A makes them."""
    reached, elsewhere = against_order(look, units)
    return stands(reached, _SEARCHED * elsewhere)


def _families(found: Sequence[_Profiles]) -> list[int]:
    """A number for each FFN of one model, the same for those whose units keep each other's order."""
    family = list(range(len(found)))
    pairs = len(found) * (len(found) - 1) / 2
    for i, one in enumerate(found):
        for j in range(i):
            if family[j] != family[i] and any(
                log10_p_hits(hits(look)) + math.log10(2 * pairs) <= COPY_LOG10_P for look in _looks(one, found[j])
            ):
                old, new = family[i], family[j]
                family = [new if f == old else f for f in family]
    return family


def _profiles(side: ModelView, found: Sequence[Ffn], references: Indices, tested: Indices) -> list[_Profiles]:
    roles = {tensor.place.role for tensor in side.tensors.values() if tensor.place is not None}
    centre = not roles.isdisjoint(("ffn_norm_bias", "attn_norm_bias"))
    units = np.sort(np.concatenate([references, tested]))
    r, t = np.searchsorted(units, references), np.searchsorted(units, tested)
    out = []
    for ffn in found:
        up, gate = unit_inputs(side, ffn, units, fold=True)
        out.append(_Profiles(ffn, None if gate is None else _hat(gate, r, t, centre), _hat(up, r, t, centre)))
    return out


def _hat(x: F32, references: Indices, tested: Indices, centre: bool) -> F32:
    """Centred profiles, rows of length one: float32 (tested, references). ``centre``: a LayerNorm feeds the rows, so
    their means over channels mean nothing."""
    x = finite(x)
    x = unit_rows(x - x.mean(axis=1, keepdims=True) if centre else x)
    gram = product(x, x.T).astype(np.float64)
    ridge = _RIDGE * np.trace(gram) / max(1, min(x.shape))
    if not ridge > 0:
        return np.zeros((tested.size, references.size), np.float32)
    # H = I - lambda (K + lambda I)^-1, and of that inverse one block is enough.
    gram[np.diag_indices_from(gram)] += ridge
    across = gram[np.ix_(references, tested)]
    explained = solve(gram[np.ix_(references, references)], across)
    left = gram[np.ix_(tested, tested)] - product(across.T, explained)
    return unit_rows(double_centre((ridge * solve(left, explained.T)).astype(np.float32)))


def _looks(a: _Profiles, b: _Profiles) -> list[F32]:
    """Similarity of A's tested units with B's: by gate and up together, and by the gate alone."""
    up: F32 = product(a.up, b.up.T)
    if a.gate is None or b.gate is None:
        return [up]
    gate: F32 = product(a.gate, b.gate.T)
    return [(gate + up) / np.float32(2), gate]


def _weighed(best: list[_Best], in_place: list[tuple[I64, I64]], copy: int) -> float:
    """log10 p of the hits that count (0), of all of B's (1), or of one of its permuted copies."""
    families: dict[int, list[float]] = defaultdict(list)
    for m in best:
        families[m.family].append(min(0.0, log10_p_hits(int(m.copies[copy])) + m.multiplicity))
    answers = [_fisher([min(0.0, min(ps) + math.log10(len(ps))) for ps in families.values()])]
    answers += [
        log10_p_hits(sum(int(c[copy]) for c in counts), len(in_place)) for counts in zip(*in_place, strict=True)
    ]
    return min(0.0, min(answers) + math.log10(len(answers)))


def _ranked(best: list[_Best], in_place: list[tuple[I64, I64]]) -> float | None:
    """B among its permuted copies, each weighed as B is; hits in the same places settle ties."""
    copies = range(1, min(m.copies.size for m in best))
    if len(copies) < 2:
        return None
    same = [sum(int(counts[0][copy]) for counts in in_place) for copy in copies]
    digest = hashlib.blake2b(b"".join(m.named for m in best)).hexdigest()
    return rank_p([-_weighed(best, in_place, copy) for copy in copies], same, salt=digest)


def _answer(best: list[_Best], in_place: list[tuple[I64, I64]]) -> Evidence:
    log10_p = _weighed(best, in_place, 0)
    tested, total, chance = (sum(xs) for xs in zip(*((m.tested.size, m.hits, m.chance) for m in best), strict=True))
    sure = [m for m in best if m.log10_p <= LOG10_P]
    fitted = sum(m.fitted > 0 for m in best)
    easiest = min((_needed(LOG10_P - m.multiplicity) / m.tested.size for m in best), default=1.0)
    return replace(
        _QUESTION,
        says=f"{total} of {tested} hidden units in {len(best)} feed-forward blocks of B find their own number in A by "
        f"their angles to other units (the best of A's blocks gives {chance} or fewer by chance)",
        statistic=float(total),
        effect=max(0.0, (total - chance) / max(tested - chance, 1)),
        n=tested,
        log10_p=log10_p,
        rank_p=_ranked(best, in_place),
        detectable=min(1.0, easiest),
        regions=tuple(m.region for m in best),
        matches=tuple(m.match for m in best),
        details={
            "ffns": len(best),
            "pairs_tried": round(sum(10**m.multiplicity for m in best)),
            "ffns_found": len(sure),
            "families_of_ffns_in_b": len({m.family for m in best}),
            "hits_in_the_same_place": max(
                (sum(int(c[0]) for c in counts) for counts in zip(*in_place, strict=True)), default=None
            ),
            "map": {m.b.ffn.name: [m.a.ffn.name, m.hits, m.tested.size] for m in sure},
            "withheld": f"units of {fitted} FFNs lie to each other as A's of the same numbers, but {FITTED}"
            if fitted
            else None,
        },
    )


def _fisher(log10_p: Sequence[float]) -> float:
    """log10 of Fisher's combination of independent p-values: Q(n, x), x = -sum ln p, in logarithms."""
    x = -math.log(10) * math.fsum(log10_p)
    if x <= 0:
        return 0.0
    terms = [i * math.log(x) - math.lgamma(i + 1) for i in range(len(log10_p))]
    top = max(terms)
    return min(0.0, (top - x + math.log(math.fsum(math.exp(t - top) for t in terms))) / math.log(10))


def _needed(log10_p: float) -> int:
    """Hits that take the bound to this value."""
    k = 2
    while log10_p_hits(k) > log10_p:
        k += 1
    return k
