"""Vision and audio towers, and the projections that join them to a language model.

A multimodal checkpoint is a tower's row, a language model's row and a projection between them: the projection's names
stand in every vision row, since any tower may feed any of them. OpenAI's CLIP multiplies by its two projections from
the right, so they are stored (in x out), as is Gemma 3's. timm's layer scale is a vector per sublayer. SigLIP pools
with one attention layer over a learned probe, which has no block of its own.

Sources: the modeling files of Hugging Face transformers for vit, deit, dinov2, clip, siglip, llava, qwen2_vl,
qwen2_5_vl, qwen3_vl, gemma3, pixtral, mistral3, wav2vec2, hubert; InternVL's modeling_intern_vit; timm's
vision_transformer; OpenAI's CLIP; Meta's dinov2.
"""

from __future__ import annotations

from weightprint.anatomy.family import Family, Part, Stack, row, single, stack, table, under

#: Between a tower and a language model.
_PROJECTOR = table(
    "multi_modal_projector.{linear_1,linear_2,linear}={projector,projector_out,projector} "
    "multi_modal_projector.mm_input_projection_weight=projector.T "
    "multi_modal_projector.mm_soft_emb_norm=projector_norm "
    "{mm_projector,mm_projector.0,mm_projector.2}={projector,projector,projector_out} image_newline=image_newline"
)
_HF_BLOCK = table("attention.attention.{query,key,value}={q,k,v} attention.output.dense=o")
_HF_OUTSIDE = table(
    under(
        "embeddings.",
        "{cls,mask,distillation}_token={class,mask,distillation}_token register_tokens=register_tokens "
        "position_embeddings=position patch_embeddings.projection=patch",
    ),
    "layernorm=final_norm pooler.dense=pooler classifier=classifier",
    _PROJECTOR,
)
_TIMM_BLOCK = table(
    "norm{1,2}={attn,ffn}_norm attn.qkv=q|k|v attn.{q,k}_norm={q,k}_norm attn.proj=o mlp.{fc1,fc2}={up,down}"
)
_TIMM_SCALED = table(_TIMM_BLOCK, "ls{1,2}={attn,ffn}_scale")
_TIMM_OUTSIDE = table(
    "{cls,mask,dist}_token={class,mask,distillation}_token {reg_token,register_tokens}=register_tokens "
    "pos_embed=position patch_embed.proj=patch norm_pre=pre_norm norm=final_norm fc_norm=head_norm head=classifier"
)
_CLIP_BLOCK = table("self_attn.{q,k,v,out}_proj={q,k,v,o} layer_norm{1,2}={attn,ffn}_norm mlp.{fc1,fc2}={up,down}")
_CLIP_SCALES = table("logit_{scale,bias}={logit_scale,logit_scale_bias}")
_CLIP_TEXT = table(
    "text_model.embeddings.{token,position}_embedding={embedding,position} "
    "text_model.{final_layer_norm,head}={final_norm,projector} text_projection=projector",
    _CLIP_SCALES,
)
_CLIP_EMBEDDINGS = table("vision_model.embeddings.{class,patch,position}_embedding={class_token,patch,position}")
_CLIP_VISION = table(
    _CLIP_EMBEDDINGS,
    "vision_model.{pre_layrnorm,post_layernorm}={pre,final}_norm visual_projection=projector",
    _PROJECTOR,
)
_SIGLIP_POOLER = under(
    "vision_model.head.",
    "probe=pooler attention.in_proj_weight=q|k|v attention.in_proj_bias=q_bias|k_bias|v_bias attention.out_proj=o "
    "layernorm=ffn_norm mlp.{fc1,fc2}={up,down}",
)
_OPENAI_BLOCK = table(
    "ln_{1,2}={attn,ffn}_norm attn.in_proj_weight=q|k|v attn.in_proj_bias=q_bias|k_bias|v_bias attn.out_proj=o "
    "mlp.{c_fc,c_proj}={up,down} ls_{1,2}={attn,ffn}_scale"
)
_QWEN_VISUAL = table(
    "visual.patch_embed.proj=patch visual.pos_embed=position visual.merger.{ln_q,norm}=projector_norm "
    "visual.merger.{mlp.0,mlp.2,linear_fc1,linear_fc2}={projector,projector_out,projector,projector_out}"
)
_SPEECH_OUTSIDE = table(
    "feature_projection.{layer_norm,projection}={projector_norm,projector} "
    "encoder.pos_conv_embed.conv.{weight_g,weight_v}={position_gain,position} "
    "encoder.pos_conv_embed.conv.parametrizations.weight.{original0,original1}={position_gain,position} "
    "encoder.pos_conv_embed.conv=position masked_spec_embed=mask_token lm_head=head "
    "{projector,classifier}={classifier_dense,classifier} quantizer.{codevectors,weight_proj}={codebook,codebook_in} "
    "{project_q,project_hid}={codebook_out,head_dense}"
)


