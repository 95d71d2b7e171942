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
from weightprint.anatomy.family import Family, Stack, Table, single, table

__all__ = ["FAMILIES"]

_SELF: Table = {f"SelfAttention.{x}": x for x in "qkvo"}
_T5_FFN = table(
    "DenseReluDense.wi=up DenseReluDense.wi_0=gate DenseReluDense.wi_1=up DenseReluDense.wo=down layer_norm=ffn_norm"
)
_T5_SELF: Table = table(
    {f"layer.0.{name}": cell for name, cell in _SELF.items()},
    "layer.0.SelfAttention.relative_attention_bias=relative_bias layer.0.layer_norm=attn_norm",
)

_CROSS = table(
    "encoder_attn.q_proj=cross_q encoder_attn.k_proj=cross_k encoder_attn.v_proj=cross_v encoder_attn.out_proj=cross_o"
)
_BART_ENCODER = table(
    "encoder.embed_tokens=embedding encoder.embed_positions=position encoder.layernorm_embedding=embedding_norm"
)
_BART_DECODER = table(
    "shared=embedding decoder.embed_tokens=embedding_copy decoder.embed_positions=position "
    "decoder.layernorm_embedding=embedding_norm lm_head=head final_logits_bias=head_bias "
    "classification_head.dense=classifier_dense classification_head.out_proj=classifier"
)

_OPENAI_BLOCK = table(
    "attn_ln=attn_norm attn.query=q attn.key=k attn.value=v attn.out=o mlp_ln=ffn_norm mlp.0=up mlp.2=down"
)
_CT2_FFN = table("ffn.layer_norm=ffn_norm ffn.linear_0=up ffn.linear_1=down")
_CT2_SELF = table("self_attention.layer_norm=attn_norm self_attention.linear_0=q|k|v self_attention.linear_1=o")

_SINUSOIDS = ("*embed_positions.weights",)

FAMILIES: tuple[Family, ...] = (
    Family(
        "t5",
        (
            Stack(
                "encoder",
                "encoder.block.{b}.",
                {**_T5_SELF, **{f"layer.1.{name}": cell for name, cell in _T5_FFN.items()}},
                table("encoder.embed_tokens=embedding encoder.final_layer_norm=final_norm"),
            ),
            Stack(
                "decoder",
                "decoder.block.{b}.",
                table(
                    _T5_SELF,
                    {f"layer.1.EncDecAttention.{x}": f"cross_{x}" for x in "qkvo"},
                    "layer.1.EncDecAttention.relative_attention_bias=cross_relative_bias layer.1.layer_norm=cross_norm",
                    {f"layer.2.{name}": cell for name, cell in _T5_FFN.items()},
                ),
                table(
                    "shared=embedding decoder.embed_tokens=embedding_copy decoder.final_layer_norm=final_norm "
                    "lm_head=head classification_head.dense=classifier_dense classification_head.out_proj=classifier"
                ),
            ),
        ),
        ("t5", "mt5", "umt5", "longt5"),
    ),
    single(
        "t5_encoder",  # published without its decoder, shared embedding and all
        "encoder",
        "encoder.block.{b}.",
        {**_T5_SELF, **{f"layer.1.{name}": cell for name, cell in _T5_FFN.items()}},
        table("shared=embedding encoder.embed_tokens=embedding_copy encoder.final_layer_norm=final_norm"),
    ),
    Family(
        "bart",
        (
            Stack("encoder", "encoder.layers.{b}.", FAIRSEQ_POST, _BART_ENCODER),
            Stack(
                "decoder",
                "decoder.layers.{b}.",
                {**FAIRSEQ_POST, **_CROSS, "encoder_attn_layer_norm": "cross_post_norm"},
                _BART_DECODER,
            ),
        ),
        ("bart", "marian", "blenderbot-small"),
        pre_norm=False,
        fixed=_SINUSOIDS,
    ),
    Family(
        "mbart",
        (
            Stack("encoder", "encoder.layers.{b}.", FAIRSEQ_PRE, {**_BART_ENCODER, "encoder.layer_norm": "final_norm"}),
            Stack(
                "decoder",
                "decoder.layers.{b}.",
                {**FAIRSEQ_PRE, **_CROSS, "encoder_attn_layer_norm": "cross_norm"},
                {**_BART_DECODER, "decoder.layer_norm": "final_norm"},
            ),
        ),
        ("mbart", "pegasus", "m2m_100", "blenderbot", "plbart"),
        fixed=_SINUSOIDS,
    ),
    Family(
        "whisper",
        (
            Stack(
                "audio",
                "encoder.layers.{b}.",
                FAIRSEQ_PRE,
                table(
                    "encoder.conv1=conv1 encoder.conv2=conv2 encoder.embed_positions=position "
                    "encoder.layer_norm=final_norm"
                ),
            ),
            Stack(
                "decoder",
                "decoder.layers.{b}.",
                {**FAIRSEQ_PRE, **_CROSS, "encoder_attn_layer_norm": "cross_norm"},
                table(
                    "decoder.embed_tokens=embedding decoder.embed_positions=position decoder.layer_norm=final_norm "
                    "proj_out=head"
                ),
            ),
        ),
        ("whisper",),
    ),
    single(
        "whisper_encoder",  # alone, as the ear of a language model
        "audio",
        "layers.{b}.",
        FAIRSEQ_PRE,
        table(
            "conv1=conv1 conv2=conv2 embed_positions=position layer_norm=final_norm "
            "multi_modal_projector.linear=projector"
        ),
        ("qwen2_audio_encoder",),
    ),
    Family(
        "whisper_openai",
        (
            Stack(
                "audio",
                "encoder.blocks.{b}.",
                _OPENAI_BLOCK,
                table(
                    "encoder.conv1=conv1 encoder.conv2=conv2 encoder.positional_embedding=position "
                    "encoder.ln_post=final_norm"
                ),
            ),
            Stack(
                "decoder",
                "decoder.blocks.{b}.",
                table(
                    _OPENAI_BLOCK,
                    "cross_attn_ln=cross_norm cross_attn.query=cross_q cross_attn.key=cross_k "
                    "cross_attn.value=cross_v cross_attn.out=cross_o",
                ),
                table("decoder.token_embedding=embedding decoder.positional_embedding=position decoder.ln=final_norm"),
            ),
        ),
        fixed=("*decoder.mask", "*alignment_heads"),
    ),
    Family(
        "whisper_ctranslate2",
        (
            Stack(
                "audio",
                "encoder.layer.{b}.",
                {**_CT2_SELF, **_CT2_FFN},
                table(
                    "encoder.conv1=conv1 encoder.conv2=conv2 encoder.position_encodings.encodings=position "
                    "encoder.layer_norm=final_norm"
                ),
            ),
            Stack(
                "decoder",
                "decoder.layer.{b}.",
                table(
                    _CT2_SELF,
                    _CT2_FFN,
                    "attention.layer_norm=cross_norm attention.linear_0=cross_q attention.linear_1=cross_k|cross_v "
                    "attention.linear_2=cross_o",
                ),
                table(
                    "decoder.embeddings=embedding decoder.position_encodings.encodings=position "
                    "decoder.layer_norm=final_norm decoder.projection=head"
                ),
            ),
        ),
        fixed=(
            "*coder.num_heads",
            "decoder.pre_norm",
            "decoder.activation",
            "decoder.alibi",
            "decoder.alignment_*",
            "decoder.scale_embeddings",
            "decoder.start_from_zero_embedding",
        ),
    ),
)
