"""``weightprint diff A B``: tensor by tensor."""

from __future__ import annotations

import click

from weightprint.cli import options


@click.command(short_help="Tensor by tensor: the same, changed, or only on one side.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@options.json_flag
@options.globs
@options.table_file
@click.option("-v", "--tensors", is_flag=True, help="A line for every tensor that is not the same.")
@click.option("--all", "everything", is_flag=True, help="Also for the tensors that are the same.")
def diff(
    a: str,
    b: str,
    as_json: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    form: str | None,
    tensors: bool,
    everything: bool,
    output: str | None,
) -> int:
    """What differs between two checkpoints, whatever the names, fusions and quantisation: by how much in which block
    and role, and which tensors most. --tensors, and a file, have a line for every tensor.

    Tensors are paired by name, else by their place in the model, else by their bytes; those without a partner are
    listed. `relative change` is ‖B − A‖ / ‖A‖; `cosine` is taken after the means are.

    \b
    Exit codes:
      0  every tensor is in both, with the same values and dtype
      1  something differs
      2  no answer: usage, I/O, unreadable

    \b
    Examples:
      weightprint diff base/ finetuned/
      weightprint diff base/ finetuned/ --include '*.q_proj.*' --tensors
      weightprint diff base/ finetuned/ -o diff.csv
      weightprint diff base.fp finetuned/               (by digests, against a fingerprint)
    """
    from weightprint.cli.out import TABLES, destination, later, put, tables
    from weightprint.diff.diff import diff as run
    from weightprint.report.diff import headline, lines, text
    from weightprint.report.progress import progress_bar
    from weightprint.report.terminal import console, pen, show

    form = destination(output, (a, b), TABLES, form)
    with progress_bar("diff") as progress:
        found = run(a, b, include=include, exclude=exclude, progress=progress)
    writers = {
        **tables(found.table),
        "markdown": lambda: later("report.page.markdown", "diff")(found),
        "html": lambda: later("report.page.diff", "page")(found, everything=everything),
        "text": lambda: text(found, tensors=True, everything=everything),
    }
    if as_json or (form == "json" and output is not None):
        form, writers["json"] = "json", lambda: found.to_json() + "\n"
    if form == "text" and output is None:
        out = console()
        show(lines(found, pen(out), tensors=tensors, everything=everything), out)
    else:
        put(output, form, writers)
    if output is not None:
        click.echo(f"{headline(found)}; wrote {output}", err=True)
    return 0 if found.same else 1
