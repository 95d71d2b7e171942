"""The values that every test reads and returns.

A test is a function ``(PairOfModels) -> Evidence``. It asks one question, and says what it found, how large the
effect is, how likely chance is under a stated null (or that it has no p-value), what it assumes and what it can't
see. A test never decides: :mod:`weightprint.verdict` does.

Values reach a test through :class:`Side`: float32 row slices of a few MB, so a 2 GB embedding costs no more memory
than a small one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.place import Expert, Geometry, Place
from weightprint.anatomy.roles import Role, matrix_of, role_of
from weightprint.linear import accounted, product

if TYPE_CHECKING:
    from weightprint.quant import Levels

__all__ = [
    "F32",
    "IDENTITY",
    "MIN_DISTINCT",
    "SLICE_VALUES",
    "Basis",
    "Evidence",
    "Expert",
    "Geometry",
    "Models",
    "Pair",
    "Reader",
    "Region",
    "Shared",
    "Side",
    "Tensor",
    "Test",
    "UnitMatch",
    "no_gain",
    "no_sample",
    "not_applied",
    "timed",
]

F32 = npt.NDArray[np.float32]

#: A tensor with fewer distinct values (or fewer elements) is trivial: two models can share it by accident.
#:
MIN_DISTINCT = 64

#: Values per slice when a tensor is streamed: 4 MiB of float32.
SLICE_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of one canonical tensor without reading it again.

    ``name`` is the stored name, or says what is cut out of which stored tensor. ``digest`` is BLAKE3 of its bytes, hex.
    ``constant``: it has no two finite values that differ.
    ``place`` is None where the anatomy found none; it says what a tensor does, never whether it is shared. ``zeros``
    counts values that are zero, None where they were not counted. ``levels``: which values a quantised tensor can have,
    None where that is not known; its ``dtype`` is that of the codes, a space, and the scheme. ``offset``: what its
    architecture adds to a norm's gain. ``undecoded``: stored bytes that nothing decodes, equal to others or not read.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    numel: int
    nbytes: int
    digest: str | None = None
    std: float = math.nan
    constant: bool = False
    place: Place | None = None
    zeros: int | None = None
    levels: Levels | None = None
    offset: float = 0.0
    undecoded: bool = False

    @property
    def coded(self) -> bool:
        """True where it is stored as codes of a scheme of quantisation, and read decoded."""
        return " " in self.dtype

    @property
    def matrix(self) -> tuple[int, int]:
        """Shape as (rows, columns): leading axes flattened, a vector is one row."""
        columns = self.shape[-1] if self.shape else 1
        return (self.numel // columns if columns else 0, columns)

    @property
    def rank2(self) -> bool:
        """True for a real matrix: two axes, both longer than one."""
        return len(self.shape) == 2 and min(self.shape) > 1

    @property
    def role(self) -> Role | None:
        """The row of the table of roles, or None."""
        return None if self.place is None else role_of(self.place.role)

    @property
    def layer(self) -> int | None:
        """Number of its block; None outside the blocks or where that is not known."""
        return None if self.place is None else self.place.block

    @property
    def stack(self) -> str:
        """The stack that it belongs to; empty where that is not known."""
        return "" if self.place is None else self.place.stack

    @property
    def region(self) -> str:
        """The part of the model that it belongs to: ``"decoder.7"``, or its role when it is outside the blocks."""
        if self.place is None:
            return "other"
        return matrix_of(self.place.role) if self.layer is None else f"{self.stack}.{self.layer}"

    @property
    def key(self) -> tuple[str, str, Expert]:
        """What it does, in any layer: stack, role and expert; its own name where that is not known."""
        return ("", self.name, None) if self.place is None else (self.stack, self.place.role, self.place.expert)


class Reader(Protocol):
    """How a test gets values: flat elements [start, stop) of a tensor as float32."""

    def __call__(self, name: str, start: int, stop: int) -> F32: ...


#: Runs (start, length) of consecutive indices; of rows in any order, of columns ascending.
Runs = Sequence[tuple[int, int]]


def no_sample(name: str, rows: Runs, columns: Runs | None) -> F32 | None:
    """For tensors that are not read from a file, or not as they are stored."""
    return None


def no_gain(tensor: Tensor) -> F32 | None:
    """For a model whose norms are not known."""
    return None


@dataclass(frozen=True)
class Side:
    """One of the two models: its tensors by name, and a way to read slices of them.

    ``geometry``: stack → its sizes (heads, head size), as far as shapes and config.json tell. ``sample``: runs of rows
    and columns (None: all) of a tensor in one go, float32 (rows, columns); None for one that isn't stored as it is
    read.
    """

    label: Literal["a", "b"]
    tensors: Mapping[str, Tensor]
    reader: Reader = field(repr=False)
    gains: Callable[[Tensor], F32 | None] = field(default=no_gain, repr=False)
    geometry: Mapping[str, Geometry] = field(default_factory=dict, repr=False)
    sample: Callable[[str, Runs, Runs | None], F32 | None] = field(default=no_sample, repr=False)

    @property
    def numel(self) -> int:
        return sum(t.numel for t in self.tensors.values())

    def rows(self, tensor: Tensor, start: int = 0, stop: int | None = None) -> F32:
        """Rows [start, stop) of a tensor seen as a matrix, float32, shape (stop - start, columns)."""
        n_rows, columns = tensor.matrix
        stop = n_rows if stop is None else min(stop, n_rows)
        if stop > start and (found := self.sample(tensor.name, [(start, stop - start)], None)) is not None:
            return found
        return self.reader(tensor.name, start * columns, stop * columns).reshape(stop - start, columns)

    def slices(self, tensor: Tensor, values: int = SLICE_VALUES) -> Iterator[tuple[int, F32]]:
        """The tensor in runs of whole rows of about ``values`` elements: (first row, rows)."""
        n_rows, columns = tensor.matrix
        step = max(1, values // max(columns, 1))
        for start in range(0, n_rows, step):
            yield start, self.rows(tensor, start, start + step)

    def gain(self, tensor: Tensor) -> F32 | None:
        """Gain of the norm that feeds this matrix, as it acts, float32 (columns,); None where none does."""
        found = self.gains(tensor)
        return found if found is not None and found.shape == tensor.shape[-1:] else None

    def is_trivial(self, tensor: Tensor) -> bool:
        """Too simple to be evidence: constant, or fewer than 64 elements or distinct values. Stops reading early."""
        if tensor.constant or tensor.numel < MIN_DISTINCT:
            return True
        seen: npt.NDArray[Any] = np.empty(0, np.float32)
        start, size = 0, 16 * MIN_DISTINCT  # most tensors show it at once
        while start < tensor.numel:
            piece = self.reader(tensor.name, start, min(start + size, tensor.numel))
            seen = np.union1d(seen, piece[np.isfinite(piece)])
            if seen.size >= MIN_DISTINCT:
                return False
            start, size = start + size, SLICE_VALUES // 16
        return True


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of A and the tensor of B that is compared with it. ``by`` says how they were brought together."""

    a: Tensor
    b: Tensor
    transposed: bool = False
    by: Literal["name", "place", "stem", "digest", "values"] = "name"

    @property
    def by_name(self) -> bool:
        """True when no value was looked at to bring the two together."""
        return self.by in ("name", "place", "stem")

    @property
    def known(self) -> Tensor:
        """The side whose place is known: A's, unless only B's is."""
        return self.b if self.a.place is None and self.b.place is not None else self.a


