"""Every public function and class has an example in its docstring, and the examples say what happens."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest
import weightprint
from weightprint.demo.demo_models import write

# What is raised needs no example of its own: the base shows how errors are caught.
PUBLIC = [name for name in weightprint.__all__ if callable(getattr(weightprint, name)) and not name.endswith("Error")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``weightprint demo`` was run."""
    folder = tmp_path_factory.mktemp("docs")
    write(folder / "weightprint-demo")
    return folder


@pytest.mark.parametrize("name", [*PUBLIC, "WeightprintError"])
def test_the_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    text = inspect.getdoc(getattr(weightprint, name)) or ""
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert test.examples, f"{name} has no example"
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)
