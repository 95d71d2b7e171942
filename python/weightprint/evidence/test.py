"""A test of shared origin: the function that asks two models one question, and everything else that is known of it.

    @partial(Test, decides="stored basis", cost="long")
    def aligned_units(models: ModelPair) -> Evidence: ...

The rest of the package knows a test by these traits only; :mod:`weightprint.evidence.tests` lists all tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from weightprint.evidence.evidence import Details, Evidence
from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.steps import Collector
from weightprint.util.linear_algebra import accounted

#: How the reason begins why a test is not applied to fingerprints.
NEEDS = "needs the weights: "


@dataclass(frozen=True, eq=False)
class Test:
    """One test. Called with two models, it answers with an :class:`Evidence` that says how long it took.

    Attributes:
        run: the question itself; its name is the test's name and its file's.
        decides: where its p-value can carry a verdict. In a basis that was fitted, few nulls hold.
        supports: its p-value never decides and yet is told in favour of a verdict that others reached.
        bases: the bases that it is run in: as ``"stored"``; in each alignment of the residual channels that was
            ``"found"``; once after those, since it looks for its ``"own"``.
        basis_free: it needs no common basis, so blocks that only it found may still be rotated.
        confirms: a test that is not run as stored: names of those whose withheld p-value makes it run there too.
        refined: its answer in a found basis, given the answers that decided there.
        answers: what must have been asked with power before silence means anything, and is asked by it.
        exchanges: its null exchanges units, channels or heads, so it stands or falls with a common mask.
        of_order: no order of channels, and nothing learned through a common token table, can make it agree.
        of_heads: its matches are of attention and say nothing of the FFN.
        details: what kind of details it tells, where other files read them.
        mirrored: ``(details, names, models)`` → the details of the pair read from B to A: ``names`` are A's tensors by
            B's.
        collector: headers → what it collects while the models stream by, or None where it won't apply.
        cost: ``"alone"`` may have much to share out itself (large products, whole tensors); the others run side by
            side, ``"long"`` ones first.
        in_place_first: blocks that were found in their own places are asked for nowhere else
            (:mod:`weightprint.evidence.lookup.settled`).
        exact_values: it reads values as they are, NaN and infinities too; the others read those as 0.
        kept: the view of a fingerprint (:mod:`weightprint.fingerprint.stored`) that answers it where a model's weights
            are not at hand; None where only the weights do.
        needs: what of the weights it needs then, in a few words.
        published: a measure as its authors define it, for comparison; it has no p-value, and runs when asked.
        quoted: a published measure that people quote: it always runs.
    """

    __test__ = False  # not one of pytest's

    run: Callable[[ModelPair], Evidence]
    decides: Literal["never", "stored basis", "any basis"] = "never"
    supports: bool = False
    bases: tuple[Literal["stored", "found", "own"], ...] = ("stored",)
    basis_free: bool = False
    confirms: tuple[str, ...] = ()
    refined: Callable[[ModelPair, Evidence, Sequence[Evidence]], Evidence] | None = None
    answers: tuple[str, ...] = ()
    exchanges: bool = False
    of_order: bool = False
    of_heads: bool = False
    details: type[Details] | None = None
    mirrored: Callable[[Any, Mapping[str, str], ModelPair], Mapping[str, Any]] | None = None
    collector: Callable[[ModelPair], Collector | None] | None = None
    cost: Literal["alone", "long", "short"] = "short"
    in_place_first: bool = False
    exact_values: bool = False
    kept: Literal["identity", "rows", "units", "angles", "heads", "vectors"] | None = None
    needs: str = "every value"
    published: bool = False
    quoted: bool = False

    @property
    def name(self) -> str:
        """What evidence, report and JSON call it."""
        return self.run.__name__

    @property
    def unasked(self) -> bool:
        """Whether it runs without being asked for."""
        return self.quoted or not self.published

    def __call__(self, models: ModelPair) -> Evidence:
        """The answer, with the seconds that it took added to those that it knows of."""
        started = time.perf_counter()
        with accounted() as spent:
            found = self.run(models)
        elapsed = time.perf_counter() - started
        return replace(found, seconds=found.seconds + elapsed, gemm_seconds=found.gemm_seconds + spent.seconds)
