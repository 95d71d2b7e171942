"""Text encoders and encoder-decoders: BERT's kin, ModernBERT, NomicBERT, T5, BART's kin, Whisper.

BERT adds first and normalises after, so its two norms stand *behind* attention and FFN and can't be folded into what
follows; so do BART and Marian. mBART, Pegasus and M2M100 have BART's names with norms in front, and one more norm
behind each stack: that norm tells them apart. ALBERT stores one layer that is run many times. ModernBERT's ``Wi``
holds the activated half first, so gate before up; NomicBERT activates ``fc12``. DeBERTa (v1) stacks q, k, v head by
head with biases of their own for q and v.

Sources: the modeling files of Hugging Face transformers for bert, roberta, distilbert, albert, electra, mpnet,
deberta, deberta_v2, modernbert, t5, umt5, bart, mbart, marian, pegasus, whisper; Nomic's contrastors; OpenAI's whisper;
OpenNMT's CTranslate2 (python/ctranslate2/specs; slashes written as dots,
``layer_0`` as ``layer.0``).
"""

from __future__ import annotations

from weightprint.anatomy.families.fused import FAIRSEQ_POST, FAIRSEQ_PRE
from weightprint.anatomy.family import Cell, Family, Stack, grouped, stacked

__all__ = ["FAMILIES"]

_EMBEDDINGS: dict[str, str | Cell] = {
    "embeddings.word_embeddings": "embedding",
    "embeddings.position_embeddings": "position",
    "embeddings.token_type_embeddings": "token_type",
    "embeddings.LayerNorm": "embedding_norm",
}
#: Heads of BERT's kin, each name used by one of them.
_BERT_HEADS: dict[str, str | Cell] = {
    "pooler.dense": "pooler",
    "cls.predictions.transform.dense": "head_dense",
    "cls.predictions.transform.LayerNorm": "head_norm",
    "cls.predictions.decoder": "head",
    "cls.predictions.bias": "head_bias",
    "cls.predictions.decoder.bias": "head_copy_bias",
    "cls.seq_relationship": "next_sentence",
    "lm_head.dense": "head_dense",
    "lm_head.layer_norm": "head_norm",
    "lm_head.decoder": "head",
    "lm_head.bias": "head_bias",
    "lm_head.decoder.bias": "head_copy_bias",
    "generator_predictions.dense": "head_dense",
    "generator_predictions.LayerNorm": "head_norm",
    "generator_lm_head": "head",
    "discriminator_predictions.dense": "classifier_dense",
    "discriminator_predictions.dense_prediction": "classifier",
    "classifier": "classifier",
    "classifier.dense": "classifier_dense",
    "classifier.out_proj": "classifier",
    "qa_outputs": "classifier",
    "linear": "projector",
}
_BERT_FFN: dict[str, str | Cell] = {
    "attention.output.dense": "o",
    "attention.output.LayerNorm": "attn_post_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "ffn_post_norm",
}
_IDS = ("*embeddings.position_ids", "*embeddings.token_type_ids")

_SELF: dict[str, str | Cell] = {f"SelfAttention.{x}": x for x in "qkvo"}
_T5_FFN: dict[str, str | Cell] = {
    "DenseReluDense.wi": "up",
    "DenseReluDense.wi_0": "gate",
    "DenseReluDense.wi_1": "up",
    "DenseReluDense.wo": "down",
    "layer_norm": "ffn_norm",
}
_T5_SELF: dict[str, str | Cell] = {
    **{f"layer.0.{name}": cell for name, cell in _SELF.items()},
    "layer.0.SelfAttention.relative_attention_bias": "relative_bias",
    "layer.0.layer_norm": "attn_norm",
}

