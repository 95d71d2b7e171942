"""Miniatures of the Mixture-of-Experts families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from miniature import Array, Maker, Miniature
from miniatures.decoders import BLOCKS, HD, HEADS, KV, LLAMA, N, V, attention, config, gated, mla, outside, qkv

D, E, H, DENSE, SHARED = 20, 3, 14, 36, 26


def norms(m: Maker, at: str, b: int, names: dict[str, str] = LLAMA, d: int = D, **where: Any) -> None:
    for name, role in names.items():
        m.put(f"{at}{name}.weight", role, d, block=b, **where)


def qk_norms(m: Maker, at: str, b: int, names: tuple[str, str] = ("q_norm", "k_norm"), n: int = HD, **w: Any) -> None:
    for name, role in zip(names, ("q_norm", "k_norm"), strict=True):
        m.put(f"{at}{name}.weight", role, n, block=b, **w)


def one_by_one(m: Maker, at: str, b: int, names: tuple[str, str, str], **where: Any) -> None:
    """Every expert's gate, up and down under `names`."""
    for e in range(E):
        for name, role in zip(names, ("gate", "up", "down"), strict=True):
            m.put(f"{at}{e}.{name}.weight", role, *((D, H) if role == "down" else (H, D)), block=b, expert=e, **where)


PROJ = ("gate_proj", "up_proj", "down_proj")


def all_experts(m: Maker, role: str, *shape: int, block: int) -> list[Array]:
    return [m.draw(role, *shape, block=block, expert=e) for e in range(E)]


def fused(m: Maker, at: str, b: int) -> None:
    """(experts x out x in), gate rows before up rows, as transformers 5 writes them."""
    gate, up, down = (
        all_experts(m, role, *((D, H) if role == "down" else (H, D)), block=b) for role in ("gate", "up", "down")
    )
    m[f"{at}gate_up_proj"] = np.stack([np.concatenate(pair) for pair in zip(gate, up, strict=True)])
    m[f"{at}down_proj"] = np.stack(down)


def fused_turned(m: Maker, at: str, b: int) -> None:
    """(experts x in x out), gate columns before up columns: x @ W, then chunk(2)."""
    gate, up, down = (
        all_experts(m, role, *((D, H) if role == "down" else (H, D)), block=b) for role in ("gate", "up", "down")
    )
    m[f"{at}gate_up_proj"] = np.stack([np.concatenate([g.T, u.T], axis=1) for g, u in zip(gate, up, strict=True)])
    m[f"{at}down_proj"] = np.stack([d.T for d in down])


def shared(m: Maker, at: str, b: int, h: int = SHARED, **where: Any) -> None:
    gated(m, at, b, h=h, expert="shared", **where)


def mixtral(style: str) -> Callable[[], Miniature]:
    def make() -> Miniature:
        model_type = "phimoe" if style == "phimoe" else "mixtral"
        label = "" if style == "mixtral" else style
        m = Maker("mixtral", config(model_type, num_local_experts=E, intermediate_size=H), label=label)
        outside(m)
        for b in range(BLOCKS):
            at = f"model.layers.{b}."
            norms(m, at, b)
            attention(m, f"{at}self_attn.", b)
            if style == "mixtral_fused":
                m.put(f"{at}mlp.gate.weight", "router", E, D, block=b)
                fused(m, f"{at}mlp.experts.", b)
            else:
                m.put(f"{at}block_sparse_moe.gate.weight", "router", E, D, block=b)
                one_by_one(m, f"{at}block_sparse_moe.experts.", b, ("w1", "w3", "w2"))
            if style == "phimoe":
                for name, role in LLAMA.items():
                    m.put(f"{at}{name}.bias", f"{role}_bias", D, block=b)
                for role, n in (("q", N), ("k", KV * HD), ("v", KV * HD), ("o", D)):
                    m.put(f"{at}self_attn.{role}_proj.bias", f"{role}_bias", n, block=b)
        if style == "phimoe":
            m.put("model.norm.bias", "final_norm_bias", D)
            m.put("lm_head.bias", "head_bias", V)
        return m.done()

    return make


