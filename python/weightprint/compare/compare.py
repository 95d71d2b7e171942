"""Compare two models: the same, re-encoded, of one origin, or not to be told.

The tests of :mod:`weightprint.evidence` run as :mod:`weightprint.compare.pipeline` says, then the table of
:mod:`weightprint.verdict` weighs what they found, then :mod:`weightprint.operations` tells what was done.
``Comparison.to_dict`` is the JSON contract of ``weightprint compare --json``; ``Comparison.from_dict`` reads it again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from weightprint.anatomy.adapters.adapters import is_adapter_alone
from weightprint.anatomy.adapters.opened import opened, refuse_mixed
from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.compare.mixed import after_mixing, told_after
from weightprint.compare.pipeline import examine, gather
from weightprint.compare.recipe import Recipe, recipe
from weightprint.compare.stored import gather_kept, pair_of, told_by_sketches
from weightprint.errors import UnsupportedFormatError, UsageError
from weightprint.evidence.budget import BUDGETS, hidden_size
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.tests import TESTS, UNASKED
from weightprint.fingerprint.build import Examined
from weightprint.fingerprint.fingerprint import Fingerprint, both_kept
from weightprint.fingerprint.live import finite_view
from weightprint.operations.base import Operation
from weightprint.operations.table import History, history
from weightprint.results.saving import json_value, to_json
from weightprint.results.shown import Shown
from weightprint.util.escape import escape
from weightprint.util.linear_algebra import accounted
from weightprint.util.progress import Progress, phase
from weightprint.verdict.direction import cues as direction_cues
from weightprint.verdict.facts import Facts, gathered
from weightprint.verdict.saved import facts_from, outlined, parting_from, saved
from weightprint.verdict.thresholds import LIMITS, Limits
from weightprint.verdict.values import Cues, Direction, ExpertMatch, LayerMatch, Name, Share
from weightprint.verdict.verdict import Verdict, asks_direction, decide

__all__ = ["Comparison", "Judgement", "ModelSummary", "compare", "judge"]

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


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows from the evidence of a pair: the facts that were weighed, the cues of who came first (None where
    nobody asked), the verdict, and what was done."""

    facts: Facts
    cues: Cues | None
    verdict: Verdict
    history: History


def judge(models: ModelPair, evidence: Sequence[Evidence]) -> Judgement:
    """Gather what values have to tell, weigh it, and tell what was done. Only the weighing (`decide`) reads nothing."""
    phase("weighing")
    facts = gathered(models, evidence)
    cues = direction_cues.gather(models, facts.by_test, facts.maps) if asks_direction(facts) else None
    verdict = decide(facts, cues)
    return Judgement(facts, cues, verdict, history(facts, verdict))


