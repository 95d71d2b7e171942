"""What weights are called, said once for many: ``self_attn.{k,v}_proj`` in ``model.layers.{b}.``.

The number in a name that is the block's becomes ``{b}``, the expert's ``{e}``; other numbers that differ become ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from os.path import commonprefix

from weightprint.anatomy.place import Expert
from weightprint.util.escape import escape
from weightprint.util.ranges import spans

#: Which number of a name is the block's, and how much more than it.
BlockNumber = tuple[int, int]

_DIGITS = re.compile(r"([0-9]+)")
_PREFIX = re.compile(r".*?\{b(?:\+\d+)?\}[^\w]?")


def _split(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(words, numbers) of a name: ``h.3.w1`` → ((``h.``, ``.w``, ````), (3, 1))."""
    parts = _DIGITS.split(name)
    return tuple(parts[::2]), tuple(parts[1::2])


def block_number(weights: Iterable[tuple[int | None, str]]) -> BlockNumber | None:
    """Which number in the names of (block, name) is the block's; None where that differs between names.

    (A stack of its own may be stored behind another one: block 0 of the multi-token prediction as ``layers.61``.)
    """
    found: set[BlockNumber] | None = None
    for block, name in weights:
        numbers, at = _split(name)[1], block or 0
        if found is None:
            found = {(k, int(d) - at) for k, d in enumerate(numbers) if len(d) <= 18}
        else:
            found = {(k, n) for k, n in found if k < len(numbers) and _is(numbers[k], n + at)}
        if not found:
            return None
    return min((n for n in found or () if n[1] >= 0), key=lambda number: (number[1] != 0, number), default=None)


def _is(digits: str, number: Expert) -> bool:
    return isinstance(number, int) and len(digits) <= 18 and int(digits) == number


def pattern(members: Sequence[tuple[int | None, Expert, str]], number: BlockNumber | None) -> tuple[str, ...]:
    """What weights, as (block, expert, name), are called; escaped; none where names differ in more than numbers.

    ``.weight`` goes without saying.
    """
    split = [_split(name) for _, _, name in members]
    words = split[0][0]
    if any(other != words for other, _ in split):
        return ()
    text = words[0]
    for k, word in enumerate(words[1:]):
        if number is not None and k == number[0]:
            text += f"{{b+{number[1]}}}" if number[1] else "{b}"
        elif all(_is(numbers[k], expert) for (_, numbers), (_, expert, _) in zip(split, members, strict=True)):
            text += "{e}"
        else:
            seen = {numbers[k] for _, numbers in split}
            text += seen.pop() if len(seen) == 1 else "{" + spans(int(d) for d in seen if len(d) <= 18) + "}"
        text += word
    return (escape(text.removesuffix(".weight"), 120),)


def common_prefix(names: Iterable[str]) -> str:
    """What all names begin with, up to the block's number; empty where they don't agree."""
    heads = {found[0] if (found := _PREFIX.match(name)) else "" for name in names}
    return heads.pop() if len(heads) == 1 else ""


def braces(names: Sequence[str]) -> tuple[str, str, str]:
    """What names have in common before and behind, and between the two what they have not, in braces."""
    if len(names) < 2:
        return "".join(names), "", ""
    head = commonprefix(list(names))  # noqa: RUF071  characters, not paths
    tail = commonprefix([name[len(head) :][::-1] for name in names])[::-1]  # noqa: RUF071
    return head, "{" + ",".join(name[len(head) : len(name) - len(tail)] for name in names) + "}", tail
