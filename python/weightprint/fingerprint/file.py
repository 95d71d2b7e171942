"""A fingerprint as a file: safetensors, whose metadata says what it is.

``__metadata__`` holds ``format`` (:data:`FORMAT`), ``version``, ``plan`` (JSON), ``summary`` (JSON: which model, by
whose version) and ``digest``, BLAKE2b of the data behind the header. The arrays are those of
:mod:`weightprint.fingerprint.parts`, the linear sketches, statistics, and ``tensors``: what is known of every tensor,
as deflated JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weightprint.checkpoint.locate import open_regular, read_small
from weightprint.errors import FormatError, UnsupportedFormatError
from weightprint.fingerprint.plan import VERSION
from weightprint.results.saving import json_value, write_atomically
from weightprint.util.arrays import Array
from weightprint.util.escape import escape

FORMAT = "weightprint.fingerprint"

_LONGEST_HEADER = 1 << 26
_LONGEST_TEXT = 1 << 29  # of the list of tensors, inflated
_LONGEST_FILE = 1 << 32
_DTYPES = {"I8": "<i1", "U8": "<u1", "F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U64": "<u8"}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def packed(value: Any) -> Array:
    """JSON as deflated bytes."""
    text = json.dumps(json_value(value), allow_nan=False, separators=(",", ":"))
    return np.frombuffer(zlib.compress(text.encode(), 9), np.uint8)


def unpacked(array: Array) -> Any:
    """What `packed` made this of. Raises ValueError for anything else, and for more text than a header may have."""
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(array.tobytes(), _LONGEST_TEXT)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflating.eof:
        raise ValueError("the list of tensors is cut short, or longer than any model's")
    return json.loads(text)


def write(path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata, whole or not at all; the bytes follow from these alone."""
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    entries: dict[str, Any] = {}
    digest, end = hashlib.blake2b(digest_size=32), 0
    for name in order:
        array = arrays[name]
        data = [end, end := end + array.nbytes]
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": data}
        digest.update(np.ascontiguousarray(array).data)
    told = {"format": FORMAT, "version": str(VERSION), **metadata, "digest": digest.hexdigest()}
    header = json.dumps({"__metadata__": told, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)

    def put(file: Any) -> None:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            file.write(np.ascontiguousarray(arrays[name]).data)

    write_atomically(path, put)


def is_fingerprint(path: str | os.PathLike[str]) -> bool:
    """Whether this is a file whose metadata calls it a fingerprint; what can't be read is none."""
    try:
        header, _ = _header(Path(path))
    except (OSError, FormatError, UnsupportedFormatError):
        return False
    return header is not None


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a fingerprint.

    Raises:
        UnsupportedFormatError: no fingerprint (code ``not_a_fingerprint``), or one of a version that this weightprint
            does not read (``fingerprint_version``).
        FormatError: it is cut short or was changed (``fingerprint_damaged``).
        OSError: what opening fails with.
    """
    where, named = Path(path), os.fspath(path)
    header, begin = _header(where)
    if header is None:
        raise UnsupportedFormatError("this is no fingerprint", path=named, code="not_a_fingerprint")
    metadata = header.pop("__metadata__")
    if metadata.get("version") not in map(str, range(1, VERSION + 1)):
        version = escape(str(metadata.get("version")))
        message = f"it is a fingerprint of version {version}, and this weightprint reads up to {VERSION}"
        raise UnsupportedFormatError(message, path=named, code="fingerprint_version")
    data = memoryview(read_small(where, _LONGEST_FILE, "fingerprint"))[begin:]
    if hashlib.blake2b(data, digest_size=32).hexdigest() != metadata.get("digest"):
        message = "the fingerprint is cut short or was changed: its digest is another"
        raise FormatError(message, path=named, code="fingerprint_damaged")
    try:
        return {name: _array(data, entry) for name, entry in header.items()}, metadata
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"the fingerprint is damaged: {error}", path=named, code="fingerprint_damaged") from error


def _array(data: memoryview, entry: Mapping[str, Any]) -> Array:
    begin, end = entry["data_offsets"]
    return np.frombuffer(data[begin:end], _DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _header(path: Path) -> tuple[dict[str, Any] | None, int]:
    """The header, None where it calls itself no fingerprint; and where the data begin."""
    if path.is_dir():
        return None, 0
    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= _LONGEST_HEADER:
            return None, 0
        text = file.read(size)
    if FORMAT.encode() not in text:
        return None, 0
    try:
        header = json.loads(text)
        named = header["__metadata__"]["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        message = "the header of a fingerprint is cut short or damaged"
        raise FormatError(message, path=str(path), code="fingerprint_damaged") from error
    return (header if named else None), 8 + size
