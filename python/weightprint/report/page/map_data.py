"""Which block and which expert of B is which of A, and how much of each was found: what the map draws.

Everything is read off the facts that the verdict was weighed from: the outline of both models, and the part of every
tensor of B that was found in A (:attr:`weightprint.verdict.facts.Facts.parts`), which also makes the share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from weightprint.anatomy.place import Expert
from weightprint.fingerprint.model import Tensor
from weightprint.util.natural_order import natural_key
from weightprint.util.ranges import spans
from weightprint.verdict.facts import Facts

__all__ = ["CALLED", "Cap", "ExpertCell", "Link", "StackMap", "shared_words", "stack_maps"]

#: What a block or a part of B is: found (in some part), looked for with power and not there, or not told.
State = Literal["found", "absent", "open"]
K = TypeVar("K")

#: Parts outside the blocks as the drawing names them, by role; above the blocks, then below.
_ABOVE = ("embedding", "projector")
_BELOW = ("final norm", "head", "other parts")
_CAPS = {"embedding": "embedding", "projector": "projector", "head": "head"}
#: Parts as people call them, where that is not their name.
CALLED = {"embedding": "token table"}
_TINY = 0.01  # of a stack's parameters: a part that nothing is said of is not drawn
_LEAST = 0.05  # of a block's parameters: a second source that is worth a ribbon


@dataclass(frozen=True, slots=True)
class Link:
    """A block of B (place in its list) from a block of A: the share of its parameters found there."""

    b: int
    a: int
    share: float
    moved: bool


@dataclass(frozen=True, slots=True)
class Cap:
    """A part outside the blocks: whether A and B have it, how many rows it has there, how much of B's was found."""

    name: str
    above: bool
    in_a: bool
    in_b: bool
    rows: tuple[int | None, int | None]
    share: float
    state: State


@dataclass(frozen=True, slots=True)
class ExpertCell:
    """An expert of B: row (place of its block), column, share of it found, and whether its expert in A has another
    number."""

    row: int
    column: int
    share: float
    moved: bool


@dataclass(frozen=True)
class StackMap:
    """One stack of B beside its stack of A; either may be missing.

    ``a`` and ``b``: names; ``blocks_a`` and ``blocks_b``: their blocks; ``states``: of each block of B; ``unused``:
    places of A's blocks that no block of B names; ``experts``: how many columns of experts there are.
    """

    a: str | None
    b: str | None
    blocks_a: tuple[int, ...]
    blocks_b: tuple[int, ...]
    links: tuple[Link, ...]
    states: tuple[State, ...]
    caps: tuple[Cap, ...]
    experts: int
    cells: tuple[ExpertCell, ...]

    @property
    def unused(self) -> frozenset[int]:
        """Places of A's blocks that no block of B names."""
        return frozenset(range(len(self.blocks_a))) - {link.a for link in self.links}

    @property
    def doubled(self) -> frozenset[int]:
        """Places of A's blocks that several blocks of B name."""
        return frozenset(a for a, n in Counter(link.a for link in self.links).items() if n > 1)


def stack_maps(facts: Facts, *, denied: bool) -> tuple[StackMap, ...]:
    """The map of every stack, the largest of B first. ``denied``: the verdict says that nothing was found, and would
    have been."""
    a, b = _placed(facts)
    parts = dict.fromkeys(b, 1.0) if facts.equal_both_ways else dict(facts.parts)
    sources = _sources(facts, a, b)
    stacks = [_stacks(side) for side in (a, b)]
    partner = _partners(sources, *stacks)
    lost = {name for region in facts.absent_regions for name in region.tensors} | facts.absent.tensors
    out = []
    for name in sorted(stacks[1], key=lambda stack: -sum(t.numel for t in stacks[1][stack])):
        of_a = stacks[0].get(partner.get(name, ""), [])
        out.append(_stack(partner.get(name), of_a, name, stacks[1][name], sources, parts, lost, denied=denied))
    for name in stacks[0].keys() - set(partner.values()):
        out.append(_stack(name, stacks[0][name], None, [], sources, parts, lost, denied=denied))
    # A part is missing only where every tensor of that side has a place.
    odd_a, odd_b = (any(t.place is None for t in side.values()) for side in (a, b))
    return tuple(
        replace(m, caps=tuple(c for c in m.caps if (c.in_a or not odd_a) and (c.in_b or not odd_b))) for m in out
    )


