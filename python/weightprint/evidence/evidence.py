"""The answer that every test returns.

It says what was found, how large the effect is, how likely chance is under a stated null (or that there is no p-value),
what is assumed and what can't be seen. A test never decides: :mod:`weightprint.verdict` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.place import Expert
from weightprint.fingerprint.ffns import ffn_name


@dataclass(frozen=True, slots=True)
class Shared:
    """One tensor of B that was found in A, for the share; ``kind`` says how. Of the kind ``rounded`` are values that
    differ as the codes of a quantiser make them differ, and nothing says that they are the same.
    """

    b: str
    a: str
    kind: Literal["exact", "re_encoded", "parameter", "trivial", "rounded", "scaled", "reordered"]
    numel: int


@dataclass(frozen=True, slots=True)
class Region:
    """One block or part of B against its counterpart in A.

    ``effect`` is the centred cosine in place, ``control`` that of neighbouring layers (0 outside the blocks), ``sd``
    the deviation that permuted channels would give, ``hits`` of ``channels`` (or units) found again.
    """

    name: str
    layer: int | None
    n: int
    effect: float
    control: float
    sd: float
    hits: int
    channels: int
    tensors: tuple[str, ...] = ()

    @property
    def stack(self) -> str:
        """The stack of its block; its name outside the blocks."""
        return self.name.removesuffix(f".{self.layer}")

    @property
    def excess(self) -> float:
        """Cosine of matched tensors beyond that of the same tensors one layer apart."""
        return self.effect - self.control

    @property
    def detectable(self) -> float:
        """The cosine that would have stood five null deviations out."""
        return 5 * self.sd


@dataclass(frozen=True, slots=True)
class UnitMatch:
    """One FFN (or expert) of B against the FFN of A that it agrees with.

    Attributes:
        b, a: ``(stack, block, expert)`` on either side.
        tested: units of B that were looked for.
        agreed: of these, the ones that were found.
        expected: how many chance would find, given the hubs.
        log10_p: of this many or more, corrected for nothing.
        units: unit of B → unit of A, as far as known; int64 (n, 2).
        nearest: of the found ones, those that resemble their unit here more than any in A's other FFNs.
        span: first and last + 1 of A's units that it holds, where ``units`` were not kept.
    """

    b: tuple[str, int, Expert]
    a: tuple[str, int, Expert]
    tested: int
    agreed: int
    expected: float
    log10_p: float
    units: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    nearest: int = 0
    span: tuple[int, int] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """``"decoder.7"`` or ``"decoder.7.expert.3"``: the FFN of B."""
        return ffn_name(self.b)

    @property
    def share(self) -> float:
        """Units of B found in A beyond chance, 0..1."""
        return max(0.0, (self.agreed - self.expected) / max(self.tested - self.expected, 1.0))


@dataclass(frozen=True)
class Details(Mapping[str, Any]):
    """What a test tells besides: attributes for those who read it, and a mapping of them for the JSON.

    Each kind is a frozen dataclass. A field with a default is in the mapping only where it differs from it.
    """

    def _told(self) -> dict[str, Any]:
        values = ((f, getattr(self, f.name)) for f in fields(self))
        return {f.name: value for f, value in values if value is not f.default}

    def __getitem__(self, key: str) -> Any:
        return self._told()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._told())

    def __len__(self) -> int:
        return len(self._told())


D = TypeVar("D", bound=Details)


@dataclass(frozen=True)
class Evidence:
    """The answer of one test.

    Attributes:
        test: name of the test, which is also its file.
        asked: the question in one sentence.
        applied: False when the test could not be run; ``why_not`` then says why.
        statistic: the number the p-value is about (``statistic_of`` names it).
        effect: how large it is in units a person can use (``effect_of`` names them).
        n: how many things were tested (``details`` says of what).
        log10_p: base-10 logarithm of the p-value under ``null``, or None: descriptive.
        null: the hypothesis that the p-value is about, in one sentence.
        assumes: what must hold for the p-value to be one.
        blind_to: what the test can't see.
        says: the outcome in one sentence.
        detectable: the smallest effect that the test would have seen, or None.
        basis: how the residual channels were brought together before it was run: ``"identity"`` as stored.
        semantic: that alignment came through shared tokens, so strangers that learned from the same data may agree.
        matches: one for each FFN or expert of B, its best of A, whether that means anything or not.
        others: the runner-up of each, and all further ones that chance does not explain, best first.
        rank_p: from the rank of the statistic among permuted copies of B, ties broken at random: uniform under the
            null, where ``log10_p`` is on the safe side. It can't be small; it is there to test the null.
        details: what else it tells. Where other files read it, it is a kind of :class:`Details` (see :meth:`told`).
        seconds, gemm_seconds: what it took, and how much of that products and decompositions of matrices.
    """

    test: str
    asked: str
    applied: bool = field(default=True, kw_only=True)
    null: str
    assumes: str
    blind_to: str
    why_not: str | None = None
    statistic: float | None = None
    statistic_of: str = ""
    effect: float | None = None
    effect_of: str = ""
    n: int = 0
    log10_p: float | None = None
    says: str = ""
    detectable: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    found: tuple[Shared, ...] = ()
    regions: tuple[Region, ...] = ()
    matches: tuple[UnitMatch, ...] = ()
    basis: str = "identity"
    semantic: bool = False
    others: tuple[UnitMatch, ...] = ()
    rank_p: float | None = None
    seconds: float = 0.0
    gemm_seconds: float = 0.0

    def told(self, kind: type[D]) -> D:
        """The details, which a test of this kind has told. TypeError if it was another one, or not applied."""
        if not isinstance(self.details, kind):
            raise TypeError(f"{self.test} has told no {kind.__name__}")
        return self.details

    def telling(self, **details: Any) -> Evidence:
        """With these details instead."""
        told = self.details
        return replace(self, details=replace(told, **details) if isinstance(told, Details) else {**told, **details})

    # What tests of several kinds tell

    @property
    def withheld(self) -> str | None:
        """Why its p-value must not decide."""
        return self.details.get("withheld")

    @property
    def left_out_of_p(self) -> Sequence[str]:
        """FFNs of B that the basis was fitted on."""
        return tuple(self.details.get("left_out_of_p", ()))

    @property
    def pairs_tried(self) -> int:
        """What a match's p-value must be corrected for."""
        return max(1, int(self.details.get("pairs_tried", len(self.matches))))

    @property
    def found_by(self) -> str:
        """How the basis was found, since there may be two of one kind."""
        return str(self.details.get("basis", self.basis))

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract's keys in its order, then what we add."""
        first = "test applied why_not statistic effect n log10_p null assumes blind_to seconds"
        added = "asked says statistic_of effect_of detectable basis semantic rank_p gemm_seconds"
        return {key: getattr(self, key) for key in f"{first} {added}".split()} | {"details": dict(self.details)}


def not_applied(evidence: Evidence, why: str) -> Evidence:
    """The same question, unanswered."""
    return replace(evidence, applied=False, why_not=why, says=f"not applied: {why}")
