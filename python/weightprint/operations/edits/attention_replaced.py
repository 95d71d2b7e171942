"""Attention that is not A's between FFNs that are: another kind put in its place, the same kind trained anew, or none.

Blocks are brought together by their FFNs. *Another kind* shows in the roles alone: heads, latent attention (MLA), a
state-space mixer, nothing. Conversions keep some of it (queries and outputs, when keys and values are made latent;
arXiv 2502.07864), and these roles are named. *The same kind* is replaced where attention was looked for with power and
is not there (:mod:`weightprint.verdict.absent_parts`). *Other numbers of heads* leave no such test: then q and o must
stand in their places with A's shape and without A's values, while FFNs in place have theirs. Heads that were both
pruned and moved would look the same, so that is said with less confidence.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from weightprint.anatomy.place import Geometry
from weightprint.fingerprint.ffns import ffns
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes
from weightprint.operations.structure import found_ffns
from weightprint.verdict.facts import Facts

__all__ = ["attention_replaced"]

_ABSENT, _PRESENT = 0.05, 0.5  # cosines in place
_CHANCE = 3.0  # standard deviations of such a cosine, which are taken off it
_MOST = 0.8  # of the blocks whose FFN was found
_LATENT = {"kv_a", "kv_b", "k_b", "v_b"}

Block = tuple[str, int]


class _Kind(NamedTuple):
    """What mixes positions: ``heads``, ``latent`` attention, a state-``space`` mixer, several; and its words."""

    parts: frozenset[str]
    words: str


def _kind(roles: AbstractSet[str], sizes: Geometry | None) -> _Kind:
    words = {}
    if roles & _LATENT:
        words["latent"] = "latent attention"
    elif roles & {"q", "k", "v", "o"}:
        counted = sizes is not None and sizes.heads and sizes.kv_heads
        words["heads"] = f"{sizes.heads} heads over {sizes.kv_heads}" if sizes and counted else "heads"
    if any(role.startswith("ssm") for role in roles):
        words["space"] = "a state-space mixer"
    return _Kind(frozenset(words), " and ".join(words.values()) or "none")


def attention_replaced(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"from", "to": kinds in words, "kept": roles that are A's, "layers", "of": blocks whose FFN was found}``."""
    pairs = {f.b.key[:2]: f.a.key[:2] for f in found_ffns(facts)}
    ours, theirs = _mixers(facts.models.a), _mixers(facts.models.b)
    unplaced = _unplaced(facts.models.b, {f.key[:2] for f in ffns(facts.models.b)})
    taken = {f.a for f in (*facts.copies, *facts.scaled, *facts.reordered)}
    anew = _anew(facts, pairs, theirs)
    by_kinds: dict[tuple[_Kind, _Kind], list[Block]] = defaultdict(list)
    for there, here in pairs.items():
        before = _kind(ours[here].keys(), facts.models.a.geometry.get(here[0]))
        after = _kind(theirs[there].keys(), facts.models.b.geometry.get(there[0]))
        if {t.name for t in ours[here].values()} <= taken or (unplaced and not after.parts):
            continue  # it is A's under other names, or nobody knows what it is
        if before.parts and (before.parts != after.parts or there in anew):
            by_kinds[before, after].append(there)
    for (before, after), blocks in by_kinds.items():
        if len(blocks) < _MOST * len(pairs):
            continue
        tensors = [(role, t.name) for at in blocks for role, t in theirs[at].items()]
        sure = before.parts != after.parts or before == after  # of the same form heads would have been found
        parameters: Row = {
            "from": before.words,
            "to": after.words,
            "kept": sorted({role for role, name in tensors if facts.parts.get(name, 0.0) > 0}),
            "layers": len(blocks),
            "of": len(pairs),
        }
        where = f"{len(blocks)} of {len(pairs)} blocks with A's FFN mix otherwise: {before.words} -> {after.words}"
        explained = frozenset(name for _, name in tensors if facts.parts.get(name, 0.0) <= 0)
        yield Operation("attention_replaced", parameters, where, 0.95 if sure else 0.8, explained)


def _mixers(side: ModelView) -> Mapping[Block, Mapping[str, Tensor]]:
    """Block → role → matrix that mixes positions."""
    found: dict[Block, dict[str, Tensor]] = defaultdict(dict)
    for tensor in side.tensors.values():
        role, at = tensor.role, tensor.layer
        if role is not None and at is not None and role.part in ("attention", "ssm") and len(tensor.shape) > 1:
            found[tensor.stack, at][role.name] = tensor
    return found


def _unplaced(side: ModelView, blocks: Iterable[Block]) -> bool:
    """Whether matrices without a place are enough to be in every block."""
    return sum(t.place is None and t.rank2 for t in side.tensors.values()) >= len(set(blocks))


def _anew(facts: Facts, blocks: Iterable[Block], theirs: Mapping[Block, Mapping[str, Tensor]]) -> set[Block]:
    """Blocks whose attention was looked for and isn't there, or has A's shapes in A's places and none of its values."""
    cosines: dict[Block, dict[str, float]] = defaultdict(dict)
    for name, cosine in facts.cosines.items():
        tensor = facts.models.b.tensors[name]
        if tensor.role is not None and tensor.layer is not None:
            chance = _CHANCE / math.sqrt(tensor.numel) if tensor.role.name in ("q", "o") else 0.0
            cosines[tensor.stack, tensor.layer][tensor.role.name] = max(0.0, abs(cosine) - chance)

    def other(at: Block) -> bool:
        attention = [c for role, c in cosines[at].items() if role in ("q", "o")]
        units = [c for role, c in cosines[at].items() if role in ("up", "down", "gate")]
        return bool(attention and units) and max(attention) < _ABSENT and min(units) >= _PRESENT

    def found(at: Block) -> bool:
        return at in facts.heads or any(facts.parts.get(t.name, 0.0) > 0 for t in theirs[at].values())

    return {at for at in blocks if at in facts.absent.attention or (other(at) and not found(at))}
