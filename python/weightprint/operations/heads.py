"""Attention heads pruned, moved, or their keys and values shared: read off the head map and the sizes.

A head of B names a head of A by both its products (:mod:`weightprint.evidence.head_agreement`). Averaged keys and
values (GQA from MHA, arXiv 2305.13245) leave the queries' heads in place and fewer key heads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from weightprint.anatomy.place import Geometry
from weightprint.evidence.head_agreement import HeadAgreement
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes
from weightprint.operations.edits.attention_replaced import attention_replaced
from weightprint.operations.factors_and_orders import other_orders
from weightprint.operations.structure import number, placed
from weightprint.verdict.facts import Facts

__all__ = ["heads"]

_MOST = 0.5  # of a block's heads, to say where they come from

Sources = dict[int, tuple[str, int]]


def heads(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """Head pruning, grouping and permutation."""
    if not facts.blocks or facts.maps is None or facts.maps.stack is None or any(attention_replaced(facts, changes)):
        return
    stack = facts.maps.stack
    origin = next((r.a[0] for r in facts.maps.layers if r.b[0] == stack and r.a is not None), stack)
    a, b = facts.models.a.geometry.get(origin), facts.models.b.geometry.get(stack)
    if a is None or b is None or not (a.heads and b.heads and a.kv_heads and b.kv_heads):
        return
    if a.head_dim != b.head_dim:
        return
    seen = _sources(facts, stack)
    if (a.heads, a.kv_heads) == (b.heads, b.kv_heads):
        yield from _permuted(seen, b.heads, b.heads // b.kv_heads)
    elif b.heads == a.heads and b.kv_heads < a.kv_heads:
        yield Operation(
            "heads_to_gqa", {"kv_heads": b.kv_heads}, f"{a.kv_heads} -> {b.kv_heads} key and value heads", 0.95
        )
    elif b.heads == a.heads and b.kv_heads > a.kv_heads and (order := _repeated(facts, stack, origin, a, b)):
        where = (
            f"{a.kv_heads} -> {b.kv_heads} key and value heads, each of A's {b.kv_heads // a.kv_heads} times {order}"
        )
        yield Operation("kv_heads_repeated", {"kv_heads": b.kv_heads, "order": order}, where)
    elif b.heads < a.heads and b.heads * a.kv_heads == a.heads * b.kv_heads:
        yield _pruned(seen, a, b)


def _repeated(facts: Facts, stack: str, origin: str, a: Geometry, b: Geometry) -> str:
    """How B's keys repeat A's, head by head: ``"one after the other"``, which leaves the function as it is, or ``"all
    of them in turn"``, which gives queries other keys; empty where they don't."""
    keys = {t.layer: t for t in placed(facts.models.b, "k") if t.stack == stack}
    theirs = {t.layer: t for t in placed(facts.models.a, "k") if t.stack == origin}
    layer = next((layer for layer in keys if layer in theirs), None)
    if layer is None or not a.kv_heads or not b.kv_heads or b.kv_heads % a.kv_heads:
        return ""
    x, y = facts.models.a.rows(theirs[layer]), facts.models.b.rows(keys[layer])
    n, heads = b.kv_heads // a.kv_heads, x.reshape(a.kv_heads, -1, x.shape[-1])
    for words, repeated in (
        ("one after the other", np.repeat(heads, n, 0)),
        ("all of them in turn", np.tile(heads, (n, 1, 1))),
    ):
        if repeated.size == y.size and np.allclose(repeated.reshape(y.shape), y, rtol=0.01, atol=0):
            return words
    return ""


def _sources(facts: Facts, stack: str) -> Mapping[int, Sources]:
    """Block of B → head of B → (block of A, head of A), where both products name it."""
    evidence = [e for e in facts.evidence if e.test == "head_agreement" and e.applied]
    best = max(evidence, key=lambda e: e.effect or 0.0, default=None)
    out: dict[int, Sources] = defaultdict(dict)
    tensors, untold = facts.models.b.tensors, other_orders(facts)
    odd = {
        t.layer for n in untold if (t := tensors[n]).stack == stack and t.place and t.place.role in ("q", "k", "v", "o")
    }
    for block in best.told(HeadAgreement).head_map if best is not None else ():
        name, _, layer = block["b"].rpartition(".")
        if name == stack and int(layer) not in odd:  # of rows in a wrong order heads say nothing
            out[int(layer)] = {i: (h[0], int(h[1])) for i, h in enumerate(block["heads"]) if h is not None}
    return out


def _in_one_block(sources: Sources, heads: int) -> dict[int, int]:
    """Head of B → head of A, of the block of A that most of them come from; empty where these are few."""
    blocks = Counter(block for block, _ in sources.values())
    if not blocks:
        return {}
    (main, n), *_ = blocks.most_common(1)
    return {i: h for i, (block, h) in sources.items() if block == main} if n > _MOST * heads else {}


def _permuted(seen: Mapping[int, Sources], heads: int, group: int) -> Iterable[Operation]:
    """Heads of a block under other numbers, each of A's once."""
    named = {layer: _in_one_block(s, heads) for layer, s in seen.items()}
    told = {layer: m for layer, m in named.items() if m and len(set(m.values())) == len(m)}
    moved = {layer: float(np.mean([i != h for i, h in m.items()])) for layer, m in told.items()}
    if not told or 2 * sum(x >= 0.25 for x in moved.values()) <= len(told):
        return
    parameters: Row = {"moved": number(float(np.mean(list(moved.values()))))}
    if all(len(m) == heads for m in told.values()) and len(told) == len(seen):
        parameters["query_heads"] = [[m[i] for i in range(heads)] for _, m in sorted(told.items())]
        parameters["kv_heads"] = [[m[i] // group for i in range(0, heads, group)] for _, m in sorted(told.items())]
    yield Operation("head_permutation", parameters, f"heads of {len(told)} layers stand in another order", 0.95)


def _pruned(seen: Mapping[int, Sources], a: Geometry, b: Geometry) -> Operation:
    assert a.kv_heads
    assert b.heads
    assert b.kv_heads
    group = b.heads // b.kv_heads
    parameters: Row = {"keep": number(b.kv_heads / a.kv_heads)}
    kept = []
    for _, sources in sorted(seen.items()):
        named = _in_one_block(sources, b.heads)
        votes = [Counter(h // group for i, h in named.items() if i // group == kv) for kv in range(b.kv_heads)]
        if all(votes):
            kept.append([v.most_common(1)[0][0] for v in votes])
    if kept and len(kept) == len(seen):
        parameters["kept_kv_heads"] = kept
    return Operation("head_pruning", parameters, f"{a.heads} -> {b.heads} heads in {len(seen)} layers", 0.95)
