"""``weightprint fingerprint MODEL… -o F``: read once, compare for ever."""

from __future__ import annotations

import os

import click

from weightprint.cli import options


@click.command(short_help="Read a model once, and keep what is enough to compare it again.")
@click.argument("models", metavar="MODEL…", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="F",
    required=True,
    help="The file to write; a folder (it may be new) for several MODELs, or with a slash behind it.",
)
@options.seed("Fixes what is sampled; only fingerprints of one seed can be compared.")
@options.json_flag
@options.machine
def fingerprint(models: tuple[str, ...], output: str, seed: int, as_json: bool, threads: int | None, io: str) -> int:
    """Measure MODEL in one pass, and keep what is enough to compare it later without its weights: digests of every
    tensor, sampled hidden units, heads and token rows, gains, and a linear sketch of every matrix.

    A fingerprint is a safetensors file of some MB. compare, diff and inspect take it wherever they take a model. It is
    written whole or not at all, and the same model gives the same bytes.

    \b
    Exit codes:
      0  written
      2  usage, I/O, unreadable

    \b
    Examples:
      weightprint fingerprint model/ -o model.fp
      weightprint fingerprint models/* -o fingerprints/
      weightprint compare model.fp suspect.safetensors
      weightprint compare model.fp other.fp --json | jq .verdict
    """
    from weightprint.cli.out import emit, refuse_inputs
    from weightprint.fingerprint.fingerprint import fingerprint as run
    from weightprint.report.page.fingerprint import headline, text
    from weightprint.report.progress import progress_bar
    from weightprint.results.saving import to_json

    targets = _targets(models, output)
    for target in targets:
        refuse_inputs(target, models)
    made = []
    for model, target in zip(models, targets, strict=True):
        with progress_bar("fingerprint") as progress:
            found = run(model, seed=seed, threads=threads, io=io, progress=progress)  # type: ignore[arg-type]
        found.save(target)
        made.append({**found.to_dict(), "written": target})
        if not as_json:
            emit(f"{text(found)}wrote {target}\n" if len(models) == 1 else f"{headline(found)}\n")
    if as_json:
        emit(to_json(made[0] if len(models) == 1 else made) + "\n")
    return 0


def _targets(models: tuple[str, ...], output: str) -> list[str]:
    """Where each fingerprint goes; several go into a folder, under the last part of their model's name."""
    from weightprint.errors import UsageError
    from weightprint.util.escape import escape

    if len(models) == 1 and not output.endswith(("/", os.sep)) and not os.path.isdir(output):
        return [output]
    if os.path.exists(output) and not os.path.isdir(output):
        message = f"{escape(output)} is a file: several fingerprints need a folder"
        raise UsageError(message, path=output, code="not_a_folder")
    names = [os.path.basename(os.path.normpath(model)).removesuffix(".safetensors") for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"several models are called {escape(', '.join(twice))}: fingerprint them one by one"
        raise UsageError(message, code="names_collide")
    os.makedirs(output, exist_ok=True)
    return [os.path.join(output, f"{name}.fp") for name in names]
