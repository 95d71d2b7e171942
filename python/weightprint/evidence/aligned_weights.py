"""Aligned weights: does B keep A's residual channels in A's places?

For every pair of matrices of equal shape, with the residual stream on one axis, take sampled rows with channels last,
centre rows and columns (centre before any cosine), and scale both to unit mean square: A_t, B_t. Pool

    C = sum_t A_t' B_t          (d x d: how much channel j of A looks like channel k of B, over all tensors)

and divide by the channels' norms. *Hits* are the channels of A whose best match among all channels of B is the
channel of the same number. If B was trained from an initialisation independent of A, the channels of B are
exchangeable, and P(hits >= k) <= 1/k! exactly (:mod:`weightprint.evidence.nulls.exchange`). Two looks are taken, one at
all tensors pooled and one at the best block, and the p-value pays for both and for the number of blocks. Pairs chosen
by their values enter the p-value only where those that met by name have fewer than d rows, and then it pays for that
choice too.

The effect is the mean centred cosine of matched tensors minus that of the same tensors one layer apart (the free
control). Per block it comes with the standard deviation that permuting channels would give. Strangers have |cosine|
<= 4/sqrt(mn): .02 for a block of a few 64 x 64 matrices, .001 for real language models.

Left out of C, with the reason in ``details``: position tables and other fixed tensors (a sinusoidal table gives
channel j a frequency in both models, and breaks exchangeability), tensors equal in both models that have no known
role, matrices where the residual axis isn't sure, vectors (see norm_gains).

Hits beyond chance carry a p-value only where the matrices are more alike, as a whole or in one region, than an order or
a turn of B's stream that was fitted to A would make them (:mod:`weightprint.evidence.nulls.fitted`): strangers whose
stream was put onto A's have hits at any p.

A frozen embedding that both models took from elsewhere pins the residual basis of both: their blocks may then agree a
little in place without descending from each other. The regions say where the agreement lies.

In a basis that was fitted (``models.basis``) channels are no longer exchangeable, so there is no p-value: the cosines
tell how much agrees once B is turned back.

Tried and dropped: a normal tail for the trace of C. On 1,035 pairs of synthetic strangers with outlier channels z
has deviation .98 and a largest value of 5.9, so it is quoted and never turned into a p-value; the hits of the same
pairs have mean 1.02 and variance 1.13, as a Poisson(1) variable should. Not tried: permuting rows of single tensors
(rows of q are tied within a head, so they are not exchangeable one by one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from weightprint.evidence.evidence import Details, Evidence, Region, not_applied
from weightprint.evidence.lookup.channel_sums import Block, Sums, channel_sums, planned
from weightprint.evidence.nulls.exchange import choices, hits, log10_p_hits
from weightprint.evidence.nulls.fitted import FITTED, stands
from weightprint.evidence.nulls.ranked import hits_of_copies, joint_orders, log10_p_of, rank_p, smallest
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.streamed import done, with_cost
from weightprint.evidence.test import Test
from weightprint.evidence.thresholds import LOG10_P
from weightprint.util.arrays import F32, I64

_QUESTION = Evidence(
    test="aligned_weights",
    asked="Does each residual channel of A find itself again in B, pooled over all matrices of equal shape?",
    null="B was trained from an initialisation independent of A, so every joint permutation of B's residual "
    "channels is equally likely",
    assumes="architecture, initialisation and optimiser treat residual channels alike: no fixed sinusoidal "
    "positions added to the "
    "stream, no nested (Matryoshka) widths. A common random initialisation breaks the null as shared training does",
    blind_to="copies whose channels were permuted or rotated, layers in another order, another hidden size, "
    "distillation",
    statistic_of="hits: channels whose best match in B is the channel of the same number",
    effect_of="mean centred cosine of matched tensors minus that of neighbouring layers",
)


def _cosines(block: Block) -> F32:
    scale_a, scale_b = np.sqrt(block.norms_a), np.sqrt(block.norms_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = block.c / scale_a[:, None] / scale_b[None, :]
    return np.where(np.isfinite(out), out, -np.inf).astype(np.float32)


@dataclass(frozen=True)
class AlignedWeights(Details):
    """Of all matrices together, of the ``regions`` they were pooled in, and the centred cosine of each tensor of B."""

    hidden_size: int
    channels: int
    rows_per_tensor: int
    matched_cosine: float
    neighbour_cosine: float | None
    null_sd_of_cosine: float
    z: float | None
    best_region: str
    best_region_hits: int
    log10_price_of_pairing: float
    likeness: float
    fitted_stream: float | None
    withheld: str | None
    regions: Mapping[str, Mapping[str, float]]
    cosines: Mapping[str, float]
    left_out: Mapping[str, str]


def _mirrored(told: AlignedWeights, names: Mapping[str, str], models: ModelPair) -> AlignedWeights:
    return replace(told, cosines={names[n]: cosine for n, cosine in told.cosines.items() if n in names})


@partial(
    Test,
    decides="any basis",
    bases=("stored", "found"),
    answers=("channels in place",),
    exchanges=True,
    details=AlignedWeights,
    mirrored=_mirrored,
    collector=channel_sums,
    cost="long",
    kept="rows",
)
def aligned_weights(models: ModelPair) -> Evidence:
    """Channel hits and centred cosines over all pairs of matrices with a known residual axis."""
    wanted = planned(models)
    if isinstance(wanted, str):
        return not_applied(_QUESTION, wanted)
    sums, streamed = done(models, wanted)
    total = Block.empty(sums.channels.size)
    regions: list[Region] = []
    orders = joint_orders(sums.channels.size, models.seed)
    copies: list[I64] = []
    per_tensor: dict[str, float] = {}
    blocks: dict[str, Block] = {}
    for name, block in sums.blocks():
        per_tensor |= {tensor: cosine for tensor, (cosine, _) in block.cosines.items()}
        if not block.n:
            continue
        counts = hits_of_copies(choices(_cosines(block)), orders)
        regions.append(block.region(name, int(counts[0])))
        copies.append(counts)
        total.add(block)
        blocks[name] = block
    common = float(np.mean(total.controls)) if total.controls else 0.0
    # The first block has no block before it: the mean of the others stands in.
    regions = [r if r.layer is None or r.control != 0.0 else replace(r, control=common) for r in regions]
    if not regions:
        return not_applied(_QUESTION, "every matrix that could be paired is constant")
    found = _answer(models, total, blocks, regions, per_tensor, wanted)
    if models.basis.kind == "identity" and not wanted.multiplicity:
        named_now = choices(_cosines(total))
        whole = hits_of_copies(named_now, orders)
        best = np.max(copies, axis=0)
        answers = smallest([log10_p_of(whole), log10_p_of(best) + math.log10(len(copies))])
        found = replace(found, rank_p=rank_p(-answers, whole, best, salt=named_now.tolist()))
    return with_cost(found, sums) if streamed else found


def _answer(
    models: ModelPair,
    total: Block,
    blocks: dict[str, Block],
    regions: list[Region],
    per_tensor: dict[str, float],
    sums: Sums,
) -> Evidence:
    noise = _cosines(total)
    whole = total.region("all", hits(noise))
    best = max(regions, key=lambda r: r.hits)
    answers = (log10_p_hits(whole.hits), log10_p_hits(best.hits) + math.log10(len(regions)))
    log10_p = min(0.0, min(answers) + math.log10(len(answers)) + sums.multiplicity)
    effect = whole.effect - whole.control
    floors = sums.floors(total, blocks)
    fitted = log10_p <= LOG10_P and not any(stands(*each) for each in floors)
    # A channel is found about half of the time when its cosine equals the expected maximum of d - 1 chance cosines.
    np.fill_diagonal(noise, np.nan)
    spread = float(np.nanstd(np.where(np.isfinite(noise), noise, np.nan)))
    detectable = spread * math.sqrt(2 * math.log(whole.channels))
    says = (
        f"{whole.hits} of {whole.channels} residual channels find themselves again (chance: about 1); centred "
        f"cosine of "
        f"{len(per_tensor)} matched matrices {whole.effect:+.4f}, one layer apart {whole.control:+.4f}"
    )
    return replace(
        _QUESTION,
        says=says,
        statistic=float(whole.hits),
        effect=effect,
        n=len(per_tensor),
        log10_p=log10_p if models.basis.kind == "identity" and not fitted else None,
        detectable=detectable,
        regions=tuple(regions),
        details=AlignedWeights(
            hidden_size=sums.width,
            channels=whole.channels,
            rows_per_tensor=sums.rows,
            matched_cosine=whole.effect,
            neighbour_cosine=whole.control if total.controls else None,
            null_sd_of_cosine=whole.sd,
            z=whole.effect / whole.sd if whole.sd > 0 else None,
            best_region=best.name,
            best_region_hits=best.hits,
            log10_price_of_pairing=sums.multiplicity,
            likeness=total.bulk,
            fitted_stream=floors[0][1] if floors else None,
            withheld=f"{whole.hits} residual channels find themselves again, but {FITTED}" if fitted else None,
            regions={r.name: {"cosine": r.effect, "neighbour": r.control, "sd": r.sd, "hits": r.hits} for r in regions},
            cosines=per_tensor,
            left_out=dict(list(sums.left_out.items())[:200]),
        ),
    )
