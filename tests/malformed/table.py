"""The table of files that a reader must refuse, or must not: one list for all tests.

Each row says what `strict` and `compatible` answer (a code, or "ok"), which notes come with an accepted file, and what
the reference implementation (safetensors 0.8.0) does. Rust tests, Python tests, the differential test and the fuzz
harness read the rows from `table.json`, which this module writes:

    python tests/malformed/table.py

Bytes are a recipe: pieces `[text or {"hex": …}, how often]`, so that a header of 100 MB is one line.
"""

# ruff: noqa: UP031 (JSON is full of braces, each of which str.format would want doubled)
from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

JSON = Path(__file__).with_name("table.json")
OK, ACCEPT, REJECT = "ok", "accept", "reject"

Pieces = list[tuple[bytes, int]]


@dataclass(frozen=True)
class Row:
    """One file (or index) and what readers say about it."""

    name: str
    pieces: Pieces
    strict: str
    compatible: str
    reference: str | None
    notes: tuple[str, ...] = ()
    kind: str = "file"

    def content(self) -> bytes:
        """The bytes of the file."""
        return b"".join(piece * times for piece, times in self.pieces)

    @property
    def nbytes(self) -> int:
        return sum(len(piece) * times for piece, times in self.pieces)


@dataclass
class Table:
    rows: list[Row] = field(default_factory=list)

    def file(
        self,
        name: str,
        header: str | bytes | Pieces,
        data: bytes | Pieces = b"",
        *,
        strict: str = OK,
        compatible: str | None = None,
        reference: str | None = None,
        notes: tuple[str, ...] = (),
        length: int | None = None,
    ) -> None:
        """A file: length, header, data. Unless said, `compatible` is as `strict` and `reference` as `compatible`."""
        head, tail = pieces(header), pieces(data)
        n = sum(len(p) * t for p, t in head) if length is None else length
        self.raw(name, [(struct.pack("<Q", n), 1), *head, *tail], strict, compatible, reference, notes)

    def raw(
        self,
        name: str,
        content: bytes | Pieces,
        strict: str,
        compatible: str | None = None,
        reference: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """A file given byte by byte."""
        compatible = strict if compatible is None else compatible
        reference = (ACCEPT if compatible == OK else REJECT) if reference is None else reference
        self.rows.append(Row(name, pieces(content), strict, compatible, reference, notes))

    def index(self, name: str, content: str | bytes | Pieces, code: str = OK, notes: tuple[str, ...] = ()) -> None:
        """The index of a sharded checkpoint; it has one mode."""
        self.rows.append(Row(name, pieces(content), code, code, None, notes, kind="index"))


def pieces(content: str | bytes | Pieces) -> Pieces:
    """Anything as pieces; empty ones are dropped."""
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        content = [(content, 1)]
    return [(piece, times) for piece, times in content if piece and times]


def entry(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4), **more: object) -> str:
    """One entry's JSON."""
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": offsets, **more})


def one(value: str, name: str = "t") -> str:
    """A header with one entry, or with whatever stands in for it."""
    return '{"%s":%s}' % (name, value)


F4 = b"\x00\x00\x80\x3f"  # 1.0 as float32: four bytes of data


