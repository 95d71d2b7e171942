"""The evidence, reduced to what the rules of :mod:`weightprint.verdict.rules` ask."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from weightprint.anatomy.roles import TOKEN_TABLES
from weightprint.evidence.evidence import Evidence, Region, Shared
from weightprint.evidence.lookup.weak_parts import FITTED_EFFECT
from weightprint.evidence.nulls.exchange import log10_p_hits
from weightprint.evidence.pair import Models, Pair
from weightprint.evidence.tests import DECIDING, IN_ANY_BASIS, OF_HEADS, OWN_BASIS, QUESTIONS
from weightprint.fingerprint.model import Side, Tensor
from weightprint.operations.changes import Changes, measured
from weightprint.verdict.absent_parts import Absent, absent_outside, absent_parts
from weightprint.verdict.found_blocks import FoundBlock, Key, Share, found_blocks, found_heads, share_of
from weightprint.verdict.maps import Maps, maps
from weightprint.verdict.thresholds import (
    BESIDE_LOG10_P,
    DETECTABLE,
    DISTANT_GAINS,
    EFFECT,
    LOG10_P,
    ROWS,
)
from weightprint.verdict.withheld import MASKED, qualified, tied, withheld

__all__ = ["Facts", "may_decide"]


def may_decide(evidence: Evidence) -> bool:
    """Its p-value can carry a verdict. In a basis that was fitted, tests whose null that breaks give none."""
    e = evidence
    enough = e.basis == "identity" or (e.test in IN_ANY_BASIS and (e.effect or 0.0) >= FITTED_EFFECT)
    return e.applied and e.test in DECIDING and e.log10_p is not None and enough


@dataclass(frozen=True)
class Facts:
    """The evidence, reduced to what the rules ask. Each property reads one or two tests and nothing else."""

    models: Models
    evidence: Sequence[Evidence]

    @cached_property
    def by_test(self) -> Mapping[str, Evidence]:
        """Test → its evidence in the basis as stored."""
        return {e.test: e for e in self.evidence if e.basis == "identity"}

    def applied(self, test: str) -> Evidence | None:
        """That test's evidence in the basis as stored, if it was run."""
        evidence = self.by_test.get(test)
        return evidence if evidence is not None and evidence.applied else None

    @cached_property
    def deciding(self) -> tuple[Evidence, ...]:
        """What may decide: tests with a p-value whose null holds in the basis that they were run in."""
        return tuple(e for e in qualified(self.evidence) if may_decide(e))

    # Exact and re-encoded

    @cached_property
    def copies(self) -> tuple[Shared, ...]:
        """Tensors of B that hold A's values: exactly, re-encoded, or as the quantiser's own scales."""
        return tuple(f for f in self._counterparts if f.kind not in ("rounded", "scaled"))

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
    def whole(self) -> bool:
        """No pair differs and everything could be read, so the values of what was compared are the same."""
        return not self.differing and not self.undecoded

    @cached_property
    def scaled_only(self) -> bool:
        """Factors are all that differs in the pairs, and one side has nothing that the other lacks."""
        ours, theirs = {f.a for f in self.scaled}, {f.b for f in self.scaled}
        more_a = [t for t in self.missing_in_b if t.name not in ours]
        more_b = [t for t in self.missing_in_a if t.name not in theirs]
        shows = bool(self.shown) or any(not self.models.b.is_trivial(self.models.b.tensors[name]) for name in theirs)
        differ = any(p.b.name not in theirs for p in self.differing)
        return bool(theirs) and shows and not differ and not self.undecoded and (not more_a or not more_b)

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

    @cached_property
    def re_encoded(self) -> tuple[Shared, ...]:
        """Tensors that differ in encoding only."""
        return tuple(f for f in self.copies if f.kind == "re_encoded")

    @cached_property
    def equal_both_ways(self) -> bool:
        """Every tensor of either side has an equal on the other."""
        exact = self.applied("exact_sharing")
        return exact is not None and not exact.details["n_only_in_a"] and not exact.details["n_only_in_b"]

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
    def missing_in_a(self) -> tuple[Tensor, ...]:
        """Tensors of B, trivial ones aside, whose values are not in A."""
        return _missing(self.models.b, self.models.a, {f.b for f in self.copies})

    @cached_property
    def missing_in_b(self) -> tuple[Tensor, ...]:
        """Tensors of A, trivial ones aside, whose values are not in B."""
        same = self.applied("same_values")
        scales: Sequence[str] = same.details["scales_of_a"] if same else ()
        return _missing(self.models.a, self.models.b, {f.a for f in self.copies if f.kind != "parameter"} | {*scales})

    @cached_property
    def more(self) -> tuple[int, int]:
        """Tensors of A, and of B, beyond their equals on the other side, simple ones included, tied ones left out."""
        same = self.applied("same_values")
        scales: Sequence[str] = same.details["scales_of_a"] if same else ()
        otherwise = [f for f in self.copies if f.kind != "exact"]
        told = ({f.a for f in otherwise} | {*scales}, {f.b for f in otherwise})
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
        """True if what is missing lies outside the blocks (a head, a pooler) and there are blocks."""
        missing = (*self.missing_in_a, *self.missing_in_b)
        blocks = any(t.layer is not None for t in (*self.models.a.tensors.values(), *self.models.b.tensors.values()))
        return blocks and all(t.layer is None for t in missing)

    @cached_property
    def copies_unclear(self) -> bool:
        """Tensors of B hold A's values, but nothing says that they were learned."""
        return any(f.kind in ("exact", "re_encoded") for f in self.copies) and not self.shown

    @cached_property
    def equal_rows(self) -> Evidence | None:
        """Rows of B's token tables that are rows of A's value by value, where there are enough to be no accident."""
        looks = [e for e in self.evidence if e.test == "embeddings" and e.applied]
        best = max(looks, key=lambda e: int(e.details["rows_equal"]), default=None)
        return best if best is not None and best.details["rows_equal"] >= ROWS else None

    # Aligned

    @cached_property
    def log10_p(self) -> float | None:
        """The smallest deciding p-value, Bonferroni-corrected for how many looks could decide; None where none did."""
        values = [e.log10_p for e in self.deciding if e.log10_p is not None]
        return min(0.0, min(values) + math.log10(len(values))) if values else None

    @cached_property
    def decisive(self) -> bool:
        """The corrected p-value is small enough."""
        return self.log10_p is not None and self.log10_p <= LOG10_P

    @cached_property
    def weights(self) -> Evidence | None:
        """Cosines of matched tensors: in the basis as stored or, once the tests decide, in the one where they agree
        most."""
        looks = [e for e in self.evidence if e.test == "aligned_weights" and e.applied]
        if not self.decisive:
            looks = [e for e in looks if e.basis == "identity"]
        return max(looks, key=lambda e: e.effect or 0.0, default=None)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Blocks and parts as aligned_weights saw them in place."""
        return self.weights.regions if self.weights else ()

    @cached_property
    def found_regions(self) -> tuple[Region, ...]:
        """Blocks and parts that B has from A in the same place, once a deciding p-value is there."""
        if not self.decisive:
            return ()
        if self.tied_only:
            return tuple(r for r in self.regions if r.name == "embedding" and r.excess >= max(EFFECT, 6 * r.sd))
        units = next((e for e in self.deciding if e.test == "aligned_units"), None)
        by_units = {
            r.name
            for r in (units.regions if units else ())
            if r.hits >= EFFECT * r.channels
            and log10_p_hits(r.hits) + math.log10(len(units.regions if units else (r,))) <= LOG10_P
        }
        fitted = self.weights is not None and self.weights.details["withheld"] not in (None, MASKED)
        in_place = () if fitted else (r.name for r in self.regions if r.excess >= max(EFFECT, 6 * r.sd))
        found = {*in_place, *by_units}
        return tuple(r for r in self.regions if r.name in found)

    @cached_property
    def tied_only(self) -> bool:
        """Token tables agree, and nothing decides but tests of channels, which such a table ties to their places: what
        else agrees in place may do so by meaning."""
        tables = ("aligned_weights", "turned_tables")
        decided = [e for e in self.deciding if e.test not in tables and (e.log10_p or 0.0) <= LOG10_P]
        return not decided and tied(self.evidence)

    @cached_property
    def blocks(self) -> Mapping[Key, FoundBlock]:
        """Blocks and experts of B that were found in A, in place or anywhere."""
        return found_blocks(self.locating, self.found_regions, self.models.b) if self.decisive else {}

    @cached_property
    def locating(self) -> tuple[Evidence, ...]:
        """What may say which block is which: what may decide, and unit agreement in a basis that was fitted once a test
        that a fitted basis can't fool has decided there."""
        fitted = [e for e in self.evidence if e.basis != "identity"]
        real = {e.details["basis"] for e in fitted if may_decide(e) and (e.log10_p or 0.0) <= LOG10_P}
        units = (e for e in fitted if e.applied and e.test in ("unit_agreement", "head_agreement"))
        return (*self.deciding, *(e for e in units if e.details["basis"] in real and e not in self.deciding))

    @cached_property
    def maps(self) -> Maps | None:
        """Layers, experts and units as the test shows them that found most of B."""
        looks = [e for e in self.locating if e.matches and e.test != "head_agreement"]
        if not self.decisive or not looks:
            return None
        best = max(looks, key=self._mapped)
        # Of one basis, the test that tells runners-up speaks first: an FFN may be a mean of experts. Inputs under their
        # own numbers come second: blocks inserted with zero outputs have nothing else that could be found.
        first, *_ = [e for e in looks if e.basis == best.basis and e.test == "unit_agreement"] or [best]
        others = [e for e in looks if e is not first and e in (best, self._inputs(best.basis))]
        return maps([_unfitted(e) for e in (first, *others)], self.models)

    def _inputs(self, basis: str) -> Evidence | None:
        return next((e for e in self.locating if e.test == "aligned_units" and e.basis == basis), None)

    def _mapped(self, evidence: Evidence) -> tuple[int, bool, float]:
        """How much of B a test found where its basis was not fitted; as stored goes first."""
        fitted = evidence.details.get("left_out_of_p", ())
        found = [m for m in evidence.matches if m.name not in fitted and m.b in self.blocks]
        layers = {m.b[:2] for m in found if m.log10_p <= LOG10_P}
        return (len(layers), evidence.basis == "identity", sum(m.share for m in found))

    @cached_property
    def changes(self) -> Changes:
        """B minus A, measured when a reader of operations first asks. No rule of the verdict does."""
        aligned = self.decisive and self.weights is not None and self.weights.basis != "identity"
        untouched = {f.b for f in (*self.copies, *self.rounded)}
        found, scaled = measured(self.models, self.maps, untouched, aligned), {f.b for f in self.scaled}
        return replace(found, all=tuple(c for c in found.all if c.b.name not in scaled))

    @cached_property
    def absent(self) -> Absent:
        """Attention and FFNs of B that were looked for with power, where the rest was found, and are not there."""
        if not (self.decisive or self.shown):
            return Absent()
        copied = (f.b for f in self.copies)
        return absent_parts(self.models, self.evidence, self.locating, self.blocks, self.cosines, copied)

    @cached_property
    def absent_regions(self) -> tuple[Region, ...]:
        """Parts outside the blocks that were tested in place with power and are not shared there."""
        return absent_outside(self.models, self.regions, {r.name for r in self.found_regions})

    @cached_property
    def absent_beside_found(self) -> tuple[str, ...]:
        """Absent parts in a stack of which others were found: a stack of its own beside it (a tower, a decoy) makes the
        rest no less shared."""
        return self.absent.beside({key[0] for key in self.blocks})

    @cached_property
    def more_experts_only(self) -> bool:
        """What is absent are experts that B has beside others which hold the dense FFN of A's block: a mean of experts
        may hold next to nothing of one of them."""
        dense = {key[:2] for key, block in self.blocks.items() if key[2] is not None and block.a[2] is None}
        names = self.absent_beside_found
        return bool(names) and all(any(n.startswith(f"{s}.{at}.expert.") for s, at in dense) for n in names)

    @cached_property
    def deeper_only(self) -> bool:
        """What is absent are whole layers that B has beyond A's, all of which were found: the same pair the other way
        round has nothing absent, since A dropped them or B was grown."""
        for stack in {key[0] for key in self.blocks}:
            sources = {(block.a[0], block.a[1]) for key, block in self.blocks.items() if key[0] == stack}
            ours = {t.layer for t in self.models.a.tensors.values() if t.stack in {s for s, _ in sources}} - {None}
            theirs = {t.layer for t in self.models.b.tensors.values() if t.stack == stack} - {None}
            if len(theirs) <= len(ours) or {layer for _, layer in sources} != ours:
                return False
        return not any(".expert." in name for name in self.absent_beside_found)

    @cached_property
    def heads(self) -> Mapping[tuple[str, int], float]:
        """(stack, block) of B → the share of its attention heads that were found: by a test of heads that decides, else
        in the block of A that its hidden units name."""
        if not self.decisive:
            return {}
        there = {key[:2]: block.a[:2] for key, block in self.blocks.items() if block.test not in OF_HEADS}
        heads = [e for e in self.locating if e.test == "head_agreement"]
        beside = [m for e in heads for m in e.matches if there.get(m.b[:2]) == m.a[:2] and m.log10_p <= BESIDE_LOG10_P]
        # In a basis that is real, what both products of a head name alike says which is which.
        sure = [e for e in heads if min(e.log10_p or 0.0, e.details["log10_p_agreement"]) <= LOG10_P]
        alone = [m for e in self.deciding if e.test == "turned_attention" for m in e.matches if m.log10_p <= LOG10_P]
        return found_heads(beside) | found_heads(m for e in sure for m in e.matches) | found_heads(alone)

    @cached_property
    def cosines(self) -> Mapping[str, float]:
        """B's tensor → its centred cosine in place."""
        return self.weights.details["cosines"] if self.weights else {}

    @cached_property
    def share(self) -> Share:
        """Parameters of B found in A, by tensor; trivial and untested ones widen the interval."""
        if self.equal_both_ways:
            return Share(1.0, 1.0, 1.0)
        copied = {f.b for f in (*self.copies, *self.scaled)}
        absent = (*self.absent.tensors, *(name for region in self.absent_regions for name in region.tensors))
        return share_of(
            self.models, copied, self._rows, self.found_regions, self.cosines, self.blocks, self.heads, absent
        )

    @cached_property
    def units_only(self) -> bool:
        """Hidden units decide although no matrix of the blocks could be compared channel by channel."""
        units = self.applied("aligned_units")
        return self.decisive and not self.regions and units is not None and (units.effect or 0.0) >= EFFECT

    @cached_property
    def training(self) -> Evidence | None:
        """Common training or only a common initialisation: as stored, else in the first basis in which it could be
        asked."""
        return next((e for e in self.evidence if e.test == "training_shared" and e.applied), None)

    @cached_property
    def initialisation_only(self) -> bool:
        """What was found may be a common random initialisation and no more, as far as the weights tell."""
        return self.training is not None and self.training.details["reads_as"] == "shared_initialisation"

    @cached_property
    def equal_gains(self) -> tuple[str, ...]:
        """Norm gains and biases of B that are A's bit for bit. They start constant, so this is training."""
        tensors = self.models.b.tensors
        exact = (f.b for f in self.copies if f.kind == "exact")
        return tuple(name for name in exact if (role := tensors[name].role) is not None and role.part == "norm")

    @cached_property
    def initialisation_open(self) -> bool:
        """One common random initialisation, trained apart, is not ruled out: neither by equal values nor by two looks
        that read as descent."""
        descent = self.training is not None and self.training.details["reads_as"] == "descent"
        return not (self.shown or self.equal_gains or (descent and self._gains is not None))

    @cached_property
    def descent_open(self) -> bool:
        """What reads as a common initialisation may also be what long training left of descent."""
        return self._gains is None or self._gains > DISTANT_GAINS

    @property
    def _gains(self) -> float | None:
        return None if self.training is None else self.training.details["gains"]

    @cached_property
    def _rows(self) -> Mapping[str, float]:
        """B's token tables → the part of their rows that is A's."""
        tensors = self.models.b.tensors
        turned = {name: self.turned_tables.get(t.place.role, 0.0) for name, t in tensors.items() if t.place is not None}
        found = self.equal_rows.found if self.equal_rows else ()
        equal = {f.b: f.numel / max(tensors[f.b].numel, 1) for f in found}
        return {name: share for name, share in turned.items() if share > 0} | equal

    @cached_property
    def turned_tables(self) -> Mapping[str, float]:
        """B's token tables (by role) that are A's in another basis → the share of the rows looked for."""
        found = (e.details["tables"] for e in self.deciding if e.test == "turned_tables")
        return next(found, {}) if self.decisive else {}

    # Power

    @cached_property
    def lacks(self) -> tuple[str, ...]:
        """Why silence would not be "no evidence": what was not looked for, or not sharply enough. Empty: it was."""
        out: list[str] = []
        for side in (self.models.a, self.models.b):
            label, matrices = side.label.upper(), [t for t in side.tensors.values() if t.rank2]
            placed = sum(t.numel for t in matrices if t.place is not None and t.layer is not None)
            whole = sum(t.numel for t in matrices if t.place is None or t.layer is not None)
            if 2 * placed <= whole or not placed:
                out.append(f"most of {label} lies in tensors whose role is not known")
        if self.models.effort == "quick":
            out.append("quick effort looks at units of the same number only, and at no alignment")
        for question, tests in QUESTIONS.items():
            looks = [e for e in self.evidence if e.test in tests and e.applied and e in self._own_basis]
            if not any((e.detectable or 0.0) <= DETECTABLE for e in looks):
                out.append(f"{question}: {self._why(tests[-1])}")
        return (*out, *withheld(self.evidence))

    @property
    def _own_basis(self) -> list[Evidence]:
        """Tests as stored, and those that look for a basis themselves."""
        return [e for e in self.evidence if e.basis == "identity" or e.test in OWN_BASIS]

    def _why(self, test: str) -> str:
        evidence = next((e for e in self._own_basis if e.test == test), None)
        if test in OWN_BASIS:
            return f"one could be hidden there ({evidence.why_not or evidence.says if evidence else 'not looked for'})"
        if evidence is None:
            return f"{test} was not run"
        if not evidence.applied:
            return f"{test} could not be run: {evidence.why_not}"
        return f"{test} would not have seen an effect below {evidence.detectable or 0.0:.2f}"


def _unfitted(evidence: Evidence) -> Evidence:
    """Without matches on blocks that its basis was fitted on."""
    fitted = evidence.details.get("left_out_of_p", ())
    kept = {key: tuple(m for m in getattr(evidence, key) if m.name not in fitted) for key in ("matches", "others")}
    return replace(evidence, matches=kept["matches"], others=kept["others"])


def _missing(side: Side, other: Side, covered: set[str]) -> tuple[Tensor, ...]:
    # Of the other side, and of tied tensors that are stored twice.
    equal = {(t.dtype, t.shape, t.digest) for t in other.tensors.values()}
    equal |= {(t.dtype, t.shape, t.digest) for name in covered if (t := side.tensors[name])}
    left = [
        t
        for t in side.tensors.values()
        if t.digest is not None and t.name not in covered and (t.dtype, t.shape, t.digest) not in equal
    ]
    return tuple(t for t in left if not side.is_trivial(t))
