"""Which tensors of a checkpoint? Globs on names: ``*`` and ``?`` match dots too, ``[…]`` a set; case counts.

A glob that matches nothing is almost always a typing error, so it is an error that shows names that look alike.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import UsageError
from weightprint.util.escape import escape


def select(checkpoint: Checkpoint, include: str | Iterable[str], exclude: str | Iterable[str]) -> list[TensorInfo]:
    """The tensors whose names match a glob of `include` (all, if there is none) and none of `exclude`."""
    infos = list(checkpoint.tensors)
    chosen = matching([info.name for info in infos], include, exclude)
    return [info for info in infos if info.name in chosen]


def matching(names: Iterable[str], include: str | Iterable[str], exclude: str | Iterable[str]) -> set[str]:
    """The names that match a glob of `include` (all, if there is none) and none of `exclude`.

    Raises UsageError where a glob of `include` matches nothing, or nothing is left.
    """
    names = list(names)
    wanted, unwanted = _globs(include), _globs(exclude)
    for text, pattern in wanted:
        if not any(pattern.match(name) for name in names):
            raise UsageError(
                f"the glob {escape(text)} matches none of {len(names):,} tensors{_close(text, names)}", code="no_match"
            )
    chosen = {
        name
        for name in names
        if (not wanted or any(p.match(name) for _, p in wanted)) and not any(p.match(name) for _, p in unwanted)
    }
    if not chosen and names:
        raise UsageError("exclude leaves no tensor to scan", code="no_match")
    return chosen


def _globs(globs: str | Iterable[str]) -> list[tuple[str, re.Pattern[str]]]:
    texts = [globs] if isinstance(globs, str) else list(globs)
    return [(text, re.compile(fnmatch.translate(text))) for text in texts]


def _close(glob: str, names: Sequence[str]) -> str:
    """Names that look like the glob, to end an error message with."""
    names = names[:20_000]
    plain = glob.strip("*")
    close = [name for name in names if plain.lower() in name.lower()] if plain else []
    close = close or difflib.get_close_matches(glob, names, n=3, cutoff=0.4)
    shown = ", ".join(escape(name) for name in (close or names)[:3])
    hint = f"; write *{escape(plain)}* to match inside names" if close and plain and plain in close[0] else ""
    return f"; names here look like {shown}{hint}" if shown else ""
