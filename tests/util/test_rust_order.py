"""Rust modules import each other one way: no loop of files, and folders of the core downwards only.

The order of the folders is the line ``scan > …`` in the header of ``rust/core/src/lib.rs``. An edge is a path that
begins with ``crate``, ``super`` or ``self``, in a ``use`` or inline, resolved to the file that defines its module.
Tests inside a file and comments are left out, and declarations (``mod x;``) are no edges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

RUST = Path(__file__).parents[2] / "rust"

_NOISE = re.compile(r"""//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\])'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_TESTS = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", re.DOTALL)  # the end of every file that has some
_USE = re.compile(r"\buse\s+([^;]+);")
_INLINE = re.compile(r"(?<![\w:])\$?(?:crate|super|self)(?:::\w+)+")


def _expanded(tree: str) -> Iterator[str]:
    """The paths that a use-tree names: ``a::{b, c::{d, e}}`` is a::b, a::c::d and a::c::e."""
    if "{" not in tree:
        yield tree.split(" as ")[0].strip()
        return
    prefix, rest = tree.split("{", 1)
    depth, start = 0, 0
    inside = rest[: rest.rindex("}")]
    for i, c in enumerate(inside + ","):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "," and depth == 0:
            if part := inside[start:i].strip():
                yield from _expanded(prefix.strip() + part)
            start = i + 1


def _module(file: str) -> tuple[str, ...]:
    """The module that a file is: ``a/mod.rs`` is a, ``a/b.rs`` a::b, ``lib.rs`` the crate itself."""
    parts = file.removesuffix(".rs").split("/")
    return tuple(parts[:-1] if parts[-1] in ("mod", "lib") else parts)


def _edges(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which files each file of a crate imports from; ``sources`` maps paths below ``src`` to texts."""
    files = {_module(file): file for file in sources}
    edges: dict[str, set[str]] = {}
    for file, text in sources.items():
        here = _module(file)
        code = _NOISE.sub("", _TESTS.sub("", text))
        paths = {path for tree in _USE.findall(code) for path in _expanded(tree)}
        paths |= {path.lstrip("$") for path in _INLINE.findall(_USE.sub("", code))}
        # A path of a module's own child needs no prefix.
        paths |= {f"self::{path}" for path in paths if (*here, path.split("::")[0]) in files}
        found = set()
        for path in paths:
            first, *rest = path.split("::")
            at = list(here)
            if first == "crate":
                at = []
            elif first == "super":
                at.pop()
                while rest and rest[0] == "super":
                    at, rest = at[:-1], rest[1:]
            elif first != "self":
                continue
            target = (*at, *rest)
            while target not in files:
                target = target[:-1]
            found.add(files[target])
        edges[file] = found - {file}
    return edges


def _loop(edges: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a circle, or nothing."""
    done: set[str] = set()

    def walk(file: str, way: list[str]) -> list[str]:
        if file in way:
            return [*way[way.index(file) :], file]
        if file not in done:
            for target in sorted(edges[file]):
                if loop := walk(target, [*way, file]):
                    return loop
            done.add(file)
        return []

    return next((loop for file in sorted(edges) if (loop := walk(file, []))), [])


def _upwards(edges: dict[str, set[str]], order: str) -> list[str]:
    """Imports from a folder that doesn't stand further down; ``order`` is ``a > b, c > d``."""
    rank = {name.strip(): i for i, floor in enumerate(order.split(">")) for name in floor.split(",")}
    stage = {file: file.split("/")[0].removesuffix(".rs") for file in edges if file != "lib.rs"}
    unknown = sorted(set(stage.values()) - set(rank))
    assert not unknown, f"the order says nothing of {unknown}"
    assert set(rank) <= set(stage.values()), f"the order names what isn't there: {set(rank) - set(stage.values())}"
    return [
        f"{file} -> {target}"
        for file, targets in sorted(edges.items())
        for target in sorted(targets)
        if file != "lib.rs"
        and (target == "lib.rs" or (stage[file] != stage[target] and rank[stage[file]] >= rank[stage[target]]))
    ]


def _sources(crate: str) -> dict[str, str]:
    src = RUST / crate / "src"
    return {path.relative_to(src).as_posix(): path.read_text(encoding="utf-8") for path in src.rglob("*.rs")}


@pytest.mark.parametrize("crate", ["core", "python"])
def test_no_files_import_each_other_in_a_circle(crate: str) -> None:
    edges = _edges(_sources(crate))
    assert len(edges) > 10
    assert sum(map(len, edges.values())) > 20
    assert _loop(edges) == []


def test_folders_of_the_core_import_downwards_only() -> None:
    sources = _sources("core")
    order = re.search(r"^//! `(\w+(?:(?: >|,) \w+)+)`$", sources["lib.rs"], re.MULTILINE)
    assert order, "the header of lib.rs states the order of the folders"
    assert _upwards(_edges(sources), order[1]) == []


_SMALL = {
    "lib.rs": "pub mod top; mod low; pub use low::One;",
    "low.rs": "pub struct One;",
    "top/mod.rs": "//! See [`crate::top::b`].\nmod a;\nmod b;\npub use a::{A, helper as other};",
    "top/a.rs": "use std::fmt;\nuse super::b::{self, B};\nuse crate::{low::One};\npub struct A(B, One);",
    "top/b.rs": """
        const Q: char = '"'; const TEXT: &str = "use super::a;"; // use super::a;
        #[cfg(test)]
        mod tests { use super::super::a::A; }""",
}


def test_edges_are_imports_and_inline_paths() -> None:
    edges = _edges(_SMALL)
    assert edges == {
        "lib.rs": {"low.rs"},
        "low.rs": set(),
        "top/mod.rs": {"top/a.rs"},
        "top/a.rs": {"top/b.rs", "low.rs"},
        "top/b.rs": set(),
    }
    assert _loop(edges) == []
    assert _upwards(edges, "top > low") == []


@pytest.mark.parametrize(
    ("file", "line", "loop"),
    [
        ("top/b.rs", "use super::a::A;", ["top/a.rs", "top/b.rs", "top/a.rs"]),
        ("top/b.rs", "use super::{a::{A as Other}};", ["top/a.rs", "top/b.rs", "top/a.rs"]),
        ("top/b.rs", "fn f() -> $crate::top::a::A { panic!() }", ["top/a.rs", "top/b.rs", "top/a.rs"]),
        # What its own mod.rs hands on comes back to the file.
        ("top/a.rs", "use super::Other;", ["top/a.rs", "top/mod.rs", "top/a.rs"]),
    ],
)
def test_a_circle_shows(file: str, line: str, loop: list[str]) -> None:
    edges = _edges(_SMALL | {file: f"{line}\n{_SMALL[file]}"})
    assert _loop(edges) == loop


def test_an_import_upwards_or_from_a_sibling_shows() -> None:
    edges = _edges(_SMALL)
    assert _upwards(edges, "low > top") == ["top/a.rs -> low.rs"]
    assert _upwards(edges, "top, low") == ["top/a.rs -> low.rs"]
    with pytest.raises(AssertionError, match="says nothing of"):
        _upwards(edges, "top")
    with pytest.raises(AssertionError, match="isn't there"):
        _upwards(edges, "top > low > cellar")
