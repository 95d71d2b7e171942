"""Stored scores stay good when code moves, and go stale when what it computes changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from weightprint.evidence.tests import PUBLISHED

from benches.lineage.score import methods
from benches.lineage.score.code_digest import Source, commit, digest, reached, rust_items, sources

ONE = '''"""A file."""
from __future__ import annotations
from typing import TYPE_CHECKING
import numpy as np
if TYPE_CHECKING:
    from p.two import Curve
__all__ = ["measure"]

#: How much.
LIMIT = 0.25

def measure(x: Curve) -> float:
    """Says it."""
    from p.two import helped  # lazily
    return helped(x) + LIMIT
'''
TWO = """class Curve:
    height = 1

def helped(x):
    return x.height * _twice(2)

def _twice(x): return 2 * x

def unused(): return 3
"""
RUST = """//! A file.
#![deny(missing_docs)]
use crate::stats::{counts::Count, power};
mod inner;

/// Says it. { " not a string
pub(crate) const LIMIT: [u8; 2] = { [b'{', b'}'] };

#[inline]
pub fn measure<'a>(x: &'a [f64]) -> f64 {
    power::half(x, r#"a " } //"#) // half of it
}

#[cfg(test)]
mod tests { fn t() {} }
"""


def python(folder: Path, **files: str) -> str:
    return digest(d.text for source in written(folder, "py", files).values() for d in source.definitions)


def rust(folder: Path, **files: str) -> str:
    written(folder, "rs", files)
    return digest(rust_items(folder / "p"))


def written(folder: Path, end: str, files: dict[str, str]) -> dict[str, Source]:
    (folder / "p").mkdir(parents=True)
    for name, text in files.items():
        (folder / "p" / f"{name}.{end}").write_text(text)
    return sources(folder / "p")


HELPER = "def _twice(x): return 2 * x\n"


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (ONE, TWO.replace(HELPER, ""), False),
        (ONE + HELPER, TWO.replace(HELPER, "from p.one import _twice\n"), True),
        (ONE + HELPER, TWO, True),
        (ONE.replace("Says it", "Says more").replace("# lazily", "# late").replace("How", "So"), TWO, True),
        (ONE.replace('["measure"]', '["LIMIT", "measure"]').replace("import numpy as np\n", ""), TWO, True),
        (ONE.replace("0.25", "0.26"), TWO, False),
        (ONE, TWO.replace("height = 1", "height = 2"), False),
        (ONE, TWO.replace("2 * x", "x + 2"), False),
    ],
)
def test_python_is_what_its_definitions_compute(tmp_path: Path, one: str, two: str, same: bool) -> None:
    before = python(tmp_path / "before", one=ONE, two=TWO)
    assert (python(tmp_path / "after", one=one, two=two) == before) is same


def test_a_renamed_file_is_the_same(tmp_path: Path) -> None:
    renamed = python(tmp_path / "b", first=ONE.replace("p.two", "p.second"), second=TWO)
    assert renamed == python(tmp_path / "a", one=ONE, two=TWO)


def test_a_measure_is_what_it_reaches(tmp_path: Path) -> None:
    def measure(name: str, one: str, two: str) -> str:
        return digest(reached(written(tmp_path / name, "py", {"one": one, "two": two}), "p.one", "measure"))

    before = measure("before", ONE, TWO)
    assert measure("unused", ONE, TWO.replace("return 3", "return 4")) == before
    assert measure("moved", ONE + HELPER, TWO.replace(HELPER, "from p.one import _twice\n")) == before
    assert measure("called", ONE, TWO.replace("return 2 * x", "return 3 * x")) != before
    assert measure("typed", ONE, TWO.replace("height = 1", "height = 2")) != before


@pytest.mark.parametrize(
    ("change", "to", "same"),
    [
        ("// half of it", "", True),
        ("pub(crate) const", "const", True),
        ("power::half", "crate::power::half", True),
        ("power::half", "half", True),
        ("(x, r#", "(\n        x,\n        r#", True),
        ('//"#)', '//"#,\n    )', True),
        ("fn t() {}", "fn t() { panic!() }", True),
        ("use crate::stats::{counts::Count, power};", "use super::power;", True),
        ('" } //"', '" } ///"', False),
        ("b'{'", "b'['", False),
        ("f64 {", "f32 {", False),
        ("#[inline]\n", "#[inline]\nfn more() {}\n", False),
    ],
)
def test_rust_is_what_its_items_compute(tmp_path: Path, change: str, to: str, same: bool) -> None:
    assert change in RUST
    others = {"power": "pub fn half() {}", "stats": "", "counts": "struct Count;"}
    before = rust(tmp_path / "before", one=RUST, **others)
    assert (rust(tmp_path / "after", one=RUST.replace(change, to), **others) == before) is same


def test_rust_items_may_move(tmp_path: Path) -> None:
    item = RUST[RUST.index("/// Says it") : RUST.index("#[inline]")]
    before = rust(tmp_path / "before", one=RUST, power="")
    assert rust(tmp_path / "after", one=RUST.replace(item, "use crate::power::LIMIT;\n"), power=item) == before


def test_of_the_native_module_nothing_is_lost() -> None:
    items = list(rust_items(methods.RUST))
    declared = [line for path in methods.RUST.rglob("*.rs") for line in path.read_text().splitlines()]
    functions = {line.split("fn ")[1].split("(")[0].split("<")[0] for line in declared if line.startswith("pub fn ")}
    assert functions
    assert functions <= {name for item in items for name in item.split("fn ")[1:2] for name in name.split(" ")[:1]}


def test_only_what_shows_is_left_out() -> None:
    known = methods._package()
    assert "weightprint.verdict.rules" in known
    assert not {m for m in known if m.startswith(("weightprint.report", "weightprint.cli", "weightprint.demo"))}
    assert not {"weightprint", "weightprint.verdict.wording", "weightprint.results.shown"} & known.keys()
    for name in methods._SHOWS:
        assert (methods.PACKAGE / name).exists(), name


def test_every_published_measure_has_a_version_of_its_own() -> None:
    versions = {test.name: methods._measure(test) for test in PUBLISHED}
    assert len({*versions.values(), digest(())}) == len(PUBLISHED) + 1


def test_a_commit_is_named_where_there_is_git(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
