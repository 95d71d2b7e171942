"""UCKA after assignment, AWM [2510.06738]: unbiased linear CKA of W_q and W_k, hidden channels as samples.

1. *Assignment.* Columns of the two embeddings over shared tokens are matched one to one at cost 1 - |cos|; the sign of
   the cosine goes with it: a signed permutation of B's residual channels. Unequal widths: the narrower side picks.
2. *UCKA.* K = W_a' W_a and L = W_b' W_b over the matched channels (n x n), with the diagonals set to zero

       HSIC_1(K, L) = [tr(KL) + (1'K1)(1'L1)/((n-1)(n-2)) - 2/(n-2) 1'KL1] / (n(n-3))
       UCKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L))

   per matrix; the mean over q and k and layers (i with i; an assignment on UCKA where the depths differ).

What W_q and W_k are multiplied by on the left (rotations in heads, rotary pairs) drops out. Published: strangers
.00375 +- .0028, SFT .9985, continued pre-training .38-.71, upcycled MoE .42-.94. For rho * parent + noise it is
rho^2; between independent normal weights 0 +- 1.3/n. The *biased* CKA of strangers is .50 at d = n: never use it.

Known false positives: one direction that both models load on (an outlier channel, a mean that training puts in every
row): relative size .1 / .3 / 1 lifts strangers to .05 / .78 / .99. So it is computed again with the leading right
singular direction of each matrix removed, which is shown beside the published score. The assignment through shared
tokens aligns strangers that learned from the same data as well (docs/methods.md, 4.5). Known misses: a rotated
residual stream; norm gains folded away (columns rescaled unevenly); and a replaced or reordered vocabulary, where the
assignment is one of noise and scatters channels that had stood in their places (1 falls to .02, measured).

At large sizes channels are sampled: after the assignment, or, beyond 1024 channels, before it (a greedy one, of the
sampled channels of A among all of B). UCKA over a random subset of channels is an unbiased estimate of the whole, with
deviation about 1.3 / (channels sampled) between independent weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import blocks, shared_tokens
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32, F64, Indices
from weightprint.util.assignment import assign
from weightprint.util.linear_algebra import product, unit_rows
from weightprint.util.ranges import evenly

_ROLES = ("q", "k")
_MIN_CHANNELS = 8
_ROUNDS = 30  # of power iteration
_MATCHED = 1024  # channels beyond which only those that are compared are matched

_QUESTION = Evidence(
    test="ucka",
    asked="After matching residual channels by the embedding, do W_q and W_k relate channels in the same way?",
    null="none: descriptive. Around 0 +- 1.3/n for independent normal weights, and any shared direction lifts it",
    assumes="nothing: it decides nothing",
    blind_to="a rotated residual stream; unevenly rescaled channels; a shared outlier direction looks like kinship",
    statistic_of="mean unbiased CKA of W_q and W_k, as published",
    effect_of="the same with each matrix' leading direction removed",
)


def unbiased_cka(k: npt.NDArray[np.floating], m: npt.NDArray[np.floating]) -> float:
    """Unbiased CKA of two kernels (n, n), n >= 4; their diagonals don't count. nan where one has no variance left."""
    x, y = k.astype(np.float64), m.astype(np.float64)
    np.fill_diagonal(x, 0.0)
    np.fill_diagonal(y, 0.0)
    xx, yy = _hsic(x, x), _hsic(y, y)
    return _hsic(x, y) / float(np.sqrt(xx * yy)) if xx > 0 and yy > 0 else float("nan")


def _hsic(k: F64, m: F64) -> float:
    n: int = k.shape[0]
    row_k, row_m = k.sum(axis=1), m.sum(axis=1)
    trace = float(np.vdot(k, m))  # tr(KL): both are symmetric
    total = float(row_k.sum()) * float(row_m.sum()) / ((n - 1) * (n - 2))
    cross = float(np.vdot(row_k, row_m)) * 2 / (n - 2)
    return (trace + total - cross) / (n * (n - 3))


def without_leading(w: F32) -> F32:
    """A matrix without its leading singular direction, found by power iteration on the right."""
    x = w.astype(np.float64)
    v = x.T @ x.sum(axis=1)
    v = v if np.any(v) else np.ones(x.shape[1])
    for _ in range(_ROUNDS):
        v = v / max(float(np.linalg.norm(v)), 1e-300)
        v = product(x.T, product(x, v))
    v /= max(float(np.linalg.norm(v)), 1e-300)
    return np.asarray(x - np.outer(x @ v, v), np.float32)


@dataclass(frozen=True)
class Channels:
    """Matched residual channels: A's and B's numbers and B's signs, and how they were matched."""

    a: Indices
    b: Indices
    signs: F32
    note: str
    moved: int  # channels that the assignment took to another place or sign


def match_channels(x: F32, y: F32) -> Channels:
    """Signed assignment of embedding columns: x (tokens, d_a), y (tokens, d_b) over the same tokens."""
    unit_x, unit_y = (unit_rows(m, axis=0) for m in (x, y))
    cosines = product(unit_x.T, unit_y)
    found = assign(1 - np.abs(cosines))
    a = np.nonzero(found.columns >= 0)[0]
    b = found.columns[a]
    signs = np.where(cosines[a, b] < 0, -1, 1).astype(np.float32)
    return Channels(a, b, signs, found.note, moved(a, b, signs))


