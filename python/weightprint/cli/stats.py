"""``weightprint stats MODEL``: statistics of every tensor."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import click

from weightprint.checkpoint.checkpoint import Mode
from weightprint.cli import options
from weightprint.scan.request import IO

if TYPE_CHECKING:
    from weightprint.anatomy.anatomy import Anatomy
    from weightprint.checkpoint.checkpoint import Checkpoint
    from weightprint.scan.result import Scan


@click.command(short_help="Statistics of every tensor.")
@options.model
@options.table_file
@options.globs
@click.option(
    "--by",
    type=click.Choice(["layer", "role", "part", "block"]),
    default="layer",
    show_default=True,
    help="List every tensor, layer by layer; or pool them: one row per role, part or block.",
)
@click.option("--canonical", is_flag=True, help="Of canonical tensors: fused ones split, turned, quantised decoded.")
@click.option("--exact", is_flag=True, help="Also exact quantiles, distinct values and entropy.")
@click.option("--rows", is_flag=True, help="Also norms of matrix rows, and dead ones.")
@click.option("--columns", is_flag=True, help="Also norms of matrix columns, and dead ones.")
@click.option("--digest", is_flag=True, help="Also a BLAKE3 digest of every tensor's bytes.")
@options.everything
@options.machine
@options.mode
def stats(
    model: str,
    form: str | None,
    output: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    by: Literal["layer", "role", "part", "block"],
    canonical: bool,
    exact: bool,
    rows: bool,
    columns: bool,
    digest: bool,
    everything: bool,
    threads: int | None,
    io: IO,
    mode: Mode,
) -> int:
    """Statistics of every tensor of MODEL, in one pass over every byte.

    Everything runs over the finite values; NaN and infinities are counted. The table shows the usual columns (--all:
    every one); csv, json, jsonl and parquet always hold all of them, and where every tensor sits: stack, block, part,
    role, expert. `kurtosis` is 3 for a normal distribution.

    --by role pools: the numbers are those of all values of a role together. --canonical measures what the model
    computes with, named by its place: decoder.7.up; --include and --exclude are then on places.
    Of base+adapter that is what there is.

    \b
    Examples:
      weightprint stats model.safetensors
      weightprint stats folder --include '*.q_proj.*' --exact --all
      weightprint stats org/name -o stats.parquet
      weightprint stats folder --canonical --by role
      weightprint stats folder --format jsonl | jq 'select(.n_nan > 0).name'
    """
    from weightprint.anatomy.adapters.opened import base_and_adapter, opened
    from weightprint.checkpoint.checkpoint import open
    from weightprint.cli.out import TABLES, destination, needs_weights
    from weightprint.report.progress import progress_bar
    from weightprint.scan.scan import scan as run

    form = destination(output, [model], TABLES, form)
    needs_weights("stats", model)
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is binary: add -o FILE, or redirect the output.")
    with ExitStack() as opening:
        merged = opening.enter_context(opened(model, mode=mode)) if base_and_adapter(model) else None
        canonical = canonical or merged is not None  # no file holds what is merged
        checkpoint = merged.checkpoint if merged else opening.enter_context(open(model, mode=mode))
        for finding in checkpoint.findings:
            click.echo(f"{finding.severity}: {finding.message}", err=True)
        placed = merged
        if placed is None:
            placed = _anatomy(checkpoint, needed=canonical or by != "layer")
        with progress_bar("scan") as progress:
            result = run(
                placed or checkpoint,
                of="canonical" if canonical else "stored",
                include=include,
                exclude=exclude,
                exact=exact,
                rows=rows,
                columns=columns,
                digest=digest,
                threads=threads,
                io=io,
                progress=progress,
            )
    _write(result, by, form, output, everything)
    return 0


def _anatomy(checkpoint: Checkpoint, *, needed: bool) -> Anatomy | None:
    """The model's map; where it can't be made and isn't `needed`, a warning: every tensor can be measured without."""
    from weightprint.anatomy.anatomy import Anatomy
    from weightprint.errors import WeightprintError

    try:
        return Anatomy(checkpoint)
    except WeightprintError as error:
        if needed:
            raise
        click.echo(f"warning: no stack, block, part and role columns: {error}", err=True)
        return None


def _write(result: Scan, by: str, form: str, output: str | None, everything: bool) -> None:
    from weightprint.cli.out import emit, later, put, tables
    from weightprint.report.scan import summary
    from weightprint.report.stats import columns_to_show, fitting, in_order, rich_table, text
    from weightprint.report.terminal import console

    pooled = by != "layer"
    people = form in ("text", "html", "markdown")
    table = result.by(by) if pooled else in_order(result.table) if people else result.table
    if form != "text" or output is not None:
        writers = {
            **tables(table),
            "html": lambda: later("report.page.stats", "page")(result, table, everything=everything),
            "markdown": lambda: text(table, everything=everything),
            "text": lambda: text(table, everything=everything),
        }
        put(output, form, writers)
        if output is not None:
            click.echo(f"{summary(result)}; wrote {output}", err=True)
        return
    out = console()
    if out.is_terminal and not everything:
        columns = columns_to_show(table)
        shown = fitting(table, columns, out.width)
        out.print(rich_table(table, shown))
        if hidden := [name for name in columns if name not in shown]:
            click.echo(f"too narrow for {', '.join(hidden)} (--all shows every column)", err=True)
    else:
        emit(text(table, everything=everything))
    click.echo(summary(result), err=True)
    if pooled and (any(result.table["component"]) or any("+" in (role or "") for role in result.table["role"])):
        click.echo("fused and quantised tensors are pooled as stored: --canonical splits and decodes them", err=True)
