"""An open checkpoint: which bytes are which tensor, and what is wrong with the files.

Opening reads headers only. A checkpoint with a million tensors stays small: what the core parsed is the only copy, a
:class:`TensorInfo` is made when it is asked for, and the name table across shards is the one thing kept beside it.

Two modes. In ``strict`` the files follow the specification and agree with their index, or `open` raises. In
``compatible`` what the reference reader accepts is accepted, and disagreements are findings. No mode skips bounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from math import prod
from types import MappingProxyType, TracebackType
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from weightprint import _core
from weightprint.checkpoint.config import Config, read_config
from weightprint.checkpoint.containers import MILD, OpenFile, open_file
from weightprint.checkpoint.gguf.file import GgmlTensor, GgufFile
from weightprint.checkpoint.info import FileInfo, TensorInfo
from weightprint.checkpoint.locate import Location, locate
from weightprint.checkpoint.shards import Numbering
from weightprint.errors import FileChangedError, FormatError, TensorNotFoundError, UsageError, WeightprintError
from weightprint.results.finding import Finding, from_error, from_note, worst_first
from weightprint.results.shown import Shown
from weightprint.util.escape import escape

Mode = Literal["strict", "compatible"]

_COMPATIBLE = "`weightprint check` says more; mode 'compatible' of inspect and stats opens it"


class Tensors(Sequence[TensorInfo]):
    """All tensors of a checkpoint, file by file in data order; each TensorInfo is made on access."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __len__(self) -> int:
        return self._checkpoint.n_tensors

    @overload
    def __getitem__(self, item: int) -> TensorInfo: ...
    @overload
    def __getitem__(self, item: slice) -> list[TensorInfo]: ...
    def __getitem__(self, item: int | slice) -> TensorInfo | list[TensorInfo]:
        if isinstance(item, slice):
            return [self._checkpoint._info(k) for k in range(*item.indices(len(self)))]
        k = range(len(self))[item]
        return self._checkpoint._info(k)

    def __iter__(self) -> Iterator[TensorInfo]:
        return (self._checkpoint._info(k) for k in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self):,} tensors of {escape(self._checkpoint.source)}>"