def moved(a: Indices, b: Indices, signs: F32) -> int:
    """Channels that are taken to another place or sign."""
    return int(np.count_nonzero((a != b) | (signs < 0)))


def _kernels(side: ModelView, tensor: Tensor, channels: Indices, signs: F32 | None, rows: Indices) -> tuple[F32, F32]:
    """Kernels over these channels: as stored, and without the leading direction."""
    w = finite(sampled_rows(side, tensor, rows)[:, channels])  # in this order: they are matched one by one
    w = w if signs is None else w * signs
    less = without_leading(w)
    return product(w.T, w), product(less.T, less)


@partial(Test, published=True)
def ucka(models: ModelPair) -> Evidence:
    """Mean UCKA over q and k and layers, as published and with the leading direction removed."""
    limit = models.budget.published
    a, b = blocks(models.a, _ROLES), blocks(models.b, _ROLES)
    if not a or not b:
        return not_applied(_QUESTION, "no blocks with separate q and k were recognised in both models")
    tokens = shared_tokens(models, limit.tokens)
    widths = [{t.shape[1] for block in found.values() for t in block.values()} for found in (a, b)]
    if any(len(width) != 1 for width in widths):
        return not_applied(_QUESTION, "the hidden size changes from block to block")
    d_a, d_b = (width.pop() for width in widths)
    if min(d_a, d_b) < _MIN_CHANNELS:
        return not_applied(_QUESTION, "fewer than 8 residual channels")
    if not isinstance(tokens, str) and (tokens[0].shape[1], tokens[1].shape[1]) == (d_a, d_b):
        some = pick(d_a, limit.channels, models.seed, "ucka") if min(d_a, d_b) > _MATCHED else np.arange(d_a)
        found = match_channels(tokens[0][:, some], tokens[1])
        found = replace(found, a=some[found.a], moved=moved(some[found.a], found.b, found.signs))
    elif d_a == d_b:
        why = tokens if isinstance(tokens, str) else "the embedding has another width than the stream"
        every = np.arange(d_a)
        found = Channels(every, every, np.ones(d_a, np.float32), f"channels as they stand: {why}", 0)
    else:
        why = tokens if isinstance(tokens, str) else "the embedding has another width than the stream"
        return not_applied(_QUESTION, f"the hidden sizes differ and channels can't be matched: {why}")
    chosen = pick(found.a.size, limit.channels, models.seed, "ucka")
    in_a, in_b, signs = found.a[chosen], found.b[chosen], found.signs[chosen]

    def kernels(
        side: ModelView, block: dict[str, Tensor], channels: Indices, sign: F32 | None
    ) -> list[tuple[F32, F32]]:
        return [
            _kernels(side, t, channels, sign, pick(t.shape[0], _rows(t, models.budget.streamed), models.seed, role))
            for role, t in sorted(block.items())
        ]

    layers_a, layers_b = evenly(list(a), limit.layers), evenly(list(b), limit.layers)
    theirs = [kernels(models.b, b[j], in_b, signs) for j in layers_b]
    scores = np.full((len(layers_a), len(layers_b), 2), np.nan)  # published, leading direction removed
    straight = len(a) == len(b)
    for i, number in enumerate(layers_a):
        ours = kernels(models.a, a[number], in_a, None)
        for j in [i] if straight else range(len(layers_b)):
            pairs = list(zip(ours, theirs[j], strict=True))
            scores[i, j] = [np.mean([unbiased_cka(x[form], y[form]) for x, y in pairs]) for form in (0, 1)]
    match = np.arange(len(layers_a)) if straight else assign(-np.nan_to_num(scores[:, :, 0])).columns
    kept = [(i, int(j)) for i, j in enumerate(match) if j >= 0 and np.isfinite(scores[i, j]).all()]
    if not kept:
        return not_applied(_QUESTION, "W_q and W_k have no variance left over the matched channels")
    score, bare = (float(np.mean([scores[i, j, form] for i, j in kept])) for form in (0, 1))
    n = int(chosen.size)
    return replace(
        _QUESTION,
        says=f"unbiased CKA {score:.4f}, {bare:.4f} without the leading direction ({n} channels, {len(kept)} layers; "
        f"chance 0 +- {1.3 / n:.4f}); {found.moved} of {found.a.size} channels moved by the assignment",
        statistic=score,
        effect=bare,
        n=n,
        detectable=6.5 / n,
        details={
            "published": score,
            "leading_direction_removed": bare,
            "layers": {f"{layers_a[i]}:{layers_b[j]}": [float(s) for s in scores[i, j]] for i, j in kept},
            "channels": n,
            "channels_moved": found.moved,
            "channels_matched": int(found.a.size),
            "assignment": found.note,
        },
    )


def _rows(tensor: Tensor, streamed: int) -> int:
    """Rows of W_q that this effort reads; the same places on both sides."""
    return max(32, min(tensor.shape[0], streamed // max(tensor.shape[1], 1)))
