"""Is the type that the header says the one that was written? And what is no weight at all but left from training?

Of the sizes of a trained matrix's values, zeros aside, the 5 % quantile is .001 to .12 of the 95 % quantile (.03 of
normal draws, .05 of uniform ones). Bits that are read as what they aren't have another spread: bfloat16 as F16 crowds
all values within a factor of four, F16 as bfloat16 and turned or shifted bytes spread them over many powers of ten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from weightprint.anatomy.adapters.adapters import is_adapter
from weightprint.check.context import CheckContext, listed
from weightprint.errors import WeightprintError
from weightprint.results.finding import Finding
from weightprint.util.arrays import F32
from weightprint.util.floats import WORD_BYTES, Words, values_of, words_of

__all__ = ["flat_parameters", "other_type", "training_states"]

_MATRICES, _FEWEST = 8, 4  # that are read; that must agree
_VALUES = 1 << 15  # of each
_NORMAL = (1e-3, 0.12)
_FLAT = re.compile(r"(?:^|\.)_?flat_param(?:_\d+)?$")
_STATE = re.compile(
    r"(?:^|[._])(?:exp_avg|exp_avg_sq|max_exp_avg_sq|momentum_buffer|fp32_master(?:_weight)?s?)(?:[._]|$)|"
    r"^optim(?:izer)?(?:_states?)?\.(?!.*(?:weight|bias)$)"
)


def _from(start: int) -> Callable[[Words], Words]:
    """Words that begin at this byte of the first."""

    def read(words: Words) -> Words:
        data = words.tobytes()
        kept = data[start : len(data) - words.itemsize + start] if start < words.itemsize else data
        return np.frombuffer(kept, np.uint16) if words.itemsize == 2 else np.frombuffer(kept, np.uint32)

    return read


#: What may have gone wrong → the words of a matrix as they were meant, by the type that the header says.
_WAYS: tuple[tuple[str, Callable[[str], str], Callable[[Words], Words]], ...] = (
    ("as {type}", lambda t: {"F16": "BF16", "BF16": "F16"}.get(t, t), lambda w: w),
    ("with the bytes of each value in the other order", lambda t: t, lambda w: w.byteswap()),
    ("from their second byte on", lambda t: t, _from(1)),
    ("from their third byte on", lambda t: t, _from(2)),
    ("from their fourth byte on", lambda t: t, _from(3)),
)


def other_type(context: CheckContext) -> Iterator[Finding]:
    """Matrices that are none as they are stored, and all of them are in another reading."""
    chosen = []
    for name, weight in context.anatomy.weights.items():
        plain = weight.readable and name not in context.components and name in context.row_of
        if plain and len(weight.shape) == 2 and min(weight.shape) >= 16 and "fixed" not in context.parts(name):
            chosen.append(name)
    words: list[tuple[str, Words]] = []
    for name in chosen[:: max(1, len(chosen) // _MATRICES)][:_MATRICES]:
        dtype, shape = context.scan.table.row(context.row_of[name])["dtype"], context.anatomy.weights[name].shape
        if dtype not in WORD_BYTES:
            return
        try:
            values = context.anatomy.weights.read(name, slice(0, max(1, _VALUES // shape[1])))
        except WeightprintError:
            return
        if _normal(values):
            return
        words.append((dtype, words_of(values.ravel(), dtype)))
    if len(words) < _FEWEST:
        return
    dtype = words[0][0]
    ways = [
        way.format(type=meant(dtype))
        for way, meant, undo in _WAYS
        if all(_normal(values_of(undo(w), meant(t))) for t, w in words)
    ]
    if ways:
        message = (
            f"no matrix that was looked at ({len(words)}) has the spread of weights as {dtype}, and all have it "
            f"{', or '.join(ways)}: {listed(chosen)}"
        )
        yield Finding("other_type", "error", message, tensor=chosen[0])


def _normal(values: F32) -> bool:
    with np.errstate(invalid="ignore"):
        size = np.abs(values[np.isfinite(values) & (values != 0)])
    if size.size < values.size // 2 or size.size < 256:
        return False
    low, high = np.quantile(size, (0.05, 0.95))
    return bool(_NORMAL[0] * high <= low <= _NORMAL[1] * high)


def flat_parameters(context: CheckContext) -> Iterator[Finding]:
    """FSDP's flat parameters: all of a module's weights end to end, or one rank's part of them, without shapes."""
    flat = [name for name in context.checkpoint.names() if _FLAT.search(name)]
    if flat:
        message = f"{len(flat):,} flat parameters of FSDP, which no loader takes apart: {listed(flat)}"
        yield Finding("flat_parameters", "error", message, tensor=flat[0])


def training_states(context: CheckContext) -> Iterator[Finding]:
    """An optimiser's states beside weights: loaders skip them, and the file is two or three times as large."""
    names = (
        [] if is_adapter(context.checkpoint.names()) else [n for n in context.checkpoint.names() if _STATE.search(n)]
    )
    if names:
        size = sum(context.checkpoint.find(name).nbytes for name in names)
        total = sum(info.nbytes for info in context.checkpoint.tensors)
        message = f"{len(names):,} tensors, {size / max(total, 1):.0%} of the bytes, are an optimiser's states: "
        yield Finding("training_states", "warning", message + listed(names), tensor=names[0])
