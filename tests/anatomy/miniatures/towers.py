"""Miniatures of vision and audio towers, alone and composed with a language model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from miniature import Maker, Miniature, layer_norm, linear

V, D, F, POSITIONS = 40, 24, 56, 16
HEADS, BLOCKS, PATCH = 4, 2, 4
VIT = {"hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": BLOCKS, "intermediate_size": F}


def fused(m: Maker, weight: str, bias: str, b: int | None, stack: str | None = None, d: int = D) -> None:
    m[weight] = np.vstack([m.draw(role, d, d, block=b, stack=stack) for role in "qkv"])
    m[bias] = np.hstack([m.draw(f"{role}_bias", d, block=b, stack=stack) for role in "qkv"])


def patches(m: Maker, name: str, *, bias: bool = True, stack: str | None = None) -> None:
    m.put(f"{name}.weight", "patch", D, 3, PATCH, PATCH, stack=stack)
    if bias:
        m.put(f"{name}.bias", "patch_bias", D, stack=stack)


def vit() -> Miniature:
    m = Maker("vit", {"model_type": "vit", **VIT}, stack="vision")
    m.put("vit.embeddings.cls_token", "class_token", 1, 1, D)
    m.put("vit.embeddings.position_embeddings", "position", 1, POSITIONS + 1, D)
    patches(m, "vit.embeddings.patch_embeddings.projection")
    for b in range(BLOCKS):
        at = f"vit.encoder.layer.{b}."
        layer_norm(m, at + "layernorm_before", "attn_norm", b)
        for role, name in zip("qkv", ("query", "key", "value"), strict=True):
            linear(m, f"{at}attention.attention.{name}", role, D, D, b)
        linear(m, at + "attention.output.dense", "o", D, D, b)
        layer_norm(m, at + "layernorm_after", "ffn_norm", b)
        linear(m, at + "intermediate.dense", "up", F, D, b)
        linear(m, at + "output.dense", "down", D, F, b)
    layer_norm(m, "vit.layernorm", "final_norm")
    linear(m, "classifier", "classifier", 10, D)
    return m.done()


def dinov2(swiglu: bool) -> Callable[[], Miniature]:
    def make() -> Miniature:
        config = {"model_type": "dinov2", **VIT, "use_swiglu_ffn": swiglu}
        m = Maker("dinov2", config, stack="vision", label="dinov2-giant" if swiglu else "dinov2")
        m.put("embeddings.cls_token", "class_token", 1, 1, D)
        m.put("embeddings.mask_token", "mask_token", 1, D)
        m.put("embeddings.position_embeddings", "position", 1, POSITIONS + 1, D)
        patches(m, "embeddings.patch_embeddings.projection")
        for b in range(BLOCKS):
            at = f"encoder.layer.{b}."
            layer_norm(m, at + "norm1", "attn_norm", b)
            for role, name in zip("qkv", ("query", "key", "value"), strict=True):
                linear(m, f"{at}attention.attention.{name}", role, D, D, b)
            linear(m, at + "attention.output.dense", "o", D, D, b)
            m.put(at + "layer_scale1.lambda1", "attn_scale", D, block=b)
            layer_norm(m, at + "norm2", "ffn_norm", b)
            if swiglu:
                m[at + "mlp.weights_in.weight"] = np.vstack([m.draw(r, F, D, block=b) for r in ("gate", "up")])
                m[at + "mlp.weights_in.bias"] = np.hstack([m.draw(r, F, block=b) for r in ("gate_bias", "up_bias")])
                linear(m, at + "mlp.weights_out", "down", D, F, b)
            else:
                linear(m, at + "mlp.fc1", "up", F, D, b)
                linear(m, at + "mlp.fc2", "down", D, F, b)
            m.put(at + "layer_scale2.lambda1", "ffn_scale", D, block=b)
        layer_norm(m, "layernorm", "final_norm")
        return m.done()

    return make


def vit_timm() -> Miniature:
    """As timm and Meta's DINOv2 name it, with layer scale and register tokens."""
    return _timm("vit_timm", packed=False)


def vit_timm_packed() -> Miniature:
    return _timm("vit_timm_packed", packed=True)


