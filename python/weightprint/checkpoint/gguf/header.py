"""The header of a GGUF file: which bytes are which tensor, and the metadata.

GGUF, versions 2 and 3, little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)::

    "GGUF"  u32 version  u64 tensors  u64 pairs
    pairs:    string key, u32 type, value          string: u64 length, UTF-8 bytes; array: u32 type, u64 count, values
    tensors:  string name, u32 rank, u64 × rank sizes, fastest axis first, u32 type, u64 offset into the data
    padding to `general.alignment` (32), then the data, every tensor at a multiple of the alignment

The package's own reader maps the file and believes its counts: a header of 40 bytes can make it loop 2⁶⁰ times, and one
that is cut short gives arrays of the wrong length or an IndexError. So the header is walked here: read by position, no
count believed before that many of the smallest things would fit into the rest of the file, arrays of tokens and merges
skipped (of each only the length is kept). The package says what the types are (block and byte sizes) and decodes them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import IO, Any

from weightprint.errors import FormatError, LimitError, UnsupportedFormatError
from weightprint.util.escape import escape

_HEADER_BYTES = 256_000_000  # the largest vocabularies, with a tokenizer.json inside, take about a tenth
_TENSORS = 200_000
_PAIRS = 65_536
_RANK = 4  # GGML_MAX_DIMS
_ALIGNMENT = 65_536
_KEPT_STRING = 65_536  # bytes of a string value that is kept
_KEPT_ARRAY = 4096  # numbers of an array that is kept
_KEPT_BYTES = 16_000_000  # of all values together
_WINDOW = 1 << 18

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_UINT32 = 4

#: ggml types whose elements stand alone, as safetensors calls them. All others are blocks of quantised numbers.
PLAIN = {
    "F32": "F32", "F16": "F16", "BF16": "BF16", "F64": "F64", "I8": "I8", "I16": "I16", "I32": "I32", "I64": "I64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgmlType:
    """One of ggml's types: `block` elements of a row are stored together in `nbytes` bytes."""

    name: str
    number: int
    block: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class ListedTensor:
    """One tensor: its type, its logical shape (slowest axis first, as numpy has it), its bytes in the file."""

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The logical shape; for types in blocks, with the last axis counted in bytes."""
        if self.type.name in PLAIN:
            return self.shape
        return (*self.shape[:-1], self.shape[-1] // self.type.block * self.type.nbytes)


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says.

    Attributes:
        version: 2 or 3.
        values: the metadata; strings too long to keep, and long arrays, are left out.
        lengths: number of elements of every array.
        tensors: in the order of the header.
        data_start: offset of the data in the file.
        alignment: tensors begin at multiples of it, counted from `data_start`.
    """

    version: int
    values: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: tuple[ListedTensor, ...]
    data_start: int
    alignment: int


@lru_cache(maxsize=1)
def ggml_types() -> dict[int, GgmlType]:
    """All types that the installed package knows, by number."""
    from gguf.constants import GGML_QUANT_SIZES

    return {
        int(kind): GgmlType(kind.name, int(kind), block, nbytes) for kind, (block, nbytes) in GGML_QUANT_SIZES.items()
    }


