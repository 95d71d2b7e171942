"""A second stack in the file: tensors that nothing in the first one uses, there to draw the eye."""

from __future__ import annotations

from .depth import fresh
from .spelling import layer_of
from .work import ALL, Work, operation


@operation(
    forms=ALL,
    preserves=True,
    strengths=({}, {"depth": 1.5, "first": True}, {"prefix": "model.draft"}),
)
def decoy_stack(work: Work, prefix: str = "draft", depth: float = 1.0, first: bool = False) -> None:
    """Add blocks under another prefix: the second parent's, or drawn ones, `depth` times as many as there are.

    `first`: they stand before the real ones in the file.
    """
    if work.others:
        decoy = {f"{prefix}.{n}": x for n, x in work.others[0].tensors.items() if layer_of(n) is not None}
    else:
        decoy = {}
        for i in range(round(depth * work.depth)):
            at = f"model.layers.{i % work.depth}."
            for name, x in work.tensors.items():
                if name.startswith(at):
                    new = f"{prefix}.model.layers.{i}.{name.removeprefix(at)}"
                    decoy[new] = fresh(work, name, x.shape, x)
    work.note(from_second=bool(work.others), names=len(decoy))
    work.added, work.added_first = decoy, first
