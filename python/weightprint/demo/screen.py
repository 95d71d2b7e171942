"""The demo's screen: what the models are, what a scan found, what comparing them says, what to type next.

It fits 80 columns, and shows nothing that is not also in `Scan` and `Comparison`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.text import Text

from weightprint.compare.compare import Comparison
from weightprint.demo.demo_models import MODELS
from weightprint.report.format import byte_count
from weightprint.report.screen.screen import STYLES
from weightprint.scan.result import Scan
from weightprint.util.escape import escape

__all__ = ["chance", "models", "next_steps", "verdicts"]

_NAME = max(len(model.name) for model in MODELS)
_MADE = max(len(model.made) for model in MODELS)
_CHANCE = len("p = 10^-1000")


def models(folder: Path, scans: Mapping[str, Scan]) -> Iterator[Text]:
    """Where they are, one line for each, and one for all values together."""
    size = sum(file.stat().st_size for model in MODELS for file in (folder / model.name).iterdir())
    yield Text.assemble(
        ("Four tiny language models, trained for this demo, are now in ", ""),
        (escape(str(folder)), "bold"),
        (f" ({byte_count(size)}).", ""),
    )
    yield Text()
    yield Text.assemble((f"  {'':<{_NAME}}  {'how it was made':<{_MADE}}  tensors  parameters", "dim"))
    for model in MODELS:
        scan = scans[model.name]
        yield Text.assemble(
            (f"  {model.name:<{_NAME}}  ", "bold"),
            (f"{model.made:<{_MADE}}  {scan.n_tensors:>7,}  {scan.n_parameters:>10,}", ""),
        )
    yield Text()
    values = sum(scan.n_parameters for scan in scans.values())
    unsound = sum(sum(scan.table["n"]) - sum(scan.table["n_finite"]) for scan in scans.values())
    state = "all finite" if not unsound else f"{unsound:,} of them NaN or infinite"
    yield Text.assemble((f"Every value was read once: {values:,}, {state}.", ""))


def verdicts(comparisons: Mapping[str, Comparison]) -> Iterator[Text]:
    """One line per model: the verdict on (parent, model), and how strong it is."""
    yield Text.assemble(("Whose weights are these? ", "bold"), ("Each against parent, from the weights alone:", ""))
    yield Text()
    width = max(len(comparison.verdict) for comparison in comparisons.values())
    for name, comparison in comparisons.items():
        verdict = comparison.verdict
        yield Text.assemble(
            (f"  {name:<{_NAME}}  ", "bold"),
            (f"{verdict.replace('_', ' '):<{width}}  ", STYLES[verdict]),
            (f"{chance(comparison.log10_p):<{_CHANCE}}  {_agreement(comparison)}", ""),
        )
    yield Text()
    if any(comparison.verdict == "inconclusive" for comparison in comparisons.values()):
        yield Text.assemble(("inconclusive: nothing shared was found, and the tests could have missed it.", "dim"))
    if any(comparison.verdict == "no_evidence" for comparison in comparisons.values()):
        yield Text.assemble(("no evidence: nothing shared was found, and the tests would have seen it.", "dim"))
    yield Text.assemble(("p: how often models from independent starts would agree as much by chance.", "dim"))
    yield Text.assemble(("cosine: of matched matrices, centred; it is 1 for a copy and 0 between strangers.", "dim"))


def chance(log10_p: float | None) -> str:
    """A p-value for people: ``"p = 0.31"``, ``"p = 10^-164"``, or that there is none."""
    if log10_p is None:
        return "no test gave a p-value"
    return f"p = {10**log10_p:.2g}" if log10_p > -4 else f"p = 10^{log10_p:.0f}"


def _agreement(comparison: Comparison) -> str:
    found = {evidence.test: evidence for evidence in comparison.evidence}
    effect = found["aligned_weights"].effect
    return "no matrices to match" if effect is None else f"cosine {effect:.2f}"


def next_steps(folder: Path) -> Iterator[Text]:
    """Commands to type next, ready to paste."""

    def place(name: str) -> str:
        return escape(shlex.quote(str(folder / name)), None)

    steps = (
        (f"weightprint compare {place('parent')} {place('stranger')} -v", "for and against"),
        (f"weightprint stats {place('moe')}", "every tensor measured"),
        (f"weightprint check {place('finetune')}", "is it sound?"),
    )
    yield Text.assemble(("Next:", "bold"))
    yield Text()
    width = max(len(command) for command, _ in steps)
    for command, what in steps:
        yield Text.assemble((f"  {command:<{width}}", "cyan"), (f"  # {what}", "dim"))
