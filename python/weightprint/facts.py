"""The evidence, reduced to what the rules of :mod:`weightprint.verdict` ask, and the numbers they compare it with.

The numbers come from outside the cases that the rules are tested on:

* ``LOG10_P`` = -6: at one false alarm in a million pairs, an auditor who compares 1,000 models with each other
  (500,000 pairs) expects half a false alarm. The p-value is Bonferroni-corrected over the tests that may decide, over
  blocks, over pairings and over the alignments that were tried.
* ``EFFECT`` = .1: strangers' double-centred cosine is within 4/sqrt(mn), .02 for a block of a few 64 x 64 matrices
  and .001 for language models; continued pre-training leaves cosines of .1 to .95. Of hidden units, strangers share
  none beyond chance. A tiny p with a tiny effect is a broken assumption until shown otherwise, and decides nothing.
* ``ABSENT`` = .02: a block counts as not shared in place only if a cosine of .02 would have stood five null deviations
  out, and its cosine is below that; of hidden units, if fewer than 5 % were found by a test that had power.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from weightprint.blocks import ABSENT_UNITS, EFFECT, FITTED_SHARE, FoundBlock, Key, Share, found_blocks, share_of
from weightprint.changes import Changes, measured
from weightprint.evidence._base import Evidence, Models, Region, Shared, Side, Tensor, UnitMatch
from weightprint.evidence._exchange import log10_p_hits
from weightprint.maps import Maps, maps

__all__ = ["ABSENT", "DECIDING", "DETECTABLE", "EFFECT", "LOG10_P", "Facts", "Share", "may_decide"]

LOG10_P = -6.0
ABSENT = 0.02

#: Equal rows of an embedding that make a part shared: each is tens of learned values, so a few would do.
ROWS = 32

#: "No evidence" may be said only where a descendant with an effect of this size would have been seen, a cosine or a
#: share of hidden units: what was not seen stands in the report beside it.
DETECTABLE = 0.25

#: What must have been asked with power before silence means anything, and the tests that ask it.
_QUESTIONS = (
    ("channels in place", ("aligned_weights",)),
    ("hidden units in any order and layer", ("unit_agreement",)),
    ("hidden units in a turned stream", ("unit_geometry", "alignment")),
)

#: The tests whose p-values may decide. The others are shown and never decide.
DECIDING = ("aligned_weights", "aligned_units", "unit_agreement", "unit_geometry", "head_agreement", "convergence")

#: Those whose null holds for strangers that learned from the same data: they may decide after an alignment by meaning.
AFTER_MEANING = ("head_agreement", "convergence")


def may_decide(evidence: Evidence) -> bool:
    """Its p-value can carry a verdict."""
    e = evidence
    return e.applied and e.test in DECIDING and e.log10_p is not None and (not e.semantic or e.test in AFTER_MEANING)


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
        return tuple(e for e in self.evidence if may_decide(e))

    # Exact and re-encoded

    @cached_property
    def copies(self) -> tuple[Shared, ...]:
        """Tensors of B that hold A's values: exactly, re-encoded, or as the quantiser's own scales."""
        return tuple(f for f in self._counterparts if f.kind != "rounded")

    @cached_property
    def rounded(self) -> tuple[Shared, ...]:
        """Tensors of B whose difference from A's is of the size that a quantiser's codes make, and no more is known."""
        return tuple(f for f in self._counterparts if f.kind == "rounded")

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
        return _missing(self.models.a, self.models.b, {f.a for f in self.copies if f.kind != "parameter"})

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
        units = self.applied("aligned_units")
        by_units = {
            r.name
            for r in (units.regions if units else ())
            if r.hits >= EFFECT * r.channels
            and log10_p_hits(r.hits) + math.log10(len(units.regions if units else (r,))) <= LOG10_P
        }
        return tuple(r for r in self.regions if r.excess >= max(EFFECT, 6 * r.sd) or r.name in by_units)

    @cached_property
    def blocks(self) -> Mapping[Key, FoundBlock]:
        """Blocks and experts of B that were found in A, in place or anywhere."""
        return found_blocks(self.locating, self.found_regions, self.models.b) if self.decisive else {}

    @cached_property
    def locating(self) -> tuple[Evidence, ...]:
        """What may say which block is which: what may decide, and unit agreement in a basis that was found by meaning
        once a test that such a basis can't fool has decided there."""
        real = {e.basis for e in self.deciding if e.semantic and (e.log10_p or 0.0) <= LOG10_P}
        units = (e for e in self.evidence if e.applied and e.semantic and e.test == "unit_agreement")
        return (*self.deciding, *(e for e in units if e.basis in real))

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
        return measured(self.models, self.maps, untouched, aligned)

    @cached_property
    def absent_regions(self) -> tuple[Region, ...]:
        """Parts that were tested with power and are not shared: not in place, nor any of their units anywhere."""
        found = {r.name for r in self.found_regions} | {f"{stack}.{layer}" for stack, layer, _ in self.blocks}
        return tuple(r for r in self.regions if r.name not in found and r.detectable < ABSENT and r.effect < ABSENT)

    @cached_property
    def absent_units(self) -> tuple[UnitMatch, ...]:
        """FFNs and experts of B whose units were looked for everywhere in A, with power, and not found."""
        units = self.applied("unit_agreement")
        if units is None or (units.detectable or 1.0) > DETECTABLE:
            return ()
        return tuple(m for m in units.matches if m.b not in self.blocks and m.share < ABSENT_UNITS)

    @cached_property
    def absent_blocks(self) -> tuple[str, ...]:
        """Names of B's blocks and experts that were looked for with power and not found."""
        in_place = [r.name for r in self.absent_regions if r.layer is not None]
        units = [
            f"{s}.{layer}" if e is None else f"{s}.{layer}.expert.{e}"
            for s, layer, e in (m.b for m in self.absent_units)
        ]
        return tuple(dict.fromkeys((*in_place, *units)))

    @cached_property
    def absent_beside_found(self) -> tuple[str, ...]:
        """Those in a stack of which other blocks were found: a stack of its own beside it (a tower, a decoy) makes the
        rest no less shared."""
        stacks = {key[0] for key in self.blocks}
        return tuple(name for name in self.absent_blocks if any(name.startswith(f"{stack}.") for stack in stacks))

    @cached_property
    def heads(self) -> Mapping[tuple[str, int], float]:
        """(stack, block) of B → the share of its attention heads that were found."""
        heads = self.applied("head_agreement")
        if heads is None or not self.decisive or (heads.log10_p or 0.0) > LOG10_P:
            return {}
        return {(m.b[0], m.b[1]): m.share for m in heads.matches}

    @cached_property
    def share(self) -> Share:
        """Parameters of B found in A, by tensor; trivial and untested ones widen the interval."""
        if self.equal_both_ways:
            return Share(1.0, 1.0, 1.0)
        cosines: Mapping[str, float] = self.weights.details["cosines"] if self.weights else {}
        copied = {f.b for f in self.copies}
        return share_of(
            self.models, copied, self._rows, self.found_regions, cosines, self.blocks, self.absent_regions,
            self.absent_units, self.heads,
        )  # fmt: skip

    @cached_property
    def units_only(self) -> bool:
        """Hidden units decide although no matrix of the blocks could be compared channel by channel."""
        units = self.applied("aligned_units")
        return self.decisive and not self.regions and units is not None and (units.effect or 0.0) >= EFFECT

    @cached_property
    def initialisation_only(self) -> bool:
        """What was found may be a common random initialisation and no more, as far as the weights tell."""
        training = self.applied("training_shared")
        return training is not None and training.details["reads_as"] == "shared_initialisation"

    @cached_property
    def _rows(self) -> Mapping[str, float]:
        """B's token tables → the part of their rows that is A's."""
        found = self.equal_rows.found if self.equal_rows else ()
        return {f.b: f.numel / max(self.models.b.tensors[f.b].numel, 1) for f in found}

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
        for question, tests in _QUESTIONS:
            looks = {test: self.applied(test) for test in tests}
            sharp = [e for e in looks.values() if e is not None and (e.detectable or 0.0) <= DETECTABLE]
            if not sharp:
                out.append(f"{question}: {self._why(tests[0])}")
        return tuple(out)

    def _why(self, test: str) -> str:
        evidence = self.by_test.get(test)
        if evidence is None:
            return f"{test} was not run"
        if not evidence.applied:
            return f"{test} could not be run: {evidence.why_not}"
        return f"{test} would not have seen an effect below {evidence.detectable or 0.0:.2f}"


def _unfitted(evidence: Evidence) -> Evidence:
    """Without weak matches on blocks that its basis was fitted on."""
    fitted = evidence.details.get("left_out_of_p", ())
    kept = {
        key: tuple(m for m in getattr(evidence, key) if m.name not in fitted or m.share >= FITTED_SHARE)
        for key in ("matches", "others")
    }
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
