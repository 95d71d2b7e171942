"""Tensor by tensor: what is the same in two checkpoints, what changed, and by how much.

Canonical tensors are paired by name, else by place, else by the end of their names; what is left over on either side
is looked up by its bytes (a renamed tensor), and what that does not find is listed as only in A or only in B: nothing
is left out; a head that one side ties to its embedding is held against that. Values are compared after decoding to
float32, as they act (Gemma's gains lie 1 above what is stored), with sums in f64 (``rust/core/src/pair/values.rs``):

    relative  ‖B − A‖ / ‖A‖, from differences        cosine  of the two, means taken off

Whether other values are the same ones stored otherwise is asked as `compare` asks it (:mod:`.evidence._encodings`).
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightprint import _core
from weightprint.anatomy.adapters.opened import opened
from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.roles import TOKEN_TABLES
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.selection import matching
from weightprint.diff.elsewhere import digests_of, elsewhere
from weightprint.diff.renames import rename_rules
from weightprint.evidence.pair import Pair
from weightprint.evidence.pairing import pair_by_name, pair_tensors
from weightprint.evidence.rounding.encodings import Outcome, checked, stored_otherwise, stored_scales, times
from weightprint.evidence.rounding.misread import misread
from weightprint.evidence.rounding.orders import may_be, order
from weightprint.evidence.rounding.regrouped import regrouped
from weightprint.fingerprint.fingerprint import Fingerprint, both_kept
from weightprint.fingerprint.live import Reads, outline
from weightprint.fingerprint.model import SLICE_VALUES, ModelView, Tensor
from weightprint.fingerprint.stored import check_plans, view
from weightprint.results.saving import json_value, to_json
from weightprint.results.shown import Shown
from weightprint.results.table import Column, Kind, StatsTable
from weightprint.util.arrays import F32
from weightprint.util.escape import escape
from weightprint.util.natural_order import natural_key
from weightprint.util.progress import Progress

__all__ = ["STATUSES", "Diff", "diff"]

_SMALL = 1 << 20  # bytes of a pair that one thread compares

#: What may be said of a tensor, in the order in which it is listed.
STATUSES: dict[str, str] = {
    "changed": "values differ",
    "not_read": "stored in a way that is not decoded, and other bytes",
    "reshaped": "the same name, another shape",
    "only_a": "only in A",
    "only_b": "only in B",
    "re_encoded": "the same values stored in another way, rounded at most",
    "same": "the same values",
}

_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("name", "str"),
    ("name_a", "str"),
    ("status", "str"),
    ("dtype_a", "str"),
    ("dtype_b", "str"),
    ("shape_a", "shape"),
    ("shape_b", "shape"),
    ("numel", "u64"),
    ("n_differ", "i64"),
    ("n_flipped", "i64"),
    ("relative", "number"),
    ("cosine", "number"),
    ("max_difference", "number"),
    ("l2_a", "number"),
    ("l2_b", "number"),
    ("n_nonfinite_a", "i64"),
    ("n_nonfinite_b", "i64"),
    ("order", "str"),
    ("factor", "number"),
    ("layout", "str"),
    ("stack", "str"),
    ("block", "i64"),
    ("role", "str"),
    ("expert", "str"),
)


@dataclass(frozen=True, eq=False)
class Diff(Shown):
    """What differs between A and B. Frozen; prints as the command does.

    Attributes:
        a: MODEL as it was named.
        b: MODEL as it was named.
        table: one row per tensor: ``name`` (B's, or A's if only there), ``status`` (a key of :data:`STATUSES`), dtypes,
            shapes, how many elements differ in any bit of their float32 form, how many changed sign, relative change,
            centred cosine, largest |b − a|, L2 norms, how many are NaN or infinite on either side. Where these are not
            the same elements, there is no relative change, cosine or largest difference. ``order``: how other values
            are A's in another order within the tensor, in words (``"rows in another order …"``, ``"transposed"``), or
            rows of several tensors of the other side, fused or cut otherwise; None where they are not. ``factor``: what
            all of A's values were multiplied by, where that is all and no file stores it. ``layout``: ``"transposed"``
            where one file holds the matrix (in x out) and the other (out x in); values are compared the same way
            round. ``stack``, ``block``,
            ``role`` and ``expert``: where it sits in the model, B's or else A's; None where that is not known.
        bytes_read: bytes of all tensors that were read.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> diff = weightprint.diff("weightprint-demo/parent", "weightprint-demo/finetune", include="lm_head.*")
        >>> diff
        <Diff weightprint-demo/parent → weightprint-demo/finetune: 1 changed>
        >>> print(diff.table.select(["name", "status", "n_flipped"]).to_csv(), end="")
        name,status,n_flipped
        lm_head.weight,changed,376
    """

    _report = "diff"

    a: str
    b: str
    table: StatsTable
    bytes_read: int

    @property
    def counts(self) -> dict[str, int]:
        """Tensors by status."""
        counts = Counter(self.table["status"])
        return {status: counts[status] for status in STATUSES if counts[status]}

    @property
    def reordered(self) -> int:
        """How many tensors hold A's values in another order."""
        return sum(order is not None for order in self.table["order"])

    @property
    def transposed(self) -> int:
        """How many matrices one file holds (in x out) and the other (out x in)."""
        return sum(layout is not None for layout in self.table["layout"])

    @property
    def same(self) -> bool:
        """Every tensor is in both with the same values; another dtype is not the same."""
        return set(self.counts) <= {"same"}

    @property
    def renamed(self) -> list[tuple[str, int]]:
        """How names of the same tensor differ, in words, and of how many tensors; the commonest first."""
        names = set(self.table["name"])  # a head beside the embedding that stands for it is not renamed
        both = zip(self.table["name_a"], self.table["name"], strict=True)
        pairs = ((a.partition("[")[0], b.partition("[")[0]) for a, b in both if a is not None and a not in names)
        return rename_rules(pairs)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; undefined numbers are None."""
        head = {"schema_version": 1, "a": self.a, "b": self.b, "same": self.same, "counts": self.counts}
        head |= {"renamed": [list(rule) for rule in self.renamed]}
        return dict(json_value({**head, "bytes_read": self.bytes_read, "tensors": self.table.to_records()}))

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return to_json(self.to_dict(), indent)

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame."""
        return self.table.to_pandas()

    def to_polars(self) -> Any:
        """The table as a polars DataFrame."""
        return self.table.to_polars()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n:,} {status}" for status, n in self.counts.items())
        return f"<Diff {escape(self.a)} → {escape(self.b)}: {counts or 'nothing'}>"


