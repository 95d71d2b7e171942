"""Roles of tensors that no table row explains, inferred from numbers in names, shapes, file order and values.

The steps, each a file of its own:

1. blocks: a number that repeats in names (:mod:`.blocks`), else the period of shapes in file order
   (:mod:`.order`), else neither (:mod:`.unordered`);
2. matrices: the shapes of one block settle most roles and leave choices (:mod:`.shapes`);
3. vectors: gains, offsets and biases (:mod:`.vectors`);
4. choices: words, order and values add log odds (:mod:`.log_odds`, :mod:`.value_probes`, :mod:`.name_hints`), and
   :mod:`.roles` puts the block together;
5. what stands outside the blocks (:mod:`.outside_blocks`).

Nothing is assigned in silence: ``because`` names the cues, and ``confidence`` is half of itself for two roles that
can't be told apart. What fits nothing is left out, and the caller lists it as unmapped.

*Measured* on 13 models (SmolLM2, MiniLM, two SCEPTRs, five tiny Llamas and one with experts, four tiny GPT-2s; 900
tensors), each under made-up words with numbers and under random names in kept order; shuffled, on 7 others and SmolLM2
(docs/anatomy.md lists them):

=======================  ==========  ===========================  ===========
stated confidence        tensors     role and block right         role right
=======================  ==========  ===========================  ===========
numbers or order kept
.2 to .4                 94          .11                          .11
.4 to .6                 28          1.00                         1.00
.6 to 1                  5,071       1.00                         1.00
shuffled
0 to .2                  233         .09                          .96
.2 to .4                 221         .33                          .99
.4 to .6                 236         .66                          1.00
.6 to 1                  223         .83                          1.00
=======================  ==========  ===========================  ===========

The wrong ones with order: norms before or behind their blocks, and SmolLM2's two norms, under made-up words that a
file holds in order of the alphabet. Untrained weights have no cues from values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from weightprint.anatomy.infer.blocks import BlockTensor, RepeatedBlocks, outside_names, repeats_by_name
from weightprint.anatomy.infer.name_hints import hint_among, stack_word
from weightprint.anatomy.infer.order import numbering, repeats_by_order, starts
from weightprint.anatomy.infer.outside_blocks import Outside, find_outside
from weightprint.anatomy.infer.roles import TensorRole, by_name_hints_only, read_block
from weightprint.anatomy.infer.shapes import hidden_size
from weightprint.anatomy.infer.unordered import read_unordered
from weightprint.anatomy.infer.value_probes import Probe
from weightprint.anatomy.place import Assignment, Place, Rows, View
from weightprint.anatomy.roles import FIXED, SHARED, matrix_of
from weightprint.util.arrays import F32
from weightprint.util.beginnings import Beginnings

#: Confidence of a word that shapes neither support nor contradict.
_WORD = 0.8
#: Roles outside the blocks that words alone may name: the rank that such a tensor has.
_OUTSIDE_RANK = {
    "embedding": 2,
    "head": 2,
    "position": 2,
    "token_type": 2,
    "classifier": 2,
    "pooler": 2,
    "final_norm": 1,
}
_OUTSIDE, _FIXED = frozenset(_OUTSIDE_RANK), frozenset(FIXED)

Shape = tuple[int, ...]
Read = Callable[[str, "slice | None", "slice | None"], F32]


def infer(
    shapes: Mapping[str, Shape], left: Sequence[str], known: Sequence[Assignment], read: Read | None = None
) -> list[Assignment]:
    """Blocks and roles of the weights that no row of the table explains.

    Args:
        shapes: logical weight -> shape, all of the checkpoint, in file order.
        left: the names without a place, in file order.
        known: what the table assigned; its places are not given twice.
        read: (name, rows, columns) -> float32 rectangle; a vector's elements are picked by `rows`. At most a few MB
            are read per tensor, 1 GB in all. None, a WeightprintError, an OSError or a value that isn't finite: a cue
            less.

    Returns:
        Assignments with ``source="inferred"``, every name of `left` in at most one place or, fused, in several.
    """
    probe = Probe(read, shapes)
    result = _Result({a.place for a in known})
    buffers = _buffers(left, shapes, result)
    work = [name for name in left if shapes[name] and 0 not in shapes[name] and name not in buffers]
    repeats = repeats_by_name(shapes, work, {a.view.weight for a in known if a.place.block is not None})
    rest = outside_names(work, repeats)
    if repeats:
        _named(repeats, rest, shapes, known, probe, result)
    elif not known:
        _unnamed(work, shapes, probe, result)
    _by_word([name for name in rest if name not in result.names], shapes, result)
    return result.assignments


@dataclass
class _Result:
    """Assignments so far; a place is given once."""

    taken: set[Place]
    assignments: list[Assignment] = field(default_factory=list)
    names: set[str] = field(default_factory=set)  # weights that have a place

    def add(self, place: Place, view: View, confidence: float, because: str) -> None:
        if place not in self.taken or place.part == "fixed":  # a block may have any number of buffers
            self.taken.add(place)
            self.names.add(view.weight)
            sure = round(float(min(0.99, confidence)), 3)
            self.assignments.append(Assignment(place, view, "inferred", sure, because))


def _buffers(left: Sequence[str], shapes: Mapping[str, Shape], result: _Result) -> set[str]:
    """What the architecture sets, by its words; given its place, so that no shape mistakes it for something learned."""
    found = {name for name in left if hint_among(name, _FIXED) is not None}
    for name in left:
        if name in found:
            place = Place(stack_word(name) or "decoder", None, "fixed")
            result.add(place, View(name, shapes[name]), _WORD, "the words of its name")
    return found


def _by_word(rest: Sequence[str], shapes: Mapping[str, Shape], result: _Result) -> None:
    """What nothing else placed, where words alone name a role outside the blocks and the rank agrees."""
    for name in rest:
        word = hint_among(name, _OUTSIDE) if 1 <= len(shapes[name]) <= 2 else None
        if word is not None and len(shapes[name]) == (_OUTSIDE_RANK[word] if word == matrix_of(word) else 1):
            place = Place(stack_word(name) or "decoder", None, word)
            result.add(place, View(name, shapes[name]), _WORD, "the words of its name")


def _named(
    repeats: Sequence[RepeatedBlocks],
    rest: Sequence[str],
    shapes: Mapping[str, Shape],
    known: Sequence[Assignment],
    probe: Probe,
    result: _Result,
) -> None:
    """Stacks that numbers in names show; what is outside goes to the stack whose prefix or width it shares."""
    table = Beginnings([a.view.weight for a in known])
    names = _stack_names(repeats, known, table)
    widths: list[int | None] = []
    final = any(len(shapes[n]) == 1 for n in rest)
    for repeat, stack in zip(repeats, names, strict=True):
        width = None
        theirs = len(table.of(repeat.prefix))
        for kind in repeat.kinds:
            d = hidden_size(kind) or width
            if theirs >= len(repeat.names):  # the table knows this stack: what it left is nothing usual
                _place(by_name_hints_only(kind, [], d or 0), stack, {b: b for b in repeat.blocks}, "", 1.0, result)
                continue
            if d is None:
                continue
            width = width or d
            ordered = not _sorted(kind)
            roles = read_block(kind, d, probe, ordered=ordered, known_order=ordered, final=final)
            how = f"number behind '{repeat.prefix}'"
            _place(roles, stack, {b: b for b in repeat.blocks}, how, 1.0, result)
        widths.append(width)
    beside: dict[int, list[str]] = defaultdict(list)
    nearest = Beginnings([repeat.prefix for repeat in repeats]).nearest
    for name in rest:
        beside[nearest(name)].append(name)
    for i in sorted(range(len(repeats)), key=lambda i: -len(repeats[i].prefix)):
        if (d := widths[i]) is not None:
            for found in find_outside(beside[i], shapes, d, probe, ordered=True):
                _put(found, shapes, names[i], result)


def _put(found: Outside, shapes: Mapping[str, Shape], stack: str, result: _Result) -> None:
    result.add(Place(stack, None, found.role), found.view(shapes), found.confidence, found.because)


def _stack_names(repeats: Sequence[RepeatedBlocks], known: Sequence[Assignment], table: Beginnings) -> list[str]:
    """A word of the prefix, else ``decoder`` for the largest, else ``stack1`` …; never one that the table gave."""
    mine = [table.of(repeat.prefix) for repeat in repeats]
    covered = {k for numbers in mine for k in numbers}
    used = {a.place.stack for k, a in enumerate(known) if k not in covered}
    last: dict[str, int] = {}
    out = []
    for i, (repeat, numbers) in enumerate(zip(repeats, mine, strict=True)):
        same = known[min(numbers)].place.stack if numbers else None
        wanted = same or stack_word(repeat.prefix) or ("decoder" if i == 0 else f"stack{i}")
        name, n = wanted, last.get(wanted, 1)
        while name in used and same is None:
            n += 1
            name = f"{wanted}{n}"
        last[wanted] = n
        used.add(name)
        out.append(name)
    return out


def _sorted(tensors: Sequence[BlockTensor]) -> bool:
    """The file holds a block's names in order of the alphabet, so their order says nothing about modules."""
    rests = [tensor.rest for tensor in sorted(tensors, key=lambda s: s.place)]
    return rests == sorted(rests)


