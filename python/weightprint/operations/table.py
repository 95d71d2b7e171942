"""What was done to make B, as far as the weights show it: one file per kind of operation, one list of readers.

A reader takes the facts and the difference B - A as it was measured, and yields operations, named as in METHODS section
5. Where two readings leave the same trace, it says the one with fewer steps, and its confidence is below 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from weightprint.operations.architecture import architecture
from weightprint.operations.base import Operation
from weightprint.operations.changes import Changes, measured
from weightprint.operations.edits.attention_replaced import attention_replaced
from weightprint.operations.edits.directional_ablation import directional_ablation
from weightprint.operations.edits.low_rank_factorised import low_rank_factorised
from weightprint.operations.edits.orthogonal_multipliers import orthogonal_multipliers
from weightprint.operations.encoded import encoded
from weightprint.operations.experts import experts
from weightprint.operations.factors_and_orders import reordering, scaled_lines, scaling
from weightprint.operations.heads import heads
from weightprint.operations.layers import layers
from weightprint.operations.low_rank import low_rank
from weightprint.operations.mirrored import mirrored
from weightprint.operations.noise import noise
from weightprint.operations.pruning import pruning
from weightprint.operations.reparameterisation import reparameterisation
from weightprint.operations.training import training
from weightprint.operations.vocabulary import vocabulary
from weightprint.operations.widths import widths
from weightprint.verdict.facts import Facts
from weightprint.verdict.values import Label
from weightprint.verdict.verdict import Verdict

__all__ = ["OPERATIONS", "STRUCTURAL", "History", "history", "operations"]

#: Every reader, in the order of the report.
OPERATIONS: tuple[Callable[[Facts, Changes], Iterable[Operation]], ...] = (
    encoded,
    scaling,
    reordering,
    layers,
    experts,
    widths,
    attention_replaced,
    heads,
    vocabulary,
    architecture,
    reparameterisation,
    scaled_lines,
    directional_ablation,
    low_rank_factorised,
    orthogonal_multipliers,
    pruning,
    low_rank,
    noise,
    training,
)


#: Those that read no values.
STRUCTURAL = (layers, architecture)


@dataclass(frozen=True, slots=True)
class History:
    """What was done, as far as known, told from the earlier model to the later one.

    Attributes:
        told_from: the earlier model, from which the operations start; None where either may be it.
        operations: where nobody knows which is the earlier, the reading from A to B; of siblings what was done to one
            or both of them since they parted: operations that both readings name.
        operations_if: then what was done if A was there first, from A to B (``"a_first"``), and if B was
            (``"b_first"``); else empty. Of siblings: what was done to B, or to A, to make the difference.
        siblings: neither was made from the other.
    """

    told_from: Label | None = None
    operations: tuple[Operation, ...] = ()
    operations_if: Mapping[str, tuple[Operation, ...]] = field(default_factory=dict)
    siblings: bool = False


def history(facts: Facts, verdict: Verdict, *, values: bool = True) -> History:
    """What was done to make the later model; nothing where the verdict finds nothing shared. Reads values of both;
    without ``values`` only what maps and roles tell."""
    if not verdict.related:
        return History()
    told_from: Label | None = {"a": "b", "b": "a", None: None}[verdict.direction.later]
    ways = {}
    readers = OPERATIONS if values else STRUCTURAL
    if told_from != "b":
        ways["a_first"] = operations(facts, measured(facts) if values else Changes(), readers)
    if told_from != "a":
        turned = mirrored(facts)
        ways["b_first"] = operations(turned, measured(turned) if values else Changes(), readers)
    first = next(iter(ways.values()))
    if verdict.direction.relation == "siblings":
        names = {o.name for o in ways["b_first"]}
        return History(None, tuple(o for o in first if o.name in names), ways, siblings=True)
    return History(told_from, first, ways if told_from is None else {})


def operations(
    facts: Facts, changes: Changes, readers: Sequence[Callable[[Facts, Changes], Iterable[Operation]]] = OPERATIONS
) -> tuple[Operation, ...]:
    """All operations that show, in the order of the report. What one explains wholly, later readers don't see."""
    out: list[Operation] = []
    for reader in readers:
        found = tuple(reader(facts, changes))
        changes = changes.without(frozenset[str]().union(*(o.explains for o in found)))
        out += found
    return tuple(out)
