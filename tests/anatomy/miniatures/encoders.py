"""Miniatures of text encoders."""

from __future__ import annotations

import numpy as np
from miniature import Maker, Miniature, layer_norm, linear

V, D, F, POSITIONS = 40, 24, 56, 16
HEADS, HD = 4, 6
BLOCKS = 2
BERT = {"hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": BLOCKS, "intermediate_size": F}


def _bert_embeddings(m: Maker, at: str, width: int = D, positions: int = POSITIONS, types: int = 2) -> None:
    m.fixed(at + "embeddings.position_ids", 1, positions)
    m.put(at + "embeddings.word_embeddings.weight", "embedding", V, width)
    m.put(at + "embeddings.position_embeddings.weight", "position", positions, width)
    if types:
        m.put(at + "embeddings.token_type_embeddings.weight", "token_type", types, width)
    layer_norm(m, at + "embeddings.LayerNorm", "embedding_norm", n=width)


def _bert_block(m: Maker, at: str, b: int, names: tuple[str, str, str] = ("query", "key", "value")) -> None:
    for role, name in zip("qkv", names, strict=True):
        linear(m, f"{at}attention.self.{name}", role, D, D, b)
    _bert_rest(m, at, b)


def _bert_rest(m: Maker, at: str, b: int) -> None:
    linear(m, at + "attention.output.dense", "o", D, D, b)
    layer_norm(m, at + "attention.output.LayerNorm", "attn_post_norm", b)
    linear(m, at + "intermediate.dense", "up", F, D, b)
    linear(m, at + "output.dense", "down", D, F, b)
    layer_norm(m, at + "output.LayerNorm", "ffn_post_norm", b)


def bert() -> Miniature:
    """For pre-training, as first published: both heads, and the decoder's copies."""
    m = Maker("bert", {"model_type": "bert", **BERT}, stack="encoder")
    _bert_embeddings(m, "bert.")
    for b in range(BLOCKS):
        _bert_block(m, f"bert.encoder.layer.{b}.", b)
    linear(m, "bert.pooler.dense", "pooler", D, D)
    m.put("cls.predictions.bias", "head_bias", V)
    linear(m, "cls.predictions.transform.dense", "head_dense", D, D)
    layer_norm(m, "cls.predictions.transform.LayerNorm", "head_norm")
    m.put("cls.predictions.decoder.weight", "head", V, D)
    m.put("cls.predictions.decoder.bias", "head_copy_bias", V)
    linear(m, "cls.seq_relationship", "next_sentence", 2, D)
    return m.done()


def bert_tf_names() -> Miniature:
    """Norms called gamma and beta, as converted from TensorFlow."""
    m = Maker("bert", {"model_type": "bert", **BERT}, stack="encoder", label="bert-gamma")
    m.put("bert.embeddings.word_embeddings.weight", "embedding", V, D)
    m.put("bert.embeddings.position_embeddings.weight", "position", POSITIONS, D)
    m.put("bert.embeddings.token_type_embeddings.weight", "token_type", 2, D)
    m.put("bert.embeddings.LayerNorm.gamma", "embedding_norm", D)
    m.put("bert.embeddings.LayerNorm.beta", "embedding_norm_bias", D)
    for b in range(BLOCKS):
        at = f"bert.encoder.layer.{b}."
        for role, name in zip("qkv", ("query", "key", "value"), strict=True):
            linear(m, f"{at}attention.self.{name}", role, D, D, b)
        linear(m, at + "attention.output.dense", "o", D, D, b)
        linear(m, at + "intermediate.dense", "up", F, D, b)
        linear(m, at + "output.dense", "down", D, F, b)
        for name, role in (("attention.output", "attn_post_norm"), ("output", "ffn_post_norm")):
            m.put(f"{at}{name}.LayerNorm.gamma", role, D, block=b)
            m.put(f"{at}{name}.LayerNorm.beta", role + "_bias", D, block=b)
    return m.done()


