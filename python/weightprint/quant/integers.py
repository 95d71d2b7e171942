"""What schemes of packed integers share: words over a range of codes, and the group of every column."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.errors import FormatError
from weightprint.quant.base import Rect, small
from weightprint.util.escape import escape

__all__ = ["column_groups", "words_over"]

I32 = npt.NDArray[np.int32]


def words_over(first: int, stop: int, per: int) -> tuple[int, int]:
    """(first word, words) that hold codes `first` … `stop` - 1, with `per` codes in each word."""
    left = first // per
    return left, -(-stop // per) - left


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