def diff(
    a: str | os.PathLike[str] | Checkpoint | Fingerprint,
    b: str | os.PathLike[str] | Checkpoint | Fingerprint,
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    progress: Progress | None = None,
) -> Diff:
    """Compare two checkpoints tensor by tensor.

    Args:
        a: the one to compare with: what `weightprint.open` takes, ``base+adapter``, an open Checkpoint, or a
            fingerprint, as an object or a file. With one of these, only digests are compared: which tensors are the
            same, and of the others the relative change as their linear sketches tell it.
        b: the other.
        include: glob or globs on names, on either side; empty: all.
        exclude: glob or globs that take tensors out again.
        progress: called as ``progress(bytes_done, bytes_total)``.

    Raises:
        UsageError: globs that match nothing.
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: as `weightprint.open` does.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> diff = weightprint.diff("weightprint-demo/parent", "weightprint-demo/moe")
        >>> diff.counts
        {'changed': 33, 'only_a': 15, 'only_b': 65}
    """
    if (kept := both_kept(a, b, progress)) is not None:
        return _diff_kept(*kept, include, exclude)
    assert not isinstance(a, Fingerprint)
    assert not isinstance(b, Fingerprint)
    with opened(a) as ours, opened(b) as theirs:  # what the caller opened stays open
        return _diff(ours, theirs, include, exclude, progress)


