"""Names that no model owns: PyTorch's own transformer modules, SCEPTR's wrapping of them, and single dense layers.

``nn.MultiheadAttention`` stacks q, k and v in the bare parameters ``in_proj_weight`` and ``in_proj_bias``, or keeps
three when key and value widths differ. Whether an ``nn.TransformerEncoderLayer`` normalises before or behind
(``norm_first``) shows in no name and no shape: the rows here take PyTorch's default, behind, and so don't fold.
SCEPTR's code leaves the default.

Sources: torch/nn/modules/{activation,transformer}.py; libtcrlm's self_attention_stack.py;
sentence-transformers' Dense module.
"""

from __future__ import annotations

from weightprint.anatomy.family import Family, Stack, Table, single, stacked, table

__all__ = ["FAMILIES"]

_UNSURE = "norms are taken to stand behind attention and FFN, PyTorch's default; with norm_first=True they stand before"


def _multihead(at: str, prefix: str = "") -> Table:
    """The parameters of an nn.MultiheadAttention under the module `at`."""
    q, k, v, o = (prefix + x for x in "qkvo")
    return {
        f"{at}.in_proj_weight": stacked(q, k, v),
        f"{at}.in_proj_bias": stacked(f"{q}_bias", f"{k}_bias", f"{v}_bias"),
        f"{at}.q_proj_weight": q,
        f"{at}.k_proj_weight": k,
        f"{at}.v_proj_weight": v,
        f"{at}.out_proj": o,
    }


_LAYER: Table = {**_multihead("self_attn"), "linear1": "up", "linear2": "down"}
_ENCODER: Table = {**_LAYER, "norm1": "attn_post_norm", "norm2": "ffn_post_norm"}
_DECODER: Table = table(
    _LAYER, _multihead("multihead_attn", "cross_"), "norm1=attn_post_norm norm2=cross_post_norm norm3=ffn_post_norm"
)
_OUTSIDE = table(
    "embedding=embedding token_embedding=embedding embed=embedding pos_embedding=position position_embedding=position "
    "norm=final_norm"
)

FAMILIES: tuple[Family, ...] = (
    single(
        "sceptr",
        "encoder",
        "_self_attention_stack.layers.{b}.",
        _ENCODER,
        table(
            "_token_embedder._token_embedding._token_embeddings=embedding "
            "_token_embedder._compartment_embedding._token_embeddings=token_type "
            "_token_embedder._blosum_embedding._blosum_embeddings=embedding "
            "_token_embedder._blosum_embedding._special_token_embeddings=special_tokens "
            "_token_embedder.token_embedding=embedding _token_embedder.compartment_embedding=token_type "
            "_token_embedder.position_embedding.position_embedding_matrix=position "
            "_self_attention_stack._initial_projector=embedding_in "
            "_mlm_token_prediction_projector.projector=head"
        ),
        ("sceptr",),
        pre_norm=False,
    ),
    single("torch_encoder", "encoder", "layers.{b}.", _ENCODER, _OUTSIDE, pre_norm=False, unsure=_UNSURE),
    single("torch_decoder", "decoder", "layers.{b}.", _DECODER, _OUTSIDE, pre_norm=False, unsure=_UNSURE),
    Family(
        "torch_transformer",
        (
            Stack("encoder", "encoder.layers.{b}.", _ENCODER, table("encoder.norm=final_norm")),
            Stack("decoder", "decoder.layers.{b}.", _DECODER, table("decoder.norm=final_norm")),
        ),
        pre_norm=False,
        unsure=_UNSURE,
    ),
    single(
        "sentence_dense",  # 2_Dense/model.safetensors beside a sentence-transformers model
        "text",
        "",
        {},
        table("linear=projector"),
    ),
)