class Checkpoint(Shown):
    """The tensors of a model, as one flat collection over all its files. Made by :func:`open`; never changes.

    Attributes:
        source: MODEL as it was named.
        mode: the mode it was opened in.
        files: its files, in reading order.
        findings: what is worth knowing about the files, worst first.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> model = weightprint.open("weightprint-demo/parent")
        >>> model
        <Checkpoint weightprint-demo/parent: 48 tensors, 151,824 parameters, 303,648 bytes in 1 file(s)>
        >>> "model.norm.weight" in model, model.read("model.norm.weight")[:2].tolist()
        (True, [1.4140625, 1.5078125])
        >>> model.close()
    """

    _report = "inspect"

    source: str
    mode: Mode
    files: tuple[FileInfo, ...]
    findings: tuple[Finding, ...]

    def __init__(self, location: Location, mode: Mode, *, tolerant: bool = False) -> None:
        findings = list(location.findings)
        opened = _open_files(location, mode, findings if tolerant else None)
        for file, info in opened:
            findings += [from_note(note, info.path, MILD) for note in file.core.notes]
        files = tuple(info for _, info in opened)
        handles = tuple(file.core for file, _ in opened)
        numbering = Numbering(handles, [info.path for info in files], location)
        errors = [finding for finding in numbering.findings if finding.severity == "error"]
        if errors and mode == "strict" and not tolerant:
            raise _as_error(errors)
        self.__dict__.update(
            source=location.source,
            mode=mode,
            files=files,
            findings=worst_first(findings + numbering.findings),
            _location=location,
            _handles=handles,
            _ggufs=tuple(file.gguf for file, _ in opened if file.gguf is not None),
            _numbering=numbering,
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Checkpoint never changes: can't set {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        seen = tuple((info.nbytes, info.mtime_ns, info.ctime_ns) for info in self.files)
        return _reopen, (self._location, self.mode, seen, self.__dict__.get("config_file"))

    def __repr__(self) -> str:
        if self.closed:
            return f"<Checkpoint {escape(self.source)}: closed>"
        return (
            f"<Checkpoint {escape(self.source)}: {self.n_tensors:,} tensors, {self.n_parameters:,} parameters, "
            f"{self.n_bytes:,} bytes in {len(self.files)} file(s)>"
        )

    def __len__(self) -> int:
        return self.n_tensors

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._number(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; asking for tensors afterwards raises UsageError."""
        self.__dict__["_handles"] = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._handles is None

    # What it holds

    @property
    def n_tensors(self) -> int:
        """Number of tensors over all files."""
        return len(self._numbering.of_index)

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, file by file in data order, made on access."""
        return Tensors(self)

    @property
    def n_parameters(self) -> int:
        """Number of elements over all tensors, counted by `elements_of`."""
        return self._totals[0]

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors, without headers."""
        return self._totals[1]

    def elements_of(self, info: TensorInfo) -> int:
        """Numbers that a tensor holds: `TensorInfo.numel`; of GGUF's tensors in blocks not the bytes, the numbers."""
        packed = self.ggml_types.get(info.name)
        return info.numel if packed is None else prod(packed.shape)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The files' ``__metadata__``, merged; where files differ, the first one's value."""
        merged: dict[str, str] = {}
        for file in self._open_files():
            for key, value in file.metadata.items():
                merged.setdefault(key, value)
        return merged

    @property
    def config(self) -> Mapping[str, Any]:
        """What the makers say of the model, as Hugging Face keys (``hidden_size`` …): context, never evidence.

        The JSON object in ``config.json`` beside the files (``adapter_config.json`` for an adapter's), or what a GGUF
        file's metadata say. Empty where there is none, or none that can be read; `config_file` says which and why.
        Read when first asked for.
        """
        return self.config_file.values

    @cached_property
    def config_file(self) -> Config:
        """The `config` with the path it was read from and what is wrong with it."""
        return self._ggufs[0].config if self._ggufs else read_config(self._location)

    @cached_property
    def ggml_types(self) -> Mapping[str, GgmlTensor]:
        """GGUF's tensors in blocks of quantised numbers, by name: type and logical shape; empty for other files.

        To the core they are U8: a row of bytes for each row of numbers. `read` gives those bytes;
        ``weightprint.anatomy`` and :mod:`weightprint.quant` give the numbers.
        """
        merged: dict[str, GgmlTensor] = {}
        for file in self._ggufs:
            for name, tensor in file.packed.items():
                merged.setdefault(name, tensor)
        return MappingProxyType(merged)

    def names(self) -> list[str]:
        """All tensor names as stored, in the order of `tensors`."""
        files, numbering = self._open_files(), self._numbering
        per_file = [file.names() for file in files]
        if len(files) == 1:
            return per_file[0]
        return [per_file[f][i] for f, i in zip(numbering.of_file, numbering.of_index, strict=True)]

    def find(self, name: str) -> TensorInfo:
        """The tensor called `name`; raises TensorNotFoundError, which suggests names that look alike."""
        number = self._number(name)
        if number is None:
            raise _not_found(self, name)
        return self._info(number)

    __getitem__ = find

    # Reading values

    def read(
        self, name: str, start_row: int | None = None, stop_row: int | None = None
    ) -> npt.NDArray[np.float32] | npt.NDArray[np.complex64]:
        """The values of one tensor, decoded to float32 (complex64 for C64); read-only.

        Args:
            name: as stored.
            start_row: first row of the matrix form (leading axes flattened, see `TensorInfo.matrix_shape`).
            stop_row: row after the last; like a slice, negative and overlong values are clipped.

        Returns:
            An array of the tensor's shape, or (rows, columns) when rows were asked for. 64-bit values are rounded to
            the nearest float32; BOOL gives 0 and 1.
        """
        info = self.find(name)
        n_rows, n_columns = info.matrix_shape
        whole = start_row is None and stop_row is None
        start, stop, _ = slice(start_row, stop_row).indices(n_rows)
        stop = max(start, stop)
        width = n_columns * info.components
        data = self.core_file(info.file).read_f32(info.index, start * width, stop * width)
        values = np.frombuffer(data, np.float32)
        shape = info.shape if whole else (stop - start, n_columns)
        return (values.view(np.complex64) if info.components == 2 else values).reshape(shape)

    def read_raw(self, name: str) -> bytes:
        """The bytes of one tensor exactly as stored."""
        info = self.find(name)
        return self.core_file(info.file).read_bytes(info.index)

    def check_unchanged(self) -> None:
        """Raise FileChangedError if a file's size, modification or change time is not what it was at opening.

        Whoever rewrites a file can set its modification time back, but not the time its inode changed.
        """
        for file, info in zip(self._open_files(), self.files, strict=True):
            file.check_unchanged()
            # A file that was removed meanwhile was still read from its open handle.
            with suppress(FileNotFoundError):
                if os.stat(info.path).st_ctime_ns != info.ctime_ns:
                    raise _changed(info.path, "while it was read")

    def core_file(self, file: int) -> _core.SafetensorsFile:
        """The core's handle on file number `file`."""
        return self._open_files()[file]

    def to_dict(self) -> dict[str, Any]:
        """Everything known without reading values, ready for JSON."""
        return {
            "source": self.source,
            "mode": self.mode,
            "n_tensors": self.n_tensors,
            "n_parameters": self.n_parameters,
            "n_bytes": self.n_bytes,
            "files": [{"path": f.path, "nbytes": f.nbytes, "n_tensors": f.n_tensors} for f in self.files],
            "metadata": self.metadata,
            "findings": [finding.to_dict() for finding in self.findings],
            "tensors": [info.to_dict() for info in self.tensors],
        }

    # Inside

    _location: Location
    _handles: tuple[_core.SafetensorsFile, ...] | None
    _ggufs: tuple[GgufFile, ...]
    _numbering: Numbering

    @cached_property
    def _totals(self) -> tuple[int, int]:
        parameters = nbytes = 0
        files, packed = self._open_files(), self.ggml_types
        for f, i in zip(self._numbering.of_file, self._numbering.of_index, strict=True):
            name, _, shape, begin, end = files[f].tensor(i)
            parameters += prod(packed[name].shape if name in packed else shape)
            nbytes += end - begin
        return parameters, nbytes

    def _open_files(self) -> tuple[_core.SafetensorsFile, ...]:
        if self._handles is None:
            raise UsageError(f"{escape(self.source)} is closed", code="closed")
        return self._handles

    def _info(self, number: int) -> TensorInfo:
        f, i = self._numbering.of_file[number], self._numbering.of_index[number]
        name, dtype, shape, begin, end = self._open_files()[f].tensor(i)
        return TensorInfo(name, dtype, shape, f, i, begin, end)

    def _number(self, name: str) -> int | None:
        if self._numbering.by_name is not None:
            return self._numbering.by_name.get(name)
        try:
            return self._open_files()[0].find(name)
        except TensorNotFoundError:
            return None


def open(model: str | os.PathLike[str] | Checkpoint, *, mode: Mode = "strict") -> Checkpoint:
    """Open a model's files and check their structure; no tensor is read.

    Args:
        model: a ``.safetensors`` or ``.gguf`` file, a directory, an index JSON, or ``org/name[@revision]`` in the local
            hub cache.
            An open checkpoint is returned as it is.
        mode: ``"strict"`` (the specification) or ``"compatible"`` (what the reference accepts, with findings).

    Raises:
        FormatError: the bytes or the index break the rules (UnsupportedFormatError: another format; LimitError: a cap).
        ShardMissingError: a file that the index or the shard numbers promise does not exist; all are named.
        UsageError: a MODEL that leaves a choice.
        OSError: the system refused.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> with weightprint.open("weightprint-demo/parent") as model:
        ...     print(model.n_tensors, model.n_parameters, model.config["hidden_size"])
        ...     print(model.names()[0])
        48 151824 48
        model.embed_tokens.weight
    """
    if isinstance(model, Checkpoint):
        return model
    if mode not in ("strict", "compatible"):
        raise UsageError(f"mode is 'strict' or 'compatible', not {mode!r}", code="bad_mode")
    location = locate(model)
    location.require_complete()
    return Checkpoint(location, mode)


def open_tolerant(location: Location) -> Checkpoint:
    """Open what can be opened; what can't is a finding of severity ``"error"``. For `check`.

    Raises OSError if the system refuses every file: then there is nothing to say about any.
    """
    checkpoint = Checkpoint(location, "compatible", tolerant=True)
    if not checkpoint.files and location.files and any(finding.code == "io" for finding in checkpoint.findings):
        Checkpoint(location, "compatible")
    return checkpoint


def _reopen(
    location: Location, mode: Mode, seen: tuple[tuple[int, int, int], ...], config: Config | None = None
) -> Checkpoint:
    checkpoint = Checkpoint(location, mode)
    if config is not None:
        checkpoint.__dict__["config_file"] = config
    for info, before in zip(checkpoint.files, seen, strict=True):
        if (info.nbytes, info.mtime_ns, info.ctime_ns) != before:
            raise _changed(info.path, "since it was first opened")
    return checkpoint


def _changed(path: str, when: str) -> FileChangedError:
    return FileChangedError(f"the file changed {when}", path=path, code="file_changed")


def _open_files(location: Location, mode: Mode, failures: list[Finding] | None) -> list[tuple[OpenFile, FileInfo]]:
    """Open every file; with a list for `failures`, put what fails there and go on."""
    opened = []
    for path in location.files:
        try:
            status = os.stat(path)
            file = open_file(path, mode)
        except WeightprintError as error:
            if failures is None:
                raise
            error.path = error.path or path
            failures.append(from_error(error))
        except OSError as error:
            if failures is None:
                raise
            failures.append(Finding("io", "error", f"can't be read: {error.strerror or error}", path))
        else:
            core = file.core
            times = status.st_mtime_ns, status.st_ctime_ns
            info = FileInfo(path, core.nbytes, core.data_start, core.n_tensors, *times)
            opened.append((file, info))
    return opened


def _as_error(errors: list[Finding]) -> FormatError:
    first = errors[0]
    more = f" (and {len(errors) - 1} more; `weightprint check` lists all)" if len(errors) > 1 else ""
    hint = "" if more or first.code == "tensor_parallel_ranks" else f" ({_COMPATIBLE})"
    return FormatError(first.message + (more or hint), path=first.path, tensor=first.tensor, code=first.code)


def _not_found(checkpoint: Checkpoint, name: str) -> TensorNotFoundError:
    message = f"no tensor {escape(name)} in {escape(checkpoint.source)}"
    if checkpoint.n_tensors <= 20_000:
        import difflib

        close = difflib.get_close_matches(name, checkpoint.names(), n=3)
        message += f"; close: {', '.join(map(escape, close))}" if close else ""
    return TensorNotFoundError(message, tensor=name, code="tensor_not_found")
