"""`python -m benches.lineage score`: every method on every chosen pair of the zoo, then the tables and the page.

Output folder (default: scores/ beside the zoo's models):

    METHOD.jsonl      one line per pair, appended as it is scored; a second run continues where the first was killed

and, with `--write`, the committed results: benches/lineage/results/, docs/lineage.md and the error rates that reports
print (python/weightprint/verdict/error_rates.json). `--report` scores nothing and computes them again from
results/pairs.json.gz. `--real` keeps the scores of a zoo of real size (`real-scale`) in results/real.json.gz, from
where the next report takes them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from weightprint.evidence.tests import PUBLISHED

from ..page import page, plots, summary
from ..score import methods, pair_table, pairs, peers, runner
from ..score.records import Records, scored_with
from ..zoo import ground_truth

HERE = Path(__file__).resolve().parents[1]
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "lineage.md"
ERROR_RATES = HERE.parents[1] / "python" / "weightprint" / "verdict" / "error_rates.json"
ZOO, SMALL_ZOO = Path("target/zoo"), Path("target/zoo-small")
SMALL = pairs.Want(related=60, shared_init=10, unrelated=60, hard=20)


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser("score", help="score every method on the zoo's pairs and write the tables")
    parser.add_argument("--small", action="store_true", help="the small zoo and at most 150 pairs (minutes)")
    parser.add_argument("--zoo", type=Path, help=f"folder of models (default: {ZOO}; small: {SMALL_ZOO})")
    parser.add_argument("--output", type=Path, help="where scores are kept (default: ZOO/scores)")
    parser.add_argument("--methods", type=lambda text: tuple(text.split(",")), help="like weightprint,ucka (all)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--related", type=int, default=pairs.Want.related, help="related pairs (%(default)s)")
    parser.add_argument("--unrelated", type=int, default=pairs.Want.unrelated, help="unrelated pairs (%(default)s)")
    parser.add_argument("--any-version", action="store_true", help="keep scores of earlier versions; the page says so")
    parser.add_argument("--limit", type=int, help="score at most so many pairs that lack a record, then stop")
    parser.add_argument("--peer-python", action="append", default=[], help="an interpreter with a peer tool (repeat)")
    parser.add_argument("--real", action="store_true", help="these are models of real size: a section of their own")
    parser.add_argument("--write", action="store_true", help="write benches/lineage/results and docs/lineage.md")
    parser.add_argument(
        "--check",
        type=float,
        metavar="SHARE",
        help="exit with 1 if a stranger is called related, or fewer than this share of the related pairs are",
    )
    parser.add_argument("--report", action="store_true", help="score nothing: write them again from the results")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    """Score, then print the table; with `--write`, write results and page."""
    if args.report:
        found = pair_table.load(RESULTS / "pairs.json.gz")
        about = json.loads((RESULTS / "about.json").read_text())
    else:
        found, about = _score(args)
    numbers = summary.summarise(found)
    sys.stdout.write(page.short(numbers))
    if args.write and args.real:
        pair_table.save(RESULTS / "real.json.gz", found)
    elif args.write or args.report:
        RESULTS.mkdir(parents=True, exist_ok=True)
        pair_table.save(RESULTS / "pairs.json.gz", found)
        (RESULTS / "about.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
        (RESULTS / "results.json").write_text(json.dumps(numbers, separators=(",", ":")) + "\n")
        ERROR_RATES.write_text(json.dumps(error_rates(numbers), indent=1) + "\n")
        real = pair_table.load(RESULTS / "real.json.gz") if (RESULTS / "real.json.gz").exists() else []
        drawn = plots.draw(found, real, numbers, RESULTS)
        PAGE.write_text(page.full(numbers, about, real, drawn, RESULTS))
    if args.check is not None and (why := broken(numbers, args.check)):
        raise SystemExit(f"benchmark: {why}")


def error_rates(numbers: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of all pairs: what they are → what was said → how many of how many, roots, and the upper end of the interval."""
    return {
        relation: {
            said: {
                "n": round(share["value"] * share["pairs"]),
                "pairs": share["pairs"],
                "roots": share["roots"],
                "at_most": round(share["high"], 4),
            }
            for said, share in shares.items()
        }
        for relation, shares in numbers["verdicts"]["all"].items()
    }


def broken(numbers: dict[str, Any], at_least: float) -> str:
    """What a regression test objects to; empty if nothing."""
    if false := numbers["false_claims"]:
        return f"{len(false)} pairs of strangers are called related, the first: {false[0]['a']} and {false[0]['b']}"
    claimed = numbers["verdicts"]["all"].get("related", {}).get("claimed", {"value": None})
    if claimed["value"] is None or claimed["value"] < at_least:
        return f"{claimed['value']} of the related pairs are called related, less than {at_least}"
    return ""


def _score(args: argparse.Namespace) -> tuple[list[pair_table.Row], dict[str, Any]]:
    zoo = args.zoo or (SMALL_ZOO if args.small else ZOO)
    known = ground_truth.FamilyTree.read(zoo)
    want = SMALL if args.small else pairs.Want(args.related, unrelated=args.unrelated)
    chosen = pairs.choose(known, want)
    started, reasons = peers.start(args.peer_python)
    picked = methods.find(args.methods, started)
    records = Records(args.output or zoo / "scores")
    cases = [(p.key, known[p.a].folder, known[p.b].folder) for p in chosen]
    tasks = runner.due(cases, picked, records, args.any_version)
    runner.run(tasks[: args.limit], records, args.jobs, started)
    every = methods.find(None, started)
    found = {m.name: records.read(m.name, None if args.any_version else m.version) for m in every}
    about: dict[str, Any] = {
        "zoo": summary.about_zoo(known),
        "methods": {m.name: {"code": scored_with(found[m.name])} for m in every},
        "peers": {peer.name: peer.version for peer in started},
        "peers_missing": reasons,
        "machine": summary.machine(),
        "seed": 0,
    }
    rows = pair_table.build(known, chosen, found, [test.name for test in PUBLISHED])
    return rows, about | _kept(rows, about["methods"])


def _kept(rows: list[pair_table.Row], code: dict[str, Any]) -> dict[str, Any]:
    """Methods without a record here keep what the committed results say of a pair; their names, for the page."""
    if not (RESULTS / "pairs.json.gz").exists():
        return {}
    before = {(row["a"], row["b"]): row["methods"] for row in pair_table.load(RESULTS / "pairs.json.gz")}
    about = json.loads((RESULTS / "about.json").read_text())
    kept = set()
    for row in rows:
        for name, answer in before.get((row["a"], row["b"]), {}).items():
            if name not in row["methods"] and not name.startswith("weightprint"):
                row["methods"][name] = answer
                kept.add(name)
    code |= {name: told for name, told in about["methods"].items() if not code.get(name, {}).get("code")}
    return {"peers": about["peers"], "peers_missing": {}, "kept": sorted(kept)} if kept else {}
