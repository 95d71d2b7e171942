"""``weightprint inspect MODEL``: the anatomy of a model and what its files hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from weightprint.checkpoint.checkpoint import Mode
from weightprint.cli import options

if TYPE_CHECKING:
    from weightprint.anatomy.anatomy import Anatomy
    from weightprint.checkpoint.checkpoint import Checkpoint
    from weightprint.results.finding import Finding


@click.command(short_help="The anatomy of a model, and what its files hold.")
@options.model
@options.json_flag
@options.report_file
@click.option("--tensors", is_flag=True, help="Instead: where every tensor sits, and how that is known.")
@options.everything
@options.mode
def inspect(model: str, as_json: bool, output: str | None, tensors: bool, everything: bool, mode: Mode) -> int:
    """The anatomy of MODEL: its stacks of blocks with the role, shape and type of every tensor, what is fused, turned,
    quantised, tied or missing, parameters by part; and its files, metadata and findings.

    Blocks of one form are drawn once. Only headers are read, so it takes no time on any size; where no row of the table
    of families fits, a sample of values may help to tell roles apart.

    \b
    Examples:
      weightprint inspect model.safetensors
      weightprint inspect mistralai/Mistral-7B-v0.1     (from the local hub cache)
      weightprint inspect folder --tensors | grep q_norm
      weightprint inspect folder -o anatomy.html
      weightprint inspect base/+adapter/                (the adapter merged into its base)
      weightprint inspect folder --json | jq .anatomy.parts
      weightprint inspect model.fp                      (a fingerprint: what it keeps, and can be asked)
    """
    from weightprint.anatomy.adapters.opened import base_and_adapter, opened
    from weightprint.check.rules.adapters import problems
    from weightprint.checkpoint.checkpoint import open
    from weightprint.cli.out import destination, emit, later, put
    from weightprint.fingerprint.file import is_fingerprint
    from weightprint.report.inspect import inspect_dict, lines
    from weightprint.report.terminal import console, pen, plain, show
    from weightprint.results.saving import to_json

    form = destination(output, [model])
    if is_fingerprint(model):
        _show_fingerprint(model, as_json, output, form, tensors)
        return 0
    with ExitStack() as opening:
        anatomy: Anatomy | None
        failure: Finding | None
        if base_and_adapter(model):
            anatomy, failure = (merged := opening.enter_context(opened(model, mode=mode))), None
            checkpoint = merged.checkpoint
        else:
            checkpoint = opening.enter_context(open(model, mode=mode))
            anatomy, failure = _anatomy(checkpoint)
        noticed = [*problems(checkpoint), *([failure] if failure else [])]
        writers: dict[str, Callable[[], str]] = {
            "json": lambda: to_json(inspect_dict(checkpoint, anatomy, noticed)) + "\n",
            "markdown": lambda: later("report.page.markdown", "inspect")(checkpoint, anatomy, noticed),
            "html": lambda: later("report.page.inspect", "page")(checkpoint, anatomy, noticed, tensors=tensors),
            "text": lambda: plain(lines(checkpoint, anatomy, noticed, everything=True, tensors=tensors)),
        }
        if output is not None:
            put(output, form, writers)
        if as_json:
            emit(writers["json"]())
        else:
            out = console()
            show(lines(checkpoint, anatomy, noticed, everything=everything, tensors=tensors, pen=pen(out)), out)
    return 0


def _show_fingerprint(model: str, as_json: bool, output: str | None, form: str, tensors: bool) -> None:
    from weightprint.cli.out import emit, put
    from weightprint.fingerprint.fingerprint import Fingerprint
    from weightprint.report.page.fingerprint import page, text

    kept = Fingerprint.load(model)
    shown = {
        "json": lambda: kept.to_json() + "\n",
        "html": lambda: page(kept, tensors=tensors),
        "markdown": lambda: f"```\n{text(kept, tensors=tensors)}```\n",
        "text": lambda: text(kept, tensors=tensors),
    }
    if output is not None:
        put(output, form, shown)
    emit(shown["json" if as_json else "text"]())


def _anatomy(checkpoint: Checkpoint) -> tuple[Anatomy | None, Finding | None]:
    """The map, or why there is none: files can be looked at even where their weights make no sense."""
    from weightprint.anatomy.anatomy import Anatomy
    from weightprint.errors import WeightprintError
    from weightprint.results.finding import from_error

    try:
        return Anatomy(checkpoint), None
    except WeightprintError as error:
        return None, from_error(error)