def qwen_moe(
    family: str, *, experts: str = "one_by_one", model_type: str = "", label: str = ""
) -> Callable[[], Miniature]:
    """Qwen's line and what follows its names; the last block is dense."""

    def make() -> Miniature:
        sizes = {"num_experts": E, "moe_intermediate_size": H, "intermediate_size": DENSE}
        made: dict[str, Any] = config(model_type or family, **sizes)
        prefix = "model."
        if family == "qwen3_vl_moe":
            made = {"model_type": family, "text_config": {**made, "model_type": "qwen3_vl_moe_text"}}
            prefix = "model.language_model."
        m = Maker(family, made, label=label)
        outside(m, prefix)
        for b in range(BLOCKS + 1):
            at = f"{prefix}layers.{b}."
            norms(m, at, b)
            attention(m, f"{at}self_attn.", b)
            if family in ("qwen3_moe", "qwen3_vl_moe"):
                if label == "olmoe":
                    m.put(f"{at}self_attn.q_norm.weight", "q_norm", N, block=b)
                    m.put(f"{at}self_attn.k_norm.weight", "k_norm", KV * HD, block=b)
                else:
                    qk_norms(m, f"{at}self_attn.", b)
            if family in ("qwen2_moe", "pangu_pro_moe"):
                for role, n in (("q", N), ("k", KV * HD), ("v", KV * HD)):
                    m.put(f"{at}self_attn.{role}_proj.bias", f"{role}_bias", n, block=b)
            if b == BLOCKS and label != "olmoe":
                gated(m, f"{at}mlp.", b, h=DENSE)
                continue
            m.put(f"{at}mlp.gate.weight", "router", E, D, block=b)
            {
                "one_by_one": lambda at, b: one_by_one(m, at, b, PROJ),
                "fused": lambda at, b: fused(m, at, b),
                "turned": lambda at, b: fused_turned(m, at, b),
            }[experts](f"{at}mlp.experts.", b)
            if family in ("qwen2_moe", "pangu_pro_moe", "deepseek_moe", "ernie4_5_moe"):
                shared(m, f"{at}mlp.shared_expert{'' if family in ('qwen2_moe', 'pangu_pro_moe') else 's'}.", b)
            if family == "qwen2_moe":
                m.put(f"{at}mlp.shared_expert_gate.weight", "shared_gate", 1, D, block=b)
            if family == "pangu_pro_moe":
                m.put(f"{at}mlp.router_scale", "router_scale", 1, E, block=b)
            if family == "ernie4_5_moe":
                m.put(f"{at}mlp.moe_statics.e_score_correction_bias", "router_correction", 1, E, block=b)
        return m.done()

    return make


SANDWICH = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "attn_post_norm",
    "pre_mlp_layernorm": "ffn_norm",
    "post_mlp_layernorm": "ffn_post_norm",
}


def deepseek(
    family: str, model_type: str, *, q_rank: int | None = 10, experts: str = "one_by_one", label: str = ""
) -> Callable[[], Miniature]:
    """A dense block, a sparse one, and a layer for multi-token prediction under the next number."""

    def make() -> Miniature:
        if family == "glm4_moe":
            sizes: dict[str, Any] = {}
        else:
            sizes = {"head_dim": None, "qk_nope_head_dim": 5, "qk_rope_head_dim": 2, "v_head_dim": 3}
        sizes |= {"n_routed_experts": E, "moe_intermediate_size": H, "intermediate_size": DENSE}
        m = Maker(family, config(model_type, **sizes), label=label)
        outside(m)
        layers = 3 if model_type != "deepseek_v2" else 2
        for layer in range(layers):
            at = f"model.layers.{layer}."
            stack, b = ("decoder", layer) if layer < 2 else ("mtp", 0)
            norms(m, at, b, SANDWICH if family == "pangu_ultra_moe" else LLAMA, stack=stack)
            if family == "glm4_moe":
                attention(m, f"{at}self_attn.", b, stack=stack)
                qk_norms(m, f"{at}self_attn.", b, stack=stack)
            else:
                mla(m, f"{at}self_attn.", b, q_rank=q_rank, stack=stack)
            if stack == "mtp":
                m.put(f"{at}enorm.weight", "mtp_embedding_norm", D, block=b, stack=stack)
                m.put(f"{at}hnorm.weight", "mtp_hidden_norm", D, block=b, stack=stack)
                m.put(f"{at}eh_proj.weight", "mtp_projection", D, 2 * D, block=b, stack=stack)
                m.put(f"{at}embed_tokens.weight", "embedding", V, D, block=b, stack=stack)
                m.put(f"{at}shared_head.norm.weight", "final_norm", D, block=b, stack=stack)
                m.put(f"{at}shared_head.head.weight", "head", V, D, block=b, stack=stack)
            if layer == 0:
                gated(m, f"{at}mlp.", b, h=DENSE)
                continue
            m.put(f"{at}mlp.gate.weight", "router", E, D, block=b, stack=stack)
            if model_type != "deepseek_v2":
                m.put(f"{at}mlp.gate.e_score_correction_bias", "router_correction", E, block=b, stack=stack)
            if experts == "fused" and stack == "decoder":
                fused(m, f"{at}mlp.experts.", b)
            else:
                one_by_one(m, f"{at}mlp.experts.", b, PROJ, stack=stack)
            shared(m, f"{at}mlp.shared_experts.", b, stack=stack)
        return m.done()

    return make


