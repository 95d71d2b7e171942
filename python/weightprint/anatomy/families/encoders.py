"""Text encoders: BERT and its kin, DeBERTa, ModernBERT, NomicBERT.

BERT adds first and normalises after, so its two norms stand *behind* attention and FFN and can't be folded into what
follows. ALBERT stores one layer that is run many times. ModernBERT's ``Wi`` holds the activated half first, so gate
before up; NomicBERT activates ``fc12``. DeBERTa (v1) stacks q, k, v head by head with biases of their own for q and v.

A masked-language head keeps its bias beside the decoder and often a copy in it: ``head_bias`` and ``head_copy_bias``.

Sources: the modeling files of Hugging Face transformers for bert, roberta, distilbert, albert, electra, mpnet,
deberta, deberta_v2, esm, modernbert; Nomic's contrastors.
"""

from __future__ import annotations

from typing import Any

from weightprint.anatomy.family import Family, Part, Table, single, table

_EMBEDDINGS = table(
    "embeddings.{word,position,token_type}_embeddings={embedding,position,token_type} "
    "embeddings.LayerNorm=embedding_norm"
)
#: Heads of BERT's kin, each name used by one of them.
_BERT_HEADS = table(
    "pooler.dense=pooler cls.predictions.transform.{dense,LayerNorm}={head_dense,head_norm} "
    "cls.predictions.decoder=head cls.predictions.bias=head_bias cls.predictions.decoder.bias=head_copy_bias "
    "cls.seq_relationship=next_sentence lm_head.{dense,layer_norm,decoder}={head_dense,head_norm,head} "
    "lm_head.bias=head_bias lm_head.decoder.bias=head_copy_bias "
    "generator_predictions.{dense,LayerNorm}={head_dense,head_norm} generator_lm_head=head "
    "discriminator_predictions.{dense,dense_prediction}={classifier_dense,classifier} "
    "{classifier,classifier.dense,classifier.out_proj}={classifier,classifier_dense,classifier} "
    "qa_outputs=classifier linear=projector"
)
_FFN_OF_BERT = table("intermediate.dense=up output.dense=down")
_BERT_BLOCK = table(
    "attention.output.{dense,LayerNorm}={o,attn_post_norm}", _FFN_OF_BERT, "output.LayerNorm=ffn_post_norm"
)
_DEBERTA_HEADS = table(
    "embeddings.embed_proj=embedding_in encoder.rel_embeddings=position "
    "lm_predictions.lm_head.{dense,LayerNorm,bias}={head_dense,head_norm,head_bias}"
)
_IDS = "*embeddings.position_ids *embeddings.token_type_ids"


def _bert(name: str, block: str, *inside: Part, outside: Table, fixed: str = _IDS, **traits: Any) -> Family:
    """A family with BERT's embeddings and, unless told otherwise, norms behind."""
    traits = {"pre_norm": False, "fixed": fixed, **traits}
    return single(name, "encoder", block, *inside, outside=table(_EMBEDDINGS, outside), **traits)


FAMILIES: tuple[Family, ...] = (
    _bert(
        "bert",
        "encoder.layer.{b}.",
        "attention.self.{query,key,value}={q,k,v}",
        _BERT_BLOCK,
        outside=table(_BERT_HEADS, "embeddings_project=embedding_in"),
        types="bert roberta xlm-roberta camembert electra data2vec-text ernie layoutlm",
    ),
    _bert(
        "distilbert",
        "transformer.layer.{b}.",
        "attention.{q,k,v,out}_lin={q,k,v,o} sa_layer_norm=attn_post_norm ffn.{lin1,lin2}={up,down} "
        "output_layer_norm=ffn_post_norm",
        outside=table(
            "vocab_{transform,layer_norm,projector}={head_dense,head_norm,head} "
            "{pre_classifier,classifier,qa_outputs}={classifier_dense,classifier,classifier}"
        ),
    ),
    _bert(
        "albert",
        "encoder.albert_layer_groups.{b}.albert_layers.0.",
        "attention.{query,key,value,dense}={q,k,v,o} attention.LayerNorm=attn_post_norm {ffn,ffn_output}={up,down} "
        "full_layer_layer_norm=ffn_post_norm",
        outside=table(
            "encoder.embedding_hidden_mapping_in=embedding_in pooler=pooler "
            "predictions.{dense,LayerNorm,decoder,bias}={head_dense,head_norm,head,head_bias} "
            "predictions.decoder.bias=head_copy_bias sop_classifier.classifier=next_sentence "
            "classifier=classifier qa_outputs=classifier"
        ),
    ),
    _bert(
        "mpnet",
        "encoder.layer.{b}.",
        "attention.attn.{q,k,v,o}={q,k,v,o} attention.LayerNorm=attn_post_norm",
        _FFN_OF_BERT,
        "output.LayerNorm=ffn_post_norm",
        outside=table(_BERT_HEADS, "encoder.relative_attention_bias=relative_bias"),
    ),
    _bert(
        "deberta_v2",
        "encoder.layer.{b}.",
        "attention.self.{query,key,value,pos_query,pos_key}_proj={q,k,v,position_q,position_k}",
        _BERT_BLOCK,
        outside=table(
            _BERT_HEADS,
            _DEBERTA_HEADS,
            "encoder.LayerNorm=position_norm encoder.conv.{conv,LayerNorm}={conv1,conv1_norm} "
            "mask_predictions.{dense,LayerNorm,classifier}={classifier_dense,classifier_norm,classifier}",
        ),
        types="deberta-v2",
    ),
    _bert(
        "deberta",
        "encoder.layer.{b}.",
        "attention.self.in_proj=q/k/v attention.self.{q,v}_bias={q,v}_bias "
        "attention.self.{pos_q_proj,pos_proj}=position_{q,k}",
        _BERT_BLOCK,
        outside=table(_BERT_HEADS, _DEBERTA_HEADS),
    ),
    _bert(
        "esm",  # proteins; BERT's names with norms in front
        "encoder.layer.{b}.",
        "attention.LayerNorm=attn_norm attention.self.{query,key,value}={q,k,v} attention.output.dense=o "
        "LayerNorm=ffn_norm",
        _FFN_OF_BERT,
        outside=table(
            _BERT_HEADS,
            "encoder.emb_layer_norm_after=final_norm embeddings.layer_norm=embedding_norm "
            "contact_head.regression=contact_head",
        ),
        pre_norm=True,
        fixed=f"{_IDS} *.rotary_embeddings.inv_freq",
    ),
    single(
        "modernbert",
        "encoder",
        "layers.{b}.",
        "attn_norm=attn_norm attn.Wqkv=q|k|v attn.Wo=o mlp_norm=ffn_norm mlp.Wi=gate|up mlp.Wo=down",
        outside="embeddings.tok_embeddings=embedding embeddings.norm=embedding_norm final_norm=final_norm "
        "head.{dense,norm}=head_{dense,norm} decoder=head classifier=classifier",
        fixed="*.rotary_emb.inv_freq",
    ),
    _bert(
        "nomic_bert",
        "encoder.layers.{b}.",
        "attn.Wqkv=q|k|v attn.out_proj=o norm1=attn_post_norm mlp.{fc11,fc12,fc1,fc2}={up,gate,up,down} "
        "norm2=ffn_post_norm",
        outside=table(_BERT_HEADS, "emb_ln=embedding_norm"),
        fixed="*.rotary_emb.inv_freq",
    ),
)
