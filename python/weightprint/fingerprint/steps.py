"""Work on every block of both models, done while their bytes pass.

Every byte of both models is read once, B first, then A, block by block (:mod:`weightprint.fingerprint.one_pass`). A
test that needs all blocks would read them all again, which for models larger than memory is a second trip to the disk.
So its work on a block is a `Step`, taken right when that block is read: of B's blocks each step keeps little (samples,
sketches), and each step of A's is held against all of that at once.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import Read
from weightprint.util import parallel
from weightprint.util.linear_algebra import Spent, accounted

#: A block (stack and number), or the name of a tensor outside the blocks.
Where = tuple[str, int] | str


def where(tensor: Tensor) -> Where:
    """What a canonical tensor passes with."""
    return tensor.name if tensor.layer is None else (tensor.stack, tensor.layer)


@dataclass(frozen=True, slots=True)
class Step:
    """Work on one block of one side, or on a tensor outside. ``take`` is given that side; ``reads`` says which
    samples it will ask it for, so that they can be copied as the bytes pass."""

    where: Where
    take: Callable[[ModelView], None] = field(repr=False)
    reads: tuple[Read, ...] = field(repr=False, default=())


#: Steps of B, and those of A that need no others of B.
Round = tuple[Sequence[Step], Sequence[Step]]


class Collector(ABC):
    """The steps of one test. Those of one side may be taken in any order and side by side; A's come after B's, either
    round by round or all rounds at once."""

    def __init__(self) -> None:
        self.spent = Spent()
        self.seconds = 0.0
        self._adding = threading.Lock()
        self._steps: dict[str, dict[Where, list[Step]]] = {}

    @property
    @abstractmethod
    def what(self) -> Hashable:
        """What is looked at, and how: of two that are equal the results are."""

    @abstractmethod
    def rounds(self) -> Iterable[Round]:
        """All steps. Several rounds where less has to be held when they are taken one after the other."""

    def more(self, models: Any) -> Iterable[Round]:
        """Steps that are asked for once the others have shown where blocks of B were found; it knows of the pair
        (:class:`weightprint.evidence.pair.ModelPair`) what these did not."""
        return ()

    def turn(self) -> None:
        """Called between B's steps and A's."""
        return

    def of(self, label: str, place: Where) -> Sequence[Step]:
        """The steps of side ``"a"`` or ``"b"`` at one place."""
        if label not in self._steps:
            found: dict[Where, list[Step]] = defaultdict(list)
            for theirs, ours in self.rounds():
                for step in ours if label == "a" else theirs:
                    found[step.where].append(step)
            self._steps[label] = found
        return self._steps[label].get(place, ())

    def take_all(self, side: ModelView, steps: Iterable[Step]) -> None:
        """Take these steps, side by side."""
        for _ in parallel.each(lambda step: self.take(step, side), steps):
            pass

    def take(self, step: Step, side: ModelView) -> None:
        """Take a step, and count what it costs."""
        started = time.perf_counter()
        with accounted() as spent:
            step.take(side)
        with self._adding:
            self.seconds += (time.perf_counter() - started) / parallel.sharing()
            self.spent.seconds += spent.seconds
            self.spent.cpu += spent.cpu
