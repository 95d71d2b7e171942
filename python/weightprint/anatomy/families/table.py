"""The table of families: one row per naming scheme, each file one kind of model.

Order settles ties between rows that explain a checkpoint equally well and that config.json does not decide between.
"""

from __future__ import annotations

from weightprint.anatomy.families import decoders, encoders, fused, generic, gguf_names, moe, seq2seq, ssm, towers
from weightprint.anatomy.family import Family

FAMILIES: tuple[Family, ...] = (
    *decoders.FAMILIES,
    *moe.FAMILIES,
    *fused.FAMILIES,
    *encoders.FAMILIES,
    *seq2seq.FAMILIES,
    *towers.FAMILIES,
    *ssm.FAMILIES,
    *gguf_names.FAMILIES,
    *generic.FAMILIES,
)
