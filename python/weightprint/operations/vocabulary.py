"""What was done to the vocabulary: read off the rows of the token tables and their sizes.

Said only where the blocks were found and the rows could be looked up in the same basis as these, so that a table that
is not A's was changed and not merely hidden. A table of equal size that is not A's was put in its place or belongs to
a new vocabulary: the trace is the same, the name is `vocabulary_swap` where it was drawn and not learned, else
`embedding_replaced`, and either has half the confidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from weightprint.evidence.embeddings import Embeddings, TableRows
from weightprint.evidence.evidence import Evidence
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes
from weightprint.operations.structure import channels, number, placed
from weightprint.verdict.facts import Facts
from weightprint.verdict.thresholds import ROWS

__all__ = ["vocabulary"]

_GONE = 0.05  # cosine of rows of equal number, beyond other rows', that is none
_LITTLE = 0.3  # that a new vocabulary reaches by training, where some tokens stay
_DRAWN = 1.5  # times the spread of lengths that rows drawn at random have
_NEW = 4096  # new rows that are read
_MEAN = 0.25  # of the table's spread: new rows that scatter less about the mean row were made from it


def vocabulary(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """Swapped, extended, pruned, renumbered, stitched or replaced."""
    answers = [e for e in facts.evidence if e.test == "embeddings" and e.applied]
    if not facts.blocks or not answers:
        return
    best = max(answers, key=lambda e: (e.effect or 0.0, e.basis == "identity"))
    tables = best.told(Embeddings).tables
    told = tables.get("embedding")
    if told is None:
        return
    n_a, n_b = told["rows"]
    kind = told["kind"]
    if kind == "none":
        yield from _replaced(facts, answers, tables)
    elif kind == "extended":
        yield _extended(facts, n_a, n_b)
    elif kind in ("pruned", "first rows") and n_b < n_a:
        parameters: Row = {"keep": number(n_b / n_a), "size": n_b}
        yield Operation("vocabulary_pruning", parameters, f"{n_a:,} -> {n_b:,} rows, in A's order")
    elif kind == "renumbered":
        if n_b < n_a:
            where = f"{n_a:,} -> {n_b:,} rows"
            yield Operation("vocabulary_pruning", {"keep": number(n_b / n_a), "size": n_b}, where)
        yield Operation("vocabulary_permutation", {"size": n_b}, f"{n_b:,} rows under other numbers")
    elif kind == "same rows, some replaced" and told["equal"] >= ROWS and n_a == n_b and _others_differ(told):
        new = 1 - told["equal"] / max(told["tested"], 1)
        where = f"{new:.0%} of the rows are not A's, the others stand where they stood"
        yield Operation("vocabulary_stitching", {"share": number(new)}, where, 0.8)
    elif kind.endswith("joined with other rows") and told["equal"] >= ROWS:
        kept = told["equal"] / max(told["tested"], 1)
        parameters = {"size": n_b, "factor": number(n_b / n_a), "kept": number(kept)}
        yield Operation("vocabulary_swap", parameters, f"{kept:.0%} of the rows are A's, under other numbers", 0.7)


def _others_differ(told: TableRows) -> bool:
    """Rows that are not equal are not A's either: a sparse change (TIES, DARE) leaves all of them near."""
    equal = told["equal"] / max(told["tested"], 1)
    return bool(told["cosine_of_equal_numbers"] - equal < _LITTLE * (1 - equal))


def _replaced(facts: Facts, answers: list[Evidence], tables: Mapping[str, TableRows]) -> Iterable[Operation]:
    """No row of A's is there although the stream's channels stand where they stood (or were found)."""
    seen = channels(facts)
    if seen is None or seen.known < 0.9 or seen.moved > 0 or seen.width_a != seen.of_a.size:
        return
    asked = [e.told(Embeddings).tables for e in answers if e.basis == "identity"]
    if not asked:
        return
    told = asked[0]["embedding"]
    n_a, n_b = told["rows"]
    left = abs(told["cosine_of_equal_numbers"] - told["cosine_of_other_rows"])
    if left > (_GONE if n_a == n_b else _LITTLE):
        return
    head = asked[0].get("head")
    with_head = head is None or head["kind"] == "none"
    if n_a != n_b:
        parameters: Row = {"size": n_b, "factor": number(n_b / n_a)}
        sure = 0.9 if left <= _GONE else 0.6
        yield Operation("vocabulary_swap", parameters, f"{n_a:,} -> {n_b:,} rows, none of them A's", sure)
        return
    if with_head and not _learned(facts.models.b):
        where = "every row drawn anew: a vocabulary of the same size, or a table put in its place"
        yield Operation("vocabulary_swap", {"size": n_b, "factor": 1.0}, where, 0.5)
        return
    where = "no row of the embedding is A's" + ("" if with_head else ", the head's rows are")
    yield Operation("embedding_replaced", {"head": with_head, "size": n_b}, where, 0.5 if with_head else 0.9)


def _learned(side: ModelView) -> bool:
    """Rows differ in length by more than drawn ones do, whose log lengths have a deviation of 1/sqrt(2 d)."""
    table = next(iter(placed(side, "embedding")), None)
    if table is None:
        return True
    lengths = np.linalg.norm(side.rows(table, 0, _NEW), axis=1)
    spread = float(np.log(np.maximum(lengths, 1e-30)).std())
    return spread > _DRAWN / math.sqrt(2 * table.shape[1])


def _extended(facts: Facts, n_a: int, n_b: int) -> Operation:
    table = next(iter(placed(facts.models.b, "embedding")), None)
    parameters: Row = {"size": n_b, "factor": number(n_b / n_a)}
    if table is not None and table.shape[0] == n_b:
        parameters["new"] = "mean" if _about_the_mean(facts.models.b, table, n_a) else "random"
    return Operation("vocabulary_extension", parameters, f"{n_a:,} -> {n_b:,} rows, new ones at the end")


def _about_the_mean(side: ModelView, table: Tensor, n_a: int) -> bool:
    """New rows scatter about the mean of the old ones much less than these do."""
    old, new = side.rows(table, 0, min(n_a, _NEW)), side.rows(table, n_a, n_a + _NEW)
    centre = old.mean(axis=0)
    return float(np.square(new - centre).mean()) < _MEAN**2 * float(np.square(old - centre).mean())
