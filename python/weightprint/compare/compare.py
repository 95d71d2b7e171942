"""Compare two models: the same, re-encoded, of one origin, or not to be told.

The tests of :mod:`weightprint.evidence` run as :mod:`weightprint.compare.pipeline` says, then the table of
:mod:`weightprint.verdict`. ``Comparison.to_dict`` is the JSON contract of ``weightprint
compare --json``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint, open
from weightprint.compare.pipeline import examine, gather
from weightprint.errors import UsageError
from weightprint.evidence.budget import BUDGETS, hidden_size
from weightprint.evidence.evidence import Evidence
from weightprint.fingerprint.build import Examined
from weightprint.fingerprint.live import finite_side
from weightprint.results.saving import finite, to_json
from weightprint.results.shown import Shown
from weightprint.util.escape import escape
from weightprint.util.linear_algebra import accounted
from weightprint.util.progress import Progress
from weightprint.verdict.verdict import Verdict, decide

__all__ = ["Comparison", "ModelSummary", "compare"]

Effort = Literal["quick", "standard", "full"]
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One of the two models, as the report names it. Unknown things are None."""

    source: str
    digest: str | None
    n_tensors: int
    n_parameters: int
    n_bytes: int
    family: str | None
    layers: int | None
    hidden_size: int | None
    vocabulary: int | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {key: getattr(self, key) for key in self.__slots__}


@dataclass(frozen=True)
class Comparison(Shown):
    """What `compare` found. Frozen; prints as the report a person reads; ``to_dict`` is the JSON contract.

    ``gemm_seconds``: of the ``seconds``, those spent in products and decompositions of dense matrices.
    """

    _report = "compare"

    a: ModelSummary
    b: ModelSummary
    result: Verdict
    evidence: tuple[Evidence, ...]
    parameters: Mapping[str, Any]
    seconds: float
    bytes_read: int
    peak_rss_bytes: int | None
    gemm_seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """See :class:`weightprint.verdict.Verdict`."""
        return self.result.name

    @property
    def log10_p(self) -> float | None:
        """Combined over the deciding tests and corrected; None where none applied."""
        return self.result.log10_p

    @property
    def same(self) -> bool:
        """True when both hold the same weights, identical or re-encoded, with nothing missing on either side."""
        return self.verdict == "identical" or (self.verdict == "re_encoded" and self.result.complete)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: keys in its order, only finite numbers, None for what is not known.

        ``readings`` lists the verdicts between which the evidence can't tell, ``verdict`` first. At effort "quick" a
        shared origin is ``["shared_origin", "partly_shared", …]``: a shared origin or a part of it.
        """
        from weightprint import __version__

        verdict = self.result
        out: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "weightprint", "version": __version__, "parameters": dict(self.parameters)},
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "verdict": verdict.name,
            "log10_p": verdict.log10_p,
            "share": verdict.share.to_dict(),
            "direction": dict(verdict.direction),
            "operations": [dict(operation) for operation in verdict.operations],
            "layer_map": [list(row) for row in verdict.layer_map],
            "expert_map": [list(row) for row in verdict.expert_map],
            "evidence": [e.to_dict() for e in self.evidence],
            "against": list(verdict.against),
            "seconds": self.seconds,
            "bytes_read": self.bytes_read,
            "peak_rss_bytes": self.peak_rss_bytes,
            "sentence": verdict.sentence,
            "rule": {"words": verdict.rule, "reads": list(verdict.reads)},
            "in_favour": list(verdict.in_favour),
            "complete": verdict.complete,
            "readings": list(verdict.readings),
            "gemm_seconds": self.gemm_seconds,
            "told_from": verdict.told_from,
            "operations_if": {way: [dict(o) for o in rows] for way, rows in verdict.operations_if.items()} or None,
        }
        return dict(finite(out))

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return to_json(self.to_dict(), indent)

    def __repr__(self) -> str:
        strength = "" if self.log10_p is None else f", log10 p = {self.log10_p:.1f}"
        return f"<Comparison {escape(self.a.source)} → {escape(self.b.source)}: {self.verdict}{strength}>"

    def to_pandas(self) -> Any:
        """One row per test, as a pandas DataFrame."""
        import pandas

        keys = ("test", "applied", "why_not", "statistic", "effect", "n", "log10_p", "seconds", "says")
        return pandas.DataFrame([{key: getattr(e, key) for key in keys} for e in self.evidence])


def compare(
    a: str | os.PathLike[str] | Checkpoint,
    b: str | os.PathLike[str] | Checkpoint,
    *,
    effort: Effort = "standard",
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Say whether B and A hold the same weights or share an origin, with the evidence for and against.

    Args:
        a: the model to compare with: a path or an open Checkpoint.
        b: the model in question; ``share`` is the fraction of its parameters found in A.
        effort: ``"quick"`` reads samples only, less than 2 % of a large model (and calls nothing equal); ``"standard"``
            reads every byte once and the tests sample; ``"full"`` takes every block, alignment and unit.
        seed: fixes which rows are sampled and which permutations are drawn; the same seed gives the same numbers.
        progress: called as ``progress(bytes_done, bytes_total)`` during the two scans.

    Raises:
        UsageError: an unknown effort.
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: as `weightprint.open` does.
    """
    if effort not in BUDGETS:
        raise UsageError(f"effort is one of {', '.join(BUDGETS)}, not {effort!r}", code="bad_effort")
    started = time.perf_counter()
    opened: list[Checkpoint] = []
    try:
        checkpoints = []
        for model in (a, b):
            if isinstance(model, Checkpoint):
                checkpoints.append(model)
            else:
                opened.append(open(model))
                checkpoints.append(opened[-1])
        return _compare(checkpoints[0], checkpoints[1], effort, seed, progress, started)
    finally:
        for checkpoint in opened:
            checkpoint.close()


