"""What can go wrong, as types.

Every exception of weightprint is a :class:`WeightprintError` and also the builtin that fits best, so a caller who has
never heard of weightprint can still write ``except ValueError``. Errors of the operating system stay ``OSError`` with
errno and filename; nothing here wraps them.
"""

from __future__ import annotations

import errno
from typing import Any

from weightprint.util.escape import escape


class WeightprintError(Exception):
    """Base of all errors raised by weightprint.

    Attributes:
        message: one sentence for a person, with the way out where there is one.
        path: the file it is about, or None.
        tensor: the tensor's name as stored (not escaped), or None.
        offset: byte offset in the file, or None.
        code: a stable short name such as ``"header_too_large"``, or None.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> with weightprint.open("weightprint-demo/parent") as model:
        ...     try:
        ...         model.read("no.such.tensor")
        ...     except weightprint.WeightprintError as error:  # a KeyError too
        ...         print(error.code, error.tensor)
        tensor_not_found no.such.tensor
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.tensor = tensor
        self.offset = offset
        self.code = code

    def __str__(self) -> str:
        # The sentence may name the file or tensor already: say each thing once.
        parts = [self.message]
        for label, value in (("tensor ", self.tensor), ("byte ", self.offset), ("", self.path)):
            shown = None if value is None else escape(str(value))
            if shown is not None and shown not in self.message:
                parts.append(f"[{label}{shown}]")
        return " ".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.path, self.tensor, self.offset, self.code)


def _rebuild(
    cls: type[WeightprintError],
    message: str,
    path: str | None,
    tensor: str | None,
    offset: int | None,
    code: str | None,
) -> WeightprintError:
    return cls(message, path=path, tensor=tensor, offset=offset, code=code)


class FormatError(WeightprintError, ValueError):
    """The bytes break the rules of the format."""


class LimitError(FormatError):
    """The file is legal but passes a cap that can be raised."""


class UnsupportedFormatError(FormatError):
    """A file of another format (a pickle, an HDF5), or of a version or type not read; the message says the way out."""


class TensorNotFoundError(WeightprintError, KeyError):
    """No tensor of that name."""


class ShardMissingError(WeightprintError, FileNotFoundError):
    """A file that an index, a shard number or the caller names does not exist."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.errno = errno.ENOENT
        self.filename = self.path


class FileChangedError(WeightprintError, RuntimeError):
    """The file was cut, grew or was rewritten while it was read."""


class UsageError(WeightprintError, ValueError):
    """The arguments make no sense together, or match nothing."""


class InternalError(WeightprintError, RuntimeError):
    """A bug in weightprint."""
