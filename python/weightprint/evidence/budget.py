"""Which rows and channels are read: seeded, the same on both sides, in short contiguous runs so that reading stays
cheap.

The nulls in :mod:`weightprint.evidence.nulls.exchange` hold for any choice made without looking at values, so sampling
costs power and never validity. The number of rows follows from a budget of multiplications, so a large model takes
bounded time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from weightprint.evidence.pair import Models

__all__ = ["BUDGETS", "Budget", "budget_of", "hidden_size", "is_large"]

_MIN_WIDTH = 8


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one effort level may do."""

    rows: int  # per tensor
    units: int  # hidden units per layer
    layers: int  # sampled evenly over the depth
    channels: int  # residual channels
    multiplications: float  # for the channel products
    streamed: int  # largest tensor (in values) that may be read whole for the sake of some columns


BUDGETS: dict[str, Budget] = {
    "quick": Budget(rows=64, units=256, layers=6, channels=2048, multiplications=2e11, streamed=1 << 16),
    "standard": Budget(rows=512, units=512, layers=64, channels=1024, multiplications=2e12, streamed=1 << 40),
    "full": Budget(rows=4096, units=4096, layers=4096, channels=16384, multiplications=1e14, streamed=1 << 40),
}


#: Quick reads at most this share of a model's values, or this many where that would be too few to see anything.
QUICK_SHARE, QUICK_VALUES = 0.006, 1 << 20


#: From this many parameters on, `standard` samples further: what is sampled says enough.
LARGE = 1 << 29


def is_large(models: Models) -> bool:
    """Whether effort `standard` samples further."""
    return models.effort == "standard" and min(models.a.numel, models.b.numel) >= LARGE


def budget_of(models: Models) -> Budget:
    """What the models' effort allows. Quick shrinks its samples to a share of the smaller model; of two large models
    standard samples half as many channels.

    A sampled block costs about nine row samples (the matrices that read the stream, and the looks that take gate and
    up again) and six unit samples.
    """
    budget = BUDGETS[models.effort]
    if models.effort != "quick":
        return replace(budget, channels=budget.channels // 2) if is_large(models) else budget
    allowed = max(QUICK_VALUES, int(QUICK_SHARE * min(models.a.numel, models.b.numel)))
    per_row = budget.layers * (hidden_size(models) or 1024)
    return replace(
        budget,
        rows=min(budget.rows, max(8, allowed // (9 * per_row))),
        units=min(budget.units, max(32, allowed // (6 * per_row))),
        streamed=allowed // (12 * budget.layers),
    )


def hidden_size(models: Models) -> int | None:
    """Width of the residual stream common to A and B: the commonest length of norm gains, else of matrix axes.

    Gains on one side are enough (the other may hide its names); gains that disagree mean that there is no common width.
    """
    gains = [Counter[int](), Counter[int]()]
    axes: Counter[int] = Counter()
    for count, side in zip(gains, (models.a, models.b), strict=True):
        for tensor in side.tensors.values():
            role = tensor.role
            if role is not None and role.part == "norm" and role.axis == "channels" and len(tensor.shape) == 1:
                count[tensor.numel] += 1
            elif tensor.rank2 and role is not None and role.part != "fixed":
                axes.update({n for n in tensor.shape if n >= _MIN_WIDTH})
    widths = {_commonest(count) for count in gains if count} or ({_commonest(axes)} if axes else set())
    return widths.pop() if len(widths) == 1 else None


def _commonest(count: Counter[int]) -> int:
    """The most frequent length; of equally frequent ones the smallest (an FFN is wider than the stream)."""
    return max(count, key=lambda width: (count[width], -width))
