"""`python -m benches.lineage strangers DIR`: real models of known, different origin, every pair of a folder compared.

DIR holds models: files, or folders as `weightprint compare` takes them. DIR/origins.json may say {"NAME": "ORIGIN"};
models of one origin are not compared, and a model that isn't named is its own. Pairs are compared in both orders, at
every effort, with config.json and without; with `--towers` every stack of a model with several (the two halves of an
encoder-decoder, a vision tower) stands as a model of its own, too.

None may be called related, and the exit status is 1 if one is. What was said is appended to RECORDS/EFFORT.jsonl; a
second run continues there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import weightprint

from ..commands.calibrate import named
from ..page.markdown import log10
from ..score import methods, runner
from ..score.records import Record, Records, scored_with
from ..zoo.model_folder import write_safetensors
from .case import Maker, called

__all__ = ["Model", "Pair", "add", "compared", "models", "pairs", "summary"]

Pair = tuple[str, Path | Maker, Path | Maker]

CONFIGS = ("with", "without")
_KEPT = 2.0  #: evidence below ten to minus this goes into the JSON
RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Model:
    """One model, or one stack of it."""

    name: str
    path: Path
    origin: str
    stack: str | None = None

    def makers(self) -> dict[str, Path | Maker]:
        """The model with its config and without; a stack that is cut out has none, and is the same in both."""
        if self.stack is not None:
            return dict.fromkeys(CONFIGS, partial(cut_out, self.path, self.stack))
        return {"with": self.path, "without": partial(without_config, self.path)}

    @property
    def has_config(self) -> bool:
        root = self.path if self.path.is_dir() else self.path.parent
        return self.stack is None and (root / "config.json").exists()


def models(folder: Path, same: Iterable[Sequence[str]] = (), towers: bool = False) -> list[Model]:
    """What there is to compare; raises SystemExit for an origin of a model that isn't there."""
    path = folder / "origins.json"
    origins: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    for names in same:
        origins |= dict.fromkeys(names, names[0])
    out: list[Model] = []
    for child in sorted(folder.iterdir()):
        if child.name.startswith(".") or child.suffix == ".json":
            continue
        try:
            with weightprint.open(child) as opened:
                stacks = list(weightprint.anatomy(opened).geometry) if towers else []
        except (weightprint.WeightprintError, OSError) as error:
            sys.stderr.write(f"{child.name}: left out, {error}\n")
            continue
        origin = origins.get(child.name, child.name)
        out.append(Model(child.name, child, origin))
        if towers and len(stacks) > 1:
            out += [Model(f"{child.name}:{stack}", child, origin, stack) for stack in stacks]
    if unknown := origins.keys() - {model.name for model in out}:
        raise SystemExit(f"an origin is given for {', '.join(sorted(unknown))}, but there is no such model in {folder}")
    return out


def pairs(known: Sequence[Model], configs: Sequence[str] = CONFIGS) -> Iterator[Pair]:
    """(key, A, B) of every ordered pair of different origin; once where neither has a config to leave out."""
    for a, b in itertools.permutations(known, 2):
        if a.origin == b.origin:
            continue
        either = a.has_config or b.has_config
        for config in configs if either else configs[:1]:
            yield f"{a.name}\t{b.name}\t{config}", a.makers()[config], b.makers()[config]


def without_config(model: Path, folder: Path) -> Path:
    """The same files (hard links where the file system has them); what its makers say about it left out."""
    folder.mkdir()
    files = sorted(model.iterdir()) if model.is_dir() else [model]
    for file in files:
        if file.suffix != ".json" or file.name.endswith(".index.json"):
            try:
                os.link(file.resolve(), folder / file.name)
            except OSError:  # on another file system
                shutil.copyfile(file, folder / file.name)
    return folder if model.is_dir() else folder / model.name


