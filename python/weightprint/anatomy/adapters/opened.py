"""MODEL as every verb takes it: a model, or a base and its adapter with a ``+`` between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from weightprint.anatomy.adapters.adapters import is_adapter_alone
from weightprint.anatomy.adapters.merged import merge_adapter
from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint, Mode, open
from weightprint.checkpoint.locate import locate
from weightprint.errors import UsageError, WeightprintError
from weightprint.util.escape import escape

Model = str | os.PathLike[str] | Checkpoint | Anatomy


def base_and_adapter(model: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The two names in ``base+adapter``; None where MODEL is one place (which may have a ``+`` in its name)."""
    source = os.fspath(model)
    if not isinstance(source, str) or "+" not in source or _is_there(source):
        return None
    pairs = [(source[:k], source[k + 1 :]) for k, sign in enumerate(source) if sign == "+"]
    pairs = [(base, adapter) for base, adapter in pairs if base and adapter and _is_there(base)]
    return next((pair for pair in pairs if _is_there(pair[1])), pairs[0] if pairs else None)


@contextmanager
def opened(model: Model, *, mode: Mode = "strict", values: bool = True) -> Iterator[Anatomy]:
    """The anatomy of MODEL, merged where it is ``base+adapter``; what was opened for it is closed behind it.

    Raises FormatError, OSError, …: as `weightprint.open` and `merge_adapter` do.
    """
    if isinstance(model, Anatomy):
        yield model
        return
    if isinstance(model, Checkpoint):
        yield Anatomy(model, values=values)
        return
    names = base_and_adapter(model) or (model,)
    with open(names[0], mode=mode) as base:
        if len(names) == 1:
            yield Anatomy(base, values=values)
            return
        with open(names[1], mode=mode) as adapter:
            yield merge_adapter(Anatomy(base, values=values), adapter)


def refuse_mixed(a: Anatomy, b: Anatomy) -> None:
    """UsageError (code ``adapter_alone``) where one is an adapter and the other a model: factors are no weights."""
    alone = [is_adapter_alone(list(model.weights)) for model in (a, b)]
    if alone[0] != alone[1]:
        which, model, other = ("A", a, b) if alone[0] else ("B", b, a)
        told = "; ".join(adapter.words for adapter in model.adapters)
        message = (
            f"{which} is an adapter and no model ({told or 'its factors make no update'}): compare it merged into its "
            f"base, as BASE+{escape(model.source)}"
        )
        other_is_base = f"; if {escape(other.source)} is its base, the merged model differs from it in those modules"
        raise UsageError(message + other_is_base, path=model.source, code="adapter_alone")


def _is_there(source: str) -> bool:
    try:
        locate(source)
    except (WeightprintError, OSError):
        return os.path.lexists(source)
    return True