def roberta() -> Miniature:
    m = Maker("bert", {"model_type": "roberta", **BERT}, stack="encoder", label="roberta")
    _bert_embeddings(m, "roberta.", positions=POSITIONS + 2, types=1)
    for b in range(BLOCKS):
        _bert_block(m, f"roberta.encoder.layer.{b}.", b)
    m.put("lm_head.bias", "head_bias", V)
    linear(m, "lm_head.dense", "head_dense", D, D)
    layer_norm(m, "lm_head.layer_norm", "head_norm")
    return m.done()


def xlm_roberta_classifier() -> Miniature:
    m = Maker("bert", {"model_type": "xlm-roberta", **BERT}, stack="encoder", label="xlm-roberta-classifier")
    _bert_embeddings(m, "roberta.", positions=POSITIONS + 2, types=1)
    for b in range(BLOCKS):
        _bert_block(m, f"roberta.encoder.layer.{b}.", b)
    linear(m, "classifier.dense", "classifier_dense", D, D)
    linear(m, "classifier.out_proj", "classifier", 3, D)
    return m.done()


def minilm() -> Miniature:
    """A sentence-transformers model: no prefix, a pooler (E5, BGE and GTE are the same)."""
    m = Maker("bert", {"model_type": "bert", **BERT}, stack="encoder", label="minilm")
    _bert_embeddings(m, "")
    for b in range(BLOCKS):
        _bert_block(m, f"encoder.layer.{b}.", b)
    linear(m, "pooler.dense", "pooler", D, D)
    return m.done()


def electra() -> Miniature:
    """The small discriminator: its embedding is narrower than its hidden state."""
    m = Maker("bert", {"model_type": "electra", **BERT, "embedding_size": 10}, stack="encoder", label="electra")
    _bert_embeddings(m, "electra.", width=10)
    linear(m, "electra.embeddings_project", "embedding_in", D, 10)
    for b in range(BLOCKS):
        _bert_block(m, f"electra.encoder.layer.{b}.", b)
    linear(m, "discriminator_predictions.dense", "classifier_dense", D, D)
    linear(m, "discriminator_predictions.dense_prediction", "classifier", 1, D)
    return m.done()


def distilbert() -> Miniature:
    config = {"model_type": "distilbert", "dim": D, "n_heads": HEADS, "n_layers": BLOCKS, "hidden_dim": F}
    m = Maker("distilbert", config, stack="encoder")
    m.put("distilbert.embeddings.word_embeddings.weight", "embedding", V, D)
    m.put("distilbert.embeddings.position_embeddings.weight", "position", POSITIONS, D)
    layer_norm(m, "distilbert.embeddings.LayerNorm", "embedding_norm")
    for b in range(BLOCKS):
        at = f"distilbert.transformer.layer.{b}."
        for role, name in zip("qkvo", ("q_lin", "k_lin", "v_lin", "out_lin"), strict=True):
            linear(m, f"{at}attention.{name}", role, D, D, b)
        layer_norm(m, at + "sa_layer_norm", "attn_post_norm", b)
        linear(m, at + "ffn.lin1", "up", F, D, b)
        linear(m, at + "ffn.lin2", "down", D, F, b)
        layer_norm(m, at + "output_layer_norm", "ffn_post_norm", b)
    linear(m, "vocab_transform", "head_dense", D, D)
    layer_norm(m, "vocab_layer_norm", "head_norm")
    linear(m, "vocab_projector", "head", V, D)
    return m.done()


def albert() -> Miniature:
    """One stored layer, run many times."""
    narrow = 10
    m = Maker("albert", {"model_type": "albert", **BERT, "embedding_size": narrow}, stack="encoder")
    _bert_embeddings(m, "albert.", width=narrow)
    linear(m, "albert.encoder.embedding_hidden_mapping_in", "embedding_in", D, narrow)
    at = "albert.encoder.albert_layer_groups.0.albert_layers.0."
    layer_norm(m, at + "full_layer_layer_norm", "ffn_post_norm", 0)
    for role, name in zip("qkvo", ("query", "key", "value", "dense"), strict=True):
        linear(m, f"{at}attention.{name}", role, D, D, 0)
    layer_norm(m, at + "attention.LayerNorm", "attn_post_norm", 0)
    linear(m, at + "ffn", "up", F, D, 0)
    linear(m, at + "ffn_output", "down", D, F, 0)
    linear(m, "albert.pooler", "pooler", D, D)
    m.put("predictions.bias", "head_bias", V)
    layer_norm(m, "predictions.LayerNorm", "head_norm", n=narrow)
    linear(m, "predictions.dense", "head_dense", narrow, D)
    m.put("predictions.decoder.weight", "head", V, narrow)
    linear(m, "sop_classifier.classifier", "next_sentence", 2, D)
    return m.done()


