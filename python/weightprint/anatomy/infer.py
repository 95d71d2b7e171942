"""Roles without a table: what names' numbers, shapes, order and values say about tensors of a family nobody listed.

The steps, each a file of its own:

1. blocks: a number that repeats in names (:mod:`infer_blocks`), else the period of shapes in file order
   (:mod:`infer_order`), else neither: a heap of tensors (:mod:`infer_heap`);
2. matrices: the shapes of one block settle most roles and leave choices (:mod:`infer_shapes`);
3. vectors: gains, offsets and biases (:mod:`infer_vectors`);
4. choices: words, order and values add log odds (:mod:`infer_cues`, :mod:`infer_values`, :mod:`words`);
5. what stands outside the blocks (:mod:`infer_outside`).

Nothing is assigned in silence: ``because`` names the cues, ``confidence`` is base x chance, where the base is how well
the whole block can be read (.9: all its matrices) and the chance what the cues give the option taken: .5 for two that
can't be told apart. What fits nothing is left out, and the caller lists it as unmapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.infer_blocks import Run, Slot, outside, runs_by_name
from weightprint.anatomy.infer_cues import by_order, by_values, by_words, fused_layout
from weightprint.anatomy.infer_heap import read_heap
from weightprint.anatomy.infer_order import by_known_orders, numbering, run_by_order, starts
from weightprint.anatomy.infer_outside import find_outside
from weightprint.anatomy.infer_shapes import Choice, Reading, hidden_size, read_matrices
from weightprint.anatomy.infer_values import Probe
from weightprint.anatomy.infer_vectors import beside, by_biases, is_gain, norm_choice, paired_by_stem, stem
from weightprint.anatomy.place import Assignment, Place, Rows, View
from weightprint.anatomy.roles import ROLES, SHARED, bias_of, matrix_of
from weightprint.anatomy.words import FUSED, hint, stack_word

__all__ = ["infer"]

Shape = tuple[int, ...]
F32 = npt.NDArray[np.float32]
Read = Callable[[str, "slice | None", "slice | None"], F32]


def infer(
    shapes: Mapping[str, Shape], left: Sequence[str], known: Sequence[Assignment], read: Read | None
) -> list[Assignment]:
    """Blocks and roles of the weights that no row of the table explains.

    Args:
        shapes: logical weight -> shape, all of the checkpoint, in file order.
        left: the names without a place, in file order.
        known: what the table assigned; its places are not given twice.
        read: (name, rows, columns) -> float32 rectangle; a vector's elements are picked by `rows`. At most a few MB
            are read per tensor, 1 GB in all; what isn't finite gives no cue. None: values are not to be read.

    Returns:
        Assignments with ``source="inferred"``, every name of `left` in at most one place or, fused, in several.
    """
    probe = Probe(read, shapes)
    work = [name for name in left if shapes[name] and 0 not in shapes[name]]
    result = _Result({a.place for a in known})
    runs = runs_by_name(shapes, work)
    rest = outside(work, runs)
    if runs:
        _named(runs, rest, shapes, known, probe, result)
    elif not known:
        _unnamed(work, shapes, probe, result)
    return result.assignments


@dataclass
class _Result:
    """Assignments so far; a place is given once."""

    taken: set[Place]
    assignments: list[Assignment] = field(default_factory=list)

    def add(self, place: Place, view: View, confidence: float, because: str) -> None:
        if place not in self.taken:
            self.taken.add(place)
            sure = round(float(min(0.99, confidence)), 3)
            self.assignments.append(Assignment(place, view, "inferred", sure, because))


@dataclass
class _Role:
    """What one slot holds: roles (several share it), storage, how sure and why."""

    slot: Slot
    roles: tuple[str, ...]
    turned: bool
    confidence: float
    because: str
    expert: str | None = None
    rows: tuple[Rows, ...] | None = None


def _named(
    runs: Sequence[Run],
    rest: Sequence[str],
    shapes: Mapping[str, Shape],
    known: Sequence[Assignment],
    probe: Probe,
    result: _Result,
) -> None:
    """Stacks that numbers in names show; what is outside goes to the stack whose prefix or width it shares."""
    names = _stack_names(runs, known)
    widths: list[int | None] = []
    for run, stack in zip(runs, names, strict=True):
        final = any(len(shapes[n]) == 1 for n in rest)
        width = None
        for kind in run.kinds:
            d = hidden_size(kind) or width
            if d is None:
                continue
            width = width or d
            ordered = not _sorted(kind)
            roles = _read_kind(kind, d, probe, ordered=ordered, known_order=ordered, final=final)
            how = f"number behind '{run.prefix}'"
            _place(roles, stack, {b: b for b in run.blocks}, how, 1.0, result)
        widths.append(width)
    claimed: set[str] = set()
    for i in sorted(range(len(runs)), key=lambda i: -len(runs[i].prefix)):
        d = widths[i]
        if d is None:
            continue
        mine = [n for n in rest if n not in claimed and (len(runs) == 1 or _nearest(n, runs) == i)]
        for found in find_outside(mine, shapes, d, probe, ordered=True):
            claimed.add(found.name)
            _put(
                found.name,
                shapes[found.name],
                found.role,
                found.turned,
                names[i],
                found.confidence,
                found.because,
                result,
            )


def _put(
    name: str, shape: Shape, role: str, turned: bool, stack: str, confidence: float, because: str, result: _Result
) -> None:
    view = View(name, shape[::-1] if turned else shape, transposed=turned)
    result.add(Place(stack, None, role), view, confidence, because)


def _nearest(name: str, runs: Sequence[Run]) -> int:
    """The run with the longest common beginning; the largest where none has any."""

    def common(prefix: str) -> int:
        n = 0
        for a, b in zip(name, prefix, strict=False):
            if a != b:
                break
            n += 1
        return n

    return max(range(len(runs)), key=lambda i: (common(runs[i].prefix), len(runs[i].names)))


def _stack_names(runs: Sequence[Run], known: Sequence[Assignment]) -> list[str]:
    """A word of the prefix, else ``decoder`` for the largest, else ``stack1`` …; never one that the table gave."""
    used: set[str] = set()
    for a in known:
        if not any(a.view.weight.startswith(run.prefix) for run in runs):
            used.add(a.place.stack)
    out = []
    for i, run in enumerate(runs):
        same = next((a.place.stack for a in known if a.view.weight.startswith(run.prefix)), None)
        word = stack_word(run.prefix)
        wanted = same or word or ("decoder" if i == 0 else f"stack{i}")
        name, n = wanted, 1
        while name in used and same is None:
            n += 1
            name = f"{wanted}{n}"
        used.add(name)
        out.append(name)
    return out


def _sorted(slots: Sequence[Slot]) -> bool:
    """The file holds a block's names in order of the alphabet, so their order says nothing about modules."""
    rests = [slot.rest for slot in sorted(slots, key=lambda s: s.place)]
    return rests == sorted(rests)


