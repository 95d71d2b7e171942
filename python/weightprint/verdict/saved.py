"""Facts as JSON and back, so that a verdict can be weighed again where the models are not at hand.

Beside the evidence's own JSON, weighing needs an outline of both models (what each tensor does, its type and shape, and
which tensors hold equal bytes), the tensors that tests found, their regions and matches, and the cues of who came
first. Tensors of one type, shape and role share a *kind*; a tensor is a short row. Digests become numbers, equal where
bytes are. Of matched hidden units only the span is kept, since no verdict reads more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from weightprint.anatomy.place import Geometry, Place
from weightprint.errors import UsageError
from weightprint.evidence.evidence import Evidence, Region, Shared, UnitMatch
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.tests import DETAILS
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32
from weightprint.verdict.facts import Facts
from weightprint.verdict.maps import order_of
from weightprint.verdict.values import Cue, Cues, Label, Parting

Json = dict[str, Any]
#: Of an Evidence, what its JSON row lacks.
_MORE = ("found", "regions", "matches", "others")


def saved(facts: Facts, cues: Cues | None) -> Json:
    """What :func:`facts_from` needs beside the JSON of the evidence; only finite numbers."""
    a, b = facts.models.a, facts.models.b
    kinds: dict[tuple[Any, ...], int] = {}
    digests: dict[str, int] = {}
    sides = {side.label: _side(side, facts, kinds, digests) for side in (a, b)}
    at = {side.label: {name: i for i, name in enumerate(side.tensors)} for side in (a, b)}
    units = {side.label: {f.key: f for f in ffns(side)} for side in (a, b)}
    return {
        "kinds": [list(kind) for kind in kinds],
        "a": sides["a"],
        "b": sides["b"],
        "pairs": [[at["a"][p.a.name], at["b"][p.b.name]] for p in facts.models.pairs],
        "evidence": [
            {
                "found": [[at["b"][f.b], at["a"][f.a], f.kind, f.numel] for f in e.found],
                "regions": [[*_region(r), [at["b"][name] for name in r.tensors]] for r in e.regions],
                "matches": [_match(m, units) for m in e.matches],
                "others": [_match(m, units) for m in e.others],
            }
            for e in facts.evidence
        ],
        "cues": None if cues is None else asdict(cues),
    }


def outlined(facts: Facts) -> Facts:
    """The same without a way to the models' values, so that no file is held."""
    models = facts.models
    a, b = (ModelView(s.label, s.tensors, _no_values, geometry=s.geometry) for s in (models.a, models.b))
    pair = ModelPair(a, b, models.pairs, models.log10_pairings, models.seed, models.effort)
    return Facts(pair, facts.evidence, facts.simple, facts.limits)


def facts_from(
    told: Mapping[str, Any], evidence: Iterable[Json], parameters: Mapping[str, Any]
) -> tuple[Facts, Cues | None]:
    """The facts and cues that were saved.

    Args:
        told: what :func:`saved` made.
        evidence: the JSON rows of the evidence, in the same order.
        parameters: ``effort``, ``seed`` and ``log10_pairings`` of the comparison.
    """
    a, b = (_side_from(label, told[label], told["kinds"]) for label in _LABELS)
    of_a, of_b = [*a.tensors], [*b.tensors]
    pairs = tuple(Pair(a.tensors[of_a[i]], b.tensors[of_b[j]]) for i, j in told["pairs"])
    models = ModelPair(a, b, pairs, parameters["log10_pairings"], parameters["seed"], parameters["effort"])
    found = [_evidence(row, more, of_a, of_b) for row, more in zip(evidence, told["evidence"], strict=True)]
    simple = frozenset((label, row[-1]) for label in _LABELS for row in told[label]["tensors"] if row[-2])
    cues = told["cues"]
    return Facts(models, tuple(found), simple), cues and _cues(cues)


def parting_from(row: Json | None) -> Parting | None:
    """What `asdict` made of one."""
    if row is None:
        return None
    kinds = {kind: (low, t, high) for kind, (low, t, high) in row["kinds"].items()}
    return Parting(**{**row, "kept": (*row["kept"],), "kinds": kinds})


