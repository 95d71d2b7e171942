"""Encoder-decoders: T5, BART's kin, Whisper.

BART and Marian add first and normalise after, as BERT does. mBART, Pegasus, M2M100 and Whisper have BART's names with
norms in front, and one more norm behind each stack: that norm tells them apart. T5's v1.1 gates its FFN (``wi_0`` is
activated) and has a head of its own; its encoder is also published alone. Whisper comes under three names: the hub's,
OpenAI's and CTranslate2's, which stacks q, k and v and, in cross-attention, k and v.

Files that keep every copy of a shared embedding hold it as ``shared``, ``encoder.embed_tokens`` and
``decoder.embed_tokens``; the last is ``embedding_copy``, so that no place is claimed twice.

Sources: the modeling files of Hugging Face transformers for t5, umt5, bart, mbart, marian, pegasus, m2m_100, whisper;
OpenAI's whisper; OpenNMT's CTranslate2 (python/ctranslate2/specs; slashes written as dots, ``layer_0`` as ``layer.0``).
"""

from __future__ import annotations

from weightprint.anatomy.families.fused import FAIRSEQ_POST, FAIRSEQ_PRE
from weightprint.anatomy.family import Family, row, single, stack, table, under

_T5_FFN = table("DenseReluDense.{wi,wi_0,wi_1,wo}={up,gate,up,down} layer_norm=ffn_norm")
_T5_SELF = under(
    "layer.0.", "SelfAttention.{q,k,v,o,relative_attention_bias}={q,k,v,o,relative_bias} layer_norm=attn_norm"
)
_T5_ENCODER = table(_T5_SELF, under("layer.1.", _T5_FFN))
_CLASSIFIER = table("classification_head.{dense,out_proj}={classifier_dense,classifier}")

_CROSS = table("encoder_attn.{q,k,v,out}_proj=cross_{q,k,v,o}")
_CROSS_PRE = table(FAIRSEQ_PRE, _CROSS, "encoder_attn_layer_norm=cross_norm")
_BART_ENCODER = table("encoder.{embed_tokens,embed_positions,layernorm_embedding}={embedding,position,embedding_norm}")
_BART_DECODER = table(
    "shared=embedding decoder.{embed_tokens,embed_positions,layernorm_embedding}="
    "{embedding_copy,position,embedding_norm} lm_head=head final_logits_bias=head_bias",
    _CLASSIFIER,
)

_OPENAI_BLOCK = table("attn_ln=attn_norm attn.{query,key,value,out}={q,k,v,o} mlp_ln=ffn_norm mlp.{0,2}={up,down}")
_CT2_FFN = table("ffn.{layer_norm,linear_0,linear_1}={ffn_norm,up,down}")
_CT2_SELF = table("self_attention.{layer_norm,linear_0,linear_1}={attn_norm,q|k|v,o}")

_SINUSOIDS = "*embed_positions.weights"

FAMILIES: tuple[Family, ...] = (
    row(
        "t5",
        stack(
            "encoder",
            "encoder.block.{b}.",
            _T5_ENCODER,
            outside="encoder.embed_tokens=embedding encoder.final_layer_norm=final_norm",
        ),
        stack(
            "decoder",
            "decoder.block.{b}.",
            _T5_SELF,
            "layer.1.EncDecAttention.{q,k,v,o,relative_attention_bias}=cross_{q,k,v,o,relative_bias} "
            "layer.1.layer_norm=cross_norm",
            under("layer.2.", _T5_FFN),
            outside=table(
                "shared=embedding decoder.{embed_tokens,final_layer_norm}={embedding_copy,final_norm} lm_head=head",
                _CLASSIFIER,
            ),
        ),
        types="t5 mt5 umt5 longt5",
    ),
    single(
        "t5_encoder",  # published without its decoder, shared embedding and all
        "encoder",
        "encoder.block.{b}.",
        _T5_ENCODER,
        outside="shared=embedding encoder.{embed_tokens,final_layer_norm}={embedding_copy,final_norm}",
        types="",
    ),
    row(
        "bart",
        stack("encoder", "encoder.layers.{b}.", FAIRSEQ_POST, outside=_BART_ENCODER),
        stack(
            "decoder",
            "decoder.layers.{b}.",
            FAIRSEQ_POST,
            _CROSS,
            "encoder_attn_layer_norm=cross_post_norm",
            outside=_BART_DECODER,
        ),
        types="bart marian blenderbot-small",
        pre_norm=False,
        fixed=_SINUSOIDS,
    ),
    row(
        "mbart",
        stack(
            "encoder", "encoder.layers.{b}.", FAIRSEQ_PRE, outside=table(_BART_ENCODER, "encoder.layer_norm=final_norm")
        ),
        stack(
            "decoder", "decoder.layers.{b}.", _CROSS_PRE, outside=table(_BART_DECODER, "decoder.layer_norm=final_norm")
        ),
        types="mbart pegasus m2m_100 blenderbot plbart",
        fixed=_SINUSOIDS,
    ),
    row(
        "whisper",
        stack(
            "audio",
            "encoder.layers.{b}.",
            FAIRSEQ_PRE,
            outside="encoder.{conv1,conv2,embed_positions,layer_norm}={conv1,conv2,position,final_norm}",
        ),
        stack(
            "decoder",
            "decoder.layers.{b}.",
            _CROSS_PRE,
            outside="decoder.{embed_tokens,embed_positions,layer_norm}={embedding,position,final_norm} proj_out=head",
        ),
    ),
    single(
        "whisper_encoder",  # alone, as the ear of a language model
        "audio",
        "layers.{b}.",
        FAIRSEQ_PRE,
        outside="{conv1,conv2,embed_positions,layer_norm}={conv1,conv2,position,final_norm} "
        "multi_modal_projector.linear=projector",
        types="qwen2_audio_encoder",
    ),
    row(
        "whisper_openai",
        stack(
            "audio",
            "encoder.blocks.{b}.",
            _OPENAI_BLOCK,
            outside="encoder.{conv1,conv2,positional_embedding,ln_post}={conv1,conv2,position,final_norm}",
        ),
        stack(
            "decoder",
            "decoder.blocks.{b}.",
            _OPENAI_BLOCK,
            "cross_attn_ln=cross_norm cross_attn.{query,key,value,out}=cross_{q,k,v,o}",
            outside="decoder.{token_embedding,positional_embedding,ln}={embedding,position,final_norm}",
        ),
        types="",
        fixed="*decoder.mask *alignment_heads",
    ),
    row(
        "whisper_ctranslate2",
        stack(
            "audio",
            "encoder.layer.{b}.",
            _CT2_SELF,
            _CT2_FFN,
            outside="encoder.{conv1,conv2,position_encodings.encodings,layer_norm}={conv1,conv2,position,final_norm}",
        ),
        stack(
            "decoder",
            "decoder.layer.{b}.",
            _CT2_SELF,
            _CT2_FFN,
            "attention.{layer_norm,linear_0,linear_1,linear_2}={cross_norm,cross_q,cross_k|cross_v,cross_o}",
            outside="decoder.{embeddings,position_encodings.encodings,layer_norm,projection}="
            "{embedding,position,final_norm,head}",
        ),
        types="",
        fixed="*coder.num_heads decoder.pre_norm decoder.activation decoder.alibi decoder.alignment_* "
        "decoder.scale_embeddings decoder.start_from_zero_embedding",
    ),
)
