"""Blocks without a table: from a number that repeats in names, or from the period of the shapes in file order.

**Names.** A name is cut at its numbers: ``enc.7.w3`` is prefix ``enc.``, 7, rest ``.w3``. A prefix is a run of blocks
when at least two numbers follow it and the sets of (rest, shape) behind different numbers mostly agree: neighbours
share half of them (Jaccard index, in the median). That agreement is what random digits in random names don't have.
The leftmost such number is the block, with one exception: when a number further right covers nearly all tensors of the
outer ones and repeats more than six tensors, the outer number is a *stage* and the inner one the block (Swin's stages).
A further number whose groups agree and hold matrices is the expert's.

**Order.** Where names carry nothing, the sequence of shapes s₁ … s_N in file order is searched for the period p with
the longest run s_i = s_{i+p}: blocks written one behind the other, in the order of modules or of lost names, repeat
exactly. A run must cover most tensors, or the order is taken to be as random as the names. Where a run of
n·p + r tensors fits, any of r + 1 starts would do: which one is decided by the order of roles
(:mod:`weightprint.anatomy.infer.order`).

A block is then a set of *tensors*: one tensor holds the same thing in all blocks, so evidence is added over blocks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from weightprint.anatomy.infer.name_hints import expert_word

Shape = tuple[int, ...]
Where = tuple[int, int | None]  # block, expert

_DIGITS = re.compile(r"\d+")
_AGREE = 0.5
_COVER = 0.7
_LARGE = 6  # a repeated unit of more tensors than this is a block rather than an expert
_PERIODIC = 0.6  # share of the tensors that a run must cover
_LONGEST_PERIOD = 4096
_GLANCE = 256  # tensors that are compared first


@dataclass(slots=True, eq=False)
class BlockTensor:
    """One tensor of a block, the same one in every block of its kind.

    Attributes:
        rest: what follows the block number in its name, the expert's number as ``{e}``; "" where names say nothing.
        place: its place within the block in file order.
        shape: its shape in every block of the kind.
        names: (block, expert) -> weight.
    """

    rest: str
    place: int
    shape: Shape
    names: dict[Where, str] = field(default_factory=dict)

    @property
    def experts(self) -> int:
        """How many experts it is repeated for; 0: none."""
        return len({expert for _, expert in self.names if expert is not None})


@dataclass
class RepeatedBlocks:
    """A stack of blocks: what precedes the number in names, which numbers, and the tensors of each kind of block."""

    prefix: str
    kinds: list[list[BlockTensor]]
    blocks: list[int]

    @cached_property
    def names(self) -> set[str]:
        """Every weight in it."""
        return {name for tensors in self.kinds for tensor in tensors for name in tensor.names.values()}


def repeats_by_name(
    shapes: Mapping[str, Shape], names: Sequence[str], known: Iterable[str] = ()
) -> list[RepeatedBlocks]:
    """The stacks that numbers in names show, longest first. Names in none of them are outside.

    A number behind a prefix that `known` weights have needs no second look: they are blocks.
    """
    sure = {name[: m.start()] for name in known if (m := _DIGITS.search(name))}
    repeats: list[RepeatedBlocks] = []
    left = [(name, 0) for name in names]  # with the end of its last number so far
    for _ in range(8):
        left, fronts = _cut(left)
        found = []
        for prefix, members in fronts.items():
            if len(members) > 1 and len(numbers := _numbered(prefix, members)) > 1:
                again = prefix in sure
                if again or (_agree(numbers, shapes) and not _staged(members, shapes)):
                    found.append(_repeated(prefix, numbers, shapes))
        if found:
            taken = {name for repeat in found for name in repeat.names}
            left = [cut for cut in left if cut[0] not in taken]
        repeats += found
    repeats.sort(key=lambda repeat: -len(repeat.names))
    return repeats


_LONG = 4300  # digits that `int` reads
#: A name and the end of one of its numbers.
_Cut = tuple[str, int]


def _cut(names: Iterable[_Cut], digits: int = 6) -> tuple[list[_Cut], dict[str, list[_Cut]]]:
    """Names that have a further number, with its end; and those of at most `digits` by what stands before it."""
    cuts: list[_Cut] = []
    fronts: dict[str, list[_Cut]] = {}
    for name, at in names:
        if found := _DIGITS.search(name, at):
            a, b = found.span()
            cuts.append(cut := (name, b))
            if b - a <= digits:
                fronts.setdefault(name[:a], []).append(cut)
    return cuts, fronts


def _numbered(prefix: str, members: Iterable[_Cut]) -> dict[int, list[tuple[str, str]]]:
    """Number behind the prefix -> (rest, name)."""
    numbers: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, end in members:
        numbers[int(name[len(prefix) : end])].append((name[end:], name))
    return numbers


def _agree(numbers: Mapping[int, list[tuple[str, str]]], shapes: Mapping[str, Shape]) -> bool:
    """Neighbouring numbers are followed by the same (rest, shape), and there are matrices among them."""
    if max(map(len, numbers.values())) < 2:
        return False
    sets = [{(rest, shapes[name]) for rest, name in numbers[b]} for b in sorted(numbers)]
    if max(map(len, sets)) < 2 or not any(len(shape) > 1 for group in sets for _, shape in group):
        return False
    if not any(any(c.isalpha() or c in "._-/" for c in rest) for group in sets for rest, _ in group):
        return False
    shared = [len(a & b) / len(a | b) for a, b in pairwise(sets)]
    return float(np.median(shared)) >= _AGREE


def _staged(members: Sequence[_Cut], shapes: Mapping[str, Shape]) -> bool:
    """The number behind this one is the block: it repeats a large unit and covers nearly everything here."""
    covered = 0
    for prefix, inner in _cut(members, _LONG)[1].items():
        group = _numbered(prefix, inner)
        unit = max(len(entries) for entries in group.values())
        if unit > _LARGE and (len(group) == 1 or _agree(group, shapes)):
            covered += len(inner)
    return covered >= _COVER * len(members)


def _repeated(prefix: str, numbers: Mapping[int, list[tuple[str, str]]], shapes: Mapping[str, Shape]) -> RepeatedBlocks:
    blocks = {block: _unit(numbers[block], shapes) for block in sorted(numbers)}
    return RepeatedBlocks(prefix, kinds(blocks), sorted(numbers))


def _unit(
    entries: Sequence[tuple[str, str]], shapes: Mapping[str, Shape]
) -> dict[tuple[str, Shape], dict[int | None, str]]:
    """The tensors of one block; names that differ in an expert's number share one."""
    inner: dict[str, dict[int, set[tuple[str, Shape]]]] = defaultdict(lambda: defaultdict(set))
    parts: dict[str, tuple[str, int, str]] = {}
    for rest, name in entries:
        found = _DIGITS.search(rest)
        if found and found.end() - found.start() <= 6:
            head, number, tail = rest[: found.start()], int(found[0]), rest[found.end() :]
            parts[name] = (head, number, tail)
            inner[head][number].add((tail, shapes[name]))
    experts = {head for head, numbers in inner.items() if _experts(head, numbers)}
    unit: dict[tuple[str, Shape], dict[int | None, str]] = defaultdict(dict)
    for rest, name in entries:
        part = parts.get(name)
        if part and part[0] in experts:
            unit[f"{part[0]}{{e}}{part[2]}", shapes[name]][part[1]] = name
        else:
            unit[rest, shapes[name]][None] = name
    return unit


