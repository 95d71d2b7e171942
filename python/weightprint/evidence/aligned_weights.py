"""Aligned weights: does B keep A's residual channels in A's places?

For every pair of matrices of equal shape, with the residual stream on one axis, take sampled rows with channels last,
centre rows and columns (centre before any cosine), and scale both to unit mean square: A_t, B_t. Pool

    C = sum_t A_t' B_t          (d x d: how much channel j of A looks like channel k of B, over all tensors)

and divide by the channels' norms. *Hits* are the channels of A whose best match among all channels of B is the
channel of the same number. If B was trained from an initialisation independent of A, the channels of B are
exchangeable, and P(hits >= k) <= 1/k! exactly (:mod:`weightprint.evidence._exchange`). Two looks are taken, one at
all tensors pooled and one at the best block, and the p-value pays for both and for the number of blocks. Pairs chosen
by their values enter the p-value only where those that met by name have fewer than d rows, and then it pays for that
choice too.

The effect is the mean centred cosine of matched tensors minus that of the same tensors one layer apart (the free
control). Per block it comes with the standard deviation that permuting channels would give. Strangers have |cosine|
<= 4/sqrt(mn): .02 for a block of a few 64 x 64 matrices, .001 for real language models.

Left out of C, with the reason in ``details``: position tables and other fixed tensors (a sinusoidal table gives
channel j a frequency in both models, and breaks exchangeability), tensors equal in both models that have no known
role, matrices where the residual axis isn't sure, vectors (see norm_gains).

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
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from weightprint import parallel
from weightprint.evidence._base import F32, Evidence, Expert, Models, Pair, Region, not_applied, timed
from weightprint.evidence._exchange import choices, double_centre, hits, log10_p_hits, trace_sd
from weightprint.evidence._ranked import hits_of_copies, joint_orders, log10_p_of, rank_p, smallest
from weightprint.evidence._sample import (
    Budget,
    Indices,
    budget_of,
    hidden_size,
    pick,
    residual_axis,
    sampled_columns,
    sampled_rows,
)
from weightprint.evidence.exact_sharing import is_fixed, is_position
from weightprint.linear import product

__all__ = ["aligned_weights"]

I64 = npt.NDArray[np.int64]

_QUESTION = Evidence(
    test="aligned_weights",
    asked="Does each residual channel of A find itself again in B, pooled over all matrices of equal shape?",
    applied=True,
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


@dataclass
class _Block:
    """Sums of one region while its tensors stream by."""

    c: F32
    norms_a: F32
    norms_b: F32
    n: int = 0
    layer: int | None = None
    cosines: list[tuple[float, int]] = field(default_factory=list)
    controls: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def region(self, name: str, found: int) -> Region:
        """``found``: its hits."""
        weights = [n for _, n in self.cosines]
        matched = float(np.average([c for c, _ in self.cosines], weights=weights)) if weights else 0.0
        control = float(np.mean(self.controls)) if self.controls else 0.0
        return Region(
            name=name,
            layer=self.layer,
            n=self.n,
            effect=matched,
            control=control,
            sd=trace_sd(self.c) / max(self.n, 1),
            hits=found,
            channels=self.c.shape[0],
            tensors=tuple(self.names),
        )


def _cosines(block: _Block) -> F32:
    scale_a, scale_b = np.sqrt(block.norms_a), np.sqrt(block.norms_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = block.c / scale_a[:, None] / scale_b[None, :]
    return np.where(np.isfinite(out), out, -np.inf).astype(np.float32)


def _new_block(d: int, layer: int | None = None) -> _Block:
    return _Block(np.zeros((d, d), np.float32), np.zeros(d, np.float32), np.zeros(d, np.float32), layer=layer)


@timed
def aligned_weights(models: Models) -> Evidence:
    """Channel hits and centred cosines over all pairs of matrices with a known residual axis."""
    width = hidden_size(models)
    if width is None:
        return not_applied(_QUESTION, "no hidden size common to both models was found")
    if not models.basis.fits(width, width):
        return not_applied(_QUESTION, "the alignment is of a stream of another width")
    if width < 8:
        return not_applied(_QUESTION, f"a hidden size of {width} is too small to test")
    budget = budget_of(models)
    usable, left_out = _usable(models, width, budget)
    if not usable:
        return not_applied(_QUESTION, "no pair of matrices has equal shapes and a known residual axis")
    usable = _sample_layers(usable, budget.layers, left_out)
    channels = pick(width, budget.channels, models.seed, "channels")
    d = channels.size
    rows = max(32, min(budget.rows, int(budget.multiplications / (d * d * len(usable)))))

    total = _new_block(d)
    regions: list[Region] = []
    orders = joint_orders(d, models.seed)
    copies: list[I64] = []
    per_tensor: dict[str, float] = {}
    previous: dict[tuple[str, str, Expert], F32] = {}
    # Decided from names and shapes alone: with at least d named rows, channels can be told apart without values' help.
    named = sum(min(rows, pair.a.shape[1 - axis]) for pair, axis in usable if pair.by_name)
    price = 0.0 if named >= d else models.log10_pairings
    by_region = _by_region(usable)
    seen = parallel.each(lambda p: _look(models, *p, channels, rows), [p for all_ in by_region.values() for p in all_])
    for name, members in by_region.items():
        block = _new_block(d, members[0][0].known.layer)
        for (pair, _), one in zip(members, seen, strict=False):
            if one is not None:
                _add(one, pair, block, previous, per_tensor, counts=pair.by_name or price > 0)
        if block.n:
            counts = hits_of_copies(choices(_cosines(block)), orders)
            regions.append(block.region(name, int(counts[0])))
            copies.append(counts)
            total.c += block.c
            total.norms_a += block.norms_a
            total.norms_b += block.norms_b
            total.n += block.n
            total.cosines.extend(block.cosines)
            total.controls.extend(block.controls)
    common = float(np.mean(total.controls)) if total.controls else 0.0
    # The first block has no block before it: the mean of the others stands in.
    regions = [r if r.layer is None or r.control != 0.0 else replace(r, control=common) for r in regions]
    if not regions:
        return not_applied(_QUESTION, "every matrix that could be paired is constant")
    found = _answer(models, total, regions, per_tensor, left_out, width, rows, price)
    if models.basis.kind != "identity" or price > 0:
        return found
    named_now = choices(_cosines(total))
    whole = hits_of_copies(named_now, orders)
    best = np.max(copies, axis=0)
    looks = smallest([log10_p_of(whole), log10_p_of(best) + math.log10(len(copies))])
    return replace(found, rank_p=rank_p(-looks, whole, best, salt=named_now.tolist()))


def _usable(models: Models, width: int, budget: Budget) -> tuple[list[tuple[Pair, int]], dict[str, str]]:
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
        elif pair.a.constant or pair.b.constant:
            left_out[pair.b.name] = "constant"
        elif (
            pair.a.digest is not None
            and pair.a.digest == pair.b.digest
            and (role is None or is_fixed(models.a, pair.a))
        ):
            left_out[pair.b.name] = "equal in both, and maybe a fixed table"
        elif pair.a.numel > budget.streamed and (axis == 0 or pair.transposed):
            left_out[pair.b.name] = "too large to stream at this effort"
        else:
            usable.append((pair, axis))
    return usable, left_out


def _sample_layers(usable: Sequence[tuple[Pair, int]], limit: int, left_out: dict[str, str]) -> list[tuple[Pair, int]]:
    """Keep everything outside the blocks, and at most ``limit`` blocks spread evenly over the depth."""
    blocks = list(dict.fromkeys(pair.known.region for pair, _ in usable if pair.known.layer is not None))
    if len(blocks) <= limit:
        return list(usable)
    kept = {blocks[i] for i in np.unique(np.linspace(0, len(blocks) - 1, limit).round().astype(int))}
    left_out.update(
        {p.b.name: "block not sampled" for p, _ in usable if p.known.layer is not None and p.known.region not in kept}
    )
    return [(p, axis) for p, axis in usable if p.known.layer is None or p.known.region in kept]


def _by_region(usable: Sequence[tuple[Pair, int]]) -> dict[str, list[tuple[Pair, int]]]:
    """Pairs by block in depth order, so that the control finds the layer before."""
    groups: dict[str, list[tuple[Pair, int]]] = defaultdict(list)
    for pair, axis in sorted(
        usable, key=lambda p: (p[0].known.stack, -1 if p[0].known.layer is None else p[0].known.layer)
    ):
        groups[pair.known.region].append((pair, axis))
    return groups


def _take(models: Models, pair: Pair, axis: int, channels: Indices, rows: int) -> tuple[F32, F32]:
    """Sampled (rows x channels) of both tensors, centred, unit mean square."""
    length = pair.a.shape[1 - axis]
    others = pick(length, rows, models.seed, str(pair.known.key))
    out: list[F32] = []
    for side, tensor, last in ((models.a, pair.a, axis == 1), (models.b, pair.b, (axis == 1) != pair.transposed)):
        take = sampled_rows if last else sampled_columns
        if side.label == "b" and models.basis.kind != "identity":
            x = double_centre(models.basis.to_a(take(side, tensor, others))[:, channels])
        else:
            x = double_centre(take(side, tensor, others, channels))
        scale = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0
        out.append(x / np.float32(scale) if 0 < scale < math.inf else np.zeros_like(x))
    return out[0], out[1]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One pair: sampled rows of A's and B's tensor over the channels, and how channels of one resemble the other's."""

    x: F32
    y: F32
    c: F32
    norms_a: F32
    norms_b: F32


