"""Names that no model owns: PyTorch's own transformer modules, SCEPTR's wrapping of them, and single dense layers.

``nn.MultiheadAttention`` stacks q, k and v in the bare parameters ``in_proj_weight`` and ``in_proj_bias``, or keeps
three when key and value widths differ. Whether an ``nn.TransformerEncoderLayer`` normalises before or behind
(``norm_first``) shows in no name and no shape: the rows here take PyTorch's default, behind, and so don't fold.
SCEPTR's code leaves the default.

Sources: torch/nn/modules/{activation,transformer}.py; libtcrlm's self_attention_stack.py;
sentence-transformers' Dense module.
"""

from __future__ import annotations

from weightprint.anatomy.family import Family, Table, row, single, stack, table

_UNSURE = "norms are taken to stand behind attention and FFN, PyTorch's default; with norm_first=True they stand before"


def _multihead(at: str, of: str = "") -> Table:
    """The parameters of an nn.MultiheadAttention under the module `at`; `of` stands before its roles."""
    return table(
        f"{at}.in_proj_weight={of}q|{of}k|{of}v {at}.in_proj_bias={of}q_bias|{of}k_bias|{of}v_bias "
        f"{at}.{{q,k,v}}_proj_weight={of}{{q,k,v}} {at}.out_proj={of}o"
    )


_LAYER = table(_multihead("self_attn"), "linear{1,2}={up,down}")
_ENCODER = table(_LAYER, "norm{1,2}={attn,ffn}_post_norm")
_DECODER = table(_LAYER, _multihead("multihead_attn", "cross_"), "norm{1,2,3}={attn,cross,ffn}_post_norm")
_OUTSIDE = table("{embedding,token_embedding,embed}=embedding {pos,position}_embedding=position norm=final_norm")

FAMILIES: tuple[Family, ...] = (
    single(
        "sceptr",
        "encoder",
        "_self_attention_stack.layers.{b}.",
        _ENCODER,
        outside="_token_embedder._token_embedding._token_embeddings=embedding "
        "_token_embedder._compartment_embedding._token_embeddings=token_type "
        "_token_embedder._blosum_embedding._{blosum,special_token}_embeddings={embedding,special_tokens} "
        "_token_embedder.{token,compartment}_embedding={embedding,token_type} "
        "_token_embedder.position_embedding.position_embedding_matrix=position "
        "_self_attention_stack._initial_projector=embedding_in _mlm_token_prediction_projector.projector=head",
        pre_norm=False,
    ),
    single(
        "torch_encoder", "encoder", "layers.{b}.", _ENCODER, outside=_OUTSIDE, types="", pre_norm=False, unsure=_UNSURE
    ),
    single(
        "torch_decoder", "decoder", "layers.{b}.", _DECODER, outside=_OUTSIDE, types="", pre_norm=False, unsure=_UNSURE
    ),
    row(
        "torch_transformer",
        stack("encoder", "encoder.layers.{b}.", _ENCODER, outside="encoder.norm=final_norm"),
        stack("decoder", "decoder.layers.{b}.", _DECODER, outside="decoder.norm=final_norm"),
        types="",
        pre_norm=False,
        unsure=_UNSURE,
    ),
    # 2_Dense/model.safetensors beside a sentence-transformers model
    single("sentence_dense", "text", "", outside="linear=projector", types=""),
)
