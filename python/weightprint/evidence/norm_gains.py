"""Residual channels: do norm gains and the biases that write the stream agree channel by channel?

Each vector of length d (gains, norm biases, biases of o and down) is turned into centred ranks, so an outlier channel
is just the largest rank, and scaled to unit length: matched cosines are Spearman correlations. Statistic: the mean
over vectors. Null: one permutation of B's channels, the same for all its vectors, because the vectors of a model are
tied to each other. Two p-values:

* Monte Carlo over 999 seeded permutations, (1 + number as large) / 1000, valid at any sample size but never below .001;
* channel hits: a channel's profile over all vectors must be closest to its own profile in B; P(hits >= k) <= 1/k!.

The smaller one times two is reported. The mean correlation between *different* vectors of the same kind is shown
beside it: neighbouring layers of one model correlate, so a large value there is no contradiction.

The raw cosine is printed as the known false alarm: gains of strangers drawn from N(1, .1) in 4096 dimensions have
cosine .9901, and Pearson correlation 0 +- .0157.

What agreement means: gains start at one and biases at zero, so agreement says that both models were *trained* with
the same channels in the same places. One initialisation trained twice on like data may do that as well; it makes
shared training likelier, and proves only the shared basis.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np

from weightprint.anatomy.roles import matrix_of, role_of
from weightprint.evidence._base import F32, Evidence, Expert, Models, Tensor, not_applied, timed
from weightprint.evidence._exchange import hits, log10_p_hits
from weightprint.evidence._sample import hidden_size

__all__ = ["PERMUTATIONS", "norm_gains"]

PERMUTATIONS = 999
_MAX_VECTORS = 512

_QUESTION = Evidence(
    test="norm_gains",
    asked="Do norm gains and residual biases agree channel by channel, after centring?",
    applied=True,
    null="B was trained from an initialisation independent of A, so every joint permutation of B's residual "
    "channels is equally likely",
    assumes="training treats residual channels alike: no fixed sinusoidal positions added to the stream, no nested "
    "widths",
    blind_to="models without trained gains or biases, permuted or rotated channels, gains folded into the matrices",
    statistic_of="mean Spearman correlation of matched vectors",
    effect_of="the same",
)


def _ranks(x: F32) -> F32:
    """Centred average ranks, unit length; zeros for a constant vector."""
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    if values.size < 2:
        return np.zeros(x.size, np.float32)
    upper = np.cumsum(counts)
    ranks = ((upper - (counts - 1) / 2)[inverse]).astype(np.float64)
    ranks -= ranks.mean()
    out: F32 = (ranks / np.linalg.norm(ranks)).astype(np.float32)
    return out


def _pearson(x: F32, y: F32) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / scale if scale > 0 else math.nan


@timed
def norm_gains(models: Models) -> Evidence:
    """Centred agreement of residual vectors, with an exact hit bound and a permutation p."""
    width = hidden_size(models)
    vectors = []
    for pair in models.pairs:
        residual = _writes_the_stream(pair.known)
        if (
            residual
            and pair.a.numel == width == pair.b.numel
            and pair.by != "values"
            and not (pair.a.constant or pair.b.constant)
        ):
            vectors.append(pair)
    if width is None or width < 8 or not vectors:
        return not_applied(_QUESTION, "no norm gains or residual biases of a common length that vary in both models")
    vectors = vectors[:_MAX_VECTORS]
    raw_a = [np.nan_to_num(models.a.reader(p.a.name, 0, width), posinf=0, neginf=0) for p in vectors]
    raw_b = [np.nan_to_num(models.b.reader(p.b.name, 0, width), posinf=0, neginf=0) for p in vectors]
    a, b = np.stack([_ranks(x) for x in raw_a]), np.stack([_ranks(x) for x in raw_b])
    alive = np.asarray(a.any(axis=1) & b.any(axis=1))
    if not alive.any():
        return not_applied(_QUESTION, "every norm gain and residual bias is constant")
    a, b = a[alive], b[alive]
    kept = [p for p, ok in zip(vectors, alive, strict=True) if ok]

    matched = float(np.einsum("ij,ij->", a, b)) / len(kept)
    cross = a @ b.T
    groups: dict[tuple[str, str, Expert], list[int]] = defaultdict(list)
    for i, pair in enumerate(kept):
        if pair.known.layer is not None:
            groups[pair.known.key].append(i)
    others = [float(cross[i, j]) for members in groups.values() for i in members for j in members if i != j]
    rng = np.random.default_rng([models.seed, width])
    null = np.array([np.einsum("ij,ij->", a, b[:, rng.permutation(width)]) / len(kept) for _ in range(PERMUTATIONS)])
    p_drawn = (1 + int(np.count_nonzero(null >= matched))) / (PERMUTATIONS + 1)
    k = hits(_profiles(a) @ _profiles(b).T) if len(kept) >= 3 else 0
    log10_p = min(0.0, min(math.log10(p_drawn), log10_p_hits(k)) + math.log10(2))

    gains = [i for i, p in enumerate(vectors) if p.known.role is not None and p.known.role.axis == "channels"]
    cosines = [
        float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
        for x, y in ((raw_a[i], raw_b[i]) for i in gains)
        if x.any() and y.any()
    ]
    pearson = [r for r in (_pearson(raw_a[i], raw_b[i]) for i in range(len(vectors))) if math.isfinite(r)]
    raw = float(np.mean(cosines)) if cosines else None
    says = (
        f"mean Spearman correlation of {len(kept)} vectors {matched:+.3f} (sd by chance {null.std():.3f}); {k} "
        f"of {width} channel profiles find themselves again"
    )
    if raw is not None:
        says += f"; the raw cosine {raw:.4f} is not evidence, strangers reach .99"
    return replace(
        _QUESTION,
        says=says,
        statistic=matched,
        effect=matched,
        n=len(kept),
        log10_p=log10_p,
        detectable=float(5 * null.std()),
        details={
            "vectors": len(kept),
            "width": width,
            "spearman_matched": matched,
            "spearman_other_layers": float(np.mean(others)) if others else None,
            "pearson_matched": float(np.mean(pearson)) if pearson else None,
            "null_sd": float(null.std()),
            "p_monte_carlo": p_drawn,
            "permutations": PERMUTATIONS,
            "hits": k,
            "raw_cosine_not_evidence": raw,
        },
    )


def _writes_the_stream(tensor: Tensor) -> bool:
    """A norm's gain or offset over residual channels, or the bias of a matrix that writes them."""
    if tensor.place is None:
        return False
    matrix = role_of(matrix_of(tensor.place.role))
    return matrix.axis == "channels" or (matrix.axis == "writes" and tensor.place.role != matrix.name)


def _profiles(x: F32) -> F32:
    """Per channel: its centred ranks over the vectors, unit length, (channels, vectors)."""
    profile = x.T - x.T.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(profile, axis=1, keepdims=True)
    out: F32 = (profile / np.where(norms > 0, norms, 1)).astype(np.float32)
    return out
