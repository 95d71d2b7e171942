"""Tensor names that differ only in their numbers, said once: ``layers.{0-31}.mlp.up.weight``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weightprint.util.escape import escape
from weightprint.util.ranges import joined

_LAYER = re.compile(r"(.*?(?:^|[._/])[0-9]+)[._/](.+)", re.DOTALL)

_DIGITS = re.compile(r"([0-9]+)")


def split_layer(name: str) -> tuple[str, str]:
    """``"model.layers.7.mlp.up.weight"`` → ``("model.layers.7", "mlp.up.weight")``; ``("", name)`` without a number."""
    match = _LAYER.fullmatch(name)
    return (match[1], match[2]) if match else ("", name)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Tensors that differ only in the numbers in their names: ``layers.{0-31}.mlp.up.weight``, escaped for display."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    nbytes: int


def patterns(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> list[Pattern]:
    """(name, dtype, shape, nbytes) of tensors → their patterns, in the order of the first of each."""
    groups: dict[tuple[tuple[str, ...], str, tuple[int, ...]], list[tuple[str, ...]]] = defaultdict(list)
    sizes: dict[tuple[tuple[str, ...], str, tuple[int, ...]], int] = defaultdict(int)
    for name, dtype, shape, nbytes in tensors:
        parts = _DIGITS.split(name)
        key = (tuple(parts[::2]), dtype, shape)
        groups[key].append(tuple(parts[1::2]))
        sizes[key] += nbytes
    return [
        Pattern(_pattern_name(key[0], members), key[1], key[2], len(members), sizes[key])
        for key, members in groups.items()
    ]


def _pattern_name(words: Sequence[str], members: Sequence[tuple[str, ...]]) -> str:
    parts = [escape(words[0], 120)]
    for slot, word in enumerate(words[1:]):
        seen = {numbers[slot] for numbers in members}
        parts.append(seen.pop() if len(seen) == 1 else "{" + _ranges(sorted(seen, key=lambda d: (len(d), d))) + "}")
        parts.append(escape(word, 120))
    return "".join(parts)


def _ranges(digits: Sequence[str]) -> str:
    numbers = {int(d) for d in digits if len(d) <= 18}
    shown = joined(numbers, limit=6)
    return ",".join(shown + ["…"] * (len(numbers) < len(digits) and shown[-1:] != ["…"]))
