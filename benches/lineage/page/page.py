"""docs/lineage.md, and the short table that the command prints. Every sentence with a number in it is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..populations.populations import POPULATIONS
from ..score.pair_table import Row
from . import tables
from .direction import made_on_the_fly, who_was_first
from .markdown import number, percent
from .populations import population_page, strangers_page
from .trees import trees as trees_table

__all__ = ["full", "short"]

HEADING = """\
# The lineage benchmark

Written by `python -m benches.lineage score`; do not edit. Rows of all pairs: benches/lineage/results/pairs.json.gz; all
numbers: benches/lineage/results/results.json. Rebuild: `python -m benches.lineage build`, then
`python -m benches.lineage score --write`; both go on where they were stopped."""

READING = """\
**How to read the tables.** A *root* is a model trained from its own random initialisation. Two models are related if
trained weights of one root are in both; models that share only an initialisation are a class of their own, in none of
the rates; a distilled student is unrelated to its teacher. Pairs are many, roots are few: intervals (95 %) resample
roots, and the number of roots stands beside each rate. Roots are split in two: thresholds of weightprint were looked at
on the *fit* side only, and the tables are of the *test* side unless they say otherwise. *TPR at 1 %* is the share of
related pairs above the score that 1 % of the unrelated ones reach; among fewer than 1,000 strangers *at .1 %* means
above every one of them. An AUC of 1.000 has no width under resampling: read it with the number of roots. Where a method
does not apply to a pair it claims nothing there, and ranks the pair below all others."""

MADE = """\
Populations whose truth is known by their making (`python -m benches.lineage populations --write`); every model is made
for its pair. For models of one's own, of known and different origin: `python -m benches.lineage strangers DIR`."""


def full(
    numbers: Mapping[str, Any], about: Mapping[str, Any], real: Sequence[Row], drawn: Sequence[str], results: Path
) -> str:
    """The whole page; `real` are pairs of models of real size."""
    parts = [
        HEADING,
        tables.zoo(numbers, about),
        READING,
        "## Every method",
        tables.methods(numbers, "test"),
        tables.footnotes(numbers, about),
        _picture(drawn, results, "distributions", "Scores of all pairs, by relation"),
        "## What weightprint decides by itself",
        tables.decisions(numbers),
        "### Verdicts by kind of stranger and by operation",
        tables.verdict_table(numbers, ("strangers", "shared initialisation", "operation")),
        "### By strength",
        tables.verdict_table(numbers, ("operation and strength",)),
        "## How much training washes a fingerprint out",
        tables.washed(numbers),
        _picture(drawn, results, "power", "Evidence against training since the models parted"),
        "## Maps, direction, operations",
        tables.maps(numbers),
        tables.operations(numbers),
        *_told(results / "direction.json", "## Who came first", who_was_first),
        *_told(results / "new-operations.json", "## Operations made on the fly", made_on_the_fly),
        "## Where each method fails",
        tables.failures(numbers),
        "### weightprint's own failures",
        tables.own_failures(numbers),
        "## Claimed p against observed rate",
        tables.calibration(numbers["calibration"]),
        "## Time",
        tables.times(numbers, about),
        _picture(drawn, results, "time", "Seconds per pair against the size of both models"),
        tables.real_size(real),
        tables.large(_lines(results / "large.jsonl")),
        "## The same, on other sides",
        tables.methods(numbers, "all"),
        tables.methods(numbers, "fit"),
    ]
    calibrated = results / "calibration.json"
    if calibrated.exists():
        parts += ["## Calibration on independent models", tables.calibration_page(json.loads(calibrated.read_text()))]
    trees = results / "trees.json"
    if trees.exists():
        parts += ["## Trees of many models", trees_table(json.loads(trees.read_text()))]
    parts += _told(results / "strangers.json", "## Real models of different origin", strangers_page)
    made = [json.loads(path.read_text()) for name in POPULATIONS if (path := results / f"{name}.json").exists()]
    if made:
        parts += ["## Pairs made for a purpose", MADE, *map(population_page, made)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _told(path: Path, head: str, section: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """A section with its head, where its results are there."""
    return [head, section(json.loads(path.read_text()))] if path.exists() else []


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def short(numbers: Mapping[str, Any]) -> str:
    """What the command prints at its end."""
    lines = [f"{'method':34} {'pairs':>6} {'AUC':>6} {'at 1 %':>8} {'at .1 %':>8} {'applies':>8}"]
    side = "test" if any("test" in m for m in numbers["methods"].values()) else "all"
    for name, m in numbers["methods"].items():
        if side in m:
            found = m[side]
            tpr = found["tpr"]
            lines.append(
                f"{name:34} {found['auc']['pairs']:6d} {number(found['auc']['value']):>6} "
                f"{percent(tpr['0.01']['value']):>8} {percent(tpr['0.001']['value']):>8} {percent(found['applied']):>8}"
            )
    counts = numbers["pairs"][side]
    lines.append(f"on the {side} side: {counts}")
    for relation, rates in numbers["verdicts"]["all"].items():
        lines.append(
            f"{relation}: {percent(rates['claimed']['value'])} of {rates['claimed']['pairs']} pairs called related, "
            f"{percent(rates['inconclusive']['value'])} inconclusive"
        )
    return "\n".join(lines) + "\n"


def _picture(drawn: Sequence[str], results: Path, name: str, caption: str) -> str:
    file = f"{name}.png"
    return f"![{caption}](../benches/lineage/results/{file})" if file in drawn and results else ""
