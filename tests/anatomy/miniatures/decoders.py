"""Miniatures of the dense decoder-only families."""

from __future__ import annotations

from miniature import Maker, Miniature

V, D, H = 50, 20, 36
HEADS, KV, HD = 4, 2, 6


def llama() -> Miniature:
    config = {
        "model_type": "llama",
        "hidden_size": D,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "head_dim": HD,
        "intermediate_size": H,
        "num_hidden_layers": 2,
    }
    m = Maker("llama", config)
    m.put("model.embed_tokens.weight", "embedding", V, D)
    for b in range(2):
        at = f"model.layers.{b}."
        m.put(at + "input_layernorm.weight", "attn_norm", D, block=b)
        m.put(at + "self_attn.q_proj.weight", "q", HEADS * HD, D, block=b)
        m.put(at + "self_attn.k_proj.weight", "k", KV * HD, D, block=b)
        m.put(at + "self_attn.v_proj.weight", "v", KV * HD, D, block=b)
        m.put(at + "self_attn.o_proj.weight", "o", D, HEADS * HD, block=b)
        m.fixed(at + "self_attn.rotary_emb.inv_freq", HD // 2)
        m.put(at + "post_attention_layernorm.weight", "ffn_norm", D, block=b)
        m.put(at + "mlp.gate_proj.weight", "gate", H, D, block=b)
        m.put(at + "mlp.up_proj.weight", "up", H, D, block=b)
        m.put(at + "mlp.down_proj.weight", "down", D, H, block=b)
    m.put("model.norm.weight", "final_norm", D)
    m.put("lm_head.weight", "head", V, D)
    return m.done()


MINIATURES = [llama]
