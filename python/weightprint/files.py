"""Opening one file of tensors, whatever the container: the one place that chooses its reader, by the file's ending."""

from __future__ import annotations

from dataclasses import dataclass

from weightprint import _core
from weightprint.gguf import SUFFIX, GgufFile, open_gguf

__all__ = ["OpenFile", "open_file"]


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
    return OpenFile(_core.SafetensorsFile(path, mode=mode))
