"""What a population of pairs is: pairs with a name each, the makers of their models, and what is true of them.

A maker is a picklable function of a folder that does not exist yet (`functools.partial` of a module's function); it
writes one model there, or elsewhere, and returns where. It is called in the process that compares the pair, and the
folder is gone when the pair is done, so a population takes no room on disk. A is made first, so B's maker may read it
from ``folder.with_name("a")``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..score.pair_table import CLAIMS, SHARED_INIT_VERDICT

__all__ = ["FOUND", "HIDDEN", "PART", "STRANGERS", "UNSURE", "Case", "Expected", "Maker", "Population", "called"]

Maker = Callable[[Path], Path]

UNSURE = ("inconclusive", "no_evidence")


@dataclass(frozen=True)
class Expected:
    """What a right answer is: one of these verdicts and, where it is given, a share within ``within`` of this one."""

    verdicts: frozenset[str]
    share: float | None = None
    within: float = 0.05

    def met(self, record: Mapping[str, Any]) -> bool:
        """Whether what is on record of a pair is right."""
        if record.get("verdict") not in self.verdicts:
            return False
        return self.share is None or abs(record["share"]["value"] - self.share) <= self.within


STRANGERS = Expected(frozenset(UNSURE))
FOUND = Expected(frozenset(CLAIMS))
PART = Expected(frozenset({"partly_shared"}))  #: `replace(PART, share=…)` where the share is known
#: Something of A is in B, and the tests may not see it: anything but the assurance that they would have.
HIDDEN = Expected(frozenset({*CLAIMS, "inconclusive"}))


@dataclass(frozen=True)
class Case:
    """One pair. ``name`` is unique in its population; ``group`` is the row of the table that it counts in."""

    name: str
    a: Maker
    b: Maker
    expected: Expected
    group: str = "all"


@dataclass(frozen=True)
class Population:
    """A row of the benchmark's table of populations.

    Attributes:
        title: heading on the page.
        cases: the first n pairs, the same for every n that is not smaller.
        pairs: how many there are by default.
        efforts: at which they are compared; the first is the one that p-values on the page are of.
        independent: whether every pair is one of strangers and no model is in two pairs, so that ranks and p-values
            say something of the nulls.
    """

    title: str
    cases: Callable[[int], Iterable[Case]]
    pairs: int
    efforts: tuple[str, ...] = ("standard",)
    independent: bool = True


def called(record: Mapping[str, Any]) -> bool:
    """Whether a pair on record was said to have weights in common, be it an initialisation's."""
    return record.get("verdict") in (*CLAIMS, SHARED_INIT_VERDICT)
