"""GGUF files, opened through the `gguf` package (``pip install 'weightprint[gguf]'``).

A GGUF file is named runs of bytes behind a header, like a safetensors file. Its header is parsed (:mod:`.header`) and
handed to the core as a list, and from there on everything reads it the same way: checks of bounds, scans, digests.

Types whose elements stand alone (F32, F16, BF16, F64, I8 … I64) are read as such. Those in blocks (Q8_0, Q4_K, IQ2_S,
MXFP4, …) are U8 to the core, one row of bytes per row of elements; what they hold is in `Checkpoint.ggml_types`, and
:mod:`weightprint.quant.schemes.gguf` decodes them. Shapes are reversed to numpy's order, slowest axis first.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from weightprint import _core
from weightprint.checkpoint.config import Config
from weightprint.checkpoint.gguf.config import hugging_face
from weightprint.checkpoint.gguf.header import PLAIN, GgmlType, Header, ListedTensor, parse
from weightprint.errors import FileChangedError, UnsupportedFormatError, WeightprintError

SUFFIX = ".gguf"

_INSTALL = "reading a GGUF file needs the gguf package: pip install 'weightprint[gguf]'"


@dataclass(frozen=True, slots=True)
class GgmlTensor:
    """What a tensor of blocks holds: its type and its logical shape (the stored one counts bytes along the rows)."""

    type: GgmlType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GgufFile:
    """One open GGUF file.

    Attributes:
        core: the core's handle.
        config: its metadata, as a config.json would say it.
        packed: tensors in blocks, by name.
    """

    core: _core.SafetensorsFile
    config: Config
    packed: dict[str, GgmlTensor]


def open_gguf(path: str, mode: str = "strict") -> GgufFile:
    """Open one GGUF file and check its structure; no tensor is read.

    Raises:
        UnsupportedFormatError: the gguf package is not installed; a version or type that it does not know.
        FormatError, LimitError: the bytes break the rules, or pass a cap.
        FileChangedError: the file was replaced meanwhile.
        OSError: the system refused.
    """
    try:
        import gguf as _  # noqa: F401
    except ImportError as error:
        raise UnsupportedFormatError(_INSTALL, path=path, code="gguf_not_installed") from error
    # Without blocking, so that a pipe named *.gguf can't hang us.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            message = "this is not a regular file; copy its content to one first"
            raise UnsupportedFormatError(message, path=path, code="not_a_regular_file")
        try:
            header = parse(file)
            core = _core.SafetensorsFile.from_entries(
                path,
                [_entry(tensor) for tensor in header.tensors],
                nbytes=seen.st_size,
                data_start=header.data_start,
                alignment=header.alignment,
                metadata=_metadata(header),
                mode=mode,
            )
        except WeightprintError as error:
            error.path = error.path or path
            raise
        # The core opened the path anew: was it the file whose header was read?
        now, then = ((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (os.stat(path), seen))
        if now != then:
            raise FileChangedError("the file was replaced while it was opened", path=path, code="file_changed")
    config = Config(MappingProxyType(hugging_face(header.values, header.lengths)), path)
    packed = {t.name: GgmlTensor(t.type, t.shape) for t in header.tensors if t.type.name not in PLAIN}
    return GgufFile(core, config, packed)


def _entry(tensor: ListedTensor) -> tuple[str, str, tuple[int, ...], int, int]:
    return tensor.name, PLAIN.get(tensor.type.name, "U8"), tensor.stored_shape, tensor.begin, tensor.end


def _metadata(header: Header) -> list[tuple[str, str]]:
    """Numbers and strings of the metadata as text; of arrays their length."""
    scalars: dict[str, Any] = {key: value for key, value in header.values.items() if not isinstance(value, list)}
    counts = {key: f"[{n:,} values]" for key, n in header.lengths.items()}
    return [("gguf.version", str(header.version))] + [(key, str(value)) for key, value in {**scalars, **counts}.items()]
