"""No output may be an input, whatever it is called; and what a killed run left is swept away."""

from __future__ import annotations

import errno
import importlib
import json
import os
import time

import numpy as np
import pytest
from click.testing import CliRunner
from weightprint.check.manifest import Manifest
from weightprint.cli import COMMANDS, cli
from weightprint.errors import FileChangedError, LimitError, UsageError
from weightprint.results.saving import write_atomically

rng = np.random.default_rng(6)

VERBS = {
    "stats": lambda model, out: ["stats", model, "--format", "csv", "-o", out],
    "check": lambda model, out: ["check", model, "-o", out],
    "check --manifest": lambda model, out: ["check", model, "--manifest", "write", out],
    "inspect": lambda model, out: ["inspect", model, "-o", out],
    "diff a": lambda model, out: ["diff", model, model, "--format", "csv", "-o", out],
    "compare": lambda model, out: ["compare", model, model, "-o", out],
    "recipe": lambda model, out: ["recipe", model, model, "-o", out],
    "fingerprint": lambda model, out: ["fingerprint", model, "-o", out],
}


@pytest.fixture
def folder(save_sharded):
    made = save_sharded("m", [{"a": rng.normal(size=(3, 3)).astype(np.float32)}, {"b": np.ones(4, np.float32)}])
    (made / "config.json").write_text('{"hidden_size": 3}')
    return made


def everything_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("named_as", ["folder", "index", "shard"])
@pytest.mark.parametrize("how", ["plain", "dots", "link", "hard link", "linked folder"])
def test_an_output_that_is_an_input_is_refused(folder, tmp_path, verb, named_as, how):
    before = everything_in(folder)
    shard, index = folder / "model-00001-of-00002.safetensors", folder / "model.safetensors.index.json"
    model = {"folder": folder, "index": index, "shard": shard}[named_as]
    for target in (shard, index, folder / "config.json"):
        out = {
            "plain": target,
            "dots": folder / ".." / folder.name / target.name,
            "linked folder": tmp_path / "elsewhere" / target.name,
        }.get(how, tmp_path / f"out-{target.name}")
        if how == "link":
            out.symlink_to(target)
        elif how == "hard link":
            os.link(target, out)
        elif how == "linked folder" and not out.parent.exists():
            out.parent.symlink_to(folder)
        result = CliRunner().invoke(cli, VERBS[verb](str(model), str(out)))
        assert result.exit_code == 2, result.output
        assert "can't be written" in result.stderr
        assert result.stdout == ""
        assert everything_in(folder) == before


def test_either_side_of_a_pair_is_an_input(folder, save):
    other = save("other.safetensors", {"a": np.ones((3, 3), np.float32)})
    for pair in ((folder, other), (other, folder)):
        for out in (other, folder / "config.json"):
            result = CliRunner().invoke(cli, ["diff", *map(str, pair), "--format", "csv", "-o", str(out)])
            assert (result.exit_code, "can't be written" in result.stderr) == (2, True)


def test_every_verb_that_writes_is_tried():
    writes = {verb for verb in COMMANDS for p in cli.get_command(None, verb).params if p.name in ("output", "manifest")}
    assert writes == {verb.split()[0] for verb in VERBS} | {"demo"}  # demo reads nothing


def test_a_new_file_beside_the_model_is_fine(folder):
    for out in ("stats.csv", "new.json"):
        result = CliRunner().invoke(cli, ["stats", str(folder), "-o", str(folder / out)])
        assert result.exit_code == 0, result.output
        result = CliRunner().invoke(cli, ["stats", str(folder), "-o", str(folder / out)])
        assert result.exit_code == 0, result.output


REPORTS = {
    "inspect": lambda model: ["inspect", model],
    "inspect --tensors": lambda model: ["inspect", model, "--tensors"],
    "stats": lambda model: ["stats", model],
    "stats --by": lambda model: ["stats", model, "--by", "block"],
    "check": lambda model: ["check", model],
    "diff": lambda model: ["diff", model, model],
    "compare": lambda model: ["compare", model, model],
    "recipe": lambda model: ["recipe", model, model],
}


@pytest.mark.parametrize("verb", REPORTS)
def test_every_verb_writes_its_report(folder, tmp_path, verb):
    arguments = REPORTS[verb](str(folder))
    printed = CliRunner().invoke(cli, arguments)
    for suffix in (".html", ".txt", ".json"):
        path = tmp_path / f"x{suffix.upper()}"
        result = CliRunner().invoke(cli, [*arguments, "-o", str(path)])
        assert result.exit_code == printed.exit_code, result.output
        # A table goes to the file instead of the screen, a report to both.
        assert [line.split("(")[0] for line in result.stdout.split(" in ")[0].splitlines()] == (
            []
            if verb[:5] in ("stats", "diff")
            else [line.split("(")[0] for line in printed.stdout.split(" in ")[0].splitlines()]
        )
        text = path.read_text()
        if suffix == ".html":
            assert text.startswith("<!doctype html>")
            assert text.endswith("</html>\n")
        elif suffix == ".json":
            assert json.loads(text)
        else:
            assert text.splitlines()[0].split()[:1] == printed.stdout.splitlines()[0].split()[:1]
            assert "<" not in text


