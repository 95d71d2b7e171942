"""Hostile GGUF files: a typed error with a code, soon, and without memory; one table."""

from __future__ import annotations

import random
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
import weightprint
from weightprint.errors import FormatError, LimitError, UnsupportedFormatError, WeightprintError

pytest.importorskip("gguf")

HUGE = 1 << 60
U8, U32, F32, STRING, ARRAY = 0, 4, 6, 8, 9


def rows(string, pair, tensor, file) -> Iterator[tuple[str, bytes, str]]:
    """(what, bytes, code)"""

    def array(kind, count, data=b""):
        return struct.pack("<IQ", kind, count) + data

    def u32(x):
        return struct.pack("<I", x)

    good = file([tensor("a", [4, 2])], [pair("general.architecture", STRING, string("llama"))], 32)
    yield "nothing", b"", "gguf_truncated"
    yield "three bytes", b"GGU", "gguf_truncated"
    yield "magic", file(magic=b"GGML"), "gguf_magic"
    yield "safetensors inside", b"\x02\0\0\0\0\0\0\0{}", "gguf_magic"
    yield "version 0", file(version=0), "gguf_version"
    yield "version 1", file(version=1), "gguf_version"
    yield "version 4", file(version=4), "gguf_version"
    yield "big-endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "gguf_version"
    yield "no counts", b"GGUF\x03\0\0\0", "gguf_truncated"
    yield "2^60 tensors", file(n_tensors=HUGE), "gguf_count"
    yield "2^64 - 1 tensors", file(n_tensors=2**64 - 1), "gguf_count"
    yield "a million tensors", file(n_tensors=10**6, data=24 * 10**6), "too_many_tensors"
    yield "a million pairs", file(n_pairs=10**6, data=13 * 10**6), "too_many_pairs"
    yield "2^60 pairs", file(n_pairs=HUGE), "gguf_count"
    yield "one tensor too many", file([tensor("a", [4])], data=16, n_tensors=2), "gguf_truncated"
    yield "one pair, and no room for it", file(n_pairs=1), "gguf_count"
    yield "key of 2^60 bytes", file(pairs=[struct.pack("<Q", HUGE) + bytes(64)]), "gguf_truncated"
    yield "long key", file(pairs=[pair("k" * 70_000, U8, b"\0")]), "gguf_name_too_long"
    yield "key not UTF-8", file(pairs=[pair(b"\xff\xfe", U8, b"\0")]), "gguf_not_utf8"
    yield "key twice", file(pairs=[pair("k", U8, b"\0"), pair("k", U8, b"\1")]), "gguf_duplicate_key"
    yield "value of unknown type", file(pairs=[pair("k", 13, bytes(8))]), "gguf_value_type"
    yield "value of type 2^32 - 1", file(pairs=[pair("k", 2**32 - 1, bytes(8))]), "gguf_value_type"
    yield "string of 2^60 bytes", file(pairs=[pair("k", STRING, struct.pack("<Q", HUGE))]), "gguf_truncated"
    yield "string of 2^64 - 1 bytes", file(pairs=[pair("k", STRING, struct.pack("<Q", 2**64 - 1))]), "gguf_truncated"
    yield "array of 2^60 bytes", file(pairs=[pair("k", ARRAY, array(U8, HUGE))]), "gguf_count"
    yield "array of 2^64 - 1 strings", file(pairs=[pair("k", ARRAY, array(STRING, 2**64 - 1))]), "gguf_count"
    yield "array of arrays", file(pairs=[pair("k", ARRAY, array(ARRAY, 1, bytes(16)))]), "gguf_value_type"
    yield "array of unknown", file(pairs=[pair("k", ARRAY, array(99, 1, bytes(16)))]), "gguf_value_type"
    strings = array(STRING, 3, string("a") + struct.pack("<Q", HUGE) + bytes(64))
    yield "array with a string of 2^60 bytes", file(pairs=[pair("k", ARRAY, strings)]), "gguf_truncated"
    strings = array(STRING, 3, string("a") + struct.pack("<Q", 2**64 - 8) + bytes(64))
    yield "array with a string that wraps around", file(pairs=[pair("k", ARRAY, strings)]), "gguf_truncated"
    for alignment in (0, 3, 48, 1 << 17, 2**32 - 1):
        yield f"alignment {alignment}", file(pairs=[pair("general.alignment", U32, u32(alignment))]), "gguf_alignment"
    yield "alignment of type u8", file(pairs=[pair("general.alignment", U8, b"\x20")]), "gguf_alignment"
    yield "alignment as a string", file(pairs=[pair("general.alignment", STRING, string("32"))]), "gguf_alignment"
    yield (
        "alignment as an array",
        file(pairs=[pair("general.alignment", ARRAY, array(U32, 1, u32(32)))]),
        "gguf_alignment",
    )
    yield "name not UTF-8", file([tensor(b"\xc0\x80", [4])], data=16), "gguf_not_utf8"
    yield "long name", file([tensor("n" * 5000, [4])], data=16), "entry_too_large"
    yield "rank 5", file([tensor("a", [1, 1, 1, 1, 4])], data=16), "gguf_rank"
    yield "rank 2^32 - 1", file([tensor("a", [4], rank=2**32 - 1)], data=16), "gguf_rank"
    yield "unknown type", file([tensor("a", [4], kind=4)], data=16), "gguf_unknown_type"
    yield "type 2^32 - 1", file([tensor("a", [4], kind=2**32 - 1)], data=16), "gguf_unknown_type"
    yield "half a block", file([tensor("a", [33, 2], kind=8)], data=96), "gguf_partial_block"
    yield "a scalar in blocks", file([tensor("a", [], kind=8)], data=96), "gguf_partial_block"
    yield "size beyond 64 bits", file([tensor("a", [2**40, 2**40])], data=32), "gguf_size"
    yield "size that wraps to 32 bytes", file([tensor("a", [2**62 + 8])], data=32), "gguf_size"
    yield "offset 2^64 - 32", file([tensor("a", [8], offset=2**64 - 32)], data=32), "gguf_size"
    yield "offset outside", file([tensor("a", [8], offset=1 << 40)], data=32), "hole"
    yield "empty tensor outside", file([tensor("a", [0], offset=1 << 40)], data=32), "hole"
    yield "data missing", good[:-1], "truncated"
    yield "all data missing", good[:-32], "truncated"
    yield "misaligned", file([tensor("a", [2]), tensor("b", [2], offset=8)], data=16), "misaligned"
    yield "overlap", file([tensor("a", [16]), tensor("b", [8], offset=32)], data=64), "overlap"
    yield "same bytes twice", file([tensor("a", [8]), tensor("b", [8])], data=32), "overlap"
    yield "hole", file([tensor("a", [8]), tensor("b", [8], offset=64)], data=96), "hole"
    yield "data behind the last", file([tensor("a", [8])], data=64), "trailing_data"
    yield "name twice", file([tensor("a", [8]), tensor("a", [8], offset=32)], data=64), "duplicate_name"


