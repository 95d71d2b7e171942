"""``weightprint inspect MODEL``: headers only."""

from __future__ import annotations

import click

from weightprint.checkpoint import Mode
from weightprint.cli import options

__all__ = ["inspect"]


@click.command(short_help="What is in the files; reads headers only.")
@options.model
@options.json_flag
@options.everything
@options.mode
def inspect(model: str, as_json: bool, everything: bool, mode: Mode) -> int:
    """What is in the files of MODEL: sizes, dtypes, parameters, the layout by layer, metadata.

    Only headers are read, so it takes no time on any size. Tensors that differ only in the numbers in their names are
    one line.

    \b
    Examples:
      weightprint inspect model.safetensors
      weightprint inspect mistralai/Mistral-7B-v0.1     (from the local hub cache)
      weightprint inspect folder --json | jq .dtypes
    """
    from weightprint.checkpoint import open
    from weightprint.cli.out import emit
    from weightprint.output import to_json
    from weightprint.report.inspect import inspect_dict, renderables
    from weightprint.report.terminal import console

    with open(model, mode=mode) as checkpoint:
        if as_json:
            emit(to_json(inspect_dict(checkpoint)) + "\n")
            return 0
        out = console()
        for piece in renderables(checkpoint, everything=everything):
            out.print(piece, soft_wrap=True)
    return 0
