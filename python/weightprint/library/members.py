"""The models of a library, open: each outlined and measured once, however many it is compared with.

A `Relation` is what `compare` says of two of them, as far as a tree needs it: the verdict, and which layers, experts
and units are which. Where every FFN of one stands where the other has it, the few tests are asked that then decide; a
verdict that they don't carry is left to all tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from weightprint.anatomy.adapters.adapters import is_adapter_alone
from weightprint.anatomy.adapters.opened import opened
from weightprint.compare.partners import signatures
from weightprint.compare.pipeline import gather
from weightprint.compare.recipe_inputs import Model
from weightprint.compare.stored import gather_kept, pair_of
from weightprint.errors import UsageError
from weightprint.evidence.aligned_units import aligned_units
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.exact_sharing import exact_sharing
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.pairing import pair_tensors
from weightprint.evidence.same_values import same_values
from weightprint.evidence.tests import UNASKED
from weightprint.evidence.training_shared import TrainingShared, training_shared
from weightprint.evidence.unit_agreement import unit_agreement
from weightprint.fingerprint.build import Examined, measured, outlined
from weightprint.fingerprint.fingerprint import Fingerprint, as_fingerprint, fingerprint
from weightprint.fingerprint.live import finite_view
from weightprint.fingerprint.model import ModelView
from weightprint.util.arrays import F32, F64
from weightprint.util.linear_algebra import product, unit_rows
from weightprint.verdict.direction.counterparts import in_place
from weightprint.verdict.facts import Facts, gathered
from weightprint.verdict.maps import Maps
from weightprint.verdict.values import Name
from weightprint.verdict.verdict import decide

__all__ = ["RELATED", "Member", "Relation", "members", "nearness", "relate"]

#: Verdicts that join two models; one on parts of them does where blocks are among the parts.
RELATED: tuple[Name, ...] = ("identical", "re_encoded", "shared_origin", "partly_shared")

#: What is asked where all units stand in place.
_IN_PLACE = (exact_sharing, same_values, aligned_units, unit_agreement, training_shared)


@dataclass(eq=False)
class Member:
    """One model. ``examined`` is None for a fingerprint, ``kept`` for a model that is open."""

    name: str
    model: Model | Fingerprint
    examined: Examined | None
    kept: Fingerprint | None
    _measured: dict[bool, Examined] = field(default_factory=dict, repr=False)

    @property
    def live(self) -> Model:
        """What it was opened from."""
        assert not isinstance(self.model, Fingerprint)
        return self.model

    def side(self, by_value: bool = False) -> ModelView:
        """Its tensors, with digests of stored bytes or of values."""
        assert self.examined is not None
        if by_value not in self._measured:
            self._measured[by_value] = measured(self.examined, by_value)
        return self._measured[by_value].side

    @property
    def digest(self) -> str | None:
        """Of all tensors, as `compare` has it; None where it was not made."""
        if self.kept is not None:
            return cast("str | None", self.kept.summary["digest"])
        return self._measured[False].digest if False in self._measured else None


@dataclass(frozen=True, eq=False)
class Relation:
    """What `compare` says of two models.

    ``models``: the pair, its values finite; ``in_place``: every FFN stands where the other has it; ``maps``: which
    layers, experts and units are which, None where all is in place; ``evidence`` by test.
    """

    verdict: Name
    models: ModelPair
    in_place: bool
    maps: Maps | None
    evidence: Mapping[str, Evidence]
    doubtful: bool = False

    @property
    def related(self) -> bool:
        """They share an origin."""
        return self.verdict in RELATED


@contextmanager
def members(models: Sequence[Model | Fingerprint]) -> Iterator[list[Member]]:
    """Open all of them; what was opened here is closed behind it. One fingerprint makes fingerprints of all.

    Raises:
        UsageError: fewer than two models; the same one twice; an adapter alone.
        FormatError, OSError, …: as `weightprint.open` does.
    """
    if len(models) < 2:
        raise UsageError("name at least two models", code="too_few_models")
    kept = [as_fingerprint(model) for model in models]
    seed = next((found.plan.seed for found in kept if found is not None), None)
    with ExitStack() as stack:
        out: list[Member] = []
        for model, found in zip(models, kept, strict=True):
            if seed is not None:
                found = found or fingerprint(model, seed=seed)  # type: ignore[arg-type]
                out.append(Member(found.source, model, None, found))
                continue
            assert not isinstance(model, Fingerprint)
            anatomy = stack.enter_context(opened(model, values=False))
            if is_adapter_alone(list(anatomy.weights)):
                message = "an adapter alone is no model: name it with its base, as BASE+ADAPTER"
                raise UsageError(message, path=anatomy.source, code="adapter_alone")
            out.append(Member(anatomy.source, model, outlined(anatomy, "a"), None))
        names = [member.name for member in out]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError("the same model is named twice", path=twice, code="named_twice")
        yield out
        for member in out:
            for checkpoint in () if member.examined is None else member.examined.anatomy.checkpoints:
                checkpoint.check_unchanged()


def relate(a: Member, b: Member, seed: int = 0) -> Relation:
    """What `compare` says of the two."""
    if a.kept is not None and b.kept is not None:
        models = pair_of(a.kept, b.kept)
        facts = gathered(models, gather_kept(a.kept, b.kept))
        return Relation(decide(facts).name, models, False, facts.maps, facts.by_test)
    models = _pair(a, b, seed)
    finite = replace(models, a=finite_view(models.a), b=finite_view(models.b))
    if in_place(finite):
        found = _decided(gathered(finite, gather(models, _IN_PLACE)), True)
        if found.related:
            return found
    return _decided(gathered(finite, gather(models, UNASKED)), in_place(finite))


def _decided(facts: Facts, in_place: bool) -> Relation:
    verdict = decide(facts)
    asked = facts.told(TrainingShared) is not None
    doubtful = asked and "shared_initialisation" in verdict.readings[1:]
    return Relation(verdict.name, facts.models, in_place, None if in_place else facts.maps, facts.by_test, doubtful)


def _pair(a: Member, b: Member, seed: int) -> ModelPair:
    assert a.examined is not None
    assert b.examined is not None
    by_value = a.examined.reads.cuts or b.examined.reads.cuts
    ours, theirs = replace(a.side(by_value), label="a"), replace(b.side(by_value), label="b")
    pairs, log10_pairings = pair_tensors(ours, theirs)
    return ModelPair(ours, theirs, pairs, log10_pairings, seed, "standard")


def nearness(members: Sequence[Member]) -> F64:
    """Mean cosine of a sample of each block matrix, as both stand, what only one has counted as 0: float64 (n, n)."""
    n = len(members)
    seen: dict[object, list[tuple[int, F32]]] = {}
    count = np.zeros(n)
    for i, member in enumerate(members):
        for key, values in _sampled(member):
            seen.setdefault((key, values.size), []).append((i, values))
            count[i] += 1
    total = np.zeros((n, n))
    for found in seen.values():
        at = [i for i, _ in found]
        rows = unit_rows(np.stack([values for _, values in found]))
        total[np.ix_(at, at)] += product(rows, rows.T)
    return np.asarray(total / np.maximum(np.maximum(count[:, None], count), 1))


def _sampled(member: Member) -> Iterable[tuple[object, F32]]:
    if member.kept is not None:
        kept = member.kept
        for name, tensor in kept.tensors.items():
            if tensor.place is not None and tensor.place.block is not None and tensor.rank2 and not tensor.undecoded:
                yield (tensor.place, tensor.shape), kept.sketch(name).astype(np.float32)
        return
    for block, matrices in signatures(finite_view(member.side())).items():
        for role, values in matrices.items():
            yield (block, role), values
