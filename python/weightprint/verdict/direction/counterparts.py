"""Rows of A's block matrices beside the same rows of B's, brought into one order and basis.

FFNs meet in place or, where units or blocks moved, through the maps that the evidence found; the attention's matrices
through the map of layers, where heads kept their places. If units agree and channels don't, the residual stream was
permuted or turned: the map of channels is the orthogonal one that lays B's unit rows on A's (Schönemann 1966), fitted
for each block on all others, so that no block is laid onto its counterpart by itself; where it is a signed permutation
but for noise, that permutation. Rows and channels are drawn from the seed alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weightprint.anatomy.place import Expert
from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.linear_algebra import polar, product, row_cosines, unit_rows
from weightprint.util.ranges import evenly
from weightprint.verdict.maps import Maps

_BLOCKS, _EXPERTS = 16, 4  # blocks that are read, and experts of each
_UNITS, _CHANNELS = 256, 512  # rows and columns of a matrix
_FEWEST = 8  # units that name each other
_IN_PLACE = 0.3  # median cosine of rows from which they are counterparts as they stand
_ALIKE = 0.25  # below it the channels of units that name each other are others
_WIDEST = 2048  # streams that are turned back
_SNAPPED, _CLEAR = 0.6, 0.3  # median of the largest entries of a map that permutes channels; entries that count
_ATTENTION = ("q", "k", "v", "o")

Block = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """Where rows and channels are in A: stack, block and expert, and their numbers (units are the rows of every matrix
    of an FFN). ``gain``: that of A's norm is in the values, float32 (channels,)."""

    key: tuple[str, int, Expert]
    rows: Indices
    channels: Indices
    gain: F32 | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Counterpart:
    """Rows x of A and y of B that correspond, over channels that do: float32 (rows, channels), of one shape.

    ``block``: B's; ``at``: where they are in A.
    """

    block: Block
    kind: str
    x: F32
    y: F32
    at: Spot | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FfnPair:
    """Two FFNs and the units of each that correspond."""

    b: Ffn
    a: Ffn
    of_b: Indices
    of_a: Indices


def counterparts(models: ModelPair, maps: Maps | None) -> Iterator[Counterpart]:
    """Sampled rows of the block matrices of both. ``maps``: layers, experts and units, None where all is in place."""
    # Of several experts that come from one FFN any is its counterpart, and another one is in the other order.
    pairs = list(ffn_pairs(models, maps)) if _most_experts(models.a) == _most_experts(models.b) else []
    if pairs and float(np.median([_channels_alike(models, pair) for pair in pairs])) < _ALIKE:
        yield from _turned(models, pairs)
        return
    for pair in pairs:
        channels = pick(pair.b.width, _CHANNELS, models.seed, f"channels {pair.b.width}")
        yield from _units(models, pair, channels)
    yield from _attention(models, maps)


def in_place(models: ModelPair) -> bool:
    """Every FFN of B that is looked at stands where A has it, so no maps are needed."""
    found = [pair.b.key for pair in ffn_pairs(models, None)]
    return bool(found) and len(found) == len(_looked_at(models.b))


def ffn_pairs(models: ModelPair, maps: Maps | None) -> Iterator[FfnPair]:
    """FFNs of both that correspond, with their units: in place, or through the maps."""
    ours = {f.key: f for f in ffns(models.a)}
    rows = {row.b: row for row in maps.ffns} if maps else {}
    for f in _looked_at(models.b):
        row = rows.get(f.key)
        a = ours.get(row.a if row is not None and row.a is not None else f.key)
        if a is None or (row is not None and row.a is None):
            continue
        units = pick(f.units, _UNITS, models.seed, f"units {f.units}")
        here = FfnPair(f, a, units, units)
        if f.units == a.units and _channels_alike(models, here) >= _IN_PLACE:
            yield here
        elif row is not None:
            named = _one_to_one(row.units)
            if len(named) >= _FEWEST:
                yield FfnPair(f, a, named[:, 0], named[:, 1])


def _most_experts(side: ModelView) -> int:
    return max(Counter((f.stack, f.block) for f in ffns(side)).values(), default=0)


def _looked_at(side: ModelView) -> list[Ffn]:
    of_block: dict[Block, list[Ffn]] = defaultdict(list)
    for f in ffns(side):
        of_block[f.stack, f.block].append(f)
    blocks = evenly(list(of_block), _BLOCKS, rounded=False)
    return [f for block in blocks for f in evenly(of_block[block], _EXPERTS, rounded=False)]


def _one_to_one(units: Indices) -> Indices:
    """Units of B with theirs of A, each once: (n, 2)."""
    for column in (0, 1):
        _, at, counts = np.unique(units[:, column], return_index=True, return_counts=True)
        units = units[np.sort(at[counts == 1])]
    return units[:_UNITS]


def _channels_alike(models: ModelPair, pair: FfnPair) -> float:
    """Median cosine of corresponding rows as they stand; 0 where the widths differ."""
    if pair.a.width != pair.b.width:
        return 0.0
    x = sampled_rows(models.a, pair.a.up, pair.of_a)
    y = sampled_rows(models.b, pair.b.up, pair.of_b)
    return float(np.median(row_cosines(x, y)))


