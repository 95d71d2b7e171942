"""Populations of pairs: what the structured strangers are, what counts as right, resume, and the folder of models."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint

from benches.lineage.page import populations as page_populations
from benches.lineage.populations import populations, real_strangers, structured
from benches.lineage.populations.case import FOUND, HIDDEN, PART, STRANGERS, Case, Population, called
from benches.lineage.zoo import model_folder

REPOSITORY = Path(__file__).resolve().parents[2]
CASES = list(structured.cases(60))


def one(form: str, **changes: Any) -> structured.Structure:
    """A small model with strong directions."""
    found = structured.draw(np.random.default_rng(0), form)
    small = {"width": 64, "expansion": 2, "blocks": 3, "vocabulary": 200, "directions": 4, "tail": 3.0, "strength": 3.0}
    return dataclasses.replace(found, **{**small, "decay": 0.0, "drift": 0.0, "mean": 0.0, "gains": 0.0, **changes})


@pytest.mark.parametrize("form", sorted(structured.FORMS))
def test_a_model_is_complete_and_the_same_every_time(form: str, tmp_path: Path) -> None:
    s = one(form)
    first, again, other = (structured.write(s, seed, tmp_path / f"{k}") for k, seed in enumerate((1, 1, 2)))
    assert (first / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    anatomy = weightprint.anatomy(first)
    assert anatomy.unmapped == ()
    (geometry,) = anatomy.geometry.values()
    assert (geometry.hidden, geometry.ffn, geometry.blocks, geometry.heads) == (64, 128, 3, 2)
    assert [a.place.role for a in anatomy.assignments].count("gate") == 3 * structured.FORMS[form].gated


@pytest.mark.parametrize("form", ["bert", "gpt2"])
@pytest.mark.parametrize(("elsewhere", "shared"), [(1.0, True), (0.0, False)])
def test_all_matrices_of_a_model_share_its_directions(
    form: str, elsewhere: float, shared: bool, tmp_path: Path
) -> None:
    """A third of an FFN lies in the four strongest directions of another block's, where chance is 4 of 64; of attention
    and the embedding more than chance only if they load there; in another model's, nothing does."""
    mine, theirs = (
        weightprint.anatomy(structured.write(one(form, elsewhere=elsewhere), k, tmp_path / f"{k}")) for k in (1, 2)
    )

    def within(x: Any, directions: Any) -> float:
        return float(np.square(x @ directions.T).sum() / np.square(x).sum())

    def leading(anatomy: Any) -> Any:
        return np.linalg.svd(anatomy.tensor(0, "up"), full_matrices=False)[2][:4]

    for x in (mine.tensor(2, "up"), mine.tensor(2, "down").T):
        assert within(x, leading(mine)) > 0.3
        assert within(x, leading(theirs)) < 0.12
    for x in (mine.tensor(1, "q"), mine.tensor(1, "o").T, mine.tensor(None, "embedding")):
        assert (within(x, leading(mine)) > 0.12) == shared


def test_the_pairs_cover_the_kinds_and_grow_without_changing() -> None:
    assert [dataclasses.astuple(c)[0] for c in structured.cases(5)] == [c.name for c in CASES[:5]]
    assert [c.a.args for c in structured.cases(5)] == [c.a.args for c in CASES[:5]]
    groups = {case.group for case in CASES}
    assert {
        f"{form}, {widths} width{'s' * (widths == 'two')}" for form in structured.FORMS for widths in ("one", "two")
    } <= groups
    assert {case.a.args[0].directions for case in CASES} >= {2, 8, 32}
    seeds = [maker.args[1] for case in CASES for maker in (case.a, case.b)]
    assert len(set(seeds)) == len(seeds)  # no model is in two pairs