@dataclass(frozen=True)
class Comparison(Shown):
    """What `compare` found. Frozen; prints as the report a person reads; ``to_dict`` is the JSON contract.

    Attributes:
        a, b: the two models.
        result: the verdict, with what speaks for and against it.
        history: what was done, as far as known.
        evidence: every test's answer.
        parameters: effort, seed, whether published measures were asked for, and how tensors were brought together.
        weighed_from: what ``result`` follows from beside the evidence's JSON, see `weighed`.
        seconds, gemm_seconds: what it took, and how much of that products and decompositions of dense matrices.
        bytes_read, peak_rss_bytes: what was read, and the largest resident set (None where the system does not say).
        version: of weightprint.
        files: of each side (``"a"``, ``"b"``), the files that were read: ``name``, ``nbytes`` and, for a snapshot of
            the hub's cache, its ``revision``.
        mix: B as a mix of A and the ``others``; of two LoRA adapters, B's updates as A's; None where nobody asked.
    """

    _report = "compare"

    a: ModelSummary
    b: ModelSummary
    result: Verdict
    history: History
    evidence: tuple[Evidence, ...]
    parameters: Mapping[str, Any]
    weighed_from: Mapping[str, Any] = field(repr=False)
    seconds: float
    bytes_read: int
    peak_rss_bytes: int | None
    gemm_seconds: float
    version: str
    files: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict, repr=False)
    mix: Recipe | None = None

    @property
    def verdict(self) -> Name:
        """See :class:`weightprint.verdict.Verdict`."""
        return self.result.name

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was done, told from the earlier model to the later one; from A to B where nobody knows which that is; of
        siblings, what was done to one or both since they parted."""
        return self.history.operations

    def weighed(self, limits: Limits = LIMITS) -> Verdict:
        """The verdict that the same evidence gives, weighed again; other ``limits`` ask for more, or for less.

        Neither model is needed. No direction is claimed where none was asked for at first.
        """
        return after_mixing(decide(replace(self.facts, limits=limits), self._weighed_from[1]), self.mix)

    @property
    def facts(self) -> Facts:
        """What was weighed: the outline of both models and what was found of each part."""
        return self._weighed_from[0]

    @cached_property
    def _weighed_from(self) -> tuple[Facts, Cues | None]:
        rows = [json_value(e.to_dict()) for e in self.evidence]
        return facts_from(self.weighed_from, rows, self.parameters)

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
        shared origin is ``["shared_origin", "partly_shared", …]``: a shared origin or a part of it. ``stacks``: the
        verdict on each stack of B's blocks alone, as ``{"decoder": "shared_origin", "vision": "no_evidence"}``.
        """
        verdict, told = self.result, self.history
        out: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "weightprint", "version": self.version, "parameters": dict(self.parameters)},
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "verdict": verdict.name,
            "log10_p": verdict.log10_p,
            "share": verdict.share.to_dict(),
            "direction": verdict.direction.to_dict(),
            "operations": [operation.to_dict() for operation in told.operations],
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
            "stacks": dict(verdict.stacks),
            "gemm_seconds": self.gemm_seconds,
            "files": {side: list(of) for side, of in self.files.items()},
            "told_from": told.told_from,
            "operations_if": {way: [o.to_dict() for o in rows] for way, rows in told.operations_if.items()} or None,
            "mix": None if self.mix is None else self.mix.to_dict(),
            "weighed_from": self.weighed_from,
        }
        return dict(json_value(out))

    @classmethod
    def from_dict(cls, out: Mapping[str, Any]) -> Comparison:
        """The comparison whose `to_dict` this is. What tests kept of values (matched hidden units) is not in it.

        Raises:
            UsageError: it lacks what it was weighed from, as those of older versions do.
        """
        if "weighed_from" not in out:
            raise UsageError("this comparison was saved without what it was weighed from", code="not_weighable")
        tool = out["tool"]
        facts, _ = facts_from(out["weighed_from"], out["evidence"], tool["parameters"])
        return cls(
            a=ModelSummary(**out["a"]),
            b=ModelSummary(**out["b"]),
            result=_verdict(out),
            history=History(
                told_from=out["told_from"],
                operations=tuple(Operation(**o) for o in out["operations"]),
                operations_if={k: tuple(Operation(**o) for o in v) for k, v in (out["operations_if"] or {}).items()},
                siblings=out["direction"].get("relation") == "siblings",
            ),
            evidence=tuple(facts.evidence),
            parameters=tool["parameters"],
            version=tool["version"],
            files=out.get("files", {}),
            mix=Recipe.from_dict(out["mix"]) if out.get("mix") else None,
            **{key: out[key] for key in ("weighed_from", "seconds", "bytes_read", "peak_rss_bytes", "gemm_seconds")},
        )

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text; what it was weighed from stands in one line at its end."""
        out = self.to_dict()
        weighed = to_json(out.pop("weighed_from"), None)
        comma = "," if indent is None else ",\n" + " " * indent
        end = "}" if indent is None else "\n}"
        return f'{to_json(out, indent)[: -len(end)]}{comma}"weighed_from": {weighed}{end}'

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_weighed_from"}  # made again when asked

    def __repr__(self) -> str:
        strength = "" if self.log10_p is None else f", log10 p = {self.log10_p:.1f}"
        return f"<Comparison {escape(self.a.source)} → {escape(self.b.source)}: {self.verdict}{strength}>"

    def plot_map(self, ax: Any = None) -> Any:
        """The layer map on matplotlib axes (new ones where `ax` is None), which are returned.

        Raises:
            UsageError: matplotlib is missing (``pip install 'weightprint[plots]'``).
        """
        return self._plotted("plot_map", ax)

    def plot_curves(self) -> Any:
        """Every curve over depth, with the band of unrelated models, as a matplotlib figure.

        Raises:
            UsageError: matplotlib is missing, or no curve was measured.
        """
        return self._plotted("plot_curves")

    def to_pandas(self) -> Any:
        """One row per test, as a pandas DataFrame."""
        import pandas

        keys = ("test", "applied", "why_not", "statistic", "effect", "n", "log10_p", "seconds", "says")
        return pandas.DataFrame([{key: getattr(e, key) for key in keys} for e in self.evidence])


def compare(
    a: str | os.PathLike[str] | Checkpoint | Fingerprint,
    b: str | os.PathLike[str] | Checkpoint | Fingerprint,
    *,
    others: Sequence[str | os.PathLike[str] | Checkpoint] = (),
    effort: Effort = "standard",
    seed: int = 0,
    published: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Say whether B and A hold the same weights or share an origin, with the evidence for and against.

    Args:
        a: the model to compare with: a path (or ``base+adapter``), an open Checkpoint, or a fingerprint, as an object
            or a file. With a fingerprint on either side the other side is fingerprinted too, with its seed; what only
            weights can tell is then left out and said, and ``effort`` changes nothing.
        b: the model in question; ``share`` is the fraction of its parameters found in A.
        others: further parents: ``mix`` tells B as a mix of A and these (see `weightprint.recipe`).
        effort: ``"quick"`` reads samples only, less than 2 % of a large model (and calls nothing equal but a file and
            itself); ``"standard"`` reads every byte once and the tests sample; ``"full"`` takes every block, alignment
            and unit.
        seed: fixes which rows are sampled and which permutations are drawn; the same seed gives the same numbers.
        published: also compute the measures of published methods, for comparison: none has a p-value, none decides.
            The spread over depth, which people quote, is always there; at effort ``"full"`` all are.
        progress: called as ``progress(bytes_done, bytes_total)`` during the two scans.

    Raises:
        UsageError: an unknown effort; a model and an adapter, which is none; ``others`` of other shapes, or beside a
            fingerprint; fingerprints of different seeds.
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: as `weightprint.open` does.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> comparison = weightprint.compare("weightprint-demo/parent", "weightprint-demo/finetune")
        >>> comparison.verdict, comparison.log10_p < -1000
        ('shared_origin', True)
        >>> comparison.operations[0].name
        'fine_tune'
        >>> comparison = weightprint.compare("weightprint-demo/parent", "weightprint-demo/parent")
        >>> comparison.verdict, comparison.same
        ('identical', True)
    """
    if effort not in BUDGETS:
        raise UsageError(f"effort is one of {', '.join(BUDGETS)}, not {effort!r}", code="bad_effort")
    started = time.perf_counter()
    if (kept := both_kept(a, b, progress)) is not None:
        if others:
            message = "of mixes compare asks the weights: name models, or ask recipe of fingerprints"
            raise UsageError(message, code="needs_weights")
        return _compare_kept(*kept, started)
    assert not isinstance(a, Fingerprint)
    assert not isinstance(b, Fingerprint)
    with opened(a, values=False) as first, opened(b, values=False) as second:
        refuse_mixed(first, second)
        found = _compare(first, second, effort, seed, published or effort == "full", progress, started)
        adapters = is_adapter_alone(list(second.weights))
    if not others and not adapters:
        return found
    try:
        mix = recipe(b, [a, *others], seed=seed)
    except UnsupportedFormatError:
        if others:
            raise
        mix = None  # adapters of another kind than LoRA
    verdict = after_mixing(found.result, mix)
    told = told_after(found.history, verdict)
    return replace(found, mix=mix, result=verdict, history=told, seconds=time.perf_counter() - started)


