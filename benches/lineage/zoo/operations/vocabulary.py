"""Other vocabularies over the same body: swapped, extended, permuted, pruned, stitched from two models.

Embedding and head (where it is not tied) change alike. `rows` in the truth: the parent's row of each row, -1 for new.
"""

from __future__ import annotations

import numpy as np

from .spelling import EMBEDDING, HEAD
from .work import ALL, Array, Work, operation


def _tables(work: Work) -> list[str]:
    return [name for name in (f"{EMBEDDING}.weight", f"{HEAD}.weight") if name in work.tensors]


def _drawn(work: Work, rows: int, like: Array) -> Array:
    return work.rng.normal(0, like.std(), (rows, like.shape[1])).astype(np.float32)


@operation(forms=ALL, strengths=({"factor": 1.0}, {"factor": 1.5}))
def vocabulary_swap(work: Work, factor: float = 1.0) -> None:
    """A new vocabulary, `factor` times as large: every row drawn anew with the old table's spread."""
    size = round(factor * work.vocabulary)
    for name in _tables(work):
        work.tensors[name] = _drawn(work, size, work.tensors[name])
    work.set("vocabulary", size)
    work.note(size=size)


@operation(forms=ALL, strengths=({"factor": 1.1}, {"factor": 1.5}, {"factor": 1.5, "new": "random"}))
def vocabulary_extension(work: Work, factor: float = 1.1, new: str = "mean") -> None:
    """Rows added at the end: the mean row and a little noise, or drawn with the table's spread."""
    if new not in ("mean", "random"):
        raise ValueError(f"new rows are mean or random, not {new!r}")
    old = work.vocabulary
    extra = round((factor - 1) * old)
    for name in _tables(work):
        x = work.tensors[name]
        drawn = _drawn(work, extra, x)
        rows = drawn if new == "random" else x.mean(0) + np.float32(0.05) * drawn
        work.tensors[name] = np.concatenate([x, rows]).astype(np.float32)
    work.set("vocabulary", old + extra)
    work.note(size=old + extra)


@operation(forms=ALL)
def vocabulary_permutation(work: Work) -> None:
    """Tokens numbered anew: the same function of renumbered tokens."""
    order = work.rng.permutation(work.vocabulary)
    work.take("token", order)
    work.note(rows=order)


@operation(forms=ALL, strengths=({"keep": 0.8}, {"keep": 0.5}, {"keep": 0.2}))
def vocabulary_pruning(work: Work, keep: float = 0.5) -> None:
    """A random share of the tokens kept, in order."""
    rows = np.sort(work.rng.choice(work.vocabulary, round(keep * work.vocabulary), replace=False))
    work.take("token", rows)
    work.set("vocabulary", len(rows))
    work.note(rows=rows)


@operation(forms=ALL, takes=2, strengths=({"share": 0.3}, {"share": 0.5}, {"share": 0.7}))
def vocabulary_stitching(work: Work, share: float = 0.5) -> None:
    """A share of the rows taken from the second parent; the body is the first's."""
    donor = work.others[0]
    if donor.hidden != work.hidden or donor.vocabulary != work.vocabulary:
        raise ValueError("stitching needs two tables of one shape")
    rows = np.sort(work.rng.choice(work.vocabulary, round(share * work.vocabulary), replace=False))
    for name in _tables(work):
        x = work.tensors[name].copy()
        x[rows] = donor.tensors[name if name in donor.tensors else f"{EMBEDDING}.weight"][rows]
        work.tensors[name] = x
    work.note(rows_of_second=rows)


@operation(forms=ALL, strengths=({}, {"head": False}))
def embedding_replaced(work: Work, head: bool = True) -> None:
    """The embedding (and the head) of the second parent, or drawn anew if there is none: an attack, size unchanged."""
    for name in _tables(work)[: 2 if head else 1]:
        x = work.tensors[name]
        if not work.others:
            work.tensors[name] = _drawn(work, len(x), x)
            continue
        donor = work.others[0].tensors
        new = donor.get(name, donor[f"{EMBEDDING}.weight"])
        if new.shape != x.shape:
            raise ValueError("the other embedding has another shape")
        work.tensors[name] = new
    work.note(from_second=bool(work.others))
