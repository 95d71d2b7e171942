"""The plan keeps its promises, and a build repeats, resumes and tells the truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]
pytest.importorskip("jax")
from benches.lineage.commands import build  # noqa: E402  (after the skip)
from benches.lineage.zoo.model_folder import load, truth_of  # noqa: E402
from benches.lineage.zoo.plans import Plan, Plans, table  # noqa: E402
from benches.lineage.zoo.zoos import FULL, SMALL  # noqa: E402

del sys.path[:1]

# The small zoo with next to no training, in a process of its own: XLA's settings hold for a process.
_SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from benches.lineage.commands import build
from benches.lineage.zoo import forms
from benches.lineage.zoo.zoos import SMALL

tiny = forms.shape("llama", hidden=16, layers=2, ffn=24)
names = ["a", "b", "b-student", "a-tuned", "a-upcycled", "a-permuted", "a-merged"]
plans = {
    name: replace(
        plan,
        shape=plan.shape and tiny,
        # one shape to compile for: what is upcycled isn't trained on here
        recipe=plan.recipe and name != "a-upcycled" and replace(plan.recipe, text="docs", steps=20, warmup=5) or None,
        step=plan.step if name != "a-upcycled" else "",
    )
    for name, plan in SMALL.items()
    if name in names
}
build.build(plans, Path(sys.argv[1]), jobs=int(sys.argv[2]))
print(build.table(plans, Path(sys.argv[1])))
"""


def run(output: Path, jobs: int = 1) -> subprocess.CompletedProcess[str]:
    script = output.parent / "script.py"  # spawned workers import the main module again
    script.write_text("if __name__ == '__main__':\n" + "\n".join(f"    {line}" for line in _SCRIPT.splitlines()))
    path = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(script), str(output), str(jobs)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)


def bytes_of(output: Path) -> dict[str, bytes]:
    return {str(file.relative_to(output)): file.read_bytes() for file in sorted(output.glob("*/*"))}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    output = tmp_path_factory.mktemp("zoo") / "built"
    return output, run(output)


@pytest.mark.slow
def test_the_same_bytes_again_and_in_two_processes(
    built: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    first, told = built
    run(tmp_path / "again", jobs=2)
    assert bytes_of(tmp_path / "again") == bytes_of(first)
    assert len(bytes_of(first)) == 7 * 3
    assert "[7/7]" in told.stderr
    assert "2 root, 1 distilled, 4 descendant" in told.stdout


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_was(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output, _ = built
    before = bytes_of(output)
    stamps = {file: file.stat().st_mtime_ns for file in output.glob("*/*")}
    part = output / ".a-merged.1.part"  # what a kill in the middle of writing leaves
    (output / "a-merged").rename(part)
    (part / "truth.json").unlink()
    told = run(output)
    assert "[7/7] a-merged" in told.stderr
    assert told.stderr.count("[") == 1
    assert {k: v for k, v in bytes_of(output).items() if not k.startswith(".")} == before
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items() if file.parent.name != "a-merged")


@pytest.mark.slow
def test_what_is_written_beside_a_model_is_so(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output, _ = built
    tuned, upcycled, student = (truth_of(output / name) for name in ("a-tuned", "a-upcycled", "b-student"))
    assert (tuned.parents, tuned.roots, tuned.kind) == (["a"], ["a"], "descendant")
    assert [step["name"] for step in tuned.operations] == ["fine_tune"]
    assert tuned.total_tokens == 2 * 20 * 4 * 64 == 2 * tuned.tokens
    assert [step["name"] for step in upcycled.operations] == ["moe_upcycling"]
    assert (upcycled.form, len(upcycled.expert_map)) == ("moe", 2 * 4)
    assert (student.kind, student.roots, student.parents) == ("distilled", ["b-student"], [])
    assert student.operations[0]["parameters"]["teacher"] == "b"
    a, child = load(output / "a"), load(output / "a-tuned")
    assert child.tensors.keys() == a.tensors.keys()
    assert all((child.tensors[n] != x).any() for n, x in a.tensors.items())  # everything was trained
    assert truth_of(output / "a").bits is not None
    assert json.loads((output / "PLAN.json").read_text())["b-student"]["split"] == "fit"


@pytest.mark.slow
def test_merged_weights_are_those_of_the_saved_parents(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output, _ = built
    a, tuned, merged = (load(output / name).tensors for name in ("a", "a-tuned", "a-merged"))
    for name, x in merged.items():
        exact = 0.6 * a[name].astype(np.float64) + 0.4 * tuned[name]
        assert np.abs(x - exact).max() <= 2**-8 * np.abs(exact).max()  # half a bf16 step


def roots_of(plans: Plans, name: str) -> set[str]:
    plan = plans[name]
    return {name} if not plan.parents else set().union(*(roots_of(plans, parent) for parent in plan.parents))


def test_the_full_zoo_is_what_was_asked_for() -> None:
    kinds = Counter(plan.kind for plan in FULL.values())
    assert len(FULL) >= 200
    assert kinds["root"] >= 14
    assert kinds["distilled"] >= 4
    roots = [plan for plan in FULL.values() if plan.kind == "root"]
    sides = {(plan.shape.form, plan.split) for plan in roots if plan.shape}
    assert sides == {(form, side) for form in ("llama", "qwen2", "gemma", "gpt2", "moe") for side in ("fit", "test")}
    same = Counter((plan.shape, plan.recipe.text, plan.recipe.rate) for plan in roots if plan.recipe)
    assert sum(count >= 3 for count in same.values()) >= 4  # several seeds on the same data, per architecture
    assert {plan.recipe.optimiser for plan in roots if plan.recipe} == {"adamw", "sgd"}
    assert len({plan.recipe.vocabulary for plan in roots if plan.recipe}) == 3
    seeds = [(plan.shape.form, plan.seed) for plan in roots if plan.shape]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("plans", [FULL, SMALL], ids=["full", "small"])
def test_a_model_stands_on_the_side_of_its_roots(plans: Plans) -> None:
    for name, plan in plans.items():
        assert {plans[root].split for root in roots_of(plans, name)} == {plan.split}


def test_batches_are_nobody_elses() -> None:
    runs = [
        (p.recipe.batch_seed, p.recipe.text, p.recipe.vocabulary, p.shape and p.shape.form)
        for p in FULL.values() if p.recipe
    ]  # fmt: skip
    assert len(set(runs)) == len(runs)


def test_only_brings_the_parents() -> None:
    assert list(build.chosen(SMALL, "a-merged")) == ["a", "a-tuned", "a-merged"]
    assert list(build.chosen(SMALL, "b-student")) == ["b", "b-student"]
    with pytest.raises(ValueError, match="no model is called 'x\\*'"):
        build.chosen(SMALL, "x*")


def test_a_plan_that_breaks_a_rule_is_refused() -> None:
    a, b = SMALL["a"], replace(SMALL["b"], split="test")
    child = Plan("c", "descendant", "fit", parents=("a", "b"), operation="linear_merge")
    with pytest.raises(ValueError, match="b on the other"):
        table([a, b, child])
    with pytest.raises(ValueError, match="twice"):
        table([a, a])
    with pytest.raises(ValueError, match="not planned before"):
        table([replace(child, parents=("z",))])
    with pytest.raises(ValueError, match="either a shape or parents"):
        table([replace(child, parents=())])
