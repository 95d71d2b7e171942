"""Work that wants every block of both models, done while they stream by.

Every byte of both models is read once, B first, then A, block by block (:mod:`weightprint.fingerprint.one_pass`). A
test that looks at all blocks would read them all again, which for models larger than memory is a second trip to the
disk. So its look at a block is a `Step`, taken right when that block is read: of B's blocks each step keeps little
(samples, sketches), and each step of A's is held against all of that at once.

A test asks `done` for the result of its steps: those that were taken while the models streamed by, if they look at the
same things, else the same steps taken now. So there is one way to compute, whoever reads. Where it is known by then
which blocks stand in place (:mod:`weightprint.evidence.lookup.settled`), the steps of other pairs follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.steps import Collector, Round

L = TypeVar("L", bound=Collector)


def done(models: ModelPair, wanted: L) -> tuple[L, bool]:
    """``wanted`` with all of its steps taken, and whether that was while the models streamed by."""
    for found in models.collectors:
        if type(found) is type(wanted) and found.what == wanted.what:
            _take(models, found, found.more(models))
            return found, True
    for theirs, ours in wanted.rounds():
        wanted.take_all(models.b, theirs)
        wanted.turn()
        wanted.take_all(models.a, ours)
    return wanted, False


def _take(models: ModelPair, collector: Collector, rounds: Iterable[Round]) -> None:
    for theirs, ours in rounds:
        collector.take_all(models.b, theirs)
        collector.take_all(models.a, ours)


def with_cost(found: Evidence, steps: Collector) -> Evidence:
    """The evidence with what its steps cost, where they were taken before the test ran."""
    return replace(found, seconds=steps.seconds, gemm_seconds=steps.spent.seconds)
