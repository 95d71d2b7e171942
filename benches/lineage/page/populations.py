"""The page's sections on populations of pairs made for a purpose, each from results/NAME.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markdown import log10, scored_with, table
from .tables import VERDICTS, calibration, uniformity

__all__ = ["population_page", "strangers_page"]

_NAMED = 20  # wrong answers that are listed


def population_page(found: Mapping[str, Any]) -> str:
    """One population: what was said at every effort, and how its p-values are distributed."""
    parts = [f"### {found['title']}", *(_told(effort, told) for effort, told in found["efforts"].items())]
    if found.get("fitted"):
        parts.append(
            "p-values after a fitted basis, of the pairs on which one was worth a look (below, the others count with"
            " p = 1):\n\n" + _rates(found["fitted"])
        )
    if found.get("tests"):
        parts += [calibration(found["tests"]), uniformity(found["uniform"])]
    return "\n\n".join(part for part in parts if part)


def strangers_page(found: Mapping[str, Any]) -> str:
    """Real models of known, different origin: what was said of every pair, and what came nearest to a claim."""
    models = found["models"]
    rows = []
    for effort, told in found["efforts"].items():
        least, most = told["smallest"], told["largest"]
        rows.append(
            [
                effort,
                str(told["pairs"]),
                str(len(told["called"])),
                *(str(told["verdicts"].get(verdict, 0)) for verdict in ("inconclusive", "no_evidence")),
                f"{log10(least['log10_p'])} ({least['test']}, {least['a']} and {least['b']})" if least else "",
                f"{most['effect']:.2f} ({most['test']}, {most['a']} and {most['b']})" if most else "",
            ]
        )
    head = ["effort", "pairs", "called related", "inconclusive", "no evidence", "smallest log10 p", "largest effect"]
    code = next(iter(found["efforts"].values()))["code"]
    return (
        f"{len(models)} models or stacks of models of {len(set(models.values()))} origins, every pair of different"
        " origin in both orders, with the config they were published with and without: "
        f"{', '.join(models)}.\n\n{table(head, rows)}\n\nScored with {scored_with(code)}."
    )


def _told(effort: str, told: Mapping[str, Any]) -> str:
    columns = [v for v in VERDICTS if any(v in group for group in told["groups"].values())]
    rows = [
        [
            name,
            *(str(group.get(v, "")) for v in columns),
            str(group["right"]),
            str(sum(group.get(v, 0) for v in columns)),
            log10(group["smallest_log10_p"]),
        ]
        for name, group in told["groups"].items()
    ]
    head = [f"effort {effort}", *(v.replace("_", " ") for v in columns), "right", "pairs", "smallest log10 p"]
    text = (
        f"{told['right']} of {told['pairs']} right; strangers called related: {told['false']}.\n\n{table(head, rows)}"
    )
    if told.get("code"):
        text += f"\n\nScored with {scored_with(told['code'])}."
    if told["wrong"]:
        listed = ", ".join(_wrong(*row) for row in told["wrong"][:_NAMED])
        text += f"\n\nWrong: {listed}{', …' if len(told['wrong']) > _NAMED else ''}."
    return text


def _wrong(name: str, verdict: str | None, p: float | None, share: float | None) -> str:
    said = [str(verdict).replace("_", " "), *([f"log10 p {log10(p)}"] if p is not None else [])]
    return f"`{name}` ({', '.join(said)}{f', share {share:.2f}' if share else ''})"


def _rates(fitted: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            str(c["n"]),
            *(f"{x['hits'] / x['n']:.2g}{'!' if x['log10_tail'] < -3 else ''}" for x in c["levels"][:5]),
            f"{c['ks']:.3f}",
            f"{c['ks_p']:.2g}",
            log10(c["smallest_log10_p"]),
        ]
        for name, c in fitted.items()
    ]
    alphas = [x["alpha"] for x in next(iter(fitted.values()))["levels"][:5]]
    head = ["test", "pairs", *(f"P(p ≤ {a:g})" for a in alphas), "KS, one-sided", "its p", "smallest log10 p"]
    return table(head, rows)