def test_every_row_gives_its_error(tmp_path, raw):
    seen = set()
    for what, data, code in rows(**raw):
        assert what not in seen
        seen.add(what)
        path = tmp_path / "m.gguf"
        path.write_bytes(data)
        with pytest.raises(FormatError) as caught:
            weightprint.open(path)
        assert (what, caught.value.code) == (what, code)
        assert caught.value.path == str(path)
        assert len(str(caught.value)) < 2000
    assert len(seen) >= 50


def test_what_is_odd_but_sound_opens(tmp_path, raw):
    pair, tensor, file = raw["pair"], raw["tensor"], raw["file"]
    rows: dict[str, tuple[bytes, list[tuple[str, tuple[int, ...]]]]] = {
        "empty": (file(), []),
        "empty, without padding": (file()[:24], []),
        "version 2": (file([tensor("a", [4, 2])], data=32, version=2), [("a", (2, 4))]),
        "last tensor unpadded": (file([tensor("a", [3])], data=12), [("a", (3,))]),
        "scalar": (file([tensor("a", [])], data=4), [("a", ())]),
        "no elements": (file([tensor("a", [4, 0])]), [("a", (0, 4))]),
        "out of order": (
            file([tensor("b", [8], offset=32), tensor("a", [8])], data=64),
            [("a", (8,)), ("b", (8,))],
        ),
        "odd names": (file([tensor("\x1b[2J\u202e", [1])], data=4), [("\x1b[2J\u202e", (1,))]),
        "text that is not UTF-8": (file(pairs=[pair("k", STRING, raw["string"](b"\xff"))]), []),
        "smallest alignment": (
            file([tensor("a", [3])], [pair("general.alignment", U32, struct.pack("<I", 1))], 12, alignment=1),
            [("a", (3,))],
        ),
    }
    for what, (data, wanted) in rows.items():
        path = tmp_path / "m.gguf"
        path.write_bytes(data)
        found = weightprint.open(path).tensors
        assert (what, [(info.name, info.shape) for info in found]) == (what, wanted)