def _unnamed(names: Sequence[str], shapes: Mapping[str, Shape], probe: Probe, result: _Result) -> None:
    """No number repeats in names: try the period of file order, else the heap."""
    sequence = [shapes[name] for name in names]
    best: tuple[int, Run, list[list[_Role]], list[str]] | None = None
    for offset in range(starts(sequence)):
        run = run_by_order(names, sequence, offset)
        kind = run.kinds[0] if run else []
        d = hidden_size(kind)
        if run is None or d is None:
            continue
        final = True
        fitting: list[str] = []
        roles = _read_kind(kind, d, probe, ordered=True, known_order=True, final=final, fitting=fitting)
        key = len(fitting)
        if best is None or key > best[0]:
            best = (key, run, [roles], fitting)
    if best is None or not any(role.roles[0] in ("up", "down", "gate") for role in best[2][0]):
        for place, view, confidence, because in read_heap(names, shapes, probe):
            result.add(place, view, confidence, because)
        return
    _, run, groups, fitting = best
    d = hidden_size(run.kinds[0])
    assert d is not None
    gains = [role.slot for role in groups[0] if role.roles[0].endswith("_norm") and role.slot.shape == (d,)]
    order, why, sure = numbering(run, gains, probe)
    how = f"shapes repeat {len(run.blocks)} times in file order; {why}"
    if fitting:
        how += f"; a block fits the order of {fitting[0]}"
    for roles in groups:
        _place(roles, "decoder", order, how, sure, result)
    taken = run.names
    others = [name for name in names if name not in taken]
    for found in find_outside(others, shapes, d, probe, ordered=True, readable=False):
        _put(
            found.name, shapes[found.name], found.role, found.turned, "decoder", found.confidence, found.because, result
        )


