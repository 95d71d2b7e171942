"""What `check` asks beyond single values: is this a whole model, and does it agree with itself and with its config?

One file per subject; a question is a function ``(CheckContext) -> Iterator[Finding]`` and a row in :data:`QUESTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from weightprint.check.context import CheckContext
from weightprint.check.rules import (
    adapters,
    config,
    config_family,
    config_shapes,
    misread,
    parts,
    quantised,
    scale_fit,
    scale_tensors,
    scales,
    sets,
    tables,
    training,
)
from weightprint.results.finding import Finding

QUESTIONS: tuple[Callable[[CheckContext], Iterator[Finding]], ...] = (
    sets.gguf_parts,
    sets.stale_index,
    sets.modules,
    sets.second_copies,
    parts.no_tensors,
    parts.lacking,
    parts.head,
    parts.siblings,
    parts.repeated,
    misread.flat_parameters,
    misread.training_states,
    misread.other_type,
    config.sizes,
    config_family.family,
    config_family.attention_parts,
    config_family.unfitting,
    config.towers,
    config_shapes.shapes,
    config_shapes.biases,
    config_shapes.components,
    config.ties,
    config.quantisation,
    quantised.undecodable,
    quantised.words,
    quantised.gptq_zero_points,
    scale_tensors.impossible,
    scale_tensors.apart,
    scale_tensors.saturated,
    scale_tensors.group_tables,
    scale_fit.fit,
    scale_fit.block_scales,
    scales.codes_without_scales,
    scales.out_of_scale,
    adapters.factors,
    adapters.no_change,
    tables.positions,
    tables.frequencies,
    tables.code_books,
    training.never_trained,
)