def sound(t: Table) -> None:
    """Files that must be read, odd as some look."""
    t.file("no tensors", "{}")
    t.file("no tensors, padded", "{}      ")
    t.file("empty metadata only", '{"__metadata__":{}}')
    t.file("metadata only", '{"__metadata__":{"format":"pt","":""}}')
    t.file("metadata last", '{"t":%s,"__metadata__":{"a":"b"}}' % entry(), F4)
    t.file("metadata key spelled with escapes", r'{"\u005f_metadata__":{"a":"b"}}')
    t.file("metadata with every escape", r'{"__metadata__":{"a":"\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00"}}')
    t.file("one tensor", one(entry()), F4)
    t.file("fields in another order", '{"t":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}', F4)
    t.file("scalar", one(entry(shape=[])), F4)
    t.file("zero dimension", one(entry(shape=[0], offsets=[0, 0])))
    t.file("zero among others", one(entry(shape=[3, 0, 5], offsets=[0, 0])))
    t.file("zero before an overflow", one(entry(shape=[0, 2**63, 2**63], offsets=[0, 0])))
    t.file(
        "zero after an overflow",
        one(entry(shape=[2**63, 2**63, 0], offsets=[0, 0])),
        reference=REJECT,
        notes=("zero_after_overflow",),
    )
    three = '{"a":%s,"b":%s,"c":%s}'
    t.file(
        "empty tensor between two",
        three % (entry(), entry(shape=[0], offsets=[4, 4]), entry(offsets=[4, 8])),
        F4 * 2,
    )
    t.file(
        "two empty tensors at the end",
        three % (entry(), entry(shape=[0], offsets=[4, 4]), entry("U8", [0], [4, 4])),
        F4,
    )
    t.file("entries not in data order", three % (entry(offsets=[8, 12]), entry(), entry(offsets=[4, 8])), F4 * 3)
    t.file("odd alignment of the data", '{"t":%s}   ' % entry(), F4)
    t.file(
        "odd alignment of a tensor",
        '{"a":%s,"b":%s}' % (entry("U8", [1], [0, 1]), entry("F64", [1], [1, 9])),
        b"\x01" * 9,
    )
    t.file("leading spaces", "   " + one(entry()), F4, notes=("leading_whitespace",))
    t.file("leading tab and newlines", "\t\r\n" + one(entry()), F4, notes=("leading_whitespace",))
    t.file("trailing newline", one(entry()) + "\n\n", F4)
    t.file(
        "white space between tokens", '{ "t" :\n{ "dtype" : "F32" ,\t"shape":[ 1 ], "data_offsets" :[0 , 4 ]}\r}', F4
    )
    t.file("empty name", one(entry(), ""), F4, notes=("empty_name",))
    t.file("name in another script", one(entry(), "гewicht.重み.🦀"), F4)
    t.file("name of a control character", one(entry(), r"\u001b[2J\u0000"), F4)
    t.file("name of bidi marks", one(entry(), "a\u202eb\u2066"), F4)
    t.file("name like a path", one(entry(), "../../etc/passwd"), F4)
    t.file("name with a surrogate pair escape", one(entry(), r"\ud83e\udd80"), F4)
    t.file("name of quotes and backslashes", one(entry(), r"\"\\\/"), F4)
    t.file("names that differ in case", '{"t":%s,"T":%s}' % (entry(), entry(offsets=[4, 8])), F4 * 2)
    t.file(
        "names in two Unicode normal forms",
        '{"\u00e9":%s,"e\u0301":%s}' % (entry(), entry(offsets=[4, 8])),
        F4 * 2,
    )
    t.file("name almost like metadata", one(entry(), "__metadata"), F4)
    t.file("name of 4096 bytes", [(b'{"', 1), (b"n", 4096), (b'":' + entry().encode() + b"}", 1)], F4)
    t.file("rank 64", one(entry(shape=[1] * 64)), F4)
    t.file("dimension written with eighteen digits", one(entry("U8", [0, 10**18 - 1], [0, 0])))
    t.file("largest dimension of all, empty", one(entry("U8", [2**64 - 1, 0], [0, 0])))
    for dtype, elements, nbytes in [
        ("BOOL", 3, 3), ("F4", 6, 3), ("F6_E2M3", 4, 3), ("F6_E3M2", 8, 6), ("U8", 3, 3), ("I8", 3, 3),
        ("F8_E5M2", 3, 3), ("F8_E4M3", 3, 3), ("F8_E8M0", 3, 3), ("F8_E4M3FNUZ", 3, 3), ("F8_E5M2FNUZ", 3, 3),
        ("I16", 3, 6), ("U16", 3, 6), ("F16", 3, 6), ("BF16", 3, 6), ("I32", 3, 12), ("U32", 3, 12), ("F32", 3, 12),
        ("C64", 3, 24), ("F64", 3, 24), ("I64", 3, 24), ("U64", 3, 24),
    ]:  # fmt: skip
        data = bytes(range(2, 2 + nbytes))
        t.file(f"dtype {dtype}", one(entry(dtype, [elements], [0, nbytes])), data)
    t.file("header longer than 25 MB", [(b"{}", 1), (b" ", 25_000_000)], notes=("large_header",))


