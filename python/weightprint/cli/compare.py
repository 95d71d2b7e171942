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
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "full"]),
    default="standard",
    show_default=True,
    help="quick: samples, under 2 % of a large model. standard: every byte once. full: every block and alignment.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Fixes what is sampled.")
@click.option("-o", "--output", metavar="FILE", help="Also write the report to FILE: .json, .html or .txt.")
def compare(a: str, b: str, as_json: bool, verbose: bool, effort: Effort, seed: int, output: str | None) -> int:
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
    """
    from weightprint.cli.out import refuse_inputs
    from weightprint.compare.compare import compare as run
    from weightprint.report.compare import render_html, render_text
    from weightprint.report.progress import progress_bar
    from weightprint.results.saving import write_atomically

    form = output.rsplit(".", 1)[-1].lower() if output else "txt"
    if form not in ("json", "html", "txt"):
        raise click.UsageError(f"-o writes .json, .html or .txt, not .{form}")
    refuse_inputs(output, (a, b))
    with progress_bar("compare") as progress:
        comparison = run(a, b, effort=effort, seed=seed, progress=progress)
    if output:
        text = {
            "json": lambda: comparison.to_json() + "\n",
            "html": lambda: html_page(render_html(comparison)),
            "txt": lambda: render_text(comparison, verbose=True),
        }[form]()
        write_atomically(output, lambda file: file.write(text.encode()))
    click.echo(comparison.to_json() if as_json else render_text(comparison, verbose=verbose).rstrip("\n"))
    return 0 if comparison.same else 1


def html_page(body: str) -> str:
    """A whole page around one block of HTML; nothing in it is loaded from elsewhere."""
    head = "<head><meta charset='utf-8'><title>weightprint compare</title></head>"
    return f"<!doctype html><html lang='en'>{head}<body>{body}</body></html>\n"
