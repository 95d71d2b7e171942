"""``weightprint recipe`` on the command line: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from weightprint.cli import cli

D = 32


def model(seed):
    rng = np.random.default_rng(seed)
    made = {"model.embed_tokens.weight": rng.standard_normal((64, D))}
    for n in range(4):
        at = f"model.layers.{n}"
        made |= {f"{at}.self_attn.{r}_proj.weight": rng.standard_normal((D, D)) for r in "qkvo"}
        made |= {f"{at}.mlp.{r}_proj.weight": rng.standard_normal((2 * D, D)) for r in ("gate", "up")}
        made |= {f"{at}.mlp.down_proj.weight": rng.standard_normal((D, 2 * D))}
    return {n: (0.1 * x).astype(np.float32) for n, x in made.items()}


@pytest.fixture
def folders(tmp_path):
    a, b = model(1), model(2)
    made = {"a b": a, "b": b, "child": {n: np.float32(0.25) * a[n] + np.float32(0.75) * b[n] for n in a}}
    for name, tensors in made.items():
        (tmp_path / name).mkdir()
        safetensors.numpy.save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama", "num_attention_heads": 4}')
    return [str(tmp_path / name) for name in ("child", "a b", "b")]


def run(*args):
    return CliRunner().invoke(cli, list(map(str, args)))


def test_help_says_what_the_exit_codes_mean_and_shows_examples():
    text = run("recipe", "--help").stdout
    assert "Exit codes" in text
    assert "weightprint recipe merged/ model-a/ model-b/" in text


def test_what_is_printed_and_the_exit_codes(folders):
    child, a, b = folders
    done = run("recipe", child, a, b)
    assert done.exit_code == 0
    text = " ".join(done.stdout.split())
    assert "A linear mix: 0.250 a b + 0.750 b. What is left is rounding." in text
    assert "merge_method: linear" in text
    assert max(map(len, done.stdout.splitlines())) <= 120
    missing = run("recipe", child, b)
    assert missing.exit_code == 1
    assert "25 % of the weights are of unknown origin: a parent is missing." in " ".join(missing.stdout.split())
    assert "merge_method" not in missing.stdout
    assert run("recipe", child, a, b, "-v").stdout.count("role") == 1
    for wrong in ([child], [child, "no/such/model"], ["no/such/model", a], [child, "--candidates", "no/such/folder"]):
        assert run("recipe", *wrong).exit_code == 2


def test_json_and_files(folders, tmp_path):
    printed = run("recipe", *folders, "--json")
    out = json.loads(printed.stdout)
    assert list(out)[:3] == ["schema_version", "explained", "child"]
    assert [round(w["value"], 3) for w in out["weights"]] == [0.25, 0.75]
    for suffix in (".json", ".html", ".txt", ".yaml"):
        assert run("recipe", *folders, "-o", tmp_path / f"x{suffix}").exit_code == 0
    assert json.loads((tmp_path / "x.json").read_text())["mergekit"] == (tmp_path / "x.yaml").read_text()
    assert (tmp_path / "x.html").read_text().startswith("<!doctype html>")
    assert "<script" not in (tmp_path / "x.html").read_text()


def test_the_configuration_is_yaml(folders, tmp_path):
    yaml = pytest.importorskip("yaml")
    child, a, b = folders
    run("recipe", *folders, "-o", tmp_path / "x.yaml")
    assert yaml.safe_load((tmp_path / "x.yaml").read_text()) == {
        "merge_method": "linear",
        "models": [
            {"model": a, "parameters": {"weight": 0.25}},
            {"model": b, "parameters": {"weight": 0.75}},
        ],
        "parameters": {"normalize": False},
        "dtype": "float32",
    }
    # Where there is none the file says so.
    assert run("recipe", child, b, "-o", tmp_path / "none.yaml").exit_code == 1
    assert yaml.safe_load((tmp_path / "none.yaml").read_text()) is None


def test_compare_with_a_further_parent(folders):
    child, a, b = folders
    done = run("compare", b, child, "--with", a)
    assert done.exit_code == 1
    assert "A linear mix: 0.750 b + 0.250 a b." in " ".join(done.stdout.split())
    assert json.loads(run("compare", b, child, "--with", a, "--json").stdout)["mix"]["method"] == "linear"


def test_hostile_names_are_escaped(tmp_path, folders):
    bad = tmp_path / "evil\x1b[31m<b>\u202e"
    (tmp_path / "b").rename(bad)
    child, a, _ = folders
    done = run("recipe", child, a, bad, "-o", tmp_path / "x.html")
    assert done.exit_code == 0
    page = (tmp_path / "x.html").read_text()
    for text in (done.stdout, page):
        assert "evil" in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<b>" not in page