def _unnamed(names: Sequence[str], shapes: Mapping[str, Shape], probe: Probe, result: _Result) -> None:
    """No number repeats in names: try the period of file order, else neither names nor order."""
    sequence = [shapes[name] for name in names]
    best: tuple[RepeatedBlocks, list[TensorRole], list[str]] | None = None
    for offset in range(starts(sequence)):
        repeat = repeats_by_order(names, sequence, offset)
        d = hidden_size(repeat.kinds[0]) if repeat else None
        if repeat is None or d is None:
            continue
        fitting: list[str] = []
        roles = read_block(repeat.kinds[0], d, probe, ordered=True, known_order=True, final=True, fitting=fitting)
        if best is None or len(fitting) > len(best[2]):
            best = (repeat, roles, fitting)
    if best is None or not any(role.roles[0] in ("up", "down", "gate") for role in best[1]):
        for place, view, confidence, because in read_unordered(names, shapes, probe):
            result.add(place, view, confidence, because)
        return
    repeat, roles, fitting = best
    d = hidden_size(repeat.kinds[0])
    assert d is not None
    gains = [role.tensor for role in roles if role.roles[0].endswith("_norm") and role.tensor.shape == (d,)]
    order, why, sure = numbering(repeat, gains, probe)
    how = f"shapes repeat {len(repeat.blocks)} times in file order; {why}"
    if fitting:
        how += f"; a block fits the order of {fitting[0]}"
    _place(roles, "decoder", order, how, sure, result)
    others = outside_names(names, [repeat])
    for found in find_outside(others, shapes, d, probe, ordered=True, readable=False):
        _put(found, shapes, "decoder", result)


