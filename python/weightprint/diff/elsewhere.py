"""Tensors whose bytes stand in the other checkpoint under another name."""

from __future__ import annotations

from collections.abc import Mapping

from weightprint.anatomy.anatomy import Anatomy
from weightprint.fingerprint.model import Tensor
from weightprint.scan.columns import measure
from weightprint.scan.request import Request, Settings

__all__ = ["digests_of", "elsewhere"]

_FEWEST = 64  # values: fewer are equal by chance


def digests_of(anatomy: Anatomy, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """(dtype, shape, digest) of those of these tensors that are stored as they are."""
    infos = [info for info in anatomy.checkpoint.tensors if info.name in tensors and info.name not in anatomy.touched]
    digests = measure(anatomy.checkpoint, infos, Request(digest=True), Settings())["digest"]
    return {info.name: (info.dtype, info.shape, digest) for info, digest in zip(infos, digests, strict=True)}


def elsewhere(ours: Anatomy, theirs: Anatomy, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, str]:
    """B's tensor → in words, which of A's has its values; constant ones and short ones aside."""
    names = {key: name for name, key in digests_of(ours, a).items() if a[name].numel >= _FEWEST}
    found = {name: names[key] for name, key in digests_of(theirs, b).items() if key in names}
    return {name: f"the values of {source}" for name, source in found.items() if source != name}
