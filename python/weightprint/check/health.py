"""What a scan says about a checkpoint's health: one function per question, each from columns to findings.

A new question is a function ``(CheckContext) -> Iterator[Finding]`` and a row in :data:`QUESTIONS`. Thresholds are
stated where they are used. A tensor's role only chooses how loud a finding is (a zero row in an embedding is usually
padding), never whether the values are looked at.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from math import prod

import numpy as np

from weightprint import _core
from weightprint.check.context import CheckContext, about, at, coordinates, is_update
from weightprint.check.rules import table as checks
from weightprint.results.finding import Finding, Severity
from weightprint.scan.result import dead_rows
from weightprint.util.escape import escape

OUTLIER_FACTOR = 100.0
"""A value is an outlier beyond this many times the 99.99 % quantile of its tensor's absolute values."""

_SHOWN = 10
_INTEGERS = frozenset({"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"})
_MAY_HAVE_DEAD_ROWS = frozenset({"embedding", "head", "router", "fixed"})
_BLOCK = re.compile(r"(?:^|\.)(h|blk|experts?|\w*layers?|\w*blocks?)\.([0-9]{1,18})(?=\.)")
_IN_FRONT = frozenset({"attn_norm", "ffn_norm", "final_norm"})
_SAME_BY_DESIGN = 16  # tensors with fewer elements are equal too easily to be worth a word


def non_finite(context: CheckContext) -> Iterator[Finding]:
    """NaN is an error; an infinity is a warning, since masks hold them on purpose."""
    for _, row, _ in context.where(context.column("n_nan") > 0):
        count, n = row["n_nan"], row["n"]
        yield about(row, "nan", "error", f"{count:,} of {n:,} values are NaN, the first at {at(row, row['first_nan'])}")
    for _, row, parts in context.where(context.column("n_posinf") + context.column("n_neginf") > 0):
        counts = f"{row['n_posinf']:,} +Inf and {row['n_neginf']:,} -Inf of {row['n']:,} values"
        severity: Severity = "note" if "fixed" in parts else "warning"
        yield about(row, "infinity", severity, f"{counts}, the first at {at(row, row['first_inf'])}")


def outliers(context: CheckContext) -> Iterator[Finding]:
    """Values beyond 100 × the 99.99 % quantile of |x|; among up to 10,000 values that is the largest, and none is."""
    quantile = np.asarray(context.column("abs_q9999"), np.float64)
    largest = np.array([np.nan if v is None else float(v) for v in context.column("abs_max")], np.float64)
    for k, row, _ in context.where((quantile >= 0) & (largest / OUTLIER_FACTOR > quantile)):
        if row["dtype"] in _INTEGERS:
            continue
        threshold = OUTLIER_FACTOR * float(quantile[k])
        info = context.checkpoint.find(row["name"])
        handle = context.checkpoint.core_file(info.file)
        total, flat, values = _core.find_above(handle, info.index, threshold, _SHOWN)
        places = zip(np.frombuffer(flat, np.int64).tolist(), np.frombuffer(values, np.float64).tolist(), strict=True)
        shown = ", ".join(f"{value:.6g} at {at(row, place)}" for place, value in places)
        more = f" and {total - _SHOWN:,} more" if total > _SHOWN else ""
        if quantile[k] == 0:
            few = f"at most 0.01 % of {row['n']:,} values are not zero: {shown}{more}"
            yield about(row, "almost_all_zero", "warning", few)
        else:
            beyond = f"beyond 100 × the 99.99 % quantile of |x| ({quantile[k]:.6g})"
            yield about(row, "outlier", "warning", f"{total:,} value(s) {beyond}: {shown}{more}")


def constants(context: CheckContext) -> Iterator[Finding]:
    """A matrix of zeros computes nothing, a constant one hardly; a constant vector (a fresh norm gain) is only noted.

    Components of quantised weights (zero points, group indices) are constant on purpose. That all updates of an
    adapter are zero is said once, by another question.
    """
    for _, row, parts in context.where(context.constant() & (context.column("n") > 1)):
        if row["name"] in context.components or row["name"] in context.idle_updates:
            continue
        quiet = len(row["shape"]) < 2 or row["dtype"] in _INTEGERS or parts & {"fixed", "norm", "bias"}
        zero, part_of_adapter = row["n_zero"] == row["n"], is_update(row["name"])
        severity: Severity = "note" if quiet else "error" if zero and parts and not part_of_adapter else "warning"
        if zero and "norm" in parts and "bias" not in parts and _closes(context, row["name"]):
            severity = "error"
        if zero:
            yield about(row, "all_zero", severity, f"all {row['n']:,} values are zero")
        else:
            yield about(row, "constant", severity, f"all {row['n']:,} values are {row['min']:.6g}")
    for _, row, parts in context.where(context.column("n") == 0):
        learned = parts - {"fixed"} or row["name"].endswith((".weight", ".bias"))
        message = f"shape {list(row['shape'])} holds no value"
        yield about(row, "empty", "error" if learned else "note", message)