def _compare(
    a: Anatomy, b: Anatomy, effort: Effort, seed: int, published: bool, progress: Progress | None, started: float
) -> Comparison:
    # Values at the ends of a format's range overflow in sums; what comes of it says nothing, and is no one's warning.
    with accounted() as spent, np.errstate(all="ignore"):
        first, second, models = examine(a, b, effort, seed, progress)
        evidence = gather(models, TESTS if published else UNASKED)
        judged = judge(replace(models, a=finite_view(models.a), b=finite_view(models.b)), evidence)
    for checkpoint in (*a.checkpoints, *b.checkpoints):
        checkpoint.check_unchanged()
    from weightprint import __version__  # the package's own root, which loads this file

    comparison = Comparison(
        a=_summary(first),
        b=_summary(second),
        result=judged.verdict,
        history=judged.history,
        evidence=evidence,
        parameters={
            "effort": effort,
            "seed": seed,
            "published": published,
            "pairs": len(models.pairs),
            "log10_pairings": models.log10_pairings,
        },
        seconds=time.perf_counter() - started,
        bytes_read=(0 if effort == "quick" else a.checkpoint.n_bytes + b.checkpoint.n_bytes)
        + first.reads.nbytes
        + second.reads.nbytes,
        peak_rss_bytes=_peak_rss(),
        gemm_seconds=spent.seconds,
        weighed_from=json_value(saved(judged.facts, judged.cues)),
        version=__version__,
        files={"a": _files(a), "b": _files(b)},
    )
    vars(comparison)["_weighed_from"] = outlined(judged.facts), judged.cues  # of 90,000 tensors a second's reading
    return comparison