def test_what_counts_as_right() -> None:
    share = {"share": {"value": 0.27}}
    assert STRANGERS.met({"verdict": "inconclusive"})
    assert not STRANGERS.met({"verdict": "shared_initialisation"})
    assert not STRANGERS.met({"error": "it fell over"})
    assert called({"verdict": "shared_initialisation"})
    assert not called({"verdict": "no_evidence"})
    assert FOUND.met({"verdict": "re_encoded"})
    assert HIDDEN.met({"verdict": "inconclusive"})
    assert not HIDDEN.met({"verdict": "no_evidence"})
    assert dataclasses.replace(PART, share=0.24).met({"verdict": "partly_shared"} | share)
    assert not dataclasses.replace(PART, share=0.21).met({"verdict": "partly_shared"} | share)
    assert not dataclasses.replace(PART, share=0.24).met({"verdict": "shared_origin"} | share)


def tiny(seed: int, folder: Path) -> Path:
    return structured.write(one("gpt2"), seed, folder)


def table(kin_are: Any) -> dict[str, Population]:
    """One pair of strangers, and a model with itself."""

    def cases(n: int) -> list[Case]:
        pairs = [("strangers", 2, STRANGERS), ("kin", 1, kin_are)]
        return [Case(name, partial(tiny, 1), partial(tiny, b), expected, name) for name, b, expected in pairs][:n]

    return {"small": Population("Small", cases, 2, ("quick",))}


def run(monkeypatch: pytest.MonkeyPatch, known: dict[str, Population], output: Path, *more: str) -> None:
    import argparse

    monkeypatch.setattr(populations, "POPULATIONS", known)
    parser = argparse.ArgumentParser()
    populations.add(parser.add_subparsers())
    args = parser.parse_args(["populations", "small", "--output", str(output), *more])
    args.run(args)


def test_a_population_is_run_once_and_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Population("Small", table(HIDDEN)["small"].cases, 2, ("quick",), independent=False)
    run(monkeypatch, {"small": found}, tmp_path)
    first = capsys.readouterr()
    assert "2 of 2 right; strangers called related: 0" in first.out
    assert "small: 2 of 2 pairs" in first.err
    run(monkeypatch, {"small": found}, tmp_path)
    second = capsys.readouterr()
    assert (second.out, second.err) == (first.out, "")
    lines = (tmp_path / "small" / "quick.jsonl").read_text().splitlines()
    assert [json.loads(line)["pair"] for line in lines] == ["strangers", "kin"]


def test_a_called_stranger_fails_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="called related 1 times"):
        run(monkeypatch, table(STRANGERS), tmp_path)


def test_numbers_of_a_population_make_a_section() -> None:
    """Of 60 pairs one is called; its p-value after a fitted basis stands out, and the page says both."""
    rng = np.random.default_rng(0)
    records: dict[str, dict[str, Any]] = {}
    for k, case in enumerate(CASES):
        p = -12.0 if k == 7 else float(np.log10(rng.random()))
        evidence = {
            "test": "convergence",
            "basis": "rotation",
            "semantic": False,
            "applied": True,
            "log10_p": p,
            "rank_p": 10**p,
        }
        verdict = "shared_origin" if k == 7 else "no_evidence"
        records[case.name] = {
            "version": "1a",
            "verdict": verdict,
            "log10_p": p,
            "share": {"value": 0.4},
            "evidence": [evidence],
        }
    numbers = populations.summary(Population("Small", structured.cases, 60), CASES, {"standard": records})
    told = numbers["efforts"]["standard"]
    assert (told["pairs"], told["right"], told["false"]) == (60, 59, 1)
    assert [row[:2] for row in told["wrong"]] == [["structured-7", "shared_origin"]]
    fitted = numbers["fitted"]["convergence@rotation"]
    assert (fitted["n"], fitted["smallest_log10_p"]) == (60, -12.0)
    assert next(level for level in fitted["levels"] if level["alpha"] == 1e-6)["log10_tail"] < -3
    page = page_populations.population_page(json.loads(json.dumps(numbers)))
    assert "`structured-7` (shared origin, log10 p -12.0, share 0.40)" in page
    assert "| convergence@rotation | 60 |" in page