def _read_kind(
    slots: Sequence[Slot],
    d: int,
    probe: Probe,
    *,
    ordered: bool,
    known_order: bool,
    final: bool,
    fitting: list[str] | None = None,
) -> list[_Role]:
    """Everything that can be said about one kind of block."""
    reading = read_matrices(slots, d)
    for choice in reading.choices:
        by_words(choice)
        if ordered:
            by_order(choice)
        _storage(choice, reading)
    by_values(reading, probe)
    for choice in reading.choices:
        _storage(choice, reading)
    matrices = [s for s in slots if len(s.shape) > 1 and min(s.shape) > 1]
    vectors = [s for s in slots if s not in matrices]
    pairs = paired_by_stem(vectors, matrices)
    flat = [v for v in vectors if len(v.shape) == 1]
    gain = {id(v): is_gain(v, probe) for v in flat if id(v) not in pairs}
    if ordered and not any(slot.rest for slot in slots):
        loose = [v for v in flat if id(v) not in pairs and not gain[id(v)]]
        pairs |= beside(loose, matrices, {id(m): set(m.shape[-2:]) for m in matrices})
    for choice in reading.choices:
        by_biases(choice, pairs, flat, probe)
    free = [v for v in flat if v.shape == (d,) and id(v) not in pairs]
    norms, offsets = _norm_pairs(free, gain, d)
    readers = {
        part: [s for owner in _owners(reading, roles) for s in owner]
        for part, roles in (("attn", {"q", "k", "v"}), ("ffn", {"gate", "up"}))
    }
    choice_of_norms = norm_choice(norms, readers, probe, outside=final, ordered=ordered) if norms else None
    if known_order:
        names = by_known_orders([*matrices, *norms], reading, choice_of_norms)
        if fitting is not None:
            fitting += names
    base = 0.9 if not reading.rest else 0.8
    if not any("o" in "+".join(r) for r in _all_roles(reading)):
        base -= 0.1
    out = _matrix_roles(reading, probe, base)
    out += _bias_roles(out, pairs, vectors)
    if choice_of_norms is not None:
        out += _choice_roles(choice_of_norms, False, base, "vectors of the hidden size beside the matrices")
        for role in list(out):
            offset = offsets.get(id(role.slot))
            if offset is not None:
                why = "offset beside the gain of " + role.roles[0]
                out.append(_Role(offset, (bias_of(role.roles[0]),), False, 0.9 * role.confidence, why))
    out += _lone_biases(out, flat, reading)
    out += _by_words_only(slots, out, d)
    return out


def _storage(choice: Choice, reading: Reading) -> None:
    """A plain FFN is stored as the block's other projections are."""
    if reading.turned is not None and len(set(choice.turned)) == 2 and not any("stored" in c for c in choice.cues):
        choice.odds += [5.0 if turned == reading.turned else 0.0 for turned in choice.turned]
        choice.cues.append(f"stored {'turned ' if reading.turned else ''}like the other projections")


def _owners(reading: Reading, roles: set[str]) -> Iterable[list[Slot]]:
    for claim in reading.claims:
        if set(claim.roles) & roles and not claim.slot.experts:
            yield [claim.slot]
    for choice in reading.choices:
        picked = choice.options[choice.best]
        yield [s for s, role in zip(choice.slots, picked, strict=True) if role in roles and not s.experts]


def _all_roles(reading: Reading) -> Iterable[tuple[str, ...]]:
    yield from (claim.roles for claim in reading.claims)
    yield from (choice.options[0] for choice in reading.choices)


def _norm_pairs(free: Sequence[Slot], gain: Mapping[int, bool | None], d: int) -> tuple[list[Slot], dict[int, Slot]]:
    """The gains among the vectors of length d, and id(gain) -> its offset, by stem or by standing beside it."""
    gains = [v for v in free if gain[id(v)] is not False]
    rest = [v for v in free if gain[id(v)] is False]
    offsets: dict[int, Slot] = {}
    for g in gains:
        same = [v for v in rest if v.rest and g.rest and stem(v.rest) == stem(g.rest)]
        if len(same) == 1:
            offsets[id(g)] = same[0]
    if not offsets and rest and not any(v.rest for v in rest):
        for step in (1, -1):
            found = {id(g): v for g in gains for v in rest if v.place - g.place == step}
            if len(found) == len(gains):
                offsets = found
                break
    return gains, offsets


def _matrix_roles(reading: Reading, probe: Probe, base: float) -> list[_Role]:
    out: list[_Role] = []
    block = f"shapes of a block of width {reading.hidden}"
    for claim in reading.claims:
        turned = claim.turned if claim.turned is not None else bool(reading.turned)
        sure, words = _agreement(claim.slot, "+".join(claim.roles), base)
        role = _Role(claim.slot, claim.roles, turned, sure, block + words, claim.expert)
        if claim.roles == ("q", "k", "v"):
            o = next((c.slot for c in reading.claims if c.roles == ("o",)), None)
            role.rows, chance, why = fused_layout(claim.slot, o, turned, reading, probe)
            role.confidence *= chance
            role.because += f"; {why}"
        out.append(role)
    for choice in reading.choices:
        out += _choice_roles(choice, bool(reading.turned), base, block)
    return out


def _choice_roles(choice: Choice, turned: bool, base: float, block: str) -> list[_Role]:
    out = []
    option = choice.options[choice.best]
    stored = choice.turned[choice.best]
    for i, slot in enumerate(choice.slots):
        roles = tuple(option[i].split("+"))
        chance = choice.chance_of(i)
        rivals = sorted({way[i] for way in choice.options} - {option[i]})
        sure, words = _agreement(slot, option[i], base * chance)
        why = block + words
        if chance < 0.6 and rivals:
            by = "the cues" if choice.cues else "shapes"
            why += f"; {option[i]} and {' or '.join(rivals)} can't be told apart by {by}"
        elif choice.cues:
            why += "; " + ", ".join(dict.fromkeys(choice.cues))
        out.append(_Role(slot, roles, turned if stored is None else stored, sure, why, choice.expert))
    return out