def _experts(head: str, numbers: Mapping[int, set[tuple[str, Shape]]]) -> bool:
    """The number behind `head` counts experts: equal groups of two matrices or more (norm.1 and norm.2 hold none)."""
    groups = list(numbers.values())
    first = groups[0]
    matrices = [shape for _, shape in first if len(shape) == 2]
    if len(groups) < 2 or any(group != first for group in groups):
        return False
    return bool(matrices) and (expert_word(head) or (len(matrices) > 1 and any(a != b for a, b in matrices)))


def kinds(blocks: Mapping[int, Mapping[tuple[str, Shape], Mapping[int | None, str]]]) -> list[list[BlockTensor]]:
    """Blocks with the same tensors are of one kind and share them; the commonest kind first."""
    alike: dict[frozenset[tuple[str, Shape, int]], list[int]] = defaultdict(list)
    for block, unit in blocks.items():
        alike[frozenset((rest, shape, len(names)) for (rest, shape), names in unit.items())].append(block)
    out: list[list[BlockTensor]] = []
    for members in sorted(alike.values(), key=lambda m: (-len(m), m[0])):
        tensors = {key: BlockTensor(key[0], i, key[1]) for i, key in enumerate(blocks[members[0]])}
        for block in members:
            for key, names in blocks[block].items():
                tensors[key].names.update({(block, expert): name for expert, name in names.items()})
        out.append(list(tensors.values()))
    return out


def periodic(shapes: Sequence[Shape]) -> tuple[int, int, int] | None:
    """(start, period, length) of the longest exactly repeating run in a sequence of shapes, or None.

    Length counts all tensors from the start on that repeat with the period, the last block possibly going on into
    what follows it. Few periods survive a look at the middle fifth, which every run that is long enough repeats.
    """
    number: dict[Shape, int] = {}
    ids = np.array([number.setdefault(shape, len(number)) for shape in shapes], np.int64)
    n = len(ids)
    if len(number) < 3:
        return None  # no block has fewer than three shapes
    best: tuple[int, int, int] | None = None
    middle = ids[int(np.ceil((1 - _PERIODIC) * n)) : int(_PERIODIC * n)]
    for p in range(2, min(n // 2, _LONGEST_PERIOD) + 1):
        if not (
            np.array_equal(middle[p : p + _GLANCE], middle[:-p][:_GLANCE]) and np.array_equal(middle[p:], middle[:-p])
        ):
            continue
        same = np.concatenate(([0], (ids[p:] == ids[:-p]).astype(np.int8), [0]))
        if int(same.sum()) < p:
            continue
        edges = np.flatnonzero(np.diff(same))
        starts, ends = edges[::2], edges[1::2]
        i = int(np.argmax(ends - starts))
        length = int(ends[i] - starts[i]) + p
        if length < 2 * p or len(set(ids[starts[i] : starts[i] + p].tolist())) < 3:
            continue
        if best is None or length // p * p > best[2] // best[1] * best[1]:
            best = (int(starts[i]), p, length)
    return best if best is not None and best[2] // best[1] * best[1] >= _PERIODIC * n else None


def outside_names(names: Sequence[str], repeats: Sequence[RepeatedBlocks]) -> list[str]:
    """Names in no run, in file order."""
    taken = {name for repeat in repeats for name in repeat.names}
    return [name for name in names if name not in taken]
