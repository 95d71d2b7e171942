"""The screens in the docs are what is printed today, and each says what a stranger must know."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def screens() -> str:
    spec = spec_from_file_location("pictures", DOCS / "images" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    before = [*sys.path]
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return str(module.screens())


def test_the_docs_show_what_is_printed(screens: str) -> None:
    assert (DOCS / "screens.md").read_text() == screens


def test_each_fits_and_tells_its_story(screens: str) -> None:
    shown = re.findall(r"```\n\$ weightprint.*?\n(.*?)```", screens, re.S)
    told = [" ".join(screen.split()) for screen in shown]
    assert [screen.partition(".")[0] for screen in told] == [
        "SHARED ORIGIN", "SHARED ORIGIN", "SHARED ORIGIN", "NO EVIDENCE", "PARTLY SHARED", "INCONCLUSIVE",
    ]  # fmt: skip
    for screen in shown:
        assert len(screen.splitlines()) < 24
        assert max(map(len, screen.splitlines())) <= 80
    for screen in told:
        assert "How sure" in screen
        assert "Error rate" in screen
        assert "Against" in screen
    parts = ("trained further", "mixture of experts", "SLERP", "curves correlate 0.9", "layers 0–2, 6–7", "To decide")
    for screen, part in zip(told, parts, strict=True):
        assert part in screen