@dataclass(frozen=True)
class Basis:
    """How B's residual channels are written in A's: a row vector x over B's channels becomes ``x @ matrix`` or, for a
    signed permutation, ``signs * x[channels]``.

    Attributes:
        kind: ``"identity"``, ``"signed_permutation"`` or ``"rotation"``.
        found_by: what it was found from, in a few words.
        channels: for A's channel j the number of B's channel, -1 where B has none; int64 (d_a,).
        signs: +1, -1, or 0 where B has none; float32 (d_a,).
        matrix: orthogonal, or with orthonormal rows or columns where the widths differ; float32 (d_b, d_a).
        fitted: regions of B (names as `Ffn.name` or a role) that it was fitted on: their agreement proves nothing.
        semantic: it was found through shared tokens, so it also aligns strangers that learned from the same data.
        candidates: how many alignments were open to choice; p-values found through it pay log10 of that.
        scores: what the search saw, for the report.
    """

    kind: Literal["identity", "signed_permutation", "rotation"] = "identity"
    found_by: str = "as stored"
    channels: npt.NDArray[np.int64] | None = field(default=None, repr=False)
    signs: F32 | None = field(default=None, repr=False)
    matrix: F32 | None = field(default=None, repr=False)
    fitted: frozenset[str] = frozenset()
    semantic: bool = False
    candidates: int = 1
    scores: Mapping[str, float] = field(default_factory=dict)

    def saw(self, name: str) -> bool:
        """Whether it was fitted on this FFN or on another expert of its block: experts are often copies of one FFN."""
        block = name.partition(".expert.")[0]
        return any(region.partition(".expert.")[0] == block for region in self.fitted)

    def fits(self, d_b: int, d_a: int) -> bool:
        """Whether rows of this length can be taken to rows of that one."""
        if self.matrix is not None:
            return self.matrix.shape == (d_b, d_a)
        if self.channels is None:
            return d_a == d_b
        return self.channels.size == d_a and int(self.channels.max(initial=-1)) < d_b

    def to_a(self, x: F32) -> F32:
        """Rows over B's residual channels (…, d_b) → rows over A's (…, d_a), float32."""
        if self.matrix is not None:
            turned: F32 = product(x, self.matrix)
            return turned
        if self.channels is None:
            return x
        signs = np.ones(self.channels.size, np.float32) if self.signs is None else self.signs
        picked: F32 = np.where(self.channels >= 0, x[..., self.channels], np.float32(0)) * signs
        return picked


