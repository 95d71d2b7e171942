"""Two models as the tests see them: their paired tensors and the basis in which B is compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from weightprint.evidence.budget import Budget, budget_for
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32, I64
from weightprint.util.linear_algebra import product


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of A and the tensor of B that is compared with it. ``by`` says how they were brought together."""

    a: Tensor
    b: Tensor
    transposed: bool = False
    by: Literal["name", "place", "stem", "digest", "values"] = "name"

    @property
    def by_name(self) -> bool:
        """True when no value was looked at to bring the two together."""
        return self.by in ("name", "place", "stem")

    @property
    def turned(self) -> bool:
        """One file holds it (in x out) and the other (out x in), as far as shapes and places tell."""
        return (self.a.stored_turned != self.b.stored_turned) != self.transposed

    @property
    def known(self) -> Tensor:
        """The side whose place is known: A's, unless only B's is."""
        return self.b if self.a.place is None and self.b.place is not None else self.a


@dataclass(frozen=True)
class Basis:
    """How B's residual channels are written in A's: a row vector x over B's channels becomes ``x @ matrix`` or, for a
    signed permutation, ``signs * x[channels]``.

    Attributes:
        kind: ``"identity"``, ``"signed_permutation"`` or ``"rotation"``.
        found_by: what it was found from, in a few words.
        channels: for A's channel j the number of B's channel, -1 where B has none; int64 (d_a,).
        signs: +1, -1, or 0 where B has none; float32 (d_a,).
        matrix: orthogonal, or with orthonormal rows or columns where the widths differ; float32 (d_b, d_a).
        fitted: regions of B (names as `Ffn.name` or a role) that it was fitted on: their agreement proves nothing.
        semantic: it was found through shared tokens, so it also aligns strangers that learned from the same data.
        candidates: how many alignments were open to choice; p-values found through it pay log10 of that.
        scores: what the search saw, for the report.
    """

    kind: Literal["identity", "signed_permutation", "rotation"] = "identity"
    found_by: str = "as stored"
    channels: I64 | None = field(default=None, repr=False)
    signs: F32 | None = field(default=None, repr=False)
    matrix: F32 | None = field(default=None, repr=False)
    fitted: frozenset[str] = frozenset()
    semantic: bool = False
    candidates: int = 1
    scores: Mapping[str, float] = field(default_factory=dict)

    def saw(self, name: str) -> bool:
        """Whether it was fitted on this FFN or on another expert of its block: experts are often copies of one FFN."""
        block = name.partition(".expert.")[0]
        return any(region.partition(".expert.")[0] == block for region in self.fitted)

    def fits(self, d_b: int, d_a: int) -> bool:
        """Whether rows of this length can be taken to rows of that one."""
        if self.matrix is not None:
            return self.matrix.shape == (d_b, d_a)
        if self.channels is None:
            return d_a == d_b
        return self.channels.size == d_a and int(self.channels.max(initial=-1)) < d_b

    def to_a(self, x: F32) -> F32:
        """Rows over B's residual channels (…, d_b) → rows over A's (…, d_a), float32."""
        if self.matrix is not None:
            turned: F32 = product(x, self.matrix)
            return turned
        if self.channels is None:
            return x
        signs = np.ones(self.channels.size, np.float32) if self.signs is None else self.signs
        picked: F32 = np.where(self.channels >= 0, x[..., self.channels], np.float32(0)) * signs
        return picked


IDENTITY = Basis()

#: A stack and the number of a block in it.
Block = tuple[str, int]


@dataclass(frozen=True)
class ModelPair:
    """What a test is given.

    ``log10_pairings``: how many pairings were open to a choice that looked at values. ``basis``: how B's residual
    channels are written in A's. ``settled``: blocks of B that were found in A's blocks of the same place
    (:mod:`weightprint.evidence.lookup.settled`); None while that is not known. ``collectors``: what was looked at while
    the models streamed by (:mod:`weightprint.evidence.streamed`). ``one_file``: both are the same files, which tells
    that they are equal where no digest was taken.
    """

    a: ModelView
    b: ModelView
    pairs: tuple[Pair, ...]
    log10_pairings: float = 0.0
    seed: int = 0
    effort: str = "standard"
    basis: Basis = IDENTITY
    settled: frozenset[Block] | None = frozenset()
    collectors: list[Any] = field(default_factory=list, repr=False)
    one_file: bool = False

    @cached_property
    def budget(self) -> Budget:
        """What the effort allows for these two models."""
        return budget_for(self.effort, self.a, self.b)

    def multiplicity(self, pairs: Iterable[Pair]) -> float:
        """What a p-value on these pairs must pay for the pairing, in log10: nothing if any of them met by name."""
        return 0.0 if any(pair.by_name for pair in pairs) else self.log10_pairings
