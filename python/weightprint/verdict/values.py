"""What a verdict is made of, as plain values: what other stages read, and what the JSON holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from weightprint.anatomy.place import Expert

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
class Parting:
    """Where two models parted, on the way from A (0) to B (1): see :mod:`weightprint.verdict.direction.parting`.

    Attributes:
        t, low, high: the mean of both sides' t, and the interval that covers both with two standard deviations.
        of_a, of_b: t as it is read from A's side, exact if A came first, and from B's.
        sd_of_a, sd_of_b: their standard deviations.
        within_kinds: t with an intercept for each kind of matrix.
        kept: the factor that B has of A where nothing was learned, and A of B: below 1 after weight decay.
        pull: decay from A to B (negative: from B to A) in units of the squared difference.
        plain: t without decay fitted.
        relative: size of the difference over that of the weights.
        zeroed: share of the values that are zero on one side only; they are left out.
        edge: largest singular value of the difference over that of white noise of its size, median over some matrices;
            None from sketches.
        values: that were compared.
        blocks, matrices: that were compared.
        kinds: role of matrices → their own t, low and high: (low, t, high).
        coded: a matrix of either is stored in codes of a scheme of quantisation.
        sd_of_plain: what linear sketches leave open of it, where it was read from these, matrix by matrix; else 0.
        same_parts: of sketches: both models have the same tensors in the same types, and neither is coded.
    """

    t: float
    low: float
    high: float
    of_a: float
    of_b: float
    sd_of_a: float
    sd_of_b: float
    within_kinds: float
    kept: tuple[float, float]
    pull: float
    plain: float
    relative: float
    zeroed: float
    edge: float | None
    values: int
    blocks: int
    matrices: int
    kinds: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    coded: bool = False
    sd_of_plain: float = 0.0
    same_parts: bool = True

    @property
    def sketched(self) -> bool:
        """Read from sketches: no value was looked at."""
        return self.sd_of_plain > 0


@dataclass(frozen=True, slots=True)
class Cues:
    """Those that were found, and where the two parted; ``hint``: what is told where nothing can be claimed.
    ``coarser``: a side that lost in some matrices what the other kept, though others changed otherwise: it claims
    nothing, but the other can't have been made from it."""

    found: tuple[Cue, ...] = ()
    hint: str | None = None
    parting: Parting | None = None
    coarser: Cue | None = None


@dataclass(frozen=True, slots=True)
class Direction:
    """The later model (None: not known), how sure (0..1, None without a claim), and why, in a sentence.

    Attributes:
        relation: ``"descent"``: one was made from the other, or from what it still holds; ``"siblings"``: both hold
            something new; None where neither can be told (with `later`: made from the other one, or a sibling of it
            that has moved much further).
        parted_at: where siblings parted on the way from A (0) to B (1): (t, low, high).
        measured: the numbers behind it, None where nothing was compared.
    """

    later: Label | None
    confidence: float | None
    because: str
    relation: Literal["descent", "siblings"] | None = None
    parted_at: tuple[float, float, float] | None = None
    measured: Parting | None = None

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
