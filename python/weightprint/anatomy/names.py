"""Names split once at their block numbers, and a row's tables compiled to the names they cover.

``model.layers.7.mlp.experts.5.up_proj.weight`` is front ``model.layers.``, block 7, and behind it
``mlp.experts.{e}.up_proj.weight`` of expert 5. All names with the same front make a run; inside a run, tensors with the
same rest and shape are one *kind*, so that what follows works on tens of kinds, not on 100,000 names. Only fronts and
experts' words that some row of the table knows are split.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from weightprint.anatomy.family import Cell, Family
from weightprint.anatomy.roles import ROLES, bias_of

Shape = tuple[int, ...]
#: The name behind the block number with experts' numbers blanked, and the shape.
Kind = tuple[str, Shape]
#: Block, expert, name.
Member = tuple[int, int | None, str]

#: Endings of a parameter's name behind its module's; True for the bias.
_ENDINGS = {"": False, ".weight": False, ".gamma": False, ".scale": False, ".bias": True, ".beta": True}


@dataclass(frozen=True, slots=True)
class Entry:
    """What a row says of one parameter: the key it stands under, its cell, its roles (a bias' own)."""

    key: str
    cell: Cell
    roles: tuple[str, ...]


def _own_bias(role: str) -> str:
    return role if bias_of(role) in ROLES else bias_of(role)


def compiled(cells: Mapping[str, Cell]) -> dict[str, Entry]:
    """Every parameter name that the entries cover. A name that is itself an entry beats one made by an ending."""
    names: dict[str, Entry] = {}
    weights = {key: Entry(key, cell, cell.roles) for key, cell in cells.items()}
    biases = {key: Entry(key, cell, tuple(map(_own_bias, cell.roles))) for key, cell in cells.items()}
    for ending, bias in _ENDINGS.items():
        for key, entry in (biases if bias else weights).items():
            names.setdefault(key + ending if key else ending[1:], entry)
    return names


@dataclass(slots=True)
class NameRun:
    """All names with the same front. ``counts``: how many names with each rest."""

    front: str
    kinds: dict[Kind, list[Member]] = field(default_factory=lambda: defaultdict(list))

    counts: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return self.counts.total()


class Names:
    """A checkpoint's names, split where the rows of a table have a block or an expert."""

    def __init__(self, shapes: Mapping[str, Shape], families: Sequence[Family]) -> None:
        stacks = [stack for family in families for stack in family.stacks]
        fronts = {stack.block.split("{b}")[0] for stack in stacks if stack.block}
        keys = {key for stack in stacks for key in stack.inside if "{e}" in key}
        self._block = _block_pattern(fronts)
        self._expert = _expert_pattern(keys)
        self.runs: dict[str, NameRun] = {}
        for name, shape in shapes.items():
            for front, block, rest in self._fronts(name):
                expert, rest = self._split_expert(rest)
                run = self.runs.get(front)
                if run is None:
                    run = self.runs[front] = NameRun(front)
                run.kinds[rest, shape].append((block, expert, name))
        for run in self.runs.values():
            for (rest, _), members in run.kinds.items():
                run.counts[rest] += len(members)

    def _fronts(self, name: str) -> Iterator[tuple[str, int, str]]:
        """The places where a name may have its block number: front, number, rest."""
        for found in self._block.finditer(name):
            at, end = found.span(1)
            yield name[:at], int(name[at:end]), name[end + 1 :]

    def _split_expert(self, rest: str) -> tuple[int | None, str]:
        found = self._expert.search(rest) if self._expert else None
        if found is None:
            return None, rest
        return int(found[1]), f"{rest[: found.start(1)]}{{e}}{rest[found.end(1) :]}"


def _last_word(front: str) -> str:
    return front.rstrip(".").rsplit(".", 1)[-1] + ("." if front.endswith(".") else "")


def _block_pattern(fronts: Iterable[str]) -> re.Pattern[str]:
    """Finds a block's number behind the last word of the fronts: ``layers.7.``, or glued to it: ``linear_7.``."""
    words = {_last_word(front) for front in fronts if front}
    start = "^|" if "" in fronts else ""
    return re.compile(rf"(?:{start}(?<![^.])(?:{'|'.join(sorted(map(re.escape, words)))}))([0-9]{{1,7}})\.")


def _expert_pattern(keys: Iterable[str]) -> re.Pattern[str] | None:
    """Finds an expert's number behind the words that stand before ``{e}`` in the keys."""
    words = {_last_word(key.split("{e}")[0]) for key in keys}
    if not words:
        return None
    return re.compile(rf"(?:^|\.)(?:{'|'.join(sorted(map(re.escape, words)))})([0-9]{{1,7}})(?=\.|$)")
