"""The evidence, reduced to what the rules of :mod:`weightprint.verdict` ask, and the numbers they compare it with.

The numbers come from outside the cases that the rules are tested on:

* ``LOG10_P`` = -6: at one false alarm in a million pairs, an auditor who compares 1,000 models with each other
  (500,000 pairs) expects half a false alarm. The p-value is Bonferroni-corrected over the tests that may decide, over
  blocks and over pairings.
* ``EFFECT`` = .1: strangers' double-centred cosine is within 4/sqrt(mn), .02 for a block of a few 64 x 64 matrices
  and .001 for language models; continued pre-training leaves cosines of .1 to .95. A tiny p
  with a tiny effect is a broken assumption until shown otherwise, and decides nothing.
* ``ABSENT`` = .02: a block counts as not shared only if a cosine of .02 would have stood five null deviations out,
  and its cosine is below that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from weightprint.evidence._base import Evidence, Models, Region, Shared, Side, Tensor
from weightprint.evidence._exchange import log10_p_hits

__all__ = ["ABSENT", "DECIDING", "EFFECT", "LOG10_P", "NOT_TRIED", "Facts", "Share"]

LOG10_P = -6.0
EFFECT = 0.1
ABSENT = 0.02

#: The tests whose p-values may decide. The others are shown and never decide.
DECIDING = ("aligned_weights", "aligned_units")

NOT_TRIED = (
    "permuted or rotated residual channels, permuted hidden units or heads, layers in another order, other hidden "
    "sizes, "
    "experts made from dense blocks"
)


@dataclass(frozen=True, slots=True)
class Share:
    """Fraction of B's parameters found in A: what was found, and at most this plus what was not tested."""

    value: float | None
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Facts:
    """The evidence, reduced to what the rules ask. Each property reads one or two tests and nothing else."""

    models: Models
    by_test: Mapping[str, Evidence]

    def applied(self, test: str) -> Evidence | None:
        """That test's evidence if it was run."""
        evidence = self.by_test.get(test)
        return evidence if evidence is not None and evidence.applied else None

    # Exact and re-encoded

    @cached_property
    def copies(self) -> tuple[Shared, ...]:
        """Tensors of B that hold A's values: exactly, re-encoded, or as the quantiser's own scales."""
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
    def missing_in_a(self) -> tuple[Tensor, ...]:
        """Tensors of B, trivial ones aside, whose values are not in A."""
        return _missing(self.models.b, self.models.a, {f.b for f in self.copies})

    @cached_property
    def missing_in_b(self) -> tuple[Tensor, ...]:
        """Tensors of A, trivial ones aside, whose values are not in B."""
        return _missing(self.models.a, self.models.b, {f.a for f in self.copies if f.kind != "parameter"})

    @cached_property
    def complete(self) -> bool:
        """Nothing but trivial tensors is missing on either side."""
        return not self.missing_in_a and not self.missing_in_b

    @cached_property
    def missing_outside_blocks_only(self) -> bool:
        """True if what is missing lies outside the blocks (a head, a pooler) and there are blocks."""
        missing = (*self.missing_in_a, *self.missing_in_b)
        blocks = any(t.layer is not None for t in (*self.models.a.tensors.values(), *self.models.b.tensors.values()))
        return blocks and all(t.layer is None for t in missing)

    # Aligned

    @cached_property
    def log10_p(self) -> float | None:
        """The smallest deciding p-value, Bonferroni-corrected for how many tests could decide and did apply."""
        values = [e.log10_p for test in DECIDING if (e := self.applied(test)) and e.log10_p is not None]
        return min(0.0, min(values) + math.log10(len(values))) if values else None

    @cached_property
    def decisive(self) -> bool:
        """The corrected p-value is small enough."""
        return self.log10_p is not None and self.log10_p <= LOG10_P

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Blocks and parts as aligned_weights saw them."""
        weights = self.applied("aligned_weights")
        return weights.regions if weights else ()

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
    def units_only(self) -> bool:
        """Hidden units decide although no matrix of the blocks could be compared channel by channel."""
        units = self.applied("aligned_units")
        return self.decisive and not self.regions and units is not None and (units.effect or 0.0) >= EFFECT

    @cached_property
    def absent_regions(self) -> tuple[Region, ...]:
        """Parts that were tested with power and are not shared in place."""
        found = {r.name for r in self.found_regions}
        return tuple(r for r in self.regions if r.name not in found and r.detectable < ABSENT and r.effect < ABSENT)

    @cached_property
    def absent_blocks(self) -> tuple[Region, ...]:
        """Those of them that are blocks."""
        return tuple(r for r in self.absent_regions if r.layer is not None)

    @cached_property
    def share(self) -> Share:
        """Parameters of B found in A, by tensor; trivial and untested ones widen the interval."""
        b = self.models.b
        total = max(b.numel, 1)
        weights = self.applied("aligned_weights")
        cosines: Mapping[str, float] = weights.details["cosines"] if weights else {}
        found = {f.b for f in self.copies}
        found |= {name for r in self.found_regions for name in r.tensors if cosines.get(name, 0.0) >= EFFECT}
        if self.equal_both_ways:
            found = set(b.tensors)
        absent = {name for r in self.absent_regions for name in r.tensors} - found
        low = sum(b.tensors[name].numel for name in found) / total
        gone = sum(b.tensors[name].numel for name in absent) / total
        if not found:
            return Share(None, 0.0, 1.0)
        return Share(low, low, max(low, 1.0 - gone))


def _missing(side: Side, other: Side, covered: set[str]) -> tuple[Tensor, ...]:
    equal = {(t.dtype, t.shape, t.digest) for t in other.tensors.values()}
    copied = {
        (t.dtype, t.shape, t.digest) for name in covered if (t := side.tensors[name])
    }  # tied tensors, stored twice
    left = [
        t for t in side.tensors.values() if t.name not in covered and (t.dtype, t.shape, t.digest) not in equal | copied
    ]
    return tuple(t for t in left if not side.is_trivial(t))