def lengths(t: Table) -> None:
    """The first eight bytes against the file's size."""
    t.raw("empty file", b"", "empty_file")
    t.raw("seven bytes", b"\x02\0\0\0\0\0\0", "file_too_small")
    t.raw("eight bytes, length 0", bytes(8), "header_empty")
    t.file("length 0 before a header", one(entry()), F4, length=0, strict="header_empty")
    t.raw("length 2, nothing follows", struct.pack("<Q", 2), "header_beyond_file")
    t.file("length one too long", "{}", length=3, strict="header_beyond_file")
    t.file("length one too short", "{} ", length=1, strict="json_eof")
    t.file("length that takes in the data", one(entry()), b"    ", length=len(one(entry())) + 4, strict="truncated")
    t.file("length 2^63", "{}", length=2**63, strict="header_beyond_file")
    t.file("length 2^64 - 1", "{}", length=2**64 - 1, strict="header_beyond_file")
    t.file("length 2^64 - 8", "{}", length=2**64 - 8, strict="header_beyond_file")
    t.file("length beyond the cap and the file", "{}", length=100_000_001, strict="header_beyond_file")
    t.file("length beyond the cap, in the file", [(b"{}", 1), (b" ", 99_999_999)], strict="header_too_large")
    t.raw("length in big endian", struct.pack(">Q", 2) + b"{}", "header_beyond_file")


def text(t: Table) -> None:
    """The JSON as text."""
    t.file("byte order mark", b"\xef\xbb\xbf{}", strict="bom")
    t.file("UTF-16", "{}".encode("utf-16"), strict="bom")
    t.file("invalid UTF-8 in a name", b'{"\xff":' + entry().encode() + b"}", F4, strict="invalid_utf8")
    t.file("overlong UTF-8", b'{"\xc0\xaf":' + entry().encode() + b"}", F4, strict="invalid_utf8")
    t.file("surrogate in UTF-8", b'{"\xed\xa0\x80":' + entry().encode() + b"}", F4, strict="invalid_utf8")
    t.file("UTF-8 cut in a character", b'{"__metadata__":{"a":"\xe2\x82"}}', strict="invalid_utf8")
    t.file("lone first surrogate in a name", one(entry(), r"\ud83d"), F4, strict="json_syntax")
    t.file("lone second surrogate in a name", one(entry(), r"\ude00"), F4, strict="json_syntax")
    t.file("surrogates in the wrong order", one(entry(), r"\ude00\ud83d"), F4, strict="json_syntax")
    t.file("lone surrogate in a metadata value", r'{"__metadata__":{"a":"\ud83d"}}', strict="json_syntax")
    t.file("lone surrogate in a metadata key", r'{"__metadata__":{"\ud83d":"a"}}', strict="json_syntax")
    t.file("unknown escape", one(entry(), r"\x41"), F4, strict="json_syntax")
    t.file("unknown escape in metadata", r'{"__metadata__":{"a":"\x41"}}', strict="json_syntax")
    t.file("short hex escape", one(entry(), r"\u41"), F4, strict="json_syntax")
    t.file("raw control character in a name", one(entry(), "a\tb"), F4, strict="json_syntax")
    t.file("raw newline in metadata", '{"__metadata__":{"a":"b\nc"}}', strict="json_syntax")
    t.file("only spaces", "    ", strict="json_eof")
    t.file("no last bracket", one(entry())[:-1], F4, strict="json_eof")
    t.file("string without end", '{"abc', strict="json_eof")
    t.file("single quotes", "{'t':1}", strict="json_syntax")
    t.file("bare key", "{t:1}", strict="json_syntax")
    t.file("comma at the end", '{"t":%s,}' % entry(), F4, strict="json_syntax")
    t.file("comma at the end of a shape", one(entry()).replace("[1]", "[1,]"), F4, strict="json_syntax")
    t.file("two commas", '{"t":%s,,"u":1}' % entry(), F4, strict="json_syntax")
    t.file("no comma", '{"t":%s "u":1}' % entry(), F4, strict="json_syntax")
    t.file("line comment", '{// none\n"t":%s}' % entry(), F4, strict="json_comment")
    t.file("block comment", '{"t":%s/* none */}' % entry(), F4, strict="json_comment")
    t.file("NaN", one('{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}'), F4, strict="json_syntax")
    t.file("leading zero", one('{"dtype":"F32","shape":[01],"data_offsets":[0,4]}'), F4, strict="json_syntax")
    t.file("plus sign", one('{"dtype":"F32","shape":[+1],"data_offsets":[0,4]}'), F4, strict="json_syntax")
    t.file("hexadecimal", one('{"dtype":"F32","shape":[0x1],"data_offsets":[0,4]}'), F4, strict="json_syntax")
    t.file("padded with NUL", one(entry()) + "\0" * 5, F4, strict="nul_padding")
    t.file("one NUL behind spaces", one(entry()) + "  \0", F4, strict="nul_padding")
    t.file("NUL before the bracket", "\0" + one(entry()), F4, strict="json_syntax")
    t.file("text behind the bracket", one(entry()) + "x", F4, strict="trailing_bytes")
    t.file("a second object", "{}{}", strict="trailing_bytes")
    t.file("form feed as padding", "{}\f", strict="trailing_bytes")
    t.file("vertical tab in front", "\v{}", strict="json_syntax")
    t.file("no-break space in front", "\u00a0{}", strict="json_syntax")
    t.file("number out of range in an unknown field", one(entry()[:-1] + ',"x":1e999}'), F4,
           strict="unknown_field", compatible="json_syntax")  # fmt: skip