def _compare(
    a: Checkpoint, b: Checkpoint, effort: Effort, seed: int, progress: Progress | None, started: float
) -> Comparison:
    # Values at the ends of a format's range overflow in sums; what comes of it says nothing, and is no one's warning.
    with accounted() as spent, np.errstate(all="ignore"):
        first, second, models = examine(a, b, effort, seed, progress)
        evidence = gather(models)
        verdict = decide(replace(models, a=finite_side(models.a), b=finite_side(models.b)), evidence)
    for checkpoint in (a, b):
        checkpoint.check_unchanged()
    return Comparison(
        a=_summary(first),
        b=_summary(second),
        result=verdict,
        evidence=evidence,
        parameters={
            "effort": effort,
            "seed": seed,
            "pairs": len(models.pairs),
            "log10_pairings": models.log10_pairings,
        },
        seconds=time.perf_counter() - started,
        bytes_read=(0 if effort == "quick" else a.n_bytes + b.n_bytes) + first.reads.nbytes + second.reads.nbytes,
        peak_rss_bytes=_peak_rss(),
        gemm_seconds=spent.seconds,
    )


def _summary(examined: Examined) -> ModelSummary:
    anatomy, side = examined.anatomy, examined.side
    checkpoint, main = anatomy.checkpoint, anatomy.geometry.get(anatomy.main_stack)
    tables = [t.shape[0] for t in side.tensors.values() if t.place and t.place.role == "embedding" and t.rank2]
    return ModelSummary(
        source=checkpoint.source,
        digest=examined.digest,
        n_tensors=checkpoint.n_tensors,
        n_parameters=sum(weight.numel for weight in anatomy.weights.values()),
        n_bytes=checkpoint.n_bytes,
        family=anatomy.family,
        layers=(main.blocks if main else None) or None,
        hidden_size=(main.hidden if main else None) or hidden_size(side),
        vocabulary=(main.vocabulary if main else None) or max(tables, default=None),
    )


def _peak_rss() -> int | None:
    """Peak resident set of this process so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