def folder_of_models(folder: Path) -> Path:
    for name, form, seed in (("a", "bert", 1), ("b", "bert", 2), ("copy", "bert", 1)):
        structured.write(one(form), seed, folder / name)
    (folder / "notes.md").write_text("not a model")
    return folder


def strangers(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "benches.lineage",
        "strangers",
        str(folder),
        "--records",
        str(folder.parent / "on-record"),
    ]
    return subprocess.run(
        [*command, "--efforts", "quick", "--config", "without", *more],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )


@pytest.mark.slow
def test_strangers_of_a_folder(tmp_path: Path) -> None:
    folder = folder_of_models(tmp_path / "models")
    known = real_strangers.models(folder, [("a", "copy")])
    assert {m.name: m.origin for m in known} == {"a": "a", "b": "b", "copy": "a"}
    keys = [key.split("\t") for key, _, _ in real_strangers.pairs(known)]
    assert len(keys) == 2 * 2 * 2  # both orders, with config and without; a and its copy are not compared
    assert ["a", "copy"] not in [key[:2] for key in keys]
    alike = strangers(folder, "--same", "a,copy", "-o", str(tmp_path / "out.json"))
    assert alike.returncode == 0, alike.stderr
    assert "notes.md: left out" in alike.stderr
    numbers = json.loads((tmp_path / "out.json").read_text())["efforts"]["quick"]
    assert (numbers["pairs"], numbers["called"], numbers["errors"]) == (4, [], [])
    # Unless it is told that the copy is one, it is found and named, and the exit status says so; the rest is on record.
    apart = strangers(folder)
    assert apart.returncode == 1
    assert "quick: 6 comparisons" in apart.stdout
    assert "called: 2\n  a  copy  (without config): shared origin" in apart.stdout
    assert "effort quick: 2 of 2 pairs" in apart.stderr


def test_an_origin_of_no_model_is_refused(tmp_path: Path) -> None:
    structured.write(one("bert"), 1, tmp_path / "a")
    (tmp_path / "origins.json").write_text('{"b": "a"}')
    with pytest.raises(SystemExit, match="an origin is given for b, but"):
        real_strangers.models(tmp_path)


def test_towers_and_configs(tmp_path: Path) -> None:
    """Both stacks of an encoder-decoder stand beside the whole, and hold their own tensors only."""
    rng = np.random.default_rng(0)
    tensors = {}
    for stack, blocks in (("encoder", 2), ("decoder", 3)):
        for at in (f"model.{stack}.layers.{b}." for b in range(blocks)):
            for name, shape in (
                ("fc1", (128, 64)),
                ("fc2", (64, 128)),
                *((f"self_attn.{r}_proj", (64, 64)) for r in ("q", "k", "v", "out")),
            ):
                tensors[f"{at}{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
    (tmp_path / "whole").mkdir()
    model_folder.write_safetensors(tmp_path / "whole" / "model.safetensors", tensors)
    (tmp_path / "whole" / "config.json").write_text('{"model_type": "bart"}')
    whole, *towers = real_strangers.models(tmp_path, towers=True)
    assert [t.origin for t in towers] == ["whole"] * 2
    for tower, blocks in zip(towers, (2, 3), strict=True):
        maker = tower.makers()["with"]
        assert callable(maker)
        anatomy = weightprint.anatomy(maker(tmp_path / f"{blocks}"))
        assert [g.blocks for g in anatomy.geometry.values()] == [blocks]
        assert {k: np.array_equal(anatomy.weights.read(k), tensors[k]) for k in anatomy.weights} == dict.fromkeys(
            anatomy.weights, True
        )
    bare = whole.makers()["without"]
    assert callable(bare)
    stripped = bare(tmp_path / "bare")
    assert [file.name for file in stripped.iterdir()] == ["model.safetensors"]
    assert weightprint.compare(whole.path, stripped).verdict == "identical"
