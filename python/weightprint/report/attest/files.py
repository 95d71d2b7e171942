"""SHA-256 of the files behind a result: the digest that hubs, registries and signers know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from weightprint.checkpoint.locate import locate
from weightprint.errors import WeightprintError

__all__ = ["FileDigest", "sha256_of"]


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file of model A or B, by its name in the model's folder."""

    side: Literal["a", "b"]
    name: str
    nbytes: int
    sha256: str


def sha256_of(side: Literal["a", "b"], source: str, names: Iterable[str]) -> list[FileDigest]:
    """Read the named files of a model once more, whole. ``source``: as the result names it, ``base+adapter`` too."""
    wanted, out = list(names), []
    for path in _paths(source):
        name = path.rpartition("/")[2]
        if name in wanted:
            wanted.remove(name)
            with open(path, "rb") as file:
                made = hashlib.file_digest(file, "sha256").hexdigest()
                out.append(FileDigest(side, name, file.tell(), made))
    return out


def _paths(source: str) -> list[str]:
    try:
        return list(locate(source).files)
    except (WeightprintError, OSError):
        parts = source.split("+")
        return [path for part in parts if part != source for path in _paths(part)]
