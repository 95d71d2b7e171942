"""Truth of pairs, resume, marks and the page, on a family tree small enough to draw by hand.

r (fit) ──► pruned (blocks 0, 2) ──► tuned            s (test) ──► moe        r2: r's initialisation
r + s ──► merged                                       student of r            t (test)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benches.lineage.commands import score
from benches.lineage.commands.calibrate import rotation_pairs, synthetic_pairs
from benches.lineage.page import page, summary
from benches.lineage.page.markdown import percent, rate
from benches.lineage.score import methods, pair_table, runner
from benches.lineage.score.operations_score import operations_table, same_parameter
from benches.lineage.score.pairs import Pair, Want, choose, every_pair
from benches.lineage.score.peers import Peer
from benches.lineage.score.records import Records, scored_with
from benches.lineage.zoo import strangers
from benches.lineage.zoo.ground_truth import FamilyTree

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT: dict[str, Any] = {"kind": "root", "form": "llama", "text": "modules", "tokens": 1000, "total_tokens": 1000}
TRUTH: dict[str, dict[str, Any]] = {
    "r": {**ROOT, "roots": ["r"], "init_seed": 1},
    "s": {**ROOT, "roots": ["s"], "init_seed": 2},
    "t": {**ROOT, "roots": ["t"], "init_seed": 3, "text": "bible"},
    "r2": {**ROOT, "kind": "shared_init", "roots": ["r2"], "init_seed": 1},
    "student": {**ROOT, "kind": "distilled", "roots": ["student"], "parents": ["r"], "init_seed": 9},
    "pruned": {
        "kind": "descendant", "form": "llama", "roots": ["r"], "parents": ["r"], "total_tokens": 1000,
        "operations": [{"name": "depth_drop", "parameters": {"dropped": [1]}}], "layer_map": {"r": [[0, 0], [1, 2]]},
    },
    "tuned": {
        "kind": "descendant", "form": "llama", "roots": ["r"], "parents": ["pruned"], "tokens": 500,
        "total_tokens": 1500, "operations": [{"name": "fine_tune", "parameters": {"tokens": 500}}],
    },
    "moe": {
        "kind": "descendant", "form": "moe", "roots": ["s"], "parents": ["s"], "total_tokens": 1000,
        "operations": [{"name": "moe_upcycling", "parameters": {"experts": 2}}],
        "expert_map": [[layer, expert, layer, None] for layer in range(3) for expert in range(2)],
    },
    "merged": {
        "kind": "descendant", "form": "llama", "roots": ["r", "s"], "parents": ["r", "s"], "total_tokens": 1000,
        "operations": [{"name": "merge_linear", "parameters": {"weights": [0.5, 0.5]}}],
    },
}  # fmt: skip
SPLIT = {"r": "fit", "r2": "fit", "student": "fit", "s": "test", "t": "test"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    for i, (name, truth) in enumerate(TRUTH.items()):
        made = strangers.write(folder, "llama", i)
        made.rename(folder / name)
        (folder / name / "truth.json").write_text(json.dumps({"name": name, **truth}))
        if name in ("pruned", "tuned"):
            config = json.loads((folder / name / "config.json").read_text())
            (folder / name / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    (folder / "PLAN.json").write_text(json.dumps({name: {"split": side} for name, side in SPLIT.items()}))
    return folder


@pytest.fixture(scope="module")
def tree(zoo: Path) -> FamilyTree:
    return FamilyTree.read(zoo)


def pair(tree: FamilyTree, *names: str) -> Pair:
    return next(p for p in every_pair(tree) if {p.a, p.b} == set(names))


@pytest.mark.parametrize(
    ("names", "relation", "kind"),
    [
        (("r", "s"), "unrelated", "same_architecture_same_data"),
        (("r", "t"), "unrelated", "same_architecture_other_data"),
        (("r", "student"), "unrelated", "teacher_student"),
        (("tuned", "student"), "unrelated", "teacher_student"),
        (("r", "r2"), "shared_init", "shared_init"),
        (("tuned", "r2"), "shared_init", "shared_init"),
        (("r", "tuned"), "related", "descent"),
        (("pruned", "merged"), "related", "siblings"),
        (("moe", "merged"), "related", "siblings"),
        (("moe", "tuned"), "unrelated", "same_architecture_same_data"),
    ],
)
def test_relations(tree: FamilyTree, names: tuple[str, str], relation: str, kind: str) -> None:
    found = pair(tree, *names)
    assert (found.relation, found.kind) == (relation, kind)


def test_what_is_true_of_descent(tree: FamilyTree) -> None:
    found = pair(tree, "r", "tuned")
    assert found.later == ("b" if found.b == "tuned" else "a")
    assert found.steps == ("depth_drop", "fine_tune")
    assert found.strength == "fine_tune (tokens 500)"
    assert found.training == 0.5
    assert tree.training("pruned", "merged") == 0.0


def test_clusters_are_initialisations_and_sides_are_of_both(tree: FamilyTree) -> None:
    assert pair(tree, "r2", "s").clusters == ("r", "s")
    assert pair(tree, "r2", "s").side == "between"
    assert pair(tree, "r", "pruned").side == "fit"
    assert pair(tree, "s", "t").side == "test"
    assert tree.side("merged") == "between"


def test_maps_go_through_the_common_ancestor(tree: FamilyTree) -> None:
    assert tree.layer_truth("r", "tuned") == {0: {0}, 1: {2}}
    assert tree.layer_truth("tuned", "r") == {0: {0}, 1: {None}, 2: {1}}
    assert tree.layer_truth("merged", "tuned") == {0: {0}, 1: {2}}
    assert tree.layer_truth("s", "r") is None
    assert tree.expert_truth("s", "moe") == {(layer, e): {(layer, None)} for layer in range(3) for e in range(2)}
    assert tree.expert_truth("r", "tuned") is None


def test_the_choice_is_stable_and_keeps_its_counts(tree: FamilyTree) -> None:
    chosen = choose(tree, Want(related=4, shared_init=2, unrelated=7, hard=2))
    assert chosen == choose(tree, Want(related=4, shared_init=2, unrelated=7, hard=2))
    counts = {r: sum(p.relation == r for p in chosen) for r in ("related", "shared_init", "unrelated")}
    assert counts == {"related": 4, "shared_init": 2, "unrelated": 9}
    assert len({frozenset((p.a, p.b)) for p in chosen}) == 15
    assert {p.later for p in every_pair(tree) if p.kind == "descent"} == {"a", "b"}


def test_a_line_cut_short_is_scored_again(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.append("m", "1", "a b", {"score": 1.0})
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"pair": "a c", "vers')
    assert records.read("m", "1").keys() == {"a b"}
    records.append("m", "1", "a c", {"score": 2.0})
    records.append("m", "2", "a b", {"score": 3.0})
    assert records.read("m", "1").keys() == {"a b", "a c"}
    assert records.read("m", "2")["a b"]["score"] == 3.0


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(zoo: Path, tree: FamilyTree, tmp_path: Path) -> None:
    chosen = methods.find(("sigma_curve", "tests"), ())
    cases = [(p.key, zoo / p.a, zoo / p.b) for p in every_pair(tree)][:3]
    records = Records(tmp_path)
    tasks = runner.due(cases, chosen, records)
    assert [set(task.methods) for task in tasks] == [{"sigma_curve", "tests"}] * 3
    runner.run(tasks[:2], records, 1, ())
    before = (tmp_path / "tests.jsonl").read_text()
    left = runner.due(cases, chosen, records)
    assert [task.key for task in left] == [cases[2][0]]
    runner.run(left, records, 1, ())
    assert (tmp_path / "tests.jsonl").read_text().startswith(before)
    assert runner.due(cases, chosen, records) == []
    found = records.read("tests", chosen[1].version)
    assert all(record["verdict"] in ("inconclusive", "no_evidence") for record in found.values())


def test_a_method_that_raises_is_on_record(tmp_path: Path) -> None:
    task = runner.Task("x y", tmp_path / "x", tmp_path / "y", ("weightprint",))
    ((name, _, values),) = runner._one(task, ())
    assert name == "weightprint"
    assert "no such" in values["error"].lower() or "not found" in values["error"].lower() or "Error" in values["error"]
    assert values["applied"] is False


def test_a_peer_that_cannot_start_says_why(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho \'{"failed": "ImportError: no module"}\'\n')
    fake.chmod(0o755)
    from benches.lineage.score import peers

    found, reasons = peers.start([str(fake)])
    assert found == ()
    assert reasons == dict.fromkeys(peers.PEERS, "ImportError: no module")
    with pytest.raises(RuntimeError):
        Peer("modeldna", "1", str(fake))(tmp_path, tmp_path)


def record(verdict: str, log10_p: float, **more: Any) -> dict[str, Any]:
    base = {"verdict": verdict, "log10_p": log10_p, "share": {"value": 0.5, "low": 0.4, "high": 0.6}, "bytes": 10,
            "direction": {"later": None, "confidence": None}, "operations": [], "layer_map": [], "expert_map": [],
            "evidence": [], "seconds": 0.1}  # fmt: skip
    return base | more


def test_marks_against_the_truth(tree: FamilyTree) -> None:
    found = pair(tree, "r", "tuned")
    told = record(
        "shared_origin",
        -40.0,
        layer_map=[[0, 0, 0.9], [1, 1, 0.8]] if found.b == "tuned" else [[0, 0, 1.0], [1, 1, 1.0], [2, 1, 1.0]],
        direction={"later": found.later, "confidence": 0.7},
        operations=[{"name": "depth_drop", "parameters": {"dropped": [1]}}],
    )
    (row,) = pair_table.build(tree, [found], {"weightprint": {found.key: told}})
    assert row["weightprint"]["layers"] == ([1, 2, 2] if found.b == "tuned" else [2, 3, 3])
    assert row["weightprint"]["direction"] == "right"
    expected = [("depth_drop", 1, 1), ("fine_tune", 1, 0)] if found.later == "b" else []
    assert [(o["name"], o["pairs"], o["named"]) for o in operations_table([row])] == expected


def test_a_claim_ranks_above_any_p_value() -> None:
    claimed = pair_table.weightprint_score(record("partly_shared", -7.0))
    silent = pair_table.weightprint_score(record("inconclusive", -5000.0))
    initial = pair_table.weightprint_score(record("shared_initialisation", -5000.0))
    surer = pair_table.weightprint_score(record("partly_shared", -8.0))
    assert silent < initial < claimed < surer


@pytest.mark.parametrize(
    ("truth", "told", "right"),
    [(0.1, 0.1005, True), (0.1, 0.12, False), (4, 4, True), (4, 5, False), ("a", "a", True), ([1, 2], [1, 2], True)],
)
def test_parameters(truth: Any, told: Any, right: bool) -> None:
    assert same_parameter(truth, told) is right


def test_the_page_says_what_the_rows_say(tree: FamilyTree, tmp_path: Path) -> None:
    """A method that names two strangers and misses a child; weightprint that calls one stranger kin."""
    chosen = every_pair(tree)
    rng = np.random.default_rng(0)
    weightprint, sigma = {}, {}
    for p in chosen:
        kin = p.relation == "related"
        weightprint[p.key] = record("shared_origin" if kin else "inconclusive", -50.0 if kin else 0.0)
        sigma[p.key] = {"score": (0.8 if kin else 0.2) + 0.1 * rng.random(), "seconds": 0.01}
    strangers_ = [p for p in chosen if p.relation == "unrelated"]
    for p in strangers_[:2]:
        sigma[p.key]["score"] = 0.95
    weightprint[strangers_[2].key] = record("shared_origin", -9.0)
    found = pair_table.build(tree, chosen, {"weightprint": weightprint, "sigma_curve": sigma})
    path = tmp_path / "pairs.json.gz"
    pair_table.save(path, found)
    first = path.read_bytes()
    pair_table.save(path, pair_table.load(path))
    assert path.read_bytes() == first
    numbers = summary.summarise(pair_table.load(path))
    kin_pairs = sum(p.relation == "related" for p in chosen)
    assert numbers["methods"]["sigma_curve"]["all"]["above"] == {
        "related": [0, kin_pairs],
        "unrelated": [2, len(strangers_)],
    }
    assert numbers["verdicts"]["all"]["unrelated"]["claimed"]["value"] == pytest.approx(1 / len(strangers_))
    assert [row["a"] for row in numbers["false_claims"]] == [strangers_[2].a]
    assert numbers["misses"] == []
    about = {
        "zoo": summary.about_zoo(tree),
        "methods": {"sigma_curve": {"code": scored_with({key: {"version": "1a", "commit": "3c"} for key in "ab"})}},
        "peers": {},
        "peers_missing": {"x": "gone"},
        "machine": summary.machine(),
    }
    text = page.full(numbers, about, found[:3], (), tmp_path)
    assert f"it names 2 of {len(strangers_)} unrelated pairs" in text
    assert f"{strangers_[2].a} / {strangers_[2].b}" in text
    assert "x was not run: gone." in text
    assert "sigma_curve was scored with code 1a of commit 3c (2 pairs)." in text
    assert json.loads(json.dumps(numbers)) == json.loads(json.dumps(summary.summarise(found)))


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    score.add(parser.add_subparsers())
    return parser.parse_args(["score", *words])


def test_the_command_ends_with_the_table(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = parsed(["--zoo", str(zoo), "--output", str(tmp_path), "--methods", "sigma_curve,pcs", "--limit", "6"])
    args.run(args)
    shown = capsys.readouterr().out
    assert shown.startswith("method")
    assert len((tmp_path / "pcs.jsonl").read_text().splitlines()) == 6


def test_only_training_lies_between(tree: FamilyTree) -> None:
    assert pair(tree, "pruned", "tuned").trained_only
    assert not pair(tree, "r", "tuned").trained_only
    assert not pair(tree, "r", "merged").trained_only
    assert not pair(tree, "r", "s").trained_only


def test_the_regression_test_objects() -> None:
    fine = {"false_claims": [], "verdicts": {"all": {"related": {"claimed": {"value": 0.95}}}}}
    assert score.broken(fine, 0.9) == ""
    assert "0.95 of the related pairs" in score.broken(fine, 0.99)
    assert "x and y" in score.broken({**fine, "false_claims": [{"a": "x", "b": "y"}]}, 0.9)
    assert score.broken({"false_claims": [], "verdicts": {"all": {}}}, 0.9)


@pytest.mark.slow
def test_workers_end_with_a_killed_run_and_the_next_goes_on(zoo: Path, tmp_path: Path) -> None:
    words = ["--zoo", str(zoo), "--output", str(tmp_path), "--methods", "sigma_curve,tests"]
    command = [sys.executable, "-m", "benches.lineage", "score", *words]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    written = tmp_path / "tests.jsonl"
    deadline = time.monotonic() + 120
    while not written.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    process.kill()
    process.wait()
    before = len(written.read_bytes().splitlines())
    assert before >= 1
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(worker) for worker in workers)
    args = parsed([*words, "--limit", "1"])
    args.run(args)
    assert len(written.read_bytes().splitlines()) >= before + 1


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_rotations_are_tried_on_strangers_of_one_text_first(tree: FamilyTree) -> None:
    strangers_ = [p for p in every_pair(tree) if p.relation == "unrelated"]
    chosen = rotation_pairs(strangers_, 10)
    alike = [p.kind for p in chosen if p.kind.endswith("same_data") or p.kind == "teacher_student"]
    assert len(chosen) == len(set(chosen)) == 10
    assert 5 <= len(alike) <= 7
    assert "teacher_student" in alike


def test_synthetic_pairs_are_of_different_models() -> None:
    chosen = synthetic_pairs(1000)
    assert len(chosen) == len({frozenset(pair) for pair in chosen}) == 1000
    assert all(one != other for one, other in chosen)
    assert sum(one[0] == other[0] for one, other in chosen) >= 800


def test_one_in_two_thousand_is_not_nothing() -> None:
    assert percent(1 / 2050) == "0.049 %"
    assert percent(0.0) == "0.0 %"
    assert percent(2049 / 2050) == "99.951 %"
    assert rate({"value": 1 / 2050, "low": 0.0, "high": 0.01}, True) == "0.049 % [0.0–1.0]"
