"""What one effort may do: every test's share in one table, so that raising or lowering an effort is one edit here.

The nulls in :mod:`weightprint.evidence.nulls.exchange` hold for any choice made without looking at values, so sampling
costs power and never validity. The number of rows follows from a budget of multiplications, so a large model takes
bounded time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from weightprint.fingerprint.model import ModelView

_MIN_WIDTH = 8


@dataclass(frozen=True, slots=True)
class TableBudget:
    """Of token tables; large ones are those of 2^25 values and more."""

    digested: int = 1 << 40  # values of a table that may be read whole
    asked: int = 512  # rows of B that look for their nearest row
    known: int = 1 << 18  # rows of A among which it is sought
    channels: int = 1024  # over which it is sought
    channels_of_large: int = 256
    columns: int = 8192  # rows over which channels are compared
    columns_of_large: int = 2048
    compared: int = 1024  # channels of large ones that are compared over them


@dataclass(frozen=True, slots=True)
class UnitBudget:
    """Of units looked up in every FFN: multiply-adds x 2 that one comparison may cost."""

    each: float = 3e3  # per parameter of A and B, if it need not cost more
    easy: float = 1e12  # at most, if it need not cost more
    limit: float = 1.2e13  # at most
    richest: int = 0  # of `unit_table.PLANS`, the first that may be taken


@dataclass(frozen=True, slots=True)
class OrderBudget:
    """Of units in A's order."""

    units: int = 256  # of every block
    flops: float = 2e12  # multiply-adds x 2 that all pairs of blocks may cost at most
    share: float = 1e9  # of B's values that are read at most
    channels: int | None = None  # on which units are compared, without alignment; None: all


@dataclass(frozen=True, slots=True)
class HeadBudget:
    """Of attention heads."""

    channels: int = 1024  # residual channels
    dims: int = 64  # that a head's products are sketched in
    permutations: int = 20  # of the channels
    compared: int = 8  # blocks of B whose found heads are compared inside
    inside: int = 1 << 20  # heads of each of them


@dataclass(frozen=True, slots=True)
class PublishedBudget:
    """Of one published measure."""

    layers: int = 8  # sampled evenly over the depth
    channels: int = 512  # residual channels, for products d x d
    units: int = 512  # hidden units per layer, for assignments, which cost n^3 where they are exact
    tokens: int = 2048  # shared tokens
    ics_tokens: int = 512  # shared tokens of ICS, whose terms are tokens x tokens
    values: int = 1 << 16  # elements read per tensor where any sample will do