def _look(models: Models, pair: Pair, axis: int, channels: Indices, rows: int) -> _Seen | None:
    """None where there is nothing to compare."""
    x, y = _take(models, pair, axis, channels, rows)
    if x.shape[0] < 2 or not x.any() or not y.any():
        return None
    return _Seen(x, y, product(x.T, y), np.einsum("ij,ij->j", x, x), np.einsum("ij,ij->j", y, y))


def _add(
    seen: _Seen,
    pair: Pair,
    block: _Block,
    previous: dict[tuple[str, str, Expert], F32],
    per_tensor: dict[str, float],
    counts: bool,
) -> None:
    """Add one pair to its block. ``counts``: it enters the p-value and not just the picture."""
    x, y = seen.x, seen.y
    if counts:
        block.c += seen.c
        block.norms_a += seen.norms_a
        block.norms_b += seen.norms_b
        block.n += x.size
    block.names.append(pair.b.name)
    cosine = float(np.trace(seen.c)) / x.size
    block.cosines.append((cosine, x.size))
    per_tensor[pair.b.name] = cosine
    if pair.known.layer is not None:
        key = pair.known.key
        before = previous.get(key)
        if before is not None and before.shape == y.shape:
            block.controls.append(float(np.vdot(before, y)) / y.size)
        previous[key] = x