def _closes(context: CheckContext, name: str) -> bool:
    """A gain that lets nothing through: of a known family that adds no 1 to it (Gemma's are 1 where zeros are stored),
    and in front of a part, not behind one that starts as no change."""
    placed = [a.place for a in context.anatomy.of(context.anatomy.weights.owner(name))]
    return any(
        place.stack in context.anatomy.families and place.role in _IN_FRONT and context.anatomy.offset(place) == 0
        for place in placed
    )


def zero_rows(context: CheckContext) -> Iterator[Finding]:
    """Rows that are zero throughout, in matrices that are not zero altogether. A short last axis is a kernel."""
    dead = np.array([v or 0 for v in context.column("dead_rows")], np.int64)
    for _, row, parts in context.where((dead > 0) & ~context.constant()):
        shape = row["shape"]
        if row["dtype"] == "BOOL" or shape[-1] < (2 if len(shape) == 2 else 16):
            continue
        numbers = dead_rows(context.scan.rows(row["name"])).tolist()
        shown = ", ".join(coordinates(number, shape[:-1]) for number in numbers[:_SHOWN])
        severity: Severity = "note" if parts & _MAY_HAVE_DEAD_ROWS else "warning"
        more = " …" if len(numbers) > _SHOWN else ""
        zero = f"{len(numbers):,} of {prod(shape[:-1]):,} rows are zero: {shown}{more}"
        yield about(row, "dead_rows", severity, zero)


def duplicates(context: CheckContext) -> Iterator[Finding]:
    """Tensors with the same bytes under several names: tied weights, or a layer copied. Constant ones don't count."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    all_names, all_dtypes, all_digests = (context.column(what) for what in ("name", "dtype", "digest"))
    worth = ~context.constant() & (context.column("numel") >= _SAME_BY_DESIGN)
    for k in np.flatnonzero(worth).tolist():
        if all_names[k] in context.components and all_dtypes[k] in _INTEGERS:
            continue  # group indices and zero points are the same by design
        groups[all_dtypes[k], all_digests[k]].append(k)
    for members in groups.values():
        names = [all_names[k] for k in members]
        if len(names) < 2 or all("fixed" in context.parts(name) for name in names):
            continue
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        shown = ", ".join(escape(name, 120) for name in names[:5]) + more
        size = context.scan.table.row(members[0])["nbytes"]
        message = f"{len(names)} tensors hold the same {size:,} bytes: {shown}"
        yield Finding("duplicate_values", "note", message, tensor=names[0])


def layer_gaps(context: CheckContext) -> Iterator[Finding]:
    """Numbered blocks or experts that skip a number. Only stacks of at least three with inner modules count.

    (A Sequential numbers its activations too, so its weights skip numbers by design; it has no inner modules.)
    """
    present: dict[str, set[int]] = defaultdict(set)
    for name in context.checkpoint.names():  # all of them: a scan of some tensors skips numbers on purpose
        for match in _BLOCK.finditer(name):
            if name.find(".", match.end() + 1) > 0:
                present[name[: match.end(1)]].add(int(match[2]))
    for stack, numbers in present.items():
        first, last = min(numbers), max(numbers)
        if len(numbers) < 3 or (last - first + 1 == len(numbers) and first == 0):
            continue
        # Runs, not single numbers: a hostile layer number of 10^18 must not make a list that long.
        ordered = [-1, *sorted(numbers)]
        gaps = [(a + 1, b - 1) for a, b in pairwise(ordered) if b - a > 1]
        more = " …" if len(gaps) > _SHOWN else ""
        shown = ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in gaps[:_SHOWN]) + more
        message = f"{escape(stack)} has {len(numbers):,} blocks numbered up to {last:,}, without {shown}"
        yield Finding("layer_gap", "warning", message)


Question = Callable[[CheckContext], Iterator[Finding]]

OF_VALUES: tuple[Question, ...] = (non_finite, outliers, constants, zero_rows)
"""Those of single values, which a tensor-parallel rank is asked too."""

QUESTIONS: tuple[Question, ...] = (*OF_VALUES, duplicates, layer_gaps, *checks.QUESTIONS)


def examine(context: CheckContext, questions: Iterable[Question] = QUESTIONS) -> list[Finding]:
    """All findings of these questions, in their order."""
    return [finding for question in questions for finding in question(context)]
