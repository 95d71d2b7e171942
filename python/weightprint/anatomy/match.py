"""Which rows of the table of families a checkpoint's names and shapes fit, and what every tensor then is.

A row can start at every run of names (:mod:`weightprint.anatomy.names`) whose front ends in one of its block templates;
what stands before is the prefix. Rows are chosen greedily: first the one that explains most names *with shapes that
fit*, then again on what is left, so that a vision row and a language row compose:

    score = (names explained, config.json's model_type is the row's, -(entries of the row without a tensor), -order,
             -(length of the prefix))

Config only breaks ties: it is context, not evidence. A row must explain half of a run to have it, and has it alone.
Where two stacks of a row share a template (DeepSeek's extra layer for multi-token prediction), a block goes to the
later stack if it holds a name that only that stack knows; that stack's blocks count from 0. A row's stack without a
template stands anywhere, and takes what the others left.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from heapq import heappop, heappush
from typing import Any

from weightprint.anatomy.families.table import FAMILIES
from weightprint.anatomy.family import Family, Stack
from weightprint.anatomy.fit import FittedStack, Group, fit
from weightprint.anatomy.geometry import model_types
from weightprint.anatomy.names import Entry, NameRun, Names, Shape, compiled
from weightprint.anatomy.place import Assignment, Geometry, Place, View
from weightprint.anatomy.roles import role_of

#: Share of a run's names that a row must explain.
_COVERAGE = 0.5
#: Buffers that the architecture sets, in any family.
_FIXED = re.compile(r"(^|\.)((\w+_)?inv_freq|cos_cached|sin_cached|masked_bias|position_ids|rope\.freqs|freqs_cis)$")
#: Meta's, one for each pair of a head's channels, so that they tell the head size; inv_freq may be for a part of them.
_FREQUENCIES = "rope.freqs"
#: What a norm is called.
_NORM = re.compile(r"norm|(^|[._])ln(_|\.|\d|$)", re.IGNORECASE)
#: Confidence in which norm is which, in a run that has a norm unknown to the row.
_UNSURE = 0.5


@dataclass(frozen=True)
class Matched:
    """What the table says of a checkpoint.

    Attributes:
        assignments: canonical tensors in file order of their weights, then heads that are the embedding.
        families: stack → row that explains it.
        geometry: stack → its sizes.
        unmatched: names that no row explains or whose shapes don't fit, in file order.
        notes: what was noticed: shapes that don't fit, config values that tensors contradict, rows that fit as well.
    """

    assignments: tuple[Assignment, ...]
    families: Mapping[str, Family]
    geometry: Mapping[str, Geometry]
    unmatched: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Candidate:
    """A row at a prefix, weighed. ``outside``: the names outside blocks that were looked at."""

    family: Family
    prefix: str
    runs: list[NameRun]
    parts: list[FittedStack]
    score: tuple[int, bool, int, int, int]
    outside: set[str]


#: A row's stacks and where they may stand.
_Starts = list[tuple[Stack, NameRun]]


def match(
    shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any], families: Sequence[Family] = FAMILIES
) -> Matched:
    """Explains a checkpoint by rows of the table of families.

    Args:
        shapes: logical weights' names → shapes (what the unquantised modules would hold), in file order.
        config: config.json as a mapping; may be empty.
        families: the table.

    Returns:
        Assignments for all that rows explain; the rest by name in ``unmatched``.
    """
    return _Matching(shapes, config, families).run()


class _Matching:
    """One call of :func:`match`."""

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any], families: Sequence[Family]
    ) -> None:
        self.shapes: dict[str, Shape] = {name: tuple(shape) for name, shape in shapes.items()}
        self.config = config
        self.types = model_types(config)
        self.families = families
        self.names = Names(self.shapes, families)
        self.free = dict(self.names.runs)
        self.tables: dict[int, tuple[dict[str, Entry], dict[str, Entry]]] = {}
        self.assigned: dict[str, list[Assignment]] = {}
        self.tied: list[Assignment] = []
        self.chosen: dict[str, Family] = {}
        self.geometry: dict[str, Geometry] = {}
        self.prefixes: dict[str, str] = {}
        self.notes: list[str] = []

    def run(self) -> Matched:
        while self._take_best():
            pass
        self._take_loose()
        self._take_fixed()
        in_order = [a for name in self.shapes for a in self.assigned.get(name, ())]
        unmatched = tuple(name for name in self.shapes if name not in self.assigned)
        return Matched((*in_order, *self.tied), self.chosen, self.geometry, unmatched, tuple(self.notes))

    # --- candidates -----------------------------------------------------------------------------------------------

    def _table(self, stack: Stack) -> tuple[dict[str, Entry], dict[str, Entry]]:
        if id(stack) not in self.tables:
            self.tables[id(stack)] = compiled(stack.inside), compiled(stack.outside)
        return self.tables[id(stack)]

    def _take_best(self) -> bool:
        """Takes candidates, the one that explains most first, until one has lost part of what it was weighed with.

        Then True: what is left is to be weighed again.
        """
        bounds = self._bounds()
        weighed: list[tuple[tuple[float, ...], int, _Candidate, _Starts]] = []  # a heap, the best score first
        beside: dict[str, list[_Candidate]] = defaultdict(list)
        at = 0
        while at < len(bounds) or weighed:
            if at < len(bounds) and (not weighed or bounds[at][0] >= weighed[0][2].score[0]):
                _, order, prefix, found = bounds[at]
                at += 1
                free = sum(run.front in self.free for _, run in found)
                if 0 < free < len(found):
                    return True
                made = self._weigh(self.families[order], order, prefix, found) if free else None
                if made is not None:
                    beside[prefix].append(made)
                    heappush(weighed, (tuple(-n for n in made.score), at, made, found))
                continue
            *_, best, found = heappop(weighed)
            free = sum(run.front in self.free for _, run in found)
            if 0 < free < len(found) or (free and not self.assigned.keys().isdisjoint(best.outside)):
                return True
            if free:
                self._note_rivals(best, beside[best.prefix])
                self._take(best)
        return False

    def _bounds(self) -> list[tuple[int, int, str, _Starts]]:
        """How many names each row can explain at most at each prefix, most first: (how many, row, prefix, where)."""
        bounds: list[tuple[int, int, str, _Starts]] = []
        for order, family in enumerate(self.families):
            starts: dict[str, _Starts] = defaultdict(list)
            for stack in family.stacks:
                front = stack.block.split("{b}")[0]
                for run in self.free.values() if stack.block else ():
                    if run.front == front or run.front.endswith("." + front):
                        starts[run.front[: len(run.front) - len(front)]].append((stack, run))
            for prefix, found in starts.items():
                # A stack may stand at a leading part of another's prefix: mtp.layers.0 beside model.layers.0.
                names = {stack.name for stack, _ in found}
                for lead in _leading(prefix)[1:]:
                    found += [(s, run) for s, run in starts.get(lead, ()) if s.name not in names]
                # How many names it knows, shapes unseen: it can't explain more.
                runs = {id(run): run for _, run in found}.values()
                stacks = {id(run): [stack for stack, at in found if at is run] for run in runs}
                known = sum(
                    n
                    for run in runs
                    for rest, n in run.counts.items()
                    if any(self._knows(stack, rest) for stack in stacks[id(run)])
                )
                outside = sum(len(stack.outside) for stack in family.stacks) * 2
                bounds.append((known + outside, order, prefix, found))
        return sorted(bounds, key=lambda b: (-b[0], b[1]))

    @staticmethod
    def _within(stack: Stack, rest: str) -> str | None:
        """The name behind the whole block template; None if the template goes on differently."""
        after = stack.block.split("{b}", 1)[1].removeprefix(".")
        return rest[len(after) :] if rest.startswith(after) else None

    def _knows(self, stack: Stack, rest: str) -> Entry | None:
        within = self._within(stack, rest)
        return None if within is None else self._table(stack)[0].get(within)

    def _weigh(self, family: Family, order: int, prefix: str, starts: _Starts) -> _Candidate | None:
        """The row at this prefix: its stacks' tensors cut, and its score; None if it explains too little."""
        fixed = re.compile("|".join(map(translate, family.fixed))) if family.fixed else None
        parts: list[FittedStack] = []
        runs: list[NameRun] = []
        seen: set[str] = set()
        explained = unused = 0
        by_run: dict[int, list[Stack]] = defaultdict(list)
        for stack, run in starts:
            by_run[id(run)].append(stack)
        for run in {id(run): run for _, run in starts}.values():
            split = self._split(run, by_run[id(run)], fixed)
            known = [(stack, groups) for stack, groups in split if any(g.entry for g in groups)]
            made = [self._part(stack, prefix, run.front, groups, seen) for stack, groups in known]
            here = sum(len(g.members) for part in made for g in part.inside)
            if here < _COVERAGE * len(run):
                continue
            runs.append(run)
            parts += made
        for part in parts:
            explained += sum(len(g.members) for g in (*part.inside, *part.outside) if g.entry)
            used = {g.entry.key for g in part.inside if g.entry}
            used_outside = {g.entry.key for g in part.outside if g.entry}
            unused += len(part.stack.inside) - len(used) + len(part.stack.outside) - len(used_outside)
        if not runs:
            return None
        score = (explained, not self.types.isdisjoint(family.model_types), -unused, -order, -len(prefix))
        return _Candidate(family, prefix, runs, parts, score, seen)

    def _split(
        self, run: NameRun, stacks: list[Stack], fixed: re.Pattern[str] | None
    ) -> list[tuple[Stack, list[Group]]]:
        """A run's kinds by stack; where several stacks share the run, whole blocks go to one of them."""
        owner: dict[int, int] = {}
        if len(stacks) > 1:
            for k, stack in enumerate(stacks[1:], 1):
                for (rest, _), members in run.kinds.items():
                    if self._knows(stack, rest) and not any(self._knows(s, rest) for s in stacks[:k]):
                        owner.update((block, k) for block, _, _ in members)
        split: list[tuple[Stack, list[Group]]] = []
        for k, stack in enumerate(stacks):
            groups: list[Group] = []
            for (rest, shape), members in run.kinds.items():
                mine = members if len(stacks) == 1 else [m for m in members if owner.get(m[0], 0) == k]
                if not mine:
                    continue
                entry = self._knows(stack, rest)
                if entry is None and not (_FIXED.search(rest) or (fixed and fixed.match(mine[0][2]))):
                    continue
                groups.append(Group(entry, shape, mine, []))
            split.append((stack, groups))
        return split

    def _part(self, stack: Stack, prefix: str, front: str, inside: list[Group], seen: set[str]) -> FittedStack:
        """A stack's tensors, inside its blocks and outside, measured and cut; `seen` takes the names of the latter."""
        outside: list[Group] = []
        keys: set[tuple[str, tuple[str, ...]]] = set()
        for lead in _leading(prefix):
            for rest, entry in self._table(stack)[1].items():
                name = lead + rest
                if name in self.shapes and name not in self.assigned and (entry.key, entry.roles) not in keys:
                    keys.add((entry.key, entry.roles))
                    outside.append(Group(entry, self.shapes[name], [(0, None, name)], []))
            if stack.block and (name := lead + _FREQUENCIES) in self.shapes and name not in self.assigned:
                outside.append(Group(None, self.shapes[name], [(0, None, name)], []))
        seen.update(group.members[0][2] for group in outside)
        return fit(stack, front, inside, outside, self.config)

    def _note_rivals(self, best: _Candidate, rivals: Iterable[_Candidate]) -> None:
        """Says so where another row fits as well and means something else, and no config could have told."""
        for other in rivals if not self.types else ():
            a, b = best.family, other.family
            if other is best or other.prefix != best.prefix or other.score[:3] != best.score[:3]:
                continue
            if (a.norm_offset, a.pre_norm) != (b.norm_offset, b.pre_norm):
                self.notes.append(
                    f"{b.name} fits as well as {a.name}, and means other norms; config.json doesn't say which"
                )

    # --- claims ---------------------------------------------------------------------------------------------------

    def _take(self, candidate: _Candidate) -> None:
        """Claims a candidate's runs and outside names."""
        if candidate.family.unsure and not self.types:
            self.notes.append(f"{candidate.family.name}: {candidate.family.unsure}")
        for run in candidate.runs:
            del self.free[run.front]
        for part in candidate.parts:
            stack = self._stack_name(part)
            self.chosen[stack] = candidate.family
            self.geometry[stack] = part.sizes.geometry
            self.prefixes[stack] = candidate.prefix
            self.notes += (note for note in (*part.sizes.notes, *part.misfits) if note not in self.notes)
            sure = self._norms_known(candidate, part, stack)
            for group in part.inside:
                first = part.first if _shares(candidate, part) else 0
                self._assign(candidate.family, part.stack, stack, group, first, sure)
            for group in part.outside:
                self._assign(candidate.family, part.stack, stack, group, None, 1.0)
            self._tie(candidate.family, part, stack)

    def _stack_name(self, part: FittedStack) -> str:
        """The stack's own name; a second one of that name is told by where it stands."""
        return part.stack.name if part.stack.name not in self.chosen else f"{part.stack.name}:{part.front.rstrip('.')}"

    def _norms_known(self, candidate: _Candidate, part: FittedStack, stack: str) -> float:
        """Confidence in which norm is which: one that the row doesn't know may change what its neighbours are."""
        here = [other.stack for other in candidate.parts if other.front == part.front]
        run = next((run for run in candidate.runs if run.front == part.front), None)
        norms = [rest for rest, _ in run.kinds if _NORM.search(rest)] if run else []
        strange = [rest for rest in norms if not any(self._knows(s, rest) for s in here)]
        if not strange:
            return 1.0
        self.notes.append(
            f"{stack}: {candidate.family.name} doesn't know {strange[0]}; which norm is which is not sure"
        )
        return _UNSURE

    def _assign(self, family: Family, stack: Stack, name: str, group: Group, first: int | None, norms: float) -> None:
        """Writes down a group's canonical tensors; `first` is the block that counts as 0, None outside blocks."""
        where = stack.block if first is not None else ""
        because = f"{family.name}: {where}{group.entry.key}" if group.entry else f"{family.name}: buffer"
        cuts = [(piece, norms if role_of(piece.role).part == "norm" else 1.0) for piece in group.pieces]
        for block, expert, weight in group.members:
            at = None if first is None else block - first
            made = [
                Assignment(
                    Place(name, at, piece.role, expert if piece.expert is None else piece.expert),
                    View(weight, piece.shape, piece.index, piece.transposed, piece.rows, piece.row_block),
                    "table",
                    sure,
                    because,
                )
                for piece, sure in cuts
            ]
            self.assigned.setdefault(weight, []).extend(made)

    def _tie(self, family: Family, part: FittedStack, stack: str) -> None:
        """A head that is not stored is the embedding, unless config.json denies it."""
        roles = {role: g for g in part.outside if g.entry for role in g.entry.roles}
        knows_head = any(entry.roles == ("head",) for entry in self._table(part.stack)[1].values())
        if not part.stack.tied_head or not knows_head or "head" in roles or "embedding" not in roles:
            return
        said = [self.config.get("tie_word_embeddings")]
        said += [c.get("tie_word_embeddings") for c in self.config.values() if isinstance(c, Mapping)]
        if False in said and True not in said:
            self.notes.append(f"{stack}: no head is stored, and config.json says that it is not the embedding")
            return
        embedding = roles["embedding"]
        view = View(embedding.members[0][2], embedding.shape)
        because = f"{family.name}: no head is stored, so it is the embedding"
        self.tied.append(Assignment(Place(stack, None, "head"), view, "table", 1.0, because, tied=True))

    def _take_loose(self) -> None:
        """Stacks without blocks: no repetition speaks for them, so they must explain all that is left."""
        loose = [(f, s) for f in self.families for s in f.stacks if not s.block]
        in_runs = {name for run in self.names.runs.values() for ms in run.kinds.values() for _, _, name in ms}
        left = [name for name in self.shapes if name not in self.assigned and name not in in_runs] if loose else []
        for family, stack in loose:
            table = self._table(stack)[1]
            leads = _leading(left[0]) if left else []
            prefixes = sorted(lead for lead in leads if left[0][len(lead) :] in table)
            for name in left if prefixes else ():
                taken = name in self.assigned
                prefixes = [p for p in prefixes if not taken and name.startswith(p) and name[len(p) :] in table]
                if not prefixes:
                    break
            for prefix in prefixes:
                part = self._part(stack, prefix, prefix, [], set())
                if part.outside:
                    self._take(_Candidate(family, prefix, [], [part], (0, False, 0, 0, 0), set()))

    def _take_fixed(self) -> None:
        """Buffers outside the blocks."""
        globs = dict.fromkeys(glob for family in self.chosen.values() for glob in family.fixed)
        patterns = [re.compile(translate(glob)) for glob in globs]
        by_prefix: dict[str, str] = {}
        for stack, prefix in self.prefixes.items():
            by_prefix.setdefault(prefix, stack)
        longest = max(self.prefixes, key=lambda stack: len(self.prefixes[stack]), default="")
        for name, shape in self.shapes.items() if self.chosen else ():
            if name in self.assigned or not (_FIXED.search(name) or any(p.match(name) for p in patterns)):
                continue
            stack = next((by_prefix[lead] for lead in _leading(name) if lead in by_prefix), longest)
            place = Place(stack, None, "fixed")
            because = f"{self.chosen[stack].name}: buffer"
            self.assigned[name] = [Assignment(place, View(name, shape), "table", 1.0, because)]


def _shares(candidate: _Candidate, part: FittedStack) -> bool:
    """A later stack on another's template counts its blocks from 0."""
    first = next(p for p in candidate.parts if p.stack.block == part.stack.block)
    return first is not part and first.stack.name != part.stack.name


def _leading(prefix: str) -> list[str]:
    """The prefix and its leading parts, longest first: ``a.b.``, ``a.``, ``""``."""
    words = prefix.split(".")[:-1]
    return ["".join(f"{word}." for word in words[:n]) for n in range(len(words), -1, -1)]