def structure(t: Table) -> None:
    """JSON of the wrong form."""
    for name, header in [("null", "null"), ("list", "[]"), ("string", '"t"'), ("number", "5"), ("true", "true")]:
        t.file(f"header is {name}", header, strict="header_not_object")
    for name, value in [("null", "null"), ("string", '"F32"'), ("number", "5"), ("false", "false")]:
        t.file(f"entry is {name}", one(value), strict="entry_not_object")
    t.file("entry is an empty object", '{"t":{}}', strict="missing_field")
    t.file("entry is an empty list", '{"t":[]}', strict="array_entry", compatible="missing_field")
    listed = '["F32",[1],[0,4]%s]'
    t.file("entry is a list", one(listed % ""), F4, strict="array_entry", compatible=OK, notes=("array_entry",))
    t.file("entry is a list of four", one(listed % ",1"), F4, strict="array_entry", compatible="entry_not_object")
    t.file("entry is a list of two", one('["F32",[1]]'), F4, strict="array_entry", compatible="missing_field")
    t.file(
        "entry is a deep list", [(b'{"t":', 1), (b"[", 100_000)], strict="array_entry", compatible="dtype_not_string"
    )
    for missing in ["dtype", "shape", "data_offsets"]:
        fields = json.loads(entry())
        del fields[missing]
        t.file(f"no {missing}", one(json.dumps(fields)), F4, strict="missing_field")
    for twice, again in [("dtype", '"F32"'), ("shape", "[1]"), ("data_offsets", "[0,4]")]:
        t.file(f"{twice} twice", one(f'{entry()[:-1]},"{twice}":{again}}}'), F4, strict="duplicate_field")
    t.file("dtype twice, once escaped", one(entry()[:-1] + r',"\u0064type":"F32"}'), F4, strict="duplicate_field")
    unknown = {"strict": "unknown_field", "compatible": OK, "notes": ("unknown_field",)}
    t.file("unknown field", one(entry(note="x")), F4, **unknown)  # type: ignore[arg-type]
    t.file("unknown field of every type", one(entry(a=None, b=True, c=-1, d=1.5, e=[1, "x"], f={"g": 1})), F4,
           **unknown)  # type: ignore[arg-type]  # fmt: skip
    t.file("field in capitals", one(entry(DTYPE="F16")), F4, **unknown)  # type: ignore[arg-type]
    t.file("unknown field nested too deeply", one(entry(a=[[1]])), F4,
           strict="unknown_field", compatible="nesting_too_deep", reference=ACCEPT)  # fmt: skip
    t.file("unknown field nested without end", [(b'{"t":{"x":', 1), (b"[", 100_000)],
           strict="unknown_field", compatible="nesting_too_deep")  # fmt: skip
    t.file("unknown field of nested objects", [(b'{"t":{"x":', 1), (b'{"a":', 50_000)],
           strict="unknown_field", compatible="nesting_too_deep")  # fmt: skip
    t.file("header nested without end", [(b"[", 100_000)], strict="header_not_object")
    t.file("entries nested without end", [(b'{"t":', 50_000)], strict="unknown_field", compatible="nesting_too_deep")

    for name, value in [("a list", "[]"), ("a string", '"x"'), ("a number", "1"), ("false", "false")]:
        t.file(f"metadata is {name}", '{"__metadata__":%s}' % value, strict="metadata_not_object")
    t.file("metadata is null", '{"__metadata__":null}', strict="metadata_not_object", compatible=OK,
           notes=("metadata_not_object",))  # fmt: skip
    for name, value in [
        ("a number", "1"),
        ("null", "null"),
        ("a list", '["b"]'),
        ("an object", "{}"),
        ("true", "true"),
    ]:
        t.file(f"metadata value is {name}", '{"__metadata__":{"a":%s}}' % value, strict="metadata_not_string")
    t.file("metadata value nested without end", [(b'{"__metadata__":{"a":', 1), (b"[", 100_000)], strict="json_eof")
    t.file("metadata twice", '{"__metadata__":{},"__metadata__":{}}', strict="duplicate_metadata")
    t.file("metadata twice, once escaped", r'{"__metadata__":{},"__met\u0061data__":{}}', strict="duplicate_metadata")
    t.file("metadata null, then an object", '{"__metadata__":null,"__metadata__":{}}',
           strict="metadata_not_object", compatible="duplicate_metadata")  # fmt: skip
    repeated = {"strict": "duplicate_metadata_key", "compatible": OK, "notes": ("duplicate_metadata_key",)}
    t.file("metadata key twice", '{"__metadata__":{"a":"1","a":"2"}}', **repeated)  # type: ignore[arg-type]
    t.file("metadata key twice, once escaped", r'{"__metadata__":{"a":"1","\u0061":"2"}}', **repeated)  # type: ignore[arg-type]
    t.file("metadata key of 4097 bytes", [(b'{"__metadata__":{"', 1), (b"k", 4097), (b'":""}}', 1)],
           strict="metadata_key_too_long", reference=ACCEPT)  # fmt: skip

    twins = {"strict": "duplicate_name", "compatible": OK, "notes": ("duplicate_name",)}
    pair = '{"t":%s,"%s":%s}'
    t.file("name twice over the same bytes", pair % (entry(), "t", entry()), F4, **twins)  # type: ignore[arg-type]
    t.file("name twice, once escaped", pair % (entry(), r"\u0074", entry()), F4, **twins)  # type: ignore[arg-type]
    t.file("name twice, the first one wrong", pair % (entry(shape=[7], offsets=[3, 9]), "t", entry()), F4,
           **twins)  # type: ignore[arg-type]  # fmt: skip
    t.file("name twice, the last one wrong", pair % (entry(), "t", entry(shape=[7])), F4,
           strict="duplicate_name", compatible="size_mismatch")  # fmt: skip
    t.file("name twice over neighbouring bytes", pair % (entry(), "t", entry(offsets=[4, 8])), F4 * 2,
           strict="duplicate_name", compatible="hole")  # fmt: skip
    t.file("name of 4097 bytes", [(b'{"', 1), (b"n", 4097), (b'":' + entry().encode() + b"}", 1)], F4,
           strict="name_too_long", reference=ACCEPT)  # fmt: skip


