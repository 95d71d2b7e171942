"""Standard streams that are closed, full or left by their reader; paths that lead nowhere."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

MODEL = {f"model.layers.{k}.mlp.up_proj.weight": np.eye(4, 6, k, dtype=np.float32) for k in range(3)}


@pytest.fixture
def model(save):
    return str(save("m.safetensors", MODEL))


def shell(command, model):
    """Run ``weightprint`` inside a shell command; exit code of weightprint and what it said on stderr."""
    script = command.replace("weightprint", f'"{sys.executable}" -m weightprint').replace("MODEL", f"'{model}'")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "verb", ["check MODEL", "inspect MODEL", "stats MODEL", "diff MODEL MODEL", "check MODEL --json"]
)
def test_a_reader_that_is_gone_is_141(model, verb):
    # `true` has ended long before an interpreter has started.
    code, err = shell(f"weightprint {verb} | true; exit ${{PIPESTATUS[0]}}", model)
    assert (code, err) == (141, "")


@pytest.mark.slow_but_first
@pytest.mark.parametrize("verb", ["check MODEL", "inspect MODEL", "stats MODEL", "compare MODEL MODEL"])
def test_closed_and_full_streams(model, verb):
    code, err = shell(f"weightprint {verb} >&-", model)
    assert (code, "stdout is closed" in err) == (2, True)
    assert shell(f"weightprint {verb} 2>&- >/dev/null", model)[0] == 0
    if os.path.exists("/dev/full"):
        code, err = shell(f"weightprint {verb} >/dev/full", model)
        assert (code, "No space left" in err, "internal" in err) == (2, True, False)


@pytest.mark.parametrize("path", ["LOOP", "LOOP/m.safetensors", "loop.safetensors", "loop.json", "~nosuchuser/m"])
@pytest.mark.parametrize("verb", ["check", "inspect", "stats"])
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, path, verb):
    from click.testing import CliRunner
    from weightprint.cli import cli

    monkeypatch.chdir(tmp_path)
    for name in ("LOOP", "loop.safetensors", "loop.json"):
        os.symlink(name, name)
    result = CliRunner().invoke(cli, [verb, path])
    assert result.exit_code == 2
    assert result.stderr.startswith("weightprint: ")
    assert "internal error" not in result.stderr


def test_a_shard_that_is_a_loop(save_sharded):
    from click.testing import CliRunner
    from weightprint.cli import cli

    folder = save_sharded("m", [{"a": np.ones(3, np.float32)}, {"b": np.ones(3, np.float32)}])
    shard = folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to(shard.name)
    for verb in ("check", "inspect"):
        result = CliRunner().invoke(cli, [verb, str(folder)])
        assert "internal error" not in result.output, result.output
        assert result.exit_code in (1, 2)
