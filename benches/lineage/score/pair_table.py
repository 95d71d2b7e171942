"""One row per pair: what is true of it, and what every method said. This is what the tables are computed from.

The rows are kept in the repository (results/pairs.json.gz), so the page can be computed again, and argued with, without
the models.

weightprint's score for a ranking is its verdict first and -log10 p within it: verdicts that claim shared weights stand
above all others, and within a verdict the surer one is higher. Its answers are marked against the truth here, because
the truth of a map is in the zoo and not in the row.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..zoo.ground_truth import FamilyTree
from .pairs import Pair
from .records import Record

__all__ = ["CLAIMS", "SHARED_INIT_VERDICT", "build", "load", "save"]

#: Verdicts that claim shared trained weights, the strongest claim first.
CLAIMS = ("identical", "re_encoded", "shared_origin", "partly_shared")
SHARED_INIT_VERDICT = "shared_initialisation"
_TIER = {name: float(10 - i) for i, name in enumerate(CLAIMS)} | {SHARED_INIT_VERDICT: 1.0}
_SPAN = 1e6

Row = dict[str, Any]


def build(
    tree: FamilyTree, pairs: Sequence[Pair], known: Mapping[str, Mapping[str, Record]], published: Collection[str] = ()
) -> list[Row]:
    """Rows of all pairs; a method without a record of a pair is not in its row. ``published`` names the measures that
    are methods of their own when they stand in weightprint's answer."""
    rows = []
    for pair in pairs:
        row: Row = {**pair.to_dict(), "parameters": [tree[n].parameters for n in (pair.a, pair.b)]}
        row["forms"] = [tree[n].truth.form for n in (pair.a, pair.b)]
        row["kinds"] = [tree[n].truth.kind for n in (pair.a, pair.b)]
        row["nbytes"] = [tree[n].nbytes for n in (pair.a, pair.b)]
        row["methods"] = {}
        for name, records in known.items():
            record = records.get(pair.key)
            if record is None:
                continue
            if name == "weightprint":
                row["weightprint"] = _marked(tree, pair, record)
                row["methods"][name] = _answer(record, weightprint_score(record))
                row["methods"] |= _tests(record, published)
            else:
                row["methods"][name] = _answer(record, record.get("score"))
                for part, score in (record.get("more") or {}).items():
                    row["methods"][f"{name}.{part}"] = _answer(record, score)
        rows.append(row)
    return rows


def weightprint_score(record: Record) -> float | None:
    """The verdict's tier, then -log10 p; None if compare failed."""
    if "verdict" not in record:
        return None
    return _TIER.get(record["verdict"], 0.0) * _SPAN + min(_SPAN - 1, -(record["log10_p"] or 0.0))


def _answer(record: Record, score: float | None) -> Row:
    out: Row = {"score": None if score is None else _short(score), "seconds": _time(record.get("seconds"))}
    for key in ("why_not", "error"):
        if record.get(key):
            out["why_not"] = record[key]
    for key in ("verdict", "called"):
        if key in record and "log10_p" not in record:
            out[key] = record[key]
    return out


def _tests(record: Record, published: Collection[str]) -> dict[str, Row]:
    """The tests in weightprint's answer as methods: its own with -log10 p where they have one, else the statistic, and
    an alignment's kind in the name; published measures with the statistic."""
    out: dict[str, Row] = {}
    for e in record.get("evidence", ()):
        if e["test"] in published:
            out[e["test"]] = {
                "score": _short(e["statistic"] if e["applied"] else None),
                "seconds": _time(e["seconds"]),
            }
            if e.get("why_not"):
                out[e["test"]]["why_not"] = e["why_not"]
            continue
        basis = e.get("basis") or "identity"
        name = f"weightprint.{e['test']}"
        if basis != "identity":
            name += f"@{basis}{'*' if e.get('semantic') else ''}"
        score = None if not e["applied"] else e["statistic"] if e["log10_p"] is None else -e["log10_p"]
        known = out.get(name)
        if known is not None and (score is None or (known["score"] is not None and known["score"] >= score)):
            continue
        out[name] = {"score": _short(score), "seconds": _time(e["seconds"]), "log10_p": _short(e["log10_p"])}
    return out