def fields(t: Table) -> None:
    """Values of the three fields."""
    for name, value in [("null", "null"), ("a number", "11"), ("a list", '["F32"]'), ("true", "true")]:
        t.file(f"dtype is {name}", one('{"dtype":%s,"shape":[1],"data_offsets":[0,4]}' % value), F4,
               strict="dtype_not_string")  # fmt: skip
    spelled = '{"dtype":%s,"shape":[1],"data_offsets":[0,4]}'
    t.file("dtype is an object", one(spelled % '{"F32":null}'), F4, strict="dtype_not_string", compatible=OK,
           notes=("dtype_not_string",))  # fmt: skip
    for name, value in [("with a value", '{"F32":1}'), ("of two", '{"F32":null,"F16":null}'), ("without key", "{}")]:
        t.file(f"dtype is an object {name}", one(spelled % value), F4, strict="dtype_not_string")
    for dtype in ["", "f32", "F32 ", "BF32", "F128", "I4", "F8", "F8_E4M3FN", "float32", "F32\\u0000", "ſ32"]:
        t.file(f"dtype {dtype!r}", one(spelled % f'"{dtype}"'), F4, strict="unknown_dtype")
    t.file("dtype spelled with escapes", one(spelled % r'"\u0046\u00332"'), F4)
    t.file("dtype of a megabyte", [(b'{"t":{"dtype":"', 1), (b"F", 1_000_000), (b'"}}', 1)], strict="unknown_dtype")

    shaped = '{"dtype":"F32","shape":%s,"data_offsets":[0,4]}'
    for name, value in [("null", "null"), ("a number", "1"), ("a string", '"[1]"'), ("an object", "{}")]:
        t.file(f"shape is {name}", one(shaped % value), F4, strict="shape_not_list")
    for name, value in [
        ("negative", "-1"), ("minus zero", "-0"), ("a float", "1.0"), ("an exponent", "1e0"), ("a string", '"1"'),
        ("null", "null"), ("true", "true"), ("a list", "[1]"), ("2^64", "18446744073709551616"), ("huge", "9" * 400),
    ]:  # fmt: skip
        code = "json_syntax" if name == "huge" else "bad_dimension"
        t.file(f"dimension is {name}", one(shaped % f"[{value}]"), F4, strict=code)
    t.file("rank 65", one(entry(shape=[1] * 65)), F4, strict="rank_too_large", reference=ACCEPT)
    t.file("rank 10,000", one(entry(shape=[1] * 10_000)), F4, strict="rank_too_large", reference=ACCEPT)

    placed = '{"dtype":"F32","shape":[1],"data_offsets":%s}'
    for name, value in [
        ("null", "null"), ("a number", "4"), ("an object", '{"begin":0,"end":4}'), ("empty", "[]"), ("one", "[0]"),
        ("three", "[0,4,4]"), ("a string", '"0,4"'),
    ]:  # fmt: skip
        t.file(f"offsets are {name}", one(placed % value), F4, strict="offsets_not_pair")
    for name, value in [
        ("negative", "[-4,0]"), ("floats", "[0.0,4.0]"), ("minus zero", "[-0,4]"), ("strings", '["0","4"]'),
        ("an exponent", "[0,4e0]"), ("2^64", "[0,18446744073709551616]"), ("nested", "[[0],[4]]"),
    ]:  # fmt: skip
        t.file(f"offsets hold {name}", one(placed % value), F4, strict="bad_offset")