def _place(
    roles: Sequence[TensorRole], stack: str, number: Mapping[int, int], how: str, certain: float, result: _Result
) -> None:
    """One assignment per block, expert and role."""
    for role in roles:
        sure = role.confidence * certain
        because = f"{role.because}; {how}" if how else role.because
        for (block, expert), name in role.tensor.names.items():
            e: int | str | None = SHARED if role.expert == "shared" else expert
            for place, view in _views(role, stack, number[block], e, name):
                result.add(place, view, sure, because)


def _views(
    role: TensorRole, stack: str, block: int, expert: int | str | None, name: str
) -> Iterable[tuple[Place, View]]:
    shape = role.tensor.shape
    stacked = role.expert == "axis"
    inner = shape[1:] if stacked else shape
    whole = inner[::-1] if role.transposed and len(inner) == 2 else inner
    many = len(role.roles)
    for i, one in enumerate(role.roles):
        rows = None
        if many > 1:
            n = whole[0] // many
            rows = role.rows[i] if role.rows else Rows(i * n, n)
        out = (rows.n, *whole[1:]) if rows else tuple(whole)
        for e in range(shape[0]) if stacked else (None,):
            index = e if stacked else None
            place = Place(stack, block, one, e if stacked else expert)
            yield place, View(name, out, index=index, transposed=role.transposed and len(inner) == 2, rows=rows)
