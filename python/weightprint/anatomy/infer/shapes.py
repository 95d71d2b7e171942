"""Roles of a block's matrices from their shapes: which are FFN, which attention, and what stays ambiguous.

Let d be the hidden size: the number that is a side of most of the block's matrices. A matrix (x, d) *reads* the
residual stream, (d, x) *writes* it (the other way round where linear layers are stored transposed, as GPT-2's). Then

===================================  ==================================================================
matrices                             reading
===================================  ==================================================================
2 of (h, d), 1 of (d, h)             gate, up | down; the odd one out is down, so the storage is known too
(2h, d), (d, h)                      gate and up in one, down
(h, d), (d, h)                       up, down, or down and up stored transposed: a choice
4 of (d, d)                          q, k, v, o: a choice of 24
2 of (d, d), 2 of (k, d), k < d      q, o | k, v: two choices (grouped queries)
2 of (k, d), (a, d), (d, a)          k, v | q, o, with heads wider or narrower than d
3 of (a, d), (d, a)                  q, k, v | o
(3d, d), (d, d)                      q, k, v in one, o
2 of (3d, d), (d, 3d), (d, d)        q, k, v in one and up: a choice; down, o
(d + 2k, d), (d, d)                  the same with grouped queries
(d, d), (2k, d), (d, d)              q, o | k and v in one
8 of (d, d); 2 of (3d, d) and (d, d)  self- and cross-attention
(c, d), (x, c) …                     low-rank pairs (MLA): only where words say so
(e, d) beside e experts              router
===================================  ==================================================================

Where two FFN-like pairs are found ((a, d) with (d, a) twice), the one with two readers is the FFN, else the larger;
a pair beside two equal narrower readers is q and o. Of several ways to find the FFN the one that leaves fewest matrices
unread is taken. Nothing here reads a name or a value: a :class:`Choice` lists what
is left open, and cues add log odds to its options.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.infer.blocks import BlockTensor

_Form = tuple[float, int, str, bool | None]  # of an FFN: how much speaks for it, its size, its name, transposed


@dataclass(slots=True)
class Claim:
    """A tensor whose matrix roles follow from shapes: several roles where they share it, one below the other."""

    tensor: BlockTensor
    roles: tuple[str, ...]
    transposed: bool | None  # None: square or not yet known
    expert: str | None = None  # "axis": stacked along a leading axis; "shared": the expert that sees every token


@dataclass
class Choice:
    """Slots that share out some roles among them: one option per way, with log odds that cues add to."""

    tensors: list[BlockTensor]
    options: list[tuple[str, ...]]
    transposed: list[bool | None]  # per option
    odds: npt.NDArray[np.float64] = field(init=False)
    cues: list[str] = field(default_factory=list)
    expert: str | None = None

    def __post_init__(self) -> None:
        self.odds = np.zeros(len(self.options))

    @property
    def chances(self) -> npt.NDArray[np.float64]:
        """Probability of every option."""
        p = np.exp(self.odds - self.odds.max())
        return np.asarray(p / p.sum(), np.float64)

    @property
    def best(self) -> int:
        """The likeliest option; among equals the one in the table's order."""
        return int(np.argmax(np.round(self.odds, 9)))

    def chance_of(self, i: int) -> float:
        """How likely tensor i has the role that the best option gives it."""
        role = self.options[self.best][i]
        return float(sum(p for p, option in zip(self.chances, self.options, strict=True) if option[i] == role))


@dataclass
class Reading:
    """A block's matrices: what is settled, what is open, and what fits nothing."""

    hidden: int
    claims: list[Claim] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    rest: list[BlockTensor] = field(default_factory=list)
    kv: int | None = None
    ffn: int | None = None
    transposed: bool | None = None


def sides(tensor: BlockTensor) -> tuple[int, int]:
    """(rows, columns) of a matrix, or of one matrix of a stack."""
    return tensor.shape[-2], tensor.shape[-1]


