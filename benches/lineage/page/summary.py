"""Every number of the page, computed from the rows."""

from __future__ import annotations

import os
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from weightprint.evidence.tests import PUBLISHED, TESTS

from ..score import p_value_levels
from ..score.metrics import Bootstrap, Ranking, separation
from ..score.operations_score import operations_table
from ..score.pair_table import CLAIMS, Row
from ..score.pairs import RELATED, SHARED_INIT, UNRELATED
from ..zoo.ground_truth import FamilyTree

__all__ = ["GROUPS", "SIDES", "SPOKEN_FROM", "about_zoo", "machine", "scores_of", "summarise", "verdicts_of"]

#: How published measures are read by those who use them: the score from which on they speak of a common origin.
#: sigma_curve: the 0.9 of [2507.03014] and its critics; the others: half of what their papers report for
#: continued pre-training, far above the strangers of the same papers.
SPOKEN_FROM = {"sigma_curve": 0.9, "norm_curve": 0.9, "bias_curve": 0.9, "ucka": 0.2, "crs": 0.2}

#: Training apart, in units of the root's own: the bands of the table.
_BANDS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
_FINE = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 6.0, 12.0)

#: Of the table of verdicts, in order.
GROUPS = ("strangers", "shared initialisation", "operation", "operation and strength")

#: Sets of pairs that everything is computed on; `all` includes pairs with one model on either side.
SIDES = ("test", "fit", "all")
_LISTED = 5


def scores_of(rows: Sequence[Row], method: str) -> NDArray[np.float64]:
    """Score per row, NaN where the method was not run or does not apply."""
    values = [row["methods"].get(method, {}).get("score") for row in rows]
    return np.array([np.nan if v is None else v for v in values], np.float64)


def method_names(rows: Iterable[Row]) -> list[str]:
    """All methods in the rows: weightprint, its tests in their order, the published measures in theirs, other tools.
    Tests in an alignment are none: they are run on the pairs where they are likely to find something."""
    seen: dict[str, None] = {}
    for row in rows:
        seen.update(dict.fromkeys(name for name in row["methods"] if "@" not in name))
    named = ["weightprint", *(f"weightprint.{test.name}" for test in TESTS), *(test.name for test in PUBLISHED)]
    place = {name: i for i, name in enumerate(named)}
    return sorted(seen, key=lambda name: (not name.startswith("weightprint"), place.get(name, len(place)), name))


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """All tables. Deterministic: the bootstrap's seed is fixed."""
    by_side = {side: [r for r in rows if side == "all" or r["side"] == side] for side in SIDES}
    boots = {side: Bootstrap([r["clusters"] for r in some]) for side, some in by_side.items()}
    return {
        "pairs": _counts(rows),
        "methods": {name: _method(name, by_side, boots) for name in method_names(rows)},
        "verdicts": {side: _verdicts(by_side[side], boots[side]) for side in SIDES},
        "verdict_table": verdicts_of(by_side["all"]),
        "operations": operations_table(rows),
        "washing": _washing(by_side["all"], boots["all"]),
        "washing_by_method": _washing_by_method(by_side["all"]),
        "maps": _maps(by_side["all"], boots["all"]),
        "direction": _direction(by_side["all"], boots["all"]),
        "calibration": _calibration(by_side["all"]),
        "misses": _misses(rows),
        "false_claims": _false_claims(rows),
        "bytes": _bytes(rows),
    }


def _bytes(rows: Sequence[Row]) -> dict[str, float] | None:
    """Bytes that weightprint reads, in sizes of both files: median and most."""
    read = [
        r["weightprint"]["bytes"] / sum(r["nbytes"])
        for r in rows
        if (r.get("weightprint") or {}).get("bytes") is not None
    ]
    return {"median": float(np.median(read)), "most": float(max(read))} if read else None


def _counts(rows: Sequence[Row]) -> dict[str, Any]:
    out: dict[str, Any] = {"n": len(rows)}
    for side in (*SIDES, "between"):
        some = [r for r in rows if side == "all" or r["side"] == side]
        roots = {root for r in some for root in r["clusters"]}
        out[side] = {"roots": len(roots), **Counter(r["relation"] for r in some)}
    out["kinds"] = dict(sorted(Counter(f"{r['relation']}: {r['kind']}" for r in rows).items()))
    return out