def mpnet() -> Miniature:
    m = Maker("mpnet", {"model_type": "mpnet", **BERT}, stack="encoder")
    _bert_embeddings(m, "", types=0)
    for b in range(BLOCKS):
        at = f"encoder.layer.{b}."
        for role in "qkvo":
            linear(m, f"{at}attention.attn.{role}", role, D, D, b)
        layer_norm(m, at + "attention.LayerNorm", "attn_post_norm", b)
        linear(m, at + "intermediate.dense", "up", F, D, b)
        linear(m, at + "output.dense", "down", D, F, b)
        layer_norm(m, at + "output.LayerNorm", "ffn_post_norm", b)
    m.put("encoder.relative_attention_bias.weight", "relative_bias", 32, HEADS)
    linear(m, "pooler.dense", "pooler", D, D)
    return m.done()


def deberta_v2() -> Miniature:
    m = Maker("deberta_v2", {"model_type": "deberta-v2", **BERT}, stack="encoder")
    m.put("deberta.embeddings.word_embeddings.weight", "embedding", V, D)
    layer_norm(m, "deberta.embeddings.LayerNorm", "embedding_norm")
    for b in range(BLOCKS):
        _bert_block(m, f"deberta.encoder.layer.{b}.", b, ("query_proj", "key_proj", "value_proj"))
    m.put("deberta.encoder.rel_embeddings.weight", "position", 2 * POSITIONS, D)
    layer_norm(m, "deberta.encoder.LayerNorm", "position_norm")
    m.put("deberta.encoder.conv.conv.weight", "conv1", D, D, 3)
    m.put("deberta.encoder.conv.conv.bias", "conv1_bias", D)
    layer_norm(m, "deberta.encoder.conv.LayerNorm", "conv1_norm")
    linear(m, "pooler.dense", "pooler", D, D)
    linear(m, "classifier", "classifier", 3, D)
    return m.done()


def deberta() -> Miniature:
    """q, k and v head by head in one matrix; biases of q and v beside it."""
    m = Maker("deberta", {"model_type": "deberta", **BERT}, stack="encoder")
    m.put("deberta.embeddings.word_embeddings.weight", "embedding", V, D)
    layer_norm(m, "deberta.embeddings.LayerNorm", "embedding_norm")
    for b in range(BLOCKS):
        at = f"deberta.encoder.layer.{b}."
        q, k, v = (m.draw(role, D, D, block=b) for role in "qkv")
        heads = [np.split(x, HEADS) for x in (q, k, v)]
        m[at + "attention.self.in_proj.weight"] = np.concatenate([x[h] for h in range(HEADS) for x in heads])
        m.put(at + "attention.self.q_bias", "q_bias", D, block=b)
        m.put(at + "attention.self.v_bias", "v_bias", D, block=b)
        m.put(at + "attention.self.pos_proj.weight", "position_k", D, D, block=b)
        linear(m, at + "attention.self.pos_q_proj", "position_q", D, D, b)
        _bert_rest(m, at, b)
    m.put("deberta.encoder.rel_embeddings.weight", "position", 2 * POSITIONS, D)
    m.put("lm_predictions.lm_head.bias", "head_bias", V)
    linear(m, "lm_predictions.lm_head.dense", "head_dense", D, D)
    layer_norm(m, "lm_predictions.lm_head.LayerNorm", "head_norm")
    return m.done()


