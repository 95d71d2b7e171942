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
@options.json_flag
@click.option("-v", "--verbose", is_flag=True, help="Every test with its numbers, null and assumptions.")
@click.option("-q", "--quiet", is_flag=True, help="Print the verdict only, in a word or two.")
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
    a: str, b: str, as_json: bool, verbose: bool, quiet: bool, effort: Effort, seed: int, output: str | None
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
      weightprint compare A B -q
      weightprint compare huge-a/ huge-b/ --effort quick
      weightprint compare original.fp suspect/          (original.fp is a fingerprint)
    """
    from weightprint.cli.out import destination, emit, put
    from weightprint.compare.compare import compare as run
    from weightprint.report.compare import html, lines, text, word
    from weightprint.report.html import page
    from weightprint.report.progress import progress_bar
    from weightprint.report.terminal import console, pen, show

    form = destination(output, (a, b))
    with progress_bar("compare") as progress:
        comparison = run(a, b, effort=effort, seed=seed, progress=progress)
    writers = {
        "json": lambda: comparison.to_json() + "\n",
        "html": lambda: page("weightprint compare", html(comparison)),
        "text": lambda: text(comparison, verbose=True),
    }
    if output is not None:
        put(output, form, writers)
    if as_json:
        emit(writers["json"]())
    else:
        out = console()
        show([word(comparison)] if quiet else lines(comparison, pen(out), verbose=verbose), out)
    return 0 if comparison.same else 1
