"""From a checkpoint to a model view: outline it from headers, measure it in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.fingerprint.live import Reads, outline
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.one_pass import stream
from weightprint.fingerprint.steps import Collector
from weightprint.util.progress import Meter

_SUBSAMPLE = 256  # values per tensor that quick looks at, to tell a constant


@dataclass(frozen=True)
class Examined:
    """One side, measured: its anatomy, its tensors, what was read, and the digest of the whole (None where not)."""

    anatomy: Anatomy
    side: ModelView
    reads: Reads
    digest: str | None


def measured(
    examined: Examined, by_value: bool, collectors: Sequence[Collector] = (), meter: Meter | None = None
) -> Examined:
    """One pass over a model (:func:`weightprint.fingerprint.one_pass.stream`)."""
    side, reads = examined.side, examined.reads
    meter = meter or Meter(None, examined.anatomy.checkpoint.n_bytes)
    passed = stream(examined.anatomy.checkpoint, side, reads, by_value, collectors, meter)
    # Of a base with an adapter merged into it no file is the whole.
    digest = passed.digest if len(examined.anatomy.checkpoints) == 1 else None
    return replace(examined, side=passed.side, digest=digest)


def outlined(model: Checkpoint | Anatomy, label: str) -> Examined:
    """The headers' part. Places come from headers alone: p-values on pairs that met by place owe nothing to values."""
    anatomy = Anatomy(model, values=False) if isinstance(model, Checkpoint) else model
    side, reads = outline(anatomy, "a" if label == "a" else "b")
    return Examined(anatomy, side, reads, None)


def subsampled(side: ModelView) -> ModelView:
    """Spread and constancy of every tensor from its first values; no digests."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in side.tensors.items():
        values = side.reader(name, 0, min(tensor.numel, _SUBSAMPLE))
        finite = values[np.isfinite(values)]
        constant = not finite.size or bool(finite.min() == finite.max())
        std = float(finite.std(dtype=np.float64)) if finite.size else float("nan")
        tensors[name] = replace(tensor, std=std, constant=constant)
    return replace(side, tensors=tensors)
