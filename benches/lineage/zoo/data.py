"""Text to train on that every Python installation already has: the source of its own standard library.

A text is a byte string, and a token is a byte (vocabulary 256) unless a model is meant to share no vocabulary:

    bytes        the byte's value
    shuffled-N   its place in an alphabet shuffled with seed N
    pairs-N      N tokens: the bytes, and the N - 256 most frequent pairs of `modules`, taken from the left (BPE's first
                 merges, arXiv 1508.07909, all in one pass)

    modules    the top-level modules, Lib/*.py                                 (code and docstrings)
    packages   the packages, Lib/*/**/*.py, without tests and demonstrations   (code and docstrings)
    docs       pydoc_data/topics.py, the language reference as plain text      (English prose, some code)

Every tenth run of 16 KiB is held out, so that the two sides hold the same kind of text and neither has seen the other.
The yardstick is the unigram entropy of the held-out bytes, H = -sum_b p(b) log2 p(b): what a model would pay per byte
that knows how often each byte occurs and nothing else.
"""

import hashlib
import platform
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Token = TypeVar("Token", np.uint8, np.uint16)

BLOCK = 16 * 1024
HELD_OUT_EVERY = 10
SKIPPED = frozenset(
    ["idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages", "test", "tests", "turtledemo"]
)


@dataclass(frozen=True)
class Text:
    """A named text, cut into training and held-out bytes (uint8)."""

    name: str
    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    sha256: str

    @property
    def unigram_bits(self) -> float:
        """Entropy of the held-out bytes' frequencies, in bits per byte."""
        counts = np.bincount(self.held_out, minlength=256)
        p = counts[counts > 0] / counts.sum()
        return float(-(p * np.log2(p)).sum())

    @property
    def origin(self) -> str:
        """One sentence that says which text this is."""
        size = self.train.size + self.held_out.size
        python = platform.python_version()
        return f"CPython {python} standard library, {self.name}, {size} bytes, sha256 {self.sha256}"


def batches(text: NDArray[Token], rng: np.random.Generator, rows: int, context: int) -> NDArray[Token]:
    """`rows` windows at random places: (rows, context + 1) tokens, inputs and targets overlapping by all but one."""
    starts = rng.integers(0, text.size - context, size=rows)
    windows: NDArray[Token] = text[starts[:, None] + np.arange(context + 1)]
    return windows


TEXTS = {"modules": "*.py", "packages": "*/**/*.py", "docs": ""}  # name → files under Lib, where it is files


def _source(pattern: str) -> bytes:
    lib = Path(sysconfig.get_path("stdlib"))
    files = (path for path in lib.glob(pattern) if not SKIPPED.intersection(path.relative_to(lib).parts))
    return b"\n".join(path.read_bytes() for path in sorted(files))


def _docs() -> bytes:
    from pydoc_data.topics import topics

    return "\n".join(topics[key] for key in sorted(topics)).encode()


@cache
def load(name: str) -> Text:
    """Read a text of `TEXTS` from the running interpreter's standard library, files in sorted order."""
    raw = _docs() if name == "docs" else _source(TEXTS[name])
    everything = np.frombuffer(raw, np.uint8)
    block = np.arange(everything.size) // BLOCK
    held_out = block % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return Text(name, everything[~held_out], everything[held_out], hashlib.sha256(raw).hexdigest())


@dataclass(frozen=True)
class Tokens:
    """A text in some vocabulary: training and held-out token numbers (uint16)."""

    train: NDArray[np.uint16]
    held_out: NDArray[np.uint16]
    vocabulary: int
    bytes_per_token: float


@cache
def tokens(name: str, vocabulary: str = "bytes") -> Tokens:
    """The text `name` in a vocabulary: ``bytes``, ``shuffled-SEED`` or ``pairs-SIZE``."""
    text = load(name)
    kind, _, number = vocabulary.partition("-")
    if kind == "pairs":
        size = int(number)
        pairs = _frequent_pairs(size - 256)
        train, held_out = (_joined(x, pairs) for x in (text.train, text.held_out))
        return Tokens(train, held_out, size, text.held_out.size / held_out.size)
    alphabet = np.arange(256) if kind == "bytes" else np.random.default_rng(int(number)).permutation(256)
    table = alphabet.astype(np.uint16)
    return Tokens(table[text.train], table[text.held_out], 256, 1.0)


@cache
def _frequent_pairs(count: int) -> NDArray[np.int64]:
    """(65536,) → the token of each pair of bytes, -1 where it has none."""
    text = load("modules").train.astype(np.int64)
    counts = np.bincount(text[:-1] * 256 + text[1:], minlength=65536)
    best = np.argsort(-counts, kind="stable")[:count]
    pairs = np.full(65536, -1)
    pairs[best] = 256 + np.arange(count)
    return pairs


def _joined(text: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Pairs taken from the left. In a run of places where a pair begins, every second one is taken."""
    wide = text.astype(np.int64)
    joined = np.append(pairs[wide[:-1] * 256 + wide[1:]], -1)
    begins = joined >= 0
    starts = begins & ~np.append(False, begins[:-1])
    place = np.arange(text.size)
    since = place - np.maximum.accumulate(np.where(starts, place, 0))
    taken = begins & (since % 2 == 0)
    kept = ~np.append(False, taken[:-1])
    out: NDArray[np.uint16] = np.where(taken, joined, wide)[kept].astype(np.uint16)
    return out
