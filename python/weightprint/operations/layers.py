"""Layers dropped, repeated, inserted or moved, and stacks beside the real one: read off the layer map.

The map of a stacked model is written as ranges of A's layers, first and last (SOLAR, arXiv 2312.15166). A block that
repeats the one before it while all that it writes is zero was inserted, not stacked (LLaMA Pro, arXiv 2401.02415).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from weightprint.fingerprint.ffns import ffns
from weightprint.fingerprint.model import ModelView
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes
from weightprint.operations.structure import number
from weightprint.util.ranges import joined, runs
from weightprint.verdict.facts import Facts
from weightprint.verdict.layer_map import layer_map

__all__ = ["layers"]


def layers(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """Depth drop, up-scaling, insertion, shuffle, decoy."""
    yield from _decoys(facts)
    rows = layer_map(facts)
    stack = facts.maps.stack if facts.maps is not None else None
    silent = {b for b, _, _ in rows if stack is not None and _writes_nothing(facts.models.b, stack, b)}
    kept = [(b, a) for i, (b, a, _) in enumerate(rows) if not (b in silent and (a is None or _repeats(rows, i)))]
    there = [a for _, a in kept if a is not None]
    if len(there) < 2 or not facts.blocks:
        return
    ours = next((block.a[0] for block in facts.blocks.values() if stack in (None, block.b[0])), "")
    missing = sorted({f.block for f in ffns(facts.models.a) if f.stack == ours} - set(there))
    new = [b for b, a, _ in rows if (b, a) not in kept or a is None]
    repeated = len(set(there)) < len(there)
    ranges = runs(there)
    if repeated:
        words = ", ".join(_range(r) for r in ranges)
        sure = 0.95 if len(ranges) == 2 and not missing and not new else 0.8
        yield Operation("depth_upscaling", {"ranges": ranges}, f"{words} -> {len(there)} layers", sure)
    elif not all(x < y for x, y in itertools.pairwise(there)):
        moved = sum(x != y for x, y in zip(there, sorted(there), strict=True))
        yield Operation("layer_shuffle", {"order": there}, f"{moved} of {len(there)} layers moved")
    if missing and not repeated:
        words = ", ".join(joined(missing))
        yield Operation(
            "depth_drop", {"layers": missing, "count": len(missing)}, f"layers {words} of A are not in B", 0.9
        )
    if new:
        again = _doubled(facts.models.b, stack)
        copies = [b for b, a, _ in rows if b in new and (a is not None or b in again)]
        found: Row = {"at": new, "count": len(new), "zero_output": all(b in silent for b in new)}
        if copies or found["zero_output"]:
            found["copy"] = len(copies) == len(new)
        says = "copies of their neighbours whose outputs are zero" if copies else "not found in A"
        yield Operation(
            "layer_insertion", found, f"{len(new)} layers of B: {says}", 0.95 if found["zero_output"] else 0.7
        )


def _range(pair: Sequence[int]) -> str:
    first, last = pair
    return str(first) if first == last else f"{first}-{last}"


def _repeats(rows: Sequence[tuple[int, int | None, float | None]], i: int) -> bool:
    """This layer's origin is also another layer's."""
    return any(a == rows[i][1] for j, (_, a, _) in enumerate(rows) if j != i)


def _doubled(side: ModelView, stack: str | None) -> set[int]:
    """Blocks that read the stream as another one does, value by value."""
    ups = [t for t in side.tensors.values() if t.stack == stack and t.place is not None and t.place.role == "up"]
    digests = Counter(t.digest for t in ups if t.digest is not None)
    return {t.layer for t in ups if t.layer is not None and t.digest is not None and digests[t.digest] > 1}


def _writes_nothing(side: ModelView, stack: str, block: int) -> bool:
    """Every matrix of the block that writes to the stream is zero."""
    writers = [
        t
        for t in side.tensors.values()
        if t.place is not None and t.place.stack == stack and t.place.block == block and t.place.role in ("o", "down")
    ]
    return bool(writers) and all(t.constant and not side.rows(t, 0, 1).any() for t in writers)


def _decoys(facts: Facts) -> Iterable[Operation]:
    """Stacks of B's blocks that A has no counterpart of, beside one that was found and on a stream of equal width."""
    if facts.maps is None or facts.maps.stack is None:
        return
    main, theirs = facts.maps.stack, ffns(facts.models.b)
    width = next((f.width for f in theirs if f.stack == main), None)
    real = {r.b[0] for r in facts.maps.layers if r.a is not None}
    more = len({f.stack for f in theirs}) > len({f.stack for f in ffns(facts.models.a)})  # their names tell nothing
    depth = len({f.block for f in theirs if f.stack == main})
    for stack in dict.fromkeys(f.stack for f in theirs):
        if stack in real or not more or main not in real or any(f.stack == stack and f.width != width for f in theirs):
            continue
        names = [t.name for t in facts.models.b.tensors.values() if t.stack == stack and t.layer is not None]
        blocks = len({f.block for f in theirs if f.stack == stack})
        parameters = {"names": len(names), "depth": number(blocks / max(depth, 1)), "stack": stack}
        where = f"{blocks} blocks of B ({stack}) that are not in A"
        yield Operation("decoy_stack", parameters, where, 0.7)