def _method(name: str, by_side: Mapping[str, list[Row]], boots: Mapping[str, Bootstrap]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for side, rows in by_side.items():
        scored = np.array([name in r["methods"] for r in rows], bool)
        related = np.array([r["relation"] == RELATED for r in rows], bool)
        decided = np.array([r["relation"] != SHARED_INIT for r in rows], bool) & scored
        scores = scores_of(rows, name)
        if not (decided & related).any() or not (decided & ~related).any():
            continue
        out[side] = separation(scores, related, boots[side], decided).to_dict()
        out[side]["unrelated_highest"] = _extremes(rows, scores, decided & ~related, highest=True)
        out[side]["related_lowest"] = _extremes(rows, scores, decided & related, highest=False)
        if name in SPOKEN_FROM:
            above = scores >= SPOKEN_FROM[name]
            out[side]["above"] = {
                relation: [int(np.count_nonzero(above & mask)), int(np.count_nonzero(mask))]
                for relation, mask in ((RELATED, decided & related), (UNRELATED, decided & ~related))
            }
        line = out[side]["thresholds"]["0.01"]
        low = ~(np.nan_to_num(scores, nan=-np.inf) >= (np.inf if line is None else line))
        out[side]["missed_by_step"] = _by_step(rows, low, decided & related)
        out[side]["applied_related"] = _mean(~np.isnan(scores[decided & related]))
        out[side]["applied_unrelated"] = _mean(~np.isnan(scores[decided & ~related]))
    rows = by_side["all"]
    cells = [r["methods"][name] for r in rows if name in r["methods"]]
    seconds = [cell["seconds"] for cell in cells if cell.get("seconds") is not None]
    called = [(r, r["methods"][name].get("called")) for r in rows if name in r["methods"]]
    out["n"] = len(cells)
    out["seconds"] = float(np.median(seconds)) if seconds else None
    out["why_not"] = dict(Counter(_class(cell["why_not"]) for cell in cells if cell.get("why_not")).most_common(4))
    if any(c is not None for _, c in called):
        out["called"] = {
            relation: [sum(bool(c) for r, c in called if r["relation"] == relation),
                       sum(r["relation"] == relation for r, _ in called)]
            for relation in (RELATED, SHARED_INIT, UNRELATED)
        }  # fmt: skip
    return out


def _by_step(rows: Sequence[Row], hits: NDArray[np.bool_], mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Operation → [pairs that are hits, pairs]; a chain counts in each of its steps; the most hits first."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row, hit, keep in zip(rows, hits, mask, strict=True):
        for step in dict.fromkeys(row["steps"] or ("siblings",)) if keep else ():
            found[step][0] += bool(hit)
            found[step][1] += 1
    some = {step: counts for step, counts in found.items() if counts[0]}
    return dict(sorted(some.items(), key=lambda item: (-item[1][0] / item[1][1], item[0])))


def _class(reason: str) -> str:
    """The beginning of a reason, so that those that differ in a path or a number count as one."""
    return reason.split(" for '")[0].split(": /")[0][:110]


def _mean(x: NDArray[np.bool_]) -> float | None:
    return float(x.mean()) if x.size else None


def _extremes(rows: Sequence[Row], scores: NDArray[np.float64], mask: NDArray[np.bool_], highest: bool) -> list[Any]:
    filled = np.where(np.isnan(scores), -np.inf, scores)
    order = [i for i in np.argsort(-filled if highest else filled, kind="stable") if mask[i]]
    return [
        [
            rows[i]["a"],
            rows[i]["b"],
            None if np.isnan(scores[i]) else float(scores[i]),
            rows[i]["kind"],
            rows[i]["strength"],
        ]
        for i in order[:_LISTED]
        if not (highest and np.isnan(scores[i]))
    ]


def _claims(row: Row) -> bool:
    return row.get("weightprint", {}).get("verdict") in CLAIMS


def _answered(rows: Sequence[Row]) -> NDArray[np.bool_]:
    return np.array(["weightprint" in r for r in rows], bool)


def _verdicts(rows: Sequence[Row], boot: Bootstrap) -> dict[str, Any]:
    """Rates of weightprint's own decision, no threshold chosen by us."""
    answered = _answered(rows)
    claims = np.array([_claims(r) for r in rows], bool)
    silent = np.array([r.get("weightprint", {}).get("verdict") == "inconclusive" for r in rows], bool)
    denies = np.array([r.get("weightprint", {}).get("verdict") == "no_evidence" for r in rows], bool)
    out: dict[str, Any] = {}
    for relation in (RELATED, SHARED_INIT, UNRELATED):
        mask = np.array([r["relation"] == relation for r in rows], bool) & answered
        if mask.any():
            out[relation] = {
                "claimed": boot.share(claims, mask).to_dict(),
                "inconclusive": boot.share(silent, mask).to_dict(),
                "no_evidence": boot.share(denies, mask).to_dict(),
            }
    return out


def verdicts_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows: kinds of strangers, shared initialisations, siblings, then every chain of operations; columns: verdicts."""
    groups: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        if "weightprint" not in row:
            continue
        if row["relation"] == RELATED:
            chain = " → ".join(row["steps"])
            groups[(2, chain or "siblings")].append(row)
            if len(row["steps"]) == 1 and row["strength"]:
                groups[(3, row["strength"])].append(row)
        else:
            groups[(0 if row["relation"] == UNRELATED else 1, row["kind"])].append(row)
    out = []
    for (rank, name), members in sorted(groups.items()):
        shares = [r["weightprint"]["share"] for r in members if r["weightprint"].get("share") is not None]
        out.append({
            "group": GROUPS[rank],
            "name": name,
            "pairs": len(members),
            "roots": len({root for r in members for root in r["clusters"]}),
            "verdicts": dict(Counter(r["weightprint"]["verdict"] for r in members)),
            "share": float(np.median(shares)) if shares else None,
        })  # fmt: skip
    return out


def _washing(rows: Sequence[Row], boot: Bootstrap) -> list[dict[str, Any]]:
    """Kin by how long they were trained apart: share called related, median p and share."""
    training = np.array([np.nan if r["training"] is None else r["training"] for r in rows], np.float64)
    kin = np.array([r["relation"] == RELATED for r in rows], bool) & _answered(rows) & ~np.isnan(training)
    claims = np.array([_claims(r) for r in rows], bool)
    out = []
    for low, high in zip((-1.0, *_BANDS), (*_BANDS, np.inf), strict=True):
        mask = kin & (training > low) & (training <= high)
        if not mask.any():
            continue
        said = [r["weightprint"] for r, keep in zip(rows, mask, strict=True) if keep]
        claimed = boot.share(claims, mask)
        out.append({
            "band": "none" if high == 0 else f"more than {low:g}" if np.isinf(high) else f"{low:g} to {high:g}",
            "pairs": claimed.pairs,
            "roots": claimed.roots,
            "claimed": claimed.to_dict(),
            "median_log10_p": float(np.median([s.get("log10_p") or 0.0 for s in said])),
            "median_share": float(np.median([s.get("share") or 0.0 for s in said])),
        })  # fmt: skip
    return out


def _washing_by_method(rows: Sequence[Row]) -> dict[str, list[list[float]]]:
    """Per method: [training apart, share of kin above the score of 1 % of the strangers, pairs], for pairs with nothing
    but training between them, in bands."""
    out: dict[str, list[list[float]]] = {}
    bands = [(low, high) for low, high in zip((0.0, *_FINE[:-1]), _FINE, strict=True)]
    kin = np.array([r["relation"] == RELATED and r.get("trained_only", False) for r in rows], bool)
    strange = np.array([r["relation"] == UNRELATED for r in rows], bool)
    training = np.array([r["training"] or 0.0 for r in rows], np.float64)
    for name in method_names(rows):
        scores = scores_of(rows, name)
        run = np.array([name in r["methods"] for r in rows], bool)
        if not (strange & run).any():
            continue
        ranking = Ranking.of(scores[run], ~strange[run])
        line = ranking.threshold(np.ones(int(run.sum())), 0.01)
        found = []
        for low, high in bands:
            mask = kin & run & (training > low) & (training <= high)
            if mask.any():
                middle = float(np.median(training[mask]))
                found.append(
                    [middle, float(np.mean(np.nan_to_num(scores[mask], nan=-np.inf) >= line)), int(mask.sum())]
                )
        if found:
            out[name] = found
    return out


def _maps(rows: Sequence[Row], boot: Bootstrap) -> dict[str, Any]:
    """Layer and expert maps among related pairs: whole maps that are exact, and rows that are right."""
    return {what: _map(rows, boot, what) for what in ("layers", "experts")}


def _map(rows: Sequence[Row], boot: Bootstrap, what: str) -> dict[str, Any] | None:
    told = [r.get("weightprint", {}).get(what) for r in rows]
    has = np.array([t is not None and t[1] > 0 for t in told], bool)
    if not has.any():
        return None
    exact = np.array([t is not None and t[0] == t[1] > 0 for t in told], bool)
    claimed = np.array([_claims(r) for r in rows], bool) & has
    right = sum(t[0] for t, keep in zip(told, has, strict=True) if keep and t)
    return {
        "exact": boot.share(exact, has).to_dict(),
        "exact_where_claimed": boot.share(exact, claimed).to_dict() if claimed.any() else None,
        "rows_right": right / sum(t[1] for t, keep in zip(told, has, strict=True) if keep and t),
    }


def _direction(rows: Sequence[Row], boot: Bootstrap) -> dict[str, Any] | None:
    """Of pairs with a later one: named right, named wrong, not named."""
    mask = np.array([r["later"] is not None and "weightprint" in r for r in rows], bool)
    if not mask.any():
        return None
    said = [r.get("weightprint", {}).get("direction") for r in rows]
    out: dict[str, Any] = {
        name: boot.share(np.array([s == value for s in said], bool), mask).to_dict()
        for name, value in (("right", "right"), ("wrong", "wrong"), ("none", None))
    }
    named = mask & np.array([s is not None for s in said], bool)
    out["right_where_named"] = (
        boot.share(np.array([s == "right" for s in said], bool), named).to_dict() if named.any() else None
    )
    return out


def _calibration(rows: Sequence[Row]) -> dict[str, Any]:
    """Every test that claims a p-value, on strangers; and the verdict's own combined p."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["relation"] != UNRELATED:
            continue
        for name, cell in row["methods"].items():
            if cell.get("log10_p") is not None:
                found[name].append(cell["log10_p"])
        if row.get("weightprint", {}).get("log10_p") is not None:
            found["weightprint"].append(row["weightprint"]["log10_p"])
    padded = p_value_levels.with_silent(found)
    return {name: p_value_levels.calibration(values).to_dict() for name, values in sorted(padded.items())}


def _misses(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Related pairs that weightprint does not call related, the least trained apart first."""
    missed = [r for r in rows if r["relation"] == RELATED and "weightprint" in r and not _claims(r)]
    key: Callable[[Row], float] = lambda r: r["training"] if r["training"] is not None else 1e9  # noqa: E731
    return [_named(r) for r in sorted(missed, key=key)]


def _false_claims(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Strangers that weightprint calls related."""
    return [_named(r) for r in rows if r["relation"] == UNRELATED and _claims(r)]


def _named(row: Row) -> dict[str, Any]:
    said = row["weightprint"]
    return {
        **{key: row[key] for key in ("a", "b", "kind", "steps", "strength", "training", "side")},
        **{key: said.get(key) for key in ("verdict", "log10_p", "share")},
    }


def about_zoo(tree: FamilyTree) -> dict[str, Any]:
    """What the zoo holds, and how far each root's loss lies below the unigram entropy."""
    roots = {}
    for name in tree.roots:
        truth = tree[name].truth
        roots[name] = {
            "kind": truth.kind, "form": truth.form, "split": tree.side(name), "text": truth.text,
            "tokens": truth.total_tokens, "bits": truth.bits, "unigram_bits": truth.unigram_bits,
            "parameters": tree[name].parameters, "layers": tree[name].layers,
            "descendants": sum(name in tree[m].truth.roots for m in tree) - 1,
        }  # fmt: skip
    return {
        "models": len(tree.members),
        "kinds": dict(Counter(m.truth.kind for m in tree.members.values())),
        "forms": dict(Counter(m.truth.form for m in tree.members.values())),
        "independent": len(set(tree.initialisation.values())),
        "roots": roots,
    }


def machine() -> dict[str, Any]:
    """What the seconds were measured on."""
    cpu = platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), cpu)
    except OSError:
        pass  # not Linux: the processor's short name must do
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__}
