"""A model's stacks folded for people: what is equal is said once.

All blocks of a stack that hold the same roles, in the same shapes, fused, transposed and split over experts alike, are
one
*run* (``blocks 0–31``), also when they alternate (``0, 2, …, 30``). Types do not split a run: where some blocks are
stored otherwise, the line says which. Within a run, neighbouring roles of one form are one *line* (``k, v``), a bias is
marked on its matrix, and experts are a count.

A run that holds part of what the commonest run holds, and nothing beside it, *lacks* the rest: that is how a lost shard
or a cut checkpoint looks. A run with roles of its own (a dense block among experts) lacks nothing, nor does one that is
about as common.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.parameters import stored_kind
from weightprint.anatomy.place import Assignment
from weightprint.anatomy.role_order import ORDER, STACKS, role_place
from weightprint.anatomy.roles import BEFORE, FIXED, GROUPS, SHARED, matrix_of
from weightprint.anatomy.stored_names import BlockNumber, block_number, braces, common_prefix, pattern
from weightprint.util.ranges import spans

ONE_TENSOR = "one tensor"
"""The note of experts that are stored in one tensor."""


_FFN = ("gate", "up", "ffn_inner_norm", "down")
_GROUP = {role: k for k, group in enumerate(GROUPS) for role in group}
_FAR = 100
_LONG = 26
"""Longer lists of roles, and longer braces in names, are hard to read: their roles get a line each."""


@dataclass(frozen=True, slots=True)
class Line:
    """Roles of one form, in one run.

    Attributes:
        roles: canonical roles, in drawing order; their biases are not listed.
        bias: each of them has its bias (or a norm its offset).
        shape: of each canonical tensor; None where they differ, which only tensors set by the architecture may.
        n_experts: routed experts that have one; None outside them.
        of_experts: routed experts that there should be, by the geometry or by other blocks.
        shared: it belongs to the expert that sees every token.
        kinds: (type as stored, how many weights), commonest first: ``(("Q4_K", 20), ("Q6_K", 12))``.
        exceptions: which blocks are stored in the rarer types: ``"Q6_K in 0–3, 6"``.
        stored: what the weights are called, behind the run's prefix, ``{b}`` for the block's number and ``{e}`` for the
            expert's; empty where every block has another name.
        tied: the same weight also serves another place.
        notes: what was done to store it: ``"fused"``, ``"per head"``, ``"turned"``, ``"one tensor"``.
        fused: roles that share the weight, this line's included; empty when it holds one.
        confidence: least confidence of what was inferred; None when the table said so.
        group: 0 what joins two streams, 1 attention, 2 cross-attention, 3 state space, 4 FFN, 5 anything else: they
            stand together.
        n_parameters: elements over all blocks and experts, biases included; 0 for what the architecture sets.
    """

    roles: tuple[str, ...]
    bias: bool
    shape: tuple[int, ...] | None
    n_experts: int | None
    of_experts: int | None
    shared: bool
    kinds: tuple[tuple[str, int], ...]
    exceptions: str
    stored: tuple[str, ...]
    tied: bool
    notes: tuple[str, ...]
    fused: tuple[str, ...]
    confidence: float | None
    group: int
    n_parameters: int

    @property
    def name(self) -> str:
        """All of `stored` in one word: ``self_attn.{k,v}_proj``."""
        head, middle, tail = braces(self.stored)
        return head + middle + tail

    @property
    def form(self) -> Line:
        """The line without what only counts, to compare runs by."""
        return replace(self, n_parameters=0, kinds=tuple((kind, 0) for kind, _ in self.kinds))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        keys = ("bias", "n_experts", "of_experts", "shared", "tied", "confidence", "n_parameters")
        return {
            "roles": list(self.roles),
            "shape": None if self.shape is None else list(self.shape),
            "types": dict(self.kinds),
            "stored": list(self.stored),
            "notes": list(self.notes),
            "fused": list(self.fused),
            **{key: getattr(self, key) for key in keys},
        }


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks of one form. ``prefix`` is what their weights' names begin with, ``{b}`` for the block's number."""

    blocks: tuple[int, ...]
    prefix: str
    lines: tuple[Line, ...]
    lacks: tuple[str, ...]

    @property
    def n_parameters(self) -> int:
        """Elements over all its blocks."""
        return sum(line.n_parameters for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "blocks": list(self.blocks),
            "prefix": self.prefix,
            "n_parameters": self.n_parameters,
            "lines": [line.to_dict() for line in self.lines],
            "lacks": list(self.lacks),
        }