def cut_out(model: Path, stack: str, folder: Path) -> Path:
    """The tensors of one stack, as they are stored; packed codes as the values that they stand for."""
    anatomy = weightprint.anatomy(model)
    names = {a.view.weight for a in anatomy.assignments if a.place.stack == stack}
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", {name: anatomy.weights.read(name) for name in sorted(names)})
    return folder


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser("strangers", help="a folder of models of known, different origin: none may be called")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--same", action="append", default=[], metavar="NAME,NAME…", help="of one origin (repeat)")
    parser.add_argument("--efforts", default=",".join(methods.EFFORTS), help="%(default)s")
    parser.add_argument("--config", choices=(*CONFIGS, "both"), default="both", help="%(default)s")
    parser.add_argument("--towers", action="store_true", help="every stack as a model of its own, too")
    parser.add_argument("--records", type=Path, help="where answers are kept (default: target/strangers/DIR's name)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="write all of it as JSON")
    parser.add_argument("--write", action="store_true", help="write results/strangers.json, for the page")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    known = models(args.folder, [names.split(",") for names in args.same], args.towers)
    cases = list(pairs(known, CONFIGS if args.config == "both" else (args.config,)))
    if not cases:
        raise SystemExit(f"{args.folder} holds no two models of different origin")
    records = Records(args.records or Path("target/strangers") / args.folder.resolve().name)
    numbers = summary(known, compared(cases, args.efforts.split(","), records, args.jobs))
    sys.stdout.write(_shown(numbers))
    if args.output:
        args.output.write_text(json.dumps(numbers, indent=1) + "\n")
    if args.write:
        told = {e: {k: v for k, v in found.items() if k != "unlikely"} for e, found in numbers["efforts"].items()}
        (RESULTS / "strangers.json").write_text(json.dumps(numbers | {"efforts": told}, indent=1) + "\n")
    if any(effort["called"] or effort["errors"] for effort in numbers["efforts"].values()):
        raise SystemExit(1)


def compared(
    cases: Sequence[Pair], efforts: Sequence[str], records: Records, jobs: int
) -> dict[str, dict[str, Record]]:
    """Effort → key → what was said; what is on record is not asked again."""
    found: dict[str, dict[str, Record]] = {}
    for method in methods.find(efforts, ()):
        runner.run(runner.due(cases, [method], records), records, jobs, (), f"effort {method.name}")
        on_record = records.read(method.name, method.version)
        found[method.name] = {key: on_record[key] for key, _, _ in cases}
    return found


def summary(known: Sequence[Model], found: Mapping[str, Mapping[str, Record]]) -> dict[str, Any]:
    """Verdicts by effort, what was called, and the extremes of all others."""
    efforts = {}
    for effort, records in found.items():
        rows = [_row(key, record) for key, record in records.items()]
        rest = [row for row in rows if not row["called"]]
        tests = [(row, e) for row in rest for e in row["evidence"]]
        efforts[effort] = {
            "pairs": len(rows),
            "verdicts": dict(Counter(row["verdict"] for row in rows)),
            "called": [row for row in rows if row["called"]],
            "errors": [row for row in rows if row["verdict"] == "error"],
            "code": scored_with(records),
            "smallest": _extreme(tests, lambda e: e["log10_p"]),
            "largest": _extreme(tests, lambda e: -(e["effect"] or 0.0)),
            "unlikely": [
                row | {"evidence": [e for e in row["evidence"] if e["log10_p"] < -_KEPT]}
                for row in rest
                if any(e["log10_p"] < -_KEPT for e in row["evidence"])
            ],
        }
    return {"models": {model.name: model.origin for model in known}, "efforts": efforts}


def _row(key: str, record: Record) -> dict[str, Any]:
    a, b, config = key.split("\t")
    evidence = [
        {"test": named(e), "log10_p": e["log10_p"], "effect": e["effect"]}
        for e in record.get("evidence", ())
        if e["applied"] and e["log10_p"] is not None
    ]
    return {
        "a": a, "b": b, "config": config, "verdict": record.get("verdict", "error"), "called": called(record),
        "log10_p": record.get("log10_p"), "error": record.get("error"), "evidence": evidence,
    }  # fmt: skip


def _extreme(tests: Sequence[tuple[dict[str, Any], dict[str, Any]]], key: Any) -> dict[str, Any] | None:
    if not tests:
        return None
    row, e = min(tests, key=lambda found: key(found[1]))
    return {"a": row["a"], "b": row["b"], "config": row["config"], **e}


def _shown(numbers: Mapping[str, Any]) -> str:
    count = Counter(numbers["models"].values())
    lines = [f"{len(numbers['models'])} models of {len(count)} origins"]
    for effort, told in numbers["efforts"].items():
        verdicts = ", ".join(f"{n} {v.replace('_', ' ')}" for v, n in sorted(told["verdicts"].items()))
        lines.append(f"\n{effort}: {told['pairs']} comparisons ({verdicts}); called: {len(told['called'])}")
        for row in (*told["called"], *told["errors"]):
            said = row["error"] or f"{row['verdict'].replace('_', ' ')}, log10 p {log10(row['log10_p'])}"
            lines.append(f"  {row['a']}  {row['b']}  ({row['config']} config): {said}")
        for words, found in (("smallest log10 p", told["smallest"]), ("largest effect", told["largest"])):
            if found:
                effect = "–" if found["effect"] is None else f"{found['effect']:.3f}"
                lines.append(
                    f"  of the rest, {words}: {found['test']} log10 p {log10(found['log10_p'])}, effect {effect}, "
                    f"{found['a']}  {found['b']}"
                )
    return "\n".join(lines) + "\n"
