"""The command line: one file per verb, loaded when it is called.

What every verb shares is here: how errors become one clear sentence on stderr and an exit code.

====  =========================================================
code  meaning
====  =========================================================
0     same, or sound
1     different, related, or a finding
2     no answer: usage, I/O, unreadable
130   interrupted
141   whoever read our output went away
====  =========================================================

A command is a function that returns its exit code (None is 0). Data goes to stdout, everything else to stderr. To add a
verb, write ``cli/<verb>.py`` with a click command of the same name and add a row to :data:`COMMANDS`.
"""

from __future__ import annotations

import difflib
import os
import sys
import threading
from importlib import import_module
from typing import Any, NoReturn

import click

from weightprint.errors import InternalError, WeightprintError
from weightprint.util.escape import escape

COMMANDS: dict[str, str] = {
    "inspect": "What is in the files: tensors, dtypes, shapes, metadata. Reads headers only.",
    "stats": "Statistics of every tensor, in one pass over every byte.",
    "check": "Is it sound? Short or missing shards, NaN, outliers, dead rows; manifests.",
    "diff": "Tensor by tensor: the same, changed and by how much, or only on one side.",
    "compare": "Do two models share an origin? Evidence for and against.",
    "recipe": "Which mix of which parents is a model? Merge methods, weights, what is left.",
    "fingerprint": "Measure once, compare for ever: keep what is enough to compare a model later.",
    "demo": "The main job on models inside this package; no network.",
}
"""Verb → one line of help. The verb is also the name of the module and of the command in it."""


class _ReaderLeftError(Exception):
    """Whoever read our output went away (``| head``)."""


class Verbs(click.Group):
    """A group that imports a verb only when it runs, so that ``--help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"weightprint.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the verb; a misspelt one is told what it looks like."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if not close or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. Click versions differ in what they make of a closed pipe, so it leaves under another name."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeftError from error

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run, and turn whatever happens into an exit code."""
        extra["standalone_mode"] = False
        if sys.stderr is None:  # closed by the caller (2>&-): there is nobody to tell anything
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        if sys.stdout is None:
            _say("stdout is closed: there is nowhere to put the result")
            sys.exit(2)
        # A name that the terminal's encoding lacks must not end the run.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            _spare_threads()
            code = super().main(*args, **extra)
            sys.stdout.flush()
        except (_ReaderLeftError, BrokenPipeError):
            # Python flushes stdout once more on exit; give it somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except (KeyboardInterrupt, click.Abort):
            _say("interrupted")
            sys.exit(130)
        except click.ClickException as error:
            error.show()
            sys.exit(2)
        except Exception as error:
            sys.exit(_fail(error))
        sys.exit(code if isinstance(code, int) else 0)


def _fail(error: Exception) -> int:
    if os.environ.get("WEIGHTPRINT_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exc()
        return 2
    if isinstance(error, InternalError) or not isinstance(error, (WeightprintError, OSError, MemoryError)):
        _say(f"internal error: {type(error).__name__}: {error}")
        _say("this is a bug in weightprint; WEIGHTPRINT_DEBUG=1 shows where, please report it")
    elif isinstance(error, OSError) and not isinstance(error, WeightprintError):
        where = f" [{error.filename}]" if error.filename else ""
        _say(f"{error.strerror or error}{where}")
    else:
        _say(str(error) or type(error).__name__)
    return 2


def _say(message: str) -> None:
    click.echo(f"weightprint: {escape(message, None)}", err=True)


def _spare_threads() -> None:
    """Where the system makes no thread, numpy's BLAS must not try: it interrupts the process that loads it."""
    try:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    except RuntimeError:
        os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from weightprint import __version__

        click.echo(f"weightprint {__version__}")
        ctx.exit()


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="MODEL is a .safetensors file, a folder, an index JSON, or org/name[@revision] in the local hub cache. "
    "Nothing is ever downloaded. Exit codes: 0 same or sound, 1 different, related or a finding, 2 no answer, "
    "130 interrupted.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Whose weights are these? Reads, measures and compares model checkpoints."""


def main() -> NoReturn:
    """The ``weightprint`` command."""
    cli.main(prog_name="weightprint")
    raise AssertionError("Verbs.main always exits")
