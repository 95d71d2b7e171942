"""A small table of columns: one row per tensor, and every form a program may want it in.

Columns are kept as the scan made them (numpy arrays, or lists where a value can be absent), so that a million rows stay
cheap. Missing is ``None`` in records, null in JSON, Arrow, Parquet and frames, and an empty cell in CSV. A float that
is undefined (the mean of nothing) is NaN in arrays and Arrow, and null in JSON.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from weightprint import _core
from weightprint.errors import UsageError
from weightprint.results.saving import json_value, write_atomically
from weightprint.results.shown import Shown
from weightprint.util import escape

if TYPE_CHECKING:
    import pandas
    import polars

__all__ = ["FORMATS", "Column", "Kind", "StatsTable"]

Kind = Literal["str", "shape", "u64", "i64", "f64", "number"]
"""What a column holds: ``shape`` a tuple of ints, ``number`` an exact int or a float. str, i64, number may be None."""

Values = Sequence[Any] | np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One named column; `values` has one entry per row."""

    name: str
    kind: Kind
    values: Values

    def tolist(self) -> list[Any]:
        """The values as Python objects."""
        return self.values.tolist() if isinstance(self.values, np.ndarray) else list(self.values)

    def flat(self) -> tuple[str, list[Any]]:
        """(kind, values) in the kinds that Arrow knows: a shape as text ``2x3``, a number as the nearest double."""
        values = self.tolist()
        if self.kind == "shape":
            return "str", [shape_text(value) for value in values]
        if self.kind == "number":
            return "f64", [None if value is None else float(value) for value in values]
        return self.kind, values


@dataclass(frozen=True, slots=True, eq=False)
class StatsTable(Shown):
    """Columns of equal length, one row per tensor, in natural order of the names.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> table = weightprint.scan("weightprint-demo/parent").table
        >>> len(table), table.names[:3], table["dtype"][0]
        (48, ('name', 'dtype', 'shape'), 'BF16')
        >>> table.select(["name", "shape"]).row(0)
        {'name': 'lm_head.weight', 'shape': (256, 48)}
        >>> table.write("parent.csv")
    """

    _report = "stats"

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if len({len(column.values) for column in self.columns}) > 1:
            raise UsageError("columns of unequal length", code="ragged_table")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    def __len__(self) -> int:
        return len(self.columns[0].values) if self.columns else 0

    def __getitem__(self, name: str) -> Values:
        """One column's values: an array for u64 and f64, else a list."""
        return self.column(name).values

    def column(self, name: str) -> Column:
        """The column called `name`; raises UsageError, which lists all of them."""
        for column in self.columns:
            if column.name == name:
                return column
        message = f"no column {escape.escape(name)}; there are {', '.join(self.names)}"
        raise UsageError(message, code="no_such_column")

    def row(self, index: int) -> dict[str, Any]:
        """One row as a dict of Python values."""
        index = range(len(self))[index]
        return {column.name: _plain(column.values[index]) for column in self.columns}

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, one dict at a time."""
        names = self.names
        for values in zip(*(column.tolist() for column in self.columns), strict=True):
            yield dict(zip(names, values, strict=True))

    def select(self, names: Sequence[str]) -> StatsTable:
        """The table with these columns only, in this order."""
        return StatsTable(tuple(self.column(name) for name in names))

    def take(self, order: Sequence[int]) -> StatsTable:
        """The table with these rows, in this order."""
        index = np.asarray(order, dtype=np.intp)
        return StatsTable(
            tuple(
                Column(
                    c.name,
                    c.kind,
                    c.values[index] if isinstance(c.values, np.ndarray) else [c.values[i] for i in order],
                )
                for c in self.columns
            )
        )

    # Forms

    def to_dict(self) -> dict[str, list[Any]]:
        """Column name → list of Python values."""
        return {column.name: column.tolist() for column in self.columns}

    def to_records(self) -> list[dict[str, Any]]:
        """One dict per row, ready for JSON: shapes are lists, undefined numbers None."""
        names, columns = self.names, [_json_values(column.tolist()) for column in self.columns]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def to_json(self) -> str:
        """A JSON array of one object per row."""
        rows = ",\n".join(json.dumps(row, allow_nan=False) for row in self.to_records())
        return f"[\n{rows}\n]\n" if rows else "[]\n"

    def to_jsonl(self) -> str:
        """One JSON object per line."""
        return "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.to_records())

    def to_csv(self) -> str:
        """Comma-separated text with a header line; floats keep every bit, names can't become formulas."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows(zip(*(map(_cell, column.tolist()) for column in self.columns), strict=True))
        return out.getvalue()

    def to_parquet(self) -> bytes:
        """A Parquet file's bytes; needs pyarrow (``pip install weightprint[parquet]``)."""
        try:
            pyarrow = import_module("pyarrow")
            parquet = import_module("pyarrow.parquet")
        except ImportError as error:
            message = "Parquet needs pyarrow: pip install 'weightprint[parquet]'"
            raise UsageError(message, code="needs_pyarrow") from error
        out = io.BytesIO()
        parquet.write_table(pyarrow.table(self), out)
        return out.getvalue()

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas DataFrame; missing integers are ``<NA>`` in nullable columns."""
        import pandas

        columns: dict[str, Any] = {column.name: column.values for column in self.columns}
        for column in self.columns:
            if column.kind == "i64":
                columns[column.name] = pandas.array(column.tolist(), dtype="Int64")
        frame: pandas.DataFrame = pandas.DataFrame(columns)
        return frame

    def to_polars(self) -> polars.DataFrame:
        """A polars DataFrame, over Arrow."""
        import polars

        return polars.DataFrame(self)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Arrow's C stream, so that pyarrow, polars, duckdb and pandas read the table without copies through Python.

        `requested_schema` is a wish that a producer may decline; we do.
        """
        return _core.arrow_stream([(column.name, *column.flat()) for column in self.columns])

    def write(self, path: str | os.PathLike[str], form: str | None = None) -> None:
        """Write the table to `path`, in `form` or the one that the suffix names; an old file is replaced as a whole."""
        form = form or form_of(path)
        write_atomically(path, encode(self, form))

    def __repr__(self) -> str:
        return f"<StatsTable: {len(self):,} rows × {len(self.columns)} columns ({', '.join(self.names)})>"