@dataclass(frozen=True, slots=True)
class Sheet:
    """One stack: what stands before its blocks, the runs of blocks, what stands behind, numbers that are absent."""

    stack: str
    before: tuple[Line, ...]
    runs: tuple[Run, ...]
    after: tuple[Line, ...]
    absent: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "before": [line.to_dict() for line in self.before],
            "runs": [run.to_dict() for run in self.runs],
            "after": [line.to_dict() for line in self.after],
            "absent_blocks": list(self.absent),
        }


@dataclass(frozen=True, slots=True)
class _Form:
    """What must agree for two blocks to be of one run: everything about one role but types and names."""

    role: str
    shape: tuple[int, ...]
    experts: tuple[int, ...] | None
    shared: bool
    notes: tuple[str, ...]
    fused: tuple[str, ...]
    tied: bool
    inferred: bool


_Block = dict[_Form, list[Assignment]]


def fold(anatomy: Anatomy) -> list[Sheet]:
    """All stacks of a model, in the order in which data flows through them."""
    order = sorted(anatomy.stacks, key=lambda name: STACKS.index(name) if name in STACKS else len(STACKS))
    roles = _fused(anatomy)
    return [_sheet(anatomy, name, roles) for name in order]


def cut_notes(anatomy: Anatomy) -> Callable[[Assignment], str]:
    """Says of a canonical tensor how it is cut from its weight: ``"fused, per head, transposed"``."""
    roles = _fused(anatomy)
    return lambda a: ", ".join(_notes(a, roles.get(_shared_by(a), ())))


def _fused(anatomy: Anatomy) -> dict[tuple[Any, ...], tuple[str, ...]]:
    """What shares a weight (of the same expert) with others → all their roles."""
    count = Counter(a.view.weight for a in anatomy.assignments if not a.tied)
    roles: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for a in anatomy.assignments:
        if not a.tied and count[a.view.weight] > 1:
            roles[_shared_by(a)].append(a.place.role)
    return {key: tuple(found) for key, found in roles.items() if len(found) > 1}


# One stack


def _sheet(anatomy: Anatomy, stack: str, roles: Mapping[tuple[Any, ...], tuple[str, ...]]) -> Sheet:
    blocks: dict[int | None, list[Assignment]] = defaultdict(list)
    for a in anatomy.stacks[stack]:
        blocks[a.place.block].append(a)
    number = block_number((block, a.view.weight) for block, found in blocks.items() if block is not None for a in found)
    geometry = anatomy.geometry.get(stack)
    n_experts = geometry.experts if geometry else None
    alike: dict[frozenset[_Form], dict[int, _Block]] = {}
    outside: _Block = {}
    for block, assignments in blocks.items():
        found = _forms(assignments, roles)
        if block is None:
            outside = found
        else:
            alike.setdefault(frozenset(found), {})[block] = found
    usual: frozenset[_Form] = max(alike, key=lambda forms: len(alike[forms]), default=frozenset())
    n_experts = n_experts or max((len(f.experts or ()) for forms in alike for f in forms), default=0) or None
    runs = []
    for forms, members in sorted(alike.items(), key=lambda item: min(item[1])):
        first = members[min(members)]  # its order, which is the files', settles what sorting leaves open
        merged: _Block = {form: [a for block in members.values() for a in block[form]] for form in first}
        lines = _lines(anatomy, merged, number, n_experts)
        prefix = common_prefix(name for line in lines for name in line.stored)
        lines = tuple(_without(line, prefix) for line in lines)
        lacks = _lacking(forms, usual) if len(alike[usual]) > 2 * len(members) else ()
        runs.append(Run(tuple(sorted(members)), prefix, lines, lacks))
    outer = _lines(anatomy, outside, None, n_experts)
    before = tuple(line for line in outer if matrix_of(line.roles[0]) in BEFORE + GROUPS[0])
    present = {block for block in blocks if block is not None}
    last = max(present, default=-1)
    # A number out of all proportion is no count of blocks that are missing.
    expected = range(max(geometry.blocks if geometry else 0, last + 1 if last < _FAR * len(present) else 0))
    absent = tuple(block for block in expected if block not in present) if present else ()
    return Sheet(stack, before, tuple(runs), tuple(line for line in outer if line not in before), absent)


