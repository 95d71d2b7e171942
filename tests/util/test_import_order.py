"""The house keeps its plan: stages import downwards only, no two files import each other, folders and files stay small.

Imports are read from the syntax trees, so lazy ones and those for types alone count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: From the top down; stages in one row never import each other.
STAGES = (
    ("cli",),
    ("demo",),
    ("report",),
    ("library",),
    ("compare",),
    ("operations",),
    ("verdict", "diff"),
    ("evidence",),
    ("fingerprint", "check"),
    ("scan",),
    ("anatomy",),
    ("quant",),
    ("checkpoint",),
    ("results",),
    ("errors",),
    ("util",),
)
HEIGHT = {stage: -row for row, stages in enumerate(STAGES) for stage in stages}
#: Folders of which each file is one row of a table.
TABLES = {"families", "infer", "evidence", "published"}

Imports = Mapping[str, set[str]]


def sources(folder: Path) -> dict[str, Path]:
    """Module → its file, for all files below a package's folder."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, path: Path, known: Mapping[str, object]) -> Iterator[str]:
    """The modules of `known` that a file imports, anywhere in it."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                if name in known or source in known:
                    yield name if name in known else source


def graph(folder: Path) -> dict[str, set[str]]:
    """Module → the modules of the same package that it imports; the package's root, which all may name, left out."""
    known = sources(folder)
    return {m: {x for x in imported(m, path, known) if x not in (m, folder.name)} for m, path in known.items()}


def loop(imports: Imports) -> list[str]:
    """Modules that import each other in a circle; empty if there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def upwards(imports: Imports, height: Mapping[str, int]) -> list[str]:
    """Imports of a stage that is not below."""
    stage = {module: module.split(".")[1] for module in imports if "." in module}
    pairs = ((m, x) for m, found in imports.items() for x in found if m in stage and x in stage)
    return [f"{m} imports {x}" for m, x in pairs if stage[m] != stage[x] and height[stage[x]] >= height[stage[m]]]


PACKAGE = graph(ROOT / "python" / "weightprint")


@pytest.mark.parametrize("folder", ["python/weightprint", "benches"])
def test_no_files_import_each_other(folder):
    assert not loop(graph(ROOT / folder))


def test_stages_import_downwards_only():
    assert not upwards({m: found for m, found in PACKAGE.items() if m.split(".")[-1] != "__main__"}, HEIGHT)


def test_no_file_imports_its_own_package():
    own = [(m, x) for m, found in PACKAGE.items() for x in found if m.startswith(f"{x}.") and m != x]
    assert not own


def test_every_stage_says_what_it_is():
    for stage in HEIGHT:
        init = ROOT / "python" / "weightprint" / stage / "__init__.py"
        if init.exists():
            assert (ast.get_docstring(ast.parse(init.read_text())) or "").strip(), stage


def test_folders_and_files_stay_small():
    package = ROOT / "python" / "weightprint"
    names = [p.name for p in package.iterdir() if p.name != "__pycache__" and p.suffix not in (".so", ".pyd")]
    assert len(names) <= 22, names
    for folder in (p for p in package.rglob("*") if p.is_dir() and p.name not in TABLES):
        assert len(list(folder.glob("*.py"))) <= 20, folder
    sources = (p for place in ("python", "benches", "tests", "rust") for p in (ROOT / place).rglob("*.*"))
    code = (p for p in sources if p.suffix in (".py", ".pyi", ".rs") and "target" not in p.parts)
    assert not {p: n for p in code if (n := len(p.read_text(encoding="utf-8").splitlines())) > 500}


def test_the_checks_can_fail():
    assert set(loop({"p.a": {"p.b"}, "p.b": {"p.c"}, "p.c": {"p.a"}})) == {"p.a", "p.b", "p.c"}
    height = {"low": 0, "high": 1, "beside": 1}
    assert upwards({"p.low.a": {"p.high.b"}, "p.high.b": {"p.low.c"}, "p.low.c": set()}, height) == [
        "p.low.a imports p.high.b"
    ]
    assert upwards({"p.high.b": {"p.beside.c"}, "p.beside.c": set()}, height)


def test_lazy_and_type_only_imports_count(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("def f():\n    from p.b import g\n    return g\n")
    (folder / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import a\ng = 1\n")
    assert graph(folder) == {"p": set(), "p.a": {"p.b"}, "p.b": {"p.a"}}
    assert loop(graph(folder))