def parse(file: IO[bytes]) -> Header:
    """Read the header of an open, unbuffered file. Raises FormatError, LimitError or UnsupportedFormatError."""
    cursor = _Cursor(file)
    version, n_tensors, n_pairs = _start(cursor)
    # The least that a pair and a tensor can take: an empty name, a type, one byte; a rank, a type, an offset.
    cursor.expect(n_pairs, 13, "key-value pairs", counted_at=16)
    cursor.expect(n_tensors, 24, "tensors", counted_at=8)
    if n_tensors > _TENSORS:
        raise LimitError(f"{n_tensors:,} tensors; the cap is {_TENSORS:,}", offset=8, code="too_many_tensors")
    if n_pairs > _PAIRS:
        raise LimitError(f"{n_pairs:,} key-value pairs; the cap is {_PAIRS:,}", offset=16, code="too_many_pairs")
    values: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    seen: set[str] = set()
    for _ in range(n_pairs):
        at = cursor.at
        key = cursor.name("a key")
        if key in seen:
            raise FormatError(f"the key {escape(key)} comes twice", offset=at, code="gguf_duplicate_key")
        seen.add(key)
        _pair(cursor, key, values, lengths)
    alignment = _alignment(values)
    unplaced = [_tensor(cursor) for _ in range(n_tensors)]
    start = -(-cursor.at // alignment) * alignment
    # A file without tensors may end before the padding does.
    start = min(start, cursor.size) if not unplaced else start
    tensors = tuple(_placed(*tensor, start) for tensor in unplaced)
    return Header(version, values, lengths, tensors, start, alignment)


def _start(cursor: _Cursor) -> tuple[int, int, int]:
    magic = cursor.take(4)
    if magic != b"GGUF":
        raise FormatError(f"not a GGUF file: it begins with {magic!r}", offset=0, code="gguf_magic")
    (version,) = cursor.unpack("I")
    if version not in (2, 3):
        what = f"GGUF version {version}; versions 2 and 3 are read"
        if version & 0xFFFF == 0 and version >> 16:
            what = "a GGUF file of a big-endian machine"
        elif version == 1:
            what += ": convert it again from the original model with today's llama.cpp"
        raise UnsupportedFormatError(f"this is {what}", offset=4, code="gguf_version")
    n_tensors, n_pairs = cursor.unpack("QQ")
    return version, n_tensors, n_pairs


def _pair(cursor: _Cursor, key: str, values: dict[str, Any], lengths: dict[str, int]) -> None:
    """Read one value; keep it if it is short."""
    at = cursor.at
    (kind,) = cursor.unpack("I")
    if kind == _STRING:
        (length,) = cursor.unpack("Q")
        if length > _KEPT_STRING or not cursor.keep(length):
            cursor.skip(length)
        else:
            values[key] = cursor.take(length).decode("utf-8", "replace")
    elif kind == _ARRAY:
        inner, count = cursor.unpack("IQ")
        lengths[key] = count
        if inner == _STRING:
            cursor.expect(count, 8, f"strings of {escape(key)}", counted_at=at + 8)
            cursor.skip_strings(count)
        elif inner in _SCALARS:
            width = struct.calcsize(_SCALARS[inner])
            cursor.expect(count, width, f"numbers of {escape(key)}", counted_at=at + 8)
            if count > _KEPT_ARRAY or not cursor.keep(8 * count):
                cursor.skip(count * width)
            else:
                values[key] = list(cursor.unpack(f"{count}{_SCALARS[inner]}"))
        else:
            message = f"{escape(key)} is an array of type {inner}; arrays hold numbers or strings"
            raise FormatError(message, offset=at + 4, code="gguf_value_type")
    elif kind in _SCALARS:
        (values[key],) = cursor.unpack(_SCALARS[kind])
        if key == "general.alignment" and kind != _UINT32:
            raise FormatError("general.alignment is not of type uint32", offset=at, code="gguf_alignment")
    else:
        raise FormatError(f"{escape(key)} has the unknown type {kind}", offset=at, code="gguf_value_type")


def _alignment(values: Mapping[str, Any]) -> int:
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _ALIGNMENT or alignment & (alignment - 1):
        message = f"general.alignment is {alignment!r}, not a power of two up to {_ALIGNMENT:,}"
        raise FormatError(escape(message, 200), code="gguf_alignment")
    return alignment


def _tensor(cursor: _Cursor) -> tuple[str, int, tuple[int, ...], GgmlType, int]:
    at = cursor.at
    name = cursor.name("a tensor's name")
    (rank,) = cursor.unpack("I")
    if rank > _RANK:
        message = f"{rank} dimensions; GGUF has at most {_RANK}"
        raise FormatError(message, tensor=name, offset=at, code="gguf_rank")
    *sizes, number, offset = cursor.unpack(f"{rank}QIQ")
    kind = ggml_types().get(number)
    if kind is None:
        known = ", ".join(sorted(t.name for t in ggml_types().values()))
        message = f"type {number}, which the installed gguf package does not know (it knows {known}); try a newer one"
        raise UnsupportedFormatError(message, tensor=name, offset=at, code="gguf_unknown_type")
    shape = tuple(reversed(sizes))
    if (shape[-1] if shape else 1) % kind.block:
        message = (
            f"rows of {shape[-1] if shape else 1} elements, which are no whole blocks of {kind.block} ({kind.name})"
        )
        raise FormatError(message, tensor=name, offset=at, code="gguf_partial_block")
    return name, at, shape, kind, offset


def _placed(name: str, at: int, shape: tuple[int, ...], kind: GgmlType, offset: int, start: int) -> ListedTensor:
    begin = start + offset
    end = begin + prod(shape) // kind.block * kind.nbytes
    if end >= 1 << 63:
        message = f"its {escape('×'.join(map(str, shape)))} elements at offset {offset} end beyond any file"
        raise FormatError(message, tensor=name, offset=at, code="gguf_size")
    return ListedTensor(name, kind, shape, begin, end)


class _Cursor:
    """Reads a file front to back through a small window, never past its end or the cap."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.at = 0
        self._kept = 0
        self._window, self._from = b"", 0

    def expect(self, count: int, width: int, what: str, counted_at: int) -> None:
        """Refuse a count of things of at least `width` bytes that can't all stand in the rest of the file."""
        if count * width > self.size - self.at:
            message = f"the header counts {count:,} {what}, more than the rest of the file ({self._rest()}) can hold"
            raise FormatError(message, offset=counted_at, code="gguf_count")

    def keep(self, n: int) -> bool:
        """Whether a value of `n` bytes may be kept beside those that were."""
        self._kept += n
        return self._kept <= _KEPT_BYTES

    def skip(self, n: int) -> None:
        """Go on by `n` bytes."""
        if n > self.size - self.at:
            message = f"the header is cut short: {n:,} bytes should follow, but there are {self._rest()}"
            raise FormatError(message, offset=self.at, code="gguf_truncated")
        self._within_cap(n)
        self.at += n

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        begin = self.at
        self.skip(n)
        if begin < self._from or self.at > self._from + len(self._window):
            self._fill(begin, n)
        return self._window[begin - self._from : self.at - self._from]

    def unpack(self, form: str) -> tuple[Any, ...]:
        """The next numbers, little-endian and without padding."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def name(self, what: str) -> str:
        """The next string, which must be short and of UTF-8."""
        at = self.at
        (length,) = self.unpack("Q")
        if length > 65_535 and length <= self.size - self.at:
            raise LimitError(f"{what} of {length:,} bytes; the cap is 65,535", offset=at, code="gguf_name_too_long")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"{what} is not UTF-8", offset=at, code="gguf_not_utf8") from None

    def skip_strings(self, count: int) -> None:
        """Go on by `count` strings: many, so the window is walked without a call for each."""
        self._within_cap(8 * count)  # not one by one up to the cap, where their lengths alone go beyond it
        length_at = struct.Struct("<Q").unpack_from
        while count:
            begin = self.at
            self.take(8)
            self.at = begin
            window, offset = self._window, begin - self._from
            last = len(window) - 8
            while count and offset <= last:
                offset += 8 + length_at(window, offset)[0]
                count -= 1
            self.skip(offset + self._from - begin)

    def _within_cap(self, n: int) -> None:
        if self.at + n > _HEADER_BYTES:
            message = f"the header has more than {_HEADER_BYTES:,} bytes"
            raise LimitError(message, offset=self.at, code="header_too_large")

    def _fill(self, begin: int, n: int) -> None:
        wanted = min(max(n, _WINDOW), self.size - begin)
        self.file.seek(begin)
        parts, got = [], 0
        while got < wanted:
            part = self.file.read(wanted - got)
            if not part:
                message = f"the file was cut short while it was read: {wanted - got:,} bytes are missing"
                raise FormatError(message, offset=begin + got, code="gguf_truncated")
            parts.append(part)
            got += len(part)
        self._window, self._from = b"".join(parts), begin

    def _rest(self) -> str:
        return f"{self.size - self.at:,} bytes"