FORMATS: dict[str, Callable[[StatsTable], str | bytes]] = {
    "csv": StatsTable.to_csv,
    "json": StatsTable.to_json,
    "jsonl": StatsTable.to_jsonl,
    "parquet": StatsTable.to_parquet,
}
"""Machine-readable forms. A new one is a row here."""

SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Suffix of a file → the form of the table in it."""


def form_of(path: str | os.PathLike[str], suffixes: Mapping[str, str] = SUFFIXES) -> str:
    """The form that a file name's suffix asks for; raises UsageError if none does."""
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        message = f"can't tell the form from {escape.escape(os.fspath(path))}: use {', '.join(suffixes)}"
        raise UsageError(message, code="unknown_suffix")
    return suffixes[suffix]


def encode(table: StatsTable, form: str) -> bytes:
    """The table as the bytes of a file of that form."""
    if form not in FORMATS:
        raise UsageError(f"no form {escape.escape(form)}; there are {', '.join(FORMATS)}", code="unknown_form")
    data = FORMATS[form](table)
    return data if isinstance(data, bytes) else data.encode("utf-8")


def shape_text(shape: Sequence[int], times: str = "x") -> str:
    """``(2, 3)`` → ``"2x3"``; a scalar is ``"scalar"``."""
    return times.join(map(str, shape)) or "scalar"


def _json_values(values: list[Any]) -> list[Any]:
    """As `json_value` makes them, of many that nearly all are what they should be."""
    return [
        value
        if value is None or (kind := type(value)) is str or kind is int or (kind is float and math.isfinite(value))
        else json_value(value)
        for value in values
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return escape.csv(value)
    if isinstance(value, tuple):
        return shape_text(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else value
