"""Which parts of B are *absent*: looked for with power, where the rest was found, and not there.

A part is the attention or the FFN of one block (or one expert). Units speak for FFNs and heads for attention, in the
bases of the stream in which something of B was found: silence in another basis means nothing, and neither does
silence on a block that the basis was fitted on. In place its matrices must agree no more than strangers' do.

*An FFN* is absent if `unit_agreement` had the power to see a quarter of its units, and found fewer than a twentieth.

*Attention* has few heads and more ways to be rewritten, so its absence needs more: heads of one kind on both sides
(their number, groups, latent or not), no head of the block found, and a rate at which heads of a descendant would have
been found. Where the block's FFN is absent as well that is the rate of the other blocks, such that missing all heads of
this one has a chance of .001. Where no head was found in any block the FFNs tell it: most of their units must have been
found, nearly all in a basis that was fitted. A model that was trained so far that only some units are recognised, or
turned back by a coarse rotation, may have lost its heads: products of two matrices fade twice as fast.

Tensors without a place, and those of a kind that no test reads, are never absent.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from weightprint.evidence.evidence import Evidence, Region
from weightprint.evidence.head_agreement import HeadAgreement
from weightprint.evidence.lookup.turned_parts import TurnedParts
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.tests import BASIS_FREE, OWN_BASIS
from weightprint.fingerprint.attentions import attentions
from weightprint.fingerprint.model import Tensor
from weightprint.verdict.found_blocks import FoundBlock, Key, by_part, found_blocks, found_heads
from weightprint.verdict.thresholds import ABSENT, ABSENT_UNITS, DETECTABLE, MOST

_MISSED = 0.001
_WHOLE = 0.9  # weak cosine of parts that are A's, found by themselves
_NEARLY_ALL = 0.9
_COMMON_STREAM = ("unit_agreement", "aligned_units", "head_agreement")

Block = tuple[str, int]


@dataclass(frozen=True)
class Absent:
    """Parts of B that are not A's: FFNs and experts, the attention of blocks, and all their tensors."""

    ffns: frozenset[Key] = frozenset()
    attention: frozenset[Block] = frozenset()
    tensors: frozenset[str] = frozenset()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """``decoder.3`` where attention and FFN are absent, else ``decoder.3 attention``, ``decoder.3.expert.1``…"""
        dense = {key[:2] for key in self.ffns if key[2] is None}
        out = {f"{stack}.{at}" + ("" if (stack, at) in dense else " attention") for stack, at in self.attention}
        for stack, at, expert in self.ffns:
            if expert is not None:
                out.add(f"{stack}.{at}.expert.{expert}")
            elif (stack, at) not in self.attention:
                out.add(f"{stack}.{at} FFN")
        return tuple(sorted(out, key=_natural))

    def beside(self, stacks: Iterable[str]) -> tuple[str, ...]:
        """Those of these stacks."""
        return tuple(name for name in self.names if any(name.startswith(f"{stack}.") for stack in stacks))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(word), "") if word.isdigit() else (-1, word) for word in name.replace(" ", ".").split(".")]


def absent_parts(
    models: ModelPair,
    evidence: Sequence[Evidence],
    deciding: Sequence[Evidence],
    blocks: Mapping[Key, FoundBlock],
    cosines: Mapping[str, float],
    copied: Iterable[str],
) -> Absent:
    """Judge every FFN, expert and attention of B.

    Args:
        models: the pair.
        evidence: all that was run.
        deciding: of these, what may say which block is which.
        blocks: B's blocks and experts that were found.
        cosines: B's tensor → its centred cosine in place.
        copied: tensors of B that hold A's values.
    """
    homes = [e for e in deciding if e.test in _COMMON_STREAM and found_blocks([e], (), models.b)]
    bases = {_basis(e) for e in homes}
    if any(value >= MOST for value in cosines.values()) or any(
        b.in_place and b.test not in BASIS_FREE for b in blocks.values()
    ):
        bases.add(_basis(None))
    if not bases:  # the stream may be turned: only what asks each part by itself has seen anything
        return _absent_turned(models, deciding, evidence)
    by_place, agree = by_part(models.b.tensors.values()), _agreeing(models.b.tensors, cosines) | set(copied)
    answers = {test: [e for e in evidence if e.applied and e.test == test] for test in _COMMON_STREAM}
    silent = [_silent_units([e for e in answers["unit_agreement"] if _basis(e) == basis]) for basis in bases]
    found = {key for key, block in blocks.items() if block.test not in ("aligned_weights", "head_agreement")}
    ffns = {k for k in frozenset.intersection(*silent) - found if agree.isdisjoint(by_place.get(("ffn", k), ()))}
    heads = [[e for e in answers["head_agreement"] if _basis(e) == basis] for basis in bases]
    kept = [block.effect for key, block in blocks.items() if key in found]
    units = float(np.median(kept)) if kept else 0.0
    silent_heads = [_silent_heads(models, one, units, {key[:2] for key in ffns}) for one in heads]
    attention = {
        at
        for at in frozenset.intersection(*silent_heads)
        if agree.isdisjoint(by_place.get(("attention", (*at, None)), ()))
    }
    places = [("ffn", key) for key in ffns] + [("attention", (*at, None)) for at in attention]
    names = frozenset(name for place in places for name in by_place.get(place, ()))
    return Absent(frozenset(ffns), frozenset(attention), names)


