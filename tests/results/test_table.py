"""The forms of a table read back as what was written."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from weightprint.errors import UsageError
from weightprint.results.saving import to_json, write_atomically
from weightprint.results.table import Column, StatsTable, form_of

NAMES = ["plain", "=1+1", "\x1b[31mred", 'a,b"c\n', "\u202eflip", " @x", "ü"]
FLOATS = np.array([0.1, -1.5e300, math.nan, math.inf, 5e-324, 0.0, 1 / 3])


@pytest.fixture
def table():
    return StatsTable(
        (
            Column("name", "str", NAMES),
            Column("shape", "shape", [(2, 3), (), (1,), (0, 4), (5,), (6,), (7,)]),
            Column("mean", "f64", FLOATS),
            Column("n", "u64", np.array([2**64 - 1, *range(6)], np.uint64)),
            Column("at", "i64", [None, 1, 2, None, 4, 5, 6]),
            Column("max", "number", [2**64 - 1, 0.5, None, 3, 4, 5, 6]),
        )
    )


def test_json_and_jsonl(table):
    rows = json.loads(table.to_json())
    assert rows == [json.loads(line) for line in table.to_jsonl().splitlines()] == table.to_records()
    assert [row["name"] for row in rows] == NAMES
    assert rows[0] == {"name": "plain", "shape": [2, 3], "mean": 0.1, "n": 2**64 - 1, "at": None, "max": 2**64 - 1}
    assert [row["mean"] for row in rows] == [0.1, -1.5e300, None, None, 5e-324, 0.0, 1 / 3]
    assert table.to_json().isascii()
    assert "\x1b" not in table.to_json()


def test_csv(table):
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["name"] for row in rows] == [
        "plain", "'=1+1", "\\u{1b}[31mred", 'a,b"c\\u{a}', "\\u{202e}flip", "' @x", "ü",
    ]  # fmt: skip
    for row, value in zip(rows, FLOATS.tolist(), strict=True):
        assert row["mean"] == "" if math.isnan(value) else float(row["mean"]) == value
    assert [row["n"] for row in rows][:2] == [str(2**64 - 1), "0"]
    assert [row["at"] for row in rows] == ["", "1", "2", "", "4", "5", "6"]
    assert [row["shape"] for row in rows][:3] == ["2x3", "scalar", "1"]


def check_columns(frame):
    """Any frame that gives lists by column name."""
    assert frame["name"] == NAMES
    assert frame["n"] == [2**64 - 1, *range(6)]
    assert frame["at"] == [None, 1, 2, None, 4, 5, 6]
    assert frame["max"] == [float(2**64 - 1), 0.5, None, 3.0, 4.0, 5.0, 6.0]
    assert np.array(frame["mean"], float).tobytes() == FLOATS.tobytes()


def test_arrow_parquet_and_polars(table):
    check_columns(pa.table(table).to_pydict())
    check_columns(pyarrow.parquet.read_table(io.BytesIO(table.to_parquet())).to_pydict())
    check_columns(table.to_polars().to_dict(as_series=False))


def test_pandas(table):
    frame = table.to_pandas()
    assert frame["name"].tolist() == NAMES
    assert frame["n"].tolist() == [2**64 - 1, *range(6)]
    assert frame["at"].isna().tolist() == [True, False, False, True, False, False, False]
    assert frame["mean"].to_numpy().tobytes() == FLOATS.tobytes()


def test_columns_and_rows(table):
    assert len(table) == 7
    assert table.row(-1)["name"] == "ü"
    assert type(table.row(0)["n"]) is int
    assert list(table.rows())[1] == table.row(1)
    assert table.select(["n", "name"]).names == ("n", "name")
    assert table.take([2, 0])["name"] == [NAMES[2], NAMES[0]]
    assert table.take([2, 0])["n"].tolist() == [1, 2**64 - 1]
    assert table.take([])["n"].tolist() == []
    with pytest.raises(UsageError, match="mean"):
        table["nope"]
    with pytest.raises(UsageError):
        StatsTable((Column("a", "f64", np.ones(2)), Column("b", "f64", np.ones(3))))
    with pytest.raises(IndexError):
        table.row(7)


def test_html_is_escaped(table):
    evil = StatsTable((Column("name", "str", ["<script>alert('1')</script>\u202e"]), Column("n", "i64", [1])))
    html = evil._repr_html_()
    assert "<script>" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;" in html
    long = StatsTable((Column("n", "i64", list(range(1000))),))
    assert "and 940 more" in long._repr_html_()


def test_files_by_suffix(table, tmp_path):
    for suffix in ("csv", "json", "jsonl", "parquet"):
        path = tmp_path / f"t.{suffix}"
        table.write(path)
        assert path.stat().st_size > 0
    assert form_of("x.NDJSON") == "jsonl"
    table.write(tmp_path / "odd.name", "csv")
    assert (tmp_path / "odd.name").read_bytes() == (tmp_path / "t.csv").read_bytes()
    with pytest.raises(UsageError, match="can't tell the form"):
        table.write(tmp_path / "t.xyz")
    with pytest.raises(UsageError):
        table.write(tmp_path / "t.csv", "xyz")


def test_a_crash_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    os.chmod(path, 0o640)

    def crash(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, crash)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.json"]
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(UsageError):
        write_atomically(tmp_path, lambda file: None)


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").write_text("old")
    os.symlink("real", tmp_path / "link")
    write_atomically(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_json_refuses_what_it_cannot_say():
    assert json.loads(to_json({"a": (1, math.nan, np.float32(2)), "b": np.arange(2)})) == {
        "a": [1, None, 2.0],
        "b": [0, 1],
    }
    with pytest.raises(TypeError):
        to_json({1, 2})
