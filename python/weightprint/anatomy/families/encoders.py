"""Text encoders: BERT and its kin, DeBERTa, ModernBERT, NomicBERT.

BERT adds first and normalises after, so its two norms stand *behind* attention and FFN and can't be folded into what
follows. ALBERT stores one layer that is run many times. ModernBERT's ``Wi`` holds the activated half first, so gate
before up; NomicBERT activates ``fc12``. DeBERTa (v1) stacks q, k, v head by head with biases of their own for q and v.

A masked-language head keeps its bias beside the decoder and often a copy in it: ``head_bias`` and ``head_copy_bias``.

Sources: the modeling files of Hugging Face transformers for bert, roberta, distilbert, albert, electra, mpnet,
deberta, deberta_v2, esm, modernbert; Nomic's contrastors.
"""

from __future__ import annotations

from weightprint.anatomy.family import Family, grouped, single, table

__all__ = ["FAMILIES"]

_EMBEDDINGS = table(
    "embeddings.word_embeddings=embedding embeddings.position_embeddings=position "
    "embeddings.token_type_embeddings=token_type embeddings.LayerNorm=embedding_norm"
)
#: Heads of BERT's kin, each name used by one of them.
_BERT_HEADS = table(
    "pooler.dense=pooler cls.predictions.transform.dense=head_dense cls.predictions.transform.LayerNorm=head_norm "
    "cls.predictions.decoder=head cls.predictions.bias=head_bias cls.predictions.decoder.bias=head_copy_bias "
    "cls.seq_relationship=next_sentence lm_head.dense=head_dense lm_head.layer_norm=head_norm lm_head.decoder=head "
    "lm_head.bias=head_bias lm_head.decoder.bias=head_copy_bias generator_predictions.dense=head_dense "
    "generator_predictions.LayerNorm=head_norm generator_lm_head=head discriminator_predictions.dense=classifier_dense "
    "discriminator_predictions.dense_prediction=classifier classifier=classifier classifier.dense=classifier_dense "
    "classifier.out_proj=classifier qa_outputs=classifier linear=projector"
)
_BERT_FFN = table(
    "attention.output.dense=o attention.output.LayerNorm=attn_post_norm intermediate.dense=up output.dense=down "
    "output.LayerNorm=ffn_post_norm"
)
_IDS = ("*embeddings.position_ids", "*embeddings.token_type_ids")

