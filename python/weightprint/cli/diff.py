"""``weightprint diff A B``: tensor by tensor."""

from __future__ import annotations

import click

from weightprint.cli import options

__all__ = ["diff"]


@click.command(short_help="Tensor by tensor: the same, changed, or only on one side.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@options.json_flag
@options.globs
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "jsonl", "parquet"]),
    help="How to print; all but the table hold every tensor.  [default: table, or what FILE's suffix says]",
)
@click.option("--all", "everything", is_flag=True, help="Also list the tensors that are the same.")
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of printing.")
def diff(
    a: str,
    b: str,
    as_json: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    form: str | None,
    everything: bool,
    output: str | None,
) -> int:
    """What differs between two checkpoints, tensor by tensor, whatever the names, fusions and quantisation.

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
      weightprint diff base/ finetuned/ --include '*.q_proj.*' --all
      weightprint diff base/ finetuned/ -o diff.csv
    """
    from weightprint.cli.out import emit, refuse_inputs
    from weightprint.diff.diff import diff as run
    from weightprint.report.diff import diff_text, headline
    from weightprint.report.progress import progress_bar
    from weightprint.results.saving import write_atomically
    from weightprint.results.table import encode, form_of

    refuse_inputs(output, (a, b))
    if form is None:
        form = "table" if output is None or output.endswith((".txt", ".md")) else form_of(output)
    with progress_bar("diff") as progress:
        found = run(a, b, include=include, exclude=exclude, progress=progress)
    if as_json or (form == "json" and output is not None):
        data = (found.to_json() + "\n").encode()
    elif form == "table":
        data = diff_text(found, everything=everything).encode()
    else:
        data = encode(found.table, form)
    if output is None:
        emit(data)
    else:
        write_atomically(output, lambda file: file.write(data))
        click.echo(f"{headline(found)}; wrote {output}", err=True)
    return 0 if found.same else 1
