"""``weightprint compare A B``: the same, of one origin, or not to be told?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightprint.cli import options

if TYPE_CHECKING:
    from weightprint.compare.compare import Effort

__all__ = ["compare"]


@click.command(short_help="Do two models share an origin?")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--with", "others", multiple=True, metavar="MODEL", help="A further parent: is B a mix of A and these? Repeatable."
)
@options.json_flag
@click.option("-v", "--verbose", is_flag=True, help="Every test with its numbers, null and assumptions.")
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "full"]),
    default="standard",
    show_default=True,
    help="quick: samples, under 2 % of a large model. standard: every byte once. full: every block and alignment.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Fixes what is sampled.")
@options.report_file
def compare(
    a: str, b: str, others: tuple[str, ...], as_json: bool, verbose: bool, effort: Effort, seed: int, output: str | None
) -> int:
    """Do B and A hold the same weights, or share an origin? Prints the verdict and the evidence for and against it.

    The verdict is one of: identical, re-encoded, shared origin, partly shared, shared initialisation, no evidence,
    inconclusive. A score without an error rate is never a verdict, and names and shapes are never evidence.

    \b
    Exit codes:
      0  the same weights: identical or re-encoded, with nothing missing on either side
      1  anything else: another verdict, inconclusive included
      2  no answer: usage, I/O, unreadable

    \b
    Examples:
      weightprint compare original/ suspect.safetensors
      weightprint compare A B --json | jq '.verdict, .log10_p'
      weightprint compare A B -v -o report.html
      weightprint compare huge-a/ huge-b/ --effort quick
      weightprint compare parent/ merged/ --with other-parent/
    """
    from weightprint.cli.out import destination, emit, put
    from weightprint.compare.compare import compare as run
    from weightprint.report.compare import html, text
    from weightprint.report.html import page
    from weightprint.report.progress import progress_bar

    form = destination(output, (a, b, *others))
    with progress_bar("compare") as progress:
        comparison = run(a, b, others=others, effort=effort, seed=seed, progress=progress)
    writers = {
        "json": lambda: comparison.to_json() + "\n",
        "html": lambda: page("weightprint compare", html(comparison)),
        "text": lambda: text(comparison, verbose=True),
    }
    if output is not None:
        put(output, form, writers)
    emit(writers["json"]() if as_json else text(comparison, verbose=verbose))
    return 0 if comparison.same else 1
