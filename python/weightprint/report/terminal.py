"""The two consoles: results on stdout, everything else on stderr. rich honours NO_COLOR and FORCE_COLOR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from weightprint.report.pen import Pen
from weightprint.results.finding import Finding, Severity
from weightprint.util.escape import escape

__all__ = ["console", "finding_text", "pen", "plain", "show"]

_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}


_HANG = 8  # columns by which what goes on is indented


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        # rich would end the process with 1, which means "a finding"; the command line has a code for this.
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A rich console that reads no markup and guesses no highlights: what we print is what appears."""
    return _Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)


def pen(out: Console) -> Pen:
    """How to write for that console: as wide as it is, in ASCII where it has nothing else."""
    return Pen(out.width, out.options.ascii_only)


def show(lines: Iterable[Text], out: Console | None = None) -> None:
    """Print lines to stdout: in colour on a terminal, where those that are too long break between words; whole in a
    pipe, so that a line is a finding."""
    out = out or console()
    for line in lines:
        for piece in _hanging(line, out) if out.is_terminal and not line.no_wrap else (line,):
            out.print(piece, soft_wrap=True)


def _hanging(line: Text, out: Console) -> Iterator[Text]:
    """A line in pieces of the terminal's width, all but the first indented."""
    first, *rest = line.wrap(out, out.width) or [line]
    pieces = [first]
    if rest:
        left = line[len(line) - len(line.plain[len(first) :].lstrip()) :]
        pieces += [Text(" " * _HANG) + piece for piece in left.wrap(out, max(out.width - _HANG, 20))]
    for piece in pieces:
        piece.rstrip()
        yield piece


def plain(lines: Iterable[Text]) -> str:
    """The lines as text without colour."""
    return "".join(f"{line.plain}\n" for line in lines)


def finding_text(finding: Finding) -> Text:
    """A finding as one line: severity, code, message, file and byte."""
    text = Text()
    text.append(f"{finding.severity:<8}", _STYLES[finding.severity])
    text.append(f"{escape(finding.code)}  ", "cyan")
    # Messages come escaped, but the escaping is cheap and a raw message would be a hole.
    text.append(escape(finding.message, None))
    if finding.offset is not None:
        text.append(f" [byte {finding.offset}]", "dim")
    if finding.path and escape(finding.path) not in finding.message:
        text.append(f" [{escape(finding.path)}]", "dim")
    return text
