"""How much each residual channel of A looks like each of B, summed region by region: B's sampled rows are held, A's are
held against them (:mod:`weightprint.evidence.aligned_weights` says what for).

*Common directions.* A rank-1 matrix, or a direction of the stream, that was added to the matrices of two strangers
makes channels alike in place. So of each pair's product the few leading singular directions are taken out, A's on A's
side and B's on B's; that rule commutes with permutations of B's channels, as the bound wants, and leaves a descendant
the bulk.

*What a fit would reach* (:mod:`weightprint.evidence.nulls.fitted`) is measured in a few blocks: their products with
every row of B under a random sign, and what the best order of an FFN's units gives between other numbers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from weightprint.anatomy.place import Expert
from weightprint.evidence.budget import hidden_size
from weightprint.evidence.evidence import Region
from weightprint.evidence.exact_sharing import is_fixed, is_position
from weightprint.evidence.nulls.exchange import double_centre, trace_sd
from weightprint.evidence.nulls.fitted import against_order, best_turn
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import Read, pick, residual_axis, sampled
from weightprint.fingerprint.steps import Collector, Round, Step, Where, where
from weightprint.util import parallel
from weightprint.util.arrays import F32, Indices
from weightprint.util.linear_algebra import product, qr, unit_rows
from weightprint.util.ranges import evenly

_FEWEST = 32  # rows of a tensor
_COMMON = 4  # leading directions of a pair that are taken for something common
_ORDERED = 256  # rows that are put in the best order for that
_UNITS = ("up", "gate", "down")


@dataclass
class Block:
    """Sums over the pairs of one region."""

    c: F32
    norms_a: F32
    norms_b: F32
    n: int = 0
    layer: int | None = None
    cosines: dict[str, tuple[float, int]] = field(default_factory=dict)  # of B's tensors, and over how many values
    controls: list[float] = field(default_factory=list)
    turned: F32 | None = None  # C with a random sign for every row of B, of the pairs where that was asked
    turned_n: int = 0
    orders: list[float] = field(default_factory=list)  # of its FFN's matrices: what the best order elsewhere gives
    ffn: int = 0  # values of its FFN's matrices in n
    ffn_trace: float = 0.0  # and their part of the trace of C

    @classmethod
    def empty(cls, d: int, layer: int | None = None) -> Block:
        """Zero sums over ``d`` channels."""
        return cls(np.zeros((d, d), np.float32), np.zeros(d, np.float32), np.zeros(d, np.float32), layer=layer)

    def add(self, other: Block) -> None:
        """Add the other block's sums to these, in place."""
        self.c += other.c
        self.norms_a += other.norms_a
        self.norms_b += other.norms_b
        self.n += other.n
        self.cosines |= other.cosines
        self.controls += other.controls
        self.orders += other.orders
        self.ffn += other.ffn
        self.ffn_trace += other.ffn_trace
        if other.turned is not None:
            self.turned = other.turned if self.turned is None else self.turned + other.turned
            self.turned_n += other.turned_n

    @property
    def bulk(self) -> float:
        """Mean cosine in place, common directions taken out."""
        return float(np.trace(self.c)) / max(self.n, 1)

    @property
    def rest(self) -> float:
        """The same without its FFN's matrices."""
        return (float(np.trace(self.c)) - self.ffn_trace) / max(self.n - self.ffn, 1)

    def region(self, name: str, found: int) -> Region:
        """``found``: its hits."""
        cosines, weights = zip(*self.cosines.values(), strict=True) if self.cosines else ((), ())
        return Region(
            name=name,
            layer=self.layer,
            n=self.n,
            effect=float(np.average(cosines, weights=weights)) if cosines else 0.0,
            control=float(np.mean(self.controls)) if self.controls else 0.0,
            sd=trace_sd(self.c) / max(self.n, 1),
            hits=found,
            channels=self.c.shape[0],
            tensors=tuple(self.cosines),
        )


def channel_sums(models: ModelPair) -> Sums | None:
    """What this test does while the models stream by; needs their headers only. None where B's rows would take too
    much memory."""
    sums = planned(models)
    if isinstance(sums, str):
        return None
    held = 4 * sums.rows * sums.channels.size * sum(len(pairs) for pairs in sums.regions.values())
    return sums if held <= models.budget.held else None


