"""Where a tensor sits, and how it is cut out of what is stored: the values that the stages of anatomy pass on.

A *weight* is what a module would hold if nothing were quantised: one stored tensor, or several that decode to one
(:mod:`weightprint.quant.weights`). A weight holds one canonical tensor or more (a fused q|k|v holds three, a stack of
experts one per expert), and each of them is a :class:`View` of it at a :class:`Place`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.roles import Part, role_of

#: A routed expert's number, ``"shared"`` for the one that sees every token, None outside experts.
Expert = int | str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a canonical tensor sits: ``Place("decoder", 7, "up")``. ``block`` is None outside the blocks.

    Example (the models that ``weightprint demo`` writes):
        >>> from weightprint import Place, anatomy
        >>> model = anatomy("weightprint-demo/moe")
        >>> place = Place("decoder", 2, "up", expert=1)
        >>> print(place, "is", model[place].view.weight)
        decoder.2.up[1] is model.layers.2.mlp.experts.1.up_proj.weight
    """

    stack: str
    block: int | None
    role: str
    expert: Expert = None

    @property
    def part(self) -> Part:
        """The part of the model that the role is counted under."""
        return role_of(self.role).part

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """Outside first, then block by block; shared experts before routed ones."""
        expert = -1 if self.expert is None else self.expert if isinstance(self.expert, int) else -0.5
        return (self.stack, -1 if self.block is None else self.block, self.role, expert)

    def __str__(self) -> str:
        block = "" if self.block is None else f".{self.block}"
        expert = "" if self.expert is None else f"[{self.expert}]"
        return f"{self.stack}{block}.{self.role}{expert}"


@dataclass(frozen=True, slots=True)
class Rows:
    """A regular choice of rows: ``count`` runs of ``length`` rows, the first at ``start``, ``stride`` apart.

    ``Rows(0, d)`` is the first d rows; ``Rows(hd, hd, 3 * hd, heads)`` the keys of a per-head q|k|v;
    ``Rows(1, 1, 2, h)`` every second row. With ``pairs`` = head size, the rows of each head are stored as rotary pairs
    (0, hd/2, 1, hd/2 + 1, …) and come out as halves (0, 1, …, hd - 1), as Llama checkpoints of the hub hold them.
    """

    start: int
    length: int
    stride: int = 0
    count: int = 1
    pairs: int = 0

    @property
    def n(self) -> int:
        """How many rows are chosen."""
        return self.length * self.count

    @property
    def contiguous(self) -> bool:
        """One run in stored order."""
        return not self.pairs and (self.count == 1 or self.stride == self.length)

    def indices(self) -> npt.NDArray[np.intp]:
        """Numbers of the stored rows in canonical order."""
        runs = self.start + self.stride * np.arange(self.count)
        stored = (runs[:, None] + np.arange(self.length)).ravel()
        if self.pairs:
            stored = stored.reshape(-1, self.pairs // 2, 2).swapaxes(1, 2).ravel()
        return stored


@dataclass(frozen=True, slots=True)
class View:
    """How a canonical tensor is cut out of a weight: ``weight[index]``, transposed if ``transposed``, then `rows`.

    Attributes:
        weight: the weight's name.
        index: number along the leading axis, for experts stored in one tensor; None: the whole.
        transposed: the weight is stored (in x out); transposed before rows are chosen.
        rows: which canonical output rows (or elements of a vector); None: all.
        shape: the canonical tensor's shape.
        row_block: with `index`, when experts lie one below the other in a matrix instead of along an axis of their
            own: rows per expert; 0: along an axis.
    """

    weight: str
    shape: tuple[int, ...]
    index: int | None = None
    transposed: bool = False
    rows: Rows | None = None
    row_block: int = 0

    @property
    def whole(self) -> bool:
        """The canonical tensor is the weight as stored."""
        return self.index is None and not self.transposed and self.rows is None


@dataclass(frozen=True, slots=True)
class Assignment:
    """One canonical tensor: where it sits, what it is cut from, and how that is known.

    Attributes:
        place: stack, block, role, expert.
        view: how it is cut from its weight.
        source: ``"table"``: a row of the families; ``"inferred"``: shapes, repetition, words or values said so.
        confidence: 0..1; 1 for a row of the table whose shapes fit.
        because: the reason in a few words: the family's row, or what was inferred from what.
        tied: the same weight also serves another place (a head that is the embedding).
    """

    place: Place
    view: View
    source: Literal["table", "inferred"]
    confidence: float
    because: str
    tied: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Flat, ready for JSON."""
        return {
            "weight": self.view.weight,
            "stack": self.place.stack,
            "block": self.place.block,
            "part": self.place.part,
            "role": self.place.role,
            "expert": self.place.expert,
            "shape": list(self.view.shape),
            "source": self.source,
            "confidence": self.confidence,
            "because": self.because,
            "tied": self.tied,
        }


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of one stack; None where neither config nor shapes say. ``guessed`` names those not certain.

    ``head_dim`` is that of queries and keys; ``value_dim`` differs from it in MLA, where ``nope_dim`` and ``rope_dim``
    are its two parts.
    """

    blocks: int
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn: int | None = None
    experts: int | None = None
    vocabulary: int | None = None
    value_dim: int | None = None
    nope_dim: int | None = None
    rope_dim: int | None = None
    guessed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {key: list(v) if isinstance(v := getattr(self, key), tuple) else v for key in self.__slots__}


#: An inferred place of less confidence is no place: a wrong one would pair what does not belong together.
SURE = 0.75
