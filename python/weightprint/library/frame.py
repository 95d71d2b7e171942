"""Models of one group in one frame: each matrix written in the order and basis of a reference model.

What corresponds between a model and the reference is told by :mod:`weightprint.verdict.direction.counterparts`, through
the maps that `compare` found: blocks put elsewhere, units in another order, experts beside a dense FFN, a stream whose
channels were permuted or turned. What has no counterpart in the reference is not in the frame; what a model lacks of it
is missing (NaN). From there all inner products of a group come from one set of values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.anatomy.place import Expert
from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.library.members import Relation
from weightprint.util.arrays import F32, F64, Bools, Indices
from weightprint.util.linear_algebra import product, row_cosines
from weightprint.verdict.direction.counterparts import Counterpart, Spot, counterparts
from weightprint.verdict.maps import Maps

__all__ = ["Coordinates", "Key", "Products", "between", "coordinates", "of_fingerprint", "products"]

#: A matrix of the reference: stack, block, expert; and its role.
Key = tuple[tuple[str, int, Expert], str]

_ALIKE = 0.2  # median cosine of rows that correspond
_PART = 0.3  # of the best fifth's cosine: rows below it stand elsewhere, or were drawn anew
_SAMPLE = (256, 512)  # rows and columns
_WEAK = 0.05  # of the median gain: a channel that is read so weakly is not unfolded


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Values of a model at rows and channels of the reference: float32 (rows, channels)."""

    rows: Indices
    channels: Indices
    values: F32


Coordinates = Mapping[Key, Patch]


@dataclass(frozen=True, eq=False)
class Products:
    """Of one matrix, for n models: inner products over the values that two of them have.

    ``own[i, j]``: the square of i where j has values too; ``cross``: i times j; ``n``: how many; float64 (n, n).
    """

    key: Key
    own: F64
    cross: F64
    n: F64


def coordinates(relation: Relation, maps: Maps | None) -> Coordinates:
    """B of the relation in A's frame."""
    out: dict[Key, Patch] = {}
    for c in counterparts(relation.models, maps) if _placed(relation.models.b) else _by_value(relation.models):
        assert c.at is not None
        key = (c.at.key, c.kind)
        x, y = (np.asarray(values, np.float64) for values in (c.x, c.y))
        cosines = row_cosines(x, y) if len(x) else np.zeros(1)
        if key not in out and float(np.median(cosines)) >= _ALIKE:
            out[key] = _patch(c, _elsewhere(cosines), _elsewhere(row_cosines(x.T, y.T)))
    return out


def _placed(side: ModelView) -> bool:
    return any(t.place is not None and t.place.block is not None for t in side.tensors.values())


def _by_value(models: ModelPair) -> Iterator[Counterpart]:
    """Where B's names say nothing: block matrices of A and what of B was paired with them by values."""
    for pair in models.pairs:
        place = pair.a.place
        if place is None or place.block is None or pair.a.shape != pair.b.shape or not pair.a.rank2 or pair.transposed:
            continue
        rows, channels = (
            pick(n, most, models.seed, f"frame {n}") for n, most in zip(pair.a.shape, _SAMPLE, strict=True)
        )
        x, y = (sampled_rows(s, t, rows, channels) for s, t in ((models.a, pair.a), (models.b, pair.b)))
        if place.role == "down":  # units are rows
            x, y, rows, channels = x.T, y.T, channels, rows
        key = (place.stack, place.block, place.expert)
        yield Counterpart((place.stack, place.block), place.role, x, y, Spot(key, rows, channels))


def _elsewhere(cosines: F64) -> Bools:
    """Rows, or channels, that are no counterparts."""
    return np.asarray(cosines < _PART * np.percentile(cosines, 80))


def _patch(c: Counterpart, rows: Bools, channels: Bools) -> Patch:
    """``rows``, ``channels``: that are no counterparts; bool (rows,), (channels,)."""
    assert c.at is not None
    y = c.y.astype(np.float32, copy=True)
    y[rows] = np.nan
    y[:, channels] = np.nan
    if c.at.gain is not None:
        weak = np.abs(c.at.gain) < _WEAK * np.median(np.abs(c.at.gain))
        y /= np.where(weak, np.float32(1), c.at.gain)
        y[:, weak] = np.nan
    y[:, ~c.y.any(axis=0)] = np.nan  # channels that the map of the stream leaves out
    return Patch(c.at.rows, c.at.channels, y)


def of_fingerprint(kept: Fingerprint, reference: Fingerprint) -> Coordinates:
    """The sketches of one fingerprint where the other has a matrix of the same place and shape that is like it."""
    at = {t.place: t for t in reference.tensors.values() if t.place is not None}
    out: dict[Key, Patch] = {}
    for name, t in kept.tensors.items():
        place = t.place
        if place is None or place.block is None or not t.rank2 or t.undecoded:
            continue
        other = at.get(place)
        if other is None or other.shape != t.shape:
            continue
        x, y = (f.sketch(n).astype(np.float32)[None] for f, n in ((reference, other.name), (kept, name)))
        if float(row_cosines(x, y)[0]) >= _ALIKE:
            out[(place.stack, place.block, place.expert), place.role] = Patch(np.arange(1), np.arange(x.size), y)
    return out


def products(models: Sequence[Coordinates]) -> Iterator[Products]:
    """Matrix by matrix, in the order of the reference's places."""
    keys = {key for model in models for key in model}
    for key in sorted(keys, key=lambda k: (k[0][0], k[0][1], str(k[0][2]).zfill(8), k[1])):
        patches = [model.get(key) for model in models]
        rows = np.unique(np.concatenate([p.rows for p in patches if p is not None]))
        channels = np.unique(np.concatenate([p.channels for p in patches if p is not None]))
        x = np.full((len(models), rows.size, channels.size), np.nan)
        for i, patch in enumerate(patches):
            if patch is not None:
                x[i][np.ix_(np.searchsorted(rows, patch.rows), np.searchsorted(channels, patch.channels))] = (
                    patch.values
                )
        flat = x.reshape(len(models), -1)
        there = np.isfinite(flat).astype(np.float64)
        flat = np.where(there > 0, flat, 0.0)
        yield Products(key, product(flat * flat, there.T), product(flat, flat.T), product(there, there.T))


def between(a: Coordinates, b: Coordinates) -> Iterator[Counterpart]:
    """The rows and channels that two models of one frame both have."""
    for key, p in a.items():
        q = b.get(key)
        if q is None:
            continue
        rows, r_p, r_q = np.intersect1d(p.rows, q.rows, assume_unique=True, return_indices=True)
        channels, c_p, c_q = np.intersect1d(p.channels, q.channels, assume_unique=True, return_indices=True)
        if rows.size and channels.size:
            x, y = p.values[np.ix_(r_p, c_p)], q.values[np.ix_(r_q, c_q)]
            yield Counterpart((key[0][0], key[0][1]), f"{key[1]} {key[0][2]}", x, y)
