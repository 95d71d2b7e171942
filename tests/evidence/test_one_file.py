"""A new test, or a new operation, is one file and one row: the package with just these added runs them, shows them and
heeds them."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
import weightprint

TEST = """
from functools import partial

from weightprint.evidence.evidence import Evidence, UnitMatch
from weightprint.fingerprint.ffns import ffns
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.test import Test


@partial(Test, decides="stored basis", answers=("toys",), mirrored=lambda details, names, models: {"read": "back"})
def toy(models: ModelPair) -> Evidence:
    return Evidence(
        test="toy",
        asked="Is everything as it was?",
        applied=True,
        null="a toy's",
        assumes="nothing",
        blind_to="all that toys don't see",
        says="a toy has found every FFN in its place",
        log10_p=-30.0,
        effect=1.0,
        detectable=0.1,
        details={"read": "forth"},
        matches=tuple(UnitMatch(ffn.key, ffn.key, 99, 99, 1.0, -30.0) for ffn in ffns(models.b)),
    )
"""

OPERATION = """
from collections.abc import Iterable

from weightprint.operations.base import Operation
from weightprint.operations.changes import Changes
from weightprint.verdict.facts import Facts


def toy(facts: Facts, changes: Changes) -> Iterable[Operation]:
    told = facts.applied("toy")
    if facts.decisive and told is not None:
        yield Operation("played_with", {"read": told.details["read"]}, "every FFN")
"""

SCRIPT = """
import json, sys, weightprint
from weightprint.report.compare import text
from weightprint.report.page.compare import page
found = weightprint.compare(*sys.argv[1:], effort="quick")
print(json.dumps({"dict": found.to_dict(), "text": text(found, verbose=True), "html": page(found)}))
"""


def added(package: Path, where: str, text: str, table: str, rows: str) -> None:
    """The one file, and the one row in the one list (with its import)."""
    (package / where / "toy.py").write_text(text)
    path = package / where / table
    lines = path.read_text().split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("from weightprint."))
    lines.insert(lines.index(next(line for line in lines if line.startswith(rows))) + 1, "    toy,")
    lines.insert(first, f"from weightprint.{where}.toy import toy")
    path.unlink()
    path.write_text("\n".join(lines))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package, file by file as it is."""
    (source,) = weightprint.__path__
    shutil.copytree(source, tmp_path / "weightprint", copy_function=os.symlink)
    return tmp_path / "weightprint"


def compared(package: Path) -> dict[str, Any]:
    with as_file(files("weightprint.demo") / "models") as demo:
        command = [sys.executable, "-c", SCRIPT, str(demo / "parent"), str(demo / "stranger")]
        env = os.environ | {"PYTHONPATH": str(package.parent)}
        done = subprocess.run(command, cwd=package.parent, env=env, capture_output=True, text=True, check=True)
    out: dict[str, Any] = json.loads(done.stdout)
    return out


def test_a_test_and_an_operation_are_one_file_and_one_row_each(package: Path) -> None:
    before = compared(package)["dict"]
    assert before["verdict"] == "inconclusive"
    assert before["log10_p"] > -6

    added(package, "evidence", TEST, "tests.py", "TESTS: ")
    added(package, "operations", OPERATION, "table.py", "OPERATIONS: ")
    told = compared(package)
    after = told["dict"]

    # It was run, and stands in every form of the report.
    assert [e["test"] for e in after["evidence"]] == ["toy", *(e["test"] for e in before["evidence"])]
    assert "a toy has found every FFN in its place" in told["text"]
    assert "a toy has found every FFN in its place" in told["html"]
    # It decides: its p-value, corrected for one more that could have, and the blocks that it names.
    tried = 10 ** (after["log10_p"] + 30)
    assert 2 <= round(tried) == pytest.approx(tried)
    assert after["verdict"] in ("shared_origin", "partly_shared")  # the other tests keep silent on these blocks
    assert "toy" in after["rule"]["reads"]
    assert all(a == b for b, a, _ in after["layer_map"])
    # The operation is named, from each model to the other, with what the test's details say read that way round.
    ways = {way: [o for o in rows if o["name"] == "played_with"] for way, rows in after["operations_if"].items()}
    assert {way: [o["parameters"]["read"] for o in rows] for way, rows in ways.items()} == {
        "a_first": ["forth"],
        "b_first": ["back"],
    }
    assert math.isfinite(after["share"]["value"])
