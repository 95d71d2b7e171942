"""CRS [2608.14929]: the composed maps of the residual branches, compared layer by layer.

A residual branch multiplies its matrices; the product does not see what goes on between them (permuted hidden units,
rotated heads' insides, scale moved from one to the other). For W_down W_up, W_o W_v and W_q' W_k:

    M = product (d x d),   phi = vec(M - tr(M)/d I), unit length,   CRS = mean over matched layers of <phi_a, phi_b>

and layers are matched by the assignment that makes the sum largest. Between independent models the score is normal
around 0 with deviation 1/(d sqrt(L)) for given matches; choosing them adds a little. For a child that is rho * parent +
noise it is rho^2, because both factors carry rho: the plain aligned cosine is quadratically more sensitive. GPT-2 size:
related pairs reach .855 at least, unrelated ones .004 at most (published).

At large sizes the product is taken over a seeded sample of c residual channels (rows and columns alike), where the
deviation is 1/(c sqrt(L)). For a gated FFN the gate stands aside, as it does not compose linearly.

Known false positives: the best of many matches (strangers of d 64 reach .02, measured); a dominant direction that both
share (an outlier channel that is large in every layer of both models); norms are not folded in. Known misses: permuted
or rotated residual channels, unequal width (not applied), unequal depth (not applied, as published), gains moved
between norm and matrix. The formula is the one that docs/methods.md quotes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.nulls.exchange import in_range
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import blocks, common_width, expanded, grouped, too_large
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_columns, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.assignment import assign
from weightprint.util.linear_algebra import product
from weightprint.util.ranges import evenly

#: Branch → the roles that it needs; what reads the stream stands first.
BRANCHES: dict[str, tuple[str, str]] = {"down·up": ("up", "down"), "o·v": ("v", "o"), "q'·k": ("q", "k")}

_QUESTION = Evidence(
    test="crs",
    asked="Do the products of the residual branches' maps agree, layer matched to layer?",
    null="none: descriptive. Around 0 with deviation 1/(channels * sqrt(layers)) for independent normal weights",
    assumes="nothing: it decides nothing",
    blind_to="permuted or rotated residual channels, unequal width or depth, gains moved between norm and matrix",
    statistic_of="mean over branches and matched layers of the cosine of the products, multiples of the identity out",
    effect_of="the same",
)


def composed(product: F32) -> F32:
    """phi of a product of maps: its multiple of the identity taken out, flat, unit length; zeros for a zero product."""
    x = product.astype(np.float32, copy=True)
    x[np.diag_indices_from(x)] -= np.trace(x, dtype=np.float64) / x.shape[0]
    norm = float(np.linalg.norm(x))
    out: F32 = (x / norm if norm > 0 else x).reshape(-1)
    return out


def similarity(a: list[F32], b: list[F32]) -> tuple[float, list[tuple[int, int]]]:
    """Mean inner product over the best matching of layers, and the matching."""
    inner = np.array([[float(x @ y) for y in b] for x in a])
    match = assign(-inner).columns
    kept = [(i, int(j)) for i, j in enumerate(match) if j >= 0]
    return float(np.mean([inner[i, j] for i, j in kept])), kept


def _product(
    models: ModelPair, side: ModelView, block: dict[str, Tensor], branch: str, channels: Indices
) -> F32 | None:
    """The branch's product over these channels; None where grouped heads can't be told apart."""
    reads, writes = (block[role] for role in BRANCHES[branch])
    queries = reads.shape[0] if branch == "q'·k" else writes.shape[1]
    inner = writes if branch == "q'·k" else reads  # the one that grouped heads share
    size = grouped(models, side, reads.stack, queries, inner.shape[0])
    if size is None:
        return None
    second = expanded(sampled_columns(side, inner, channels).T, queries, size)
    first = sampled_columns(side, reads, channels) if inner is writes else sampled_rows(side, writes, channels)
    out: F32 = product(in_range(first), in_range(second))  # what follows is blind to scale
    return out


@partial(Test, published=True)
def crs(models: ModelPair) -> Evidence:
    """Matched inner products per branch, and their mean."""
    limit = models.budget.published
    scores: dict[str, float] = {}
    matches: dict[str, list[tuple[int, int]]] = {}
    why = "no branch has both its matrices on both sides, with one hidden size"
    n_channels = n_layers = 0
    for branch, roles in BRANCHES.items():
        a, b = blocks(models.a, roles), blocks(models.b, roles)
        width = common_width(a, b, roles[0])
        if not a or not b or width is None:
            continue
        if len(a) != len(b):
            why = f"the depths differ ({len(a)} and {len(b)} layers)"
            continue
        layers = evenly(range(len(a)), limit.layers)
        numbers = [[sorted(found)[i] for i in layers] for found in (a, b)]
        if too_large(models, [found[i] for found, own in zip((a, b), numbers, strict=True) for i in own]):
            why = "this effort does not read such matrices whole"
            continue
        channels = pick(width, limit.channels, models.seed, "crs")
        products = [
            [_product(models, side, found[i], branch, channels) for i in own]
            for side, found, own in zip((models.a, models.b), (a, b), numbers, strict=True)
        ]
        phi_a, phi_b = ([composed(m) for m in own if m is not None] for own in products)
        if len(phi_a) == len(phi_b) == len(layers):
            scores[branch], matches[branch] = similarity(phi_a, phi_b)
            n_channels, n_layers = channels.size, len(layers)
        else:
            why = "heads are grouped and their size is not known"
    if not scores:
        return not_applied(_QUESTION, why)
    score = float(np.mean(list(scores.values())))
    sd = 1 / (n_channels * np.sqrt(n_layers))
    straight = [i == j for kept in matches.values() for i, j in kept]
    return replace(
        _QUESTION,
        says=f"composed maps agree {score:+.4f} over {n_layers} layers (deviation by chance about {sd:.4f})",
        statistic=score,
        effect=score,
        n=n_layers,
        detectable=float(5 * sd),
        details={
            "branches": scores,
            "channels": n_channels,
            "layers": n_layers,
            "chance_sd": float(sd),
            "matched_to_own_layer": float(np.mean(straight)),
        },
    )
