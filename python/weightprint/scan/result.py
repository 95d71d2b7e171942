"""The result of a scan: statistics of every tensor, rows and columns, and the digest of the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from weightprint.errors import TensorNotFoundError, UsageError
from weightprint.results.saving import json_value
from weightprint.results.shown import Shown
from weightprint.results.table import Column, Kind, StatsTable
from weightprint.scan.columns import MEASURED, Columns
from weightprint.scan.pooling import pooled
from weightprint.util.escape import escape

if TYPE_CHECKING:
    import pandas
    import polars

PERCENTILES: tuple[tuple[str, float], ...] = (
    ("p0_01", 0.0001),
    ("p1", 0.01),
    ("p5", 0.05),
    ("p25", 0.25),
    ("p50", 0.5),
    ("p75", 0.75),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99_99", 0.9999),
)
"""Quantile columns and their levels. Filled always for types of up to 8 bits and 16-bit integers, else on `exact`."""


@dataclass(frozen=True, slots=True, eq=False)
class RowStats:
    """Mean, standard deviation (ddof 0) and L2 norm of every row, or every column, of one matrix; float64 vectors.

    Row means over the last axis: a tensor of shape (…, c) has as many rows as its leading axes multiply to. Only finite
    values count; a row without any has mean and std NaN and norm 0.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> scan = weightprint.scan("weightprint-demo/parent", rows=True)
        >>> rows = scan.rows("model.layers.0.mlp.up_proj.weight")
        >>> rows.l2.shape, bool((rows.std > 0).all())
        ((128,), True)
    """

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    l2: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scan(Shown):
    """What one pass over a checkpoint found. Frozen; pickles; holds no file.

    Attributes:
        source: MODEL as it was named.
        table: one row per tensor in natural order of names; canonical ones in the order of the drawing.
        n_parameters: elements over all scanned tensors.
        bytes_read: bytes of all scanned tensors.
        seconds: wall time of the pass.
        digest: one SHA-256 over the sorted (dtype, shape, BLAKE3 of the bytes) of all scanned tensors: equal for equal
            weights whatever the names, order or shards. None unless `digest` was asked for.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> scan = weightprint.scan("weightprint-demo/parent", digest=True)
        >>> scan.n_tensors, scan.bytes_read, scan.digest[:16]
        (48, 303648, 'bd7dfc5df0d0cb23')
        >>> frame = scan.to_pandas()  # or to_polars(), or any reader of Arrow's C stream
        >>> int(frame["n_nan"].sum())
        0
    """

    _report = "scan"

    source: str
    table: StatsTable
    n_parameters: int
    bytes_read: int
    seconds: float
    digest: str | None
    _number: dict[str, int]
    _rows: Sequence[RowStats | None] | None
    _columns: Sequence[RowStats | None] | None

    @property
    def n_tensors(self) -> int:
        """Number of scanned tensors."""
        return len(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, name: object) -> bool:
        return name in self._number

    def __getitem__(self, name: str) -> dict[str, Any]:
        """One tensor's row; raises TensorNotFoundError."""
        return self.table.row(self._find(name))

    def names(self) -> list[str]:
        """Names of the scanned tensors, in the table's order."""
        return list(self.table["name"])

    def rows(self, name: str) -> RowStats:
        """Statistics of every row of a matrix; needs ``scan(…, rows=True)`` and rank ≥ 2."""
        return self._vectors(self._rows, name, "rows")

    def columns(self, name: str) -> RowStats:
        """Statistics of every column of a matrix; needs ``scan(…, columns=True)`` and rank ≥ 2."""
        return self._vectors(self._columns, name, "columns")

    def plot(self, column: str = "std", ax: Any = None) -> Any:
        """A column of the table over the blocks of the model, a line per role, on matplotlib axes, which are returned.

        Args:
            column: of numbers.
            ax: where to draw; None: new axes.

        Raises:
            UsageError: a scan without places (scan an anatomy), or matplotlib is missing (``weightprint[plots]``).
        """
        return self._plotted("plot_scan", column, ax)

    def by(self, *groups: str) -> StatsTable:
        """Statistics pooled as if the tensors of a group were one: one row per stack and value of `groups`.

        Args:
            groups: of ``"stack"``, ``"part"``, ``"role"``, ``"block"``, ``"expert"``; by all of them together.

        Raises:
            UsageError: no such group, or a scan without places.
        """
        return pooled(self.table, groups)

    def to_dict(self) -> dict[str, Any]:
        """Source, totals and one object per tensor, ready for JSON (undefined numbers are None)."""
        head = ("source", "digest", "n_tensors", "n_parameters", "bytes_read", "seconds")
        return {**{key: json_value(getattr(self, key)) for key in head}, "tensors": self.table.to_records()}

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a pandas DataFrame."""
        return self.table.to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """The table as a polars DataFrame."""
        return self.table.to_polars()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        rate = self.bytes_read / self.seconds / 1e9 if self.seconds else 0.0
        return (
            f"<Scan {escape(self.source)}: {self.n_tensors:,} tensors, {self.n_parameters:,} parameters, "
            f"{self.bytes_read:,} bytes in {self.seconds:.2f} s ({rate:.2f} GB/s)>"
        )

    def _find(self, name: str) -> int:
        if name not in self._number:
            message = f"no tensor {escape(name)} in this scan of {escape(self.source)}"
            raise TensorNotFoundError(message, tensor=name, code="tensor_not_found")
        return self._number[name]

    def _vectors(self, vectors: Sequence[RowStats | None] | None, name: str, what: str) -> RowStats:
        number = self._find(name)
        if vectors is None:
            raise UsageError(f"this scan measured no {what}: call scan(…, {what}=True)", code="not_measured")
        found = vectors[number]
        if found is None:
            raise UsageError(f"tensor {escape(name)} is not a matrix and has no {what}", tensor=name, code="no_rows")
        return found


def described(
    names: Sequence[str],
    dtypes: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    nbytes: Sequence[int],
    files: Sequence[str | None],
) -> list[Column]:
    """The columns that say what each tensor is."""
    return [
        Column("name", "str", names),
        Column("dtype", "str", dtypes),
        Column("shape", "shape", shapes),
        Column("numel", "u64", np.array([prod(shape) for shape in shapes], np.uint64)),
        Column("nbytes", "u64", np.array(nbytes, np.uint64)),
        Column("file", "str", files),
    ]


def result(
    source: str,
    heads: Sequence[Column],
    measured: Columns,
    n_parameters: int,
    bytes_read: int,
    seconds: float,
    digest: str | None,
) -> Scan:
    """The columns of what was measured behind those that say what the tensors are, as a Scan."""
    columns = list(heads)
    columns += [Column(name, kind, _values(kind, measured[name])) for name, kind in MEASURED.items()]
    columns.append(Column("sparsity", "f64", _sparsity(measured)))
    columns += [Column(name, "f64", measured["quantiles"][:, k]) for k, (name, _) in enumerate(PERCENTILES)]
    row_vectors, column_vectors = (_all_vectors(measured, axis) for axis in ("row", "column"))
    for axis, vectors in (("row", row_vectors), ("column", column_vectors)):
        if vectors is not None:
            norms = [None if v is None or not v.l2.size else v.l2 for v in vectors]
            columns.append(Column(f"dead_{axis}s", "i64", [None if v is None else dead_rows(v).size for v in vectors]))
            columns.append(Column(f"{axis}_l2_min", "number", [None if v is None else float(v.min()) for v in norms]))
            columns.append(Column(f"{axis}_l2_max", "number", [None if v is None else float(v.max()) for v in norms]))
    if "digest" in measured:
        columns.append(Column("digest", "str", measured["digest"].tolist()))
    table = StatsTable(tuple(columns))
    number = {name: k for k, name in enumerate(table["name"])}
    return Scan(source, table, n_parameters, bytes_read, seconds, digest, number, row_vectors, column_vectors)


def dead_rows(rows: RowStats) -> npt.NDArray[np.intp]:
    """Numbers of the rows that are zero throughout (a row of NaN has norm 0 too, but no mean)."""
    return np.flatnonzero((rows.l2 == 0) & (rows.mean == 0))


def _values(kind: Kind, column: npt.NDArray[Any]) -> Any:
    if kind == "i64":  # positions and counts are never negative
        return [None if value < 0 else value for value in column.tolist()]
    return column.tolist() if kind == "number" else column


def _sparsity(measured: Columns) -> npt.NDArray[np.float64]:
    """Zeros per component; NaN for an empty tensor."""
    zeros, n = (measured[key].astype(np.float64) for key in ("n_zero", "n"))
    sparsity: npt.NDArray[np.float64] = np.divide(zeros, n, out=np.full(len(n), np.nan), where=n > 0)
    return sparsity


def _all_vectors(measured: Columns, axis: str) -> list[RowStats | None] | None:
    if f"{axis}_l2" not in measured:
        return None
    triples = zip(*(measured[f"{axis}_{what}"] for what in ("mean", "std", "l2")), strict=True)
    return [
        None if any(v is None for v in triple) else RowStats(*(np.frombuffer(v, np.float64) for v in triple))
        for triple in triples
    ]


def whole_digest(dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]], digests: Iterable[str]) -> str:
    """One digest of many tensors, whatever their names and order."""
    rows = zip(dtypes, shapes, digests, strict=True)
    lines = sorted(f"{dtype} {list(shape)} {digest}\n" for dtype, shape, digest in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
