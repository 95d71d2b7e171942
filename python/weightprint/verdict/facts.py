"""The evidence, reduced to what the rules of :mod:`weightprint.verdict.rules` ask.

Weighing reads no file: :func:`gathered` asks the models beforehand for the little that only values can tell.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from weightprint.evidence.aligned_weights import AlignedWeights
from weightprint.evidence.evidence import Evidence, Region
from weightprint.evidence.head_agreement import HeadAgreement
from weightprint.evidence.lookup.turned_parts import TurnedParts
from weightprint.evidence.nulls.exchange import log10_p_hits
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.test import NEEDS
from weightprint.evidence.tests import BASIS_FREE, DECIDING, IN_ANY_BASIS, OF_HEADS
from weightprint.evidence.thresholds import FITTED_EFFECT
from weightprint.evidence.training_shared import TrainingShared
from weightprint.fingerprint.ffns import ffns
from weightprint.verdict.absent_parts import Absent, absent_outside, absent_parts
from weightprint.verdict.copied import Copied
from weightprint.verdict.found_blocks import FoundBlock, Key, found_blocks, found_heads, parts_of, share_of
from weightprint.verdict.maps import Maps, maps
from weightprint.verdict.thresholds import BESIDE_LOG10_P, DISTANT_GAINS
from weightprint.verdict.values import Share
from weightprint.verdict.withheld import MASKED, qualified, tied


def may_decide(evidence: Evidence) -> bool:
    """Its p-value can carry a verdict. In a basis that was fitted, by us or by who turned the stream onto A's before,
    tests whose null that breaks give none."""
    e = evidence
    fitted = e.basis != "identity" or e.test == "convergence"
    enough = not fitted or (e.test in IN_ANY_BASIS and (e.effect or 0.0) >= FITTED_EFFECT)
    return e.applied and e.test in DECIDING and e.log10_p is not None and enough


@dataclass(frozen=True)
class Facts(Copied):
    """The pair and its evidence, with what the rules ask of copies (see :class:`Copied`) and of what agrees."""

    @cached_property
    def deciding(self) -> tuple[Evidence, ...]:
        """What may decide: tests with a p-value whose null holds in the basis that they were run in."""
        return tuple(e for e in qualified(self.evidence) if may_decide(e))

    @cached_property
    def log10_p(self) -> float | None:
        """The smallest deciding p-value, Bonferroni-corrected for how many looks could decide; None where none did."""
        values = [e.log10_p for e in self.deciding if e.log10_p is not None]
        return min(0.0, min(values) + math.log10(len(values))) if values else None

    @cached_property
    def decisive(self) -> bool:
        """The corrected p-value is small enough."""
        return self.log10_p is not None and self.log10_p <= self.limits.log10_p

    @cached_property
    def weights(self) -> Evidence | None:
        """Cosines of matched tensors: in the basis as stored or, once the tests decide, in the one where they agree
        most."""
        answers = [e for e in self.evidence if e.test == "aligned_weights" and e.applied]
        if not self.decisive:
            answers = [e for e in answers if e.basis == "identity"]
        return max(answers, key=lambda e: e.effect or 0.0, default=None)

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
            return tuple(r for r in self.regions if r.name == "embedding" and self._clear(r))
        units = next((e for e in self.deciding if e.test == "aligned_units"), None)
        by_units = {
            r.name
            for r in (units.regions if units else ())
            if r.hits >= self.limits.effect * r.channels
            and log10_p_hits(r.hits) + math.log10(len(units.regions if units else (r,))) <= self.limits.log10_p
        }
        fitted = self.weights is not None and self.weights.withheld not in (None, MASKED)
        in_place = () if fitted else (r.name for r in self.regions if self._clear(r))
        found = {*in_place, *by_units}
        return tuple(r for r in self.regions if r.name in found)

    def _clear(self, region: Region) -> bool:
        """It agrees in place by more than an effect, and by more than chance leaves."""
        return region.excess >= max(self.limits.effect, 6 * region.sd)

    @cached_property
    def tied_only(self) -> bool:
        """Token tables agree, and nothing decides but tests of channels, which such a table ties to their places: what
        else agrees in place may do so by meaning."""
        tables = ("aligned_weights", "turned_tables")
        decided = [e for e in self.deciding if e.test not in tables and (e.log10_p or 0.0) <= self.limits.log10_p]
        return not decided and tied(self.evidence)

    @cached_property
    def blocks(self) -> Mapping[Key, FoundBlock]:
        """Blocks and experts of B that were found in A, in place or anywhere."""
        return (
            found_blocks(self.locating, self.found_regions, self.models.b, self.limits.effect) if self.decisive else {}
        )

    @cached_property
    def locating(self) -> tuple[Evidence, ...]:
        """What may say which block is which: what may decide, and unit agreement in a basis that was fitted once a test
        that a fitted basis can't fool has decided there."""
        fitted = [e for e in self.evidence if e.basis != "identity"]
        real = {e.found_by for e in fitted if may_decide(e) and (e.log10_p or 0.0) <= self.limits.log10_p}
        units = (e for e in fitted if e.applied and e.test in ("unit_agreement", "head_agreement"))
        return (*self.deciding, *(e for e in units if e.found_by in real and e not in self.deciding))

    @cached_property
    def maps(self) -> Maps | None:
        """Layers, experts and units as the test shows them that found most of B."""
        answers = [e for e in self.locating if e.matches and e.test != "head_agreement"]
        if not self.decisive or not answers:
            return None
        best = max(answers, key=self._mapped)
        # Of one basis, the test that tells runners-up speaks first: an FFN may be a mean of experts. Inputs under their
        # own numbers come second: blocks inserted with zero outputs have nothing else that could be found.
        first, *_ = [e for e in answers if e.basis == best.basis and e.test == "unit_agreement"] or [best]
        others = [e for e in answers if e is not first and e in (best, self._inputs(best.basis))]
        return maps([_unfitted(e) for e in (first, *others)], self.models, self.limits.log10_p)

    def _inputs(self, basis: str) -> Evidence | None:
        return next((e for e in self.locating if e.test == "aligned_units" and e.basis == basis), None)

    def _mapped(self, evidence: Evidence) -> tuple[int, bool, float]:
        """How much of B a test found where its basis was not fitted; as stored goes first."""
        fitted = evidence.left_out_of_p
        found = [m for m in evidence.matches if m.name not in fitted and m.b in self.blocks]
        layers = {m.b[:2] for m in found if m.log10_p <= self.limits.log10_p}
        return (len(layers), evidence.basis == "identity", sum(m.share for m in found))

    @cached_property
    def absent(self) -> Absent:
        """Attention and FFNs of B that were looked for with power, where the rest was found, and are not there."""
        if not (self.decisive or self.shown):
            return Absent()
        copied = (f.b for f in (*self.copies, *self.reordered))
        return absent_parts(self.models, self.evidence, self.locating, self.blocks, self.cosines, copied)

    @cached_property
    def absent_regions(self) -> tuple[Region, ...]:
        """Parts outside the blocks that were tested in place with power and are not shared there; none where only tests
        that need no common basis found B's blocks, since the stream may be turned."""
        if self.blocks and not self.found_regions and all(b.test in BASIS_FREE for b in self.blocks.values()):
            return ()
        return absent_outside(self.models, self.regions, {r.name for r in self.found_regions})

    @cached_property
    def absent_beside_found(self) -> tuple[str, ...]:
        """Absent parts in a stack of which others were found: a stack of its own beside it (a tower, a decoy) makes the
        rest no less shared."""
        return self.absent.beside({key[0] for key in self.blocks})

    @cached_property
    def open_beside_found(self) -> bool:
        """Only what fingerprints keep was looked at, and blocks beside those found were not: the weights might show
        them, or that they are not there."""
        kept = any((e.why_not or "").startswith(NEEDS) for e in self.evidence)
        stacks = {key[0] for key in self.blocks}
        blocks = {(f.stack, f.block) for f in ffns(self.models.b) if f.stack in stacks}
        return kept and not blocks <= {key[:2] for key in self.blocks}

    @cached_property
    def stacks(self) -> Mapping[str, Literal["found", "in part", "absent", "open"]]:
        """B's stacks of blocks: whether their blocks were found in A, in part, all looked for with power and absent, or
        neither."""
        out: dict[str, Literal["found", "in part", "absent", "open"]] = {}
        keys: dict[str, set[Key]] = defaultdict(set)
        for f in ffns(self.models.b):
            keys[f.stack].add(f.key)
        ours, theirs = ({(f.stack, f.width) for f in ffns(side)} for side in (self.models.a, self.models.b))
        for stack, every in keys.items():
            found, gone = any(key[0] == stack for key in self.blocks), every & self.absent.ffns
            # Of another width it was looked for in A's other stacks only, and may be A's, made narrower.
            comparable = stack not in {s for s, _ in ours} or any(s == stack for s, _ in ours & theirs)
            out[stack] = ("in part" if gone else "found") if found else "open"
            if not found and gone == every and comparable:
                out[stack] = "absent"
        return out

    @cached_property
    def exchanged(self) -> tuple[str, ...]:
        """Stacks that both models have, of which nothing of A's is in B while another stack was found: towers of some
        other model. What stands beside all of A's stacks (a decoy) is none."""
        ours = {f.stack for f in ffns(self.models.a)} - {block.a[0] for block in self.blocks.values()}
        return tuple(s for s, how in self.stacks.items() if how == "absent" and s in ours) if self.blocks else ()

    @cached_property
    def more_experts_only(self) -> bool:
        """What is absent are experts that B has beside others: those which hold the dense FFN of A's block (a mean of
        experts may hold next to nothing of one of them), or all that A's block has (the same pair the other way round
        has nothing absent, since A dropped them or B was grown)."""
        ours, found = defaultdict[tuple[str, int], set[Key]](set), defaultdict[tuple[str, int], set[Key]](set)
        for f in ffns(self.models.a):
            ours[f.key[:2]].add(f.key)
        for key, block in self.blocks.items():
            if key[2] is not None:
                found[key[:2]].add(block.a)
        dense = {at for at, sources in found.items() if any(a[2] is None for a in sources)}
        grown = dense | {at for at, sources in found.items() if any(ours[a[:2]] <= sources for a in sources)}
        names = self.absent_beside_found
        return bool(names) and all(any(n.startswith(f"{s}.{at}.expert.") for s, at in grown) for n in names)

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
        least = self.limits.log10_p
        sure = [e for e in heads if min(e.log10_p or 0.0, e.told(HeadAgreement).log10_p_agreement) <= least]
        alone = [m for e in self.deciding if e.test == "turned_attention" for m in e.matches if m.log10_p <= least]
        every = (beside, [m for e in sure for m in e.matches], alone)
        return {at: share for some in every for at, share in found_heads(some, self.limits.effect).items()}

    @cached_property
    def cosines(self) -> Mapping[str, float]:
        """B's tensor → its centred cosine in place."""
        return self.weights.told(AlignedWeights).cosines if self.weights else {}

    @cached_property
    def share(self) -> Share:
        """Parameters of B found in A, by tensor; trivial and untested ones widen the interval."""
        if self.equal_both_ways:
            return Share(1.0, 1.0, 1.0)
        absent = (*self.absent.tensors, *(name for region in self.absent_regions for name in region.tensors))
        return share_of(self.models, self.parts, absent)

    @cached_property
    def parts(self) -> Mapping[str, float]:
        """B's tensor → the part of it that was found in A, where anything was."""
        return parts_of(
            self.models,
            {f.b for f in (*self.copies, *self.scaled, *self.reordered)},
            self._rows,
            self.found_regions,
            {name for name, cosine in self.cosines.items() if cosine >= self.limits.effect},
            self.blocks,
            self.heads,
        )

    @cached_property
    def units_only(self) -> bool:
        """Hidden units decide although no matrix of the blocks could be compared channel by channel."""
        units = self.applied("aligned_units")
        return self.decisive and not self.regions and units is not None and (units.effect or 0.0) >= self.limits.effect

    @cached_property
    def training(self) -> Evidence | None:
        """Common training or only a common initialisation: as stored, else in the first basis in which it could be
        asked."""
        return next((e for e in self.evidence if e.test == "training_shared" and e.applied), None)

    @cached_property
    def initialisation_only(self) -> bool:
        """What was found may be a common random initialisation and no more, as far as the weights tell."""
        return self.training is not None and self.training.told(TrainingShared).reads_as == "shared_initialisation"

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
        descent = self.training is not None and self.training.told(TrainingShared).reads_as == "descent"
        return not (self.shown or self.equal_gains or (descent and self._gains is not None))

    @cached_property
    def descent_open(self) -> bool:
        """What reads as a common initialisation may also be what long training left of descent."""
        return self._gains is None or self._gains > DISTANT_GAINS

    @property
    def _gains(self) -> float | None:
        return None if self.training is None else self.training.told(TrainingShared).gains

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
        found = (e.told(TurnedParts).tables for e in self.deciding if e.test == "turned_tables")
        return next(found, {}) if self.decisive else {}


def gathered(models: ModelPair, evidence: Sequence[Evidence]) -> Facts:
    """The facts of a pair, with what is read of its values: which tensors without an equal are too simple to show
    anything."""
    facts = Facts(models, tuple(evidence))
    a, b = facts.beyond
    factors = () if facts.shown else facts.scaled
    a, b = (*a, *(models.a.tensors[f.a] for f in factors)), (*b, *(models.b.tensors[f.b] for f in factors))
    asked = {(side.label, t.name): (side, t) for side, ts in ((models.a, a), (models.b, b)) for t in ts}
    return replace(facts, simple=frozenset(key for key, (side, t) in asked.items() if side.is_trivial(t)))


def _unfitted(evidence: Evidence) -> Evidence:
    """Without matches on blocks that its basis was fitted on."""
    fitted = evidence.left_out_of_p
    kept = {key: tuple(m for m in getattr(evidence, key) if m.name not in fitted) for key in ("matches", "others")}
    return replace(evidence, matches=kept["matches"], others=kept["others"])
