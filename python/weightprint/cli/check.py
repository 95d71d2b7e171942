"""``weightprint check MODEL``: is it sound?"""

from __future__ import annotations

from collections.abc import Callable

import click

from weightprint.cli import options
from weightprint.scan.request import IO


@click.command(short_help="Is it sound? Manifests.")
@options.model
@click.option(
    "--manifest",
    type=(click.Choice(["write", "verify"]), str),
    metavar="write|verify FILE",
    help="Record every tensor's digest in FILE, or hold MODEL against such a record.",
)
@options.codes
@options.json_flag
@options.report_file
@options.everything
@options.globs
@options.machine
def check(
    model: str,
    manifest: tuple[str, str] | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    as_json: bool,
    output: str | None,
    everything: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    threads: int | None,
    io: IO,
) -> int:
    """Is MODEL sound? Looks at the files and at every value in them.

    \b
    Files:   short or missing shards, anything against the format's rules, an index that disagrees with its shards.
    Values:  NaN and infinities with their first coordinates; outliers (beyond 100 times the tensor's 99.99 % quantile);
             constant tensors; rows of zeros; tensors stored twice; codes without their scales; fixed tables.
    Whole:   blocks, experts, scales, a head or files that are missing; another model in the same folder; an adapter
             that changes nothing; config.json against the tensors.

    The exit code is 0 when there is nothing beyond notes, 1 when there is, 2 when there is nothing to check. Every
    finding has a code (docs/checks.md); --select and --ignore choose by it, and what they leave out doesn't count.

    \b
    Examples:
      weightprint check folder
      weightprint check folder --ignore outlier,dead_rows
      weightprint check folder -o report.html
      weightprint check folder --manifest write folder.manifest.json
      weightprint check copy-of-folder --manifest verify folder.manifest.json
    """
    from weightprint.anatomy.adapters.opened import base_and_adapter
    from weightprint.check.check import check as run
    from weightprint.check.manifest import Manifest
    from weightprint.cli.out import destination, emit, later, needs_weights, put, refuse_inputs
    from weightprint.errors import UsageError
    from weightprint.report.check import lines, text
    from weightprint.report.progress import progress_bar
    from weightprint.report.terminal import show
    from weightprint.results.saving import to_json

    if manifest and (include or exclude):
        raise click.UsageError("A manifest is of a whole checkpoint: leave out --include and --exclude.")
    if manifest and base_and_adapter(model):
        raise click.UsageError("A manifest is of files, and no file holds a merged model: name one of the two.")
    action, path = manifest or ("", "")
    refuse_inputs(path if action == "write" else None, [model])
    form = destination(output, [model], others=[path] if path else [])
    needs_weights("check", model)
    wanted = Manifest.load(path) if action == "verify" else None
    with progress_bar("check") as progress:
        report = run(
            model,
            include=include,
            exclude=exclude,
            threads=threads,
            io=io,
            progress=progress,
            manifest=wanted,
            select=select,
            ignore=ignore,
        )
    writers: dict[str, Callable[[], str]] = {
        "json": lambda: to_json(report.to_dict()) + "\n",
        "markdown": lambda: later("report.page.markdown", "check")(report),
        "html": lambda: later("report.page.check", "page")(report),
        "text": lambda: text(report, everything=True),
    }
    if output is not None:
        put(output, form, writers)
    if as_json:
        emit(writers["json"]())
    else:
        show(lines(report, everything=everything))
    if action == "write":
        if report.scan is None:
            raise UsageError("no manifest written: no file could be opened", code="nothing_to_record")
        Manifest.of(report.scan, report.files).save(path)
        click.echo(f"wrote {path}: {report.scan.n_tensors:,} tensors", err=True)
    return report.exit_code
