"""Which blocks of B were found in A, by which test, and how much of B that is.

Two kinds of look are brought together. In place: a region of `aligned_weights`, the tensors of one block in the same
place of both models. Anywhere: a `UnitMatch`, the hidden units of one FFN or expert of B found in some FFN of A, in any
order, layer, width or basis, as the test that found it allows.

A block counts as found once the tests together decide (:mod:`weightprint.verdict.facts`) and its own look is beyond
chance with an effect. What is found is a *part*: hidden units speak for their FFN, heads for their attention
(`found_heads`), and neither for the other. :mod:`weightprint.verdict.absent_parts` says which parts are absent. What is
neither is not known, and widens the interval of the share.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from weightprint.anatomy.place import Expert
from weightprint.evidence.evidence import Evidence, Region, UnitMatch
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.tests import OF_HEADS
from weightprint.evidence.thresholds import BLOCK_LOG10_P, EFFECT
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.verdict.thresholds import MOST
from weightprint.verdict.values import Share

Key = tuple[str, int, Expert]


@dataclass(frozen=True, slots=True)
class FoundBlock:
    """One block (or expert) of B with its counterpart in A.

    ``effect`` is the share of its hidden units found; for `aligned_weights` the centred cosine in place beyond
    neighbouring layers.
    """

    b: Key
    a: Key
    test: str
    basis: str
    effect: float
    log10_p: float
    semantic: bool = False

    @property
    def in_place(self) -> bool:
        """The same stack, block and expert on both sides, in the basis as stored."""
        return self.b == self.a and self.basis == "identity"


def found_blocks(
    evidence: Iterable[Evidence], regions: Iterable[Region], b: ModelView, effect: float = EFFECT
) -> dict[Key, FoundBlock]:
    """Blocks and experts of B → the strongest look at each. ``regions`` are those found in place, which speak where
    no hidden units do; they are named after A's blocks, and B may call its stack otherwise. Heads speak where nothing
    else does."""
    found: dict[Key, FoundBlock] = {}
    for region in regions:
        if region.layer is not None:
            ours: Key = (region.stack, region.layer, None)
            places = [b.tensors[name].place for name in region.tensors if name in b.tensors]
            there = [(p.stack, p.block) for p in places if p is not None and p.block is not None]
            key: Key = (*max(set(there), key=there.count), None) if there else ours
            found[key] = FoundBlock(key, ours, "aligned_weights", "identity", region.excess, -math.inf)
    for e in evidence:
        tried, fitted = math.log10(e.pairs_tried), e.left_out_of_p
        for match in e.matches:
            p = min(0.0, match.log10_p + tried)
            if match.name in fitted or p > BLOCK_LOG10_P or match.share < effect:
                continue
            block = FoundBlock(match.b, match.a, e.test, e.basis, match.share, p, e.semantic)
            before = found.get(match.b)
            if before is None or _strength(block) > _strength(before):
                found[match.b] = block
    return found


#: What a look at a block says of its FFN: units most, a region in place holds more than the FFN, heads nothing.
_RANK = {**dict.fromkeys(OF_HEADS, 0), "aligned_weights": 1}


def _strength(block: FoundBlock) -> tuple[int, bool, float, float]:
    return (_RANK.get(block.test, 2), not block.semantic, -block.log10_p, block.effect)


def found_heads(matches: Iterable[UnitMatch], effect: float = EFFECT) -> dict[tuple[str, int], float]:
    """(stack, block) of B → the share of its attention heads found in one block of A.

    A block has few heads, so the test decides over all of them; one head of more than two is what chance finds.
    """
    found: dict[tuple[str, int], float] = {}
    for match in matches:
        if match.share >= effect and (match.agreed > 1 or match.share >= MOST):
            found[match.b[:2]] = max(found.get(match.b[:2], 0.0), match.share)
    return found


def parts_of(
    models: ModelPair,
    copied: set[str],
    rows: Mapping[str, float],
    regions: Sequence[Region],
    agree: Container[str],
    found: Mapping[Key, FoundBlock],
    heads: Mapping[tuple[str, int], float],
) -> dict[str, float]:
    """Tensors of B of which something was found in A → the part of each, 0..1.

    Args:
        models: the pair.
        copied: tensors of B that hold A's values.
        rows: B's token tables → the part of their rows that is A's.
        regions: those found in place.
        agree: B's tensors that agree with A's in place.
        found: blocks and experts found by their units, which count their FFN.
        heads: (stack, block) of B → share of its heads found, which counts its attention.
    """
    b = models.b
    part: dict[str, float] = {**rows, **dict.fromkeys(copied, 1.0)}
    for region in regions:
        part |= {name: 1.0 for name in region.tensors if name in agree}
    by_place = by_part(b.tensors.values())
    kept = [(("ffn", key), min(1.0, block.effect)) for key, block in found.items() if block.test not in _RANK]
    kept += [(("attention", (*at, None)), value) for at, value in heads.items()]
    for place, value in kept:
        part |= {name: max(part.get(name, 0.0), value) for name in by_place.get(place, ())}
    return {name: value for name, value in part.items() if name in b.tensors}


def share_of(models: ModelPair, part: Mapping[str, float], absent: Iterable[str]) -> Share:
    """Parameters of B found in A. ``absent``: tensors that were looked for with power and are not there."""
    b = models.b
    total = max(b.numel, 1)
    low = sum(b.tensors[name].numel * value for name, value in part.items()) / total
    lost = (
        sum(b.tensors[name].numel for name in set(absent) if part.get(name, 0.0) <= 0.0 and name in b.tensors) / total
    )
    if not part:
        return Share(None, 0.0, 1.0)
    return Share(min(1.0, low), min(1.0, low), max(min(1.0, low), 1.0 - lost))


def by_part(tensors: Iterable[Tensor]) -> Mapping[tuple[str, Key], list[str]]:
    """("ffn" or "attention", block or expert) → names of its tensors."""
    out: dict[tuple[str, Key], list[str]] = defaultdict(list)
    for tensor in tensors:
        place = tensor.place
        if place is not None and place.block is not None and place.part in ("ffn", "attention"):
            out[place.part, (place.stack, place.block, place.expert)].append(tensor.name)
    return out