def _agreement(slot: Slot, role: str, sure: float) -> tuple[float, str]:
    """Confidence and a remark once the name's words are heard."""
    word = hint(slot.rest) if slot.rest else None
    if word is None or word in ("norm", "gate"):
        return sure, ""
    word = "+".join(FUSED[word]) if word in FUSED else word
    if word == role:
        return 1 - (1 - sure) * 0.4, "; its name agrees"
    return sure * 0.6, f"; its name speaks of {word}"


def _bias_roles(roles: Sequence[_Role], pairs: Mapping[int, Slot], vectors: Sequence[Slot]) -> list[_Role]:
    """The biases of matrices that have a role, cut as the matrix is."""
    by_slot = {id(role.slot): role for role in roles}
    out = []
    for vector in vectors:
        matrix = pairs.get(id(vector))
        role = by_slot.get(id(matrix)) if matrix is not None else None
        if role is None or matrix is None:
            continue
        rows = matrix.shape[-1] if role.turned else matrix.shape[-2]
        flat = len(vector.shape) == (2 if role.expert == "axis" else 1)
        if vector.shape[-1] == rows and flat:
            why = f"bias of {'+'.join(role.roles)}, by stem or place and by length"
            biases = tuple(bias_of(r) for r in role.roles)
            out.append(_Role(vector, biases, False, 0.95 * role.confidence, why, role.expert, role.rows))
    return out


def _lone_biases(roles: Sequence[_Role], vectors: Sequence[Slot], reading: Reading) -> list[_Role]:
    """A vector whose length only one matrix of the block puts out is its bias."""
    used = {id(role.slot) for role in roles}
    out = []
    for vector in vectors:
        if id(vector) in used or vector.shape == (reading.hidden,) or (vector.rest and hint(vector.rest) is not None):
            continue
        fits = [r for r in roles if len(r.slot.shape) == 2 and (r.slot.shape[r.turned] == vector.shape[0])]
        same = [v for v in vectors if v.shape == vector.shape]
        if len(fits) == 1 and len(same) == 1 and bool(fits[0].slot.experts) == bool(vector.experts):
            biases = tuple(bias_of(role) for role in fits[0].roles)
            why = f"the only vector as long as the output of {'+'.join(fits[0].roles)}"
            out.append(_Role(vector, biases, False, 0.8 * fits[0].confidence, why, fits[0].expert, fits[0].rows))
    return out


def _by_words_only(slots: Sequence[Slot], roles: Sequence[_Role], d: int) -> list[_Role]:
    """What is left and whose name has a word for it that its shape doesn't contradict; little confidence."""
    used = {id(role.slot) for role in roles}
    given = {role for r in roles for role in r.roles}
    out = []
    for slot in slots:
        word = hint(slot.rest) if slot.rest and id(slot) not in used and not slot.experts else None
        if word is None or word in given or matrix_of(word) not in ROLES:
            continue
        row = ROLES[matrix_of(word)]
        vector = len(slot.shape) == 1
        if vector != (row.part == "norm" or word.endswith("_bias")) or len(slot.shape) > 2:
            continue
        turned = row.axis == "reads" and not vector and slot.shape[0] == d != slot.shape[-1]
        reads = row.axis != "reads" or vector or d in slot.shape
        writes = row.axis != "writes" or vector or slot.shape[0] == d
        channels = row.axis != "channels" or slot.shape == (d,)
        if reads and writes and channels:
            given.add(word)
            out.append(_Role(slot, (word,), turned, 0.5, f"only the words in its name say {word}"))
    return out


def _place(
    roles: Sequence[_Role], stack: str, number: Mapping[int, int], how: str, certain: float, result: _Result
) -> None:
    """One assignment per block, expert and role."""
    for role in roles:
        sure = role.confidence * certain
        because = f"{role.because}; {how}"
        for (block, expert), name in role.slot.names.items():
            e: int | str | None = SHARED if role.expert == "shared" else expert
            for place, view in _views(role, stack, number[block], e, name):
                result.add(place, view, sure, because)


def _views(role: _Role, stack: str, block: int, expert: int | str | None, name: str) -> Iterable[tuple[Place, View]]:
    shape = role.slot.shape
    stacked = role.expert == "axis"
    inner = shape[1:] if stacked else shape
    whole = inner[::-1] if role.turned and len(inner) == 2 else inner
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
            yield place, View(name, out, index=index, transposed=role.turned and len(inner) == 2, rows=rows)