@pytest.mark.parametrize("verb", REPORTS)
@pytest.mark.parametrize("name", ["x.pdf", "x", ""])
def test_a_suffix_that_says_nothing_is_refused_before_anything_is_read(tmp_path, verb, name):
    absent = str(tmp_path / "absent.safetensors")
    result = CliRunner().invoke(cli, [*REPORTS[verb](absent), "-o", name])
    assert result.exit_code == 2
    assert "can't tell the form" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", REPORTS)
def test_a_run_that_fails_leaves_the_old_report(tmp_path, verb):
    (tmp_path / "x.html").write_text("old")
    absent = str(tmp_path / "absent.safetensors")
    assert CliRunner().invoke(cli, [*REPORTS[verb](absent), "-o", str(tmp_path / "x.html")]).exit_code == 2
    assert (tmp_path / "x.html").read_text() == "old"


def test_the_manifest_is_no_place_for_the_report(folder, tmp_path):
    manifest = str(tmp_path / "m.json")
    for _ in range(2):  # before there is one, and after
        result = CliRunner().invoke(cli, ["check", str(folder), "--manifest", "write", manifest, "-o", manifest])
        assert (result.exit_code, "can't be written" in result.stderr) == (2, True)
        CliRunner().invoke(cli, ["check", str(folder), "--manifest", "write", manifest])
    result = CliRunner().invoke(cli, ["check", str(folder), "--manifest", "verify", manifest, "-o", manifest])
    assert (result.exit_code, "can't be written" in result.stderr) == (2, True)


def test_the_missing_shard_is_no_place_for_an_output(folder):
    shard = folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    result = CliRunner().invoke(cli, ["check", str(folder), "--manifest", "write", str(shard)])
    assert (result.exit_code, shard.exists()) == (2, False)


def test_what_a_killed_run_left_is_swept_away(tmp_path):
    old, new, foreign = (tmp_path / name for name in (".weightprint-a.tmp", ".weightprint-b.tmp", ".other-c.tmp"))
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    link = tmp_path / ".weightprint-link.tmp"
    link.symlink_to(foreign)
    for path in (old, foreign):
        os.utime(path, (time.time() - 3600,) * 2)
    write_atomically(tmp_path / "x.json", lambda file: file.write(b"{}"))
    assert {path.name for path in tmp_path.iterdir()} == {new.name, foreign.name, link.name, "x.json"}


def test_a_killed_writer_leaves_the_name_that_is_swept(tmp_path):
    seen = []
    write_atomically(tmp_path / "x.json", lambda file: seen.extend(path.name for path in tmp_path.iterdir()))
    assert [name.startswith(".weightprint-") and name.endswith(".tmp") for name in seen] == [True]


def test_a_loop_of_links_is_no_output(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "a", lambda file: file.write(b"x"))


@pytest.mark.parametrize("what", ["pipe", "zero", "folder", "loop"])
def test_a_manifest_is_a_regular_file(folder, tmp_path, what):
    path = {"zero": "/dev/zero", "folder": str(tmp_path)}.get(what, str(tmp_path / "m.json"))
    if what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        os.symlink(path, path)
    result = CliRunner().invoke(cli, ["check", str(folder), "--manifest", "verify", path])
    assert result.exit_code == 2
    assert "internal error" not in result.stderr


@pytest.mark.parametrize("nbytes", ["1e400", "-1e400", "NaN", "1.5", '"4"', "null", "[4]"])
def test_a_size_that_is_no_number(folder, tmp_path, nbytes):
    path = tmp_path / "m.json"
    CliRunner().invoke(cli, ["check", str(folder), "--manifest", "write", str(path)])
    data = json.loads(path.read_text())
    data["tensors"][0]["nbytes"] = "HERE"
    path.write_text(json.dumps(data).replace('"HERE"', nbytes))
    result = CliRunner().invoke(cli, ["check", str(folder), "--manifest", "verify", str(path)])
    assert result.exit_code == 2
    assert "not a weightprint manifest" in result.stderr


def test_a_manifest_too_large_to_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("weightprint.check.manifest"), "_BYTES", 100)
    (tmp_path / "m.json").write_text(" " * 101)
    with pytest.raises(LimitError):
        Manifest.load(tmp_path / "m.json")
    with pytest.raises(LimitError):
        Manifest("m", None, (), (), "0").save(tmp_path / "n.json")


def test_a_rewrite_with_its_time_set_back_is_seen(save):
    import weightprint

    path = save("m.safetensors", {"w": np.ones(40, np.float32)})
    checkpoint = weightprint.open(path)
    checkpoint.check_unchanged()
    times = os.stat(path)
    time.sleep(0.02)  # a clock tick of the file system
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\1")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(FileChangedError):
        checkpoint.check_unchanged()


def test_a_home_that_nobody_has():
    import weightprint

    with pytest.raises(UsageError, match="home folder"):
        weightprint.open("~nosuchuser/model.safetensors")


def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")

    def write(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, write)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "before"
