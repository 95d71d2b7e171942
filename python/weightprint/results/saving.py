"""Files we write: whole or not at all, and JSON that any parser reads.

The new content goes to a temporary file in the target's own folder and takes the target's name in one step
(`os.replace`), so a crash or a full disk leaves the old file as it was. What a killed run left behind is swept away by
the next write beside it. Non-finite numbers become null, because JSON has none; finite floats keep every bit (shortest
repr).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from weightprint.errors import UsageError
from weightprint.util.escape import escape

__all__ = ["json_value", "to_json", "write_atomically"]

_PREFIX, _SUFFIX = ".weightprint-", ".tmp"
_STALE_SECONDS = 600.0  # nothing was written to a temporary file for so long: nobody writes it any more


def write_atomically(path: str | os.PathLike[str], content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Put `content`, or what it writes to a file that it is given, into a temporary file that then replaces `path`;
    pipes and devices are written directly."""

    def write(file: IO[bytes]) -> object:
        return file.write(content) if isinstance(content, bytes) else content(file)

    target = Path(path)
    try:
        target = target if _is_special(target) else target.resolve()
    except RuntimeError as error:  # Python before 3.13 tells of a loop of links so
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(target)) from error
    if target.is_dir():
        raise UsageError(f"{escape(str(target))} is a folder; name a file in it", path=str(target), code="is_a_folder")
    if _is_special(target):
        with target.open("wb") as file:
            write(file)
        return
    _sweep(target.parent)
    # mkstemp makes private files; the result gets the rights that a plain open would have given it.
    rights = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    try:
        fd, temporary = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=target.parent)
    except OSError as error:  # its name is ours alone
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    try:
        with os.fdopen(fd, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, rights)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        # A full disk doesn't say whose: what `content` reads has names of its own.
        if type(error) is OSError and error.errno is not None and error.filename in (None, temporary):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def _is_special(path: Path) -> bool:
    """A pipe or device: there is nothing to replace."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _sweep(folder: Path) -> None:
    """Remove temporary files of this user's that a killed run left in `folder`; what can't be removed stays."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)):
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                mine = stat.S_ISREG(status.st_mode) and status.st_uid == getattr(os, "geteuid", lambda: 0)()
                if mine and time.time() - status.st_mtime > _STALE_SECONDS:
                    os.unlink(entry.path)


def _umask() -> int:
    # The mask can only be read by setting it; 0o077 is the safe value for the moment in between.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def json_value(value: Any) -> Any:
    """`value` with numpy scalars and arrays as Python ones, tuples as lists, and non-finite floats as None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return json_value(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(value: Any, indent: int | None = 2) -> str:
    """`value` as JSON text: ASCII only (so that no name can paint a terminal), non-finite numbers null."""
    return json.dumps(json_value(value), indent=indent, allow_nan=False)
