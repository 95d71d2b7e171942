"""Operations made on the fly on models of a zoo: are they named with what was done, and never where they weren't?

    python -m benches.lineage new-operations --zoo target/zoo --side fit

Every operation below is done at its strengths to some roots of the zoo, and told by `compare` in both orders: right in
the order of descent if it is named with the parameters it was done with, and nothing is named beside it. False namings
are counted on pairs of a parent and a child of the zoo, both ways, and on roots trained apart; there the readers of
operations look at what stands in place, without a verdict that could forbid them to.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import weightprint
from weightprint.compare.compare import judge
from weightprint.compare.pipeline import examine, gather
from weightprint.operations.changes import measured
from weightprint.operations.table import operations
from weightprint.util.ranges import evenly
from weightprint.verdict.facts import Facts

from ..score.open_models import OpenModels
from ..zoo.ground_truth import FamilyTree, Member
from ..zoo.model_folder import load, save
from ..zoo.operations.table import OPERATIONS

Parameters = Mapping[str, Any]

#: Operation → whether what was told of it is what was done.
RIGHT: Mapping[str, Callable[[Parameters, Parameters], bool]] = {
    "directional_ablation": lambda told, done: (
        abs(told["strength"] - done["strength"]) < 0.03
        and told["rescaled"] == bool(done["rescaled"])
        and told["sharing"] == told["of"]
    ),
    "low_rank_factorised": lambda told, done: told["ranks"] == done["ranks"],
    "orthogonal_multipliers": lambda told, done: (
        (told["block"], told["side"]) == (done["block"], done["side"])
        and abs(told["angle"] - done["angle"]) < 0.1 * done["angle"]
    ),
    "attention_replaced": lambda told, done: (
        tuple(told["kept"]) == tuple(done["kept"])
        and told["layers"] == told["of"]
        and ("latent" in told["to"]) == (done["form"] == "latent")
    ),
    "experts_merged": lambda told, done: _same_means(told["groups"], done["made"]),
}
#: Told of how values are stored, which the benchmark's writer changes by itself.
STORED = {"re_dtype", "transpose"}


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser("new-operations", help="operations made on the fly: named, right, never elsewhere")
    parser.add_argument("--zoo", type=Path, default=Path("target/zoo"), help="folder of models (%(default)s)")
    parser.add_argument("--side", choices=("fit", "test"), default="test", help="side of the split (%(default)s)")
    parser.add_argument("--roots", type=int, default=3, help="of every form, for each strength (%(default)s)")
    parser.add_argument("--others", type=int, default=200, help="pairs for false namings, at most (%(default)s)")
    parser.add_argument("--only", choices=RIGHT, help="one operation")
    parser.add_argument("--output", type=Path, help="write the counts here as well: results/new-operations.json")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    tree = FamilyTree.read(args.zoo)
    members = [m for m in tree.members.values() if m.split == args.side]
    counts: dict[str, Counter[str]] = {name: Counter() for name in ([args.only] if args.only else RIGHT)}
    for name, count in counts.items():
        for root, strength in _made(members, name, args.roots):
            _score(name, root, strength, count)
    print(f"{'operation':24} pairs  named  right  nothing else")
    for name, count in counts.items():
        print(f"{name:24} {count['pairs']:5} {count['named']:6} {count['right']:6} {count['alone']:6}")
    pairs, false = _elsewhere(members, args.others)
    print(f"other pairs: {pairs}, with a false name: {sum(false.values())} {dict(false)}")
    if args.output is not None:
        told = {"side": args.side, "operations": {k: dict(v) for k, v in counts.items()}}
        args.output.write_text(json.dumps(told | {"others": pairs, "false": dict(false)}, indent=1) + "\n")


def _made(members: list[Member], name: str, roots: int) -> Iterator[tuple[Member, Parameters]]:
    operation = OPERATIONS[name]
    for form in operation.forms:
        fitting = sorted(
            (m for m in members if m.truth.form == form and m.truth.kind == "root"), key=lambda m: m.nbytes
        )
        for root in fitting[:roots]:
            yield from ((root, strength) for strength in operation.strengths)


def _score(name: str, root: Member, strength: Parameters, count: Counter[str]) -> None:
    made = OPERATIONS[name]([load(root.folder)], 7, **strength)
    done = made.truth.operations[0]["parameters"]
    with tempfile.TemporaryDirectory() as folder:
        child = save(Path(folder) / "child", made)
        with weightprint.open(root.folder) as a, weightprint.open(child) as b:
            m = examine(a, b)[2]
            past = judge(m, gather(m)).history
    told = {o.name: o.parameters for o in (past.operations_if.get("a_first") or past.operations)}
    right = name in told and RIGHT[name](told[name], done)
    alone = told.keys() - STORED == {name}
    count.update(pairs=1, named=name in told, right=right, alone=alone)
    if not (right and alone):
        print(f"    {root.name} {name} {dict(strength)}: {told.get(name)} {sorted(told)}", flush=True)


def _elsewhere(members: list[Member], most: int) -> tuple[int, Counter[str]]:
    """(pairs looked at, false names)."""
    by_name = {m.name: m for m in members}
    kin = [(by_name[m.truth.parents[0]], m) for m in members if m.truth.parents and m.truth.parents[0] in by_name]
    roots = [m for m in members if not m.truth.parents]
    apart = [(x, y) for x, y in pairwise(roots) if x.shape == y.shape]
    opened, false, pairs = OpenModels(), Counter[str](), 0
    for a, b in (*evenly([p for p in kin if _other(p[1])], most), *apart):
        for one, other in ((a, b), (b, a)):
            facts = Facts(opened.models(one.folder, other.folder), ())
            names = {o.name for o in operations(facts, measured(facts))} & RIGHT.keys()
            false.update(names)
            pairs += 1
            if names:
                print(f"    {one.name} {other.name}: {sorted(names)}", flush=True)
    return pairs, false


def _other(child: Member) -> bool:
    return not any(step["name"] in RIGHT for step in child.truth.operations)


def _same_means(told: Any, done: Any) -> bool:
    """The same experts in every mean, by weights within .02."""
    one, other = (
        {(layer, g, e): w for layer, rows in groups for g, row in enumerate(rows) for e, w in row.items()}
        for groups in (told, done)
    )
    return one.keys() == other.keys() and all(abs(one[key] - other[key]) < 0.02 for key in one)
