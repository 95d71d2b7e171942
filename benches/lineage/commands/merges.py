"""How often recipes are right: methods, weights, a missing parent, and parents beside wrong candidates.

    python -m benches.lineage merges --zoo target/zoo

Cases are the zoo's merges and more that are made here from its models, seeded: of fine-tunes of one root and of two
roots of one shape, with every method at drawn strengths, stored as bfloat16 and float32 in turn. Three questions of
each: the recipe with all parents (is the method right, are the weights within .02, and t of SLERP), the recipe without
the last parent (is it said that something is missing), and parents looked for beside 30 wrong candidates of the same
form. A candidate is wrong if it neither is a parent nor holds one's weights untrained (a renamed parent, another merge
of it); ancestors and siblings of the parents are among them. Limits may be looked at on the fit side only. Counts of
both sides go to benches/lineage/results/merges.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import weightprint
from weightprint.compare.recipe import Recipe

from ..zoo.ground_truth import FamilyTree
from ..zoo.model_folder import ZooModel, load, save
from ..zoo.operations.table import OPERATIONS

RESULT = Path(__file__).resolve().parents[1] / "results" / "merges.json"
METHODS = {
    "linear_merge": "linear",
    "slerp_merge": "slerp",
    "task_arithmetic": "task_arithmetic",
    "ties_merge": "ties",
    "dare_merge": "dare_linear",
}
WRONG = 30
_NEAR = 0.02


@dataclass(frozen=True)
class Case:
    """A merge whose making is known. ``folder`` holds it; ``parameters`` are the operation's."""

    name: str
    side: str
    folder: Path
    parents: tuple[str, ...]
    operation: str
    parameters: Mapping[str, Any]


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser("merges", help="how often recipes of merges are right (20 minutes)")
    parser.add_argument("--zoo", type=Path, default=Path("target/zoo"), help="folder of models (%(default)s)")
    parser.add_argument("--side", choices=("fit", "test"), action="append", help="side of the split (default: both)")
    parser.add_argument("--made", type=int, default=60, help="cases that are made on a side, at most (%(default)s)")
    parser.add_argument("--searched", type=int, default=2, help="every so many-th made case is searched (%(default)s)")
    parser.add_argument("--only", default="", help="cases whose names hold this; nothing is written then")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    tree = FamilyTree.read(args.zoo)
    sides = args.side or ["fit", "test"]
    told: dict[str, dict[str, Counter[str]]] = {side: defaultdict(Counter) for side in sides}
    misses: dict[str, list[str]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as scratch:
        for side in sides:
            made = list(itertools.islice(_made(tree, side, Path(scratch)), args.made))
            cases = [(case, True) for case in _of_zoo(tree, side)]
            cases += [(case, k % args.searched == 0) for k, case in enumerate(made)]
            for case, searched in cases:
                if args.only in case.name:
                    print(case.name, flush=True)
                    _score(tree, case, searched, told[side], misses[side])
    out = {
        side: {question: dict(sorted(counts.items())) for question, counts in questions.items()}
        for side, questions in told.items()
    }
    for side, questions in out.items():
        for question, counts in questions.items():
            print(f"{side:5} {question:32} {counts.get('right', 0):4} of {sum(counts.values()):4}  {counts}")
    if not args.only:
        before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        before.update({side: {**questions, "misses": misses[side]} for side, questions in out.items()})
        RESULT.write_text(json.dumps(before, indent=1) + "\n")


# Cases


def _of_zoo(tree: FamilyTree, side: str) -> Iterator[Case]:
    """The zoo's models whose one step is a merge."""
    for name in tree:
        truth = tree[name].truth
        last: Mapping[str, Any] = truth.operations[-1] if truth.operations else {"name": ""}
        if last["name"] in METHODS and len(truth.parents) > 1 and tree.side(name) == side:
            yield Case(name, side, tree[name].folder, truth.parents, last["name"], last["parameters"])


def _made(tree: FamilyTree, side: str, scratch: Path) -> Iterator[Case]:
    """More merges, of fine-tunes of a root and of two roots of one shape."""
    rng = random.Random(f"merges {side}")
    roots = [n for n in tree.roots if tree.side(n) == side and tree[n].truth.kind == "root"]
    for root in roots:
        tuned = [n for n in tree if n.startswith(f"{root}-tuned-") and len(tree[n].truth.operations) == 1]
        others = [n for n in roots if n != root and tree[n].shape == tree[root].shape]
        for k, (operation, parents, parameters) in enumerate(_drawn(rng, root, tuned, others)):
            name = f"{root}-made-{k + 1}-{operation}"
            yield _case(tree, name, side, parents, operation, parameters, scratch, "F32" if k % 2 else "BF16")


def _drawn(
    rng: random.Random, root: str, tuned: Sequence[str], others: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    def some(low: float, high: float, n: int = 2) -> list[float]:
        return [round(rng.uniform(low, high), 2) for _ in range(n)]

    if others:
        pair = (root, rng.choice(others))
        w = rng.choice((0.5, 0.3, 0.15))
        yield "linear_merge", pair, {"weights": [1 - w, w]}
        yield "slerp_merge", pair, dict(zip(("first", "last"), some(0.1, 0.9), strict=True))
    if len(tuned) < 2:
        return
    first, second = rng.sample(list(tuned), 2)
    pair = (first, second)
    (w,) = some(0.1, 0.9, 1)
    yield "linear_merge", pair, {"weights": [w, 1 - w]}
    yield "slerp_merge", pair, dict(zip(("first", "last"), some(0.1, 0.9), strict=True))
    yield "task_arithmetic", (root, *pair), {"weights": some(0.3, 1.0)}
    yield "ties_merge", (root, *pair), {"density": some(0.1, 0.7, 1)[0], "scale": some(0.5, 1.0, 1)[0]}
    yield "dare_merge", (root, *pair), {"drop": some(0.3, 0.95, 1)[0], "weights": some(0.3, 0.8)}


def _case(
    tree: FamilyTree,
    name: str,
    side: str,
    parents: tuple[str, ...],
    operation: str,
    parameters: Mapping[str, Any],
    scratch: Path,
    dtype: str,
) -> Case:
    made = OPERATIONS[operation]([load(tree[p].folder) for p in parents], 7, **parameters)
    tensors = {n: x.astype(ml_dtypes.bfloat16) if dtype == "BF16" else x for n, x in made.tensors.items()}
    truth = replace(made.truth, name=name)
    save(scratch / name, ZooModel(tensors, made.config, truth))
    return Case(name, side, scratch / name, parents, operation, truth.operations[-1]["parameters"])


# Scores


def _score(tree: FamilyTree, case: Case, searched: bool, told: dict[str, Counter[str]], misses: list[str]) -> None:
    parents = [tree[p].folder for p in case.parents]

    def count(question: str, right: bool, note: str = "") -> None:
        told[question]["right" if right else "wrong"] += 1
        told[f"{question}: {case.operation}"]["right" if right else "wrong"] += 1
        if not right:
            misses.append(f"{question}: {case.name}: {note}")
            print("   ", misses[-1], flush=True)

    found = weightprint.recipe(case.folder, parents)
    count("method", _method_right(case, found), f"{found.method} {found.unexplained:.2g}")
    count("weights", (far := _farthest(case, found)) <= _NEAR, f"off by {far:.3f}")
    if case.operation == "slerp_merge":
        ts = [t for *_, t in found.parameters.get("t_by_layer", ())]
        far = float(np.max(np.abs(np.array(ts) - case.parameters["t"]))) if ts else 1.0
        count("t of SLERP", far <= _NEAR, f"off by {far:.3f}")
    count("a missing parent is said", not weightprint.recipe(case.folder, parents[:-1]).explained)
    if searched:
        _search(tree, case, count)


def _search(tree: FamilyTree, case: Case, count: Any) -> None:
    wrong = [n for n in tree if tree.side(n) == case.side and n != case.name and not _holds(tree, n, case)]
    form = tree[case.parents[0]].truth.form
    same = [n for n in wrong if tree[n].truth.form == form]
    rng = random.Random(case.name)
    pool = rng.sample(same, min(WRONG, len(same)))
    pool += rng.sample([n for n in wrong if n not in same], WRONG - len(pool))
    pool = sorted([*pool, *case.parents])
    found = weightprint.recipe(case.folder, candidates=[tree[n].folder for n in pool])
    named = {Path(name).name for name in found.parents} if found.explained else set()
    count("parents found among candidates", set(case.parents) <= named, f"{sorted(named)}")
    count("no wrong candidate named", named <= set(case.parents), f"{sorted(named - set(case.parents))}")


def _holds(tree: FamilyTree, name: str, case: Case) -> bool:
    """A parent, its weights with no training since, or a descendant of the merge."""
    if case.name in tree.members and case.name in tree.paths(name):
        return True
    for parent in case.parents:
        if parent in tree.paths(name) and not any(_trains(o) for o in tree.operations(parent, name)):
            return True
    return False


def _trains(operation: Mapping[str, Any]) -> bool:
    return any(word in operation["name"] for word in ("tune", "train", "wash"))


def _weights(case: Case) -> list[float]:
    """What the operation was told, as the recipe says it: λ over a base, or weights."""
    given = case.parameters
    if case.operation == "ties_merge":
        return [float(given.get("scale", 1.0))] * (len(case.parents) - 1)
    return [float(w) for w in given.get("weights", ())]


def _method_right(case: Case, found: Recipe) -> bool:
    """λ that sum to no more than one are a linear mix with the base in it: the same arithmetic."""
    wanted = METHODS[case.operation]
    if wanted == "task_arithmetic" and sum(_weights(case)) <= 1 + _NEAR:
        return found.method in ("task_arithmetic", "linear")
    return found.method == wanted


def _farthest(case: Case, found: Recipe) -> float:
    """The largest error of a weight; of SLERP, which has none of its own, of its weights' sum along the layers."""
    by_name = {Path(w.parent).name: w.value for w in found.weights}
    if found.method in ("task_arithmetic", "ties", "dare_linear", "dare_ties"):
        by_name = {Path(name).name: value for name, value in found.parameters["scales"].items()}
    if case.operation == "slerp_merge":
        ts = [t for *_, t in found.parameters.get("t_by_layer", ())]
        return float(abs(np.mean(ts) - np.mean(case.parameters["t"]))) if ts else 1.0
    names = case.parents if case.operation == "linear_merge" else case.parents[1:]
    return max(abs(by_name.get(name, 0.0) - w) for name, w in zip(names, _weights(case), strict=True))
