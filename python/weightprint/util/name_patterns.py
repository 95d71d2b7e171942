"""Tensor names that differ only in their numbers, said once: ``layers.{0-31}.mlp.up.weight``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weightprint.util.escape import escape
from weightprint.util.natural_order import natural_key
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


def patterns(tensors: Iterable[tuple[str, str, tuple[int, ...], int]], *, ordered: bool = False) -> list[Pattern]:
    """(name, dtype, shape, nbytes) of tensors → their patterns, in the order of the first of each.

    `ordered`: as if the tensors were sorted by `natural_key` before; only one name per pattern is.
    """
    groups: dict[tuple[tuple[str, ...], str, tuple[int, ...]], list[tuple[str, ...]]] = defaultdict(list)
    sizes: dict[tuple[tuple[str, ...], str, tuple[int, ...]], int] = defaultdict(int)
    for name, dtype, shape, nbytes in tensors:
        parts = _DIGITS.split(name)
        key = (tuple(parts[::2]), dtype, shape)
        groups[key].append(tuple(parts[1::2]))
        sizes[key] += nbytes
    keys = sorted(groups, key=lambda key: natural_key(_first(key[0], groups[key]))) if ordered else list(groups)
    return [Pattern(_pattern_name(key[0], groups[key]), key[1], key[2], len(groups[key]), sizes[key]) for key in keys]


def _joined(words: Sequence[str], numbers: Sequence[str]) -> str:
    return "".join(word + number for word, number in zip(words, (*numbers, ""), strict=True))


def _first(words: Sequence[str], members: Sequence[tuple[str, ...]]) -> str:
    """The name of the pattern that comes first in natural order."""
    return _joined(words, members[0] if len(members) == 1 else min(members, key=lambda m: tuple(map(int, m))))


def _pattern_name(words: Sequence[str], members: Sequence[tuple[str, ...]]) -> str:
    if len(members) == 1 and max(map(len, words)) <= 120:
        return escape(_joined(words, members[0]), None)
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
