"""`python -m benches.lineage populations [NAME …]`: what `compare` says of pairs whose truth is known by their making.

Every population is a row of `POPULATIONS`. Pairs are made when they are compared and gone afterwards; what was said is
appended to OUTPUT/NAME/EFFORT.jsonl, so that a second run continues where the first was stopped, and pairs that are on
record under the same version of the package are not run again. With `--write` the numbers go to
benches/lineage/results/NAME.json, from where the page takes them. Exit status 1 if strangers were called related.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..commands.calibrate import named, summed
from ..page.populations import population_page
from ..score import methods, p_value_levels, runner
from ..score.records import Record, Records, scored_with
from . import kinds, structured
from .case import STRANGERS, Case, Population, called

__all__ = ["POPULATIONS", "add", "summary"]

RESULTS = Path(__file__).resolve().parents[1] / "results"

POPULATIONS: dict[str, Population] = {
    "structured": Population("Independent models with strong directions of their own", structured.cases, 1000),
    "properties": Population("Strangers that share a property", kinds.strangers, 132, independent=False),
    "kin": Population("Kin that have the same properties", kinds.kin, 108, independent=False),
    "parts": Population("Strangers that hold one part", kinds.parts_alone, 120, independent=False),
    "hidden": Population("One part, in a stream that was turned", kinds.hidden, 50, independent=False),
}


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser("populations", help="pairs made for a purpose: strangers that share a property, parts")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(POPULATIONS)}")
    parser.add_argument("--pairs", type=int, help="at most so many of each (default: the population's own number)")
    parser.add_argument("--efforts", type=lambda text: tuple(text.split(",")), help="of " + ",".join(methods.EFFORTS))
    parser.add_argument("--output", type=Path, default=Path("target/populations"), help="records (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--any-version", action="store_true", help="keep records of earlier versions")
    parser.add_argument("--write", action="store_true", help="write benches/lineage/results/NAME.json")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    """Run what is missing, then print and write the numbers."""
    if unknown := [name for name in args.names if name not in POPULATIONS]:
        raise SystemExit(f"no population {unknown[0]!r}; there are: {', '.join(POPULATIONS)}")
    false = 0
    for name in args.names or POPULATIONS:
        population = POPULATIONS[name]
        cases = list(population.cases(args.pairs or population.pairs))
        chosen = methods.find(args.efforts or population.efforts, ())
        records = Records(args.output / name)
        tasks = runner.due([(case.name, case.a, case.b) for case in cases], chosen, records, args.any_version)
        runner.run(tasks, records, args.jobs, (), name)
        found = {m.name: records.read(m.name, None if args.any_version else m.version) for m in chosen}
        numbers = summary(population, cases, found)
        if args.write:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
        sys.stdout.write(population_page(numbers) + "\n\n")
        false += sum(effort["false"] for effort in numbers["efforts"].values())
    if false:
        raise SystemExit(f"strangers were called related {false} times")


def summary(population: Population, cases: Sequence[Case], found: Mapping[str, Mapping[str, Record]]) -> dict[str, Any]:
    """Right and wrong by effort and group; where pairs are independent strangers, also every p-value's rates."""
    efforts = {effort: _told(cases, records) for effort, records in found.items()}
    out: dict[str, Any] = {"title": population.title, "efforts": efforts}
    if population.independent:
        records = next(iter(found.values()))
        known = {case.name: records[case.name] for case in cases if case.name in records}
        numbers = summed(known)
        out |= {"tests": numbers["tests"], "uniform": numbers["uniform"], "fitted": _fitted(known)}
    return out


def _told(cases: Sequence[Case], records: Mapping[str, Record]) -> dict[str, Any]:
    """Counts, by group too, and the pairs whose answer is wrong."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    smallest: dict[str, float] = defaultdict(float)
    wrong, false = [], 0
    for case in cases:
        record = records.get(case.name)
        if record is None:
            continue
        groups[case.group][str(record.get("verdict", "error"))] += 1
        smallest[case.group] = min(smallest[case.group], record.get("log10_p") or 0.0)
        met = case.expected.met(record)
        groups[case.group]["right"] += met
        false += case.expected == STRANGERS and called(record)
        if not met:
            share = (record.get("share") or {}).get("value")
            wrong.append([case.name, record.get("verdict", record.get("error")), record.get("log10_p"), share])
    return {
        "pairs": sum(count.total() - count["right"] for count in groups.values()),
        "right": sum(count["right"] for count in groups.values()),
        "false": false,
        "groups": {g: {"smallest_log10_p": smallest[g], **count} for g, count in sorted(groups.items())},
        "wrong": wrong,
        "code": scored_with(records),
    }


def _fitted(known: Mapping[str, Record]) -> dict[str, Any]:
    """p-values of tests in a fitted basis, of the pairs on which they were run."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in known.values():
        for e in record.get("evidence", ()):
            if e["applied"] and e["log10_p"] is not None and (e.get("basis") or "identity") != "identity":
                values[named(e)].append(e["log10_p"])
    return {name: p_value_levels.calibration(p).to_dict() for name, p in sorted(values.items())}
