"""Files we write: whole or not at all, and JSON that any parser reads.

The new content goes to a temporary file in the target's own folder and takes the target's name in one step
(`os.replace`), so a crash or a full disk leaves the old file as it was. Non-finite numbers become null, because JSON
has none; finite floats keep every bit (shortest repr).
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from weightprint.errors import UsageError
from weightprint.report.escape import escape

__all__ = ["finite", "to_json", "write_atomically"]


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a temporary binary file that then replaces `path`; pipes and devices are written directly."""
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{escape(str(target))} is a folder; name a file in it", path=str(target), code="is_a_folder")
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            write(file)
        return
    target = target.resolve()
    # mkstemp makes private files; the result gets the rights that a plain open would have given it.
    rights = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    fd, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, rights)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    # The mask can only be read by setting it; 0o077 is the safe value for the moment in between.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def finite(value: Any) -> Any:
    """`value` with numpy scalars and arrays as Python ones, tuples as lists, and non-finite floats as None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return finite(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(value: Any, indent: int | None = 2) -> str:
    """`value` as JSON text: ASCII only (so that no name can paint a terminal), non-finite numbers null."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)