def _diff(
    ours: Anatomy,
    theirs: Anatomy,
    include: str | Iterable[str],
    exclude: str | Iterable[str],
    progress: Progress | None,
) -> Diff:
    side_a, reads_a = outline(ours, "a")
    side_b, reads_b = outline(theirs, "b")
    wanted = matching({**side_a.tensors, **side_b.tensors}, include, exclude)
    pairs = {name: pair for name, pair in pair_by_name(side_a, side_b).items() if {name, pair.a.name} & wanted}
    left_a = _left(side_a, wanted, {pair.a.name for pair in pairs.values()})
    left_b = _left(side_b, wanted, set(pairs))
    total = sum(p.a.nbytes + p.b.nbytes for p in pairs.values())

    def tick() -> None:
        if progress is not None:
            progress(min(total, reads_a.nbytes + reads_b.nbytes), total)

    pairs_of = {**pairs, **_tied(side_a, side_b, left_a, left_b)}
    measured = []
    for pair in pairs_of.values():
        found = _sums_as_stored(reads_a, reads_b, pair) or _sums(side_a, side_b, pair, tick)
        measured.append(_compared(side_a, side_b, pair, found))
        tick()
    _with_stored_scales(side_a, side_b, measured)
    rows = []
    for name, (pair, row, _) in zip(pairs_of, measured, strict=True):
        tied = name not in pairs
        if tied and row["status"] in ("same", "re_encoded"):
            left_a.pop(pair.a.name, None)
            left_b.pop(pair.b.name, None)
        if not tied or row["status"] in ("same", "re_encoded"):
            rows.append(row | {"name": name})
    alone = _leftovers(ours, theirs, left_a, left_b)
    _moved_whole(ours, theirs, side_a, side_b, rows)
    _regrouped(side_a, side_b, rows, alone)
    rows += alone
    for anatomy in (ours, theirs):
        for checkpoint in anatomy.checkpoints:
            checkpoint.check_unchanged()
    return Diff(ours.source, theirs.source, _table(rows), reads_a.nbytes + reads_b.nbytes)


def _diff_kept(a: Fingerprint, b: Fingerprint, include: str | Iterable[str], exclude: str | Iterable[str]) -> Diff:
    """By digests: tensors under their names or places, then the rest under any name. Of matrices with other digests the
    relative change is that of their linear sketches."""
    check_plans(a, b)
    ours, theirs = view(a, "identity", "a"), view(b, "identity", "b")
    wanted = matching({**ours.tensors, **theirs.tensors}, include, exclude)
    pairs = {p.b.name: p for p in pair_tensors(ours, theirs, values=False)[0] if {p.a.name, p.b.name} & wanted}
    rows = []
    for pair in pairs.values():
        x, y = pair.a, pair.b
        same = (x.dtype, x.shape, x.digest) == (y.dtype, y.shape, y.digest)
        status = "same" if same else "not_read" if x.undecoded or y.undecoded else "changed"
        told = {"relative": 0.0, "n_differ": 0, "n_flipped": 0} if same else {"relative": _by_sketch(a, b, pair)}
        of_a, of_b = a.statistics("l2")[x.name], b.statistics("l2")[y.name]
        rows.append(_row(x, y, status) | told | {"l2_a": of_a, "l2_b": of_b})
    rows += [_row(None, t, "only_b") for t in _left(theirs, wanted, set(pairs)).values()]
    rows += [_row(t, None, "only_a") for t in _left(ours, wanted, {p.a.name for p in pairs.values()}).values()]
    return Diff(a.source, b.source, _table(rows), 0)


