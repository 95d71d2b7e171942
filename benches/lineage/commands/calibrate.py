"""`python -m benches.lineage calibrate`: claimed p-values against observed rates on pairs of independent models.

    synthetic    strangers of five forms (:mod:`.strangers`), most pairs of one form, the rest across forms
    zoo          every pair of the zoo's independently initialised and trained models
    rotations    strangers of the zoo for which alignments of the residual channels were tried, at least half of them
                 trained on the same data with the same vocabulary, distilled students among them
    fitted       the same strangers with a signed permutation and a rotation fitted on their shared tokens, each pair,
                 worth a look or not: the tests and the verdict in both
    sceptr       twelve small published encoders, 66 pairs, where the tests' cache holds them

Two things are looked at: whether P(p <= alpha) <= alpha for the p-values that verdicts are made of (bounds, on the safe
side), and whether the ranks of B among permuted copies of itself are uniform (two-sided Kolmogorov-Smirnov), which
tests the nulls themselves, of exchangeability.

Every pair runs every test and the verdict; a pair that is on record under the same version of the package is not run
again. Results go to benches/lineage/results/calibration.json and onto the page.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..page.tables import calibration_page
from ..score import methods, p_value_levels, pairs, runner
from ..score.records import Record, Records, scored_with
from ..zoo import strangers
from ..zoo.ground_truth import FamilyTree

RESULT = Path(__file__).resolve().parents[1] / "results" / "calibration.json"
SCEPTR = (
    "A_SCEPTR", "B_SCEPTR", "SCEPTR", "SCEPTR_BLOSUM", "SCEPTR_CDR3_only", "SCEPTR_CDR3_only_MLM_only",
    "SCEPTR_MLM_only", "SCEPTR_average_pooling", "SCEPTR_dropout_noise_only", "SCEPTR_left_aligned",
    "SCEPTR_shuffled_data", "SCEPTR_synthetic_data",
)  # fmt: skip
#: Share of the synthetic pairs whose models have the same form: there, more can be confused.
_WITHIN = 0.85

Case = tuple[str, Path, Path]


def add(commands: Any) -> None:
    """Add the subcommand to the parser of `python -m benches.lineage`."""
    parser = commands.add_parser("calibrate", help="p-values and verdicts on pairs of independent models")
    parser.add_argument("--pairs", type=int, default=5000, help="synthetic pairs (%(default)s)")
    parser.add_argument("--rotations", type=int, default=1000, help="pairs of the zoo for alignments (%(default)s)")
    parser.add_argument("--zoo", type=Path, default=Path("target/zoo"), help="folder of models (%(default)s)")
    parser.add_argument("--scores", type=Path, help="output folder of `score` (default: ZOO/scores)")
    parser.add_argument("--sceptr", type=Path, default=_cache() / "sceptr", help="folder of SCEPTR_*.safetensors")
    parser.add_argument(
        "--output", type=Path, default=Path("target/calibrate"), help="records and models (%(default)s)"
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help="of " + ",".join(PARTS))
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--any-version", action="store_true", help="keep records of earlier versions")
    parser.add_argument("--write", action="store_true", help="write benches/lineage/results/calibration.json")
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> None:
    """Run what is missing, then print and write the tables."""
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for part in args.parts:
        answer = PARTS[part](args)
        if answer is None:
            sys.stderr.write(f"{part}: no models, left out\n")
            continue
        found[part] = answer
        if args.write:
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(calibration_page({part: found[part] for part in args.parts if part in found}) + "\n")


def _cache() -> Path:
    return Path(os.environ.get("WEIGHTPRINT_TEST_CACHE") or ".cache/models")


def synthetic_pairs(n: int) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """Names and seeds of n pairs: models of a form in a ring, each with its nearest neighbours, so that none is in many
    pairs; the rest between forms of one width (with two widths no test has a p-value)."""
    forms = sorted(strangers.FORMS)
    within = round(_WITHIN * n)
    size = max(4, n // 50)
    out = []
    for k, form in enumerate(forms):
        share = within // len(forms) + (k < within % len(forms))
        ring = ((i, (i + step) % size) for step in range(1, (size + 1) // 2) for i in range(size))
        out += [((form, i), (form, j)) for i, j in itertools.islice(ring, share)]
    width = {form: strangers.FORMS[form].d for form in forms}
    across = itertools.cycle([x for x in itertools.combinations(forms, 2) if width[x[0]] == width[x[1]]])
    for i in range(n - len(out)):
        one, other = next(across)
        out.append(((one, i % size), (other, (7 * i + i // size) % size)))
    return sorted(out)


def _synthetic(args: argparse.Namespace) -> Record | None:
    folder = args.output / "models"
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for one, other in synthetic_pairs(args.pairs):
        a, b = strangers.write(folder, *one), strangers.write(folder, *other)
        cases.append((f"{a.name} {b.name}", a, b))
    return summed(_run(cases, "tests", args.output / "synthetic", args, "synthetic"))


def _sceptr(args: argparse.Namespace) -> Record | None:
    files = [path for name in SCEPTR if (path := args.sceptr / f"{name}.safetensors").exists()]
    cases = [(f"{a.stem} {b.stem}", a, b) for a, b in itertools.combinations(files, 2)]
    return summed(_run(cases, "tests", args.output / "sceptr", args, "sceptr")) if cases else None


def _zoo_pairs(zoo: Path) -> tuple[FamilyTree, list[pairs.Pair]] | None:
    if not any(zoo.glob("*/truth.json")):
        return None
    tree = FamilyTree.read(zoo)
    return tree, [pair for pair in pairs.every_pair(tree) if pair.relation == pairs.UNRELATED]


def _zoo(args: argparse.Namespace) -> Record | None:
    known = _zoo_pairs(args.zoo)
    if known is None:
        return None
    tree, unrelated = known
    roots = set(tree.roots)
    chosen = [pair for pair in unrelated if {pair.a, pair.b} <= roots]
    return _on_zoo(args, tree, chosen, "zoo", "tests", args.output / "zoo")


def rotation_pairs(unrelated: Sequence[pairs.Pair], n: int) -> list[pairs.Pair]:
    """At least half on the same data: teachers with their students, then those of one architecture, then by a hash."""

    def key(pair: pairs.Pair) -> tuple[bool, bool, bytes]:
        return (
            pair.kind != "teacher_student",
            pair.kind != pairs.HARDEST,
            hashlib.sha256(f"rotation {pair.key}".encode()).digest(),
        )

    ordered = sorted(unrelated, key=key)
    alike: dict[bool, list[pairs.Pair]] = {True: [], False: []}
    for pair in ordered:
        alike[pair.kind.endswith("same_data") or pair.kind == "teacher_student"].append(pair)
    same, other = alike[True], alike[False]
    half = min(len(same), max(n - len(other), round(0.7 * n)))
    return same[:half] + other[: n - half]


def _rotations(args: argparse.Namespace) -> Record | None:
    known = _zoo_pairs(args.zoo)
    if known is None:
        return None
    tree, unrelated = known
    scored = {pair.key for pair in pairs.choose(tree, pairs.Want())}  # `score` has most of these on record
    chosen = rotation_pairs([p for p in unrelated if p.key in scored], args.rotations)
    chosen += rotation_pairs([p for p in unrelated if p.key not in scored], args.rotations - len(chosen))
    return _on_zoo(args, tree, chosen, "rotations")


def _fitted(args: argparse.Namespace) -> Record | None:
    known = _zoo_pairs(args.zoo)
    if known is None:
        return None
    tree, unrelated = known
    return _on_zoo(args, tree, rotation_pairs(unrelated, args.rotations), "fitted", "fitted", args.output / "fitted")


def _on_zoo(
    args: argparse.Namespace,
    tree: FamilyTree,
    chosen: Sequence[pairs.Pair],
    label: str,
    method: str = "weightprint",
    folder: Path | None = None,
) -> Record:
    """Records of `score` are used as they are, and what is missing is added to them."""
    cases = [(p.key, tree[p.a].folder, tree[p.b].folder) for p in chosen]
    found = _run(cases, method, folder or args.scores or args.zoo / "scores", args, label)
    # Ranks of pairs are independent only where the models are: one pair for every two initialisations.
    first = {frozenset(p.clusters): p.key for p in reversed(chosen)}
    out = summed(found, set(first.values()))
    out["kinds"] = dict(Counter(p.kind for p in chosen if p.key in found))
    out["roots"] = len({root for p in chosen for root in p.clusters})
    out["searched"] = sum(any(e["test"] == "alignment" for e in r.get("evidence", ())) for r in found.values())
    tried = {key: _bases(record) for key, record in found.items()}
    by_key = {p.key: p for p in chosen}
    out["aligned"] = {
        basis: dict(Counter(by_key[key].kind for key, bases in tried.items() if basis in bases))
        for basis in sorted(set().union(*tried.values()))
    }
    return out


def _bases(record: Record) -> set[str]:
    """Alignments that were tried on a pair; `*` marks one found through shared tokens."""
    names = {(e.get("basis") or "identity", bool(e.get("semantic"))) for e in record.get("evidence", ())}
    return {f"{basis}{'*' if semantic else ''}" for basis, semantic in names if basis != "identity"}


def _run(cases: Iterable[Case], method: str, folder: Path, args: argparse.Namespace, label: str) -> dict[str, Record]:
    cases = list(cases)
    chosen = methods.find((method,), ())
    records = Records(folder)
    runner.run(runner.due(cases, chosen, records, args.any_version), records, args.jobs, (), label)
    known = records.read(method, None if args.any_version else chosen[0].version)
    return {key: known[key] for key, _, _ in cases if key in known}


def summed(found: Mapping[str, Record], independent: Container[str] | None = None) -> Record:
    """Verdicts, every p-value's rates, and how uniform the ranks of ``independent`` pairs are (all if None)."""
    values: dict[str, list[float]] = defaultdict(list)
    smallest: dict[str, tuple[float, str]] = {}
    ranks: dict[str, list[float]] = defaultdict(list)
    claims = []
    for key, record in found.items():
        claimed = [(named(e), e["log10_p"]) for e in record.get("evidence", ()) if e["applied"]]
        claimed.append(("verdict", record.get("log10_p")))
        for name, p in claimed:
            if p is not None:
                values[name].append(p)
                smallest[name] = min(smallest.get(name, (1.0, "")), (p, key))
        for e in record.get("evidence", ()):
            if e.get("rank_p") is not None and (independent is None or key in independent):
                ranks[named(e)].append(e["rank_p"])
        if record.get("verdict") not in ("inconclusive", "no_evidence"):
            claims.append([key, record.get("verdict"), record.get("log10_p")])
    return {
        "pairs": len(found),
        "verdicts": dict(Counter(str(record.get("verdict", "error")) for record in found.values())),
        "claims": claims,
        "code": scored_with(found),
        "uniform": {name: p_value_levels.uniformity(p) for name, p in sorted(ranks.items())},
        "tests": {
            name: p_value_levels.calibration(p).to_dict() | {"worst": smallest[name][1], "run": len(values[name])}
            for name, p in sorted(p_value_levels.with_silent(values).items())
        },
    }


def named(evidence: Mapping[str, Any]) -> str:
    """`test@basis`; `*` marks an alignment found through shared tokens."""
    basis = evidence.get("basis") or "identity"
    return (
        evidence["test"] if basis == "identity" else f"{evidence['test']}@{basis}{'*' if evidence['semantic'] else ''}"
    )


PARTS = {"synthetic": _synthetic, "zoo": _zoo, "rotations": _rotations, "fitted": _fitted, "sceptr": _sceptr}