IDENTITY = Basis()


@dataclass(frozen=True)
class Models:
    """What a test is given.

    ``log10_pairings``: how many pairings were open to a choice that looked at values. ``basis``: how B's residual
    channels are written in A's. ``looks``: what was looked at while the models streamed by
    (:mod:`weightprint.evidence._streamed`).
    """

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    log10_pairings: float = 0.0
    seed: int = 0
    effort: str = "standard"
    basis: Basis = IDENTITY
    looks: list[Any] = field(default_factory=list, repr=False)

    def price(self, pairs: Iterable[Pair]) -> float:
        """What a p-value on these pairs must pay for the pairing, in log10: nothing if any of them met by name."""
        return 0.0 if any(pair.by_name for pair in pairs) else self.log10_pairings


@dataclass(frozen=True, slots=True)
class Shared:
    """One tensor of B that was found in A, for the share; ``kind`` says how. Of the kind ``rounded`` are values that
    differ as the codes of a quantiser make them differ, and nothing says that they are the same.
    """

    b: str
    a: str
    kind: Literal["exact", "re_encoded", "parameter", "trivial", "rounded", "scaled"]
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
    """

    b: tuple[str, int, Expert]
    a: tuple[str, int, Expert]
    tested: int
    agreed: int
    expected: float
    log10_p: float
    units: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    nearest: int = 0

    @property
    def name(self) -> str:
        """``"decoder.7"`` or ``"decoder.7.expert.3"``: the FFN of B."""
        stack, block, expert = self.b
        return f"{stack}.{block}" + ("" if expert is None else f".expert.{expert}")

    @property
    def share(self) -> float:
        """Units of B found in A beyond chance, 0..1."""
        return max(0.0, (self.agreed - self.expected) / max(self.tested - self.expected, 1.0))


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
        seconds, gemm_seconds: what it took, and how much of that products and decompositions of matrices.
    """

    test: str
    asked: str
    applied: bool
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

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract's keys in its order, then what we add."""
        first = (
            "test",
            "applied",
            "why_not",
            "statistic",
            "effect",
            "n",
            "log10_p",
            "null",
            "assumes",
            "blind_to",
            "seconds",
        )
        added = (
            "asked",
            "says",
            "statistic_of",
            "effect_of",
            "detectable",
            "basis",
            "semantic",
            "rank_p",
            "gemm_seconds",
        )
        return {key: getattr(self, key) for key in (*first, *added)} | {"details": dict(self.details)}


Test = Callable[[Models], Evidence]


def not_applied(evidence: Evidence, why: str) -> Evidence:
    """The same question, unanswered."""
    return replace(evidence, applied=False, why_not=why, says=f"not applied: {why}")


def timed(test: Test) -> Test:
    """Wrap a test so that its Evidence carries the seconds it took, added to those that it knows of."""

    def run(models: Models) -> Evidence:
        started = time.perf_counter()
        with accounted() as spent:
            found = test(models)
        elapsed = time.perf_counter() - started
        return replace(found, seconds=found.seconds + elapsed, gemm_seconds=found.gemm_seconds + spent.seconds)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
