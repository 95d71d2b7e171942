"""Options that several verbs share, so that they mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

__all__ = ["codes", "everything", "globs", "json_flag", "machine", "mode", "model", "report_file", "table_file"]

F = TypeVar("F", bound=Callable[..., object])


def model(function: F) -> F:
    """The argument MODEL."""
    return click.argument("model", metavar="MODEL")(function)


def mode(function: F) -> F:
    """``--mode``."""
    return click.option(
        "--mode",
        type=click.Choice(["strict", "compatible"]),
        default="strict",
        show_default=True,
        help="Insist on the specification, or accept what the reference reader accepts.",
    )(function)


def globs(function: F) -> F:
    """``--include`` and ``--exclude``."""
    include = click.option(
        "--include", multiple=True, metavar="GLOB", help="Only tensors whose names match; repeatable."
    )
    exclude = click.option("--exclude", multiple=True, metavar="GLOB", help="Not the tensors that match; repeatable.")
    return include(exclude(function))


def machine(function: F) -> F:
    """``--threads`` and ``--io``: how, never what."""
    threads = click.option("--threads", type=click.IntRange(min=1), help="How many threads.  [default: all cores]")
    io = click.option(
        "--io",
        type=click.Choice(["auto", "pread", "mmap"]),
        default="auto",
        show_default=True,
        help="How files are read.",
    )
    return threads(io(function))


def json_flag(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(function)


def report_file(function: F) -> F:
    """``-o`` of a verb that prints a report."""
    return click.option(
        "-o", "--output", metavar="FILE", help="Also write the whole report to FILE: .html, .txt or .json."
    )(function)


def table_file(function: F) -> F:
    """``--format`` and ``-o`` of a verb that prints a table."""
    form = click.option(
        "--format",
        "form",
        type=click.Choice(["table", "csv", "json", "jsonl", "parquet"]),
        help="How to print; all but the table leave nothing out.  [default: table, or what FILE's suffix says]",
    )
    output = click.option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write to FILE instead of printing: .html, .txt, .json, .jsonl, .csv or .parquet.",
    )
    return form(output(function))


def everything(function: F) -> F:
    """``--all``."""
    return click.option("--all", "everything", is_flag=True, help="Leave nothing out.")(function)


def codes(function: F) -> F:
    """``--select`` and ``--ignore``: codes of findings, repeatable, several to a comma."""

    def split(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(code.strip() for text in value for code in text.split(",") if code.strip())

    select = click.option(
        "--select", multiple=True, metavar="CODE", callback=split, help="Only findings of these codes; repeatable."
    )
    ignore = click.option("--ignore", multiple=True, metavar="CODE", callback=split, help="No findings of these codes.")
    return select(ignore(function))