@dataclass(frozen=True, slots=True)
class ChangeBudget:
    """Of what became of tensors that are not equal."""

    tensors: int = 768  # looked at on a few rows
    values: int = 1 << 16  # of each of them
    looks: int = 32  # matrices whose difference is analysed
    rows: int = 256  # of each of them
    columns: int = 640  # of each of them


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one effort may do. What is not said for an effort is as at `standard`."""

    whole: bool = True  # every value may be read; else samples only
    exhaustive: bool = False  # every candidate is looked at, also where a few would do
    rows: int = 512  # per tensor
    units: int = 512  # hidden units per layer
    layers: int = 64  # sampled evenly over the depth
    matrices: int = 4096  # whose channels are compared in place, spread evenly over the model
    channels: int = 1024  # residual channels
    multiplications: float = 2e12  # for products of matrices
    held: int = 1 << 25  # bytes of B's sampled rows that are held while A streams by
    held_rows: float = 1e18  # bytes of all of them, where products allow more
    streamed: int = 1 << 40  # largest tensor (in values) that a test of all blocks may read whole for some columns
    columns_of: int = 1 << 40  # the same, of an alignment or a test of some blocks
    fitted: int = 8  # blocks in which it is measured what a fit would reach
    token_rows: int = 16384  # of both tables, from which an alignment is found
    weak_ffns: int = 6  # of B, whose weak parts are compared
    weak_units: int = 512  # of each of them
    training_blocks: int = 8  # whose matrices tell training in common from an initialisation in common
    gain_permutations: int = 999  # of the channels of gains
    sampled: int = 48  # matrices of the blocks in which signs of a direction are looked for
    zero_matrices: int = 64  # looked at for zeros
    zero_rows: int = 32  # of each of them
    geometry_ffns: int = 512  # per model, spread evenly
    geometry_share: float = 1e9  # of a model's values that are read at most
    geometry_units: int = 1024  # of every FFN, half of them tested
    tables: TableBudget = TableBudget()
    lookup: UnitBudget = UnitBudget()
    order: OrderBudget = OrderBudget()
    heads: HeadBudget = HeadBudget()
    published: PublishedBudget = PublishedBudget()
    changes: ChangeBudget = ChangeBudget()


_EVERY = 1 << 20  # more layers, channels, units or tensors than a model has

BUDGETS: dict[str, Budget] = {
    "quick": Budget(
        whole=False,
        rows=64,
        units=256,
        layers=6,
        channels=512,
        multiplications=2e11,
        streamed=1 << 16,
        columns_of=1 << 16,
        token_rows=2048,
        weak_ffns=2,
        weak_units=256,
        zero_matrices=16,
        zero_rows=12,
        geometry_ffns=12,
        geometry_share=0.006,
        tables=TableBudget(digested=1 << 18, asked=64, known=8192, channels_of_large=1024, columns=2048),
        order=OrderBudget(units=32, flops=1e11, share=0.003),
        heads=HeadBudget(channels=512, dims=48, compared=2),
        published=PublishedBudget(layers=4, channels=256, units=256, tokens=512, ics_tokens=256, values=1 << 13),
    ),
    "standard": Budget(),
    "full": Budget(
        exhaustive=True,
        rows=4096,
        units=4096,
        layers=4096,
        matrices=_EVERY,
        channels=16384,
        multiplications=1e14,
        token_rows=65536,
        weak_ffns=64,
        weak_units=4096,
        training_blocks=64,
        geometry_ffns=_EVERY,
        tables=TableBudget(1 << 40, 2048, _EVERY, _EVERY, _EVERY, 32768, 32768, _EVERY),
        lookup=UnitBudget(each=1e5, easy=1e14, limit=4e14),
        order=OrderBudget(units=512, flops=1e14),
        heads=HeadBudget(channels=4096, dims=96, permutations=50, compared=64),
        published=PublishedBudget(_EVERY, _EVERY, _EVERY, tokens=8192, ics_tokens=4096, values=1 << 40),
        changes=ChangeBudget(tensors=_EVERY, values=_EVERY, looks=_EVERY, rows=1024, columns=4096),
    ),
}

#: Of views of two fingerprints with `KEPT_LARGE` values and more: what was kept of large models is compared in seconds.
KEPT_OF_LARGE = Budget(
    lookup=UnitBudget(easy=5e10, limit=5e10),
    order=OrderBudget(units=96, flops=2e10),
    heads=HeadBudget(dims=24, permutations=6, compared=0),
    training_blocks=4,
    zero_matrices=16,
)
KEPT_LARGE = 1 << 21

#: What stands in an effort's place where views of fingerprints are compared.
KEPT = "kept"

#: Of two large models `standard` samples further: what is sampled says enough.
STANDARD_OF_LARGE = Budget(
    rows=256,
    channels=256,
    fitted=4,
    held=1 << 28,
    held_rows=1 << 28,
    training_blocks=2,
    gain_permutations=199,
    sampled=24,
    geometry_units=512,
    tables=TableBudget(asked=256, columns_of_large=1024, compared=512),
    lookup=UnitBudget(richest=8),
    order=OrderBudget(units=128, channels=512),
    heads=HeadBudget(channels=128, dims=32, permutations=6, compared=0),
    published=PublishedBudget(layers=3, units=256),
    changes=ChangeBudget(looks=18, columns=320),
)

#: Parameters from which on a model is large.
LARGE = 1 << 29

#: Quick reads at most this share of a model's values, or this many where that would be too few to see anything.
QUICK_SHARE, QUICK_VALUES = 0.006, 1 << 20


def budget_for(effort: str, a: ModelView, b: ModelView) -> Budget:
    """What the effort allows for these models. Quick shrinks its samples to a share of the smaller one.

    A sampled block costs about nine row samples (the matrices that read the stream, and the looks that take gate and
    up again) and six unit samples.
    """
    numel = min(a.numel, b.numel)
    if effort == KEPT:
        return KEPT_OF_LARGE if numel >= KEPT_LARGE else BUDGETS["standard"]
    budget = BUDGETS[effort]
    if budget.whole:
        return STANDARD_OF_LARGE if effort == "standard" and numel >= LARGE else budget
    allowed = max(QUICK_VALUES, int(QUICK_SHARE * numel))
    per_row = budget.layers * (hidden_size(a, b) or 1024)
    return replace(
        budget,
        rows=min(budget.rows, max(8, allowed // (9 * per_row))),
        units=min(budget.units, max(32, allowed // (6 * per_row))),
        streamed=allowed // (12 * budget.layers),
    )


def hidden_size(*sides: ModelView) -> int | None:
    """Width of the residual stream common to the models: the commonest length of norm gains, else of matrix axes.

    Gains on one side are enough (the other may hide its names); gains that disagree mean that there is no common width.
    """
    counts = [_lengths(side) for side in sides]
    axes = sum((axes for _, axes in counts), Counter[int]())
    widths = {_commonest(gains) for gains, _ in counts if gains} or ({_commonest(axes)} if axes else set())
    return widths.pop() if len(widths) == 1 else None


def _lengths(side: ModelView) -> tuple[Counter[int], Counter[int]]:
    """How many norm gains have which length, and how many matrices an axis of which; counted once."""
    if "lengths" not in side.memo:
        gains, axes = Counter[int](), Counter[int]()
        for tensor in side.tensors.values():
            role = tensor.role
            if role is not None and role.part == "norm" and role.axis == "channels" and len(tensor.shape) == 1:
                gains[tensor.numel] += 1
            elif tensor.rank2 and role is not None and role.part != "fixed":
                axes.update({n for n in tensor.shape if n >= _MIN_WIDTH})
        side.memo["lengths"] = gains, axes
    found: tuple[Counter[int], Counter[int]] = side.memo["lengths"]
    return found


def _commonest(count: Counter[int]) -> int:
    """The most frequent length; of equally frequent ones the smallest (an FFN is wider than the stream)."""
    return max(count, key=lambda width: (count[width], -width))