def _shared_by(a: Assignment) -> tuple[Any, ...]:
    """Equal for canonical tensors that are cut from the same weight (of the same expert)."""
    return a.place.stack, a.place.block, a.place.expert, a.view.weight, a.view.index


def _forms(assignments: Iterable[Assignment], roles: Mapping[tuple[Any, ...], tuple[str, ...]]) -> _Block:
    """The forms of one block, with what has them; routed experts of one form are together."""
    alike: dict[tuple[Any, ...], list[Assignment]] = defaultdict(list)  # as told by all that a form is made of
    for a in assignments:
        place, view = a.place, a.view
        expert = 0 if isinstance(place.expert, int) else place.expert
        cut = view.rows, view.transposed, view.index is None, view.row_block
        fused = roles.get(_shared_by(a), ()) if roles and not a.tied else ()
        alike[place.role, view.shape, expert, cut, fused, a.tied, a.source].append(a)
    out: _Block = {}
    routed: dict[_Form, list[Assignment]] = defaultdict(list)
    for (role, shape, expert, _, fused, tied, source), found in alike.items():
        notes = _notes(found[0], fused)
        form = _Form(role, shape, None, expert == SHARED, notes, fused, tied, source == "inferred")
        (routed[form] if expert == 0 else out.setdefault(form, [])).extend(found)
    for form, found in routed.items():
        numbers = tuple(sorted(int(a.place.expert) for a in found if a.place.expert is not None))
        out[replace(form, experts=numbers)] = found
    return out


def _notes(a: Assignment, fused: Sequence[str]) -> tuple[str, ...]:
    view, notes = a.view, []
    if len(fused) > 1 and not a.tied:
        notes.append("fused")
    if view.rows is not None and view.rows.count > 1:
        notes.append("in turn" if view.rows.length == 1 else "per head")
    if view.rows is not None and view.rows.pairs:
        notes.append("rotary pairs")
    if view.transposed:
        notes.append("turned")
    if isinstance(a.place.expert, int) and (view.index is not None or view.row_block):
        notes.append(ONE_TENSOR)
    return tuple(notes)


def _lacking(forms: frozenset[_Form], usual: frozenset[_Form]) -> tuple[str, ...]:
    """What the commonest run has and this one, otherwise a part of it, does not."""

    def kinds(of: Iterable[_Form]) -> set[tuple[str, str]]:
        return {(f.role, "experts" if f.experts is not None else SHARED if f.shared else "") for f in of}

    mine, theirs = kinds(forms), kinds(usual)
    missing = theirs - mine if mine < theirs else set()
    return tuple(f"{role} ({kind})" if kind else role for role, kind in sorted(missing, key=lambda m: role_place(m[0])))


# Lines


def _drawn_at(form: _Form) -> tuple[Any, ...]:
    """Sort key of a form: a block's own FFN, then its shared expert's, then the routed experts'."""
    place = role_place(form.role)
    whose = 2 if form.experts is not None else int(form.shared)
    return (ORDER["gate"] if matrix_of(form.role) in _FFN else place[0], whose, place, form.experts or ())


