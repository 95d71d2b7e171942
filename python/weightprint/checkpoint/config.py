"""The config.json beside a checkpoint's files: what its makers say about it.

Config is context, never evidence: it settles what shapes leave open (how many heads) and is shown beside a verdict. So
nothing here stops a checkpoint from being read. A config that is missing is an empty mapping; one that can't be read
is an empty mapping and a finding.

It comes from strangers like the weights do: a regular file of at most 16 MB, strict UTF-8, one JSON object. Python's
reader takes more than JSON; what it takes beyond is undone here: a number that is not finite (``Infinity`` stands in
published configs of Mamba-2) is read as null, and a key that comes twice is refused, since readers differ on which
one counts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from weightprint.checkpoint.locate import Location, contained, read_small
from weightprint.errors import FormatError, WeightprintError
from weightprint.results.finding import Finding
from weightprint.util.escape import escape

_BYTES = 16_000_000
#: How PEFT and mlx call an adapter's file.
_ADAPTERS = ("adapter_model.", "adapters.safetensors")


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration file, read.

    Attributes:
        values: the JSON object; empty where there is none or it can't be read.
        path: the file, or None where there is none.
        findings: why it can't be read, or what is odd about it.
    """

    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    path: str | None = None
    findings: tuple[Finding, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (dict(self.values), self.path, self.findings)


def _rebuild(values: dict[str, Any], path: str | None, findings: tuple[Finding, ...]) -> Config:
    return Config(MappingProxyType(values), path, findings)


def read_config(location: Location) -> Config:
    """The config beside the files of `location`: ``adapter_config.json`` for an adapter's, else ``config.json``."""
    adapter = any(os.path.basename(path).startswith(_ADAPTERS) for path in location.files)
    return read_json(Path(location.root) / ("adapter_config.json" if adapter else "config.json"))


def read_json(path: Path) -> Config:
    """The JSON object in the file `path`, with what is wrong with it as findings; never raises for the file."""
    if not os.path.lexists(path):
        return Config()
    try:
        contained(path.parent, [path.name])
        values, odd = _parse(read_small(path, _BYTES, "config"))
    except WeightprintError as error:
        return _unreadable(path, error.code or "config", error.message)
    except OSError as error:
        return _unreadable(path, "config_unreadable", error.strerror or str(error))
    except UnicodeDecodeError as error:
        return _unreadable(path, "config_not_utf8", f"byte {error.start} is not UTF-8")
    except RecursionError:
        return _unreadable(path, "config_not_json", "its brackets are nested too deep")
    except ValueError as error:
        return _unreadable(path, "config_not_json", f"not JSON: {error}")
    findings: tuple[Finding, ...] = ()
    if odd:
        shown = ", ".join(sorted(odd))
        message = f"{escape(path.name)} holds {shown}, which JSON does not have; read as null"
        findings = (Finding("config_not_finite", "note", message, str(path)),)
    return Config(MappingProxyType(values), str(path), findings)


def _unreadable(path: Path, code: str, why: str) -> Config:
    message = f"{escape(path.name)} can't be read and is left out: {escape(why, 300)}"
    return Config(path=str(path), findings=(Finding(code, "warning", message, str(path)),))


def _parse(data: bytes) -> tuple[dict[str, Any], set[str]]:
    odd: set[str] = set()

    def constant(word: str) -> None:
        odd.add(word)

    def number(text: str) -> float | None:
        value = float(text)
        if math.isfinite(value):
            return value
        odd.add(text if len(text) < 20 else "a number too large for a double")
        return None

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            # Both run in the same order until the first repetition.
            twice = next((key for (key, _), kept in zip(pairs, found, strict=False) if key != kept), pairs[-1][0])
            raise FormatError(f"the key {escape(twice)} comes twice", code="config_duplicate_key")
        return found

    text = data.decode("utf-8")
    values = json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=once)
    if not isinstance(values, dict):
        raise FormatError(f"a JSON {type(values).__name__}, not an object", code="config_not_object")
    if "\\u" in text:
        # Half of a surrogate pair is no character: it would fail where the text is written out.
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    return values, odd
