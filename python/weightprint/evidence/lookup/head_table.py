"""Every head of B against every head of A, by each of a head's two products, block by block.

B's heads are kept as one sketch per product. Each block of A is then held against all of them, as it is and with its
channels in R other orders: a joint permutation of A's channels relates the two models as its inverse on B's would. Of
every block of A only the best head for each of B's is kept, so memory is two sketches of B, and what one block of A
gives.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from weightprint.evidence.lookup.heads import Kind, Sketch, factors, reads
from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.attentions import Attention
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.steps import Collector, Round, Step
from weightprint.util.arrays import F32, Indices
from weightprint.util.linear_algebra import product

_WHOLE = 1 << 24  # values of a latent matrix from which blocks are looked at one by one
_KINDS: tuple[Kind, ...] = ("qk", "vo")


@dataclass(frozen=True)
class Seen:
    """What one block of B showed.

    Attributes:
        alive: heads that do something.
        agreed: head of B, head of A (among all), cosines of the two products.
        named: heads of A that were agreed on, for A as it is and for every permuted copy.
        hits: heads of the same number in their block, likewise; in every copy the heads are put in a random order too.
        order: groups, heads per group.
    """

    attention: Attention
    alive: int
    agreed: list[tuple[int, int, float, float]]
    named: list[frozenset[int]]
    hits: list[int]
    order: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Best:
    """One block of A, for all heads of B: above what is usual, by arrangement; best value and the head that has it.

    ``above``, ``head``: by each product and by both together, (3, 1 + R, heads of B). ``cosine``: of the best as things
    are, by each product, (2, heads of B). ``reach``: largest absolute cosine as things are, likewise.
    """

    above: F32
    head: npt.NDArray[np.int32]
    cosine: F32
    reach: F32


@dataclass(eq=False)
class HeadTable(Collector):
    """All heads of these blocks of both models. ``orders``: of the channels, for copies of A."""

    models: ModelPair = field(repr=False)
    ours: Sequence[Attention]
    theirs: Sequence[Attention]
    channels: Indices
    dims: int
    orders: Sequence[Indices]

    def __post_init__(self) -> None:
        super().__init__()
        self._sketch = Sketch(self.channels.size, self.dims, self.models.seed, self.orders)
        self._of_b: dict[int, F32] = {}
        self._all_b: F32 = np.empty((2, 0, 0), np.float32)
        self._best: dict[int, _Best] = {}
        self._ends = np.cumsum([x.heads for x in self.theirs])
        self._one_by_one = threading.Lock()
        self.block = np.repeat(np.arange(len(self.ours)), [x.heads for x in self.ours])
        self.head = np.concatenate([np.arange(x.heads) for x in self.ours])

    @property
    def what(self) -> Hashable:
        """Blocks, channels, orders, seed and basis."""
        basis = self.models.basis
        blocks = [tuple((x.name, x.heads, x.kv_heads, *(t.name for t in x.parts.values())) for x in side)
                  for side in (self.ours, self.theirs)]  # fmt: skip
        budget = self.channels.tobytes(), self.dims, len(self.orders), self.models.seed
        return *blocks, budget, basis.kind, basis.found_by

    def rounds(self) -> list[Round]:
        """One round: keep the heads of every block of B, then hold each block of A against them."""
        theirs, ours = (
            [Step((x.stack, x.block), partial(look, i), reads(x, self.channels)) for i, x in enumerate(side)]
            for side, look in ((self.theirs, self._keep), (self.ours, self._look))
        )
        return [(theirs, ours)]

    def _sketched(self, side: ModelView, attention: Attention, copies: bool) -> F32:
        """Both products of a block's heads, (2, arrangements, heads, dims²)."""
        with self.room_for(attention):
            found = factors(self.models, side, attention, self.channels)
            return np.stack([self._sketch(found[kind], copies) for kind in _KINDS])

    def room_for(self, attention: Attention) -> AbstractContextManager[object]:
        """What to hold while a block is looked at: latent attention's large matrices, which are read whole, would fill
        the memory side by side."""
        return self._one_by_one if attention.latent is not None and attention.largest > _WHOLE else nullcontext()

    def _keep(self, i: int, side: ModelView) -> None:
        self._of_b[i] = self._sketched(side, self.theirs[i], copies=False)[:, 0]

    def turn(self) -> None:
        """Join B's heads into one table."""
        self._all_b = np.concatenate([self._of_b.pop(i) for i in range(len(self.theirs))], axis=1)

    def _look(self, i: int, side: ModelView) -> None:
        """All of B's heads, and one block of A."""
        attention = self.ours[i]
        sketched = self._sketched(side, attention, copies=True)
        alive = np.logical_and(*(kind[0].any(axis=1) for kind in sketched))
        starts = np.concatenate([[0], self._ends[:-1]])
        sizes = np.diff(np.concatenate([[0], self._ends]))
        cosines, above = [], []
        for mine, theirs in zip(sketched, self._all_b, strict=True):
            c: F32 = product(mine.reshape(-1, mine.shape[-1]), theirs.T).reshape(*mine.shape[:2], -1)
            # Some heads of A are near to everything: what one reaches on average over all copies and the heads of a
            # block is no likeness.
            usual = np.add.reduceat(c.sum(axis=0), starts, axis=1) / (len(c) * sizes)
            over = c - np.repeat(usual, sizes, axis=1).astype(np.float32)
            over[:, ~alive] = -np.inf
            cosines.append(c[0])
            above.append(over)
        together = above[0] + above[1]
        comparable = [(x.heads, x.kv_heads) == (attention.heads, attention.kv_heads) for x in self.theirs]
        together[:, :, ~np.repeat(comparable, sizes)] = -np.inf
        above.append(together)
        head = np.stack([x.argmax(axis=1) for x in above])
        self._best[i] = _Best(
            np.stack([x.max(axis=1) for x in above]),
            head.astype(np.int32),
            np.stack([np.take_along_axis(c, h[:1], axis=0)[0] for c, h in zip(cosines, head, strict=False)]),
            np.stack([np.abs(c).max(axis=0) for c in cosines]),
        )

    def seen(self) -> list[Seen]:
        """What each block of B showed, all of A's heads looked at."""
        found = [self._best[i] for i in range(len(self.ours))]
        above = np.stack([x.above for x in found])
        block = above.argmax(axis=0)
        there = np.take_along_axis(np.stack([x.head for x in found]), block[None], axis=0)[0]
        first = np.concatenate([[0], np.cumsum([x.heads for x in self.ours])])
        best = first[block] + there
        cosine = np.take_along_axis(np.stack([x.cosine for x in found]), block[None, :2, 0], axis=0)[0]
        dead = ~(np.stack([x.reach for x in found]).max(axis=0).min(axis=0) > 0)
        agree = (best[0] == best[1]) & ~dead
        comparable = above[:, 2].max(axis=0) > -np.inf
        out = []
        for attention, end in zip(self.theirs, self._ends.tolist(), strict=True):
            here = slice(end - attention.heads, end)
            agrees, named = agree[:, here], best[0][:, here]
            hits = [
                int(np.count_nonzero((self.head[nearest] == number) & can & ~dead[here]))
                for nearest, number, can in zip(
                    best[2][:, here], self._numbers(attention, len(agree)), comparable[:, here], strict=True
                )
            ]
            found_here = [
                (int(j), int(named[0, j]), float(cosine[0, here][j]), float(cosine[1, here][j]))
                for j in np.nonzero(agrees[0])[0]
            ]
            groups = attention.kv_heads
            out.append(
                Seen(
                    attention,
                    int(np.count_nonzero(~dead[here])),
                    found_here,
                    [frozenset(row[agreed].tolist()) for row, agreed in zip(named, agrees, strict=True)],
                    hits,
                    (groups, attention.heads // groups),
                )
            )
        return out

    def _numbers(self, attention: Attention, arrangements: int) -> list[Indices]:
        """Numbers of a block's heads, and for every copy as if groups, and heads within each group, stood in a random
        order; the same for all blocks of one form: copies stay copies."""
        groups, heads = attention.kv_heads, attention.heads
        rng = np.random.default_rng([self.models.seed, heads, groups, 12])
        out = [np.arange(heads)]
        for _ in range(arrangements - 1):
            order = rng.permutation(groups)
            inside = np.stack([rng.permutation(heads // groups) for _ in range(groups)])
            out.append((order[:, None] * (heads // groups) + inside).ravel())
        return out
