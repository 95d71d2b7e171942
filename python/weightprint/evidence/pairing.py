"""Which tensor of A is compared with which of B.

In this order, each tensor used at most once on either side:

1. *name*: same name, same shape (or the transposed shape); then *place*: the same stack, block, role and expert in both
   anatomies, whatever the names. Canonical tensors of known roles all stand (out x in), so these are never turned.
   Or the same factor of one module's update in two adapters.
2. *stem*: the same name after leading path components are dropped (``inner.encoder.layer.0.x`` and
   ``encoder.layer.0.x``), where that is one-to-one; for tensors without a place.
   If most rectangular matrices of the blocks are stored transposed, so are the square ones.
3. *digest*: equal bytes, dtype and shape.
4. *values*: what is left is grouped by shape up to transposition; inside a group the pair with the largest
   double-centred cosine on a corner of up to 128 x 128 goes first (greedy, one-to-one), as long as it reaches
   :data:`MIN_COSINE`.

Steps 3 and 4 look at values, so a test on pairs found there must pay for the choice: ``log10_pairings`` bounds the
number of ways in which the left-over matrices could have been paired, sum over B's left-over matrices of log10(1 +
candidates in A x orientations). A test that has no other pairs, or too few, adds it to its log10 p (a union bound, so
independence is not needed); a test that has pairs from steps 1 and 2 rests its p-value on those alone and pays
nothing. Strangers reach |cosine| 4/128 = .03 on such a corner; .5 is far from both that and the .99 of a copy, and
only decides what is worth testing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from weightprint.anatomy.adapters.dialects import factors_of, module_key
from weightprint.evidence.nulls.exchange import double_centre
from weightprint.evidence.pair import Pair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32
from weightprint.util.linear_algebra import product

MIN_COSINE = 0.5
_CORNER = 128
_MIN_VALUES = 64
_FLOATS = ("F64", "F32", "F16", "BF16")
_MAX_GROUP = 2048  # more tensors of one shape on a side: not paired by values


def pair_by_name(a: ModelView, b: ModelView) -> dict[str, Pair]:
    """Pairs of steps 1 and 2, which look at no value: B's name → its pair, in the order found."""
    pairs: dict[str, Pair] = {}
    left_a = dict(a.tensors)
    for by, find in _STEPS:
        for name, other in find(left_a, [t for t in b.tensors.values() if t.name not in pairs]).items():
            if (fit := _fit(left_a[other], b.tensors[name])) is not None:
                pairs[name] = Pair(left_a.pop(other), b.tensors[name], fit, by)
    _turn_squares(pairs)
    return pairs


def pair_tensors(a: ModelView, b: ModelView, *, values: bool = True) -> tuple[tuple[Pair, ...], float]:
    """All pairs in B's order, and log10 of the number of pairings that values were allowed to choose from. Step 4 only
    where ``values`` may be read."""
    pairs = pair_by_name(a, b)
    used = {pair.a.name for pair in pairs.values()}
    left_a = {name: tensor for name, tensor in a.tensors.items() if name not in used}
    left_b = [t for t in b.tensors.values() if t.name not in pairs]
    log10_pairings = _count_pairings(list(left_a.values()), left_b)

    by_bytes = {(t.digest, t.dtype, t.shape): t for t in left_a.values() if t.digest is not None}
    for tensor in left_b:
        match = by_bytes.get((tensor.digest or "", tensor.dtype, tensor.shape))
        if match is not None and match.name in left_a:
            pairs[tensor.name] = Pair(left_a.pop(match.name), tensor, False, "digest")
    rest_a = [t for t in left_a.values() if values and not t.undecoded]
    for pair in _by_values(a, b, rest_a, [t for t in left_b if t.name not in pairs and not t.undecoded]):
        pairs[pair.b.name] = pair
    return tuple(pairs[name] for name in b.tensors if name in pairs), log10_pairings


def _turn_squares(pairs: dict[str, Pair]) -> None:
    """If most rectangular matrices of the blocks are stored transposed, so are the squares. Looks at shapes only."""
    inside = [p for p in pairs.values() if p.known.layer is not None and p.a.rank2]
    rectangular = [p for p in inside if p.a.shape[0] != p.a.shape[1]]
    if 2 * sum(p.transposed for p in rectangular) > len(rectangular):
        for pair in inside:
            if pair.a.shape[0] == pair.a.shape[1]:
                pairs[pair.b.name] = replace(pair, transposed=True)


def _fit(a: Tensor, b: Tensor) -> bool | None:
    """False: same shape. True: B is A's shape transposed. None: neither, or no values on a side. Bytes that are shaped
    as the other side's values are may be codes of them."""
    if (a.undecoded or b.undecoded) and not ({a.dtype, b.dtype} & {*_FLOATS} and "U8" in (a.dtype, b.dtype)):
        return None
    if a.shape == b.shape:
        return False
    return True if len(a.shape) == 2 and a.shape == b.shape[::-1] else None


def _by_own_name(left_a: Mapping[str, Tensor], left_b: Sequence[Tensor]) -> dict[str, str]:
    return {t.name: t.name for t in left_b if t.name in left_a and _fit(left_a[t.name], t) is not None}


