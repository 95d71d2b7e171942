"""``weightprint recipe CHILD PARENT…``: which mix of which parents?"""

from __future__ import annotations

import click

from weightprint.cli import options


@click.command(short_help="Which mix of which parents is a model?")
@click.argument("child", metavar="CHILD")
@click.argument("parents", metavar="[PARENT]...", nargs=-1)
@click.option("--base", metavar="MODEL", help="What differences are taken from (task arithmetic, TIES, DARE).")
@click.option("--candidates", metavar="DIR", help="A folder of models: the fewest that explain CHILD are taken.")
@options.json_flag
@click.option("-v", "--verbose", is_flag=True, help="Also the mix of every role.")
@options.seed("Fixes the intervals.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Also write to FILE: the whole report (.html, .md, .txt, .json), or the mergekit configuration (.yaml).",
)
def recipe(
    child: str,
    parents: tuple[str, ...],
    base: str | None,
    candidates: str | None,
    as_json: bool,
    verbose: bool,
    seed: int,
    output: str | None,
) -> int:
    """Which mix of which PARENTs is CHILD, by which method, layer by layer, and what does none of them explain?

    Told apart are linear mixes, SLERP, task arithmetic, TIES, DARE and passthrough ("frankenmerges"). A PARENT may be
    an adapter: then the question is whether it is folded into CHILD, and at which scale; name its base before it.
    Fingerprints tell the weights, with intervals, and no method.

    \b
    Exit codes:
      0  the parents explain CHILD up to rounding; an adapter that was given is folded into it
      1  something is left that no given parent explains, or fingerprints can't tell; the adapter is not in it
      2  no answer: usage, I/O, unreadable, other shapes

    \b
    Examples:
      weightprint recipe merged/ model-a/ model-b/
      weightprint recipe merged/ tuned-a/ tuned-b/ --base base/ -o merge.yaml
      weightprint recipe suspect/ --candidates models/ --json | jq .weights
      weightprint recipe model/ base/ lora/
    """
    from weightprint.cli.out import REPORTS, destination, emit, put
    from weightprint.compare.recipe import recipe as run
    from weightprint.report.page.markdown import recipe as markdown
    from weightprint.report.page.recipe import page
    from weightprint.report.progress import progress_bar
    from weightprint.report.recipe import lines, text
    from weightprint.report.terminal import console, pen, show

    inputs = [model for model in (child, *parents, base) if model is not None]
    form = destination(output, inputs, {**REPORTS, ".yaml": "yaml", ".yml": "yaml"})
    with progress_bar("recipe") as progress:
        found = run(child, parents, base=base, candidates=candidates or (), seed=seed, progress=progress)
    writers = {
        "json": lambda: found.to_json() + "\n",
        "html": lambda: page(found),
        "markdown": lambda: markdown(found),
        "text": lambda: text(found, verbose=True),
        "yaml": lambda: found.mergekit() or "# no known merge of the given parents makes this model\n",
    }
    if output is not None:
        put(output, form, writers)
    if as_json:
        emit(writers["json"]())
    else:
        out = console()
        show(lines(found, pen(out), verbose=verbose), out)
    return 0 if found.answer else 1
