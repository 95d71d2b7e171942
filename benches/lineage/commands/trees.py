"""How often trees are right: the families of a zoo, with and without the models that others descend from.

    python -m benches.lineage trees --zoo target/zoo --side fit

Every family is asked for with two strangers beside it, three times: with all its models; without its root; and with
every inner model hidden (what other models were made from), so that only leaves are left. Edges are counted as
:mod:`..score.trees` says. Limits may be looked at on the fit side only. Counts of both sides go to
benches/lineage/results/trees.json, family by family, so that what ends early is not lost; families that are there
already are kept (``--again`` asks anew).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import weightprint
from weightprint.results.lineage import Lineage

from ..score.trees import counts, rates, true_parents
from ..zoo.ground_truth import FamilyTree

RESULT = Path(__file__).resolve().parents[1] / "results" / "trees.json"
STRANGERS = 2


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser("trees", help="how often trees of descent are right (an hour)")
    parser.add_argument("--zoo", type=Path, default=Path("target/zoo"), help="folder of models (%(default)s)")
    parser.add_argument("--side", choices=("fit", "test"), action="append", help="side of the split (default: both)")
    parser.add_argument("--family", action="append", default=[], help="the root of a family (default: all)")
    parser.add_argument("--again", action="store_true", help="also families that were asked for before")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    tree = FamilyTree.read(args.zoo)
    done: dict[str, Any] = json.loads(RESULT.read_text())["families"] if RESULT.exists() else {}
    for side in args.side or ["fit", "test"]:
        for root, names in _families(tree, side).items():
            if (args.family and root not in args.family) or (root in done and not args.again):
                continue
            strangers = _strangers(tree, side, names)
            done[root] = {"side": side, **_score(tree, args.zoo, names, strangers)}
            _write(done)
            print(root, {k: rates([v])["f1"] for k, v in done[root].items() if k != "side"}, flush=True)
    for side, found in _summary(done).items():
        print(side, found, sep="\n    ")


def _families(tree: FamilyTree, side: str) -> dict[str, list[str]]:
    """Root → the models that descend from it and from no other, three and more."""
    out: dict[str, list[str]] = {}
    for name in tree:
        if len(tree[name].truth.roots) == 1 and tree.side(name) == side:
            out.setdefault(tree[name].truth.roots[0], []).append(name)
    return {root: names for root, names in out.items() if len(names) > 2}


def _strangers(tree: FamilyTree, side: str, names: Sequence[str]) -> list[str]:
    """Models of other families, the first of the same form: the hardest to keep apart."""
    others = [n for n in tree if tree.side(n) == side and not any(tree.meet(n, m) for m in names)]
    random.Random(names[0]).shuffle(others)
    form = tree[names[0]].truth.form
    others.sort(key=lambda n: tree[n].truth.form != form)
    chosen: list[str] = []
    for name in others:
        if len(chosen) < STRANGERS and not any(tree.meet(name, m) for m in chosen):
            chosen.append(name)
    return chosen


def _score(tree: FamilyTree, zoo: Path, names: Sequence[str], strangers: Sequence[str]) -> dict[str, Any]:
    root = tree[names[0]].truth.roots[0]
    inner = {parent for name in names for parent in true_parents(tree, name)}
    cases = {
        "all": [*names, *strangers],
        "root hidden": [n for n in names if n != root],
        "inner hidden": [n for n in names if n not in inner],
    }
    return {case: counts(tree, _asked(zoo, models)) for case, models in cases.items() if len(models) > 2}


def _asked(zoo: Path, names: Sequence[str]) -> Lineage:
    found = weightprint.lineage([zoo / name for name in names])
    short = {str(zoo / name): name for name in names}

    def of(name: str) -> str:
        return short.get(name, name)

    return replace(
        found,
        models=tuple(map(of, found.models)),
        groups=tuple(tuple(map(of, group)) for group in found.groups),
        roots=tuple(map(of, found.roots)),
        edges=tuple(replace(e, parent=of(e.parent), child=of(e.child)) for e in found.edges),
        unplaced=tuple(replace(row, model=of(row.model)) for row in found.unplaced),
    )


def _summary(done: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for side in ("fit", "test"):
        rows = [row for row in done.values() if row["side"] == side]
        cases = dict.fromkeys(key for row in rows for key in row if key != "side")
        out[side] = {case: rates([row[case] for row in rows if case in row]) for case in cases}
    return out


def _write(done: Mapping[str, Any]) -> None:
    RESULT.write_text(json.dumps({"summary": _summary(done), "families": done}, indent=1) + "\n")