def hunyuan_moe() -> Miniature:
    m = Maker("hunyuan_moe", config("hunyuan_v1_moe", num_experts=E, intermediate_size=H))
    outside(m, head=False)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        norms(m, at, b)
        attention(m, f"{at}self_attn.", b)
        qk_norms(m, f"{at}self_attn.", b, ("query_layernorm", "key_layernorm"))
        m.put(f"{at}mlp.gate.wg.weight", "router", E, D, block=b)
        one_by_one(m, f"{at}mlp.experts.", b, PROJ)
        shared(m, f"{at}mlp.shared_mlp.", b)
    return m.done()


def gpt_oss() -> Miniature:
    """Gate and up channels in turn along the last axis, biases likewise, a sink for each head."""
    m = Maker("gpt_oss", config("gpt_oss", num_local_experts=E, intermediate_size=H))
    outside(m)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        norms(m, at, b)
        attention(m, f"{at}self_attn.", b)
        for role, n in (("q", N), ("k", KV * HD), ("v", KV * HD), ("o", D)):
            m.put(f"{at}self_attn.{role}_proj.bias", f"{role}_bias", n, block=b)
        m.put(f"{at}self_attn.sinks", "sinks", HEADS, block=b)
        m.put(f"{at}mlp.router.weight", "router", E, D, block=b)
        m.put(f"{at}mlp.router.bias", "router_bias", E, block=b)
        gate_up, bias = np.empty((E, D, 2 * H)), np.empty((E, 2 * H))
        for offset, role in enumerate(("gate", "up")):
            gate_up[:, :, offset::2] = np.stack([w.T for w in all_experts(m, role, H, D, block=b)])
            bias[:, offset::2] = np.stack(all_experts(m, f"{role}_bias", H, block=b))
        m[f"{at}mlp.experts.gate_up_proj"] = gate_up
        m[f"{at}mlp.experts.gate_up_proj_bias"] = bias
        m[f"{at}mlp.experts.down_proj"] = np.stack([w.T for w in all_experts(m, "down", D, H, block=b)])
        m[f"{at}mlp.experts.down_proj_bias"] = np.stack(all_experts(m, "down_bias", D, block=b))
    return m.done()


def llama4() -> Miniature:
    """The language part of Llama 4: a dense block, then a sparse one."""
    text = config("llama4_text", num_local_experts=E, intermediate_size=H, intermediate_size_mlp=DENSE)
    m = Maker("llama4", {"model_type": "llama4", "text_config": text})
    prefix = "language_model.model."
    m.put(f"{prefix}embed_tokens.weight", "embedding", V, D)
    m.put(f"{prefix}norm.weight", "final_norm", D)
    m.put("language_model.lm_head.weight", "head", V, D)
    for b in range(BLOCKS):
        at = f"{prefix}layers.{b}."
        norms(m, at, b)
        attention(m, f"{at}self_attn.", b)
        if b == 0:
            gated(m, f"{at}feed_forward.", b, h=DENSE)
            continue
        m.put(f"{at}feed_forward.router.weight", "router", E, D, block=b)
        fused_turned(m, f"{at}feed_forward.experts.", b)
        shared(m, f"{at}feed_forward.shared_expert.", b)
    return m.done()


