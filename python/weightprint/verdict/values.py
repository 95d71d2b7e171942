"""What a verdict is made of, as plain values: what other stages read, and what the JSON holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from weightprint.anatomy.place import Expert

__all__ = ["Cue", "Cues", "Direction", "ExpertMatch", "Label", "LayerMatch", "Name", "Share"]

#: The two models.
Label = Literal["a", "b"]

#: The verdicts.
Name = Literal[
    "identical",
    "re_encoded",
    "shared_origin",
    "partly_shared",
    "shared_initialisation",
    "no_evidence",
    "inconclusive",
]


@dataclass(frozen=True, slots=True)
class Cue:
    """A trace that one order of the two explains and the other doesn't."""

    later: Label
    confidence: float
    because: str


@dataclass(frozen=True, slots=True)
class Cues:
    """Those that were found; ``hint``: what is told where there are none, and claims nothing."""

    found: tuple[Cue, ...] = ()
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Direction:
    """The later model (None: not known), how sure (0..1, None without a claim), and why, in a sentence."""

    later: Label | None
    confidence: float | None
    because: str

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Share:
    """Fraction of B's parameters found in A: what was found, and at most this plus what was not tested."""

    value: float | None
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """The fields, ready for JSON."""
        return asdict(self)


class LayerMatch(NamedTuple):
    """A layer of B, its layer of A (None: not found), and the share of its units found there or the cosine in place."""

    b: int
    a: int | None
    share: float | None


class ExpertMatch(NamedTuple):
    """An expert of B (None: a dense FFN) with the one of A that its units are from.

    ``share``: of its units; ``span``: first and last + 1 of A's units that it holds, None where they lie scattered.
    """

    layer: int
    expert: Expert
    layer_of_a: int
    share: float
    expert_of_a: Expert
    span: tuple[int, int] | None
