"""What two models hold of each other value for value: copies, what is left on either side, rows of token tables.

No threshold of chance is asked here. Which tensors are too simple to be evidence is read from the models once
(:func:`weightprint.verdict.facts.gathered`); everything else follows from headers, digests and evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from weightprint.anatomy.adapters.dialects import factors_of
from weightprint.anatomy.roles import TOKEN_TABLES
from weightprint.evidence.embeddings import Embeddings
from weightprint.evidence.evidence import D, Evidence, Shared
from weightprint.evidence.exact_sharing import ExactSharing
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.same_values import SameValues
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.verdict.thresholds import LIMITS, ROWS, Limits
from weightprint.verdict.values import Label


@dataclass(frozen=True)
class Copied:
    """The pair and its evidence, with what equal and re-encoded values show.

    ``simple``: tensors of either side, of those without an equal on the other, that are too simple to be evidence.
    ``limits``: what a finding must reach.
    """

    models: ModelPair
    evidence: Sequence[Evidence]
    simple: frozenset[tuple[Label, str]] = frozenset()
    limits: Limits = LIMITS

    @cached_property
    def by_test(self) -> Mapping[str, Evidence]:
        """Test → its evidence in the basis as stored."""
        return {e.test: e for e in self.evidence if e.basis == "identity"}

    def applied(self, test: str) -> Evidence | None:
        """That test's evidence in the basis as stored, if it was run."""
        evidence = self.by_test.get(test)
        return evidence if evidence is not None and evidence.applied else None

    def told(self, kind: type[D]) -> D | None:
        """What the test with this kind of details told in the basis as stored, if it was run."""
        return next((e.details for e in self.by_test.values() if isinstance(e.details, kind)), None)

    @cached_property
    def copies(self) -> tuple[Shared, ...]:
        """Tensors of B that hold A's values: exactly, re-encoded, or as the quantiser's own scales."""
        return tuple(f for f in self._counterparts if f.kind not in ("rounded", "scaled", "reordered"))

    @cached_property
    def rounded(self) -> tuple[Shared, ...]:
        """Tensors of B whose difference from A's is of the size that a quantiser's codes make, and no more is known."""
        return tuple(f for f in self._counterparts if f.kind == "rounded")

    @cached_property
    def stored_otherwise(self) -> bool:
        """Something has A's values in another encoding; simple values count beside others that show an origin, or
        where there is nothing else on either side."""
        simple = any(f.kind == "trivial" for f in self.copies)
        return bool(self.re_encoded) or (simple and (bool(self.shown) or self.more == (0, 0)))

    @cached_property
    def scaled(self) -> tuple[Shared, ...]:
        """Tensors of B that are A's times a factor, or codes of A's under a scale, that nothing stores."""
        return tuple(f for f in self._counterparts if f.kind == "scaled")

    @cached_property
    def reordered(self) -> tuple[Shared, ...]:
        """Tensors of B that hold A's values in another order, not too simple to show anything."""
        return tuple(f for f in self._counterparts if f.kind == "reordered")

    @cached_property
    def turned(self) -> tuple[Pair, ...]:
        """Pairs of the same values that one file holds (in x out) and the other (out x in)."""
        differ = {p.b.name for p in self.differing}
        return tuple(p for p in self.models.pairs if p.turned and p.b.name not in differ)

    @cached_property
    def differing(self) -> tuple[Pair, ...]:
        """Pairs whose values are not the same, however simple they are."""
        same = {f.b for f in self.copies}
        return tuple(
            p
            for p in self.models.pairs
            if p.b.name not in same and (p.a.dtype, p.a.shape, p.a.digest) != (p.b.dtype, p.b.shape, p.b.digest)
        )

    @cached_property
    def undecoded(self) -> tuple[Tensor, ...]:
        """Stored bytes of either side that nothing decodes and the other side doesn't have: they were not read."""
        sides = (self.models.a, self.models.b)
        known = [{t.digest for t in side.tensors.values()} for side in reversed(sides)]
        paired = [{p.a.name for p in self.models.pairs}, {p.b.name for p in self.models.pairs}]
        return tuple(
            t
            for side, equal, met in zip(sides, known, paired, strict=True)
            for t in side.tensors.values()
            if t.undecoded and t.digest not in equal and t.name not in met
        )

    @cached_property
    def contained(self) -> tuple[bool, bool]:
        """Whether all of A is in B value for value, simple tensors aside, and all of B in A. A pair of unequal values
        is no exception where both stand elsewhere on the other side (layers repeated, a head for the embedding)."""
        if self.undecoded:
            return False, False
        missing, beyond = (self.missing_in_b, self.missing_in_a), [{t.name for t in side} for side in self.beyond]
        key = attrgetter("dtype", "shape", "digest")
        unequal = [p for p in self.models.pairs if key(p.a) != key(p.b)]
        own = [{p.a.name for p in unequal}, {p.b.name for p in unequal}]
        of_a, of_b = (not lack and not (left & names) for lack, left, names in zip(missing, beyond, own, strict=True))
        return of_a, of_b

    @cached_property
    def whole(self) -> bool:
        """No pair differs and everything could be read, so the values of what was compared are the same."""
        return not self.differing and not self.undecoded

    @cached_property
    def same_but(self) -> bool:
        """Factors and orders are all that differs in the pairs, and one side has nothing that the other lacks."""
        other = (*self.scaled, *self.reordered)
        ours, theirs = {f.a for f in other}, {f.b for f in other}
        more_a = [t for t in self.missing_in_b if t.name not in ours]
        more_b = [t for t in self.missing_in_a if t.name not in theirs]
        told = any(not {("a", f.a), ("b", f.b)} <= self.simple for f in self.scaled)
        shows = bool(self.shown) or told or self.order_shows
        differ = any(p.b.name not in theirs for p in self.differing)
        return bool(theirs) and shows and not differ and not self.undecoded and (not more_a or not more_b)

    @cached_property
    def order_shows(self) -> bool:
        """Learned values stand in another order, so the two share them."""
        a, b = self.models.a.tensors, self.models.b.tensors
        return any(a[f.a].place is not None or b[f.b].place is not None for f in self.reordered)

    @cached_property
    def _counterparts(self) -> tuple[Shared, ...]:
        return tuple(f for test in ("exact_sharing", "same_values") if (e := self.applied(test)) for f in e.found)

    @cached_property
    def shown(self) -> tuple[Shared, ...]:
        """Those that are evidence of sharing: equal or re-encoded, not trivial, and learned by their name.

        A window, a filter bank or a HiPPO matrix may sit in two strangers. So a tensor whose role neither name tells
        counts only when such tensors make up more than half of B: no fixed table is most of a model.
        """
        a, b = self.models.a.tensors, self.models.b.tensors
        values = [f for f in self.copies if f.kind in ("exact", "re_encoded")]
        learned = [f for f in values if a[f.a].place is not None or b[f.b].place is not None]
        unknown = sum(f.numel for f in values) - sum(f.numel for f in learned)
        return tuple(values if 2 * unknown > self.models.b.numel else learned)

    @property
    def first_factors_only(self) -> bool:
        """All that is shown are adapters' factors A, which start random: one seed draws them alike, and some ways of
        training never change them."""
        factors = factors_of([f.b for f in self.shown]) if self.shown else {}
        return bool(factors) and all(f.b in factors and factors[f.b].part == "a" for f in self.shown)

    @cached_property
    def re_encoded(self) -> tuple[Shared, ...]:
        """Tensors that differ in encoding only."""
        return tuple(f for f in self.copies if f.kind == "re_encoded")

    @cached_property
    def equal_both_ways(self) -> bool:
        """Every tensor of either side has an equal on the other."""
        exact = self.told(ExactSharing)
        return exact is not None and not exact.n_only_in_a and not exact.n_only_in_b

    @cached_property
    def moved(self) -> tuple[str, ...]:
        """Tensors of B that stand in A value for value, but do something else there: another block, role or expert."""
        a, b = self.models.a.tensors, self.models.b.tensors
        exact = self.applied("exact_sharing")
        at = {t.place: t for t in a.values() if t.place is not None}
        out = []
        for f in exact.found if exact else ():
            here, there = b[f.b], a[f.a]
            if here.place is None or there.place is None or here.place.stack != there.place.stack:
                continue
            own = at.get(here.place)
            if own is None and {here.place.role, there.place.role} <= TOKEN_TABLES:
                continue  # tied, and stored all the same
            if here.place != there.place and (own is None or own.digest != here.digest):
                out.append(f.b)
        return tuple(out)

    @cached_property
    def exchanged_roles(self) -> Mapping[str, str]:
        """Those of `moved` that stand in their own block, in another tensor's place: ``"gate is A's up"``."""
        b, of_a = self.models.b.tensors, {f.b: f.a for f in self.copies if f.kind == "exact"}
        out = {}
        for name in self.moved:
            here, there = b[name].place, self.models.a.tensors[of_a[name]].place
            if here is not None and there is not None and (here.block, here.expert) == (there.block, there.expert):
                out[name] = f"{here.role} is A's {there.role}"
        return out

    @cached_property
    def missing_in_a(self) -> tuple[Tensor, ...]:
        """Tensors of B, trivial ones aside, whose values are not in A."""
        return tuple(t for t in self.beyond[1] if ("b", t.name) not in self.simple)

    @cached_property
    def missing_in_b(self) -> tuple[Tensor, ...]:
        """Tensors of A, trivial ones aside, whose values are not in B."""
        return tuple(t for t in self.beyond[0] if ("a", t.name) not in self.simple)

    @cached_property
    def beyond(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Tensors of A, and of B, whose values are not in the other model, trivial ones included."""
        of_a = {f.a for f in self.copies if f.kind != "parameter"} | {*self._scales_of_a}
        a, b = self.models.a, self.models.b
        return _beyond(a, b, of_a), _beyond(b, a, {f.b for f in self.copies})

    @property
    def _scales_of_a(self) -> Sequence[str]:
        same = self.told(SameValues)
        return same.scales_of_a if same else ()

    @cached_property
    def more(self) -> tuple[int, int]:
        """Tensors of A, and of B, beyond their equals on the other side, simple ones included, tied ones left out."""
        otherwise = [f for f in self.copies if f.kind != "exact"]
        told = ({f.a for f in otherwise} | {*self._scales_of_a}, {f.b for f in otherwise})
        a, b = (
            Counter((t.dtype, t.shape, t.digest) for t in side.tensors.values() if t.name not in (known | {*tied}))
            for side, known, tied in zip((self.models.a, self.models.b), told, self.tied, strict=True)
        )
        return (a - b).total(), (b - a).total()

    @cached_property
    def tied(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of A and of B: token tables that are another one of that model again, where the other model stores none."""
        out = []
        for side, other in ((self.models.a, self.models.b), (self.models.b, self.models.a)):
            tables = [t for t in side.tensors.values() if t.place is not None and t.place.role in TOKEN_TABLES]
            places = {t.place for t in other.tensors.values()}
            more = [t for t in tables if t.place not in places]
            kept = {t.digest for t in tables if t not in more}
            out.append(tuple(t.name for t in more if t.digest is not None and t.digest in kept))
        return out[0], out[1]

    @cached_property
    def complete(self) -> bool:
        """Nothing but trivial tensors is missing on either side; quick effort can't know."""
        return self.models.effort != "quick" and not self.missing_in_a and not self.missing_in_b

    @cached_property
    def missing_outside_blocks_only(self) -> bool:
        """True if what one side lacks is a part outside the blocks (a head, a pooler), and there are blocks. Tensors
        that nobody knows (an optimiser's states) are no such part."""
        missing = self.missing_in_a or self.missing_in_b
        blocks = any(t.layer is not None for t in (*self.models.a.tensors.values(), *self.models.b.tensors.values()))
        of_one_side = not self.missing_in_a or not self.missing_in_b
        return blocks and of_one_side and all(t.layer is None and t.place is not None for t in missing)

    @cached_property
    def copies_unclear(self) -> bool:
        """Tensors of B hold A's values, but nothing says that they were learned."""
        return any(f.kind in ("exact", "re_encoded") for f in self.copies) and not self.shown

    @cached_property
    def equal_rows(self) -> Evidence | None:
        """Rows of B's token tables that are rows of A's value by value, where there are enough to be no accident."""
        answers = [e for e in self.evidence if e.test == "embeddings" and e.applied]
        best = max(answers, key=lambda e: e.told(Embeddings).rows_equal, default=None)
        return best if best is not None and best.told(Embeddings).rows_equal >= ROWS else None


def _beyond(side: ModelView, other: ModelView, covered: set[str]) -> tuple[Tensor, ...]:
    # Of the other side, and of tied tensors that are stored twice.
    equal = {(t.dtype, t.shape, t.digest) for t in other.tensors.values()}
    equal |= {(t.dtype, t.shape, t.digest) for name in covered if (t := side.tensors[name])}
    return tuple(
        t
        for t in side.tensors.values()
        if t.digest is not None and t.name not in covered and (t.dtype, t.shape, t.digest) not in equal
    )