def granite_moe(style: str) -> Callable[[], Miniature]:
    def make() -> Miniature:
        label = "" if style == "granite_moe" else style
        m = Maker("granite_moe", config("granitemoeshared", num_local_experts=E, intermediate_size=H), label=label)
        outside(m, head=False)
        for b in range(BLOCKS):
            at = f"model.layers.{b}."
            norms(m, at, b)
            attention(m, f"{at}self_attn.", b)
            gate, up = all_experts(m, "gate", H, D, block=b), all_experts(m, "up", H, D, block=b)
            both = np.stack([np.vstack(pair) for pair in zip(gate, up, strict=True)])
            down = np.stack(all_experts(m, "down", D, H, block=b))
            if style == "granite_moe_fused":
                m.put(f"{at}block_sparse_moe.router.weight", "router", E, D, block=b)
                m[f"{at}block_sparse_moe.experts.gate_up_proj"] = both
                m[f"{at}block_sparse_moe.experts.down_proj"] = down
                continue
            m.put(f"{at}block_sparse_moe.router.layer.weight", "router", E, D, block=b)
            m[f"{at}block_sparse_moe.input_linear.weight"] = both
            m[f"{at}block_sparse_moe.output_linear.weight"] = down
            one = [m.draw(role, SHARED, D, block=b, expert="shared") for role in ("gate", "up")]
            m[f"{at}shared_mlp.input_linear.weight"] = np.vstack(one)
            m.put(f"{at}shared_mlp.output_linear.weight", "down", D, SHARED, block=b, expert="shared")
        return m.done()

    return make


def dbrx() -> Miniature:
    """Experts one below the other; w2 multiplies from the right, so it is stored (in x out)."""
    m = Maker(
        "dbrx",
        {
            "model_type": "dbrx",
            "d_model": N,
            "n_heads": HEADS,
            "n_layers": BLOCKS,
            "attn_config": {"kv_n_heads": KV},
            "ffn_config": {"ffn_hidden_size": H, "moe_num_experts": E},
        },
    )
    m.put("transformer.wte.weight", "embedding", V, N)
    for b in range(BLOCKS):
        at = f"transformer.blocks.{b}."
        m.put(f"{at}norm_attn_norm.norm_1.weight", "attn_norm", N, block=b)
        m[f"{at}norm_attn_norm.attn.Wqkv.weight"] = np.concatenate(qkv(m, b, d=N))
        m.put(f"{at}norm_attn_norm.attn.out_proj.weight", "o", N, N, block=b)
        m.put(f"{at}norm_attn_norm.norm_2.weight", "ffn_norm", N, block=b)
        m.put(f"{at}ffn.router.layer.weight", "router", E, N, block=b)
        m[f"{at}ffn.experts.mlp.w1"] = np.stack(all_experts(m, "gate", H, N, block=b)).reshape(E * H, N)
        m[f"{at}ffn.experts.mlp.v1"] = np.stack(all_experts(m, "up", H, N, block=b)).reshape(E * H, N)
        m[f"{at}ffn.experts.mlp.w2"] = np.concatenate([w.T for w in all_experts(m, "down", N, H, block=b)])
    m.put("transformer.norm_f.weight", "final_norm", N)
    m.put("lm_head.weight", "head", V, N)
    return m.done()


