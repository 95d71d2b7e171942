"""Packed integers: the words that hold a range of codes, zero points from words, and the group of every column."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weightprint import _core
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.errors import FormatError
from weightprint.quant.base import Rect, raw, small
from weightprint.util.escape import escape

I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]


def words_over(first: int, stop: int, per: int) -> tuple[int, int]:
    """(first word, words) that hold codes `first` … `stop` - 1, with `per` codes in each word."""
    left = first // per
    return left, -(-stop // per) - left


def stream_codes(words: npt.NDArray[np.uint32], bits: int, first: int, n: int) -> npt.NDArray[np.uint64]:
    """Codes number `first` … `first` + n - 1 of one stream of bits per row, which runs on over the words.

    Args:
        words: (rows, words), from the one on that holds the first bit of code `first`.
        bits: of a code.
        first: the first code's number in its row.
        n: how many.
    """
    at = np.arange(first, first + n) * bits - first * bits // 32 * 32
    word, shift = at // 32, (at % 32).astype(np.uint64)
    after = np.minimum(word + 1, words.shape[1] - 1)  # where a code ends in its word, what comes after is cut off
    wide = words.astype(np.uint64)
    both = wide[:, word] | wide[:, after] << np.uint64(32)
    return np.asarray(both >> shift & np.uint64((1 << bits) - 1))


def zero_codes(checkpoint: Checkpoint, name: str, groups: Rect, bits: int, order: str = "linear") -> U8:
    """Codes (groups, outputs) of the zero points in a tensor whose words run along the outputs."""
    left, width = words_over(groups.first_column, groups.stop_column, 32 // bits)
    stored = raw(checkpoint, name, Rect(groups.first_row, groups.n_rows, left, width))
    codes = np.frombuffer(_core.unpack(stored, groups.n_rows, width, bits, order=order), np.uint8)
    skip = groups.first_column - left * (32 // bits)
    return codes.reshape(groups.n_rows, -1)[:, skip : skip + groups.n_columns]


def column_groups(
    checkpoint: Checkpoint, g_idx: str | None, group_size: int, n_groups: int, rect: Rect
) -> tuple[I32, int, int]:
    """The group of every column of the rectangle, counted from the first one needed; that first one; how many.

    A table of groups whose entries are all -1 says "in order", as compressed-tensors writes it.

    Raises:
        FormatError: the table names a group that does not exist.
    """
    columns = np.arange(rect.first_column, rect.stop_column)
    groups = columns // group_size
    if g_idx is not None:
        info = checkpoint.find(g_idx)
        table = small(checkpoint, info)
        if not bool((table == -1).all()):
            groups = table[columns]
            if int(groups.min()) < 0 or int(groups.max()) >= n_groups:
                problem = f"{escape(g_idx)} names groups outside 0 … {n_groups - 1}"
                raise FormatError(problem, path=checkpoint.files[info.file].path, tensor=g_idx, code="quantisation")
    first, last = int(groups.min()), int(groups.max())
    return (groups - first).astype(np.int32), first, last - first + 1
