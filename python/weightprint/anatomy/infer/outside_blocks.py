"""Roles of non-block tensors: embedding, output head, positions, final norm.

The matrix (n, d) with most rows is the embedding; two of one size are embedding and head (or transposed, (d, n)). Which
is which: words; the embedding comes first in the order of modules; and softmax ignores what is added to all logits, so
a head's rows drift into a common direction that an embedding's don't (mean row, see
:mod:`weightprint.anatomy.infer.value_probes`; *measured* on six tiny Llamas of one recipe: 158 to 168 against 7 to 16).
A table whose rows drift (those one apart are more alike than those four apart, by .1 or more) is positions: *measured*
.18 to .40 in four real ones (Whisper's, MiniLM's), at most .05 in 14 embeddings and heads. The positions of tiny GPT-2s
don't drift so; a smaller (n, d) with n of 32 or more is taken for positions all the same, one of 2 to 16 rows for
segments; without a word that is said with little confidence. Vectors of d: one alone, or a gain with its offset, is the
final norm; more need words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.anatomy.infer.name_hints import hint
from weightprint.anatomy.infer.value_probes import Matrix, Probe, logistic
from weightprint.anatomy.infer.vectors import name_prefix
from weightprint.anatomy.place import View
from weightprint.anatomy.roles import ROLES, matrix_of

Shape = tuple[int, ...]
_DRIFT = 0.1  # of positions' rows


@dataclass(frozen=True, slots=True)
class Outside:
    """One tensor outside the blocks."""

    name: str
    role: str
    transposed: bool
    confidence: float
    because: str

    def view(self, shapes: Mapping[str, Shape]) -> View:
        """The weight, transposed where it is stored so."""
        shape = shapes[self.name]
        return View(self.name, shape[::-1] if self.transposed else shape, transposed=self.transposed)


def find_outside(
    names: Sequence[str], shapes: Mapping[str, Shape], d: int, probe: Probe, *, ordered: bool, readable: bool = True
) -> list[Outside]:
    """Roles of `names`, which stand outside the blocks of a stack with hidden size d; at most one tensor per role.

    `ordered`: file order is that of modules or of the alphabet. `readable`: names may hold words.
    """
    out: list[Outside] = []
    tables = [name for name in names if len(shapes[name]) == 2 and d in shapes[name] and min(shapes[name]) > 1]
    rows = {name: shapes[name][0] if shapes[name][1] == d else shapes[name][1] for name in tables}
    words = {name: hint(name) if readable else None for name in names}
    out += _tables(tables, rows, words, shapes, d, probe, ordered)
    vectors = [name for name in names if shapes[name] == (d,)]
    out += _norms(vectors, words, probe)
    for found in list(out):
        for name in names:
            same = len(shapes[name]) == 1 and name_prefix(name) == name_prefix(found.name) and name != found.name
            bias = f"{found.role}_bias"
            if same and readable and shapes[name][0] == rows.get(found.name) and all(f.role != bias for f in out):
                out.append(Outside(name, bias, False, 0.9 * found.confidence, "stem of its matrix, and its length"))
    return out


def _tables(
    tables: Sequence[str],
    rows: Mapping[str, int],
    words: Mapping[str, str | None],
    shapes: Mapping[str, Shape],
    d: int,
    probe: Probe,
    ordered: bool,
) -> list[Outside]:
    out: list[Outside] = []
    left = list(tables)

    def take(name: str, role: str, confidence: float, because: str) -> None:
        transposed = shapes[name][1] != d
        out.append(Outside(name, role, transposed, confidence, because))
        left.remove(name)

    for name in tables:
        word = words[name]
        if word in ("position", "token_type", "pooler") and all(f.role != word for f in out):
            take(name, word, 0.85, f"word in the name ({word}) and shape")
    for name in list(left):
        drift = probe.drift(Matrix(name, (rows[name], d), shapes[name][1] != d)) if words[name] is None else None
        if drift is not None and drift >= _DRIFT and all(f.role != "position" for f in out):
            take(name, "position", 0.9, f"rows drift from one to the next (by {drift:.2f})")
    if left:
        most = max(rows[name] for name in left)
        largest = [name for name in left if rows[name] == most]
        if len(largest) == 1:
            told = words[largest[0]]
            role = "head" if told == "head" else "embedding"
            sure = 0.95 if told == role else 0.85 if most > 2 * d else 0.6
            take(largest[0], role, sure, f"largest table of width {d} outside the blocks")
        elif len(largest) == 2:
            odds, cues = _embedding_first(largest, words, rows, d, shapes, probe, ordered)
            first, second = largest if odds >= 0 else largest[::-1]
            sure = 0.95 * logistic(abs(odds))
            why = f"two tables of {most} x {d}; {cues or 'which is the embedding can not be told'}"
            take(first, "embedding", sure, why)
            take(second, "head", sure, why)
    for name in list(left):
        n = rows[name]
        likely = "position" if n >= 32 else "token_type" if n <= 16 else None
        if likely and n != d and all(f.role != likely for f in out):
            take(name, likely, 0.6 if likely == "position" else 0.5, f"a smaller table of width {d} ({n} rows)")
    return out


def _embedding_first(
    pair: Sequence[str],
    words: Mapping[str, str | None],
    rows: Mapping[str, int],
    d: int,
    shapes: Mapping[str, Shape],
    probe: Probe,
    ordered: bool,
) -> tuple[float, str]:
    """Log odds that the first of two equal tables is the embedding, and the cues in words."""
    odds, cues = 0.0, []
    for name, sign in zip(pair, (1, -1), strict=True):
        if words[name] in ("embedding", "head"):
            odds += 3.0 * sign * (1 if words[name] == "embedding" else -1)
            cues.append("words in the names")
    means = [probe.mean_row(Matrix(n, (rows[n], d), shapes[n][1] != d)) for n in pair]
    if means[0] and means[1]:
        value = float(np.clip(1.5 * np.log(means[1] / means[0]), -4, 4))
        odds += value
        if abs(value) > 1:
            cues.append("mean row: the head's rows share a direction")
    if ordered:
        odds += 0.5
        cues.append("order in the file")
    return odds, ", ".join(dict.fromkeys(cues))


def _norms(vectors: Sequence[str], words: Mapping[str, str | None], probe: Probe) -> list[Outside]:
    out: list[Outside] = []
    positive = {}
    for name in vectors:
        value = probe.vector(name)
        positive[name] = None if value is None else float((value > 0).mean()) >= 0.9
    left = list(vectors)
    for name in vectors:
        told = words[name] or ""
        role = matrix_of(told) if told and matrix_of(told) in ROLES else ""
        if role in ("final_norm", "embedding_norm"):
            taken = f"{role}_bias" if told.endswith("_bias") else role
            if all(f.role != taken for f in out):
                out.append(Outside(name, taken, False, 0.9, f"word in the name ({role}) and length"))
                left.remove(name)
    gains = [name for name in left if positive[name]]
    biases = [name for name in left if positive[name] is False]
    if len(gains) == 1 and all(f.role != "final_norm" for f in out):
        out.append(Outside(gains[0], "final_norm", False, 0.8, "the only gain of the hidden size outside the blocks"))
        beside = [b for b in biases if words[b] in (None, "norm_bias", "final_norm_bias")]
        if len(beside) == 1:
            out.append(Outside(beside[0], "final_norm_bias", False, 0.7, "the only offset beside the only gain"))
    elif len(left) == 1 and positive[left[0]] is None and all(f.role != "final_norm" for f in out):
        out.append(Outside(left[0], "final_norm", False, 0.6, "the only vector of the hidden size outside the blocks"))
    return out
