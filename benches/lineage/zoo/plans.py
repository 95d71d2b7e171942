"""The family tree: every model of the zoo as one row, before any of them exists.

A row says where the weights come from (a seed, or an operation on its parents), how they are trained from there, if at
all, and on which side of the fit/test split it stands. Thresholds may be chosen on the fit side only; a split by *root*
is the one that counts, so descendants stand where their roots do and nothing is merged across.

`plans_roots` has the independent models, `plans_trained` what is made by training on, `plans_edited` what is made
without. `FULL` and `SMALL` are the two zoos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .forms import Shape
from .forms_train import Recipe

KINDS = ("root", "shared_init", "distilled", "descendant")
SPLITS = ("fit", "test")


@dataclass(frozen=True)
class Plan:
    """How one model comes to be.

    Attributes:
        kind: as in `model_folder.Truth`.
        shape: of a model with weights of its own (roots, shared initialisations, students); else None.
        seed: of the random weights, or of the operation.
        parents: whose weights it takes, by name.
        operation, parameters: a row of `operations.OPERATIONS`, applied to the parents; empty to train on directly.
        recipe: the training after that, None for none.
        step: what the training is called in the truth (fine_tune, continued_pretraining, wash, lora_merge …).
        init_of: the root that has the same random weights (shared initialisations).
        teacher: the model that a student learns from.
    """

    name: str
    kind: str
    split: str
    seed: int = 0
    shape: Shape | None = None
    parents: tuple[str, ...] = ()
    operation: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    step: str = ""
    init_of: str = ""
    teacher: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """The models that must be built before."""
        return self.parents + ((self.teacher,) if self.teacher else ())


Plans = dict[str, Plan]


def table(rows: Iterable[Plan]) -> Plans:
    """The rows by name, checked: names once, parents first and on the same side.

    Raises:
        ValueError: a row that breaks one of these rules.
    """
    out: Plans = {}
    for row in rows:
        if row.name in out:
            raise ValueError(f"{row.name} is planned twice")
        if row.kind not in KINDS or row.split not in SPLITS:
            raise ValueError(f"{row.name}: no such kind or split")
        for name in row.needs + ((row.init_of,) if row.init_of else ()):
            if name not in out:
                raise ValueError(f"{row.name} needs {name}, which is not planned before it")
            if out[name].split != row.split:
                raise ValueError(f"{row.name} is on the {row.split} side, {name} on the other")
        if (row.shape is None) != bool(row.parents):
            raise ValueError(f"{row.name} needs either a shape or parents")
        out[row.name] = row
    return out