_CROSS: dict[str, str | Cell] = {
    "encoder_attn.q_proj": "cross_q",
    "encoder_attn.k_proj": "cross_k",
    "encoder_attn.v_proj": "cross_v",
    "encoder_attn.out_proj": "cross_o",
}
_BART_ENCODER: dict[str, str | Cell] = {
    "encoder.embed_tokens": "embedding",
    "encoder.embed_positions": "position",
    "encoder.layernorm_embedding": "embedding_norm",
}
_BART_DECODER: dict[str, str | Cell] = {
    "shared": "embedding",
    "decoder.embed_tokens": "embedding_copy",
    "decoder.embed_positions": "position",
    "decoder.layernorm_embedding": "embedding_norm",
    "lm_head": "head",
    "final_logits_bias": "head_bias",
    "classification_head.dense": "classifier_dense",
    "classification_head.out_proj": "classifier",
}

_OPENAI_BLOCK: dict[str, str | Cell] = {
    "attn_ln": "attn_norm",
    "attn.query": "q",
    "attn.key": "k",
    "attn.value": "v",
    "attn.out": "o",
    "mlp_ln": "ffn_norm",
    "mlp.0": "up",
    "mlp.2": "down",
}
_CT2_FFN: dict[str, str | Cell] = {
    "ffn.layer_norm": "ffn_norm",
    "ffn.linear_0": "up",
    "ffn.linear_1": "down",
}
_CT2_SELF: dict[str, str | Cell] = {
    "self_attention.layer_norm": "attn_norm",
    "self_attention.linear_0": stacked("q", "k", "v"),
    "self_attention.linear_1": "o",
}