def hidden_size(tensors: Sequence[BlockTensor]) -> int | None:
    """The number that is a side of most matrices; among equals the one that most vectors have, then the smaller."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) in (2, 3) and min(tensor.shape) > 1]
    count: Counter[int] = Counter()
    for tensor in matrices:
        count.update(set(sides(tensor)))
    if not count:
        return None
    vectors = Counter(tensor.shape[0] for tensor in tensors if len(tensor.shape) == 1)
    best = max(count.values())
    near = [n for n, c in count.items() if c >= best - (1 if best > 3 and vectors else 0)]
    return max(near, key=lambda n: (vectors[n] + 2 * count[n], -n))


def read_matrices(tensors: Sequence[BlockTensor], d: int) -> Reading:
    """Settle what shapes settle. `tensors` are one kind of block's, of any rank; only matrices and stacks are used."""
    reading = Reading(d)
    plain = [s for s in tensors if len(s.shape) == 2 and not s.experts and min(s.shape) > 1]
    stacks = [s for s in tensors if len(s.shape) == 3 and min(s.shape[1:]) > 1]
    indexed = [s for s in tensors if len(s.shape) == 2 and s.experts and min(s.shape) > 1]
    usable = [s for s in plain if d in s.shape]
    reading.rest += [s for s in plain if d not in s.shape]
    number = 0
    for group, expert in ((stacks, "axis"), (indexed, None)):
        forms = _ffn_forms(group, d)
        if forms:
            found = _ffn(group, d, reading, expert, forms[0])
            number = number or (found[0].shape[0] if expert else found[0].experts)
        reading.rest += [s for s in group if not forms or s not in found]
    if number:
        for tensor in list(usable):
            if tensor.shape in ((number, d), (d, number)) and d != number:
                reading.claims.append(Claim(tensor, ("router",), tensor.shape[0] == d))
                usable.remove(tensor)
                break
    expert = "shared" if number else None
    few = len(usable) <= 4
    forms = [f for f in _ffn_forms(usable, d) if f[2] != "plain" or f[0] >= 2 or not few]
    readings = [_rest_of_block(usable, d, reading, expert, form) for form in (forms or (None,))]
    return min(readings, key=lambda r: len(r.rest))


def _rest_of_block(
    tensors: Sequence[BlockTensor], d: int, reading: Reading, expert: str | None, form: _Form | None
) -> Reading:
    """The reading with this form of FFN among the tensors, and attention among the others."""
    out = replace(reading, claims=[*reading.claims], choices=[*reading.choices], rest=[*reading.rest])
    found = _ffn(tensors, d, out, expert, form) if form else []
    left = [s for s in tensors if s not in found]
    found = _attention(left, d, out)
    out.rest += [s for s in left if s not in found]
    return out


def _by_side(
    tensors: Sequence[BlockTensor], d: int
) -> tuple[dict[int, list[BlockTensor]], dict[int, list[BlockTensor]], list[BlockTensor]]:
    """Matrices by their other side: (x, d), (d, x), and the square ones."""
    last: dict[int, list[BlockTensor]] = {}
    first: dict[int, list[BlockTensor]] = {}
    square: list[BlockTensor] = []
    for tensor in tensors:
        a, b = sides(tensor)
        if a == b == d:
            square.append(tensor)
        elif b == d:
            last.setdefault(a, []).append(tensor)
        elif a == d:
            first.setdefault(b, []).append(tensor)
    return last, first, square


def _ffn_forms(tensors: Sequence[BlockTensor], d: int) -> list[_Form]:
    """Ways to find an FFN among these matrices, the best first."""
    last, first, square = _by_side(tensors, d)
    options: list[_Form] = []
    for x in {*last, *first}:
        a, b = len(last.get(x, ())), len(first.get(x, ()))
        if (a, b) in ((2, 1), (1, 2)):
            options.append((3, x, "gated", b == 2))
            if x == 3 * d and len(square) == 1:
                options.append((2.5, x, "beside q+k+v", b == 2))
        if b == 1 and len(last.get(2 * x, ())) == 1:
            options.append((2.5, x, "fused", False))
        if a == 1 and len(first.get(2 * x, ())) == 1:
            options.append((2.5, x, "fused", True))
        if (a, b) == (1, 1):
            pair = any(len(group) >= 2 for y, group in {**first, **last}.items() if y < x)
            alone = len(options) == 0 and pair and not square
            options.append((1.0 if alone else 2.0, x, "plain", None))
    return sorted(options, key=lambda o: (o[0], o[1]), reverse=True)


def _ffn(tensors: Sequence[BlockTensor], d: int, reading: Reading, expert: str | None, way: _Form) -> list[BlockTensor]:
    """The FFN among these matrices in this form; adds its claims and choices, and gives its tensors back."""
    last, first, square = _by_side(tensors, d)
    _, x, form, is_transposed = way
    readers, writers = (first, last) if is_transposed else (last, first)
    if form == "gated":
        pair_, down = readers[x], writers[x]
        reading.choices.append(replace(_pair(pair_, ("gate", "up"), is_transposed), expert=expert))
        reading.claims.append(Claim(down[0], ("down",), is_transposed, expert))
        used = [*pair_, *down]
    elif form == "fused":
        used = [readers[2 * x][0], writers[x][0]]
        reading.claims.append(Claim(used[0], ("gate", "up"), is_transposed, expert))
        reading.claims.append(Claim(used[1], ("down",), is_transposed, expert))
    elif form == "beside q+k+v":
        used = [*readers[x], writers[x][0], square[0]]
        reading.choices.append(_pair(readers[x], ("q+k+v", "up"), is_transposed))
        reading.claims += [
            Claim(writers[x][0], ("down",), is_transposed, expert),
            Claim(square[0], ("o",), is_transposed),
        ]
        reading.kv = d
    else:
        used = [last[x][0], first[x][0]]
        known = reading.transposed
        ways: list[tuple[str, ...]] = [("up", "down"), ("down", "up")]
        transposed: list[bool | None] = [False, True]
        if known is not None:
            ways, transposed = [ways[known]], [known]
        reading.choices.append(Choice(used, ways, transposed, expert=expert))
    if form != "plain" and reading.transposed is None and expert != "axis":
        reading.transposed = is_transposed
    if expert is None and reading.ffn is None:
        reading.ffn = x
    return used


