"""Shared weights, or the same kind of structure? Agreement in the directions that neither model is strong in.

A basis that was fitted aligns what the two streams have in common anyway. Found by meaning (shared tokens) it aligns
strangers that learned from the same data, and a distilled student with its teacher. Found through units it lays the few
directions that all FFNs of B read and write along on those of A: real in every FFN, fitted or not, and no sign of
shared weights. Units are then named alike because a few loads govern what they read and write, so no agreement there
has the null "independent" any more.

What such a fit cannot reach is the rest of a unit. Take the eigenvectors of the second moments of what both models
write to their streams (token rows, columns of down, each set of trace one; B's through the basis). Units of an FFN of B
are matched to units of A by the *strong* half alone. Of the other half, the directions that rows of gate and up of both
models read least are the *weak* third, which the matching never looked at: there matched units are compared with others
whose strong parts are alike (:mod:`weightprint.evidence.nulls.alike`). In strangers it is what initialisation and noise
left: which unit carries which weak part is arbitrary. In a descendant it is inherited with the rest.

Null: in a group of units whose strong parts are alike, the weak parts of B's are equally likely in any order. It
includes the fit, whatever it found: the basis is the same for every order, saw none of the FFNs that are tested, and
moments do not change with the order of units. The FFN that says most pays for their number, which holds however FFNs of
B depend on each other.

Measured on trained decoders (4-10 blocks, d 32-64); z is of the mean weak cosine of one FFN. 16 pairs of strangers in
five bases each: 456 z with deviation .99, the largest 2.6; a distilled student alike (2.1). Descendants, rotated with
units renumbered, through Procrustes on shared tokens: weak cosines of .84 where trained on for as long as the first
training (.86 in the strong half), .60 (.65) for three times as long.

The effect is the mean cosine of matched weak parts above that of others in their groups, in the FFN that gave the
p-value: near 0 for strangers and students, the correlation of the weights for descendants.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from weightprint.evidence.evidence import Details, Evidence, Region, not_applied
from weightprint.evidence.lookup.units import unit_inputs, unit_outputs
from weightprint.evidence.lookup.weak_parts import (
    FEWEST,
    Directions,
    Units,
    WeakParts,
    along,
    common,
    directions,
    paired,
    weak_parts,
)
from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.nulls.ranked import rank_p
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.evidence.test import Test
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.ranges import evenly

_NEAREST = 3  # FFNs of A by relative depth, for each of B; all of them where that is cheap
_CHEAP = 1e10  # multiplications
_TOKENS = 8192
_FFNS_SEEN = 8  # whose vectors say where a stream is strong

_QUESTION = Evidence(
    test="convergence",
    asked="Do units that do the same thing in both models also agree in the directions where neither is strong?",
    null="among matched units that are alike in the strong directions, the weak parts of B's units are equally likely "
    "in any order: what a fitted basis, training on the same data, or distillation leaves behind",
    assumes="what makes a unit's weak part is not what makes its strong one. A common random initialisation breaks the "
    "null as shared training does",
    blind_to="descendants trained for so long, or noised so much, that the weak directions were rewritten; bases that "
    "were fitted too coarsely to hold in the weak directions",
    statistic_of="hits: matched units whose weak parts find each other among units alike, in the FFN that says most",
    effect_of="mean cosine of the weak parts of matched units there, minus that of others alike",
)


@dataclass(frozen=True, slots=True)
class _Found:
    """One FFN of B, its counterpart in A, how many units were looked for, and what their weak parts say."""

    a: Ffn
    b: Ffn
    tested: int
    weak: WeakParts

    @property
    def matched(self) -> int:
        return self.weak.b.size


@dataclass(frozen=True)
class Convergence(Details):
    """By FFN of B; ``matched``: its FFN of A, units matched, units tested, and those whose weak parts are A's."""

    basis: str
    semantic: bool
    weak_directions: int
    strong_cosine: float
    weak_cosine: float
    z_of_weak_cosine: Mapping[str, float]
    matched: Mapping[str, Sequence[Any]]
    withheld: str | None = None


@partial(
    Test,
    decides="any basis",
    bases=("found",),
    confirms=("unit_agreement",),
    exchanges=True,
    details=Convergence,
    needs="hidden units on the whole stream",
)
def convergence(models: ModelPair) -> Evidence:
    """Weak parts of units matched by their strong parts, on FFNs that the basis was not fitted on."""
    basis = models.basis
    ours = [f for f in ffns(models.a) if f.down is not None]
    theirs = [f for f in ffns(models.b) if f.down is not None and not basis.saw(f.name)]
    if not ours or not theirs:
        return not_applied(
            _QUESTION, "no feed-forward block with a down-projection is left that the basis was not fitted on"
        )
    widest = max(f.down.numel for f in (*ours, *theirs) if f.down is not None)
    if widest > models.budget.columns_of:
        return not_applied(_QUESTION, "columns of down are too dear at this effort")
    if basis.kind == "identity" and ours[0].width != theirs[0].width:
        return not_applied(_QUESTION, "the models differ in width and no common basis was found")
    to = directions(_vectors(models), common(basis, ours[0].width))
    depth = [1 + max(f.block for f in fs) for fs in (ours, ffns(models.b))]
    cheap = sum(f.numel for f in ours) * ours[0].width * models.budget.weak_ffns <= _CHEAP
    found = []
    for ffn in _spread(theirs, models.budget.weak_ffns):
        at = ffn.block / depth[1]
        near = sorted(ours, key=lambda other, at=at: abs(other.block / depth[0] - at))  # type: ignore[misc]
        one = _best(models, near[: None if cheap else _NEAREST], ffn, to)
        if one is not None:
            found.append(one)
    if not found:
        return not_applied(_QUESTION, f"no feed-forward block has {FEWEST} units that match by their strong parts")
    return _answer(models, found, to.weak.shape[1])