FAMILIES: tuple[Family, ...] = (
    single(
        "bert",
        "encoder",
        "encoder.layer.{b}.",
        table("attention.self.query=q attention.self.key=k attention.self.value=v", _BERT_FFN),
        {**_EMBEDDINGS, **_BERT_HEADS, "embeddings_project": "embedding_in"},
        ("bert", "roberta", "xlm-roberta", "camembert", "electra", "data2vec-text", "ernie", "layoutlm"),
        pre_norm=False,
        fixed=_IDS,
    ),
    single(
        "distilbert",
        "encoder",
        "transformer.layer.{b}.",
        table(
            "attention.q_lin=q attention.k_lin=k attention.v_lin=v attention.out_lin=o "
            "sa_layer_norm=attn_post_norm ffn.lin1=up ffn.lin2=down output_layer_norm=ffn_post_norm"
        ),
        table(
            _EMBEDDINGS,
            "vocab_transform=head_dense vocab_layer_norm=head_norm vocab_projector=head "
            "pre_classifier=classifier_dense classifier=classifier qa_outputs=classifier",
        ),
        ("distilbert",),
        pre_norm=False,
        fixed=_IDS,
    ),
    single(
        "albert",
        "encoder",
        "encoder.albert_layer_groups.{b}.albert_layers.0.",
        table(
            "attention.query=q attention.key=k attention.value=v attention.dense=o "
            "attention.LayerNorm=attn_post_norm ffn=up ffn_output=down full_layer_layer_norm=ffn_post_norm"
        ),
        table(
            _EMBEDDINGS,
            "encoder.embedding_hidden_mapping_in=embedding_in pooler=pooler predictions.dense=head_dense "
            "predictions.LayerNorm=head_norm predictions.decoder=head predictions.bias=head_bias "
            "predictions.decoder.bias=head_copy_bias sop_classifier.classifier=next_sentence "
            "classifier=classifier qa_outputs=classifier",
        ),
        ("albert",),
        pre_norm=False,
        fixed=_IDS,
    ),
    single(
        "mpnet",
        "encoder",
        "encoder.layer.{b}.",
        table(
            "attention.attn.q=q attention.attn.k=k attention.attn.v=v attention.attn.o=o "
            "attention.LayerNorm=attn_post_norm intermediate.dense=up output.dense=down "
            "output.LayerNorm=ffn_post_norm"
        ),
        {**_EMBEDDINGS, **_BERT_HEADS, "encoder.relative_attention_bias": "relative_bias"},
        ("mpnet",),
        pre_norm=False,
        fixed=_IDS,
    ),
    single(
        "deberta_v2",
        "encoder",
        "encoder.layer.{b}.",
        table(
            "attention.self.query_proj=q attention.self.key_proj=k attention.self.value_proj=v "
            "attention.self.pos_query_proj=position_q attention.self.pos_key_proj=position_k",
            _BERT_FFN,
        ),
        table(
            _EMBEDDINGS,
            _BERT_HEADS,
            "embeddings.embed_proj=embedding_in encoder.rel_embeddings=position "
            "encoder.LayerNorm=position_norm encoder.conv.conv=conv1 encoder.conv.LayerNorm=conv1_norm "
            "lm_predictions.lm_head.dense=head_dense lm_predictions.lm_head.LayerNorm=head_norm "
            "lm_predictions.lm_head.bias=head_bias mask_predictions.dense=classifier_dense "
            "mask_predictions.LayerNorm=classifier_norm mask_predictions.classifier=classifier",
        ),
        ("deberta-v2",),
        pre_norm=False,
        fixed=_IDS,
    ),
    single(
        "deberta",
        "encoder",
        "encoder.layer.{b}.",
        table(
            {"attention.self.in_proj": grouped("q", "k", "v")},
            "attention.self.q_bias=q_bias attention.self.v_bias=v_bias "
            "attention.self.pos_q_proj=position_q attention.self.pos_proj=position_k",
            _BERT_FFN,
        ),
        table(
            _EMBEDDINGS,
            _BERT_HEADS,
            "embeddings.embed_proj=embedding_in encoder.rel_embeddings=position "
            "lm_predictions.lm_head.dense=head_dense lm_predictions.lm_head.LayerNorm=head_norm "
            "lm_predictions.lm_head.bias=head_bias",
        ),
        ("deberta",),
        pre_norm=False,
        fixed=_IDS,
    ),
    single(
        "esm",  # proteins; BERT's names with norms in front
        "encoder",
        "encoder.layer.{b}.",
        table(
            "attention.LayerNorm=attn_norm attention.self.query=q attention.self.key=k attention.self.value=v "
            "attention.output.dense=o LayerNorm=ffn_norm intermediate.dense=up output.dense=down"
        ),
        table(
            _EMBEDDINGS,
            _BERT_HEADS,
            "encoder.emb_layer_norm_after=final_norm embeddings.layer_norm=embedding_norm "
            "contact_head.regression=contact_head",
        ),
        ("esm",),
        fixed=(*_IDS, "*.rotary_embeddings.inv_freq"),
    ),
    single(
        "modernbert",
        "encoder",
        "layers.{b}.",
        table("attn_norm=attn_norm attn.Wqkv=q|k|v attn.Wo=o mlp_norm=ffn_norm mlp.Wi=gate|up mlp.Wo=down"),
        table(
            "embeddings.tok_embeddings=embedding embeddings.norm=embedding_norm final_norm=final_norm "
            "head.dense=head_dense head.norm=head_norm decoder=head classifier=classifier"
        ),
        ("modernbert",),
        fixed=("*.rotary_emb.inv_freq",),
    ),
    single(
        "nomic_bert",
        "encoder",
        "encoder.layers.{b}.",
        table(
            "attn.Wqkv=q|k|v attn.out_proj=o norm1=attn_post_norm mlp.fc11=up mlp.fc12=gate mlp.fc1=up "
            "mlp.fc2=down norm2=ffn_post_norm"
        ),
        {**_EMBEDDINGS, **_BERT_HEADS, "emb_ln": "embedding_norm"},
        ("nomic_bert",),
        pre_norm=False,
        fixed=("*.rotary_emb.inv_freq",),
    ),
)
