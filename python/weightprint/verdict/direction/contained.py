"""What two models hold exactly alike, and what one of them has beside it.

Blocks meet by equal values, whatever their numbers. Where all of one model's blocks stand in the other, value for
value or as some of the rows or columns of its matrices, what is left is *lone*: whole blocks, units, heads, channels,
experts, a router, biases, tables. Where a matrix of the blocks differs otherwise, something was trained or edited, and
nothing is told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.ranges import evenly
from weightprint.verdict.values import Label

Block = tuple[str, int]
Key = tuple[str, object]

_MARK = 8  # rows by which a matrix is known where it has no digest
_ROWS, _BLOCKS = 192, 12  # of a matrix that are judged; blocks that are read
_WHOLE = 1 << 24  # values of a matrix that is read whole
_POOLED = 0.01  # of a mean's size, that the rounding of a mean may be
_WRITES = ("o", "down")
_TABLES = ("embedding", "head", "position")


@dataclass(frozen=True, slots=True, eq=False)
class Lone:
    """What one side has and the other lacks: ``rows`` beside ``kept``, both float32 (n, width), over one set of
    channels (or, inside one matrix, of rows). ``few``, ``many``: how many of them the two models hold, where the one is
    wider. ``repeats``: all of it stands elsewhere on that side as well, value for value.
    """

    label: Label
    what: str
    rows: F32
    kept: F32
    few: int = 0
    many: int = 0
    repeats: bool = False


@dataclass(slots=True)
class Shared:
    """What `shared` found.

    Attributes:
        few, blocks: the smaller side; its blocks → those of the other that hold them.
        equal: matrices of the blocks that are alike on both sides.
        lone, vectors: what one side has beside the other: parts of matrices, and biases or offsets by side.
        dense: where one side has experts and the other one FFN: (side with experts, the up-projection, the experts').
        pooled: by the side with fewer heads: its keys or values are means of the other's; do those differ?
        reads: rows of equal matrices that read the stream, of several blocks.
    """

    few: Label
    blocks: Mapping[Block, Block]
    equal: int = 0
    lone: list[Lone] = field(default_factory=list)
    vectors: dict[Label, list[Tensor]] = field(default_factory=lambda: {"a": [], "b": []})
    dense: list[tuple[Label, Tensor, list[Tensor]]] = field(default_factory=list)
    pooled: dict[Label, list[bool]] = field(default_factory=lambda: {"a": [], "b": []})
    reads: list[F32] = field(default_factory=list)


Sides = tuple[ModelView, ModelView]


def shared(models: ModelPair) -> Shared | None:
    """What is equal and what is lone; None where something else differs in the blocks."""
    sides = _by_size(models)
    blocks = [_blocks(side) for side in sides]
    if not all(blocks):
        return None
    marks = [{b: {k: _mark(side, t, models.seed) for k, t in ts.items() if t.rank2} for b, ts in of.items()}
             for side, of in zip(sides, blocks, strict=True)]  # fmt: skip
    found = _map(marks[0], marks[1])
    if found is None:
        return None
    out = Shared(sides[0].label, found)
    read = set(evenly(list(found), _BLOCKS, rounded=False))
    for few, many in found.items():
        if not _walk(
            out, sides, (blocks[0][few], blocks[1][many]), (marks[0][few], marks[1][many]), few in read, models.seed
        ):
            return None
    lone = [b for b in blocks[1] if b not in set(found.values())]
    kept = list(found.values())
    held = {mark for b in kept for mark in marks[1][b].values()}
    repeated = [b for b in lone if marks[1][b] and held.issuperset(marks[1][b].values())]
    # Where some are no repeats those are judged: the others are told by what they repeat.
    others = [b for b in lone if b not in set(repeated)]
    _lone_blocks(out, sides[1], blocks[1], others or repeated, kept, models.seed, repeats=not others)
    return out


def _by_size(models: ModelPair) -> Sides:
    """The side with fewer blocks, or else experts, or else values first."""
    a, b = models.a, models.b
    sizes = [(len(_blocks(side)), sum(t.rank2 for t in side.tensors.values()), side.numel) for side in (a, b)]
    return (a, b) if sizes[0] <= sizes[1] else (b, a)


def _blocks(side: ModelView) -> dict[Block, dict[Key, Tensor]]:
    out: dict[Block, dict[Key, Tensor]] = defaultdict(dict)
    for t in side.tensors.values():
        if t.place is not None and t.place.block is not None and t.place.part != "fixed":
            out[t.place.stack, t.place.block][t.place.role, t.place.expert] = t
    return out


def outside(side: ModelView) -> dict[str, Tensor]:
    """Tables outside of the blocks, by role."""
    places = ((t.place, t) for t in side.tensors.values() if t.rank2 and not t.constant)
    return {p.role: t for p, t in places if p is not None and p.block is None and p.role in _TABLES}


def _mark(side: ModelView, t: Tensor, seed: int) -> bytes:
    rows = sampled_rows(side, t, pick(t.matrix[0], _MARK, seed, "mark")) + np.float32(t.offset)
    return repr(t.shape).encode() + (rows + np.float32(0)).tobytes()


def _map(
    few: Mapping[Block, Mapping[Key, bytes]], many: Mapping[Block, Mapping[Key, bytes]]
) -> dict[Block, Block] | None:
    """Block of the smaller side → block of the other that holds most of its matrices; in place where none is equal
    anywhere (all widths differ)."""
    holders: dict[bytes, set[Block]] = defaultdict(set)
    for block, marks in many.items():
        for mark in marks.values():
            holders[mark].add(block)
    out: dict[Block, Block] = {}
    for block, marks in few.items():
        votes = Counter(b for mark in set(marks.values()) for b in holders.get(mark, ()) if b not in out.values())
        if votes:
            out[block] = max(votes, key=lambda b: (votes[b], b == block))
    if not out and few.keys() == many.keys():
        return {b: b for b in few}
    return out if len(out) == len(few) else None


def _walk(
    out: Shared,
    sides: Sides,
    tensors: tuple[Mapping[Key, Tensor], Mapping[Key, Tensor]],
    marks: tuple[Mapping[Key, bytes], Mapping[Key, bytes]],
    read: bool,
    seed: int,
) -> bool:
    """One block of both; False where something differs that is no lone part."""
    experts = [{k: m for k, m in some.items() if k[1] is not None} for some in marks]
    if all(experts):
        if not _experts(out, sides, tensors, experts, read, seed):
            return False
    elif any(experts) and read:
        many = 0 if experts[0] else 1
        up = tensors[1 - many].get(("up", None))
        ups = [tensors[many][k] for k in experts[many] if k[0] == "up"]
        if up is not None and ups:
            out.dense.append((sides[many].label, up, ups))
    here = [{k: t for k, t in some.items() if k[1] is None} for some in tensors]
    for key in dict.fromkeys((*here[0], *here[1])):
        one, other = (some.get(key) for some in here)
        if one is None or other is None:
            side = 0 if other is None else 1
            lone = one if one is not None else other
            if lone is not None and not lone.rank2:
                out.vectors[sides[side].label].append(lone)
            elif lone is not None and key[0] == "router":
                out.lone.append(Lone(sides[side].label, "router", sides[side].rows(lone), _readers(out)))
            elif lone is not None and not (any(experts) and not all(experts) and key[0] in ("up", "gate", "down")):
                return False
        elif not one.rank2:
            continue
        elif marks[0][key] == marks[1][key]:
            out.equal += 1
            if read and key[0] not in _WRITES and len(out.reads) < 2 * _BLOCKS:
                out.reads.append(sampled_rows(sides[0], one, pick(one.matrix[0], _ROWS // 2, seed, "lone")))
        elif one.shape == other.shape:
            return False
        elif key[0] == "router" and all(experts):
            continue
        elif read and not _resized(out, sides, key[0], (one, other)):
            return False
    return True


def _readers(out: Shared) -> F32:
    return np.concatenate(out.reads[:4]) if out.reads else np.zeros((0, 0), np.float32)


def _experts(
    out: Shared,
    sides: Sides,
    tensors: tuple[Mapping[Key, Tensor], Mapping[Key, Tensor]],
    marks: Sequence[Mapping[Key, bytes]],
    read: bool,
    seed: int,
) -> bool:
    """Experts of both, met by their values whatever their numbers."""
    there = set(marks[1].values())
    if not all(mark in there for mark in marks[0].values()):
        return _same_experts_resized(out, sides, tensors, marks, read)
    out.equal += len(marks[0])
    few, left = set(marks[0].values()), Counter(marks[0].values())
    lone: dict[str, list[Tensor]] = defaultdict(list)
    kept: dict[str, list[Tensor]] = defaultdict(list)
    repeated: dict[str, list[Tensor]] = defaultdict(list)
    for key, mark in marks[1].items():
        where = kept if left[mark] > 0 else repeated if mark in few else lone
        left[mark] -= 1
        where[key[0]].append(tensors[1][key])
    found = lone or repeated
    for role in found if read else ():
        if role not in _WRITES and kept[role]:
            rows = pick(found[role][0].matrix[0], _ROWS // 2, seed, "lone")
            x, k = (
                np.concatenate([sampled_rows(sides[1], t, rows) for t in ts[:8]]) for ts in (found[role], kept[role])
            )
            out.lone.append(Lone(sides[1].label, "experts", x, k, repeats=not lone))
    return True


def _same_experts_resized(
    out: Shared,
    sides: Sides,
    tensors: tuple[Mapping[Key, Tensor], Mapping[Key, Tensor]],
    marks: Sequence[Mapping[Key, bytes]],
    read: bool,
) -> bool:
    """As many experts, all of another width."""
    if marks[0].keys() != marks[1].keys():
        return False
    keys = [key for key in marks[0] if marks[0][key] != marks[1][key]]
    if any(tensors[0][key].shape == tensors[1][key].shape for key in keys):
        return False
    return not read or all(_resized(out, sides, key[0], (tensors[0][key], tensors[1][key])) for key in keys[:6])


def _resized(out: Shared, sides: Sides, role: str, pair: tuple[Tensor, Tensor]) -> bool:
    """The smaller one's rows, or its columns, are some of the other's."""
    if max(t.numel for t in pair) > _WHOLE:
        return True  # judged by others of its block
    order = (0, 1) if pair[0].numel <= pair[1].numel else (1, 0)
    few, many = (sides[k] for k in order)
    small, big = (pair[k] for k in order)
    y, x = few.rows(small), many.rows(big)
    if small.shape[1] != big.shape[1]:
        if small.shape[0] != big.shape[0]:
            return False
        y, x = np.ascontiguousarray(y.T), np.ascontiguousarray(x.T)
    at = subset(y, x)
    if at is None:
        pooled = role in ("k", "v") and _pools(y, x)
        if pooled:
            out.pooled[few.label].append(_pools(y, x, differ=True))
        return pooled or role in _WRITES
    lone = np.delete(x, at, axis=0)
    out.equal += 1
    what = {"q": "heads", "k": "heads", "v": "heads", "o": "heads"}.get(role, "units")
    if (small.shape[1] != big.shape[1]) != (role in _WRITES):
        what = "channels"
    out.lone.append(Lone(many.label, what, lone, y, len(y), len(x)))
    return True


def subset(few: F32, many: F32) -> Indices | None:
    """Where each row of the first stands in the second, value for value; None where one does not."""
    places: dict[bytes, int] = {}
    for i, row in enumerate(np.ascontiguousarray(many + np.float32(0))):
        places.setdefault(row.tobytes(), i)
    at = [places.get(row.tobytes(), -1) for row in np.ascontiguousarray(few + np.float32(0))]
    return None if min(at, default=-1) < 0 else np.array(at, np.int64)


def _pools(few: F32, many: F32, differ: bool = False) -> bool:
    """Each head of the first is the mean of as many neighbours of the second (``differ``: that aren't one another)."""
    n, rest = divmod(len(many), len(few))
    if rest or n < 2:
        return False
    for width in (w for w in range(len(few), 0, -1) if len(few) % w == 0):
        heads = many.reshape(len(few) // width, n, width, -1).astype(np.float64)
        mean = heads.mean(axis=1).reshape(few.shape)
        size = np.linalg.norm(few)
        if np.linalg.norm(mean - few) <= _POOLED * size:
            return not differ or bool(np.linalg.norm(heads - heads.mean(axis=1, keepdims=True)) > 10 * _POOLED * size)
    return False


def _lone_blocks(
    out: Shared,
    side: ModelView,
    blocks: Mapping[Block, Mapping[Key, Tensor]],
    lone: Sequence[Block],
    kept: Sequence[Block],
    seed: int,
    repeats: bool,
) -> None:
    stacks = {b[0] for b in kept}
    for what, some in (
        ("blocks", [b for b in lone if b[0] in stacks]),
        ("stacks", [b for b in lone if b[0] not in stacks]),
    ):
        few = evenly(some, 4, rounded=False)
        # A block that was put in mostly follows the one that it was copied from.
        before = [max(earlier) for b in few if (earlier := [k for k in kept if k < b])]
        chosen = (few, list(dict.fromkeys((*evenly(list(kept), 4, rounded=False), *before))))
        for role in ("q", "v", "gate", "up", "down") if some else ():
            of = [[blocks[b][role, None] for b in bs if (role, None) in blocks[b]] for bs in chosen]
            if all(of) and len({t.shape for ts in of for t in ts}) == 1:
                x, k = (np.concatenate(list(_rows(side, ts, role, seed))) for ts in of)
                out.lone.append(Lone(side.label, what, x, k, repeats=repeats))


def _rows(side: ModelView, tensors: Sequence[Tensor], role: str, seed: int) -> Iterator[F32]:
    """Some units' rows over the channels of the stream."""
    for t in tensors:
        if role in _WRITES:
            columns = pick(t.matrix[1], _ROWS, seed, "lone")
            yield np.ascontiguousarray(sampled_rows(side, t, np.arange(t.matrix[0]), columns).T)
        else:
            yield sampled_rows(side, t, pick(t.matrix[0], _ROWS, seed, "lone"))