def esm() -> Miniature:
    m = Maker("esm", {"model_type": "esm", **BERT}, stack="encoder")
    m.put("esm.embeddings.word_embeddings.weight", "embedding", V, D)
    m.put("esm.embeddings.position_embeddings.weight", "position", POSITIONS, D)
    m.fixed("esm.embeddings.position_ids", 1, POSITIONS)
    for b in range(BLOCKS):
        at = f"esm.encoder.layer.{b}."
        layer_norm(m, at + "attention.LayerNorm", "attn_norm", b)
        for role, name in zip("qkv", ("query", "key", "value"), strict=True):
            linear(m, f"{at}attention.self.{name}", role, D, D, b)
        m.fixed(at + "attention.self.rotary_embeddings.inv_freq", HD // 2)
        linear(m, at + "attention.output.dense", "o", D, D, b)
        layer_norm(m, at + "LayerNorm", "ffn_norm", b)
        linear(m, at + "intermediate.dense", "up", F, D, b)
        linear(m, at + "output.dense", "down", D, F, b)
    layer_norm(m, "esm.encoder.emb_layer_norm_after", "final_norm")
    linear(m, "esm.contact_head.regression", "contact_head", 1, BLOCKS * HEADS)
    m.put("lm_head.bias", "head_bias", V)
    linear(m, "lm_head.dense", "head_dense", D, D)
    layer_norm(m, "lm_head.layer_norm", "head_norm")
    return m.done()


def modernbert() -> Miniature:
    m = Maker("modernbert", {"model_type": "modernbert", **BERT}, stack="encoder")
    m.put("model.embeddings.tok_embeddings.weight", "embedding", V, D)
    m.put("model.embeddings.norm.weight", "embedding_norm", D)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        if b:  # the first block reads the embedding's norm
            m.put(at + "attn_norm.weight", "attn_norm", D, block=b)
        # The output is viewed as (3, heads, head size).
        parts = np.stack([m.draw(role, D, D, block=b).reshape(HEADS, HD, D) for role in "qkv"])
        m[at + "attn.Wqkv.weight"] = parts.reshape(3 * D, D)
        m.put(at + "attn.Wo.weight", "o", D, D, block=b)
        m.put(at + "mlp_norm.weight", "ffn_norm", D, block=b)
        activated, factor = m.draw("gate", F, D, block=b), m.draw("up", F, D, block=b)
        m[at + "mlp.Wi.weight"] = np.vstack([activated, factor])
        m.put(at + "mlp.Wo.weight", "down", D, F, block=b)
    m.put("model.final_norm.weight", "final_norm", D)
    m.put("head.dense.weight", "head_dense", D, D)
    m.put("head.norm.weight", "head_norm", D)
    m.put("decoder.bias", "head_bias", V)
    return m.done()


def nomic_bert() -> Miniature:
    m = Maker(
        "nomic_bert", {"model_type": "nomic_bert", "n_embd": D, "n_head": HEADS, "n_layer": BLOCKS}, stack="encoder"
    )
    m.put("embeddings.word_embeddings.weight", "embedding", V, D)
    m.put("embeddings.token_type_embeddings.weight", "token_type", 2, D)
    layer_norm(m, "emb_ln", "embedding_norm")
    for b in range(BLOCKS):
        at = f"encoder.layers.{b}."
        m[at + "attn.Wqkv.weight"] = np.vstack([m.draw(role, D, D, block=b) for role in "qkv"])
        m.put(at + "attn.out_proj.weight", "o", D, D, block=b)
        layer_norm(m, at + "norm1", "attn_post_norm", b)
        m.put(at + "mlp.fc11.weight", "up", F, D, block=b)
        m.put(at + "mlp.fc12.weight", "gate", F, D, block=b)
        m.put(at + "mlp.fc2.weight", "down", D, F, block=b)
        layer_norm(m, at + "norm2", "ffn_post_norm", b)
    return m.done()


MINIATURES = [
    bert,
    bert_tf_names,
    roberta,
    xlm_roberta_classifier,
    minilm,
    electra,
    distilbert,
    albert,
    mpnet,
    deberta_v2,
    deberta,
    esm,
    modernbert,
    nomic_bert,
]