def _timm(family: str, *, packed: bool) -> Miniature:
    m = Maker(family, {"architecture": "vit_patch14_reg4_dinov2", "num_classes": 0}, stack="vision")
    m.put("cls_token", "class_token", 1, 1, D)
    m.put("reg_token", "register_tokens", 1, 4, D)
    m.put("pos_embed", "position", 1, POSITIONS, D)
    patches(m, "patch_embed.proj")
    for b in range(BLOCKS):
        at = f"blocks.{b}."
        layer_norm(m, at + "norm1", "attn_norm", b)
        fused(m, at + "attn.qkv.weight", at + "attn.qkv.bias", b)
        linear(m, at + "attn.proj", "o", D, D, b)
        m.put(at + "ls1.gamma", "attn_scale", D, block=b)
        layer_norm(m, at + "norm2", "ffn_norm", b)
        if packed:
            m[at + "mlp.fc1.weight"] = np.vstack([m.draw(role, F, D, block=b) for role in ("gate", "up")])
            m[at + "mlp.fc1.bias"] = np.hstack([m.draw(role, F, block=b) for role in ("gate_bias", "up_bias")])
        else:
            linear(m, at + "mlp.fc1", "up", F, D, b)
        linear(m, at + "mlp.fc2", "down", D, F, b)
        m.put(at + "ls2.gamma", "ffn_scale", D, block=b)
    layer_norm(m, "norm", "final_norm")
    linear(m, "head", "classifier", 10, D)
    return m.done()


def _clip_blocks(m: Maker, root: str, stack: str) -> None:
    for b in range(BLOCKS):
        at = f"{root}.encoder.layers.{b}."
        for role, name in zip("kvqo", ("k_proj", "v_proj", "q_proj", "out_proj"), strict=True):
            linear(m, f"{at}self_attn.{name}", role, D, D, b, stack)
        layer_norm(m, at + "layer_norm1", "attn_norm", b, stack=stack)
        linear(m, at + "mlp.fc1", "up", F, D, b, stack)
        linear(m, at + "mlp.fc2", "down", D, F, b, stack)
        layer_norm(m, at + "layer_norm2", "ffn_norm", b, stack=stack)


def clip() -> Miniature:
    m = Maker("clip", {"model_type": "clip", "text_config": VIT, "vision_config": VIT}, stack="text")
    m.put("logit_scale", "logit_scale")
    m.fixed("text_model.embeddings.position_ids", 1, POSITIONS)
    m.put("text_model.embeddings.token_embedding.weight", "embedding", V, D)
    m.put("text_model.embeddings.position_embedding.weight", "position", POSITIONS, D)
    _clip_blocks(m, "text_model", "text")
    layer_norm(m, "text_model.final_layer_norm", "final_norm")
    m.put("text_projection.weight", "projector", 12, D)
    m.put("vision_model.embeddings.class_embedding", "class_token", D, stack="vision")
    m.fixed("vision_model.embeddings.position_ids", 1, POSITIONS)
    patches(m, "vision_model.embeddings.patch_embedding", bias=False, stack="vision")
    m.put("vision_model.embeddings.position_embedding.weight", "position", POSITIONS + 1, D, stack="vision")
    layer_norm(m, "vision_model.pre_layrnorm", "pre_norm", stack="vision")
    _clip_blocks(m, "vision_model", "vision")
    layer_norm(m, "vision_model.post_layernorm", "final_norm", stack="vision")
    m.put("visual_projection.weight", "projector", 12, D, stack="vision")
    return m.done()


def siglip() -> Miniature:
    """Pools with one attention layer over a learned probe."""
    m = Maker("clip", {"model_type": "siglip", "text_config": VIT, "vision_config": VIT}, stack="text", label="siglip")
    m.put("logit_scale", "logit_scale", 1)
    m.put("logit_bias", "logit_scale_bias", 1)
    m.put("text_model.embeddings.token_embedding.weight", "embedding", V, D)
    m.put("text_model.embeddings.position_embedding.weight", "position", POSITIONS, D)
    _clip_blocks(m, "text_model", "text")
    layer_norm(m, "text_model.final_layer_norm", "final_norm")
    linear(m, "text_model.head", "projector", D, D)
    patches(m, "vision_model.embeddings.patch_embedding", stack="vision")
    m.put("vision_model.embeddings.position_embedding.weight", "position", POSITIONS, D, stack="vision")
    _clip_blocks(m, "vision_model", "vision")
    layer_norm(m, "vision_model.post_layernorm", "final_norm", stack="vision")
    at = "vision_model.head."
    m.put(at + "probe", "pooler", 1, 1, D, stack="vision")
    fused(m, at + "attention.in_proj_weight", at + "attention.in_proj_bias", None, "vision")
    linear(m, at + "attention.out_proj", "o", D, D, stack="vision")
    layer_norm(m, at + "layernorm", "ffn_norm", stack="vision")
    linear(m, at + "mlp.fc1", "up", F, D, stack="vision")
    linear(m, at + "mlp.fc2", "down", D, F, stack="vision")
    return m.done()


