"""Where a model's parameters are: by part, by how they are stored, and how many of them a token uses.

Every weight counts once (a tied head is the embedding). Of a Mixture-of-Experts' routed experts a token uses k of n;
how many that is stands in no tensor, only in the config, so the *active* count is context: it is shown where the config
says it, and nowhere else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.geometry import active_experts


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a model: its weights, their elements, and those that a token uses (None: the config doesn't say)."""

    part: str
    n_weights: int
    n_parameters: int
    n_active: int | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Stored:
    """One way of storing weights: ``"BF16"``, ``"I4 gptq"``; bytes include scales and zero points."""

    kind: str
    n_weights: int
    n_parameters: int
    n_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "bits_per_parameter": self.bits}

    @property
    def bits(self) -> float | None:
        """Bits per parameter."""
        return 8 * self.n_bytes / self.n_parameters if self.n_parameters else None


def parts(anatomy: Anatomy) -> list[Part]:
    """All parts, largest first; weights without a place are the part ``"unmapped"``."""
    elements: Counter[str] = Counter()
    weights: dict[str, set[str]] = defaultdict(set)
    routed: Counter[tuple[str, str]] = Counter()
    for a in anatomy.assignments:
        if a.tied:
            continue
        place, n = a.place, prod(a.view.shape)
        part: str = place.part
        elements[part] += n
        weights[part].add(a.view.weight)
        if isinstance(place.expert, int):
            routed[part, place.stack] += n
    shapes = anatomy.weights.shapes
    for part, names in (("adapter", anatomy.adapter_factors), ("unmapped", anatomy.unmapped)):
        if names:
            elements[part] += sum(prod(shapes[name]) for name in names)
            weights[part].update(names)
    idle: dict[str, int | None] = dict.fromkeys(elements, 0)
    for (part, stack), n in routed.items():
        share, so_far = _active_share(anatomy, stack), idle[part]
        idle[part] = None if share is None or so_far is None else so_far + n - n * share[0] // share[1]
    return [
        Part(part, len(weights[part]), n, n - rest if routed and (rest := idle[part]) is not None else None)
        for part, n in elements.most_common()
    ]


def _active_share(anatomy: Anatomy, stack: str) -> tuple[int, int] | None:
    """(experts that a token uses, all experts)."""
    geometry = anatomy.geometry.get(stack)
    k = active_experts(anatomy.checkpoint.config, stack)
    n = geometry.experts if geometry else None
    return (k, n) if k and n and k <= n else None


def stored(anatomy: Anatomy) -> list[Stored]:
    """How weights are stored, most bytes first."""
    kinds: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for name, shape in anatomy.weights.shapes.items():
        kind, nbytes = anatomy.weights.stored_as(name)
        sums = kinds[kind]
        sums[0] += 1
        sums[1] += prod(shape)
        sums[2] += nbytes
    return sorted((Stored(kind, *sums) for kind, sums in kinds.items()), key=lambda s: (-s.n_bytes, s.kind))


def stored_kind(anatomy: Anatomy, name: str) -> str:
    """The type that a weight is stored in, with its scheme when it is quantised: ``"BF16"``, ``"I4 gptq"``."""
    return anatomy.weights.stored_as(name)[0]