def test_compatible_mode_says_what_strict_refuses(tmp_path, raw):
    path = tmp_path / "m.gguf"
    path.write_bytes(raw["file"]([raw["tensor"]("a", [8])], data=64))
    checkpoint = weightprint.open(path, mode="compatible")
    assert [finding.code for finding in checkpoint.findings] == ["trailing_data"]
    assert "trailing_data" in [finding.code for finding in weightprint.check(path).findings]


def test_every_cut_gives_a_typed_error(tmp_path, raw):
    pairs = [
        raw["pair"]("general.architecture", STRING, raw["string"]("llama")),
        raw["pair"]("t", ARRAY, struct.pack("<IQ", STRING, 2) + raw["string"]("ab") + raw["string"]("c")),
        raw["pair"]("n", ARRAY, struct.pack("<IQ3f", F32, 3, 1, 2, 3)),
    ]
    whole = raw["file"]([raw["tensor"]("a", [4, 2]), raw["tensor"]("b", [32], 8, 32)], pairs, 32 + 34)
    path = tmp_path / "m.gguf"
    path.write_bytes(whole)
    assert weightprint.open(path).names() == ["a", "b"]
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError):
            weightprint.open(path)


def opened(path):
    """(error, None) or (None, checkpoint)"""
    try:
        return None, weightprint.open(path)
    except WeightprintError as error:
        return error, None


def test_random_damage_never_gets_past_the_types(tmp_path, raw):
    pairs = [raw["pair"]("general.architecture", STRING, raw["string"]("llama"))]
    pairs.append(raw["pair"]("t", ARRAY, struct.pack("<IQ", STRING, 2) + raw["string"]("ab") + raw["string"]("c")))
    whole = raw["file"]([raw["tensor"]("a", [4, 2]), raw["tensor"]("b", [32], 8, 32)], pairs, 32 + 34)
    chance = random.Random(0)
    path = tmp_path / "m.gguf"
    refused = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data) - 66)] = chance.choice((0, 1, 2, 8, 9, 32, 127, 128, 255))
        path.write_bytes(data)
        error, checkpoint = opened(path)
        if checkpoint is None:
            refused += 1
            assert error.code
            assert error.path == str(path)
        else:
            for info in checkpoint.tensors:
                assert 0 <= info.begin <= info.end <= len(data)
            weightprint.scan(checkpoint)
    assert 500 < refused < 2000


def test_a_header_beyond_the_cap(tmp_path, raw, monkeypatch):
    monkeypatch.setattr("weightprint.checkpoint.gguf.header._HEADER_BYTES", 1000)
    path = tmp_path / "m.gguf"
    path.write_bytes(raw["file"](pairs=[raw["pair"]("k", STRING, raw["string"]("x" * 2000))]))
    with pytest.raises(LimitError) as caught:
        weightprint.open(path)
    assert caught.value.code == "header_too_large"


def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    import os

    path = tmp_path / "m.gguf"
    os.mkfifo(path)
    with pytest.raises(UnsupportedFormatError):
        weightprint.open(path)


def test_counts_cost_no_memory(tmp_path, raw):
    """Opened by a process that may not have more than 200 MB beyond what it starts with, in 10 s of its own time."""
    paths = []
    absurd = [
        raw["file"](n_tensors=HUGE),
        raw["file"](pairs=[raw["pair"]("k", ARRAY, struct.pack("<IQ", U8, HUGE))]),
        raw["file"](pairs=[raw["pair"]("k", STRING, struct.pack("<Q", HUGE))]),
        raw["file"]([raw["tensor"]("a", [2**31, 2**20])], data=32),
        # Only the cap on the header stops these, once the file is long enough for them.
        raw["file"](pairs=[raw["pair"]("k", ARRAY, struct.pack("<IQ", STRING, 2**32))]),
        raw["file"](n_tensors=200_000),
    ]
    for k, data in enumerate(absurd):
        paths.append(tmp_path / f"{k}.gguf")
        paths[-1].write_bytes(data)
        # A sparse file, so that the counts can hide behind its size.
        paths.append(tmp_path / f"{k}-sparse.gguf")
        paths[-1].write_bytes(data)
        with paths[-1].open("r+b") as file:
            file.truncate(1 << 36)
    code = (
        "import resource, sys, gguf, weightprint\n"
        "before = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (before + 200_000_000,) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (10, 10))\n"
        "for path in sys.argv[1:]:\n"
        "    try: weightprint.open(path)\n"
        "    except weightprint.FormatError as error: print(error.code)\n"
    )
    if not sys.platform.startswith("linux") or resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY:
        pytest.skip("needs Linux' limits")
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(paths)