def clip_openai() -> Miniature:
    """Projections stored (in x out); the vision tower wider than the text's."""
    wide = 36
    m = Maker("clip_openai", {}, stack="text")
    m.put("positional_embedding", "position", POSITIONS, D)
    m.put("text_projection", "projector", 12, D, transposed=True)
    m.put("logit_scale", "logit_scale")
    m.put("visual.class_embedding", "class_token", wide, stack="vision")
    m.put("visual.positional_embedding", "position", POSITIONS + 1, wide, stack="vision")
    m.put("visual.proj", "projector", 12, wide, stack="vision", transposed=True)
    m.put("visual.conv1.weight", "patch", wide, 3, PATCH, PATCH, stack="vision")
    layer_norm(m, "visual.ln_pre", "pre_norm", stack="vision", n=wide)
    for stack, root, d in (("vision", "visual.transformer", wide), ("text", "transformer", D)):
        for b in range(BLOCKS):
            at = f"{root}.resblocks.{b}."
            fused(m, at + "attn.in_proj_weight", at + "attn.in_proj_bias", b, stack, d)
            linear(m, at + "attn.out_proj", "o", d, d, b, stack)
            layer_norm(m, at + "ln_1", "attn_norm", b, d, stack)
            linear(m, at + "mlp.c_fc", "up", 4 * d, d, b, stack)
            linear(m, at + "mlp.c_proj", "down", d, 4 * d, b, stack)
            layer_norm(m, at + "ln_2", "ffn_norm", b, d, stack)
    layer_norm(m, "visual.ln_post", "final_norm", stack="vision", n=wide)
    m.put("token_embedding.weight", "embedding", V, D)
    layer_norm(m, "ln_final", "final_norm")
    return m.done()


def _llama(
    m: Maker, root: str, head: str, d: int = 20, heads: int = 5, kv_heads: int = 1, *, bias: bool = False
) -> None:
    """A language model in the canonical names, for composition."""
    size = d // heads
    m.put(f"{root}embed_tokens.weight", "embedding", V, d)
    for b in range(BLOCKS):
        at = f"{root}layers.{b}."
        m.put(at + "input_layernorm.weight", "attn_norm", d, block=b)
        for role, rows in (("q", d), ("k", kv_heads * size), ("v", kv_heads * size)):
            m.put(f"{at}self_attn.{role}_proj.weight", role, rows, d, block=b)
            if bias:
                m.put(f"{at}self_attn.{role}_proj.bias", role + "_bias", rows, block=b)
        m.put(f"{at}self_attn.o_proj.weight", "o", d, d, block=b)
        m.put(at + "post_attention_layernorm.weight", "ffn_norm", d, block=b)
        for role, rows, columns in (("gate", 28, d), ("up", 28, d), ("down", d, 28)):
            m.put(f"{at}mlp.{role}_proj.weight", role, rows, columns, block=b)
    m.put(f"{root}norm.weight", "final_norm", d)
    m.put(head, "head", V, d)