def _answer(
    models: Models,
    total: _Block,
    regions: list[Region],
    per_tensor: dict[str, float],
    left_out: dict[str, str],
    width: int,
    rows: int,
    price: float,
) -> Evidence:
    noise = _cosines(total)
    whole = total.region("all", hits(noise))
    best = max(regions, key=lambda r: r.hits)
    looks = (log10_p_hits(whole.hits), log10_p_hits(best.hits) + math.log10(len(regions)))
    log10_p = min(0.0, min(looks) + math.log10(len(looks)) + price)
    effect = whole.effect - whole.control
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
        log10_p=log10_p if models.basis.kind == "identity" else None,
        detectable=detectable,
        regions=tuple(regions),
        details={
            "hidden_size": width,
            "channels": whole.channels,
            "rows_per_tensor": rows,
            "matched_cosine": whole.effect,
            "neighbour_cosine": whole.control if total.controls else None,
            "null_sd_of_cosine": whole.sd,
            "z": whole.effect / whole.sd if whole.sd > 0 else None,
            "best_region": best.name,
            "best_region_hits": best.hits,
            "log10_price_of_pairing": price,
            "regions": {
                r.name: {"cosine": r.effect, "neighbour": r.control, "sd": r.sd, "hits": r.hits} for r in regions
            },
            "cosines": per_tensor,
            "left_out": dict(list(left_out.items())[:200]),
        },
    )