def _absent_turned(models: ModelPair, deciding: Sequence[Evidence], evidence: Sequence[Evidence]) -> Absent:
    """FFNs and attention that were asked for by themselves, beside others that are all but equal to A's: where what is
    there was trained on, what is not seen may have been too."""
    turned = [e for e in evidence if e.applied and e.test in OWN_BASIS]
    whole = [x[3] for e in turned if e in deciding for x in e.told(TurnedParts).found.values()]
    if not whole or min(whole) < _WHOLE:
        return Absent()
    missing = [x for e in turned for x in e.told(TurnedParts).not_found]
    ffns = frozenset((stack, block, expert) for kind, stack, block, expert in missing if kind == "ffn")
    attention = frozenset((stack, block) for kind, stack, block, _ in missing if kind == "attention")
    by_place = by_part(models.b.tensors.values())
    places = [("ffn", key) for key in ffns] + [("attention", (*at, None)) for at in attention]
    tables = {kind for kind, *_ in missing}
    names = {t.name for t in models.b.tensors.values() if t.place is not None and t.place.role in tables}
    names |= {name for place in places for name in by_place.get(place, ())}
    return Absent(ffns, attention, frozenset(names))


def _basis(evidence: Evidence | None) -> str:
    """How the basis was found, since there may be two of one kind."""
    if evidence is None or evidence.basis == "identity":
        return "identity"
    return evidence.found_by


def _agreeing(tensors: Mapping[str, Tensor], cosines: Mapping[str, float]) -> set[str]:
    """Tensors that agree in place by more than strangers do."""
    return {n for n, x in cosines.items() if n in tensors and x >= ABSENT + 3 / math.sqrt(max(tensors[n].numel, 1))}


def _silent_units(answers: Sequence[Evidence]) -> frozenset[Key]:
    """FFNs and experts that one of these looks tested with power, without seeing their units."""
    return frozenset(
        match.b
        for e in answers
        if (e.detectable or 1.0) <= DETECTABLE
        for match in e.matches
        if match.share < ABSENT_UNITS and match.name.partition(".expert.")[0] not in _fitted(e)
    )


def _fitted(evidence: Evidence) -> set[str]:
    return {str(name).partition(".expert.")[0] for name in evidence.left_out_of_p}


def _silent_heads(models: ModelPair, answers: Sequence[Evidence], units: float, gone: set[Block]) -> frozenset[Block]:
    """Blocks without a head found that a descendant would have shown. ``units``: share of units of FFNs found;
    ``gone``: blocks whose FFN is absent."""
    kinds = {_kind(x) for x in attentions(models.a, models.b)}
    alike = {x.name: (x.stack, x.block) for x in attentions(models.b, models.a) if kinds == {_kind(x)}}
    silent: set[Block] = set()
    for e in answers:
        rows = {row["b"]: [head is not None for head in row["heads"]] for row in e.told(HeadAgreement).head_map}
        seen = found_heads(e.matches)
        there = [heads for name, heads in rows.items() if alike.get(name) in seen]
        rate = float(np.mean(np.concatenate(there))) if there else 0.0
        enough = sum(map(len, rows.values())) >= math.log(_MISSED) / math.log(1 - MOST)
        if not there and enough and units >= (MOST if e.basis == "identity" else _NEARLY_ALL):
            silent |= {alike[name] for name in rows if name in alike}
        for name, heads in rows.items():
            if (at := alike.get(name)) in gone and at not in seen and (1 - rate) ** len(heads) <= _MISSED:
                silent.add(at)
    return frozenset(silent)


def _kind(attention: object) -> tuple[object, ...]:
    return tuple(getattr(attention, key) for key in ("heads", "kv_heads", "latent"))


def absent_outside(models: ModelPair, regions: Iterable[Region], found: Container[str]) -> tuple[Region, ...]:
    """Token tables and the like that agree in place with nothing of A, where a cosine of `ABSENT` would have been seen;
    only where all that is compared is known by its role."""
    known = {name for name, tensor in models.b.tensors.items() if tensor.place is not None}
    outside = (r for r in regions if r.layer is None and r.name not in found and known.issuperset(r.tensors))
    return tuple(r for r in outside if r.detectable < ABSENT and r.effect < ABSENT)


def stacked_layers(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Tensors without a place that look like many layers in one: three or more axes, and a size on the first or the
    last axis in common with another such tensor."""
    found = [t for t in tensors if t.place is None and len(t.shape) > 2 and min(t.shape) > 1]
    for tensor in found:
        if any(o is not tensor and (o.shape[0] == tensor.shape[0] or o.shape[-1] == tensor.shape[-1]) for o in found):
            yield tensor