def _marked(tree: FamilyTree, pair: Pair, record: Record) -> Row:
    """weightprint's answer, and how much of it is right. None where there is nothing to be right about."""
    if "verdict" not in record:
        return {"verdict": "error", "error": record.get("error")}
    later = record["direction"].get("later")
    layers = _layers_right(tree.layer_truth(pair.a, pair.b), record["layer_map"])
    experts = _experts_right(tree.expert_truth(pair.a, pair.b), record["expert_map"])
    return {
        "verdict": record["verdict"],
        "log10_p": _short(record["log10_p"]),
        "share": _short(record["share"]["value"]),
        "share_low": _short(record["share"]["low"]),
        "share_high": _short(record["share"]["high"]),
        "bytes": record["bytes"],
        "direction": None if later is None else "right" if later == pair.later else "wrong",
        "direction_confidence": record["direction"].get("confidence"),
        "operations": [{"name": o["name"], "parameters": _plain(o["parameters"])} for o in record["operations"]],
        "truth": _truth_of_operations(tree, pair),
        "layers": layers,
        "experts": experts,
    }


def _truth_of_operations(tree: FamilyTree, pair: Pair) -> list[Row]:
    if pair.later is None:
        return []
    early, late = (pair.a, pair.b) if pair.later == "b" else (pair.b, pair.a)
    done = tree.operations(early, late)
    return [{"name": o["name"], "parameters": _plain(o.get("parameters", {}))} for o in done]


def _plain(parameters: Mapping[str, Any]) -> Row:
    """Numbers, words, truth values and short lists; long ones and tables would make the file large."""
    plain = (int, float, str, bool)
    kept = {
        key: value
        for key, value in parameters.items()
        if isinstance(value, plain) or (isinstance(value, list) and len(value) <= 64)
    }
    return {key: _short(value) if isinstance(value, float) else value for key, value in kept.items()}


def _layers_right(truth: Mapping[int, set[int | None]] | None, told: Sequence[Sequence[Any]]) -> list[int] | None:
    """[rows right, rows in truth, rows claimed] of a layer map; None for strangers."""
    if truth is None:
        return None
    said = {int(row[0]): row[1] for row in told}
    right = sum(said.get(layer) in origins for layer, origins in truth.items())
    return [right, len(truth), sum(a is not None for a in said.values())]


def _experts_right(
    truth: Mapping[tuple[int, int | None], set[tuple[int, int | None]]] | None, told: Sequence[Sequence[Any]]
) -> list[int] | None:
    """[rows right, rows in truth, rows claimed] of an expert map: a row is right if it names the sources, no other and
    none less; None where B's experts, or the ones it was made from, are not known."""
    if not truth:
        return None
    said: dict[tuple[int, int | None], set[tuple[int, int | None]]] = defaultdict(set)
    for b_layer, expert, a_layer, _, a_expert, *_ in told:
        said[b_layer, expert].add((a_layer, a_expert))
    return [sum(said.get(key) == sources for key, sources in truth.items()), len(truth), len(said)]


def _time(x: float | None) -> float | None:
    return None if x is None else float(f"{x:.2g}")


def _short(x: float | None) -> float | None:
    """Six significant digits: enough for every table, and the same on every machine."""
    return None if x is None else float(f"{x:.6g}")


def save(path: Path, rows: Sequence[Row]) -> None:
    """Compressed JSON lines, the same bytes for the same rows."""
    text = "".join(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in rows)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, compresslevel=9) as file:
        file.write(text.encode())
    path.write_bytes(buffer.getvalue())


def load(path: Path) -> list[Row]:
    """What :func:`save` wrote."""
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]