def qwen3_next() -> Miniature:
    """Gated delta blocks and gated attention; q_proj holds for each head its query, then its gate."""
    m = Maker("qwen3_next", config("qwen3_next", num_experts=E, moe_intermediate_size=H))
    outside(m)
    for stack, b in (("decoder", 0), ("decoder", 1), ("mtp", 0)):
        at = f"model.layers.{b}." if stack == "decoder" else f"mtp.layers.{b}."
        norms(m, at, b, stack=stack)
        if stack == "decoder" and b == 0:
            heads, values, size = 2, 4, 3
            m.put(f"{at}linear_attn.in_proj_qkvz.weight", "ssm_in", 2 * (heads + values) * size, D, block=b)
            m.put(f"{at}linear_attn.in_proj_ba.weight", "ssm_x", 2 * values, D, block=b)
            m.put(f"{at}linear_attn.conv1d.weight", "ssm_conv", (2 * heads + values) * size, 1, 4, block=b)
            m.put(f"{at}linear_attn.dt_bias", "ssm_dt_bias", values, block=b)
            m.put(f"{at}linear_attn.A_log", "ssm_a", values, block=b)
            m.put(f"{at}linear_attn.norm.weight", "ssm_inner_norm", size, block=b)
            m.put(f"{at}linear_attn.out_proj.weight", "ssm_out", D, values * size, block=b)
        else:
            q, gate = (m.draw(role, N, D, block=b, stack=stack) for role in ("q", "attn_gate"))
            by_head = np.stack([q.reshape(HEADS, HD, D), gate.reshape(HEADS, HD, D)], axis=1)
            m[f"{at}self_attn.q_proj.weight"] = by_head.reshape(2 * N, D)
            m.put(f"{at}self_attn.k_proj.weight", "k", KV * HD, D, block=b, stack=stack)
            m.put(f"{at}self_attn.v_proj.weight", "v", KV * HD, D, block=b, stack=stack)
            m.put(f"{at}self_attn.o_proj.weight", "o", D, N, block=b, stack=stack)
            qk_norms(m, f"{at}self_attn.", b, stack=stack)
        m.put(f"{at}mlp.gate.weight", "router", E, D, block=b, stack=stack)
        one_by_one(m, f"{at}mlp.experts.", b, PROJ, stack=stack)
        shared(m, f"{at}mlp.shared_expert.", b, stack=stack)
        m.put(f"{at}mlp.shared_expert_gate.weight", "shared_gate", 1, D, block=b, stack=stack)
    m.put("mtp.fc.weight", "mtp_projection", D, 2 * D, stack="mtp")
    m.put("mtp.pre_fc_norm_embedding.weight", "mtp_embedding_norm", D, stack="mtp")
    m.put("mtp.pre_fc_norm_hidden.weight", "mtp_hidden_norm", D, stack="mtp")
    m.put("mtp.norm.weight", "final_norm", D, stack="mtp")
    return m.done()


def flex_olmo() -> Miniature:
    """OLMo 2's norms behind attention and FFN, q and k norms over all heads, routed experts."""
    m = Maker("flex_olmo", config("flex_olmo", num_experts=E, num_experts_per_tok=2))
    outside(m)
    for b in range(BLOCKS):
        at = f"model.layers.{b}."
        norms(m, at, b, {"post_attention_layernorm": "attn_post_norm", "post_feedforward_layernorm": "ffn_post_norm"})
        attention(m, f"{at}self_attn.", b)
        m.put(f"{at}self_attn.q_norm.weight", "q_norm", N, block=b)
        m.put(f"{at}self_attn.k_norm.weight", "k_norm", KV * HD, block=b)
        m.put(f"{at}mlp.gate.weight", "router", E, D, block=b)
        one_by_one(m, f"{at}mlp.experts.", b, PROJ)
    return m.done()


MINIATURES = [
    flex_olmo,
    mixtral("mixtral"),
    mixtral("mixtral_fused"),
    mixtral("phimoe"),
    qwen_moe("qwen2_moe"),
    qwen_moe("qwen2_moe", experts="fused", label="qwen2_moe_fused"),
    qwen_moe("qwen3_moe"),
    qwen_moe("qwen3_moe", experts="fused", label="qwen3_moe_fused"),
    qwen_moe("qwen3_moe", model_type="olmoe", label="olmoe"),
    qwen_moe("qwen3_vl_moe", experts="turned"),
    qwen_moe("pangu_pro_moe", model_type="PanguProMoE"),
    qwen_moe("deepseek_moe", model_type="deepseek"),
    qwen_moe("ernie4_5_moe"),
    deepseek("deepseek", "deepseek_v2", q_rank=None, label="deepseek_v2_lite"),
    deepseek("deepseek", "deepseek_v3"),
    deepseek("deepseek", "deepseek_v3", experts="fused", label="deepseek_v3_fused"),
    deepseek("pangu_ultra_moe", "pangu_ultra_moe"),
    deepseek("glm4_moe", "glm4_moe"),
    hunyuan_moe,
    gpt_oss,
    llama4,
    granite_moe("granite_moe"),
    granite_moe("granite_moe_fused"),
    dbrx,
    qwen3_next,
]
