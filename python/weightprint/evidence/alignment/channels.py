"""A signed permutation with no shared vocabulary: residual channels known by how large they are, tensor by tensor.

Channel j has a norm gain, a root mean square in the columns of every matrix that reads the stream and in the rows of
every one that writes it. None of it changes when units, heads or tokens are renumbered or signs flip. One feature per
block and role where the models are equally deep, else the mean over blocks, replaced by ranks over the channels;
channels whose feature vectors correlate best, mutually, are a first unsigned matching. Signs come from units: rows of
gate and up in absolute value are compared over the matched channels, the nearest units give signed columns, and
rounds of matching and solving (:mod:`weightprint.evidence.alignment.refine`) settle both.

Costs one pass over sampled rows and no large product, so it is the finder for permuted copies of large models that kept
neither vocabulary nor unit order. It can't undo a rotation, and a model whose channels are all alike gives it nothing.
Where the two halves of the features, every other one, name the same partner for no more channels than by chance, the
first matching holds nothing, and units are not asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from weightprint.evidence.alignment.held_out import fit_half
from weightprint.evidence.alignment.refine import Matched, refine, unit_vectors
from weightprint.evidence.alignment.solve import Cross, unit_rows
from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import pick, sampled_columns, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.assignment import strongest_first
from weightprint.util.linear_algebra import product
from weightprint.util.ranges import evenly

__all__ = ["by_channels", "channel_profiles"]

_READS = ("q", "k", "v", "gate", "up")
_WRITES = ("o", "down")
_GAINS = ("attn_norm", "ffn_norm", "final_norm", "attn_post_norm", "ffn_post_norm")
_ROWS = 512
_FFNS = 2
_UNITS = 512
_CHANNELS = 1024  # over which sizes of units are compared
_LARGE = 1 << 24  # values of a matrix from which one FFN has to do
_FEWEST = 12  # features
_FEW = 256  # channels that so few features can tell apart
_TWICE = 4  # channels whose partner both halves of the features may name by chance, of whatever number: one on average
_BLOCKS = 8  # whose matrices are looked at in models of _MANY parameters and more; norms are, in all blocks
_MANY = 1 << 29

Profiles = dict[tuple[str, int | None], F32]


def channel_profiles(models: ModelPair, side: ModelView, d: int) -> Profiles:
    """How large each channel is, by role and block: log root mean square or |gain|, float32 (d,) each."""
    found: dict[tuple[str, int | None], list[F32]] = defaultdict(list)
    blocks, rows = _looked_at(models, side), _rows_of(models)
    for tensor in side.tensors.values():
        if tensor.place is None or tensor.constant:
            continue
        role, key = tensor.place.role, (tensor.place.role, tensor.place.block)
        if role not in _GAINS and tensor.place.block is not None and tensor.place.block not in blocks:
            continue
        if role in _GAINS and tensor.shape == (d,):
            found[key].append(np.abs(side.rows(tensor)[0]))
        elif role in _READS and tensor.rank2 and tensor.shape[1] == d:
            found[key].append(_rms(sampled_rows(side, tensor, pick(tensor.shape[0], rows, models.seed, "channels"))))
        elif role in _WRITES and tensor.rank2 and tensor.shape[0] == d:
            if tensor.numel > models.budget.columns_of:
                continue
            columns = pick(tensor.shape[1], rows, models.seed, "channels")
            found[key].append(_rms(sampled_columns(side, tensor, columns)))
    return {key: np.log(np.mean(xs, axis=0) + 1e-12).astype(np.float32) for key, xs in found.items()}


def _rows_of(models: ModelPair) -> int:
    return _ROWS if models.budget.exhaustive or min(models.a.numel, models.b.numel) < _MANY else _ROWS // 2


def _looked_at(models: ModelPair, side: ModelView) -> set[int]:
    """The blocks whose matrices are looked at: all, but in large models at most so many, evenly over the depth."""
    every = sorted({t.place.block for t in side.tensors.values() if t.place is not None and t.place.block is not None})
    if models.budget.exhaustive or min(models.a.numel, models.b.numel) < _MANY:
        return set(every)
    return set(evenly(every, _BLOCKS))


def _rms(x: F32) -> F32:
    """Root mean square of the columns of rows of length one, so that no row dominates."""
    out: F32 = np.sqrt(np.mean(np.square(unit_rows(finite(x))), axis=0))
    return out


def by_channels(models: ModelPair) -> list[Basis]:
    """A signed permutation from channel sizes; none where there are too few features or nothing to find signs from."""
    if not models.budget.whole:
        return []
    ours, theirs = ffns(models.a), ffns(models.b)
    fit = fit_half(theirs)
    if not ours or not fit:
        return []
    a = channel_profiles(models, models.a, ours[0].width)
    b = channel_profiles(models, models.b, fit[0].width)
    if a.keys() != b.keys():
        a, b = _over_blocks(a), _over_blocks(b)
    common = sorted(a.keys() & b.keys(), key=str)
    ranks = tuple(_centred_ranks(np.stack([p[key] for key in common], axis=1)) for p in (a, b))
    if ours[0].width > _FEW and (len(common) < _FEWEST or _named_twice(*ranks) <= _TWICE):
        return []
    x, y = (unit_rows(r) for r in ranks)
    channels = strongest_first(np.asarray(product(x, y.T), np.float32))
    matched = _by_size(models, ours, fit, channels)
    if not matched:
        return []
    first = Cross(ours[0].width, fit[0].width)
    for m in matched:
        first.add(unit_rows(m.read_a[0][m.a]), unit_rows(m.read_b[0][m.b]))
    found = f"{len(common)} sizes of each channel"
    fitted = frozenset(m.name for m in matched)
    return refine(matched, first, found, fitted, "signed_permutation", ("signed_permutation",))


def _over_blocks(profiles: Profiles) -> Profiles:
    by_role: dict[tuple[str, int | None], list[F32]] = defaultdict(list)
    for (role, _), x in profiles.items():
        by_role[role, None].append(x)
    return {key: np.mean(xs, axis=0) for key, xs in by_role.items()}


def _centred_ranks(x: F32) -> F32:
    ranks = x.argsort(axis=0).argsort(axis=0)
    return (ranks / max(len(x) - 1, 1) - 0.5).astype(np.float32)


def _named_twice(x: F32, y: F32) -> int:
    """Channels of A whose mutual best partner is the same by either half of the features: (channels, features) each."""
    halves: list[Indices] = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        alike = product(unit_rows(x[:, half]), unit_rows(y[:, half]).T)
        best = alike.argmax(axis=1)
        halves.append(np.where(alike.argmax(axis=0)[best] == np.arange(best.size), best, -1 - len(halves)))
    return int(np.count_nonzero(halves[0] == halves[1]))


def _by_size(models: ModelPair, ours: Sequence[Ffn], fit: Sequence[Ffn], channels: Indices) -> list[Matched]:
    """Some FFNs of B with the FFN of A at the same relative depth; units matched by the sizes of their entries."""
    depth = [1 + max(f.block for f in found) for found in (ours, fit)]
    basis = Basis("signed_permutation", channels=channels)
    out = []
    few = 1 if fit[0].up.numel >= _LARGE and not models.budget.exhaustive else _FFNS
    chosen = np.sort(pick(channels.size, _CHANNELS, models.seed, "sizes"))
    for ffn in (fit[0], fit[-1])[: min(few, len(fit))]:
        at = ffn.block / depth[1]
        near = min(ours, key=_Apart(depth[0], at))
        if ffn.down is None or near.down is None or (ffn.gate is None) != (near.gate is None):
            continue
        (read_a, down_a), (read_b, down_b) = (
            unit_vectors(models.a, near, None),
            unit_vectors(models.b, ffn, pick(ffn.units, _UNITS, models.seed, "signatures", run=8)),
        )
        sizes_a = np.concatenate([_sizes(v[:, chosen]) for v in (*read_a, down_a)], axis=1)
        sizes_b = np.concatenate([_sizes(basis.to_a(v)[:, chosen]) for v in (*read_b, down_b)], axis=1)
        alike = product(sizes_b, sizes_a.T)
        best = alike.argmax(axis=1)
        mutual = alike.argmax(axis=0)[best] == np.arange(best.size)
        out.append(Matched(ffn.name, read_a, read_b, down_a, down_b, best[mutual], np.nonzero(mutual)[0]))
    return out


class _Apart:
    """Distance of an FFN from a relative depth."""

    def __init__(self, depth: int, at: float) -> None:
        self.depth, self.at = depth, at

    def __call__(self, ffn: Ffn) -> float:
        return abs(ffn.block / self.depth - self.at)


def _sizes(x: F32) -> F32:
    """Absolute values, each row of length one, centred over rows."""
    sizes = np.abs(unit_rows(x))
    return unit_rows(sizes - sizes.mean(axis=0))
