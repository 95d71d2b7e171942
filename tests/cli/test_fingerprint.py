"""``weightprint fingerprint``: files, folders, JSON, refusals; and fingerprints where other verbs take a model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from weightprint.demo.demo_models import write


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write(tmp_path_factory.mktemp("demo") / "models")


def run(*args, code=0):
    done = subprocess.run([sys.executable, "-m", "weightprint", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def test_one_model_makes_a_file_that_the_verbs_take(demo, tmp_path):
    target = tmp_path / "parent.fp"
    out = run("fingerprint", demo / "parent", "-o", target).stdout
    assert "unit_agreement" in out
    assert f"wrote {target}" in out
    told = json.loads(run("compare", target, demo / "finetune", "--json", code=1).stdout)
    assert told["verdict"] == "shared_origin"
    assert run("compare", target, demo / "parent").stdout.count("IDENTICAL") == 1
    assert "only in" not in run("diff", demo / "parent", target).stdout
    assert "fingerprint of" in run("inspect", target).stdout
    assert json.loads(run("inspect", target, "--json").stdout)["plan"]["version"] == 1
    assert "decoder.0.up" in run("inspect", target, "--tensors").stdout
    run("inspect", target, "-o", tmp_path / "print.html")
    assert "fingerprint of" in (tmp_path / "print.html").read_text()


@pytest.mark.parametrize("verb", [["stats"], ["check"]])
def test_verbs_that_read_values_say_that_they_need_the_weights(demo, tmp_path, verb):
    target = tmp_path / "parent.fp"
    run("fingerprint", demo / "parent", "-o", target)
    said = run(*(demo / "parent" if arg == "MODEL" else arg for arg in verb), target, code=2).stderr
    assert f"{verb[0]} needs the weights" in said


def test_a_recipe_of_fingerprints_tells_weights_and_no_method(demo, tmp_path):
    target = tmp_path / "parent.fp"
    run("fingerprint", demo / "parent", "-o", target)
    said = run("recipe", demo / "parent", target, code=1).stdout
    assert "+1.000" in said
    assert "needs the weights" in said


def test_several_models_go_into_a_folder(demo, tmp_path):
    out = run("fingerprint", demo / "parent", demo / "moe", "-o", tmp_path / "prints", "--json").stdout
    made = json.loads(out)
    assert [row["written"] for row in made] == [str(tmp_path / "prints" / f"{name}.fp") for name in ("parent", "moe")]
    assert sorted(p.name for p in (tmp_path / "prints").iterdir()) == ["moe.fp", "parent.fp"]


def test_what_would_be_lost_is_refused(demo, tmp_path):
    weights = demo / "parent" / "model.safetensors"
    before = weights.read_bytes()
    assert "belongs to what is read" in run("fingerprint", demo / "parent", "-o", weights, code=2).stderr
    assert weights.read_bytes() == before
    (tmp_path / "file").write_text("mine")
    assert "folder" in run("fingerprint", demo / "parent", demo / "moe", "-o", tmp_path / "file", code=2).stderr
    assert "several models are called" in run("fingerprint", demo / "moe", demo / "moe", "-o", tmp_path, code=2).stderr
    assert run("fingerprint", demo / "parent", code=2).stderr
    assert not (tmp_path / "moe.fp").exists()


def test_seeds_do_not_mix(demo, tmp_path):
    run("fingerprint", demo / "parent", "-o", tmp_path / "a.fp", "--seed", 1)
    run("fingerprint", demo / "parent", "-o", tmp_path / "b.fp", "--seed", 2)
    assert "seed 1 and 2" in run("compare", tmp_path / "a.fp", tmp_path / "b.fp", code=2).stderr
    run("compare", tmp_path / "a.fp", demo / "parent")  # the live side takes the file's seed
