"""A group of models that share an origin, brought into one frame, and how groups are found.

Every model is compared with a reference: the one that most others stand in place with. What shares its origin is of its
group; the rest is asked again, with the next reference. A verdict on a pair joins; likeness alone never does, and a
model that is a merge of two strangers stays in the group that it was found in first, so that it joins nobody. Where the
reference and a model may share no more than a random initialisation, the model's nearest of the group must be one that
it certainly shares training with: a common initialisation is no descent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from weightprint.library.distances import Distances, distances, edits
from weightprint.library.frame import Coordinates, Products, between, coordinates, of_fingerprint, products
from weightprint.library.members import Member, Relation, nearness, relate
from weightprint.util.arrays import F64
from weightprint.verdict.direction.parting import measured
from weightprint.verdict.values import Parting

__all__ = ["Group", "groups"]

_ALIKE, _SAME = 0.3, 0.5  # mean cosine in place of relatives; of models that are compared with a reference once


@dataclass(eq=False)
class Group:
    """Models of one origin. ``coordinates``: what each is in the frame of the reference, empty where nothing of it
    could be brought there."""

    members: list[Member]
    coordinates: list[Coordinates]
    edits_of: F64 | None = None
    _partings: dict[tuple[str, str], Parting | None] = field(default_factory=dict, repr=False)

    @cached_property
    def products(self) -> list[Products]:
        """Inner products, matrix by matrix."""
        return list(products(self.coordinates))

    @cached_property
    def distances(self) -> Distances:
        """Lengths between all of them."""
        return distances(self.products)

    @cached_property
    def edits(self) -> F64:
        """What stands elsewhere, see :func:`weightprint.library.distances.edits`."""
        return edits(self.members, self.distances.common()) if self.edits_of is None else self.edits_of

    def parting(self, i: int, j: int) -> Parting | None:
        """Where two of them parted, on the way from i (0) to j (1)."""
        key = (self.members[i].name, self.members[j].name)
        if key not in self._partings:
            self._partings[key] = measured(between(self.coordinates[i], self.coordinates[j]))
        return self._partings[key]

    def only(self, keep: Sequence[int]) -> Group:
        """Some of the models; what was measured of them is kept."""
        part = self.edits[np.ix_(keep, keep)]
        return Group([self.members[i] for i in keep], [self.coordinates[i] for i in keep], part, self._partings)


def groups(members: Sequence[Member], seed: int = 0) -> tuple[list[Group], F64]:
    """All models in groups, a model without relatives in one of its own; and how near they stand in place."""
    near = nearness(members)
    alike = near >= _ALIKE
    order = sorted(range(len(members)), key=lambda i: (-alike[i].sum(), -near[i].sum(), members[i].name))
    left, out = list(order), []

    def sure(i: int, inside: list[int]) -> bool:
        nearest = max(inside, key=lambda k: (near[i, k], members[k].name))
        relation = relate(members[nearest], members[i], seed)
        return relation.related and not relation.doubtful

    while left:
        reference, *others = left
        found: dict[int, Coordinates] = {}
        apart: list[int] = []
        for i in [reference, *sorted(others, key=lambda i: (-near[reference, i], members[i].name))]:
            if near[reference, i] < _ALIKE and any(near[i, k] >= _SAME for k in apart):
                continue  # as good as a model that was compared
            relation = relate(members[reference], members[i], seed)
            placed = _placed(members[reference], members[i], relation) if relation.related or i == reference else {}
            if i != reference and relation.related and relation.doubtful and not sure(i, list(found)):
                apart.append(i)
            elif i == reference or (relation.related and (placed or relation.verdict != "partly_shared")):
                found[i] = placed
            else:
                apart.append(i)
        inside = [i for i in order if i in found]
        out.append(Group([members[i] for i in inside], [found[i] for i in inside]))
        left = [i for i in left if i not in found]
    return out, near


def _placed(reference: Member, member: Member, relation: Relation) -> Coordinates:
    if reference.kept is not None and member.kept is not None:
        return of_fingerprint(member.kept, reference.kept)
    return coordinates(relation, relation.maps)
