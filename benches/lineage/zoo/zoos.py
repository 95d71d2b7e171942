"""The two zoos: FULL, the benchmark's, and SMALL, which CI builds in a few minutes on two cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import plans_edited, plans_small, plans_trained
from .plans import Plan, Plans, table
from .plans_roots import roots

Part = Callable[[Plans], Iterator[Plan]]


def assembled(first: Iterator[Plan], *parts: Part) -> Plans:
    """The table of `first` and of every part, each of which sees the rows before it."""
    plans = table(first)
    for part in parts:
        plans = table([*plans.values(), *part(plans)])
    return plans


#: In the order of building: what others need first and what is cheap comes first, long washes last.
FULL: Plans = assembled(
    roots(),
    plans_trained.fine_tunes,
    plans_trained.adapters,
    plans_edited.edited,
    plans_edited.together,
    plans_trained.shared_initialisations,
    plans_trained.changed,
    plans_trained.chains,
    plans_trained.continued,
    plans_trained.students,
    plans_trained.washed,
)

SMALL: Plans = assembled(plans_small.roots(), plans_small.descendants)