def _compare_kept(a: Fingerprint, b: Fingerprint, started: float) -> Comparison:
    """The comparison of two fingerprints; reads nothing."""
    with accounted() as spent, np.errstate(all="ignore"):
        models = pair_of(a, b)
        evidence = gather_kept(a, b)
        facts = gathered(models, evidence)
        cues = told_by_sketches(a, b) if asks_direction(facts) else None
        verdict = decide(facts, cues)
        told = history(facts, verdict, values=False)
    from weightprint import __version__  # the package's own root, which loads this file

    return Comparison(
        a=_kept_summary(a),
        b=_kept_summary(b),
        result=verdict,
        history=told,
        evidence=evidence,
        parameters={
            "effort": models.effort,
            "seed": models.seed,
            "published": False,
            "pairs": len(models.pairs),
            "log10_pairings": models.log10_pairings,
            "compared": "fingerprints",
        },
        seconds=time.perf_counter() - started,
        bytes_read=sum(int(f.summary["n_bytes"]) for f in (a, b) if f.seconds is not None),
        peak_rss_bytes=_peak_rss(),
        gemm_seconds=spent.seconds,
        weighed_from=json_value(saved(facts, cues)),
        version=__version__,
        files={label: _kept_files(f) for label, f in (("a", a), ("b", b))},
    )


def _verdict(out: Mapping[str, Any]) -> Verdict:
    experts = ([*row[:5], None if row[5] is None else (*row[5],)] for row in out["expert_map"])
    return Verdict(
        name=out["verdict"],
        sentence=out["sentence"],
        rule=out["rule"]["words"],
        reads=tuple(out["rule"]["reads"]),
        log10_p=out["log10_p"],
        share=Share(**out["share"]),
        complete=out["complete"],
        in_favour=tuple(out["in_favour"]),
        against=tuple(out["against"]),
        direction=_direction(out["direction"]),
        layer_map=tuple(LayerMatch(*row) for row in out["layer_map"]),
        expert_map=tuple(ExpertMatch(*row) for row in experts),
        readings=tuple(out["readings"]),
        stacks=out.get("stacks", {}),
    )


def _direction(out: Mapping[str, Any]) -> Direction:
    parted = out.get("parted_at")
    return Direction(**{
        **out,
        "parted_at": None if parted is None else (*parted,),
        "measured": parting_from(out.get("measured")),
    })  # fmt: skip


def _summary(examined: Examined) -> ModelSummary:
    anatomy, side = examined.anatomy, examined.side
    checkpoint, main = anatomy.checkpoint, anatomy.geometry.get(anatomy.main_stack)
    tables = [t.shape[0] for t in side.tensors.values() if t.place and t.place.role == "embedding" and t.rank2]
    return ModelSummary(
        source=anatomy.source,
        digest=examined.digest,
        n_tensors=checkpoint.n_tensors,
        n_parameters=anatomy.weights.n_parameters,
        n_bytes=checkpoint.n_bytes,
        family=anatomy.family,
        layers=(main.blocks if main else None) or None,
        hidden_size=(main.hidden if main else None) or hidden_size(side),
        vocabulary=(main.vocabulary if main else None) or max(tables, default=None),
    )


def _kept_summary(of: Fingerprint) -> ModelSummary:
    main, told = of.geometry.get(of.summary["main_stack"]), of.summary
    tables = [t.shape[0] for t in of.tensors.values() if t.place and t.place.role == "embedding" and t.rank2]
    return ModelSummary(
        source=of.source,
        **{key: told[key] for key in ("digest", "n_tensors", "n_parameters", "n_bytes", "family")},
        layers=(main.blocks if main else None) or None,
        hidden_size=main.hidden if main else None,
        vocabulary=(main.vocabulary if main else None) or max(tables, default=None),
    )


def _kept_files(of: Fingerprint) -> list[dict[str, Any]]:
    return [{"name": file["name"], "nbytes": file["bytes"], "revision": None} for file in of.summary["files"]]


def _files(anatomy: Anatomy) -> list[dict[str, Any]]:
    out = []
    for file in (file for checkpoint in anatomy.checkpoints for file in checkpoint.files):
        folder = os.path.dirname(file.path)
        snapshot = os.path.basename(os.path.dirname(folder)) == "snapshots"
        revision = os.path.basename(folder) if snapshot else None
        out.append({"name": file.name, "nbytes": file.nbytes, "revision": revision})
    return out


def _peak_rss() -> int | None:
    """Peak resident set of this process so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