def _cues(row: Json) -> Cues:
    coarser = row.get("coarser")
    found = tuple(Cue(**f) for f in row["found"])
    return Cues(found, row["hint"], parting_from(row.get("parting")), coarser and Cue(**coarser))


_LABELS: tuple[Label, ...] = ("a", "b")


# One model


def _side(side: ModelView, facts: Facts, kinds: dict[tuple[Any, ...], int], digests: dict[str, int]) -> Json:
    rows = []
    for t in side.tensors.values():
        at = t.place
        stack, role, block, expert = (None,) * 4 if at is None else (at.stack, at.role, at.block, at.expert)
        nonfinite = (t.n_nan, t.n_infinite) if t.n_nan or t.n_infinite else ()
        key = (t.dtype, t.shape, t.numel, stack, role, t.constant, t.undecoded, *nonfinite)
        kind = kinds.setdefault(key, len(kinds))
        digest = None if t.digest is None else digests.setdefault(t.digest, len(digests))
        rows.append([kind, block, expert, digest, int((side.label, t.name) in facts.simple), t.name])
    return {"geometry": {stack: g.to_dict() for stack, g in side.geometry.items()}, "tensors": rows}


def _side_from(label: Label, told: Json, kinds: Sequence[Sequence[Any]]) -> ModelView:
    tensors = {}
    for kind, block, expert, digest, _, name in told["tensors"]:
        dtype, shape, numel, stack, role, constant, undecoded, *nonfinite = kinds[kind]
        n_nan, n_infinite = nonfinite or (0, 0)
        tensors[name] = Tensor(
            name,
            dtype,
            tuple(shape),
            numel,
            0,
            None if digest is None else str(digest),
            constant=constant,
            place=None if role is None else Place(stack, block, role, expert),
            undecoded=undecoded,
            n_nan=n_nan,
            n_infinite=n_infinite,
        )
    geometry = {
        stack: Geometry(**{**sizes, "guessed": tuple(sizes["guessed"])}) for stack, sizes in told["geometry"].items()
    }
    return ModelView(label, tensors, _no_values, geometry=geometry)


def _no_values(name: str, start: int, stop: int) -> F32:
    raise UsageError("a comparison that was read again has no values of its models", code="no_values")


# One test


def _region(region: Region) -> list[Any]:
    return [_plain(getattr(region, f.name)) for f in fields(Region)[:-1]]


def _match(match: UnitMatch, units: Mapping[Label, Mapping[Any, Ffn]]) -> list[Any]:
    b, a = units["b"].get(match.b), units["a"].get(match.a)
    span = match.span if b is None else order_of(match, b, a)[1]
    numbers = (match.tested, match.agreed, match.expected, match.log10_p, match.nearest)
    return [[*match.b], [*match.a], *map(_plain, numbers), None if span is None else [*span]]


def _match_from(row: Sequence[Any]) -> UnitMatch:
    b, a, tested, agreed, expected, log10_p, nearest, span = row
    return UnitMatch(
        (b[0], b[1], b[2]),
        (a[0], a[1], a[2]),
        tested,
        agreed,
        float(expected),
        float(log10_p),
        nearest=nearest,
        span=None if span is None else (span[0], span[1]),
    )


def _evidence(row: Json, more: Json, of_a: Sequence[str], of_b: Sequence[str]) -> Evidence:
    """``of_a``, ``of_b``: names of the models' tensors, as they are numbered."""
    regions = [
        Region(name, layer, n, float(effect), float(control), float(sd), hits, channels, tuple(of_b[i] for i in names))
        for name, layer, n, effect, control, sd, hits, channels, names in more["regions"]
    ]
    kind = DETAILS.get(row["test"]) if row["applied"] else None
    return Evidence(
        **{f.name: row[f.name] for f in fields(Evidence) if f.name not in (*_MORE, "details")},
        details=row["details"] if kind is None else kind(**row["details"]),
        found=tuple(Shared(of_b[i], of_a[j], kind, numel) for i, j, kind, numel in more["found"]),
        regions=tuple(regions),
        matches=tuple(map(_match_from, more["matches"])),
        others=tuple(map(_match_from, more["others"])),
    )


def _plain(x: Any) -> Any:
    """JSON has no infinity; as a word it survives."""
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x
