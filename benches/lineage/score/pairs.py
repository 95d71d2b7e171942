"""Which pairs of the zoo are scored, and what is true of each.

Relation. Every model has roots (whose trained weights are in it), and every root has an *initialisation*. Two models
are `related` if they have a root in common; `shared_init` if they have none but two of their roots began from the same
random weights (a class of its own, neither hit nor false alarm); else `unrelated`. Teacher and student are unrelated.

Clusters. What is independent is an initialisation, so that is what intervals resample: see :mod:`.metrics`.

Sides. Every root is on the side `fit` or `test` (thresholds may be looked at on `fit` only); a pair is on a side only
if both models are, and `between` if they are not.

Choice. Parents with their children, and pairs of roots, come first; the rest is dealt out family by family (for
strangers: by kind and by pair of families), so that none with many children drowns the others; last come more of the
hardest strangers, of one architecture and one text. Within a family a hash
of the names decides, and another which of the two is "A": a method that always calls B the later one is right half of
the time.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..zoo.ground_truth import FamilyTree

__all__ = ["HARDEST", "RELATED", "SHARED_INIT", "UNRELATED", "Pair", "Want", "choose", "every_pair"]

RELATED, SHARED_INIT, UNRELATED = "related", "shared_init", "unrelated"
#: Strangers for which all is equal that data and recipe impose.
HARDEST = "same_architecture_same_data"


@dataclass(frozen=True)
class Pair:
    """Two models and what is true of them.

    Attributes:
        kind: for strangers what they have in common (``same_architecture_same_data``, …, ``teacher_student``), for kin
            ``descent`` (one from the other) or ``siblings``.
        clusters: the independent initialisations in it; intervals resample these.
        later: ``"a"``, ``"b"`` or None.
        steps: names of the operations from the earlier to the later, in order.
        strength: the last operation with its parameters, in words; empty for siblings and strangers.
        training: tokens since they parted, in units of their root's own training.
        trained_only: nothing but training lies between them, so `training` is the whole distance.
    """

    a: str
    b: str
    relation: str
    kind: str
    clusters: tuple[str, ...]
    side: str
    later: str | None = None
    steps: tuple[str, ...] = ()
    strength: str = ""
    training: float | None = None
    trained_only: bool = False

    @property
    def key(self) -> str:
        return f"{self.a} {self.b}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


#: Steps that move weights by training alone.
TRAINING = frozenset({"fine_tune", "continued_pretraining", "wash", "further_training"})


@dataclass(frozen=True)
class Want:
    """How many pairs of each relation, at most; ``hard`` more strangers of one architecture, trained on one text."""

    related: int = 650
    shared_init: int = 60
    unrelated: int = 2050
    hard: int = 400


#: Strangers are dealt out in these shares: the test side decides, the fit side was looked at, `between` is neither.
_SHARES = {"test": 0.55, "fit": 0.25, "between": 0.2}


def _hash(*words: str) -> int:
    return int.from_bytes(hashlib.sha256(" ".join(words).encode()).digest()[:8], "big")


def every_pair(tree: FamilyTree) -> list[Pair]:
    """All unordered pairs, each in the order that its hash gives."""
    return [_pair(tree, *names) for names in itertools.combinations(sorted(tree), 2)]


def choose(tree: FamilyTree, want: Want) -> list[Pair]:
    """The pairs to be scored: the same for the same zoo."""
    by: dict[str, list[Pair]] = defaultdict(list)
    roots = set(tree.roots)

    def first(pair: Pair) -> tuple[bool, int]:
        chosen_first = pair.kind in ("descent", "teacher_student") or {pair.a, pair.b} <= roots
        return (not chosen_first, _hash(pair.key))

    for pair in sorted(every_pair(tree), key=first):
        by[pair.relation].append(pair)
    chosen = _deal(by[RELATED], want.related, lambda p: p.clusters)
    chosen += _deal(by[SHARED_INIT], want.shared_init, lambda p: p.clusters)
    strangers: list[Pair] = []
    for side, share in _SHARES.items():
        some = [pair for pair in by[UNRELATED] if pair.side == side]
        strangers += _deal(some, round(share * want.unrelated), lambda p: (p.kind, p.clusters))
    taken = {pair.key for pair in strangers}
    rest = [pair for pair in by[UNRELATED] if pair.key not in taken]
    strangers += _deal(rest, want.unrelated - len(strangers), lambda p: (p.kind, p.clusters))
    taken = {pair.key for pair in strangers}
    hard = [pair for pair in by[UNRELATED] if pair.kind == HARDEST and pair.key not in taken]
    strangers += _deal(hard, want.hard, lambda p: p.clusters)
    return sorted(chosen + strangers, key=lambda p: _hash("order", p.key))


def _deal(pairs: Iterable[Pair], want: int, group: Callable[[Pair], object]) -> list[Pair]:
    """One of each group in turn until `want` are dealt, in the order in which they come."""
    groups: dict[object, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[group(pair)].append(pair)
    order = sorted(groups, key=lambda g: _hash("group", repr(g)))
    dealt = itertools.chain.from_iterable(itertools.zip_longest(*(groups[g] for g in order)))
    return list(itertools.islice((pair for pair in dealt if pair is not None), max(0, want)))


def _pair(tree: FamilyTree, x: str, y: str) -> Pair:
    a, b = (x, y) if _hash("a", x, y) % 2 else (y, x)
    ours, theirs = tree.clusters(a), tree.clusters(b)
    sides = {tree.side(a), tree.side(b)}
    side = sides.pop() if len(sides) == 1 else "between"
    clusters = tuple(sorted(ours | theirs))
    if not set(tree[a].truth.roots) & set(tree[b].truth.roots):
        relation = SHARED_INIT if ours & theirs else UNRELATED
        kind = "shared_init" if relation == SHARED_INIT else _stranger_kind(tree, a, b)
        return Pair(a, b, relation, kind, clusters, side)
    later = tree.later(a, b)
    early, late = (a, b) if later == "b" else (b, a)
    operations = tree.operations(early, late) if later else []
    return Pair(
        a,
        b,
        RELATED,
        "descent" if later else "siblings",
        clusters,
        side,
        later,
        tuple(str(operation["name"]) for operation in operations),
        in_words(operations[-1:]) if operations else "",
        tree.training(a, b),
        all(step in TRAINING for step in _between(tree, a, b)),
    )


def _between(tree: FamilyTree, a: str, b: str) -> list[str]:
    """Names of the operations from the common ancestor down to either."""
    met = tree.meet(a, b)
    if met is None:
        return []
    return [str(operation["name"]) for name in (a, b) for operation in tree.operations(met, name)]


def _stranger_kind(tree: FamilyTree, a: str, b: str) -> str:
    if tree.teachers(a) & tree.clusters(b) or tree.teachers(b) & tree.clusters(a):
        return "teacher_student"
    shape = "same_architecture" if tree[a].shape == tree[b].shape else "other_architecture"
    data = "same_data" if tree.texts(a) & tree.texts(b) else "other_data"
    return f"{shape}_{data}"


def in_words(operations: Sequence[Any]) -> str:
    """`noise (sd 0.1) → quantise (bits 4)`; long parameters are left out."""
    return " → ".join(_one_in_words(operation) for operation in operations)


#: What says how a model was trained, not how much was done to it.
_NOT_STRENGTH = frozenset({"optimiser", "rate", "steps", "vocabulary", "seed", "batch_seed"})


def _one_in_words(operation: Any) -> str:
    shown = []
    for key, value in sorted(dict(operation.get("parameters", {})).items()):
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        if key not in _NOT_STRENGTH and not isinstance(value, dict) and len(text) <= 24:
            shown.append(f"{key} {text}")
    return f"{operation['name']} ({', '.join(shown)})" if shown else str(operation["name"])
