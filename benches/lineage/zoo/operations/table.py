"""Everything that can be done to weights without training, each with the truth of what was done.

`OPERATIONS` maps the name to the operation: `OPERATIONS["depth_drop"]([parent], seed, share=0.25)` → the child as a
`ZooModel`. `chain` applies several as one step of the family tree, `composed` joins the truths of two steps.
"""

from __future__ import annotations

from . import (
    architecture,
    decoy,
    depth,
    edits,
    encoding,
    ffn,
    heads,
    hidden,
    merge,
    moe,
    noise,
    reparameterisation,
    vocabulary,
)
from .chain import chain, composed
from .work import Operation, named

__all__ = ["OPERATIONS", "Operation", "chain", "composed", "named"]

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        encoding.rename,
        encoding.random_names,
        encoding.re_dtype,
        encoding.quantise,
        reparameterisation.unit_permutation,
        reparameterisation.head_permutation,
        reparameterisation.channel_permutation,
        reparameterisation.sign_flips,
        reparameterisation.rotation,
        reparameterisation.per_head_maps,
        reparameterisation.scale_folding,
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
        noise.gaussian_noise,
        noise.unstructured_pruning,
        noise.semi_structured_pruning,
        noise.lora_merge,
        merge.linear_merge,
        merge.slerp_merge,
        merge.task_arithmetic,
        merge.ties_merge,
        merge.dare_merge,
        heads.head_pruning,
        heads.heads_to_gqa,
        heads.attention_replaced,
        hidden.hidden_pruning,
        hidden.hidden_widening,
        architecture.drop_biases,
        architecture.layernorm_to_rmsnorm,
        architecture.learned_positions_to_rope,
        vocabulary.vocabulary_swap,
        vocabulary.vocabulary_extension,
        vocabulary.vocabulary_permutation,
        vocabulary.vocabulary_pruning,
        vocabulary.vocabulary_stitching,
        vocabulary.embedding_replaced,
        decoy.decoy_stack,
        edits.directional_ablation,
        edits.low_rank_factorised,
        edits.orthogonal_multipliers,
        moe.experts_merged,
    )
}
