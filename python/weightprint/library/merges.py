"""Which models of a group are merges of others: looked for in the frame, proved by `recipe`.

*Candidates.* With weights that sum to one, and none below zero, some models are means of two or three others up to a
small part of what parts them; those that are none are corners, and a mean is told from corners only: of three models on
a line the middle one was made from the ends. Task arithmetic may go beyond its parents: then the base alone has a
weight below zero. TIES and DARE leave entries of the base as they were, scattered over matrices that differ.

*Proof.* That a base is nearly a mean of its fine-tunes is true of every base, so nothing here says "merge" by itself:
:func:`weightprint.compare.recipe.recipe` must explain the model up to rounding by a known method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from weightprint.compare.mixing import fit, left
from weightprint.compare.recipe import Recipe
from weightprint.library.frame import Coordinates, Products
from weightprint.util.arrays import F64

__all__ = ["Merged", "merges"]

_COPY = 1e-7  # length of what is no difference
_LEFT = 0.05  # of the squared difference from the nearest: more is no mean
_NEAREST, _MOST = 8, 3
_LARGEST = 1.1  # weight of a parent
_EQUAL = (0.08, 0.97)  # share of entries that are the base's
_PRUNED = 0.5  # of the entries that differ, those that are zero
_MOVED = 0.02  # median relative change of entries that differ: below it, equal ones are equal by rounding
_MERGES = ("linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "passthrough")

#: (child, parents) → their recipe, None where there is none.
Prove = Callable[[int, Sequence[int]], "Recipe | None"]


@dataclass(frozen=True)
class Merged:
    """A model and the parents that a recipe explains it by."""

    child: int
    parents: tuple[int, ...]
    recipe: Recipe


def merges(
    models: Sequence[Coordinates],
    found: Sequence[Products],
    lengths: F64,
    edits: F64,
    parents: Sequence[int | None],
    prove: Prove,
) -> Iterator[Merged]:
    """Every model of the group that is a merge of others.

    ``parents``: what each would hang from if there were no merges, and so may have entries of.
    """
    root = next(i for i in range(len(models)) if parents[i] is None)
    near = {c: _nearest(c, lengths, edits) for c in range(len(models)) if not _of_a_copy(c, lengths, edits)}
    convex = {c for c in near if _best(found, c, near[c], signed=False) is not None}
    known: set[int] = set()
    for c in [*(c for c in near if c not in convex), *convex]:
        corners = [i for i in near[c] if i not in convex | known]
        above = [i for i in (parents[c], root) if i is not None]
        base = max(above, key=lambda i: _equal(models[c], models[i]))
        for tried in (
            _best(found, c, corners, signed=c not in convex),
            *(_sparse(models, found, c, base, corners) if lengths[root, c] > _COPY else ()),
        ):
            recipe = None if tried is None else prove(c, tried)
            if tried is not None and recipe is not None and recipe.method in _MERGES:
                taking_part = _taking_part(recipe)
                if len(taking_part) > 1:
                    known.add(c)
                    yield Merged(c, tuple(tried[k] for k in taking_part), recipe)
                    break


def _of_a_copy(child: int, lengths: F64, edits: F64) -> bool:
    """Another model has the same values and is less unlike all the others: what was cut or rearranged is no source."""
    same = np.nonzero(lengths[child] <= _COPY)[0]
    return bool((edits[same].mean(axis=1) < edits[child].mean() - 1e-9).any())


def _taking_part(recipe: Recipe) -> list[int]:
    """Numbers of the parents that have a part in it, the base's among them."""
    scales: Mapping[str, float] = recipe.parameters.get("scales", {})
    weights = {w.parent: w.value for w in recipe.weights} | dict(scales)
    return [k for k, p in enumerate(recipe.parents) if p == recipe.base or abs(weights.get(p, 0.0)) > 0.005]


def _nearest(child: int, lengths: F64, edits: F64) -> list[int]:
    """The others, nearest first, without copies of it, and of those that are copies of each other the one that differs
    least otherwise."""
    out: list[int] = []
    for i in np.argsort(lengths[child], kind="stable").tolist():  # NaN last
        if i == child or not lengths[child, i] > _COPY:
            continue
        same = next((k for k, j in enumerate(out) if lengths[i, j] <= _COPY), None)
        if same is None:
            out.append(i)
        elif edits[child, i] < edits[child, out[same]]:
            out[same] = i
    return out


