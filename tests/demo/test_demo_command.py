"""`weightprint demo`: the screen, and the care it takes with folders."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from weightprint import errors
from weightprint.cli import cli
from weightprint.demo import demo_models as demo
from weightprint.demo.screen import chance


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["demo", *arguments])


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


EXPECTED = {demo.SIGN} | {f"{m.name}/{f}" for m in demo.MODELS for f in ("model.safetensors", "config.json")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_scans_compares_and_says_what_to_type_next(here: Path) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert files_in(here / "weightprint-demo") == EXPECTED
    assert os.listdir(here) == ["weightprint-demo"]
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    said = {line.split()[0]: line for line in lines if re.search(r"p = |no test", line)}
    assert set(said) == {"finetune", "moe", "stranger"}
    assert "shared origin" in said["finetune"]
    assert re.search("shared origin|partly shared", said["moe"])
    assert re.search("inconclusive|no evidence", said["stranger"])


def test_what_it_says_to_type_next_works(here: Path) -> None:
    result = run("--output", "a folder; with 'marks'")
    steps = [
        shlex.split(line, comments=True) for line in result.stdout.splitlines() if line.startswith("  weightprint ")
    ]
    assert [step[1] for step in steps] == ["compare", "stats", "check"]
    for step in steps:
        assert CliRunner().invoke(cli, step[1:]).exit_code in (0, 1), step


def test_as_a_process_without_network_variables_or_colour(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "weightprint", "demo", "-o", "models"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert files_in(tmp_path / "models") == EXPECTED


def test_it_refills_its_own_folder_and_leaves_additions_alone(here: Path) -> None:
    folder = demo.write("demo")
    (folder / "parent" / "model.safetensors").write_bytes(b"cut short")
    (folder / "notes.txt").write_text("mine")
    assert run("-o", "demo").exit_code == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert files_in(folder) == EXPECTED | {"notes.txt"}


def test_an_empty_folder_is_welcome(tmp_path: Path) -> None:
    assert files_in(demo.write(tmp_path)) == EXPECTED


def test_a_foreign_folder_is_refused_before_anything_is_written(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("mine")
    result = run("-o", "mine")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert files_in(here) == {"mine/thesis.txt"}
    with pytest.raises(errors.UsageError) as caught:
        demo.write("mine")
    assert (caught.value.code, caught.value.path) == ("not_a_demo_folder", "mine")


def test_force_adds_to_a_foreign_folder_and_deletes_nothing(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("mine")
    assert run("-o", "mine", "--force").exit_code == 0
    assert files_in(here / "mine") == EXPECTED | {"thesis.txt"}


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_the_folders_place_is_refused(tmp_path: Path, force: bool) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(errors.UsageError):
        demo.write(file, force=force)
    assert file.read_text() == "mine"


def test_a_link_in_a_models_place_is_replaced_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "model.safetensors").write_bytes(b"mine")
    folder = demo.write(tmp_path / "demo")
    (folder / "parent" / "model.safetensors").unlink()
    (folder / "parent" / "model.safetensors").symlink_to(precious / "model.safetensors")
    for file in ("model.safetensors", "config.json"):
        (folder / "moe" / file).unlink()
    (folder / "moe").rmdir()
    (folder / "moe").symlink_to(precious)
    demo.write(folder)
    assert files_in(precious) == {"model.safetensors"}
    assert (precious / "model.safetensors").read_bytes() == b"mine"
    assert not (folder / "moe").is_symlink()


def test_a_failure_half_way_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "write_atomically", full_disk)
    with pytest.raises(OSError, match="No space left"):
        demo.write(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_missing_parents_are_made_and_rights_are_ordinary(tmp_path: Path) -> None:
    folder = demo.write(tmp_path / "a" / "b")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain.txt").touch()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode
    for file in EXPECTED:
        assert (folder / file).stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


@pytest.mark.parametrize(
    ("log10_p", "words"),
    [
        (None, "no test gave a p-value"),
        (0.0, "p = 1"),
        (-0.5, "p = 0.32"),
        (-3.0, "p = 0.001"),
        (-164.2, "p = 10^-164"),
    ],
)
def test_chance_in_words(log10_p: float | None, words: str) -> None:
    assert chance(log10_p) == words
