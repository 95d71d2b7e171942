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

from weightprint.anatomy.family import Family, Stack, Table, single, stacked, table, transposed

__all__ = ["FAMILIES"]

#: Between a tower and a language model.
_PROJECTOR: Table = table(
    "multi_modal_projector.linear_1=projector multi_modal_projector.linear_2=projector_out "
    "multi_modal_projector.linear=projector",
    {"multi_modal_projector.mm_input_projection_weight": transposed("projector")},
    "multi_modal_projector.mm_soft_emb_norm=projector_norm mm_projector=projector mm_projector.0=projector "
    "mm_projector.2=projector_out image_newline=image_newline",
)
_PRE_VIT = table("layernorm_before=attn_norm layernorm_after=ffn_norm")
_QUERY = table(
    "attention.attention.query=q attention.attention.key=k attention.attention.value=v attention.output.dense=o"
)
_HF_PATCHES = table(
    "embeddings.cls_token=class_token embeddings.mask_token=mask_token embeddings.register_tokens=register_tokens "
    "embeddings.distillation_token=distillation_token embeddings.position_embeddings=position "
    "embeddings.patch_embeddings.projection=patch layernorm=final_norm pooler.dense=pooler classifier=classifier"
)
_TIMM_BLOCK = table(
    "norm1=attn_norm attn.qkv=q|k|v attn.q_norm=q_norm attn.k_norm=k_norm attn.proj=o norm2=ffn_norm mlp.fc1=up "
    "mlp.fc2=down"
)
_TIMM_OUTSIDE = table(
    "cls_token=class_token mask_token=mask_token reg_token=register_tokens register_tokens=register_tokens "
    "dist_token=distillation_token pos_embed=position patch_embed.proj=patch norm_pre=pre_norm norm=final_norm "
    "fc_norm=head_norm head=classifier"
)
_CLIP_BLOCK = table(
    "self_attn.q_proj=q self_attn.k_proj=k self_attn.v_proj=v self_attn.out_proj=o layer_norm1=attn_norm "
    "layer_norm2=ffn_norm mlp.fc1=up mlp.fc2=down"
)
_CLIP_TEXT = table(
    "text_model.embeddings.token_embedding=embedding text_model.embeddings.position_embedding=position "
    "text_model.final_layer_norm=final_norm text_model.head=projector text_projection=projector "
    "logit_scale=logit_scale logit_bias=logit_scale_bias"
)
_CLIP_VISION: Table = table(
    "vision_model.embeddings.class_embedding=class_token vision_model.embeddings.patch_embedding=patch "
    "vision_model.embeddings.position_embedding=position vision_model.pre_layrnorm=pre_norm "
    "vision_model.post_layernorm=final_norm visual_projection=projector",
    _PROJECTOR,
)
_SIGLIP_POOLER = table(
    "vision_model.head.probe=pooler vision_model.head.attention.in_proj_weight=q|k|v "
    "vision_model.head.attention.in_proj_bias=q_bias|k_bias|v_bias vision_model.head.attention.out_proj=o "
    "vision_model.head.layernorm=ffn_norm vision_model.head.mlp.fc1=up vision_model.head.mlp.fc2=down"
)
_OPENAI_BLOCK = table(
    "ln_1=attn_norm attn.in_proj_weight=q|k|v attn.in_proj_bias=q_bias|k_bias|v_bias attn.out_proj=o ln_2=ffn_norm "
    "mlp.c_fc=up mlp.c_proj=down ls_1=attn_scale ls_2=ffn_scale"
)
_QWEN_MERGER = table(
    "visual.patch_embed.proj=patch visual.pos_embed=position visual.merger.ln_q=projector_norm "
    "visual.merger.norm=projector_norm visual.merger.mlp.0=projector visual.merger.mlp.2=projector_out "
    "visual.merger.linear_fc1=projector visual.merger.linear_fc2=projector_out"
)
_IDS = ("*embeddings.position_ids",)
_SPEECH_BLOCK = table(
    "attention.q_proj=q attention.k_proj=k attention.v_proj=v attention.out_proj=o feed_forward.intermediate_dense=up "
    "feed_forward.output_dense=down"
)
_SPEECH_OUTSIDE = table(
    "feature_projection.layer_norm=projector_norm feature_projection.projection=projector "
    "encoder.pos_conv_embed.conv.weight_g=position_gain encoder.pos_conv_embed.conv.weight_v=position "
    "encoder.pos_conv_embed.conv.parametrizations.weight.original0=position_gain "
    "encoder.pos_conv_embed.conv.parametrizations.weight.original1=position encoder.pos_conv_embed.conv=position "
    "masked_spec_embed=mask_token lm_head=head projector=classifier_dense classifier=classifier "
    "quantizer.codevectors=codebook quantizer.weight_proj=codebook_in project_q=codebook_out project_hid=head_dense"
)
_SPEECH_CONVS = "feature_extractor.conv_layers.{b}."

