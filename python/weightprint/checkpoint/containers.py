"""Opening one file of tensors, whatever the container: the one place that chooses its reader, by the file's ending."""

from __future__ import annotations

from dataclasses import dataclass

from weightprint import _core
from weightprint.checkpoint.gguf.file import SUFFIX, GgufFile, open_gguf
from weightprint.errors import FormatError

#: Notes of the core that are habits of writers, not faults: every reader takes them.
MILD = frozenset({"leading_whitespace", "metadata_not_object"})


@dataclass(frozen=True, slots=True)
class OpenFile:
    """The core's handle on a file, and what its container says beside it (None for safetensors)."""

    core: _core.SafetensorsFile
    gguf: GgufFile | None = None


def open_file(path: str, mode: str) -> OpenFile:
    """Open and check one file; raises what its reader raises."""
    if path.lower().endswith(SUFFIX):
        gguf = open_gguf(path, mode)
        return OpenFile(gguf.core, gguf)
    try:
        return OpenFile(_core.SafetensorsFile(path, mode=mode))
    except FormatError as error:
        if error.code != "metadata_not_object":
            raise
        # `"__metadata__": null` is outside the specification and in published files: read, with a note.
        core = _core.SafetensorsFile(path, mode="compatible")
        if any(code not in MILD for code, *_ in core.notes):
            raise
        return OpenFile(core)