def _spread(found: Sequence[Ffn], most: int) -> list[Ffn]:
    """One FFN per block, at most ``most``, evenly over the depth."""
    first: dict[tuple[str, int], Ffn] = {}
    for ffn in found:
        first.setdefault((ffn.stack, ffn.block), ffn)
    one = list(first.values())
    return evenly(one, most)


def _vectors(models: ModelPair) -> Iterator[tuple[F32, bool]]:
    """Sets of vectors in both streams, over A's channels, and whether they are written: token rows, columns of down;
    rows of gate and up."""
    for side, basis in ((models.a, Basis()), (models.b, models.basis)):
        own = [f for f in ffns(side) if f.down is not None]
        for tensor in side.tensors.values():
            if tensor.place is not None and tensor.place.role == "embedding" and tensor.shape[-1:] == (own[0].width,):
                rows = pick(tensor.shape[0], _TOKENS, models.seed, "directions")
                yield basis.to_a(finite(sampled_rows(side, tensor, rows))), True
        for ffn in _spread([f for f in own if f.width == own[0].width], _FFNS_SEEN):
            *read, written = _of_ffn(side, ffn, basis, pick(ffn.units, 1024, models.seed, "directions"))
            yield from ((x, False) for x in read)
            yield written, True


def _of_ffn(side: ModelView, ffn: Ffn, basis: Basis, units: Indices | None) -> list[F32]:
    """(Gate,) up and down of these units over A's channels."""
    up, gate = unit_inputs(side, ffn, units, fold=True)
    return [basis.to_a(finite(x)) for x in (gate, up, unit_outputs(side, ffn, units)) if x is not None]


def _best(models: ModelPair, ours: Sequence[Ffn], ffn: Ffn, to: Directions) -> _Found | None:
    """The FFN of A with the most units matched through the strong directions, and the weak parts of these."""
    units = pick(ffn.units, models.budget.weak_units, models.seed, "weak", 8)
    b = along(_of_ffn(models.b, ffn, models.basis, units), to)
    best: tuple[int, Ffn, Units, F32] | None = None
    for other in ours:
        a = along(_of_ffn(models.a, other, Basis(), None), to)
        if a.gated != b.gated:
            continue
        agreed, likeness = paired(a, b)
        if best is None or agreed > best[0]:
            best = (agreed, other, a, likeness)
    if best is None:
        return None
    _, other, a, likeness = best
    weak = weak_parts(a, b, likeness, models.seed)
    return None if weak is None else _Found(other, ffn, len(b), weak)


def _ranked(found: Sequence[_Found]) -> float:
    """B among copies whose weak parts were dealt out anew: the FFN that says most, then all hits."""
    number = range(found[0].weak.hits.size)
    told = [-min(f.weak.log10_p(copy) for f in found) for copy in number]
    hits = np.sum([f.weak.hits for f in found], axis=0)
    return rank_p(told, hits, salt=[f.weak.similarity.ravel()[:64].tolist() for f in found])


def _answer(models: ModelPair, found: list[_Found], weak_directions: int) -> Evidence:
    best = min(found, key=lambda f: (f.weak.log10_p(), -f.weak.effect))
    matched = sum(f.matched for f in found)
    multiplicity = math.log10(len(found) * max(models.basis.candidates, 1))
    strong = sum(f.weak.strong * f.matched for f in found) / matched
    weak = sum(f.weak.effect * f.matched for f in found) / matched
    hits = int(best.weak.hits[0])
    return replace(
        _QUESTION,
        says=f"{matched} of {sum(f.tested for f in found)} units match by the strong directions (cosine {strong:.2f}); "
        f"in the weak ones these have cosine {weak:+.3f}, and {hits} of {best.matched} find each other among "
        f"units alike in the best block (chance: about {len(best.weak.groups)}; cosine {best.weak.effect:+.3f})",
        statistic=float(hits),
        effect=best.weak.effect,
        n=matched,
        log10_p=min(0.0, best.weak.log10_p() + multiplicity),
        rank_p=_ranked(found),
        detectable=float(np.mean([5 * f.weak.sd for f in found])),
        regions=tuple(
            Region(f.b.name, f.b.block, f.matched, f.weak.effect, 0.0, f.weak.sd, int(f.weak.hits[0]), f.matched)
            for f in found
        ),
        details=Convergence(
            basis=models.basis.found_by,
            semantic=models.basis.semantic,
            weak_directions=weak_directions,
            strong_cosine=strong,
            weak_cosine=weak,
            z_of_weak_cosine={f.b.name: f.weak.effect / f.weak.sd if f.weak.sd > 0 else 0.0 for f in found},
            matched={f.b.name: [f.a.name, f.matched, f.tested, int(f.weak.hits[0])] for f in found},
        ),
    )
