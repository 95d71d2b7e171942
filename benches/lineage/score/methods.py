"""The methods that are scored: weightprint itself, every published comparator it carries, and two other tools.

A method has a name, a version (a digest of the code that its numbers depend on, so that a changed method is scored
again, and an unchanged one, moved or not, isn't: :mod:`.code_digest`), and a function of two folders that returns what
is kept of a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import weightprint
from weightprint.compare.compare import Effort, judge
from weightprint.compare.pipeline import gather
from weightprint.evidence.alignment.tokens import by_tokens
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.test import Test
from weightprint.evidence.tests import AS_STORED, PUBLISHED, REBASED, TESTS, UNASKED
from weightprint.results.saving import json_value

from .code_digest import Source, digest, reached, rust_items, sources
from .open_models import OpenModels
from .peers import PEERS, Peer

__all__ = ["EFFORTS", "Method", "all_methods", "find", "with_published"]

PACKAGE = Path(weightprint.__file__).parent

#: Methods of these names are weightprint at that effort.
EFFORTS: tuple[Effort, ...] = ("quick", "standard", "full")

#: What is kept of one test's answer.
_KEPT = ("test", "basis", "semantic", "applied", "why_not", "statistic", "effect", "n", "log10_p", "rank_p", "seconds")


@dataclass(frozen=True)
class Method:
    """One column of the benchmark."""

    name: str
    version: str
    run: Callable[[Path, Path], dict[str, Any]]


def _weightprint(a: Path, b: Path, effort: Effort = "standard", published: bool = False) -> dict[str, Any]:
    """`weightprint.compare`: what it says of the pair, and what every test said."""
    told = weightprint.compare(a, b, effort=effort, published=published)
    out = told.to_dict()
    kept = ("verdict", "log10_p", "share", "direction", "operations", "layer_map", "expert_map", "seconds")
    record = {key: out[key] for key in kept} | {"bytes": out["bytes_read"]}
    record["evidence"] = [_test(e, row) for e, row in zip(told.evidence, out["evidence"], strict=True)]
    return record


def _tests_only(a: Path, b: Path) -> dict[str, Any]:
    """The verdict and the tests it may read, on models that are opened once: what `compare` says, without opening them
    again and without the published measures."""
    models = _open_models().models(a, b)
    return _decided(models, gather(models, [test for test in TESTS if not test.published]))


def _fitted(a: Path, b: Path) -> dict[str, Any]:
    """The same, but with every alignment that shared tokens give, worth a look or not."""
    models = _open_models().models(a, b)
    evidence = [test(models) for test in AS_STORED if not test.published]
    bases = by_tokens(models)
    for basis in bases:
        turned = replace(models, basis=replace(basis, candidates=len(bases)))
        evidence += [replace(test(turned), basis=basis.kind, semantic=basis.semantic) for test in REBASED]
    return _decided(models, tuple(evidence))


def _decided(models: ModelPair, evidence: tuple[Evidence, ...]) -> dict[str, Any]:
    verdict = judge(models, evidence).verdict
    rows = [json_value(e.to_dict()) for e in evidence]
    return {
        "verdict": verdict.name,
        "log10_p": verdict.log10_p,
        "evidence": [_test(e, row) for e, row in zip(evidence, rows, strict=True)],
    }


def _test(evidence: Evidence, row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] if key in row else getattr(evidence, key, None) for key in _KEPT}


@cache
def _open_models() -> OpenModels:
    return OpenModels()


@dataclass(frozen=True)
class _Comparator:
    """A published measure: its statistic is the score, larger for more closely related."""

    test: Callable[..., Evidence]

    def __call__(self, a: Path, b: Path) -> dict[str, Any]:
        models = _open_models().models(a, b)
        found = self.test(models)
        return {
            "applied": found.applied,
            "score": found.statistic if found.applied else None,
            "effect": found.effect if found.applied else None,
            "why_not": found.why_not,
            "seconds": found.seconds,
        }


#: Parts of the package that only show what was found, or say where it is.
_SHOWS = frozenset({"cli", "report", "demo", "verdict/wording.py", "results/shown.py", "__init__.py", "__main__.py"})
RUST = Path(__file__).resolve().parents[3] / "rust" / "core" / "src"
#: What is followed from a published measure: not how a model is opened and scanned.
_MEASURES = ("evidence", "fingerprint", "util")


@cache
def _package() -> dict[str, Source]:
    return sources(PACKAGE, _SHOWS)


@cache
def _source() -> str:
    """Of all that computes, and of the native module by its source: that it was built from it is up to whoever runs."""
    return digest([*(d.text for source in _package().values() for d in source.definitions), *rust_items(RUST)])


def _measure(test: Test) -> str:
    """Of a published measure and what it calls."""
    known = {module: source for module, source in _package().items() if module.split(".")[1] in _MEASURES}
    return digest(reached(known, f"{PACKAGE.name}.evidence.published.{test.name}", test.name))


def tests_only() -> Method:
    """weightprint's tests and verdict without its opening of files: for calibration, which reuses its models."""
    return Method("tests", _source(), _tests_only)


def fitted() -> Method:
    """The tests in alignments fitted to every pair: for calibration."""
    return Method("fitted", _source(), _fitted)


def at_effort(effort: Effort) -> Method:
    """weightprint with its defaults, but at this effort."""
    return Method(effort, _source(), partial(_weightprint, effort=effort))


def with_published() -> Method:
    """weightprint with its defaults and the published measures beside, for models that are too large to be kept."""
    return Method("weightprint", _source(), partial(_weightprint, published=True))


@cache
def all_methods(peers: tuple[Peer, ...] = ()) -> tuple[Method, ...]:
    """Every method, weightprint first; `peers` are the tools that an interpreter was named for."""
    out = [Method("weightprint", _source(), _weightprint)]
    out += [Method(test.name, _measure(test), _Comparator(test)) for test in PUBLISHED]
    out += [Method(peer.name, peer.version, peer) for peer in peers]
    return tuple(out)


def find(names: Sequence[str] | None, peers: tuple[Peer, ...]) -> tuple[Method, ...]:
    """The methods of these names; raises SystemExit for a name there is none of. Without names: all, except the
    published measures that `compare` shows unasked, whose scores are then taken from its answer."""
    found = all_methods(peers)
    if names is None:
        shown = {test.name for test in UNASKED}
        return tuple(method for method in found if method.name not in shown)
    by_name = {method.name: method for method in (*found, tests_only(), fitted(), *map(at_effort, EFFORTS))}
    if unknown := [name for name in names if name not in by_name]:
        hint = " (peers need --peer-python)" if set(unknown) & set(PEERS) else ""
        raise SystemExit(f"no method {unknown[0]!r}{hint}; there are: {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)
