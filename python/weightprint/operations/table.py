"""What was done to make B, as far as the weights show it: one file per kind of operation, one list of readers.

A reader takes the facts and yields rows ``{name, parameters, confidence, where}``, named as in METHODS section 5. Where
two readings leave the same trace, the row says the one with fewer steps, and its confidence is below 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from weightprint.operations.architecture import architecture
from weightprint.operations.base import Row
from weightprint.operations.encoded import encoded
from weightprint.operations.experts import experts
from weightprint.operations.heads import heads
from weightprint.operations.layers import layers
from weightprint.operations.low_rank import low_rank
from weightprint.operations.noise import noise
from weightprint.operations.pruning import pruning
from weightprint.operations.reparameterisation import gauge
from weightprint.operations.scaling import scaling
from weightprint.operations.training import training
from weightprint.operations.vocabulary import vocabulary
from weightprint.operations.widths import widths
from weightprint.verdict.facts import Facts

__all__ = ["OPERATIONS", "operations"]

#: Readers of operations, in the order of the report.
OPERATIONS: tuple[Callable[[Facts], Iterable[Row]], ...] = (
    encoded,
    scaling,
    layers,
    experts,
    widths,
    heads,
    vocabulary,
    architecture,
    gauge,
    pruning,
    low_rank,
    noise,
    training,
)


def operations(facts: Facts) -> tuple[Row, ...]:
    """All operations that show, in the order of the table."""
    return tuple(row for read in OPERATIONS for row in read(facts))
