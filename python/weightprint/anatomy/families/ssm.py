"""State-space models: Mamba, Mamba-2, Falcon-Mamba, and Jamba, which mixes them with attention and experts.

A Mamba block is one norm and one mixer. ``in_proj`` holds x and the gate z (Mamba-2: z, x, B, C and dt as well) and
stays whole: what its rows are depends on sizes that no other family compares with. ``A_log`` and ``D`` are parameters
of the mixer itself, and Mamba-2's step bias stands where Mamba has a projection's. Transformers whose attention was
replaced by mixers (MambaInLlama, arXiv 2408.15237) keep Llama's other names.

Sources: state-spaces/mamba; the modeling files of Hugging Face transformers for mamba, mamba2, falcon_mamba, jamba,
bamba.
"""

from __future__ import annotations

from weightprint.anatomy.families.decoders import ATTENTION, decoder
from weightprint.anatomy.family import Family, table, under

#: The parameters of a Mamba or Mamba-2 mixer.
_MIXER = table(
    "{in_proj,conv1d,x_proj,dt_proj,dt_bias,A_log,D,norm,out_proj}=ssm_{in,conv,x,dt,dt_bias,a,d,inner_norm,out}"
)

FAMILIES: tuple[Family, ...] = (
    decoder(
        "mamba",
        "norm=ssm_norm",
        under("mixer.", _MIXER),
        outside="{embeddings,embedding,norm_f,lm_head}={embedding,embedding,final_norm,head}",
        types="mamba mamba2 falcon_mamba",
    ),
    decoder(
        "jamba",
        "{input,pre_ff,post_attention}_layernorm={attn,ffn,ffn}_norm",
        under("mamba.", _MIXER, "{dt,b,c}_layernorm=ssm_{dt,b,c}_norm"),
        ATTENTION,
        "feed_forward.{gate,up,down}_proj={gate,up,down} feed_forward.router=router "
        "feed_forward.experts.{e}.{gate,up,down}_proj={gate,up,down} mlp.{gate,up,down}_proj={gate,up,down}",
        outside="embed_tokens=embedding {final_layernorm,norm}=final_norm lm_head=head",
        types="jamba bamba",
    ),
)