def planned(models: ModelPair) -> Sums | str:
    """What is summed over, or why nothing is."""
    width = hidden_size(models.a, models.b)
    if width is None:
        return "no hidden size common to both models was found"
    if not models.basis.fits(width, width):
        return "the alignment is of a stream of another width"
    if width < 8:
        return f"a hidden size of {width} is too small to test"
    budget = models.budget
    usable, left_out = _usable(models, width)
    if not usable:
        return "no pair of matrices has equal shapes and a known residual axis"
    usable = _sample_layers(usable, budget.layers, left_out)
    usable = _sample_experts(usable, budget.matrices, left_out)
    channels = pick(width, budget.channels, models.seed, "channels")
    d = channels.size
    rows = min(budget.rows, int(budget.multiplications / (d * d * len(usable))))
    rows = max(_FEWEST, min(rows, int(budget.held_rows // (4 * d * len(usable)))))
    # Decided from names and shapes alone: with at least d named rows, channels can be told apart without values' help.
    named = sum(min(rows, pair.a.shape[1 - axis]) for pair, axis in usable if pair.by_name)
    multiplicity = 0.0 if named >= d else models.log10_pairings
    return Sums(models, width, _by_region(usable), channels, rows, multiplicity, left_out)


@dataclass(eq=False)
class Sums(Collector):
    """C, and the cosines, of every region: B's rows are held, A's are held against them.

    ``regions``: region → its pairs with the residual axis of A's orientation, blocks in depth order.
    """

    models: ModelPair = field(repr=False)
    width: int
    regions: Mapping[str, Sequence[tuple[Pair, int]]]
    channels: Indices
    rows: int
    multiplicity: float
    left_out: Mapping[str, str]

    def __post_init__(self) -> None:
        super().__init__()
        self._held: dict[str, F32] = {}
        self._uses: Counter[str] = Counter()
        self._before = self._befores()
        names = list(self.regions)
        self._asked = set(evenly(names, self.models.budget.fitted))
        for name in (*self._before.values(), *(pair.b.name for pair, _ in self._pairs())):
            self._uses[name] += 1
        self._found: dict[tuple[str, int], Block] = {}

    def _pairs(self) -> list[tuple[Pair, int]]:
        return [pair for pairs in self.regions.values() for pair in pairs]

    def _befores(self) -> dict[str, str]:
        """B's tensor → B's tensor of the same role, one layer before."""
        last: dict[tuple[str, str, Expert], Tensor] = {}
        found: dict[str, str] = {}
        for pair, _ in self._pairs():
            if pair.known.layer is not None:
                before = last.get(pair.known.key)
                if before is not None and before.shape == pair.b.shape:
                    found[pair.b.name] = before.name
                last[pair.known.key] = pair.b
        return found

    @property
    def what(self) -> Hashable:
        """Pairs, channels, rows and basis."""
        pairs = tuple((p.a.name, p.b.name, p.transposed, p.by_name, axis) for p, axis in self._pairs())
        basis = self.models.basis
        return (
            pairs,
            self.channels.tobytes(),
            self.rows,
            self.multiplicity > 0,
            self.models.seed,
            basis.kind,
            basis.found_by,
        )

    def rounds(self) -> list[Round]:
        """One round per block or part."""
        return [self._round(name, pairs) for name, pairs in self.regions.items()]

    def _round(self, name: str, pairs: Sequence[tuple[Pair, int]]) -> Round:
        theirs = [Step(where(p.b), partial(self._hold, p, axis), (self._read("b", p, axis),)) for p, axis in pairs]
        there: dict[Where, list[tuple[Pair, int]]] = defaultdict(list)
        for pair, axis in pairs:
            there[where(pair.a)].append((pair, axis))
        ours = [
            Step(place, partial(self._sum, (name, k), some), tuple(self._read("a", *one) for one in some))
            for k, (place, some) in enumerate(there.items())
        ]
        return theirs, ours

    def _read(self, label: str, pair: Pair, axis: int) -> Read:
        """Sampled rows of a tensor, the residual channels on either axis."""
        others = pick(pair.a.shape[1 - axis], self.rows, self.models.seed, str(pair.known.key))
        turned = label == "b" and self.models.basis.kind != "identity"
        channels = None if turned else self.channels
        tensor, last = (pair.a, axis == 1) if label == "a" else (pair.b, (axis == 1) != pair.transposed)
        return Read(tensor, others, channels) if last else Read(tensor, channels, others)

    def _rows(self, side: ModelView, pair: Pair, axis: int) -> F32:
        """(rows x channels), centred, unit mean square; zeros where there is nothing to compare."""
        read = self._read(side.label, pair, axis)
        last = (axis == 1) != (side.label == "b" and pair.transposed)
        x = sampled(side, read) if last else np.ascontiguousarray(sampled(side, read).T)
        if side.label == "b" and self.models.basis.kind != "identity":
            x = self.models.basis.to_a(x)[:, self.channels]
        x = double_centre(x)
        scale = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0
        return x / np.float32(scale) if 0 < scale < math.inf else np.zeros_like(x)

    def _hold(self, pair: Pair, axis: int, side: ModelView) -> None:
        self._held[pair.b.name] = self._rows(side, pair, axis)

    def _release(self, name: str) -> None:
        with self._adding:
            self._uses[name] -= 1
            if not self._uses[name]:
                del self._held[name]

    def _sum(self, key: tuple[str, int], pairs: Sequence[tuple[Pair, int]], side: ModelView) -> None:
        block = Block.empty(self.channels.size, pairs[0][0].known.layer)
        asked = key[0] in self._asked
        for part in parallel.each(lambda one: self._looked(side, *one, asked), pairs):
            block.add(part)
        self._found[key] = block

    def _looked(self, side: ModelView, pair: Pair, axis: int, asked: bool) -> Block:
        """What one pair adds; ``asked``: with what a fit would reach."""
        x, y = self._rows(side, pair, axis), self._held[pair.b.name]
        block = Block.empty(self.channels.size)
        before = self._before.get(pair.b.name)
        if x.shape[0] >= 2 and x.any() and y.any():
            c = product(x.T, y)
            block.cosines[pair.b.name] = float(np.trace(c)) / x.size, x.size
            # Pairs chosen by their values enter the p-value only where that pays for the choice.
            if pair.by_name or self.multiplicity > 0:
                self._add(block, c, x, y, pair, asked)
            earlier = self._held[before] if before is not None else None
            if earlier is not None and earlier.shape == x.shape and earlier.any():
                block.controls.append(float(np.vdot(x, earlier)) / x.size)
        self._release(pair.b.name)
        if before is not None:
            self._release(before)
        return block

    def _add(self, block: Block, c: F32, x: F32, y: F32, pair: Pair, asked: bool) -> None:
        """Both sides' rows without their common directions, of unit mean square again."""
        ours, theirs = _leading(c, min(_COMMON, c.shape[0] // 16), self.models.seed)
        left = c - product(product(c, theirs), theirs.T)
        left -= product(ours, product(ours.T, left))
        x, y = (z - product(product(z, common), common.T) for z, common in ((x, ours), (y, theirs)))
        norms = [np.einsum("ij,ij->j", z, z) for z in (x, y)]
        scales = [math.sqrt(float(z.sum()) / x.size) for z in norms]
        if not min(scales) > 0:
            return
        block.c, block.n = left / np.float32(scales[0] * scales[1]), x.size
        block.norms_a, block.norms_b = (z / np.float32(scale**2) for z, scale in zip(norms, scales, strict=True))
        role = None if pair.known.place is None else pair.known.place.role
        if role in _UNITS:
            block.ffn, block.ffn_trace = x.size, float(np.trace(block.c))
        if asked:
            signs = np.random.default_rng([self.models.seed, len(y), 8]).choice(np.array([-1, 1], np.float32), len(y))
            block.turned = product(x.T, y * signs[:, None]) / np.float32(scales[0] * scales[1])
            block.turned_n = x.size
            if role in _UNITS:
                some = slice(0, _ORDERED)
                units = max(pair.known.shape) if pair.known.shape[0] != pair.known.shape[1] else len(x)
                block.orders.append(against_order(product(unit_rows(x[some]), unit_rows(y[some]).T), units)[1])

    def floors(self, total: Block, blocks: Mapping[str, Block]) -> list[tuple[float, float]]:
        """How alike all matrices are in place, and all but those of FFNs, and those of every region; and what a turn
        and an order of units, both fitted to A, would make of each."""
        if total.turned is None or not total.turned_n:
            return []
        # A sum over n values of random sign grows as their root.
        turn = best_turn(total.turned) / math.sqrt(total.turned_n * max(total.n, 1))
        matrices = sum(1 for pair, _ in self._pairs() if pair.known.place and pair.known.place.role in _UNITS)
        gates = sum(1 for pair, _ in self._pairs() if pair.known.place and pair.known.place.role == "up")
        # One order must suit all matrices of an FFN.
        order = float(np.mean(total.orders)) / math.sqrt(max(1.0, matrices / max(gates, 1))) if total.orders else 0.0
        out = [
            (block.bulk, turn * math.sqrt(total.n / max(block.n, 1)) + order * block.ffn / max(block.n, 1))
            for block in (total, *blocks.values())
        ]
        if total.n > total.ffn > 0:
            out.append((total.rest, turn * math.sqrt(total.n / (total.n - total.ffn))))
        return out

    def blocks(self) -> Iterator[tuple[str, Block]]:
        """Every region's sums, in order."""
        for name, pairs in self.regions.items():
            block = Block.empty(self.channels.size, pairs[0][0].known.layer)
            for part in sorted(key for key in self._found if key[0] == name):
                block.add(self._found[part])
            yield name, block


def _leading(c: F32, k: int, seed: int) -> tuple[F32, F32]:
    """About the k leading left and right singular vectors, as columns, by subspace iteration."""
    if not k:  # of few channels none is common
        return np.empty((len(c), 0), np.float32), np.empty((len(c), 0), np.float32)
    right = product(c.T, np.random.default_rng([seed, len(c), 3]).standard_normal((len(c), k)).astype(np.float32))
    for _ in range(4):
        left = qr(product(c, right))[0]
        right = qr(product(c.T, left))[0]
    return left, right


def _usable(models: ModelPair, width: int) -> tuple[list[tuple[Pair, int]], dict[str, str]]:
    """Pairs with a known residual axis (of A's orientation), and why the other matrices are left out."""
    usable: list[tuple[Pair, int]] = []
    left_out: dict[str, str] = {}
    for pair in models.pairs:
        role = pair.known.role
        if not (pair.a.rank2 and pair.b.rank2):
            continue
        axis = residual_axis(pair.known if not pair.transposed else pair.a, width)
        if (role is not None and role.part == "fixed") or is_position(pair.known):
            left_out[pair.b.name] = "positions or another fixed table"
        elif axis is None:
            left_out[pair.b.name] = "no axis is surely the residual stream"
        elif (
            pair.a.digest is not None
            and pair.a.digest == pair.b.digest
            and (role is None or is_fixed(models.a, pair.a))
        ):
            left_out[pair.b.name] = "equal in both, and maybe a fixed table"
        elif pair.a.numel > models.budget.streamed and (axis == 0 or pair.transposed):
            left_out[pair.b.name] = "too large to stream at this effort"
        else:
            usable.append((pair, axis))
            if pair.a.constant or pair.b.constant:
                left_out[pair.b.name] = "constant"  # which headers don't tell: it adds nothing
    return usable, left_out


def _sample_layers(usable: Sequence[tuple[Pair, int]], limit: int, left_out: dict[str, str]) -> list[tuple[Pair, int]]:
    """Keep everything outside the blocks, and at most ``limit`` blocks spread evenly over the depth."""
    blocks = list(dict.fromkeys(pair.known.region for pair, _ in usable if pair.known.layer is not None))
    if len(blocks) <= limit:
        return list(usable)
    kept = set(evenly(blocks, limit))
    left_out.update(
        {p.b.name: "block not sampled" for p, _ in usable if p.known.layer is not None and p.known.region not in kept}
    )
    return [(p, axis) for p, axis in usable if p.known.layer is None or p.known.region in kept]


def _sample_experts(usable: list[tuple[Pair, int]], limit: int, left_out: dict[str, str]) -> list[tuple[Pair, int]]:
    """Keep everything but experts', and of their matrices so many of every block and role that ``limit`` are left."""
    if len(usable) <= limit:
        return usable
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair, _ in usable:
        if isinstance(pair.known.key[2], int):
            groups[pair.known.region, pair.known.key[1]].append(pair)
    others = len(usable) - sum(map(len, groups.values()))
    each = max(1, (limit - others) // max(len(groups), 1))
    kept = {pair.b.name for pairs in groups.values() for pair in evenly(pairs, each)}
    left_out.update(
        {p.b.name: "expert not sampled" for pairs in groups.values() for p in pairs if p.b.name not in kept}
    )
    return [(p, axis) for p, axis in usable if not isinstance(p.known.key[2], int) or p.b.name in kept]


def _by_region(usable: Sequence[tuple[Pair, int]]) -> dict[str, list[tuple[Pair, int]]]:
    """Pairs by block in depth order, so that the control finds the layer before."""
    groups: dict[str, list[tuple[Pair, int]]] = defaultdict(list)
    for pair, axis in sorted(
        usable, key=lambda p: (p[0].known.stack, -1 if p[0].known.layer is None else p[0].known.layer)
    ):
        groups[pair.known.region].append((pair, axis))
    return groups
