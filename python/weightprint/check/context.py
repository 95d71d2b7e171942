"""What `check` asks its questions of: a checkpoint, the scan of its values, and the map of its parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.place import SURE
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.locate import Location
from weightprint.results.finding import Finding, Severity
from weightprint.util.escape import escape
from weightprint.util.name_patterns import patterns

if TYPE_CHECKING:
    from weightprint.scan.result import Scan  # where only headers are looked at, nothing of a scan is loaded

_NUMBER = re.compile(r"(?<![0-9A-Za-z])[0-9]+(?![0-9A-Za-z])")
#: The factor that starts at zero, so that a fresh adapter changes nothing: LoRA's B, LoKr's and LoHa's second product.
_UPDATE = re.compile(r"(?:^|[._])(?:lora_B|lora_up|lora_b|lora_embedding_B|lokr_w2(?:_b)?|hada_w2_a)(?:\.|$)")


@dataclass(frozen=True)
class CheckContext:
    """A checkpoint with its scan (made with exact, rows and digest), and where its files are."""

    checkpoint: Checkpoint
    scan: Scan
    location: Location

    def column(self, name: str) -> Any:
        """One column of the scan's table."""
        return self.scan.table[name]

    @cached_property
    def anatomy(self) -> Anatomy:
        """What the headers say of each tensor's role."""
        return Anatomy(self.checkpoint, values=False)

    @property
    def config(self) -> Mapping[str, Any]:
        """What the makers say of the model; empty where they say nothing."""
        return self.checkpoint.config

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of the scan's table by tensor name; a scan of some tensors has not all."""
        return {name: k for k, name in enumerate(self.column("name"))}

    @cached_property
    def components(self) -> frozenset[str]:
        """Stored tensors that are components of quantised weights."""
        return frozenset(name for weight in self.anatomy.weights.quantised for name in weight.components)

    @cached_property
    def idle_updates(self) -> frozenset[str]:
        """The second factors of an adapter's updates, where all of them are zero; else empty."""
        ups = [name for name in self.column("name") if is_update(name)]
        zero = self.column("n_zero") == self.column("n")
        return frozenset(ups) if ups and all(zero[self.row_of[name]] for name in ups) else frozenset()

    def parts(self, name: str) -> frozenset[str]:
        """The parts of the model that a stored tensor belongs to, ``"bias"`` for a bias; empty if not known."""
        found = self.anatomy.of(self.anatomy.weights.owner(name))
        places = [part.place for part in found if part.confidence >= SURE]
        biases = {"bias" for place in places if place.role.endswith("_bias")}
        return frozenset({place.part for place in places} | biases)

    def where(self, mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, dict[str, Any], frozenset[str]]]:
        """(row number, row, parts of the model) of the rows that `mask` picks."""
        for k in np.flatnonzero(mask).tolist():
            row = self.scan.table.row(k)
            yield k, row, self.parts(row["name"])

    def constant(self) -> npt.NDArray[np.bool_]:
        """Which tensors hold one finite value throughout."""
        low, high = self.column("min"), self.column("max")
        same = np.fromiter((a is not None and a == b for a, b in zip(low, high, strict=True)), np.bool_, len(low))
        return np.asarray(same & (self.column("n_finite") == self.column("n")))


def coordinates(flat: int, shape: Sequence[int], components: int = 1) -> str:
    """A flat component index as ``[row, column]``, with ``.real``/``.imag`` for complex tensors."""
    element, part = divmod(flat, components)
    axes = []
    for size in reversed(shape):
        element, at = divmod(element, size)
        axes.append(at)
    suffix = (".real", ".imag")[part] if components == 2 else ""
    return f"[{', '.join(map(str, reversed(axes)))}]{suffix}"


def at(row: dict[str, Any], flat: int) -> str:
    """Where the component number `flat` of a row's tensor is."""
    return coordinates(flat, row["shape"], 2 if row["dtype"] == "C64" else 1)


def about(row: dict[str, Any], code: str, severity: Severity, message: str) -> Finding:
    """A finding about one row of the scan's table."""
    return Finding(code, severity, f"{escape(row['name'])}: {message}", row["file"], row["name"])


def is_update(name: str) -> bool:
    """Whether this is the factor of an adapter's update that starts at zero."""
    return _UPDATE.search(name) is not None


def pattern_of(name: str) -> str:
    """The name without its numbers: tensors of one pattern do the same thing in different blocks and experts."""
    return _NUMBER.sub("{}", name)


def listed(names: Iterable[str], limit: int = 6) -> str:
    """Names for a message, those that differ in numbers alone folded: ``layers.{0-3}.mlp.up.weight``."""
    folded = [pattern.name for pattern in patterns((name, "", (), 0) for name in names)]
    return ", ".join(folded[:limit]) + (f" and {len(folded) - limit} more" if len(folded) > limit else "")