def layout(t: Table) -> None:
    """Numbers that do not fit together."""
    two = '{"a":%s,"b":%s}'
    t.file("offsets run backwards", one(entry(offsets=[4, 0])), F4, strict="offsets_reversed")
    t.file("offsets run backwards, empty", one(entry(shape=[0], offsets=[4, 0])), F4, strict="offsets_reversed")
    t.file("shape too large for its bytes", one(entry(shape=[2])), F4, strict="size_mismatch")
    t.file("shape too small for its bytes", one(entry("F16", [1])), F4, strict="size_mismatch")
    t.file("empty shape with bytes", one(entry(shape=[0])), F4, strict="size_mismatch")
    t.file("scalar without bytes", one(entry(shape=[], offsets=[0, 0])), strict="size_mismatch")
    t.file("shape overflows", one(entry(shape=[2**32, 2**32])), F4, strict="size_overflow")
    t.file("shape overflows to the right size", one(entry("U8", [2**63, 2, 4])), F4, strict="size_overflow")
    t.file("bits overflow", one(entry("F64", [2**59])), F4, strict="size_overflow")
    t.file("bits just fit", one(entry("U8", [2**61 - 1])), F4, strict="size_mismatch")
    t.file("end is 2^64 - 1", one(entry("U8", [1], [0, 2**64 - 1])), F4, strict="size_mismatch")
    t.file("begin and end at 2^64 - 1", one(entry(shape=[0], offsets=[2**64 - 1] * 2)), strict="hole")
    for dtype, shape in [("F4", [1]), ("F4", [3, 3]), ("F6_E2M3", [1]), ("F6_E3M2", [2]), ("F6_E2M3", [3])]:
        size = -(-int(dtype[1]) * (shape[0] * (shape[1] if len(shape) > 1 else 1)) // 8)
        t.file(f"{dtype} {shape} is no whole bytes", one(entry(dtype, shape, [0, size])), b"\1" * size,
               strict="partial_byte")  # fmt: skip
    t.file("hole at the start", one(entry(offsets=[4, 8])), F4 * 2, strict="hole")
    t.file("hole of one byte", two % (entry(), entry(offsets=[5, 9])), F4 * 2 + b"\0", strict="hole")
    t.file("hole before an empty tensor", two % (entry(), entry(shape=[0], offsets=[8, 8])), F4 * 2, strict="hole")
    t.file("overlap of one byte", two % (entry(), entry(offsets=[3, 7])), F4 * 2, strict="overlap")
    t.file("two names over the same bytes", two % (entry(), entry()), F4, strict="overlap")
    t.file("one tensor inside another", two % (entry("U8", [8], [0, 8]), entry(offsets=[2, 6])), F4 * 2,
           strict="overlap")  # fmt: skip
    t.file("empty tensor inside another", two % (entry("U8", [8], [0, 8]), entry(shape=[0], offsets=[4, 4])), F4 * 2,
           strict="overlap")  # fmt: skip
    t.file("one byte after the last tensor", one(entry()), F4 + b"\0", strict="trailing_data")
    t.file("data without tensors", "{}", F4, strict="trailing_data")
    t.file("data with metadata only", '{"__metadata__":{}}', F4, strict="trailing_data")
    t.file("last byte missing", one(entry()), F4[:3], strict="truncated")
    t.file("all data missing", one(entry()), strict="truncated")
    many = {f"layer.{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(40)}
    t.file("ten of forty tensors missing", json.dumps(many), F4 * 30, strict="truncated")
    t.file("an exabyte missing", one(entry("U8", [2**60], [0, 2**60])), F4, strict="truncated")


def others(t: Table) -> None:
    """Files of other formats."""
    rest = b"\0" * 300
    zipped = b"PK\x03\x04\x14\0\0\0\x08\x08" + bytes(16)
    for name, content, code in [
        ("PyTorch zip", zipped + b"archive/data.pkl" + rest, "pickle_file"),
        ("NumPy zip", zipped + b"weight.npy" + rest, "numpy_file"),
        ("other zip", zipped + b"readme.txt" + rest, "zip_file"),
        ("empty zip", b"PK\x05\x06" + bytes(18), "zip_file"),
        ("pickle, protocol 2", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + rest, "pickle_file"),
        ("pickle, protocol 4", b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94." + rest, "pickle_file"),
        ("GGUF", b"GGUF\x03\0\0\0" + rest, "gguf_file"),
        ("GGML", b"tjgg\x03\0\0\0" + rest, "gguf_file"),
        ("HDF5", b"\x89HDF\r\n\x1a\n" + rest, "hdf5_file"),
        ("NumPy array", b"\x93NUMPY\x01\0v\0{'descr': '<f4'}" + rest, "numpy_file"),
        ("ONNX", b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + rest, "onnx_file"),
        ("TensorFlow Lite", b"\x1c\0\0\0TFL3" + rest, "tflite_file"),
        ("Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "lfs_pointer"),
        ("git-annex pointer", b"/annex/objects/SHA256E-s1--0.safetensors\n", "lfs_pointer"),
        ("web page", b"\n<!DOCTYPE html><html><body>404</body></html>", "error_page"),
        ("XML error", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "error_page"),
        ("hub's error", b"Entry not found", "error_page"),
        ("index JSON", b'{"metadata": {"total_size": 4}, "weight_map": {}}', "json_file"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + rest, "gzip_file"),
        ("Zstandard", b"\x28\xb5\x2f\xfd\x04\x58" + rest, "zstd_file"),
        ("xz", b"\xfd7zXZ\0\0\x04" + rest, "xz_file"),
        ("tar", b"model.safetensors".ljust(257, b"\0") + b"ustar\x0000" + rest, "tar_file"),
        ("Parquet", b"PAR1\x15\x04\x15\x10" + rest, "parquet_file"),
        ("random bytes", bytes((i * 167 + 13) % 256 for i in range(64)), "header_beyond_file"),
    ]:  # fmt: skip
        t.raw(f"other format: {name}", content, code)
    t.file("honest length that looks like a zip", [(b"{}", 1), (b" ", 0x04034B50 - 2)], notes=("large_header",))


def indexes(t: Table) -> None:
    """The index of a sharded checkpoint."""
    line = '{"weight_map":{"t":%s}}'
    t.index("index", '{"metadata":{"total_size":4},"weight_map":{"t":"model-00001-of-00001.safetensors"}}')
    t.index("index without metadata", line % '"a.safetensors"')
    t.index("index without tensors", '{"metadata":{},"weight_map":{}}')
    t.index("index with more metadata", '{"metadata":{"total_size":4,"format":{"a":[{}]}},"weight_map":{}}')
    t.index("index with an unknown field", '{"weight_map":{},"x":[1]}', notes=("unknown_field",))
    t.index("index with a float size", '{"metadata":{"total_size":4.0},"weight_map":{}}', notes=("bad_total_size",))
    t.index("index with a fractional size", '{"metadata":{"total_size":4.5},"weight_map":{}}', "bad_total_size")
    t.index("index with a negative size", '{"metadata":{"total_size":-4},"weight_map":{}}', "bad_total_size")
    t.index("index with a size in words", '{"metadata":{"total_size":"4"},"weight_map":{}}', "bad_total_size")
    t.index("index with two sizes", '{"metadata":{"total_size":4,"total_size":8},"weight_map":{}}', "duplicate_field")
    t.index("index with two weight maps", '{"weight_map":{},"weight_map":{}}', "duplicate_field")
    t.index("index with two metadata", '{"metadata":{},"metadata":{},"weight_map":{}}', "duplicate_field")
    t.index("index names a tensor twice", '{"weight_map":{"t":"a","t":"b"}}', "duplicate_name")
    t.index("index names a tensor twice, escaped", r'{"weight_map":{"t":"a","\u0074":"b"}}', "duplicate_name")
    t.index("index without weight map", '{"metadata":{}}', "weight_map_missing")
    t.index("index is a list", "[]", "index_not_object")
    t.index("index is empty", "", "json_eof")
    t.index("index is cut", '{"weight_map":{"t":"a.saf', "json_eof")
    t.index("index with a byte order mark", b'\xef\xbb\xbf{"weight_map":{}}', "bom")
    t.index("index not in UTF-8", b'{"weight_map":{"\xff":"a"}}', "invalid_utf8")
    t.index("index followed by text", '{"weight_map":{}} x', "trailing_bytes")
    t.index("weight map is a list", '{"weight_map":[]}', "weight_map_not_object")
    t.index("index metadata is a list", '{"metadata":[],"weight_map":{}}', "metadata_not_object")
    t.index("index nested without end", [(b'{"x":', 1), (b"[", 100_000)], "nesting_too_deep")
    t.index("index name of 4097 bytes", [(b'{"weight_map":{"', 1), (b"n", 4097), (b'":"a"}}', 1)], "name_too_long")
    t.index("shard is a number", line % "1", "shard_name_not_string")
    for name, shard in [
        ("empty", ""), ("the folder", "."), ("the parent", ".."), ("a path", "a/b"), ("a climb", "../secret"),
        ("absolute", "/etc/passwd"), ("a Windows path", r"a\\b"), ("a drive", "C:x"), ("a stream", "a:b"),
        ("a NUL", r"a\u0000"), ("a newline", r"a\nb"), ("too long", "a" * 256),
    ]:  # fmt: skip
        t.index(f"shard name is {name}", line % f'"{shard}"', "shard_name_not_plain")
    t.index("shard name has dots", line % '"a..b.safetensors"')


def rows() -> list[Row]:
    """All rows; names are unique."""
    table = Table()
    for part in [sound, lengths, text, structure, fields, layout, others, indexes]:
        part(table)
    names = [row.name for row in table.rows]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
    return table.rows


def dumps() -> str:
    """The text of `table.json`: one row a line."""

    def piece(content: bytes, times: int) -> list[object]:
        try:
            text = content.decode()
            return [text if text.isprintable() else {"hex": content.hex()}, times]
        except UnicodeDecodeError:
            return [{"hex": content.hex()}, times]

    says = ("strict", "compatible", "reference", "notes")
    lines = []
    for row in rows():
        first = {"name": row.name, "kind": row.kind, "bytes": [piece(*p) for p in row.pieces]}
        lines.append(json.dumps(first | {key: getattr(row, key) for key in says}))
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    JSON.write_text(dumps(), encoding="utf-8")
    sys.stdout.write(f"{len(rows())} rows in {JSON.name}\n")
