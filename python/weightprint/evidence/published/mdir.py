"""MDIR [2508.06309]: the orthogonal map between two embeddings, against a random one.

The polar factor Q of E_A' E_B over shared tokens (Q = U V' of its singular vectors) is the best rotation of one
embedding onto the other. Between models of one origin it is near the identity, or near a permutation of channels;
between strangers it behaves like a Haar matrix, whose trace is standard normal and for whose trace

    P(tr Q >= t d) ~ exp(-d^2 I(t)),   I(t) = t^2/2 up to t = 1/2,   1/8 - ln(2 - 2t)/4 beyond

(large deviations of the orthogonal group, the Legendre transform of the Gross-Witten free energy; beyond one half the
eigenvalues leave part of the circle). The p-value that
follows is tried at the identity, and at the best permutation of channels with log10 d! added for the choice. The score
is minus its log10, since the authors decide by it; it is quoted, never used.

Known false positives: channels that are not exchangeable, such as a few outlier channels at fixed places, make the
trace of strangers larger than Haar's. A shared initialisation of the embedding alone reads as full kinship. Known
misses: a replaced vocabulary, a retrained embedding, a rotation (the polar factor then *is* that rotation, far from
any permutation), unequal width. Channels are sampled at large sizes, where only copies that kept their channels'
places are found.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import shared_tokens
from weightprint.evidence.test import Test
from weightprint.fingerprint.sampling import pick
from weightprint.util.assignment import assign
from weightprint.util.linear_algebra import polar, product

_MIN_CHANNELS = 8

_QUESTION = Evidence(
    test="mdir",
    asked="Is the best rotation between the embeddings the identity, or a permutation?",
    null="none here: the authors' p-value, against a Haar matrix, is the score",
    assumes="nothing: it decides nothing",
    blind_to="a replaced vocabulary, a retrained embedding, rotated channels, unequal width",
    statistic_of="minus log10 of the p-value that the authors claim",
    effect_of="trace of the polar factor over the number of channels, at the better of identity and permutation",
)


def log10_haar_tail(t: float, d: int) -> float:
    """log10 of P(tr Q >= t d) for a Haar matrix, by large deviations; 0 for t <= 0."""
    if t <= 0:
        return 0.0
    rest = max(1 - t, 1e-9)  # a float32 embedding does not know more
    rate = t * t / 2 if t <= 0.5 else 0.125 - 0.25 * math.log(2 * rest)
    return -d * d * rate / math.log(10)


@partial(Test, published=True)
def mdir(models: ModelPair) -> Evidence:
    """Trace of the polar factor at the identity and at the best permutation, and the claimed p-value."""
    limit = models.budget.published
    tokens = shared_tokens(models, limit.tokens)
    if isinstance(tokens, str):
        return not_applied(_QUESTION, tokens)
    x, y = tokens
    if x.shape[1] != y.shape[1]:
        return not_applied(_QUESTION, f"the embeddings' widths differ ({x.shape[1]} and {y.shape[1]})")
    # Fewer tokens than channels would leave part of the polar factor open.
    want = min(2 * limit.channels, x.shape[0] // 2)
    if min(want, x.shape[1]) < _MIN_CHANNELS:
        return not_applied(_QUESTION, "too few shared tokens to fix an orthogonal map")
    channels = pick(x.shape[1], want, models.seed, "mdir", run=min(32, want))
    q = polar(product(x[:, channels].T, y[:, channels]).astype(np.float64))
    d = q.shape[0]
    order = assign(-q).columns
    here, moved = (float(q[np.arange(d), at].sum()) / d for at in (np.arange(d), order))
    every = math.lgamma(d + 1) / math.log(10)
    claims = log10_haar_tail(here, d), min(0.0, log10_haar_tail(moved, d) + every)
    claimed = min(0.0, min(claims) + math.log10(2))
    effect = here if claims[0] <= claims[1] else moved
    return replace(
        _QUESTION,
        says=f"the polar factor of the embeddings has trace {here:+.3f} of {d} channels ({moved:+.3f} at the best "
        f"permutation); a random rotation would have 0 +- {1 / d:.3f}",
        statistic=-claimed,
        effect=effect,
        n=d,
        detectable=5 / d,
        details={
            "trace_share": here,
            "trace_share_permuted": moved,
            "claimed_log10_p": claimed,
            "channels": d,
            "sampled": d < x.shape[1],
            "tokens": int(x.shape[0]),
        },
    )
