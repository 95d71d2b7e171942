"""Options that several verbs share, so that they mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _all(*options: Decorator) -> Decorator:
    return lambda function: reduce(lambda made, option: option(made), reversed(options), function)


def _codes(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Several codes to a comma."""
    return tuple(code.strip() for text in value for code in text.split(",") if code.strip())


model = click.argument("model", metavar="MODEL")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
everything = click.option("--all", "everything", is_flag=True, help="Leave nothing out.")
mode = click.option(
    "--mode",
    type=click.Choice(["strict", "compatible"]),
    default="strict",
    show_default=True,
    help="Insist on the specification, or accept what the reference reader accepts.",
)
globs = _all(
    click.option("--include", multiple=True, metavar="GLOB", help="Only tensors whose names match; repeatable."),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Not the tensors that match; repeatable."),
)
machine = _all(
    click.option("--threads", type=click.IntRange(min=1), help="How many threads.  [default: all cores]"),
    click.option(
        "--io",
        type=click.Choice(["auto", "pread", "mmap"]),
        default="auto",
        show_default=True,
        help="How files are read.",
    ),
)
codes = _all(
    click.option(
        "--select", multiple=True, metavar="CODE", callback=_codes, help="Only findings of these codes; repeatable."
    ),
    click.option("--ignore", multiple=True, metavar="CODE", callback=_codes, help="No findings of these codes."),
)


def seed(fixes: str) -> Decorator:
    """What the seed of a verb fixes."""
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help=fixes)


#: Of a verb that prints a report.
report_file = click.option(
    "-o", "--output", metavar="FILE", help="Also write the whole report to FILE: .html, .txt or .json."
)
#: Of a verb that prints a table.
table_file = _all(
    click.option(
        "--format",
        "form",
        type=click.Choice(["table", "csv", "json", "jsonl", "parquet"]),
        help="How to print; all but the table leave nothing out.  [default: table, or what FILE's suffix says]",
    ),
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write to FILE instead of printing: .html, .txt, .json, .jsonl, .csv or .parquet.",
    ),
)
