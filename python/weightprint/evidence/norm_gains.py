"""Residual channels: do norm gains and the biases that write the stream agree channel by channel?

Each vector of length d (gains, norm offsets, biases of o and down) is turned into centred ranks of unit length, so that
matched cosines are Spearman correlations. Outlier channels (eight median deviations off in most vectors of a model) are
named and put in the middle of the ranks of their own model, so that neither size nor place of a few channels counts.

Null: one permutation of B's channels, the same for all its vectors, because the vectors of a model are tied to each
other. Three looks, the smallest p times three:

* in place: mean correlation of vectors of the same place, against 999 permuted copies of B;
* in any order: for each vector of B its best correlation with *any* vector of A of the same role, averaged, against the
  same copies (so the choice is in the null); that also gives a layer map;
* hits: a channel's profile over the vectors in place must be closest to its own in B; P(hits >= k) <= 1/k!.

The first two never fall below .001. The effect is the correlation in place minus that of the same role in other layers,
the free control: layers of one model correlate with each other (.6 to .9 between neighbours), so both may be high.

The raw cosine is printed as the known false alarm: gains of strangers drawn from N(1, .1) in 4096 dimensions have
cosine .9901, and Pearson correlation 0 +- .0157.

What agreement means: gains start at one and biases at zero, so agreement says that both models were *trained* with
the same channels in the same places. One initialisation trained twice on like data gives .3 to .55 (measured), descent
.7 to .99: see :mod:`weightprint.evidence.training_shared`.

A permuted stream is undone through the basis that was found (gains have no sign, offsets and biases do). Gains can't be
rotated: a rotation mixes channels, so under one this test doesn't apply.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from weightprint.anatomy.place import Expert
from weightprint.anatomy.roles import matrix_of, role_of
from weightprint.evidence.budget import hidden_size
from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.nulls.exchange import choices, log10_p_hits
from weightprint.evidence.nulls.ranked import hits_of_copies, log10_p_of, rank_p, smallest
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util import parallel
from weightprint.util.arrays import F32, F64, I64
from weightprint.util.linear_algebra import product, row_cosines, unit_rows
from weightprint.util.ranges import evenly

_MAX_VECTORS = 512
_MAX_PER_ROLE = 64
_FAR = 8.0  # median absolute deviations
_PARTS = 64  # of the permutations, each of which is one product
_CHANNELS = 512  # of A whose products with all of B's are held at a time

_QUESTION = Evidence(
    test="norm_gains",
    asked="Do norm gains and residual biases agree channel by channel, after centring?",
    null="B was trained from an initialisation independent of A, so every joint permutation of B's residual "
    "channels is equally likely",
    assumes="training treats residual channels alike: no fixed sinusoidal positions added to the stream, no nested "
    "widths",
    blind_to="models without trained gains or biases, rotated channels, permuted ones unless they were aligned, gains "
    "folded into the matrices",
    statistic_of="mean Spearman correlation of matched vectors",
    effect_of="the same minus that of other layers",
)


def ranks(x: F32) -> F32:
    """Each row as centred average ranks of unit length; zeros for a constant row. (vectors, channels) float32."""
    out = np.zeros(x.shape, np.float32)
    for i, row in enumerate(x):
        values, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        if values.size >= 2:
            upper = np.cumsum(counts)
            placed = (upper - (counts - 1) / 2)[inverse].astype(np.float64)
            placed -= placed.mean()
            out[i] = placed / np.linalg.norm(placed)
    return out


def outliers(x: F32) -> list[int]:
    """Channels that lie far off in most vectors: (vectors, channels) → their numbers."""
    centre = np.median(x, axis=1, keepdims=True)
    off = np.abs(x - centre)
    scale = np.median(off, axis=1, keepdims=True)
    varies = (scale > 0).ravel()
    if not varies.any():
        return []
    far = off[varies] > _FAR * scale[varies]
    return [int(j) for j in np.nonzero(2 * far.sum(axis=0) > len(far))[0]]


def channel_vectors(models: ModelPair, pairs: Sequence[Pair], width: int) -> tuple[F32, F32, list[Pair]]:
    """Vectors of these pairs that vary on both sides, over A's channels: A's, B's (vectors, channels), and the pairs.

    Nothing under a rotation, which a vector of gains doesn't survive.
    """
    kept: list[Pair] = []
    a: list[F32] = []
    b: list[F32] = []
    for pair in pairs:
        if models.basis.matrix is not None or not pair.a.numel == pair.b.numel == width:
            continue
        x, y = _vector(models, models.a, pair.a, pair.known), _vector(models, models.b, pair.b, pair.known)
        if min(np.ptp(x), np.ptp(y)) > 0:
            kept.append(pair)
            a.append(x)
            b.append(y)
    empty = np.empty((0, width), np.float32)
    return (np.stack(a) if a else empty), (np.stack(b) if b else empty), kept


def _vector(models: ModelPair, side: ModelView, tensor: Tensor, known: Tensor) -> F32:
    x = np.nan_to_num(side.reader(tensor.name, 0, tensor.numel), posinf=0, neginf=0)
    if side is models.a:
        return x
    gain = known.place is not None and known.place.role == matrix_of(known.place.role)
    return (replace(models.basis, signs=None) if gain else models.basis).to_a(x)


@partial(Test, supports=True, kept="vectors")
def norm_gains(models: ModelPair) -> Evidence:
    """Centred agreement of residual vectors in place and in any order, with an exact hit bound and permutations."""
    width = hidden_size(models.a, models.b)
    if width is None or width < 8:
        return not_applied(_QUESTION, "no norm gains or residual biases of a common length that vary in both models")
    if models.basis.matrix is not None:
        return not_applied(_QUESTION, "gains belong to channels, and the basis that was found is a rotation")
    pairs = [p for p in models.pairs if writes_the_stream(p.known) and p.by != "values"][:_MAX_VECTORS]
    raw_a, raw_b, kept = channel_vectors(models, pairs, width)
    if not kept:
        return not_applied(_QUESTION, "no norm gains or residual biases of a common length that vary in both models")
    out_a, out_b = outliers(raw_a), outliers(raw_b)
    a, b = _middled(raw_a, out_a), _middled(raw_b, out_b)
    everywhere = _by_role(models, width, out_a, out_b)

    matched = float(np.einsum("ij,ij->", a, b)) / len(kept)
    others = _other_layers(kept, a @ b.T)
    any_order = float(_best_anywhere(everywhere, np.arange(width)[None])[0])
    rng = np.random.default_rng([models.seed, width])
    orders = np.stack([rng.permutation(width) for _ in range(models.budget.gain_permutations)])

    in_place = _in_place(a, b, orders) / len(kept)
    parts = np.array_split(orders, _PARTS)
    in_any = np.concatenate(list(parallel.each(lambda some: _best_anywhere(everywhere, some), parts)))
    drawn = [
        (1 + int(np.count_nonzero(null >= x))) / (len(orders) + 1)
        for null, x in ((in_place, matched), (in_any, any_order))
    ]
    named = choices(product(_profiles(a), _profiles(b).T)) if len(kept) >= 3 else np.full(width, -1)
    k = int(np.count_nonzero(named == np.arange(width)))
    log10_p = min(0.0, min(*map(math.log10, drawn), log10_p_hits(k)) + math.log10(3))

    raw = _raw_cosine(kept, raw_a, raw_b)
    control = float(np.mean(others)) if others else None
    says = (
        f"mean Spearman correlation of {len(kept)} vectors {matched:+.3f} (sd by chance {in_place.std():.3f}), "
        f"{'no other layers' if control is None else f'of other layers {control:+.3f}'}; {k} of {width} channel "
        "profiles find themselves again"
    )
    if raw is not None:
        says += f"; the raw cosine {raw:.4f} is not evidence, strangers reach .99"
    return replace(
        _QUESTION,
        says=says,
        statistic=matched,
        effect=matched - (control or 0.0),
        n=len(kept),
        log10_p=log10_p,
        rank_p=_ranked(matched, in_place, any_order, in_any, named, orders),
        detectable=float(5 * in_place.std()),
        details={
            "vectors": len(kept),
            "width": width,
            "spearman_matched": matched,
            "spearman_other_layers": control,
            "spearman_any_order": any_order,
            "pearson_matched": float(np.mean([_pearson(x, y) for x, y in zip(raw_a, raw_b, strict=True)])),
            "null_sd": float(in_place.std()),
            "null_any_order": [float(in_any.mean()), float(in_any.std())],
            "p_monte_carlo": drawn[0],
            "p_any_order": drawn[1],
            "permutations": len(orders),
            "hits": k,
            "outliers_a": out_a[:64],
            "outliers_b": out_b[:64],
            "layer_map": _layer_map(everywhere),
            "raw_cosine_not_evidence": raw,
        },
    )


def _ranked(matched: float, in_place: F64, any_order: float, in_any: F64, named: I64, orders: I64) -> float:
    """B among its permuted copies, each looked at as B is: three looks, the smallest."""
    looks = []
    for values in (np.array([matched, *in_place]), np.array([any_order, *in_any])):
        reached = values.size - np.searchsorted(np.sort(values), values, side="left")
        looks.append(np.log10(reached / values.size))
    k = hits_of_copies(named, np.vstack([np.arange(named.size), orders]))
    return rank_p(-smallest([*looks, log10_p_of(k)]), [matched, *in_place], salt=named.tolist())


def writes_the_stream(tensor: Tensor) -> bool:
    """A norm's gain or offset over residual channels, or the bias of a matrix that writes them."""
    if tensor.place is None:
        return False
    matrix = role_of(matrix_of(tensor.place.role))
    return matrix.axis == "channels" or (matrix.axis == "writes" and tensor.place.role != matrix.name)