FAMILIES: tuple[Family, ...] = (
    single(
        "vit",
        "vision",
        "encoder.layer.{b}.",
        {**_PRE_VIT, **_QUERY, "intermediate.dense": "up", "output.dense": "down"},
        {**_HF_PATCHES, **_PROJECTOR},
        ("vit", "deit", "vit_mae", "vit_msn", "ijepa"),
    ),
    single(
        "dinov2",
        "vision",
        "encoder.layer.{b}.",
        table(
            {"norm1": "attn_norm"},
            _QUERY,
            "layer_scale1.lambda1=attn_scale norm2=ffn_norm mlp.fc1=up mlp.fc2=down mlp.weights_in=gate|up "
            "mlp.weights_out=down layer_scale2.lambda1=ffn_scale",
        ),
        {**_HF_PATCHES, **_PROJECTOR},
        ("dinov2", "dinov2_with_registers"),
    ),
    single(
        "vit_timm",
        "vision",
        "blocks.{b}.",
        table(_TIMM_BLOCK, "ls1=attn_scale ls2=ffn_scale mlp.w12=gate|up mlp.w3=down"),
        _TIMM_OUTSIDE,
    ),
    single(
        "vit_timm_packed",  # DINOv2's giant model: SwiGLU with both halves in fc1
        "vision",
        "blocks.{b}.",
        {**_TIMM_BLOCK, "mlp.fc1": stacked("gate", "up"), "ls1": "attn_scale", "ls2": "ffn_scale"},
        _TIMM_OUTSIDE,
    ),
    Family(
        "clip",
        (
            Stack("text", "text_model.encoder.layers.{b}.", _CLIP_BLOCK, _CLIP_TEXT),
            Stack("vision", "vision_model.encoder.layers.{b}.", _CLIP_BLOCK, {**_CLIP_VISION, **_SIGLIP_POOLER}),
        ),
        ("clip", "clip_text_model", "clip_vision_model", "siglip", "siglip_vision_model", "siglip2", "llava", "gemma3"),
        fixed=_IDS,
    ),
    single(
        "internvl_vision",
        "vision",
        "vision_model.encoder.layers.{b}.",
        {**_TIMM_BLOCK, "ls1": "attn_scale", "ls2": "ffn_scale"},
        table(
            "vision_model.embeddings.class_embedding=class_token vision_model.embeddings.patch_embedding=patch "
            "vision_model.embeddings.position_embedding=position mlp1.0=projector_norm mlp1.1=projector "
            "mlp1.3=projector_out"
        ),
        ("internvl_chat", "intern_vit_6b"),
    ),
    single(
        "pixtral_vision",
        "vision",
        "transformer.layers.{b}.",
        table(
            "attention_norm=attn_norm attention.q_proj=q attention.k_proj=k attention.v_proj=v "
            "attention.o_proj=o ffn_norm=ffn_norm feed_forward.gate_proj=gate feed_forward.up_proj=up "
            "feed_forward.down_proj=down"
        ),
        table(
            "patch_conv=patch ln_pre=pre_norm multi_modal_projector.norm=projector_norm "
            "multi_modal_projector.patch_merger.merging_layer=patch_merger",
            _PROJECTOR,
        ),
        ("pixtral", "mistral3"),
    ),
    Family(
        "clip_openai",
        (
            Stack(
                "text",
                "transformer.resblocks.{b}.",
                _OPENAI_BLOCK,
                table(
                    "token_embedding=embedding positional_embedding=position ln_final=final_norm",
                    {"text_projection": transposed("projector")},
                    "logit_scale=logit_scale logit_bias=logit_scale_bias",
                ),
            ),
            Stack(
                "vision",
                "visual.transformer.resblocks.{b}.",
                _OPENAI_BLOCK,
                table(
                    "visual.class_embedding=class_token visual.positional_embedding=position visual.conv1=patch "
                    "visual.ln_pre=pre_norm visual.ln_post=final_norm",
                    {"visual.proj": transposed("projector")},
                ),
            ),
        ),
        fixed=("*attn_mask", "input_resolution", "context_length", "vocab_size"),
    ),
    Family(
        "qwen2_vl_vision",
        (
            Stack(
                "vision",
                "visual.blocks.{b}.",
                table(
                    _TIMM_BLOCK,
                    "mlp.gate_proj=gate mlp.up_proj=up mlp.down_proj=down mlp.linear_fc1=up mlp.linear_fc2=down",
                ),
                _QWEN_MERGER,
            ),
            Stack(
                "deepstack",
                "visual.deepstack_merger_list.{b}.",
                table("norm=projector_norm linear_fc1=projector linear_fc2=projector_out"),
            ),
        ),
        ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"),
    ),
    Family(
        "wav2vec2",
        (
            Stack(
                "encoder",
                "encoder.layers.{b}.",
                {**_SPEECH_BLOCK, "layer_norm": "attn_post_norm", "final_layer_norm": "ffn_post_norm"},
                {**_SPEECH_OUTSIDE, "encoder.layer_norm": "pre_norm"},
            ),
            Stack("audio", _SPEECH_CONVS, table("conv.weight=conv1 layer_norm=conv1_norm")),
        ),
        ("wav2vec2", "hubert"),
        pre_norm=False,
    ),
    Family(
        "wav2vec2_stable",  # the large ones: norms in front, and biases in the convolutions, which tell them apart
        (
            Stack(
                "encoder",
                "encoder.layers.{b}.",
                {**_SPEECH_BLOCK, "layer_norm": "attn_norm", "final_layer_norm": "ffn_norm"},
                {**_SPEECH_OUTSIDE, "encoder.layer_norm": "final_norm"},
            ),
            Stack("audio", _SPEECH_CONVS, table("conv=conv1 layer_norm=conv1_norm")),
        ),
    ),
    single(
        "projector",  # LLaVA's own names, without the tower that the projection reads
        "vision",
        "",
        {},
        _PROJECTOR,
    ),
)
