"""Everything that can be done to weights without training, each with the truth of what was done.

`OPERATIONS` maps the name to the operation: `OPERATIONS["depth_drop"]([parent], seed, share=0.25)` → the child as a
`Made`. `chain` applies several as one step of the family tree, `composed` joins the truths of two steps.
"""

from __future__ import annotations

from . import depth, encoding, ffn, gauge, moe
from ._chain import chain, composed
from ._work import Operation, named

__all__ = ["OPERATIONS", "Operation", "chain", "composed", "named"]

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        encoding.rename,
        encoding.random_names,
        encoding.re_dtype,
        encoding.quantise,
        gauge.unit_permutation,
        gauge.head_permutation,
        gauge.channel_permutation,
        gauge.sign_flips,
        gauge.rotation,
        gauge.per_head_maps,
        gauge.scale_folding,
        depth.depth_drop,
        depth.depth_upscaling,
        depth.layer_insertion,
        depth.layer_shuffle,
        ffn.ffn_pruning,
        ffn.ffn_widening,
        moe.moe_upcycling,
        moe.expert_split,
        moe.expert_duplication,
        moe.expert_shuffle,
        moe.moe_to_dense,
    )
}