FAMILIES: tuple[Family, ...] = (
    Family(
        "bert",
        (
            Stack(
                "encoder",
                "encoder.layer.{b}.",
                {
                    "attention.self.query": "q",
                    "attention.self.key": "k",
                    "attention.self.value": "v",
                    **_BERT_FFN,
                },
                {**_EMBEDDINGS, **_BERT_HEADS, "embeddings_project": "embedding_in"},
            ),
        ),
        (
            "bert",
            "roberta",
            "xlm-roberta",
            "camembert",
            "electra",
            "data2vec-text",
            "ernie",
            "layoutlm",
            "xlm-roberta-xl",
        ),
        pre_norm=False,
        fixed=_IDS,
    ),
    Family(
        "distilbert",
        (
            Stack(
                "encoder",
                "transformer.layer.{b}.",
                {
                    "attention.q_lin": "q",
                    "attention.k_lin": "k",
                    "attention.v_lin": "v",
                    "attention.out_lin": "o",
                    "sa_layer_norm": "attn_post_norm",
                    "ffn.lin1": "up",
                    "ffn.lin2": "down",
                    "output_layer_norm": "ffn_post_norm",
                },
                {
                    **_EMBEDDINGS,
                    "vocab_transform": "head_dense",
                    "vocab_layer_norm": "head_norm",
                    "vocab_projector": "head",
                    "pre_classifier": "classifier_dense",
                    "classifier": "classifier",
                    "qa_outputs": "classifier",
                },
            ),
        ),
        ("distilbert",),
        pre_norm=False,
        fixed=_IDS,
    ),
    Family(
        "albert",
        (
            Stack(
                "encoder",
                "encoder.albert_layer_groups.{b}.albert_layers.0.",
                {
                    "attention.query": "q",
                    "attention.key": "k",
                    "attention.value": "v",
                    "attention.dense": "o",
                    "attention.LayerNorm": "attn_post_norm",
                    "ffn": "up",
                    "ffn_output": "down",
                    "full_layer_layer_norm": "ffn_post_norm",
                },
                {
                    **_EMBEDDINGS,
                    "encoder.embedding_hidden_mapping_in": "embedding_in",
                    "pooler": "pooler",
                    "predictions.dense": "head_dense",
                    "predictions.LayerNorm": "head_norm",
                    "predictions.decoder": "head",
                    "predictions.bias": "head_bias",
                    "predictions.decoder.bias": "head_copy_bias",
                    "sop_classifier.classifier": "next_sentence",
                    "classifier": "classifier",
                    "qa_outputs": "classifier",
                },
            ),
        ),
        ("albert",),
        pre_norm=False,
        fixed=_IDS,
    ),
    Family(
        "mpnet",
        (
            Stack(
                "encoder",
                "encoder.layer.{b}.",
                {
                    "attention.attn.q": "q",
                    "attention.attn.k": "k",
                    "attention.attn.v": "v",
                    "attention.attn.o": "o",
                    "attention.LayerNorm": "attn_post_norm",
                    "intermediate.dense": "up",
                    "output.dense": "down",
                    "output.LayerNorm": "ffn_post_norm",
                },
                {**_EMBEDDINGS, **_BERT_HEADS, "encoder.relative_attention_bias": "relative_bias"},
            ),
        ),
        ("mpnet",),
        pre_norm=False,
        fixed=_IDS,
    ),
    Family(
        "deberta_v2",
        (
            Stack(
                "encoder",
                "encoder.layer.{b}.",
                {
                    "attention.self.query_proj": "q",
                    "attention.self.key_proj": "k",
                    "attention.self.value_proj": "v",
                    "attention.self.pos_query_proj": "position_q",
                    "attention.self.pos_key_proj": "position_k",
                    **_BERT_FFN,
                },
                {
                    **_EMBEDDINGS,
                    **_BERT_HEADS,
                    "embeddings.embed_proj": "embedding_in",
                    "encoder.rel_embeddings": "position",
                    "encoder.LayerNorm": "position_norm",
                    "encoder.conv.conv": "conv1",
                    "encoder.conv.LayerNorm": "conv1_norm",
                    "lm_predictions.lm_head.dense": "head_dense",
                    "lm_predictions.lm_head.LayerNorm": "head_norm",
                    "lm_predictions.lm_head.bias": "head_bias",
                    "mask_predictions.dense": "classifier_dense",
                    "mask_predictions.LayerNorm": "classifier_norm",
                    "mask_predictions.classifier": "classifier",
                },
            ),
        ),
        ("deberta-v2",),
        pre_norm=False,
        fixed=_IDS,
    ),
    Family(
        "deberta",
        (
            Stack(
                "encoder",
                "encoder.layer.{b}.",
                {
                    "attention.self.in_proj": grouped("q", "k", "v"),
                    "attention.self.q_bias": "q_bias",
                    "attention.self.v_bias": "v_bias",
                    "attention.self.pos_q_proj": "position_q",
                    "attention.self.pos_proj": "position_k",
                    **_BERT_FFN,
                },
                {
                    **_EMBEDDINGS,
                    **_BERT_HEADS,
                    "embeddings.embed_proj": "embedding_in",
                    "encoder.rel_embeddings": "position",
                    "lm_predictions.lm_head.dense": "head_dense",
                    "lm_predictions.lm_head.LayerNorm": "head_norm",
                    "lm_predictions.lm_head.bias": "head_bias",
                },
            ),
        ),
        ("deberta",),
        pre_norm=False,
        fixed=_IDS,
    ),
    Family(
        "modernbert",
        (
            Stack(
                "encoder",
                "layers.{b}.",
                {
                    "attn_norm": "attn_norm",
                    "attn.Wqkv": stacked("q", "k", "v"),
                    "attn.Wo": "o",
                    "mlp_norm": "ffn_norm",
                    "mlp.Wi": stacked("gate", "up"),
                    "mlp.Wo": "down",
                },
                {
                    "embeddings.tok_embeddings": "embedding",
                    "embeddings.norm": "embedding_norm",
                    "final_norm": "final_norm",
                    "head.dense": "head_dense",
                    "head.norm": "head_norm",
                    "decoder": "head",
                    "classifier": "classifier",
                },
            ),
        ),
        ("modernbert",),
        fixed=("*.rotary_emb.inv_freq",),
    ),
    Family(
        "nomic_bert",
        (
            Stack(
                "encoder",
                "encoder.layers.{b}.",
                {
                    "attn.Wqkv": stacked("q", "k", "v"),
                    "attn.out_proj": "o",
                    "norm1": "attn_post_norm",
                    "mlp.fc11": "up",
                    "mlp.fc12": "gate",
                    "mlp.fc1": "up",
                    "mlp.fc2": "down",
                    "norm2": "ffn_post_norm",
                },
                {**_EMBEDDINGS, **_BERT_HEADS, "emb_ln": "embedding_norm"},
            ),
        ),
        ("nomic_bert",),
        pre_norm=False,
        fixed=("*.rotary_emb.inv_freq",),
    ),
    Family(
        "t5",
        (
            Stack(
                "encoder",
                "encoder.block.{b}.",
                {**_T5_SELF, **{f"layer.1.{name}": cell for name, cell in _T5_FFN.items()}},
                {"encoder.embed_tokens": "embedding", "encoder.final_layer_norm": "final_norm"},
            ),
            Stack(
                "decoder",
                "decoder.block.{b}.",
                {
                    **_T5_SELF,
                    **{f"layer.1.EncDecAttention.{x}": f"cross_{x}" for x in "qkvo"},
                    "layer.1.EncDecAttention.relative_attention_bias": "cross_relative_bias",
                    "layer.1.layer_norm": "cross_norm",
                    **{f"layer.2.{name}": cell for name, cell in _T5_FFN.items()},
                },
                {
                    "shared": "embedding",
                    "decoder.embed_tokens": "embedding_copy",
                    "decoder.final_layer_norm": "final_norm",
                    "lm_head": "head",
                    "classification_head.dense": "classifier_dense",
                    "classification_head.out_proj": "classifier",
                },
            ),
        ),
        ("t5", "mt5", "umt5", "longt5"),
    ),
    Family(
        "t5_encoder",  # published without its decoder, shared embedding and all
        (
            Stack(
                "encoder",
                "encoder.block.{b}.",
                {**_T5_SELF, **{f"layer.1.{name}": cell for name, cell in _T5_FFN.items()}},
                {
                    "shared": "embedding",
                    "encoder.embed_tokens": "embedding_copy",
                    "encoder.final_layer_norm": "final_norm",
                },
            ),
        ),
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
    ),
    Family(
        "whisper",
        (
            Stack(
                "audio",
                "encoder.layers.{b}.",
                FAIRSEQ_PRE,
                {
                    "encoder.conv1": "conv1",
                    "encoder.conv2": "conv2",
                    "encoder.embed_positions": "position",
                    "encoder.layer_norm": "final_norm",
                },
            ),
            Stack(
                "decoder",
                "decoder.layers.{b}.",
                {**FAIRSEQ_PRE, **_CROSS, "encoder_attn_layer_norm": "cross_norm"},
                {
                    "decoder.embed_tokens": "embedding",
                    "decoder.embed_positions": "position",
                    "decoder.layer_norm": "final_norm",
                    "proj_out": "head",
                },
            ),
        ),
        ("whisper",),
    ),
    Family(
        "whisper_openai",
        (
            Stack(
                "audio",
                "encoder.blocks.{b}.",
                _OPENAI_BLOCK,
                {
                    "encoder.conv1": "conv1",
                    "encoder.conv2": "conv2",
                    "encoder.positional_embedding": "position",
                    "encoder.ln_post": "final_norm",
                },
            ),
            Stack(
                "decoder",
                "decoder.blocks.{b}.",
                {
                    **_OPENAI_BLOCK,
                    "cross_attn_ln": "cross_norm",
                    "cross_attn.query": "cross_q",
                    "cross_attn.key": "cross_k",
                    "cross_attn.value": "cross_v",
                    "cross_attn.out": "cross_o",
                },
                {
                    "decoder.token_embedding": "embedding",
                    "decoder.positional_embedding": "position",
                    "decoder.ln": "final_norm",
                },
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
                {
                    "encoder.conv1": "conv1",
                    "encoder.conv2": "conv2",
                    "encoder.position_encodings.encodings": "position",
                    "encoder.layer_norm": "final_norm",
                },
            ),
            Stack(
                "decoder",
                "decoder.layer.{b}.",
                {
                    **_CT2_SELF,
                    **_CT2_FFN,
                    "attention.layer_norm": "cross_norm",
                    "attention.linear_0": "cross_q",
                    "attention.linear_1": stacked("cross_k", "cross_v"),
                    "attention.linear_2": "cross_o",
                },
                {
                    "decoder.embeddings": "embedding",
                    "decoder.position_encodings.encodings": "position",
                    "decoder.layer_norm": "final_norm",
                    "decoder.projection": "head",
                },
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