def _by_place(left_a: Mapping[str, Tensor], left_b: Sequence[Tensor]) -> dict[str, str]:
    """B's names to A's where both anatomies put them in the same place."""
    ours = {tensor.place: name for name, tensor in left_a.items() if tensor.place is not None}
    return {tensor.name: ours[tensor.place] for tensor in left_b if tensor.place in ours}


def _by_module(left_a: Mapping[str, Tensor], left_b: Sequence[Tensor]) -> dict[str, str]:
    """B's names to A's where both are the same factor of one module's update, in two dialects of adapters."""
    ours: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    theirs: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for names, found in ((left_a, ours), ([tensor.name for tensor in left_b], theirs)):
        weights = {name: name.partition("[")[0] for name in names}  # canonical names have the role behind
        factors = factors_of(weights.values())
        for name, weight in weights.items() if factors else ():
            if weight in factors:
                found[module_key(factors[weight])].append(name)
        if not found:
            return {}
    return {names[0]: ours[key][0] for key, names in theirs.items() if len(names) == len(ours.get(key, ())) == 1}


def _by_stem(left_a: Mapping[str, Tensor], left_b: Sequence[Tensor]) -> dict[str, str]:
    """B's names to A's, where one is the other with leading components dropped and the choice is one-to-one."""

    def stems(name: str) -> list[str]:
        words = name.split(".")
        return [".".join(words[i:]) for i in range(len(words)) if len(words) - i >= 2]

    owners_a: dict[str, set[str]] = defaultdict(set)
    for name in left_a:
        for stem in stems(name):
            owners_a[stem].add(name)
    found: dict[str, str] = {}
    for name in (tensor.name for tensor in left_b):
        for stem in stems(name):  # longest first
            owners = owners_a.get(stem, set())
            if stem in owners or (len(owners) == 1 and stem == name):
                found[name] = stem if stem in owners else next(iter(owners))
                break
    counts: dict[str, int] = defaultdict(int)
    for other in found.values():
        counts[other] += 1
    return {name: other for name, other in found.items() if counts[other] == 1}


_STEPS: tuple[tuple[Literal["name", "place", "stem"], Callable[..., dict[str, str]]], ...] = (
    ("name", _by_own_name),
    ("place", _by_place),
    ("place", _by_module),
    ("stem", _by_stem),
)


def _key(tensor: Tensor) -> tuple[int, ...]:
    return tuple(sorted(tensor.shape)) if tensor.rank2 else (-1, *tensor.shape)


def _count_pairings(left_a: Sequence[Tensor], left_b: Sequence[Tensor]) -> float:
    sizes: dict[tuple[int, ...], int] = defaultdict(int)
    for tensor in left_a:
        sizes[_key(tensor)] += 1
    total = 0.0
    for tensor in left_b:
        if tensor.rank2 and sizes[_key(tensor)]:
            ways = 2 if tensor.shape[0] == tensor.shape[1] else 1
            total += math.log10(1 + sizes[_key(tensor)] * ways)
    return total


def _by_values(a: ModelView, b: ModelView, left_a: Sequence[Tensor], left_b: Sequence[Tensor]) -> list[Pair]:
    groups: dict[tuple[int, ...], tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for tensor in left_a:
        groups[_key(tensor)][0].append(tensor)
    for tensor in left_b:
        groups[_key(tensor)][1].append(tensor)
    pairs: list[Pair] = []
    for ours, theirs in groups.values():
        if ours and theirs and ours[0].numel >= _MIN_VALUES and max(len(ours), len(theirs)) <= _MAX_GROUP:
            pairs.extend(_match_group(a, b, ours, theirs))
    return pairs


def _corner(side: ModelView, tensor: Tensor, size: int, turn: bool) -> F32:
    """The first size x size values, centred, unit length, flat; of the transpose when ``turn``."""
    if tensor.rank2:
        corner = double_centre(side.rows(tensor, 0, size)[:, :size])
        corner = corner.T if turn else corner
    else:
        corner = side.reader(tensor.name, 0, min(tensor.numel, size * size))
        corner = corner - corner.mean()
    norm = float(np.linalg.norm(corner))
    return np.ravel(corner / norm if 0 < norm < math.inf else np.zeros_like(corner))


def _match_group(a: ModelView, b: ModelView, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[Pair]:
    """Greedy one-to-one assignment on the cosine of corners, both orientations where the shapes allow."""
    size = _CORNER if max(len(ours), len(theirs)) <= 256 else _CORNER // 4
    candidates: list[tuple[float, int, int, bool]] = []
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, tensor in enumerate(ours):
        by_shape[tensor.shape].append(i)
    for shape, members in by_shape.items():
        stack = np.stack([_corner(a, ours[i], size, False) for i in members])
        for j, tensor in enumerate(theirs):
            for turn in (False, True):
                if (tensor.shape[::-1] if turn else tensor.shape) != shape or (turn and not tensor.rank2):
                    continue
                cosines = product(stack, _corner(b, tensor, size, turn))
                candidates.extend(
                    (float(cosines[row]), members[row], j, turn) for row in np.nonzero(cosines >= MIN_COSINE)[0]
                )
    used_a: set[int] = set()
    used_b: set[int] = set()
    pairs: list[Pair] = []
    for _, i, j, turn in sorted(candidates, key=lambda c: (-c[0], c[2], c[1])):
        if i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            pairs.append(Pair(ours[i], theirs[j], turn, "values"))
    return pairs
