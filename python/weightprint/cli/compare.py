"""``weightprint compare A B``: the same, of one origin, or not to be told?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from weightprint.cli import options

if TYPE_CHECKING:
    from weightprint.compare.compare import Comparison, Effort
    from weightprint.report.attest.files import FileDigest


@click.command(short_help="Do two models share an origin?")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--with", "others", multiple=True, metavar="MODEL", help="A further parent: is B a mix of A and these? Repeatable."
)
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
@options.seed("Fixes what is sampled.")
@click.option("--published", is_flag=True, help="Also measures of published methods, which never decide.")
@click.option("--plots", metavar="DIR", help="Also write the drawings of the HTML page to this folder, as SVG files.")
@click.option(
    "--attest",
    metavar="FILE.json",
    help="Also write an in-toto statement to this file, and a CycloneDX model card to FILE.cdx.json; unsigned.",
)
@options.report_file
def compare(
    a: str,
    b: str,
    others: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    quiet: bool,
    effort: Effort,
    seed: int,
    published: bool,
    plots: str | None,
    attest: str | None,
    output: str | None,
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
      weightprint compare parent/ merged/ --with other-parent/
    """
    from weightprint.cli.out import destination, emit, put, refuse_inputs
    from weightprint.compare.compare import compare as run
    from weightprint.report.compare import lines, text, word
    from weightprint.report.page.compare import page
    from weightprint.report.page.markdown import compare as markdown
    from weightprint.report.progress import progress_bar
    from weightprint.report.terminal import console, pen, show

    form = destination(output, (a, b, *others))
    if attest is not None:
        destination(attest, (a, b, *others), {".json": "json"})
        refuse_inputs(_cdx(attest), (a, b, *others))
    command = shlex.join(
        ["weightprint", "compare", a, b, "--effort", effort, "--seed", str(seed), *["--published"][:published]]
        + [word for other in others for word in ("--with", other)]
    )
    with progress_bar("compare") as progress:
        comparison = run(a, b, others=others, effort=effort, seed=seed, published=published, progress=progress)
    writers = {
        "json": lambda: comparison.to_json() + "\n",
        "html": lambda: page(comparison, _sha256(comparison, _HASHED), command),
        "markdown": lambda: markdown(comparison, command),
        "text": lambda: text(comparison, verbose=True),
    }
    if output is not None:
        put(output, form, writers)
    if plots is not None:
        _draw(comparison, plots)
    if attest is not None:
        _attest(comparison, attest, command)
    if as_json:
        emit(writers["json"]())
    else:
        out = console()
        show([word(comparison)] if quiet else lines(comparison, pen(out), verbose=verbose), out)
    return 0 if comparison.same else 1


#: Bytes of both models up to which a page reads their files once more, for the digest that hubs know.
_HASHED = 16_000_000_000


def _sha256(comparison: Comparison, most: float) -> list[FileDigest]:
    """SHA-256 of all files that were read; none where that is more than `most` bytes."""
    from weightprint.report.attest.files import sha256_of

    if sum(file["nbytes"] for side in comparison.files.values() for file in side) > most:
        return []
    names = {side: [file["name"] for file in files] for side, files in comparison.files.items()}
    of_a = sha256_of("a", comparison.a.source, names.get("a", ()))
    return of_a + sha256_of("b", comparison.b.source, names.get("b", ()))


def _draw(comparison: Comparison, folder: str) -> None:
    from pathlib import Path

    from weightprint.report.page.compare import drawings
    from weightprint.results.saving import write_atomically

    Path(folder).mkdir(parents=True, exist_ok=True)
    for drawing in drawings(comparison):
        write_atomically(Path(folder) / f"{drawing.name}.svg", drawing.file().encode())
    click.echo(f"wrote the drawings to {folder}", err=True)


def _cdx(attest: str) -> str:
    return attest[: -len(".json")] + ".cdx.json"


def _attest(comparison: Comparison, path: str, command: str) -> None:
    from weightprint.report.attest.statements import cyclonedx, in_toto
    from weightprint.results.saving import to_json, write_atomically

    digests = _sha256(comparison, float("inf"))
    for target, made in ((path, in_toto(comparison, digests, command)), (_cdx(path), cyclonedx(comparison, digests))):
        write_atomically(target, f"{to_json(made)}\n".encode())
    click.echo(f"wrote {path} and {_cdx(path)}; neither is signed", err=True)
