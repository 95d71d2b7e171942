"""`python -m benches.lineage bands`: curves over depth of unrelated models, which reports draw behind those of a pair.

Every independently initialised and trained model of the zoo gives one curve per part: the standard deviation of its
matrices (or norm gains) block by block, standardised within the model as the sigma curve's authors do it
[2507.03014], at equal steps of relative depth. Every pair of such models with tensors of equal names and shapes gives
one curve of the relative change |B - A| / |A|. The bands hold the middle 90 % of the curves at each step. With the
smallest p-value that `score` has on record of unrelated pairs they go to python/weightprint/report/page/unrelated.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import weightprint
from numpy.typing import NDArray
from weightprint.evidence.tests import AS_STORED, DECIDING

from ..zoo.ground_truth import FamilyTree

UNRELATED = Path(__file__).resolve().parents[3] / "python" / "weightprint" / "report" / "page" / "unrelated.json"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "results.json"
PARTS = ("q", "k", "v", "o", "attn_norm", "ffn_norm")
_STEPS = 21
_MIDDLE = (0.05, 0.95)
_MIN_BLOCKS = 4

F64 = NDArray[np.float64]


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser("bands", help="curves of unrelated models, for the drawings of reports")
    parser.add_argument("--zoo", type=Path, default=Path("target/zoo"), help="folder of models (%(default)s)")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    """Write the bands of all independent models of the zoo."""
    tree = FamilyTree.read(args.zoo)
    roots = [name for name, first in tree.initialisation.items() if name == first]
    curves: dict[str, list[F64]] = defaultdict(list)
    for name in roots:
        for part, values in spreads(tree[name].folder).items():
            if len(values) >= _MIN_BLOCKS and np.std(values) > 0:
                curves[part].append(stretched((values - np.mean(values)) / np.std(values)))
    pairs = [p for p in itertools.combinations(roots, 2) if tree[p[0]].shape == tree[p[1]].shape]
    changes = [stretched(by_block(weightprint.diff(tree[a].folder, tree[b].folder))) for a, b in pairs]
    changed = {name for pair in pairs for name in pair}
    found = {part: band(curves[part], {"roots": len(curves[part])}) for part in PARTS if curves[part]}
    found["relative"] = band(changes, {"roots": len(changed), "pairs": len(pairs)})
    made = {"source": "python -m benches.lineage bands", "middle": 0.9, "curves": found, "p_values": smallest()}
    UNRELATED.write_text(json.dumps(made, separators=(",", ":")) + "\n")


def smallest() -> dict[str, Any]:
    """The most striking p-value that a test which may decide gave of an unrelated pair, and of how many pairs."""
    known = json.loads(RESULTS.read_text())["calibration"]
    rows = [row for test in AS_STORED if test.name in DECIDING and (row := known.get(f"weightprint.{test.name}"))]
    least = min(row["smallest_log10_p"] for row in rows)
    return {"log10_p": round(least, 2), "pairs": known["weightprint"]["n"]}


def spreads(folder: Path) -> Mapping[str, F64]:
    """Part → the standard deviation of its tensor in every block."""
    table = weightprint.scan(weightprint.anatomy(folder), of="canonical").table
    rows = zip(*(table[name] for name in ("role", "block", "std")), strict=True)
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for role, block, std in rows:
        if role in PARTS and block is not None:
            found[role][block] = std
    return {part: np.array([by[block] for block in sorted(by)]) for part, by in found.items()}


def by_block(found: weightprint.Diff) -> F64:
    """|B - A| / |A| of each block, over its tensors."""
    changed: dict[int, F64] = defaultdict(lambda: np.zeros(2))
    for row in found.table.to_records():
        numbers = [int(word) for word in row["name"].split(".") if word.isdigit()]
        if numbers and row["relative"] is not None:
            square = row["l2_a"] ** 2
            changed[numbers[0]] += (row["relative"] ** 2 * square, square)
    return np.array([np.sqrt(changed[block][0] / changed[block][1]) for block in sorted(changed)])


def stretched(curve: F64) -> F64:
    """A curve at equal steps from the first block to the last."""
    return np.interp(np.linspace(0, 1, _STEPS), np.linspace(0, 1, len(curve)), curve)


def band(curves: Iterable[F64], rests_on: Mapping[str, int]) -> dict[str, Any]:
    """The middle of many curves, and how many independent models they come from."""
    low, high = np.quantile(np.array(list(curves)), _MIDDLE, axis=0).round(3)
    return {**rests_on, "low": low.tolist(), "high": high.tolist()}
