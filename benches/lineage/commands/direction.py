"""How often "training or only a common initialisation?" and each sign of direction are right, on pairs of a zoo.

    python -m benches.lineage direction --zoo target/zoo --side test
    python -m benches.lineage direction --zoo target/zoo --side both --output benches/lineage/results/direction.json

The second asks for the whole answer (signs and parting), writes every pair, and draws t beside it
(:mod:`..score.parting`).

Truth comes from :mod:`.pairs`. A pair of kin "shares training"; a pair whose roots began from the same random weights
and have no trained ancestor in common shares its initialisation only. For kin where one comes from the other, a sign of
direction is right if it names the later one; for siblings any claim is wrong. Limits may be looked at with ``--side
fit`` only; the counts in `weightprint.evidence.training_shared` and `weightprint.verdict.direction` are of the test
side.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from weightprint.evidence.pair import ModelPair
from weightprint.evidence.same_values import same_values
from weightprint.evidence.training_shared import TrainingShared, training_shared
from weightprint.evidence.unit_agreement import unit_agreement
from weightprint.verdict.direction_cues import SIGNS
from weightprint.verdict.direction_samples import Seen

from ..page import plots
from ..score import pairs, parting
from ..score.open_models import OpenModels
from ..zoo.ground_truth import FamilyTree

SURE = ("descent", "shared_initialisation")


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser(
        "direction", help="how often direction, and shared training or initialisation, are told right"
    )
    parser.add_argument("--zoo", type=Path, default=Path("target/zoo"), help="folder of models (%(default)s)")
    parser.add_argument(
        "--side", choices=("fit", "test", "both"), default="test", help="side of the split (%(default)s)"
    )
    parser.add_argument("--output", type=Path, help="write the whole answer on every pair here, and a plot beside it")
    parser.add_argument("--siblings", type=int, default=120, help="pairs of siblings, at most (%(default)s)")
    parser.add_argument("--no-direction", action="store_true", help="only the former: seconds and not minutes")
    parser.add_argument("--pairs", action="store_true", help="print every pair")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    tree, models_of = FamilyTree.read(args.zoo), OpenModels()
    if args.output is not None:
        _whole(tree, models_of, args)
        return
    shared_counts: dict[str, Counter[str]] = defaultdict(Counter)
    roots: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    signs: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in _chosen(tree, args.side, args.siblings):
        models = models_of.models(tree[pair.a].folder, tree[pair.b].folder)
        shared = training_shared(models)
        if shared.applied:
            truth = "shared_initialisation" if pair.relation == pairs.SHARED_INIT else "descent"
            said = shared.told(TrainingShared).reads_as
            outcome = "right" if said == truth else "wrong" if said in SURE else "either"
            for row in (truth, _distance(pair)):
                shared_counts[row][outcome] += 1
                for cluster in pair.clusters:
                    roots[row][outcome].add(cluster)
        if args.pairs:
            told = shared.told(TrainingShared) if shared.applied else None
            numbers = told and {k: v for k, v in told.items() if k in ("reads_as", "r_a", "r_b", "gains", "cosine")}
            print(pair.kind, pair.a, pair.b, shared.why_not or numbers, *pair.steps, flush=True)
        if not args.no_direction and pair.relation == pairs.RELATED:
            _count_signs(models, shared, pair, signs)
    _print(shared_counts, roots, signs)


def _whole(tree: FamilyTree, models_of: OpenModels, args: argparse.Namespace) -> None:
    """The answer on every pair; written again and again, so that nothing is lost where it ends early."""
    rows = []
    kin = [p for p in _chosen(tree, args.side, args.siblings) if p.relation == pairs.RELATED]
    for n, pair in enumerate(sorted(kin, key=lambda p: p.kind)):
        rows.append(parting.row(tree, models_of, pair))
        if args.pairs:
            print({k: v for k, v in rows[-1].items() if k != "parting"}, flush=True)
        if n % 25 == 0:
            parting.write(rows, args.output)
    parting.write(rows, args.output)
    plots.draw_partings(rows, args.output.with_suffix(".png"))
    for key, counted in parting.summary(rows).items():
        print(key, *(counted.items() if isinstance(counted, dict) else counted), sep="\n    ")


def _chosen(tree: FamilyTree, side: str, siblings: int) -> Iterable[pairs.Pair]:
    """Every parent with every descendant, every shared initialisation, and some siblings."""
    want = pairs.Want(related=10_000, shared_init=10_000, unrelated=0)
    left = siblings
    for pair in pairs.choose(tree, want):
        if pair.side not in (("fit", "test") if side == "both" else (side,)) or pair.relation == pairs.UNRELATED:
            continue
        if pair.kind == "siblings":
            left -= 1
        if pair.kind != "siblings" or left >= 0:
            yield pair


def _distance(pair: pairs.Pair) -> str:
    """What lies between the two, in a word."""
    if pair.relation == pairs.SHARED_INIT:
        return "  same initialisation"
    if pair.kind == "siblings":
        return "  siblings"
    if pair.trained_only and pair.training is not None:
        return "  trained on, " + ("3x" if pair.training > 2 else "1x" if pair.training > 0.7 else "less")
    return "  edited"


def _count_signs(models: ModelPair, shared: Any, pair: pairs.Pair, signs: dict[str, Counter[str]]) -> None:
    found = (same_values(models), unit_agreement(models), shared)
    seen = Seen(models, {evidence.test: evidence for evidence in found})
    claims = [(sign.name, f.later) for sign in SIGNS if (f := sign.holds(seen)) is not None]
    for name, later in claims:
        outcome = "right" if later == pair.later else "siblings" if pair.later is None else "wrong"
        signs[name][outcome] += 1
        if outcome != "right":
            print(f"    {name}: {outcome}: {pair.a} {pair.b} {' '.join(pair.steps)}", flush=True)
    sides = {later for _, later in claims}
    verdict = "silent" if not sides else "contradict" if len(sides) > 1 else "claimed"
    if verdict == "claimed":
        verdict = "siblings" if pair.later is None else "right" if sides == {pair.later} else "wrong"
    signs["all signs together"][("" if pair.later else "siblings, ") + verdict if verdict == "silent" else verdict] += 1


def _print(
    shared_counts: dict[str, Counter[str]], roots: dict[str, dict[str, set[str]]], signs: dict[str, Counter[str]]
) -> None:
    print(f"{'training_shared':28} pairs  right either  wrong  roots  of them wrong")
    for row, count in shared_counts.items():
        seen = set().union(*roots[row].values())
        print(
            f"{row:28} {count.total():5} {count['right']:6} {count['either']:6} {count['wrong']:6} "
            f"{len(seen):6} {len(roots[row]['wrong']):6}"
        )
    for name, count in signs.items():
        print(f"{name:28} {dict(count)}")
