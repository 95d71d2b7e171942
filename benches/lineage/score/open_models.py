"""Models of the zoo opened once and kept, for methods that are scored on many pairs of them.

`weightprint.compare` opens both models for every pair, and that is how its seconds are measured. The comparators, each
a function of two opened models, share one measured side per model here: scan, digests and anatomy are then paid once
per model and not once per pair.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import weightprint
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.pairing import pair_tensors
from weightprint.fingerprint.build import Examined, measured, outlined


class OpenModels:
    """The last `keep` models that were asked for, by folder or file."""

    def __init__(self, keep: int = 256) -> None:
        self.keep = keep
        self._outlined: dict[Path, Examined] = {}
        self._measured: dict[tuple[Path, bool], Examined] = {}

    def models(self, a: Path, b: Path, *, seed: int = 0, effort: str = "standard") -> ModelPair:
        """Two models as the tests see them, as `compare` hands them over."""
        by_value = self._outline(a).reads.cuts or self._outline(b).reads.cuts
        ours = replace(self._side(a, by_value).side, label="a")
        theirs = replace(self._side(b, by_value).side, label="b")
        pairs, log10_pairings = pair_tensors(ours, theirs)
        return ModelPair(ours, theirs, pairs, log10_pairings, seed, effort)

    def _outline(self, path: Path) -> Examined:
        if path not in self._outlined:
            while len(self._outlined) >= self.keep:
                self._close(next(iter(self._outlined)))
            self._outlined[path] = outlined(weightprint.open(path), "a")
        return self._outlined[path]

    def _side(self, path: Path, by_value: bool) -> Examined:
        key = (path, by_value)
        if key not in self._measured:
            self._measured[key] = measured(self._outline(path), by_value)
        return self._measured[key]

    def _close(self, path: Path) -> None:
        examined = self._outlined.pop(path)
        for by_value in (False, True):
            self._measured.pop((path, by_value), None)
        examined.anatomy.checkpoint.close()