def llava() -> Miniature:
    """CLIP's vision tower, two linears, Llama."""
    text = {"model_type": "llama", "hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1}
    config = {"model_type": "llava", "text_config": text, "vision_config": {"model_type": "clip_vision_model", **VIT}}
    m = Maker("clip", config, families={"vision": "clip", "decoder": "llama"}, label="llava")
    at = "vision_tower.vision_model."
    m.put(at + "embeddings.class_embedding", "class_token", D, stack="vision")
    patches(m, at + "embeddings.patch_embedding", bias=False, stack="vision")
    m.put(at + "embeddings.position_embedding.weight", "position", POSITIONS + 1, D, stack="vision")
    layer_norm(m, at + "pre_layrnorm", "pre_norm", stack="vision")
    _clip_blocks(m, "vision_tower.vision_model", "vision")
    layer_norm(m, at + "post_layernorm", "final_norm", stack="vision")
    linear(m, "multi_modal_projector.linear_1", "projector", 20, D, stack="vision")
    linear(m, "multi_modal_projector.linear_2", "projector_out", 20, 20, stack="vision")
    _llama(m, "language_model.model.", "language_model.lm_head.weight")
    return m.done()


def _qwen_block(m: Maker, at: str, b: int, *, gated: bool) -> None:
    """Qwen2-VL: layer norms and a plain FFN. Qwen2.5-VL: RMS norms and a gated one with biases."""
    for name, role in (("norm1", "attn_norm"), ("norm2", "ffn_norm")):
        if gated:
            m.put(f"{at}{name}.weight", role, D, block=b, stack="vision")
        else:
            layer_norm(m, at + name, role, b, stack="vision")
    fused(m, at + "attn.qkv.weight", at + "attn.qkv.bias", b, "vision")
    linear(m, at + "attn.proj", "o", D, D, b, "vision")
    if gated:
        linear(m, at + "mlp.gate_proj", "gate", F, D, b, "vision")
        linear(m, at + "mlp.up_proj", "up", F, D, b, "vision")
        linear(m, at + "mlp.down_proj", "down", D, F, b, "vision")
    else:
        linear(m, at + "mlp.fc1", "up", F, D, b, "vision")
        linear(m, at + "mlp.fc2", "down", D, F, b, "vision")


def qwen_vl(gated: bool) -> Callable[[], Miniature]:
    def make() -> Miniature:
        kind = "qwen2_5_vl" if gated else "qwen2_vl"
        text = {"hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1, "num_hidden_layers": BLOCKS}
        vision = {"depth": BLOCKS, "num_heads": HEADS, ("hidden_size" if gated else "embed_dim"): D}
        config = {"model_type": kind, **text, "vision_config": vision}
        m = Maker("llama", config, families={"vision": "qwen2_vl_vision", "decoder": "llama"}, label=kind)
        m.put("visual.patch_embed.proj.weight", "patch", D, 3, 2, PATCH, PATCH, stack="vision")
        for b in range(BLOCKS):
            _qwen_block(m, f"visual.blocks.{b}.", b, gated=gated)
        if gated:
            m.put("visual.merger.ln_q.weight", "projector_norm", D, stack="vision")
        else:
            layer_norm(m, "visual.merger.ln_q", "projector_norm", stack="vision")
        linear(m, "visual.merger.mlp.0", "projector", 4 * D, 4 * D, stack="vision")
        linear(m, "visual.merger.mlp.2", "projector_out", 20, 4 * D, stack="vision")
        _llama(m, "model.", "lm_head.weight", bias=True)
        return m.done()

    return make


def gemma3_tower() -> Miniature:
    """SigLIP without its pooler, a projection stored (in x out); the language model is a row of its own."""
    config = {"model_type": "gemma3", "vision_config": {"model_type": "siglip_vision_model", **VIT}}
    m = Maker("clip", config, stack="vision", label="gemma3-vision")
    at = "vision_tower.vision_model."
    patches(m, at + "embeddings.patch_embedding")
    m.put(at + "embeddings.position_embedding.weight", "position", POSITIONS, D)
    _clip_blocks(m, "vision_tower.vision_model", "vision")
    layer_norm(m, at + "post_layernorm", "final_norm")
    m.put("multi_modal_projector.mm_input_projection_weight", "projector", 20, D, transposed=True)
    m.put("multi_modal_projector.mm_soft_emb_norm.weight", "projector_norm", D)
    return m.done()


def internvl() -> Miniature:
    vision = {**VIT, "model_type": "intern_vit_6b"}
    text = {"model_type": "llama", "hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1}
    families = {"vision": "internvl_vision", "decoder": "llama"}
    config = {"model_type": "internvl_chat", "vision_config": vision, "llm_config": text}
    m = Maker("llama", config, families=families, label="internvl")
    at = "vision_model."
    m.put(at + "embeddings.class_embedding", "class_token", 1, 1, D, stack="vision")
    m.put(at + "embeddings.position_embedding", "position", 1, POSITIONS + 1, D, stack="vision")
    patches(m, at + "embeddings.patch_embedding", stack="vision")
    for b in range(BLOCKS):
        block = f"{at}encoder.layers.{b}."
        fused(m, block + "attn.qkv.weight", block + "attn.qkv.bias", b, "vision")
        linear(m, block + "attn.proj", "o", D, D, b, "vision")
        m.put(block + "ls1", "attn_scale", D, block=b, stack="vision")
        m.put(block + "ls2", "ffn_scale", D, block=b, stack="vision")
        linear(m, block + "mlp.fc1", "up", F, D, b, "vision")
        linear(m, block + "mlp.fc2", "down", D, F, b, "vision")
        layer_norm(m, block + "norm1", "attn_norm", b, stack="vision")
        layer_norm(m, block + "norm2", "ffn_norm", b, stack="vision")
    layer_norm(m, "mlp1.0", "projector_norm", stack="vision", n=4 * D)
    linear(m, "mlp1.1", "projector", 20, 4 * D, stack="vision")
    linear(m, "mlp1.3", "projector_out", 20, 20, stack="vision")
    _llama(m, "language_model.model.", "language_model.lm_head.weight")
    return m.done()


def pixtral() -> Miniature:
    """Mistral 3: Pixtral's tower, patches merged two by two, Llama."""
    text = {"model_type": "mistral", "hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1}
    vision = {**VIT, "model_type": "pixtral"}
    config = {"model_type": "mistral3", "text_config": text, "vision_config": vision}
    m = Maker("llama", config, families={"vision": "pixtral_vision", "decoder": "llama"}, label="mistral3")
    at = "vision_tower."
    patches(m, at + "patch_conv", bias=False, stack="vision")
    m.put(at + "ln_pre.weight", "pre_norm", D, stack="vision")
    for b in range(BLOCKS):
        block = f"{at}transformer.layers.{b}."
        m.put(block + "attention_norm.weight", "attn_norm", D, block=b, stack="vision")
        m.put(block + "ffn_norm.weight", "ffn_norm", D, block=b, stack="vision")
        for role in "qkvo":
            m.put(f"{block}attention.{role}_proj.weight", role, D, D, block=b, stack="vision")
        for role, rows, columns in (("gate", F, D), ("up", F, D), ("down", D, F)):
            m.put(f"{block}feed_forward.{role}_proj.weight", role, rows, columns, block=b, stack="vision")
    m.put("multi_modal_projector.norm.weight", "projector_norm", D, stack="vision")
    m.put("multi_modal_projector.patch_merger.merging_layer.weight", "patch_merger", D, 4 * D, stack="vision")
    m.put("multi_modal_projector.linear_1.weight", "projector", 20, D, stack="vision")
    m.put("multi_modal_projector.linear_2.weight", "projector_out", 20, 20, stack="vision")
    _llama(m, "language_model.model.", "language_model.lm_head.weight")
    return m.done()


def llava_original() -> Miniature:
    """The first LLaVA: Llama's names and the projection, the tower left in its own repository."""
    text = {"hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1, "num_hidden_layers": BLOCKS}
    families = {"decoder": "llama", "vision": "projector"}
    m = Maker("llama", {"model_type": "llava_llama", **text}, families=families, label="llava-original")
    _llama(m, "model.", "lm_head.weight")
    linear(m, "model.mm_projector.0", "projector", 20, D, stack="vision")
    linear(m, "model.mm_projector.2", "projector_out", 20, 20, stack="vision")
    return m.done()


def qwen3_vl() -> Miniature:
    """Merges after three of its blocks, too: a stack of its own."""
    text = {"hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1, "num_hidden_layers": BLOCKS}
    config = {"model_type": "qwen3_vl", "text_config": text, "vision_config": {"depth": BLOCKS, "hidden_size": D}}
    families = {"vision": "qwen2_vl_vision", "deepstack": "qwen2_vl_vision", "decoder": "llama"}
    m = Maker("llama", config, families=families, label="qwen3_vl")
    at = "model.visual."
    m.put(at + "patch_embed.proj.weight", "patch", D, 3, 2, PATCH, PATCH, stack="vision")
    m.put(at + "patch_embed.proj.bias", "patch_bias", D, stack="vision")
    m.put(at + "pos_embed.weight", "position", POSITIONS, D, stack="vision")
    for b in range(BLOCKS):
        block = f"{at}blocks.{b}."
        layer_norm(m, block + "norm1", "attn_norm", b, stack="vision")
        layer_norm(m, block + "norm2", "ffn_norm", b, stack="vision")
        fused(m, block + "attn.qkv.weight", block + "attn.qkv.bias", b, "vision")
        linear(m, block + "attn.proj", "o", D, D, b, "vision")
        linear(m, block + "mlp.linear_fc1", "up", F, D, b, "vision")
        linear(m, block + "mlp.linear_fc2", "down", D, F, b, "vision")
    for stack, name, b in (("vision", "merger", None), ("deepstack", "deepstack_merger_list.0", 0)):
        layer_norm(m, f"{at}{name}.norm", "projector_norm", b, D if b is None else 4 * D, stack)
        linear(m, f"{at}{name}.linear_fc1", "projector", 4 * D, 4 * D, b, stack)
        linear(m, f"{at}{name}.linear_fc2", "projector_out", 20, 4 * D, b, stack)
    _llama(m, "model.language_model.", "lm_head.weight")
    return m.done()


def wav2vec2() -> Miniature:
    """Convolutions over the samples, a weight-normalised position convolution, BERT-like blocks."""
    return _speech("wav2vec2", "wav2vec2", {"attn": "attn_post_norm", "ffn": "ffn_post_norm", "encoder": "pre_norm"})


def hubert_large() -> Miniature:
    """Norms in front, biases in the convolutions, and the position convolution in PyTorch's newer names."""
    return _speech("wav2vec2_stable", "hubert", {"attn": "attn_norm", "ffn": "ffn_norm", "encoder": "final_norm"})


def _speech(family: str, root: str, norms: dict[str, str]) -> Miniature:
    channels, stable = 10, family == "wav2vec2_stable"
    config = {"model_type": root, **VIT, "conv_dim": [channels] * 3, "do_stable_layer_norm": stable}
    m = Maker(family, config, stack="encoder")
    for b in range(3):
        at = f"{root}.feature_extractor.conv_layers.{b}."
        m.put(at + "conv.weight", "conv1", channels, channels if b else 1, 3, block=b, stack="audio")
        if stable:
            m.put(at + "conv.bias", "conv1_bias", channels, block=b, stack="audio")
        if stable or b == 0:
            layer_norm(m, at + "layer_norm", "conv1_norm", b, channels, "audio")
    layer_norm(m, f"{root}.feature_projection.layer_norm", "projector_norm", n=channels)
    linear(m, f"{root}.feature_projection.projection", "projector", D, channels)
    m.put(f"{root}.masked_spec_embed", "mask_token", D)
    m.put(f"{root}.encoder.pos_conv_embed.conv.bias", "position_bias", D)
    gain, direction = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    if not stable:
        gain, direction = "weight_g", "weight_v"
    m.put(f"{root}.encoder.pos_conv_embed.conv.{gain}", "position_gain", 1, 1, 8)
    m.put(f"{root}.encoder.pos_conv_embed.conv.{direction}", "position", D, 3, 8)
    layer_norm(m, f"{root}.encoder.layer_norm", norms["encoder"])
    for b in range(BLOCKS):
        at = f"{root}.encoder.layers.{b}."
        for role, name in zip("kvqo", ("k_proj", "v_proj", "q_proj", "out_proj"), strict=True):
            linear(m, f"{at}attention.{name}", role, D, D, b)
        layer_norm(m, at + "layer_norm", norms["attn"], b)
        linear(m, at + "feed_forward.intermediate_dense", "up", F, D, b)
        linear(m, at + "feed_forward.output_dense", "down", D, F, b)
        layer_norm(m, at + "final_layer_norm", norms["ffn"], b)
    linear(m, "lm_head", "head", V, D)
    return m.done()


MINIATURES = [
    vit,
    dinov2(swiglu=False),
    dinov2(swiglu=True),
    vit_timm,
    vit_timm_packed,
    clip,
    siglip,
    clip_openai,
    llava,
    qwen_vl(gated=False),
    qwen_vl(gated=True),
    gemma3_tower,
    internvl,
    pixtral,
    llava_original,
    qwen3_vl,
    wav2vec2,
    hubert_large,
]