def _units(models: ModelPair, pair: FfnPair, channels: Indices) -> Iterator[Counterpart]:
    block = (pair.b.stack, pair.b.block)
    for kind, x, y in _both(pair):
        if kind == "down":
            yield Counterpart(
                block,
                kind,
                sampled_rows(models.a, x, channels, pair.of_a).T,
                sampled_rows(models.b, y, channels, pair.of_b).T,
                Spot(pair.a.key, pair.of_a, channels),
            )
        else:
            yield Counterpart(
                block,
                kind,
                sampled_rows(models.a, x, pair.of_a, channels),
                sampled_rows(models.b, y, pair.of_b, channels),
                Spot(pair.a.key, pair.of_a, channels),
            )


def _both(pair: FfnPair) -> Iterator[tuple[str, Tensor, Tensor]]:
    for kind in ("up", "gate", "down"):
        x, y = getattr(pair.a, kind), getattr(pair.b, kind)
        if x is not None and y is not None:
            yield kind, x, y


def _attention(models: ModelPair, maps: Maps | None) -> Iterator[Counterpart]:
    """Matrices of the attention in blocks that correspond; whose heads moved is told by the rows."""
    layers = {row.b: row.a for row in maps.layers} if maps else {}
    ours = {t.place: t for t in models.a.tensors.values() if t.place is not None}
    theirs: dict[Block, list[Tensor]] = defaultdict(list)
    for t in models.b.tensors.values():
        if t.place is not None and t.place.block is not None and t.place.role in _ATTENTION and t.rank2:
            theirs[t.place.stack, t.place.block].append(t)
    for block in evenly(list(theirs), _BLOCKS, rounded=False):
        source = layers.get(block, block)
        for y in theirs[block]:
            place = y.place
            if source is None or place is None or place.block is None:
                continue
            x = ours.get(replace(place, stack=source[0], block=source[1]))
            if x is None or x.shape != y.shape or not x.rank2:
                continue
            rows = pick(y.shape[0], _UNITS, models.seed, f"rows {y.shape[0]}")
            columns = pick(y.shape[1], _CHANNELS, models.seed, f"channels {y.shape[1]}")
            yield Counterpart(
                block,
                place.role,
                sampled_rows(models.a, x, rows, columns),
                sampled_rows(models.b, y, rows, columns),
                Spot((*source, place.expert), rows, columns),
            )


# A stream whose channels are others


def _turned(models: ModelPair, pairs: Sequence[FfnPair]) -> Iterator[Counterpart]:
    if max(max(p.a.width, p.b.width) for p in pairs) > _WIDEST or len({(p.a.width, p.b.width) for p in pairs}) > 1:
        return
    seen = [(pair, _whole(models.a, pair.a, pair.of_a), _whole(models.b, pair.b, pair.of_b)) for pair in pairs]
    sums: dict[Block, F32] = {}
    for pair, x, y in seen:
        kind = "gate" if "gate" in x and "gate" in y else "up"  # an up row of a gated FFN may have either sign
        here = product(unit_rows(y[kind]).T, unit_rows(x[kind]))
        block = (pair.b.stack, pair.b.block)
        sums[block] = sums[block] + here if block in sums else here
    maps = _channel_maps(sums)
    for pair, x, y in seen:
        block = (pair.b.stack, pair.b.block)
        turn = maps.get(block)
        if turn is None:
            continue
        for kind in [k for k in x if k in y]:
            there = product(y[kind], turn)
            if kind != "gate":
                there *= np.where(np.einsum("ij,ij->i", x[kind], there) < 0, np.float32(-1), np.float32(1))[:, None]
            gain = None if kind == "down" else models.a.gain(getattr(pair.a, kind))
            yield Counterpart(block, kind, x[kind], there, Spot(pair.a.key, pair.of_a, np.arange(pair.a.width), gain))


def _whole(side: ModelView, ffn: Ffn, units: Indices) -> Mapping[str, F32]:
    """What these units read, with the gain of their norm, and write: float32 (units, width)."""
    out: dict[str, F32] = {}
    for kind in ("up", "gate", "down"):
        tensor = getattr(ffn, kind)
        if tensor is None:
            continue
        if kind == "down":
            out[kind] = np.ascontiguousarray(sampled_rows(side, tensor, np.arange(ffn.width), units).T)
        else:
            gain = side.gain(tensor)
            x = sampled_rows(side, tensor, units)
            out[kind] = x if gain is None else x * gain
    return out


def _channel_maps(sums: Mapping[Block, F32]) -> Mapping[Block, F32]:
    """Block → the map of B's channels to A's, float32 (d_b, d_a), that the other blocks ask for."""
    total = _sum(sums.values())
    whole = polar(total)
    largest = np.abs(whole).max(axis=0)
    if float(np.median(largest)) > _SNAPPED:
        at = np.abs(whole).argmax(axis=0)
        snapped = np.zeros_like(whole)
        clear = np.nonzero(largest > _CLEAR)[0]
        snapped[at[clear], clear] = np.sign(whole[at[clear], clear])
        return dict.fromkeys(sums, snapped)
    if len(sums) < 3:
        return {}
    return {block: polar(total - own) for block, own in sums.items()}


def _sum(matrices: Iterable[F32]) -> F32:
    first, *rest = matrices
    out = first.copy()
    for matrix in rest:
        out += matrix
    return out
