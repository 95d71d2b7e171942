"""What a verb puts out: data to stdout, all of it or an error; and to files, none of which may be an input.

``sys.stdout`` is unbuffered under ``PYTHONUNBUFFERED``, and then one large write may end early without a word, so what
is left is written again until nothing is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from weightprint.errors import UsageError, WeightprintError
from weightprint.results.saving import write_atomically
from weightprint.results.table import FORMATS, SUFFIXES, StatsTable, encode, form_of
from weightprint.util.escape import escape

#: Suffix of a file → the form of the report in it.
REPORTS = {".html": "html", ".md": "markdown", ".txt": "text", ".json": "json"}
#: The same for verbs that make a table.
TABLES = {**REPORTS, **SUFFIXES}

_PIECE = 1 << 20
_OF_A_MODEL = (".safetensors", ".gguf", ".index.json", "config.json", ".bin", ".pt", ".pth", ".ckpt")


def destination(
    output: str | None,
    models: Iterable[str],
    suffixes: Mapping[str, str] = REPORTS,
    form: str | None = None,
    others: Iterable[str] = (),
) -> str:
    """The form to put out: `form` if there is one, else what the suffix of `output` says, else text.

    Asked before anything is read. Raises UsageError: `output` is an input (see `refuse_inputs`), or it has none of
    `suffixes` (code ``unknown_suffix``).
    """
    refuse_inputs(output, models, others)
    if form is None and output is not None:
        return form_of(output, suffixes)
    return "text" if form in (None, "table") else form


def needs_weights(verb: str, *models: str) -> None:
    """UsageError (code ``needs_weights``) where one of these is a fingerprint, for verbs that read values."""
    from weightprint.fingerprint.file import is_fingerprint

    for model in models:
        if is_fingerprint(model):
            message = (
                f"{escape(model)} is a fingerprint, and {verb} needs the weights; inspect, diff and compare take it"
            )
            raise UsageError(message, path=model, code="needs_weights")


def later(module: str, name: str) -> Callable[..., Any]:
    """A function of one of our modules that is imported when it is called: most runs write no page."""
    return lambda *args, **kwargs: getattr(import_module(f"weightprint.{module}"), name)(*args, **kwargs)


def tables(table: StatsTable) -> dict[str, Callable[[], str | bytes]]:
    """Writers of every form of a table."""
    return {form: partial(encode, table, form) for form in FORMATS}


def put(output: str | None, form: str, writers: Mapping[str, Callable[[], str | bytes]]) -> None:
    """Write what the form's writer makes to the file, whole or not at all; to stdout where there is no file."""
    data = writers[form]()
    if output is None:
        emit(data)
    else:
        write_atomically(output, data.encode() if isinstance(data, str) else data)


def emit(data: str | bytes) -> None:
    """Write text (in stdout's encoding, what it lacks as backslash escapes) or bytes to stdout."""
    if isinstance(data, str):
        data = data.encode(sys.stdout.encoding or "utf-8", "backslashreplace")
    sys.stdout.flush()
    left = memoryview(data)
    while left:
        left = left[sys.stdout.buffer.write(left[:_PIECE]) :]
    sys.stdout.buffer.flush()


def refuse_inputs(output: str | None, models: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuse an `output` that is one of the inputs, before anything is read.

    Files are the same if device and inode are: another spelling, a link and a hard link are all seen through. Inputs
    are the files behind each of `models`, whatever else of a model lies in its folder (config, index, other shards),
    and `others`.

    Raises UsageError (code ``output_is_input``).
    """
    if output is None:
        return
    target = _identity(output)
    for path in (*others, *(path for model in models for path in _files_behind(model))):
        # A missing shard or index is an input too: what would be written there would be read as one next time.
        if _identity(path) == target if target else os.path.realpath(path) == os.path.realpath(output):
            same = "" if os.path.abspath(path) == os.path.abspath(output) else f" (it is {escape(path)})"
            message = f"{escape(output)}{same} belongs to what is read, so it can't be written: name another file"
            raise UsageError(message, path=output, code="output_is_input")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _files_behind(model: str) -> Iterator[str]:
    from weightprint.checkpoint.locate import locate

    try:
        location = locate(model)
    except (WeightprintError, OSError):
        # Not one place: a model with its adapter, or nothing that can be read; the verb will say so.
        yield from (path for part in model.split("+") if part != model for path in _files_behind(part))
        return
    yield from location.files
    yield from (os.path.join(location.root, name) for name in location.missing)
    if location.index:
        yield location.index
    with os.scandir(location.root) as entries:
        yield from (entry.path for entry in entries if entry.name.lower().endswith(_OF_A_MODEL))