def _attention(tensors: Sequence[BlockTensor], d: int, reading: Reading) -> list[BlockTensor]:
    """The attention matrices; adds its claims and choices, and gives its tensors back."""
    last, first, square = _by_side(tensors, d)
    for transposed in (False, True):
        readers, writers = (first, last) if transposed else (last, first)
        fused = [x for x in readers if x > d and (x - d) % 2 == 0 and len(readers[x]) == len(square) <= 2]
        for x in sorted(fused, key=lambda x: (x != 3 * d, -x)):
            return _fused(readers[x], square, transposed, reading, (x - d) // 2)
    if len(square) in (4, 8) and not last and not first:
        roles = ("q", "k", "v", "o")
        if len(square) == 4:
            ways: list[tuple[str, ...]] = list(permutations(roles))
        else:
            both = [(*a, *(f"cross_{r}" for r in b)) for a in permutations(roles) for b in permutations(roles)]
            ways = both + [way[4:] + way[:4] for way in both]
        reading.choices.append(Choice(list(square), ways, [None] * len(ways)))
        reading.kv = d
        return square
    for transposed in (False, True):
        readers, writers = (first, last) if transposed else (last, first)
        narrow = [x for x in readers if x < d and len(readers[x]) == 2]
        if len(square) == 2 and narrow:
            x = max(narrow)
            reading.transposed = transposed if reading.transposed is None else reading.transposed
            choices = (_pair(square, ("q", "o"), transposed), _pair(readers[x], ("k", "v"), transposed))
            return _settle(reading, transposed, x, [], *choices)
        half = [x for x in readers if x != d and x % 2 == 0 and len(readers[x]) == 1 and not writers.get(x)]
        if len(square) == 2 and half:
            x = max(half)
            return _settle(reading, transposed, x // 2, [(readers[x][0], "k v")], _pair(square, ("q", "o"), transposed))
        for x in sorted(set(readers) & set(writers), reverse=True):
            if len(writers[x]) != 1:
                continue
            if len(readers[x]) == 3:
                ways = list(permutations(("q", "k", "v")))
                choice = Choice(list(readers[x]), ways, [transposed] * len(ways))
                return _settle(reading, transposed, x, [(writers[x][0], "o")], choice)
            pairs = [y for y in readers if y < x and len(readers[y]) == 2]
            if len(readers[x]) == 1 and pairs:
                y = max(pairs)
                claims = [(readers[x][0], "q"), (writers[x][0], "o")]
                return _settle(reading, transposed, y, claims, _pair(readers[y], ("k", "v"), transposed))
        for x, wide in ((x, y) for x in writers for y in readers if y > x and (y - x) % 2 == 0):
            if len(writers[x]) == 1 and len(readers[wide]) == 1 and wide <= 3 * x:
                claims = [(readers[wide][0], "q k v"), (writers[x][0], "o")]
                return _settle(reading, transposed, (wide - x) // 2, claims)
    return []


def _pair(tensors: Sequence[BlockTensor], roles: tuple[str, str], transposed: bool | None) -> Choice:
    return Choice(list(tensors), [roles, roles[::-1]], [transposed, transposed])


def _settle(
    reading: Reading, transposed: bool, kv: int, claims: Sequence[tuple[BlockTensor, str]], *choices: Choice
) -> list[BlockTensor]:
    """Write down what an attention's tensors are, and give them back; `kv`: rows of its keys."""
    reading.kv = kv
    reading.claims += [Claim(tensor, tuple(roles.split()), transposed) for tensor, roles in claims]
    reading.choices += choices
    return [tensor for tensor, _ in claims] + [tensor for choice in choices for tensor in choice.tensors]


def _fused(
    wide: list[BlockTensor], square: list[BlockTensor], transposed: bool, reading: Reading, kv: int
) -> list[BlockTensor]:
    reading.transposed = transposed if reading.transposed is None else reading.transposed
    if len(wide) == 1:
        return _settle(reading, transposed, kv, [(wide[0], "q k v"), (square[0], "o")])
    choices = _pair(wide, ("q+k+v", "cross_q+cross_k+cross_v"), transposed), _pair(square, ("o", "cross_o"), transposed)
    return _settle(reading, transposed, kv, [], *choices)
