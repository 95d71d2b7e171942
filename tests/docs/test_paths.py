"""Files that the documentation names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMED = re.compile(r"`([\w./-]+/[\w.-]+\.(?:py|rs|json|md|gz))`|\]\(([\w./-]+)\)")
FROM = ("", "python/weightprint", "python/weightprint/evidence", "rust/core/src", "rust", "benches/lineage", "tests")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    named = {a or b for a, b in NAMED.findall(page.read_text(encoding="utf-8"))} - {"python/weightprint/cli/VERB.py"}
    places = [page.parent, *(ROOT / place for place in FROM)]
    assert not [name for name in sorted(named) if not any((place / name).exists() for place in places)]
