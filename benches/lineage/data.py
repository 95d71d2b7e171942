"""Text to train on that every Python installation already has: the source of its own standard library.

A text is a byte string; a token is a byte (vocabulary 256), so there is no tokenizer to ship or to disagree about.

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

import numpy as np
from numpy.typing import NDArray

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


def batches(text: NDArray[np.uint8], rng: np.random.Generator, rows: int, context: int) -> NDArray[np.uint8]:
    """`rows` windows at random places: (rows, context + 1) bytes, inputs and targets overlapping by all but one."""
    starts = rng.integers(0, text.size - context, size=rows)
    windows: NDArray[np.uint8] = text[starts[:, None] + np.arange(context + 1)]
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