def _speech(norms: str, last_norm: str, convolutions: Part) -> tuple[Stack, Stack]:
    """wav2vec2's two stacks, with norms in front or behind."""
    return (
        stack(
            "encoder",
            "encoder.layers.{b}.",
            "attention.{q,k,v,out}_proj={q,k,v,o} feed_forward.{intermediate,output}_dense={up,down}",
            f"{{layer_norm,final_layer_norm}}={norms}",
            outside=table(_SPEECH_OUTSIDE, f"encoder.layer_norm={last_norm}"),
        ),
        stack("audio", "feature_extractor.conv_layers.{b}.", convolutions, "layer_norm=conv1_norm"),
    )


FAMILIES: tuple[Family, ...] = (
    single(
        "vit",
        "vision",
        "encoder.layer.{b}.",
        "layernorm_{before,after}={attn,ffn}_norm",
        _HF_BLOCK,
        "{intermediate,output}.dense={up,down}",
        outside=_HF_OUTSIDE,
        types="vit deit vit_mae vit_msn ijepa",
    ),
    single(
        "dinov2",
        "vision",
        "encoder.layer.{b}.",
        "norm{1,2}={attn,ffn}_norm",
        _HF_BLOCK,
        "layer_scale{1,2}.lambda1={attn,ffn}_scale mlp.{fc1,fc2}={up,down} mlp.weights_{in,out}={gate|up,down}",
        outside=_HF_OUTSIDE,
        types="dinov2 dinov2_with_registers",
    ),
    single(
        "vit_timm",
        "vision",
        "blocks.{b}.",
        _TIMM_SCALED,
        "mlp.{w12,w3}={gate|up,down}",
        outside=_TIMM_OUTSIDE,
        types="",
    ),
    single(
        "vit_timm_packed",  # DINOv2's giant model: SwiGLU with both halves in fc1
        "vision",
        "blocks.{b}.",
        _TIMM_SCALED,
        "mlp.fc1=gate|up",
        outside=_TIMM_OUTSIDE,
        types="",
    ),
    row(
        "clip",
        stack("text", "text_model.encoder.layers.{b}.", _CLIP_BLOCK, outside=_CLIP_TEXT),
        stack("vision", "vision_model.encoder.layers.{b}.", _CLIP_BLOCK, outside=table(_CLIP_VISION, _SIGLIP_POOLER)),
        types="clip clip_text_model clip_vision_model siglip siglip_vision_model siglip2 llava gemma3",
        fixed="*embeddings.position_ids",
    ),
    single(
        "internvl_vision",
        "vision",
        "vision_model.encoder.layers.{b}.",
        _TIMM_SCALED,
        outside=table(_CLIP_EMBEDDINGS, "mlp1.{0,1,3}={projector_norm,projector,projector_out}"),
        types="internvl_chat intern_vit_6b",
    ),
    single(
        "pixtral_vision",
        "vision",
        "transformer.layers.{b}.",
        "{attention,ffn}_norm={attn,ffn}_norm attention.{q,k,v,o}_proj={q,k,v,o} "
        "feed_forward.{gate,up,down}_proj={gate,up,down}",
        outside=table(
            "patch_conv=patch ln_pre=pre_norm "
            "multi_modal_projector.{norm,patch_merger.merging_layer}={projector_norm,patch_merger}",
            _PROJECTOR,
        ),
        types="pixtral mistral3",
    ),
    row(
        "clip_openai",
        stack(
            "text",
            "transformer.resblocks.{b}.",
            _OPENAI_BLOCK,
            outside=table(
                "{token_embedding,positional_embedding,ln_final,text_projection}={embedding,position,final_norm,projector.T}",
                _CLIP_SCALES,
            ),
        ),
        stack(
            "vision",
            "visual.transformer.resblocks.{b}.",
            _OPENAI_BLOCK,
            outside="visual.{class_embedding,positional_embedding,conv1,ln_pre,ln_post,proj}="
            "{class_token,position,patch,pre_norm,final_norm,projector.T}",
        ),
        types="",
        fixed="*attn_mask input_resolution context_length vocab_size",
    ),
    row(
        "qwen2_vl_vision",
        stack(
            "vision",
            "visual.blocks.{b}.",
            _TIMM_BLOCK,
            "mlp.{gate,up,down}_proj={gate,up,down} mlp.linear_{fc1,fc2}={up,down}",
            outside=_QWEN_VISUAL,
        ),
        stack(
            "deepstack",
            "visual.deepstack_merger_list.{b}.",
            "norm=projector_norm linear_{fc1,fc2}={projector,projector_out}",
        ),
        types="qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe",
    ),
    row(
        "wav2vec2",
        *_speech("{attn,ffn}_post_norm", "pre_norm", "conv.weight=conv1"),
        types="wav2vec2 hubert",
        pre_norm=False,
    ),
    # The large ones: norms in front, and biases in the convolutions, which tell them apart.
    row("wav2vec2_stable", *_speech("{attn,ffn}_norm", "final_norm", "conv=conv1"), types=""),
    # LLaVA's own names, without the tower that the projection reads.
    single("projector", "vision", "", outside=_PROJECTOR, types=""),
)