def _by_sketch(a: Fingerprint, b: Fingerprint, pair: Pair) -> float | None:
    """|B - A| / |A| from two linear sketches, to √(2/buckets); None where their signs are not the same."""
    alike = pair.a.place == pair.b.place and (pair.a.place is not None or pair.a.name == pair.b.name)
    if not alike or pair.transposed or not pair.a.rank2:
        return None
    x, y = a.sketch(pair.a.name), b.sketch(pair.b.name)
    return float(np.linalg.norm(y - x) / np.linalg.norm(x)) if x.any() else None


def _table(rows: list[dict[str, Any]]) -> StatsTable:
    rows.sort(key=lambda row: natural_key(row["name"]))
    return StatsTable(
        tuple(Column(name, kind, _values(kind, [row.get(name) for row in rows])) for name, kind in _COLUMNS)
    )


def _left(side: ModelView, wanted: set[str], paired: set[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in side.tensors.items() if name in wanted and name not in paired}


def _values(kind: Kind, values: list[Any]) -> Any:
    return np.array(values, np.uint64) if kind == "u64" else values


def _row(a: Tensor | None, b: Tensor | None, status: str, transposed: bool = False) -> dict[str, Any]:
    one = b or a
    place = (b.place if b else None) or (a.place if a else None)
    return {
        "name": one.name if one else "",
        "name_a": a.name if a else None,
        "status": status,
        "dtype_a": a.dtype if a else None,
        "dtype_b": b.dtype if b else None,
        "shape_a": a.shape if a else (),
        "shape_b": b.shape if b else (),
        "numel": one.numel if one else 0,
        "stack": place.stack if place else None,
        "block": place.block if place else None,
        "role": place.role if place else None,
        "expert": None if place is None or place.expert is None else str(place.expert),
        "layout": "transposed" if a and b and Pair(a, b, transposed).turned else None,
    }


_ALIKE = 2.0**-15  # 1 - cosine², at most
_MOVED = 0.9  # cosine, of tensors that have rows of others
_Compared = tuple[Pair, dict[str, Any], Outcome | None]


def _tied(
    side_a: ModelView, side_b: ModelView, left_a: dict[str, Tensor], left_b: dict[str, Tensor]
) -> dict[str, Pair]:
    """A head or copy of the embedding that only one side stores → that beside the other's embedding, which may stand
    for it."""
    found: dict[str, Pair] = {}
    for left, other, ours in ((left_b, side_a, False), (left_a, side_b, True)):
        tables = {t.shape: t for t in other.tensors.values() if t.place is not None and t.place.role == "embedding"}
        for name, more in left.items():
            table = tables.get(more.shape) if more.place is not None and more.place.role in TOKEN_TABLES else None
            if table is not None:
                found[name] = Pair(more, table, by="place") if ours else Pair(table, more, by="place")
    return found


#: (elements, finite on both sides, differing, of opposite sign; NaN or infinite in A, in B; a, b, a², b², ab, (a − b)²,
#: largest |a − b|), the sums over elements that are finite on both sides.
_Sums = tuple[Sequence[int], Sequence[int], Sequence[float]]


def _sums_as_stored(reads_a: Reads, reads_b: Reads, pair: Pair) -> _Sums | None:
    """Of a pair whose sides are stored as they act, in the same order: read once, by all threads. None of others."""
    a, b = reads_a.as_stored(pair.a.name), reads_b.as_stored(pair.b.name)
    if a is None or b is None or pair.transposed or pair.a.offset != pair.b.offset or a.components + b.components > 2:
        return None
    files = [reads.anatomy.checkpoint.core_file(info.file) for reads, info in ((reads_a, a), (reads_b, b))]
    threads = 1 if a.nbytes + b.nbytes < _SMALL else 0  # waking the others takes longer
    *counts, nonfinite, sums = _core.compare_stored(files[0], a.index, files[1], b.index, threads=threads)
    reads_a.count(a.nbytes)
    reads_b.count(b.nbytes)
    return counts, nonfinite, sums


def _sums(side_a: ModelView, side_b: ModelView, pair: Pair, tick: Callable[[], object]) -> _Sums:
    """Of any pair, slice by slice; `tick` is called after each."""
    counts, sums, nonfinite = np.zeros(4, np.int64), np.zeros(7), np.zeros(2, np.int64)
    apart = np.float32(pair.a.offset - pair.b.offset)
    for x, y in _slices(side_a, side_b, pair):
        x = _moved(x, y, apart) if apart else x
        *found, values = _core.compare_values(x.tobytes(), y.tobytes())
        counts += found
        sums[:6] += values[:6]
        sums[6] = max(sums[6], values[6])
        if found[1] < found[0]:
            nonfinite += [np.count_nonzero(~np.isfinite(side)) for side in (x, y)]
        tick()
    return counts.tolist(), nonfinite.tolist(), sums.tolist()


def _compared(side_a: ModelView, side_b: ModelView, pair: Pair, found: _Sums) -> _Compared:
    """The row of one pair, and what its encoding tells."""
    counts, nonfinite, sums = found
    n, n_finite, n_differ, n_flipped = counts
    sum_a, sum_b, aa, bb, ab, dd, largest = sums
    finite = max(n_finite, 1)
    centred = aa - sum_a**2 / finite, bb - sum_b**2 / finite, ab - sum_a * sum_b / finite
    spread = math.sqrt(max(centred[0], 0.0) * max(centred[1], 0.0))
    known = nonfinite[0] == nonfinite[1] == n - n_finite  # the same elements on both sides
    otherwise = pair.a.dtype != pair.b.dtype or pair.a.offset != pair.b.offset
    alike = aa * bb * (1 - _ALIKE) <= ab * ab  # as factors and rounding leave values
    ask = checked if stored_otherwise(pair) else times if alike else None
    outcome = ask(side_a, side_b, pair) if n_differ and ask is not None else None
    same = outcome is not None and outcome.kind() in ("re_encoded", "trivial")
    status = "same" if not n_differ and not otherwise else "re_encoded" if not n_differ or same else "changed"
    if status == "changed" and (pair.a.undecoded or pair.b.undecoded):
        status = "not_read"
    asked = status == "changed" and not (outcome and outcome.kind())
    found_order = misread(side_a, side_b, pair) if asked else None
    if asked and found_order is None and may_be(math.sqrt(aa), math.sqrt(bb), pair):
        found_order = order(side_a, side_b, pair)
    return (
        pair,
        _row(pair.a, pair.b, status, pair.transposed)
        | {
            "order": found_order.order if found_order is not None else None,
            "factor": outcome.factor if outcome is not None else None,
            "n_differ": n_differ,
            "n_flipped": n_flipped,
            "relative": math.sqrt(dd / aa) if aa > 0 and known else None,
            "cosine": min(1.0, max(-1.0, centred[2] / spread)) if spread > 0 and known else None,
            "max_difference": largest if n and known else None,
            "l2_a": math.sqrt(aa),
            "l2_b": math.sqrt(bb),
            "n_nonfinite_a": nonfinite[0],
            "n_nonfinite_b": nonfinite[1],
        },
        outcome,
    )


def _with_stored_scales(side_a: ModelView, side_b: ModelView, measured: list[_Compared]) -> None:
    """Bare codes are the same values where the file stores their scale."""
    told = [(pair, outcome) for pair, _, outcome in measured if outcome is not None and outcome.scaling is not None]
    if not told:
        return
    of_a = stored_scales(side_a, told, {pair.a.name for pair, _, _ in measured})
    of_b = stored_scales(side_b, told, {pair.b.name for pair, _, _ in measured})
    for pair, row, outcome in measured:
        stored = pair.a.name in of_a or pair.b.name in of_b
        if stored and outcome is not None and outcome.kind(stored) in ("re_encoded", "trivial"):
            row["status"] = "re_encoded"


def _moved_whole(
    ours: Anatomy, theirs: Anatomy, side_a: ModelView, side_b: ModelView, rows: list[dict[str, Any]]
) -> None:
    """Says of rows whose values stand in A under another name, which that is."""
    odd = [r for r in rows if r["status"] == "changed" and not r["order"] and abs(r["cosine"] or 0) < _MOVED]
    a = {r["name_a"]: side_a.tensors[r["name_a"]] for r in odd}
    if any(r["role"] in TOKEN_TABLES for r in odd):  # a head put in for the embedding, or the other way round
        a |= {t.name: t for t in side_a.tensors.values() if t.place is not None and t.place.role in TOKEN_TABLES}
    found = elsewhere(ours, theirs, a, {r["name"]: side_b.tensors[r["name"]] for r in odd}) if odd else {}
    for row in odd:
        row["order"] = found.get(row["name"])


def _regrouped(side_a: ModelView, side_b: ModelView, rows: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    """Says of rows whose tensor is made of other tensors' rows, whose these are."""
    odd = [r for r in rows if r["status"] == "changed" and not r["order"] and abs(r["cosine"] or 0) < _MOVED]
    odd += [r for r in alone if r["status"] in ("only_a", "only_b", "reshaped")]
    left_a = [side_a.tensors[r["name_a"]] for r in odd if r["name_a"] in side_a.tensors]
    left_b = [side_b.tensors[r["name"]] for r in odd if r["status"] != "only_a" and r["name"] in side_b.tensors]
    of_b, of_a = regrouped(side_a, side_b, left_a, left_b)
    for row in odd:
        found = of_a.get(row["name_a"] or "") if row["status"] == "only_a" else of_b.get(row["name"])
        row["order"] = found.order if found is not None else None


def _slices(side_a: ModelView, side_b: ModelView, pair: Pair) -> Iterator[tuple[F32, F32]]:
    """The same elements of both, in runs of whole rows; a turned tensor of A is held whole."""
    whole = np.ascontiguousarray(side_a.rows(pair.a).T) if pair.transposed else None
    for start, y in side_b.slices(pair.b, SLICE_VALUES // 2):
        stop = start + y.shape[0]
        yield (side_a.rows(pair.a, start, stop) if whole is None else whole[start:stop]), y


def _moved(x: F32, y: F32, apart: np.float32) -> F32:
    """A's values as B stores them: `apart` further on, or B's own where A's are those moved back, which rounds too."""
    return y if np.array_equal(y - apart, x) else x + apart


def _leftovers(a: Anatomy, b: Anatomy, left_a: dict[str, Tensor], left_b: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Tensors without a partner: equal bytes, under their own name first; another shape under the same name; or alone.
    What nothing decodes was not read, and no more is the weight that it may be on the other side."""
    rows: list[dict[str, Any]] = []
    digests = [digests_of(anatomy, left) if left_a and left_b else {} for anatomy, left in ((a, left_a), (b, left_b))]
    own = {name for name, key in digests[1].items() if digests[0].get(name) == key}
    owners: dict[tuple[str, tuple[int, ...], str], list[str]] = defaultdict(list)
    for name, key in digests[0].items():
        owners[key] += [] if name in own else [name]
    unread = [{w.name for w in anatomy.weights.quantised if not w.readable} for anatomy in (a, b)]
    for name, tensor in left_b.items():
        others = [name] if name in own else owners.get(digests[1].get(name, ("", (), "")), [])
        if others:
            rows.append(
                _row(left_a.pop(others.pop()), tensor, "same") | {"n_differ": 0, "n_flipped": 0, "relative": 0.0}
            )
        elif name in left_a:
            twin = left_a.pop(name)
            rows.append(_row(twin, tensor, "not_read" if twin.undecoded or tensor.undecoded else "reshaped"))
        else:
            rows.append(_row(None, tensor, "not_read" if tensor.undecoded or name in unread[0] else "only_b"))
    for name, tensor in left_a.items():
        rows.append(_row(tensor, None, "not_read" if tensor.undecoded or name in unread[1] else "only_a"))
    return rows
