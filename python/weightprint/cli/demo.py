"""``weightprint demo``: the main job, on the models inside the package."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="The main job on models inside this package.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("weightprint-demo"),
    show_default=True,
    help="Where to put the models.",
)
@click.option("--force", is_flag=True, help="Use DIR even if it holds something else; nothing is deleted.")
def demo(output: Path, force: bool) -> int:
    """Write four tiny models to a folder, scan them, and say which of them share an origin.

    One is the parent; one was trained on from it, one is a Mixture of Experts upcycled from it and trained on; one is a
    stranger of the same architecture, trained on the same text from another seed. No network is used.

    \b
    Examples:
      weightprint demo
      weightprint demo -o /tmp/models
    """
    from rich.text import Text

    from weightprint.compare.compare import compare
    from weightprint.demo.demo_models import MODELS, write
    from weightprint.demo.screen import models, next_steps, verdicts
    from weightprint.report.terminal import show
    from weightprint.scan.scan import scan

    folder = write(output, force=force)
    scans = {model.name: scan(folder / model.name) for model in MODELS}
    show([*models(folder, scans), Text()])
    parent, *others = (model.name for model in MODELS)
    comparisons = {other: compare(folder / parent, folder / other) for other in others}
    show([*verdicts(comparisons), Text(), *next_steps(folder)])
    return 0
