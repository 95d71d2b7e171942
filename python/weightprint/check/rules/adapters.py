"""Adapters: do the factors fit together and the config, and do they change anything?"""

from __future__ import annotations

from collections.abc import Iterator

from weightprint.anatomy.adapters.adapters import is_adapter_alone, read_adapter
from weightprint.check.context import CheckContext, listed
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.errors import WeightprintError
from weightprint.results.finding import Finding, Severity

#: What keeps an adapter from being merged → how bad it is; anything else is an error.
_SEVERITIES: dict[str, Severity] = {"adapter_kind": "note", "adapter_pattern": "warning"}


def problems(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Why this adapter could not be merged: factors that don't fit, or a config of another run."""
    names = checkpoint.names()
    if not is_adapter_alone(names):
        return  # no adapter, or a model that has some inside
    try:
        read_adapter(checkpoint)
    except WeightprintError as error:
        code = error.code or "adapter_factors"
        # Without a config the scale is not known, and nothing is wrong with the factors.
        unknown = code == "adapter_config" and checkpoint.config_file.path is None
        severity = "note" if unknown else _SEVERITIES.get(code, "error")
        yield Finding(code, severity, error.message, error.path, error.tensor)


def factors(context: CheckContext) -> Iterator[Finding]:
    """See `problems`."""
    yield from problems(context.checkpoint)


def no_change(context: CheckContext) -> Iterator[Finding]:
    """An adapter whose updates are all zero."""
    if idle := context.idle_updates:
        message = f"this adapter changes nothing: all {len(idle):,} second factors are zero, as before training: "
        yield Finding("adapter_no_change", "warning", message + listed(sorted(idle)), tensor=min(idle))