@dataclass(frozen=True)
class _Role:
    """All vectors of one role: ranks, and which block each belongs to."""

    a: F32
    b: F32
    blocks_a: list[str]
    blocks_b: list[str]


def _by_role(models: ModelPair, width: int, out_a: list[int], out_b: list[int]) -> list[_Role]:
    """Vectors of either side by role, of whatever stack and block; at most so many per role, spread over the depth."""
    found: dict[str, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for i, side in enumerate((models.a, models.b)):
        for tensor in side.tensors.values():
            fits = tensor.layer is not None and tensor.numel == width and not tensor.constant
            if fits and tensor.place is not None and writes_the_stream(tensor):
                found[tensor.place.role][i].append(tensor)
    roles = []
    for pair in found.values():
        stacks = []
        for side, tensors, out in ((models.a, pair[0], out_a), (models.b, pair[1], out_b)):
            chosen = evenly(tensors, _MAX_PER_ROLE)
            rows = [_vector(models, side, t, t) for t in chosen]
            stacks.append((_middled(np.stack(rows), out) if rows else None, [t.region for t in chosen]))
        (a, blocks_a), (b, blocks_b) = stacks
        if a is not None and b is not None:
            roles.append(_Role(a, b, blocks_a, blocks_b))
    return roles


def _middled(x: F32, out: list[int]) -> F32:
    """Ranks, with a model's outlier channels in the middle."""
    if out:
        x = x.copy()
        x[:, out] = np.median(x, axis=1, keepdims=True)
    return ranks(x)


def _in_place(a: F32, b: F32, orders: I64) -> F64:
    """Sum of all products of A's vectors with B's in each of these orders of B's channels, (orders,)."""
    total = np.zeros(len(orders))
    for first in range(0, a.shape[1], _CHANNELS):
        here = slice(first, first + _CHANNELS)
        with_each = product(a[:, here].T, b)  # what channel i of A and channel j of B have in common
        total += with_each[np.arange(len(with_each)), orders[:, here]].sum(axis=1, dtype=np.float64)
    return total


def _best_anywhere(roles: list[_Role], orders: I64) -> F64:
    """Mean over B's vectors of the best correlation with any vector of A of the same role, in each of these orders of
    B's channels, (orders,)."""
    best = []
    for role in roles:
        cross = product(role.b.take(orders, axis=1).reshape(-1, orders.shape[1]), role.a.T)
        best.append(cross.reshape(len(role.b), len(orders), -1).max(axis=2))
    out: F64 = np.concatenate(best).mean(axis=0, dtype=np.float64) if best else np.zeros(len(orders))
    return out


def _layer_map(roles: list[_Role]) -> dict[str, list[Any]]:
    """Block of B → [the block of A whose vectors correlate best, summed over roles, that mean correlation]."""
    sums: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for role in roles:
        cross = role.b @ role.a.T
        for i, theirs in enumerate(role.blocks_b):
            for j, ours in enumerate(role.blocks_a):
                sums[theirs][ours].append(float(cross[i, j]))
    out = {}
    for theirs, rows in sums.items():
        ours = max(rows, key=lambda name: sum(rows[name]))
        out[theirs] = [ours, round(float(np.mean(rows[ours])), 3)]
    return out


def _other_layers(pairs: list[Pair], cross: F32) -> list[float]:
    """Correlations of vectors of one role in different layers."""
    groups: dict[tuple[str, str, Expert], list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        if pair.known.layer is not None:
            groups[pair.known.key].append(i)
    return [float(cross[i, j]) for members in groups.values() for i in members for j in members if i != j]


def _profiles(x: F32) -> F32:
    """Per channel: its centred ranks over the vectors, unit length, (channels, vectors)."""
    return unit_rows(x.T - x.T.mean(axis=1, keepdims=True))


def _pearson(x: F32, y: F32) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / scale if scale > 0 else 0.0


def _raw_cosine(pairs: list[Pair], a: F32, b: F32) -> float | None:
    gains = [i for i, p in enumerate(pairs) if p.known.role is not None and p.known.role.axis == "channels"]
    if not gains:
        return None
    return float(np.mean(row_cosines(a[gains], b[gains])))
