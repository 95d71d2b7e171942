"""Every row of tests/malformed through the Python module, and the table itself."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from weightprint import errors
from weightprint._core import SafetensorsFile, parse_index

TABLE = runpy.run_path(str(Path(__file__).parents[1] / "malformed" / "table.py"))
ROWS: list[Any] = TABLE["rows"]()
FILES = [row for row in ROWS if row.kind == "file"]
INDEXES = [row for row in ROWS if row.kind == "index"]
EXPECTED = (errors.FormatError, errors.UnsupportedFormatError, errors.LimitError)


def test_table_is_long_enough_and_its_json_is_up_to_date() -> None:
    assert len(ROWS) >= 100
    assert TABLE["JSON"].read_text(encoding="utf-8") == TABLE["dumps"](), "run: python tests/malformed/table.py"


def note_codes(notes: list[tuple[str, str, str | None, int | None]]) -> list[str]:
    return list(dict.fromkeys(code for code, *_ in notes))


@pytest.mark.parametrize("mode", ["strict", "compatible"])
@pytest.mark.parametrize("row", FILES, ids=lambda row: row.name)
def test_file(row: Any, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as f:
        for piece, times in row.pieces:
            f.write(piece * times)
    expected = getattr(row, mode)
    if expected == "ok":
        file = SafetensorsFile(str(path), mode=mode)
        assert note_codes(file.notes) == list(row.notes)
        assert file.nbytes == row.nbytes
        names = file.names()
        assert len(names) == file.n_tensors
        end = file.data_start
        for i, name in enumerate(names):
            assert file.find(name) == i
            found, _, _, begin, stop = file.tensor(i)
            assert (found, begin) == (name, end)
            assert len(file.read_bytes(i)) == stop - begin
            end = stop
        assert end == row.nbytes
        return
    with pytest.raises(EXPECTED) as caught:
        SafetensorsFile(str(path), mode=mode)
    assert caught.value.code == expected
    assert caught.value.path == str(path)
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("row", INDEXES, ids=lambda row: row.name)
def test_index(row: Any) -> None:
    if row.strict == "ok":
        _, weight_map, notes = parse_index(row.content())
        assert note_codes(notes) == list(row.notes)
        assert all(Path("folder", file).parent == Path("folder") for _, file in weight_map)
        return
    with pytest.raises(EXPECTED) as caught:
        parse_index(row.content())
    assert caught.value.code == row.strict
