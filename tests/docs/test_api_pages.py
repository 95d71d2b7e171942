"""docs/api says what the docstrings say, of everything public, and the README leads there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import weightprint

ROOT = Path(__file__).parents[2]
MAKE = runpy.run_path(str(ROOT / "docs" / "api" / "make.py"))


@pytest.mark.parametrize("name", MAKE["PAGES"])
def test_a_page_is_up_to_date(name: str) -> None:
    page = (ROOT / "docs" / "api" / f"{name}.md").read_text("utf-8")
    assert page == MAKE["page"](name), "run: python docs/api/make.py"
    assert f"docs/api/{name}.md" in (ROOT / "README.md").read_text("utf-8")


def test_everything_public_has_its_place() -> None:
    described = {entry.__name__ for entries in MAKE["PAGES"].values() for entry in entries}
    public = {name for name in weightprint.__all__ if callable(getattr(weightprint, name))}
    assert public - described == set()