def _best(found: Sequence[Products], child: int, atoms: Sequence[int], *, signed: bool) -> list[int] | None:
    """The fewest of the atoms that the child is a mean of, the best of as many; None where there are none."""
    atoms = list(atoms[:_NEAREST])
    rows = [p for p in found if (p.n[np.ix_([child, *atoms], [child, *atoms])] == p.n[child, child]).all()]
    if len(atoms) < 2 or not rows or not any(p.n[child, child] for p in rows):
        return None
    grams = _by_block(rows, child, atoms)
    nearest = min(sum(left(g, np.eye(len(atoms))[k]) for g in grams.values()) for k in range(len(atoms)))
    total = sum(grams.values())
    assert isinstance(total, np.ndarray)
    for size in range(2, _MOST + 1):
        explained = []
        for keep in combinations(range(len(atoms)), size):
            if not _allowed(fit(total, keep, sum_to_one=True)[list(keep)], signed):
                continue
            rest = sum(left(g, fit(g, keep, sum_to_one=True)) for g in grams.values())
            if rest <= _LEFT * nearest:
                explained.append((rest, keep))
        if explained:
            return [atoms[k] for k in min(explained)[1]]
    return None


def _allowed(weights: F64, signed: bool) -> bool:
    """All take part, none too much; one of them, the base, may be below zero where that is allowed."""
    below = np.count_nonzero(weights < 0)
    return bool((np.abs(weights) > 0.01).all() and (weights < _LARGEST).all() and below <= (1 if signed else 0))


def _by_block(rows: Sequence[Products], child: int, atoms: Sequence[int]) -> dict[object, F64]:
    """Block → X·Xᵀ of p_0, child - p_0, p_1 - p_0, … as :mod:`weightprint.compare.gram` has it."""
    turn = np.eye(len(atoms) + 1)
    turn[1:, 0] = -1
    at = [atoms[0], child, *atoms[1:]]
    out: dict[object, F64] = {}
    for p in rows:
        gram = turn @ p.cross[np.ix_(at, at)] @ turn.T
        block = p.key[0][:2]
        out[block] = out[block] + gram if block in out else gram
    return out


# Entries of the base


def _sparse(
    models: Sequence[Coordinates], found: Sequence[Products], child: int, base: int, atoms: Sequence[int]
) -> Iterator[list[int]]:
    """Sets of the base, if scattered entries of the child are equal to it, and what the rest may come from."""
    if not _EQUAL[0] <= _equal(models[child], models[base]) <= _EQUAL[1]:
        return
    others = [i for i in atoms if i != base and _equal(models[i], models[base]) < _EQUAL[0]]
    along = sorted(others, key=lambda i: -_cosine(found, base, child, i))
    for size in (2, 3):
        yield from ([base, *some] for some in combinations(along[:3], size))


def _equal(x: Coordinates, y: Coordinates) -> float:
    """Share of entries that are equal, of matrices that differ by more than rounding, and not by zeros."""
    same = n = 0
    for key, p in x.items():
        q = y.get(key)
        if q is None or p.values.shape != q.values.shape or np.array_equal(p.values, q.values):
            continue
        there = np.isfinite(p.values) & np.isfinite(q.values)
        other = (p.values != q.values) & there
        if not other.any():
            continue
        if (p.values[other] == 0).mean() > _PRUNED:
            continue
        if np.median(np.abs(p.values - q.values)[other] / np.maximum(np.abs(q.values[other]), 1e-30)) > _MOVED:
            scattered = other.any(axis=1)[:, None] & other.any(axis=0) & ~other & there  # not rows that nothing trains
            same += int(np.count_nonzero(scattered))
        n += int(np.count_nonzero(there))
    return same / n if n else 0.0


def _cosine(found: Sequence[Products], base: int, i: int, j: int) -> float:
    """Of what two have beyond the base."""
    at = [base, i, j]
    total = sum((p.cross[np.ix_(at, at)] for p in found if (p.n[np.ix_(at, at)] > 0).all()), np.zeros((3, 3)))
    turn = np.array([[-1.0, 1, 0], [-1, 0, 1]])
    gram = turn @ total @ turn.T
    return float(gram[0, 1] / np.sqrt(max(gram[0, 0] * gram[1, 1], 1e-300)))
