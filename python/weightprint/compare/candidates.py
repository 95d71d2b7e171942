"""Of many candidates, the fewest that explain a child: exclude, test, stop.

After the Model Provenance Set (arXiv 2602.00772): as long as the candidates that are left add more than unrelated ones
would, the one that adds most is taken out of them and into the set. *What a candidate adds* is told on blocks that its
weight was not fitted on: weights from the even blocks, the squares that are left from the odd ones, and the other way
round. An unrelated candidate lowers these by nothing on average; the t statistic over tensors, corrected for the number
of candidates at every step (Bonferroni), must say that it is more than that, and the share that it explains must be one
that relatives by shared data do not reach (:data:`GAIN`). A candidate that explains much of a block alone is in at
once.

*Explanations* are then looked for among those, the nearest, and those that the child equals in most entries (the base
of a sparse merge is found so): of all sets that explain the child up to rounding by a known method, one of the smallest
is taken, and of these the one that leaves least, since a mix that was made of other merges carries their rounding too.

*What it can't tell*: where a parent is missing among the candidates, its relatives (an ancestor, a sibling) explain
part of what it left. So in a set that does not explain the child, a member that is related to one taken before it is
called ``near`` and not a parent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from weightprint.compare.gram import Gram, total
from weightprint.compare.merge_methods import Method, body
from weightprint.compare.mixing import cosines, fit, left, squares, subset
from weightprint.compare.partners import Block
from weightprint.util.arrays import F64

__all__ = ["GAIN", "Step", "narrowed", "selected"]

#: Share of what the set so far leaves that the next member must explain, on blocks that it was not fitted on.
GAIN = 0.02
#: The same of one block alone, which is enough.
GAIN_OF_A_BLOCK = 0.25
LEVEL = 0.01
_MOST = 5  # taken one by one
_NEAREST, _BASES, _LARGEST = 4, 2, 3  # looked at for explanations; parents in one
_SMALL = 4096  # values: a smaller block says nothing alone
_RELATED = 0.3  # cosine


@dataclass(frozen=True)
class Step:
    """A candidate that was taken into the set.

    Attributes:
        candidate: its number.
        gain: share of what was left that it explained, on blocks that it was not fitted on.
        log10_p: of a gain like that by an unrelated candidate, times the number of candidates that were left to choose
            from; None for one that was taken for a block.
    """

    candidate: int
    gain: float
    log10_p: float | None


def narrowed(gram: Gram, keep: Sequence[int]) -> Gram:
    """The Gram of some of the parents."""
    return replace(
        gram,
        present=tuple(gram.present[i] for i in keep),
        products=subset(gram.products, keep),
        rounding=gram.rounding[[0, *(i + 1 for i in keep)]],
    )


def selected(
    grams: Sequence[Gram],
    equal: F64,
    mixed: Callable[[Sequence[int]], Method | None],
    sparse: Callable[[Sequence[int], int], Method | None] = lambda keep, base: None,
) -> tuple[list[int], list[int], list[Step], bool]:
    """(parents, near, steps, whether they explain the child) among the candidates of `grams`.

    Args:
        grams: of the child and every candidate.
        equal: share of the child's entries that each candidate has too.
        mixed: the method that mixes whole tensors of some candidates to the child, None where none does.
        sparse: the method that chooses entries of theirs over one of them, the same.
    """
    n = len(grams[0].present) if grams else 0
    inside: list[int] = []
    steps: list[Step] = []
    while len(inside) < min(_MOST, n) and (step := _next(grams, inside, n)) is not None:
        steps.append(step)
        inside.append(step.candidate)
    products, _ = total(body(grams) or grams)
    pool = [*inside, *np.argsort(-cosines(products))[:_NEAREST].tolist()]
    over: dict[int, list[int]] = {}
    for base in np.argsort(-equal)[:_BASES].tolist():
        given = {k: _partial(products, base, k) for k in range(n) if k != base}
        over[base] = sorted(given, key=lambda k: -given[k])[:_NEAREST]
        pool += [base, *over[base]]
    pool = list(dict.fromkeys(pool))
    for size in range(1, _LARGEST + 1):
        found = [(m.left, keep) for s in combinations(pool, size) if (m := mixed(keep := sorted(s))) is not None]
        if not found and size > 1:
            sets = [(base, sorted([base, *s])) for base in over for s in combinations(over[base], size - 1)]
            found = [(m.left, keep) for base, keep in sets if (m := sparse(keep, base)) is not None]
        if found:
            return min(found)[1], [], steps, True
    near = [i for k, i in enumerate(inside) if any(_related(grams, i, j) for j in inside[:k])]
    return [i for i in inside if i not in near], near, steps, False


def _partial(products: F64, base: int, k: int) -> float:
    """Cosine of what the child and a candidate are beyond the base."""
    x = subset(products, [base, k])
    return float(x[1, 2] / math.sqrt(max(x[1, 1] * x[2, 2], 1e-300)))


def _next(grams: Sequence[Gram], inside: Sequence[int], n: int) -> Step | None:
    """The candidate that adds most to the set, if it adds more than an unrelated one would."""
    halves = _halves(grams)
    found: list[Step] = []
    out = [k for k in range(n) if k not in inside]
    for k in out:
        added, before = _added(halves, [*inside, k], inside)
        if not before.size or before.sum() <= 0:
            continue
        gain = float(added.sum() / before.sum())
        log10_p = min(0.0, _log10_tail(added) + math.log10(len(out)))
        block = _best_block(grams, inside, k)
        if block >= GAIN_OF_A_BLOCK and not (gain >= GAIN and log10_p <= math.log10(LEVEL)):
            found.append(Step(k, max(gain, 0.0), None))
        elif gain >= GAIN and log10_p <= math.log10(LEVEL):
            found.append(Step(k, gain, log10_p))
    return max(found, key=lambda step: step.gain, default=None)


def _halves(grams: Sequence[Gram]) -> list[list[Gram]]:
    """The matrices, blocks in turn: those of even rank among all that have a number, and the others."""
    used = [g for g in grams if g.matrix and g.block is not None] or list(grams)
    rank = {block: i for i, block in enumerate(dict.fromkeys(g.block for g in used))}
    return [[g for g in used if rank[g.block] % 2 == half] for half in (0, 1)]


def _added(halves: Sequence[Sequence[Gram]], wider: Sequence[int], inside: Sequence[int]) -> tuple[F64, F64]:
    """Tensor by tensor: by how much less is left with the wider set, and what was left without."""
    added, before = [], []
    for fitted, tested in (halves, halves[::-1]):
        fitted = [g for g in fitted if all(g.present[i] for i in wider)]
        if not fitted:
            continue
        products, _ = total(fitted)
        new, old = fit(products, wider), fit(products, inside) if inside else np.zeros(len(products) - 1)
        for g in tested:
            if all(g.present[i] for i in wider):
                was = left(g.products, old)
                added.append(was - left(g.products, new))
                before.append(was)
    return np.array(added), np.array(before)


def _log10_tail(added: F64) -> float:
    """log10 of the normal tail of the mean over its standard error; no p below 10^-300."""
    if added.size < 4:
        return 0.0
    error = float(added.std(ddof=1)) / math.sqrt(added.size)
    z = float(added.mean()) / error if error > 0 else 0.0
    z *= math.sqrt(max(0.0, 1 - 2 / added.size))  # few tensors: wider tails
    tail = 0.5 * math.erfc(z / math.sqrt(2))
    return math.log10(tail) if tail > 1e-300 else -300.0


def _best_block(grams: Sequence[Gram], inside: Sequence[int], k: int) -> float:
    """The largest share of what is left of a block that the candidate explains there."""
    blocks: dict[Block, list[Gram]] = defaultdict(list)
    for g in grams:
        if g.block is not None and g.matrix and g.present[k]:
            blocks[g.block].append(g)
    best = 0.0
    for gs in blocks.values():
        products, _ = total(gs)
        there = [i for i in inside if all(g.present[i] for g in gs)]
        was = left(products, fit(products, there) if there else np.zeros(len(products) - 1))
        own = squares(products)[0]
        if sum(g.n for g in gs) < _SMALL or was <= 1e-12 * own:
            continue
        best = max(best, 1 - left(products, fit(products, [*there, k])) / was)
    return best


def _related(grams: Sequence[Gram], i: int, j: int) -> bool:
    both = [g for g in body(grams) or grams if g.present[i] and g.present[j]]
    if not both:
        return False
    x, _ = total([narrowed(g, [i, j]) for g in both])
    _, (ii, jj) = squares(x)
    return bool((x[0, 0] + x[0, 2]) / math.sqrt(max(ii * jj, 1e-300)) > _RELATED) and len(cosines(x)) == 2
