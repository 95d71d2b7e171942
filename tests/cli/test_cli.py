"""The command line: output, exit codes, and messages for people."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from weightprint.cli import COMMANDS, cli

rng = np.random.default_rng(5)
EVIL = "[red]evil\x1b[31m\u202e=x"


@pytest.fixture
def model(save):
    tensors = {
        f"model.layers.{k}.{part}.weight": rng.normal(size=(20, 30)).astype(np.float32)
        for k in (0, 1, 2, 10)
        for part in ("up_proj", "down_proj")
    }
    tensors |= {f"model.layers.{k}.up_proj.weight2": tensors["model.layers.0.up_proj.weight"] for k in range(3, 10)}
    tensors[EVIL] = np.arange(40, dtype=np.float16)
    return str(save("model.safetensors", tensors, {"format": "pt", "evil\x1b": "\u202e"}))


@pytest.fixture
def bad(save):
    values = rng.normal(size=(20, 30)).astype(np.float32)
    values[4, 5] = np.nan
    return str(save("bad.safetensors", {"w": values}))


def run(*args, code=0, env=None):
    result = CliRunner().invoke(cli, list(args), env=env)
    assert result.exit_code == code, result.output
    return result


def test_help_lists_every_verb():
    text = run("--help").stdout
    assert all(f"\n  {verb} " in text for verb in COMMANDS)
    assert "130" in text
    for verb in ("inspect", "stats", "check"):
        assert "Examples:" in run(verb, "--help").stdout
    assert run("--version").stdout.startswith("weightprint 0.")


def test_help_is_quick_to_import():
    code = "import sys, weightprint.cli; print(sorted({m.split('.')[0] for m in sys.modules} & set(sys.argv[1:])))"
    heavy = ["rich", "scipy", "pandas", "polars", "pyarrow", "jinja2", "matplotlib"]
    result = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    code = code.replace("weightprint.cli", "weightprint")
    result = subprocess.run([sys.executable, "-c", code, *heavy, "click"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_inspect(model):
    text = run("inspect", model).stdout
    assert "16 tensors" in text
    assert "┌ blocks 0–2, 10  model.layers.{b}." in text
    assert "20×30" in text
    assert "model.layers.{0-2,10}.up_proj.weight" in run("inspect", model, "--all").stdout
    assert "[red]evil\\u{1b}[31m\\u{202e}=x" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    data = json.loads(run("inspect", model, "--json").stdout)
    assert data["n_tensors"] == 16 == len(data["tensors"])
    assert data["metadata"]["format"] == "pt"
    assert {d["dtype"]: d["n_tensors"] for d in data["dtypes"]} == {"F32": 15, "F16": 1}


def test_inspect_reads_no_values(model):
    with open(model, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\xff" * 100)
    run("inspect", model)


def test_stats_table(model):
    result = run("stats", model, "--include", "model.*")
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["name", "dtype", "shape", "mean"]
    names = [line.split()[0] for line in lines[1:]]
    assert names[-1].startswith("model.layers.10.")
    assert len(names) == 15
    assert "15 tensors" in result.stderr
    assert "\x1b" not in result.stdout
    everything = run("stats", model, "--all", "--digest", "--rows").stdout
    assert all(column in everything for column in ("p99_99", "entropy", "digest", "dead rows"))


def test_stats_on_a_terminal_is_grouped_by_layer(model):
    text = run("stats", model, env={"FORCE_COLOR": "1", "COLUMNS": "120", "TERM": "xterm-256color"}).stdout
    assert "\x1b[" in text
    assert "\x1b[31mevil" not in text
    plain = run("stats", model, env={"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "120"}).stdout
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in plain.splitlines()]
    layers = [line for line in lines if "model.layers." in line]
    assert len(layers) == 11
    assert max(map(len, lines)) <= 120
    narrow = run("stats", model, env={"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "70"})
    assert "too narrow for dtype, max, kurtosis, sparsity" in narrow.stderr


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
def test_stats_forms(model, tmp_path, form):
    printed = run("stats", model, "--format", form).stdout_bytes
    path = tmp_path / f"out.{form}"
    result = run("stats", model, "-o", str(path))
    assert result.stdout == ""
    assert "wrote" in result.stderr
    assert path.read_bytes() == printed
    if form == "json":
        assert len(json.loads(printed)) == 16
    if form == "jsonl":
        assert json.loads(printed.splitlines()[0])["name"] == EVIL
    if form == "csv":
        assert b"\x1b" not in printed
    if form == "parquet":
        assert pyarrow.parquet.read_table(io.BytesIO(printed)).num_rows == 16


def test_stats_to_a_text_file(model, tmp_path):
    run("stats", model, "-o", str(tmp_path / "t.txt"))
    assert (tmp_path / "t.txt").read_text() == run("stats", model).stdout


def test_check(model, bad):
    sound = run("check", model)
    assert ": sound;" in sound.stdout
    text = run("check", bad, code=1).stdout
    assert "1 of 600 values are NaN, the first at [4, 5]" in text
    data = json.loads(run("check", bad, "--json", code=1).stdout)
    assert (data["sound"], data["findings"][0]["code"]) == (False, "nan")


def test_check_manifest(model, bad, tmp_path):
    path = str(tmp_path / "manifest.json")
    run("check", model, "--manifest", "write", path)
    run("check", model, "--manifest", "verify", path)
    text = run("check", bad, "--manifest", "verify", path, code=1).stdout
    assert "manifest_missing" in text
    assert "; 3 more: model.layers.{1-2,10}.up_proj.weight" in text
    assert "17 errors" in text
    assert "more" not in run("check", bad, "--manifest", "verify", path, "--all", code=1).stdout
    run("check", model, "--manifest", "verify", str(tmp_path / "absent"), code=2)
    run("check", model, "--manifest", "write", path, "--include", "x", code=2)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["stats"], "Missing argument"),
        (["nonsense"], "No such command"),
        (["stats", "/no/such/file.safetensors"], "No such file or directory"),
        (["inspect", "org/absent"], "hf download org/absent"),
        (["stats", "MODEL", "--include", "nope"], "matches none"),
        (["stats", "MODEL", "-o", "x.zip"], "can't tell the form"),
        (["stats", "MODEL", "-o", "/no/such/folder/x.csv"], "No such file or directory"),
        (["stats", "MODEL", "--threads", "0"], "threads"),
        (["inspect", "s3://b/k"], "copy"),
    ],
)
def test_no_answer_is_two_and_one_clear_message(model, args, says, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    result = run(*(model if arg == "MODEL" else arg for arg in args), code=2)
    assert says in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(monkeypatch):
    result = run("inspect", "s3://b/k", code=2, env={"WEIGHTPRINT_DEBUG": "1"})
    assert "Traceback" in result.stderr


def test_a_bug_says_that_it_is_one(model, monkeypatch):

    monkeypatch.setattr("weightprint.checkpoint.checkpoint.locate", lambda model: 1 / 0)
    result = run("inspect", model, code=2)
    assert "internal error: ZeroDivisionError" in result.stderr
    assert "report" in result.stderr


def shell(*args, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "weightprint", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_as_a_process(model, bad):
    for args, code in ((["inspect", model], 0), (["check", bad], 1), (["inspect", "/no/file"], 2)):
        process = shell(*args)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert bool(out) == (code < 2)
        assert b"Traceback" not in err
        assert b"\x1b" not in out + err


def test_a_reader_that_leaves_is_no_error(save):
    path = save("many.safetensors", {f"tensor.{k}.with.a.long.name": np.zeros(2, np.float32) for k in range(20_000)})
    process = shell("stats", str(path), "--format", "jsonl")
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert err == b""


def test_poor_streams_can_show_any_name(save):
    path = save("m.safetensors", {"größe.权重": np.ones(3, np.float32)})
    process = shell("stats", str(path), env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "größe.\\u6743\\u91cd".encode("latin-1") in out


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupted_is_130(tmp_path):
    # A sparse file: large enough to be still busy when the signal comes, whatever the machine.
    path, size = tmp_path / "big.safetensors", 1 << 36
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    process = shell("stats", str(path), "--threads", "1")
    maps = Path(f"/proc/{process.pid}/maps")  # a busy machine may take its time to start an interpreter
    started = time.monotonic()
    while maps.exists() and "_core" not in maps.read_text() and time.monotonic() - started < 30:
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert b"interrupted" in err
    assert b"Traceback" not in err


def test_no_progress_bar_off_the_terminal(model, monkeypatch):
    from weightprint.report.progress import progress_bar, wanted

    assert not wanted()
    with progress_bar("x") as callback:
        assert callback is None

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    with progress_bar("a \x1b label") as callback:
        callback(1_000_000, 4_000_000)
        callback(4_000_000, 4_000_000)
    assert "\\u{1b} label" in sys.stderr.getvalue()
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    assert not wanted()


def test_a_misspelt_verb_is_told_what_it_looks_like():
    assert "Did you mean compare?" in run("comapre", "a", "b", code=2).stderr


def test_codes_are_chosen_by_comma_and_by_repetition(bad):
    assert run("check", bad, "--ignore", "outlier,nan").exit_code == 0
    assert run("check", bad, "--select", "outlier", "--select", "empty").exit_code == 0
    assert "train or convert again" in run("check", bad, "--select", "nan", code=1).stdout
    assert "did you mean nan" in run("check", bad, "--ignore", "nam", code=2).stderr
    assert json.loads(run("check", bad, "--json", code=1).stdout)["findings"][0]["way_out"]