def shared_words(maps: Sequence[StackMap]) -> str:
    """What of B was found: ``"token table, head, layers 0–3"``; empty where no part was."""
    found = [CALLED.get(cap.name, cap.name) for stack in maps for cap in stack.caps if cap.in_b and cap.share >= _LEAST]
    for stack in maps:
        layers = [block for block, state in zip(stack.blocks_b, stack.states, strict=True) if state == "found"]
        if layers:
            of = f" of {stack.b}" * (len(maps) > 1)
            found.append(f"layer{'s' * (len(layers) > 1)} {spans(layers)}{of}")
    return ", ".join(found)


Block = tuple[str, int, Expert]
#: Block or expert of B → block or expert of A → how much speaks for it.
Sources = dict[Block, dict[Block, float]]


Side = Mapping[str, Tensor]


def _placed(facts: Facts) -> tuple[Side, Side]:
    """Both sides' tensors; one whose place is not known takes that of its counterpart."""
    a, b = dict(facts.models.a.tensors), dict(facts.models.b.tensors)
    known = [(p.a.name, p.b.name) for p in facts.models.pairs]
    for of_a, of_b in (*known, *((f.a, f.b) for f in (*facts.copies, *facts.scaled, *facts.reordered))):
        ours, theirs = a[of_a], b[of_b]
        if theirs.place is None and ours.place is not None:
            b[of_b] = replace(theirs, place=ours.place)
        elif ours.place is None and theirs.place is not None:
            a[of_a] = replace(ours, place=theirs.place)
    return a, b


def _sources(facts: Facts, a: Side, b: Side) -> Sources:
    found: Sources = defaultdict(lambda: defaultdict(float))
    if facts.equal_both_ways and not facts.copies:
        for pair in facts.models.pairs:
            _vote(found, a[pair.a.name], b[pair.b.name], pair.b.numel)
    for copy in (*facts.copies, *facts.scaled, *facts.reordered):
        _vote(found, a[copy.a], b[copy.b], copy.numel)
    for key, block in facts.blocks.items():
        found[key][block.a] += block.effect
    for row in facts.maps.ffns if facts.maps else ():
        if row.a is not None:
            several = {at: share for at, share in row.also if row.b[2] is None and at[2] is not None}
            found[row.b] = {row.a: row.share, **several}
    return found


def _vote(found: Sources, a: Tensor, b: Tensor, weight: float) -> None:
    if a.place is None or b.place is None or a.place.block is None or b.place.block is None:
        return
    found[b.place.stack, b.place.block, b.place.expert][a.place.stack, a.place.block, a.place.expert] += weight


def _stacks(side: Side) -> dict[str, list[Tensor]]:
    out: dict[str, list[Tensor]] = defaultdict(list)
    for tensor in side.values():
        if tensor.place is not None:
            out[tensor.place.stack].append(tensor)
    return out


def _partners(sources: Sources, a: dict[str, list[Tensor]], b: dict[str, list[Tensor]]) -> dict[str, str]:
    """Stack of B → stack of A: the one that most was found in, else the one of its name, else the only one left."""
    out = {}
    for stack in b:
        votes = Counter(at[0] for key, of in sources.items() if key[0] == stack for at in of)
        if votes:
            out[stack] = votes.most_common(1)[0][0]
        elif stack in a:
            out[stack] = stack
    left = [stack for stack in b if stack not in out]
    free = [stack for stack in a if stack not in out.values()]
    return out | (dict(zip(left, free, strict=True)) if len(left) == len(free) == 1 else {})