def _lines(anatomy: Anatomy, forms: _Block, number: BlockNumber | None, n_experts: int | None) -> tuple[Line, ...]:
    has = {(f.role, f.experts, f.shared): f for f in forms}
    single = []
    for form in sorted(forms, key=_drawn_at):
        owner = (matrix_of(form.role), form.experts, form.shared)
        if owner[0] != form.role and "." not in form.role and owner in has:
            continue  # a bias is marked on its matrix
        bias = None if "." in form.role else has.get((form.role + "_bias", form.experts, form.shared))
        single.append(_line(anatomy, form, forms[form], forms[bias] if bias else (), number, n_experts))
    out: list[Line] = []
    for line in single:
        if out and _alike(out[-1], line):
            out[-1] = _joined(out[-1], line)
        else:
            out.append(line)
    return tuple(out)


def _line(
    anatomy: Anatomy,
    form: _Form,
    found: Sequence[Assignment],
    biases: Sequence[Assignment],
    number: BlockNumber | None,
    n_experts: int | None,
) -> Line:
    kinds: dict[str, list[int | None]] = defaultdict(list)
    for a in found:
        kinds[stored_kind(anatomy, a.view.weight)].append(a.place.block)
    common = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    rare = [f"{kind} in {spans(b for b in blocks if b is not None)}" for kind, blocks in common[1:]]
    learned = [a for a in (*found, *biases) if not a.tied and form.role not in FIXED]
    return Line(
        roles=(form.role,),
        bias=bool(biases),
        shape=form.shape,
        n_experts=None if form.experts is None else len(form.experts),
        of_experts=None if form.experts is None else max(len(form.experts), n_experts or 0),
        shared=form.shared,
        kinds=tuple((kind, len(blocks)) for kind, blocks in common),
        exceptions="; ".join(rare) if found[0].place.block is not None else "",
        stored=pattern([(a.place.block, a.place.expert, a.view.weight) for a in found], number),
        tied=form.tied,
        notes=form.notes,
        fused=form.fused,
        confidence=min(a.confidence for a in found) if form.inferred else None,
        group=_GROUP.get(matrix_of(form.role), len(GROUPS)),
        n_parameters=sum(prod(a.view.shape) for a in learned),
    )


def _alike(a: Line, b: Line) -> bool:
    """Whether two neighbouring lines can be one: the same form, and in one weight or both in their own.

    What the architecture sets is one line, whatever its shapes.
    """
    if a.roles == b.roles and a.roles[0] in FIXED:
        return True
    same = not a.tied and _bare(a) == _bare(b)
    kinds = [kind for kind, _ in a.kinds] == [kind for kind, _ in b.kinds]
    suffix = a.roles[0].partition(".")[2] == b.roles[0].partition(".")[2]
    names = tuple(dict.fromkeys(a.stored + b.stored))
    named = len(names) == 1 if a.fused else bool(a.stored) == bool(b.stored) and len(braces(names)[1]) <= _LONG
    return same and kinds and suffix and named and len(", ".join(a.roles + b.roles)) <= _LONG


def _bare(line: Line) -> Line:
    return replace(line, roles=(), kinds=(), stored=(), n_parameters=0)


def _joined(a: Line, b: Line) -> Line:
    counts = Counter(dict(a.kinds)) + Counter(dict(b.kinds))
    return replace(
        a,
        roles=tuple(dict.fromkeys(a.roles + b.roles)),
        shape=a.shape if a.shape == b.shape else None,
        kinds=tuple(counts.most_common()),
        stored=tuple(dict.fromkeys(a.stored + b.stored)),
        n_parameters=a.n_parameters + b.n_parameters,
    )


def _without(line: Line, prefix: str) -> Line:
    return replace(line, stored=tuple(name.removeprefix(prefix) for name in line.stored))