def _stack(
    a: str | None,
    of_a: Sequence[Tensor],
    b: str | None,
    of_b: Sequence[Tensor],
    sources: Sources,
    parts: dict[str, float],
    lost: set[str] | frozenset[str],
    *,
    denied: bool,
) -> StackMap:
    blocks_a, blocks_b = _blocks(of_a), _blocks(of_b)
    at_a = {block: i for i, block in enumerate(blocks_a)}
    by_block = _grouped(of_b, lambda t: t.layer)
    named: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for (stack, block, _), of in sources.items():
        if stack == b:
            for (stack_of_a, layer, _), weight in of.items():
                named[block][layer] += weight if stack_of_a == a else 0
    links: list[Link] = []
    states: list[State] = []
    for i, block in enumerate(blocks_b):
        tensors = by_block[block]
        share = _share(tensors, parts)
        votes = named[block]
        total = sum(votes.values())
        chosen = [(at, n / total) for at, n in _largest(votes, 3) if total and at in at_a]
        # What speaks for a neighbour beside the best is likeness, not a second source, unless much does.
        kept = [(at, part) for at, part in chosen if part == chosen[0][1] or part >= 0.2]
        links += [Link(i, at_a[at], share * part, at != block) for at, part in kept if share * part >= _LEAST]
        states.append(_state(tensors, share, lost, denied=denied))
    experts = sorted({t.place.expert for t in of_b if t.place and t.place.expert is not None}, key=_expert_order)
    return StackMap(
        a,
        b,
        blocks_a,
        blocks_b,
        tuple(links),
        tuple(states),
        tuple(_caps(of_a, of_b, parts, lost, denied=denied)),
        len(experts),
        tuple(_cells(of_b, blocks_b, experts, sources, parts)),
    )


def _blocks(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    return tuple(sorted({t.layer for t in tensors if t.layer is not None}))


def _grouped(tensors: Iterable[Tensor], key: Callable[[Tensor], K]) -> dict[K, list[Tensor]]:
    out: dict[K, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        out[key(tensor)].append(tensor)
    return out


def _share(tensors: Sequence[Tensor], parts: dict[str, float]) -> float:
    total = sum(t.numel for t in tensors)
    return sum(t.numel * parts.get(t.name, 0.0) for t in tensors) / total if total else 0.0


def _state(tensors: Sequence[Tensor], share: float, lost: set[str] | frozenset[str], *, denied: bool) -> State:
    if share >= _LEAST:
        return "found"
    gone = sum(t.numel for t in tensors if t.name in lost)
    return "absent" if denied or 2 * gone > sum(t.numel for t in tensors) else "open"


def _cells(
    tensors: Sequence[Tensor],
    blocks: Sequence[int],
    experts: Sequence[Expert],
    sources: Sources,
    parts: dict[str, float],
) -> Iterable[ExpertCell]:
    rows, columns = {x: i for i, x in enumerate(blocks)}, {x: i for i, x in enumerate(experts)}
    by_expert: dict[Block, list[Tensor]] = defaultdict(list)
    for t in tensors:
        if t.place is not None and t.place.block is not None and t.place.expert is not None:
            by_expert[t.place.stack, t.place.block, t.place.expert].append(t)
    for key, held in by_expert.items():
        of = sources.get(key)
        best = _largest(of, 1)[0][0] if of else key
        moved = best[2] is not None and best[2] != key[2]
        yield ExpertCell(rows[key[1]], columns[key[2]], _share(held, parts), moved)


def _largest(votes: Mapping[K, float], n: int) -> list[tuple[K, float]]:
    return sorted(votes.items(), key=lambda item: -item[1])[:n]


def _expert_order(expert: Expert) -> tuple[bool, list[object]]:
    return (not isinstance(expert, str), [*natural_key(str(expert))])


def _caps(
    of_a: Sequence[Tensor],
    of_b: Sequence[Tensor],
    parts: dict[str, float],
    lost: set[str] | frozenset[str],
    *,
    denied: bool,
) -> Iterable[Cap]:
    ours, theirs = (_grouped([t for t in side if t.layer is None], _cap) for side in (of_a, of_b))
    for name in (*_ABOVE, *_BELOW):
        a, b = ours.get(name, []), theirs.get(name, [])
        if a or b:
            share = _share(b, parts)
            state: State = _state(b, share, lost, denied=denied) if b else "open"
            tables = name in ("embedding", "head")
            rows = tuple(max((t.matrix[0] for t in side), default=None) if tables else None for side in (a, b))
            if b and state == "open" and sum(t.numel for t in b) < _TINY * sum(t.numel for t in of_b):
                continue
            yield Cap(name, name in _ABOVE, bool(a), bool(b), (rows[0], rows[1]), share, state)


def _cap(tensor: Tensor) -> str:
    place = tensor.place
    if place is None:
        return "other parts"
    return "final norm" if place.role.startswith("final_norm") else _CAPS.get(place.part, "other parts")
